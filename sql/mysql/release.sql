-- The holder (?) gives the baton back.
UPDATE {group}_baton
SET released = TRUE, lock_session = NULL, lock_mark = NULL, writer_session = NULL, writer_mark = NULL
WHERE id = 1 AND instance = ?
