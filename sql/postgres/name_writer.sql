-- Names this session as the one that writes, before it holds the row for a recovery: should it hang there, a take-over
-- can end it. A take-over leaves the place empty; whoever is named already is left there, because it may have to be
-- ended first.
UPDATE {group}.baton
SET
    writer_pid = pg_backend_pid(),
    writer_started = (SELECT a.backend_start FROM pg_stat_activity AS a WHERE a.pid = pg_backend_pid())
WHERE id = 1 AND writer_pid IS NULL
