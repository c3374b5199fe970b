-- Sessions that hold the lock of a group ($1: its number) and are no broker's.
SELECT a.pid, a.usename::text AS role, coalesce(a.application_name, '') AS application
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
    AND l.classid = (($1::bigint >> 32) & 4294967295)::oid AND l.objid = ($1::bigint & 4294967295)::oid
    AND coalesce(a.application_name, '') NOT LIKE 'batonmq % lock'
