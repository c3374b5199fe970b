-- The holder ($1) got its lock back on this session, and nobody took over meanwhile.
UPDATE {group}.baton
SET
    lock_pid = pg_backend_pid(),
    lock_started = (SELECT a.backend_start FROM pg_stat_activity AS a WHERE a.pid = pg_backend_pid())
WHERE id = 1 AND instance = $1
