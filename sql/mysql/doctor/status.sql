-- What matters of a server's counters; those that it does not have are left out.
SHOW GLOBAL STATUS WHERE variable_name IN (
    'rpl_semi_sync_master_status', 'rpl_semi_sync_source_status', 'slaves_connected', 'threads_connected',
    'wsrep_cluster_size'
)
