-- The take-over by a broker (?3, process ?4) whose session (with the mark ?5) holds the lock, or which took the lease: a
-- tenure above the row's and above all that the broker ever saw (?1, ?2). The transaction holds the row already, so nothing
-- is being written; what is written later proves an older token, in vain.
UPDATE {group}_baton
SET
    term = GREATEST(term, ?) + 1, token = GREATEST(token, ?) + 1, holder = ?, instance = ?, released = FALSE,
    since = UTC_TIMESTAMP(3), lock_session = CONNECTION_ID(), lock_mark = ?, writer_session = NULL, writer_mark = NULL
WHERE id = 1
