-- Who holds the baton, and where the database is in its history: which system, on which timeline (that of the WAL that is
-- written now; the control file's is late after a promotion), and how much of its WAL is safe on disk.
SELECT
    b.term, b.token, b.holder, b.instance, b.released, s.system_identifier::text AS system,
    substr(pg_walfile_name(w.flushed), 1, 8) AS timeline, pg_wal_lsn_diff(w.flushed, '0/0')::bigint AS flushed
FROM {group}.baton AS b
CROSS JOIN (SELECT pg_current_wal_flush_lsn() AS flushed) AS w
CROSS JOIN pg_control_system() AS s
WHERE b.id = 1
