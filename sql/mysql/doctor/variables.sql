-- What matters of a server's settings; those that it does not have are left out.
SHOW GLOBAL VARIABLES WHERE variable_name IN (
    'innodb_doublewrite', 'innodb_flush_method', 'max_connections',
    'rpl_semi_sync_master_enabled', 'rpl_semi_sync_master_timeout',
    'rpl_semi_sync_source_enabled', 'rpl_semi_sync_source_timeout',
    'wsrep_osu_method', 'wsrep_provider_options'
)
