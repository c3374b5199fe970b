-- Whether the tables whose rows come and go are ours to vacuum, whether autovacuum is told to leave them alone, and how
-- many dead rows the server knows of.
SELECT
    bool_and(pg_has_role(c.relowner, 'USAGE')) AS ours,
    coalesce(bool_or(c.reloptions && ARRAY['autovacuum_enabled=off', 'autovacuum_enabled=false']), false) AS left_alone,
    coalesce(sum(pg_stat_get_dead_tuples(c.oid)), 0)::bigint AS dead
FROM pg_class AS c
WHERE c.oid IN ('{group}.message'::regclass, '{group}.held'::regclass, '{group}.returned'::regclass)
