-- What the server is like, as far as it matters to us. The format of the binary log is NULL if there is none.
SELECT
    VERSION(), CONCAT(@@GLOBAL.read_only) NOT IN ('0', 'OFF') OR @@GLOBAL.innodb_read_only, @@GLOBAL.max_allowed_packet,
    IF(@@GLOBAL.log_bin, @@GLOBAL.binlog_format, NULL), @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.sync_binlog
