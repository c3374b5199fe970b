-- What decides whether a confirmed message survives, and whether there is room for brokers.
SELECT
    current_user::text AS role, current_setting('server_version') AS version,
    current_setting('fsync') = 'on' AS fsync, current_setting('full_page_writes') = 'on' AS full_page_writes,
    current_setting('synchronous_standby_names') <> '' AS waits_for_standby,
    (SELECT count(*) FROM pg_stat_replication AS r) AS replicas,
    current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
        - (SELECT count(*) FROM pg_stat_activity AS a WHERE a.backend_type = 'client backend') AS connections_left,
    has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') AS may_identify
