-- Raises term ($1) and token ($2) if nobody took over since the last term that we know ($3), and records this session
-- as the one that writes. If the answer to an earlier raise to this term was lost, the row may hold what that one
-- wrote: one of these tokens ($4), from its session ($5).
UPDATE {group}.baton
SET
    term = $1, token = $2, writer_pid = pg_backend_pid(),
    writer_started = (SELECT a.backend_start FROM pg_stat_activity AS a WHERE a.pid = pg_backend_pid())
WHERE id = 1
    AND (term = $3 OR (term = $1 AND (token, writer_pid) IN (SELECT * FROM unnest($4::bigint[], $5::integer[]))))
    AND term <= $1 AND token < $2
