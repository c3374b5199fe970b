-- What the server is like, as far as it matters to us. The format of the binary log is NULL if there is none. The last
-- two tell whether it is a node of a Galera cluster, and whether that has its majority; a node answers this even without
-- it. (See session.sql for the comments.)
SELECT
    VERSION(), CONCAT(@@GLOBAL.read_only) NOT IN ('0', 'OFF') OR @@GLOBAL.innodb_read_only, @@GLOBAL.max_allowed_packet,
    IF(@@GLOBAL.log_bin, @@GLOBAL.binlog_format, NULL), @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.sync_binlog,
    (
        SELECT v.variable_value
        FROM /*M! information_schema.global_variables */ /*!80000 performance_schema.global_variables */ AS v
        WHERE v.variable_name = 'wsrep_on'
    ),
    (
        SELECT s.variable_value
        FROM /*M! information_schema.global_status */ /*!80000 performance_schema.global_status */ AS s
        WHERE s.variable_name = 'wsrep_ready'
    )
