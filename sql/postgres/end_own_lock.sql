-- Ends the session on which this process ($1) held the lock, if the row still says so.
SELECT pg_terminate_backend(a.pid)
FROM {group}.baton AS b
JOIN pg_stat_activity AS a ON a.pid = b.lock_pid AND a.backend_start = b.lock_started
WHERE b.id = 1 AND b.instance = $1 AND a.pid <> pg_backend_pid()
