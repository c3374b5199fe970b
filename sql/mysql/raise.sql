-- Raises term and token, and records this session as the one that writes. The transaction holds the row already, and
-- has seen that nobody took over.
UPDATE {group}_baton
SET term = ?, token = ?, batch = ?, writer_session = CONNECTION_ID(), writer_mark = ?
WHERE id = 1
