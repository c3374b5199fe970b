-- Names this session, and its mark (?), as the one that writes, before it holds the row for a recovery: should it hang
-- there, a take-over can end it. A take-over leaves the place empty; whoever is named already is left there, because it
-- may have to be ended first.
UPDATE {group}_baton SET writer_session = CONNECTION_ID(), writer_mark = ? WHERE id = 1 AND writer_session IS NULL
