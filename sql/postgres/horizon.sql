-- The number of the next transaction; the oldest one behind which somebody may still look, so that what it and all
-- after it deleted can't be cleaned; and who that is. A session that vacuums looks behind nothing. And how large the
-- table of the messages is.
SELECT
    now.next, now.next - coalesce(oldest.age, 0) AS oldest, oldest.who,
    (SELECT c.reltuples::bigint FROM pg_class AS c WHERE c.oid = '{group}.message'::regclass) AS messages,
    pg_table_size('{group}.message'::regclass) AS bytes
FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next) AS now
LEFT JOIN LATERAL (
    SELECT held.age, held.who
    FROM (
        SELECT
            greatest(age(a.backend_xid), age(a.backend_xmin)) AS age,
            format('session %s (%s)', a.pid, a.application_name) AS who
        FROM pg_stat_activity AS a
        WHERE (a.datname = current_database() OR a.datid IS NULL) AND a.pid <> pg_backend_pid()
            AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
        UNION ALL
        SELECT age(s.xmin), format('replication slot %s', s.slot_name)
        FROM pg_replication_slots AS s
        WHERE s.wal_status IS DISTINCT FROM 'lost'
        UNION ALL
        SELECT age(p.transaction), format('prepared transaction %s', p.gid)
        FROM pg_prepared_xacts AS p
        WHERE p.database = current_database()
    ) AS held
    WHERE held.age IS NOT NULL
    ORDER BY held.age DESC
    LIMIT 1
) AS oldest ON true
