-- Who we are here, and whether there is room for brokers.
SELECT
    current_user::text AS role, current_setting('server_version') AS version,
    current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
        - (SELECT count(*) FROM pg_stat_activity AS a WHERE a.backend_type = 'client backend') AS connections_left,
    has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') AS may_identify
