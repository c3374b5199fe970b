-- Ends the sessions that the row names, and no others: the process id alone could be somebody else's by now. The start of a
-- session of another role is not shown to us, so such a session never fits. Whoever goes on in a term ($1; NULL: it takes
-- over) ends nobody's that took over.
SELECT pg_terminate_backend(a.pid)
FROM {group}.baton AS b
JOIN pg_stat_activity AS a
    ON (a.pid = b.lock_pid AND a.backend_start = b.lock_started)
    OR (a.pid = b.writer_pid AND a.backend_start = b.writer_started)
WHERE b.id = 1 AND a.pid <> pg_backend_pid() AND a.application_name LIKE 'batonmq %'
    AND ($1::integer IS NULL OR b.term <= $1)
