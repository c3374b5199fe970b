-- The holder ($1) gives the baton back, and says why ($2).
WITH released AS (
    UPDATE {group}.baton
    SET released = true, lock_pid = NULL, lock_started = NULL, writer_pid = NULL, writer_started = NULL
    WHERE id = 1 AND instance = $1
    RETURNING 1
)
UPDATE {group}.tenure SET ended = clock_timestamp(), reason = $2
WHERE instance = $1 AND ended IS NULL AND EXISTS (SELECT FROM released)
