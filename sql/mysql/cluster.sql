-- What every session on a node of a Galera cluster relies on besides. It reads what was committed on any node before
-- (R15), and nothing on a node without the majority; a transaction goes to the other nodes whole, when it commits.
SET SESSION wsrep_sync_wait = 1, wsrep_dirty_reads = OFF, wsrep_trx_fragment_size = 0
