-- For people: who holds the baton, and whether the lock ($1) or the lease is held at this moment.
SELECT
    b.term, b.token, b.holder, b.instance, b.released,
    EXISTS (
        SELECT FROM pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
            AND l.classid = (($1::bigint >> 32) & 4294967295)::oid AND l.objid = ($1::bigint & 4294967295)::oid
    ) AS is_locked,
    (extract(epoch FROM clock_timestamp() - b.since) * 1000)::bigint AS held_for_ms,
    CASE WHEN isfinite(e.until) THEN (extract(epoch FROM e.until - clock_timestamp()) * 1000)::bigint END AS lease_left_ms
FROM {group}.baton AS b
CROSS JOIN {group}.lease AS e
WHERE b.id = 1 AND e.id = 1
