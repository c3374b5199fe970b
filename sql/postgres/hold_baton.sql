-- The row of the baton, held to the end of the transaction: what is being written ends first, nothing can follow it. And where
-- the database is in its history, as in look.sql; all transactions before the next one ended, or are lost.
SELECT
    b.term, b.token, b.last_destination, b.last_durable, s.system_identifier::text AS system,
    substr(pg_walfile_name(w.flushed), 1, 8) AS timeline, pg_wal_lsn_diff(w.flushed, '0/0')::bigint AS flushed,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_transaction
FROM {group}.baton AS b
CROSS JOIN (SELECT pg_current_wal_flush_lsn() AS flushed) AS w
CROSS JOIN pg_control_system() AS s
WHERE b.id = 1
FOR UPDATE OF b
