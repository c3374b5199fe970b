-- What decides whether a confirmed message survives a crash of the server, and the loss of its machine. A session that
-- said nothing itself learns what its synchronous_commit is, and who says so.
SELECT
    current_setting('fsync') = 'on' AS fsync, current_setting('full_page_writes') = 'on' AS full_page_writes,
    current_setting('synchronous_standby_names') AS standbys,
    (SELECT count(*) FROM pg_stat_replication AS r) AS replicas,
    c.setting AS synchronous_commit, c.source
FROM pg_settings AS c
WHERE c.name = 'synchronous_commit'
