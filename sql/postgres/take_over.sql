-- The take-over by a broker ($1, process $2) whose session holds the lock: a tenure above the row's and above all that the
-- broker ever saw ($3, $4). It waits for what is being written; what is written later proves an older token, in vain.
-- The records of earlier tenures that nobody closed get a reason: what can be known after $5 milliseconds, the lease.
WITH taken AS (
    UPDATE {group}.baton AS b
    SET
        term = greatest(b.term, $3) + 1, token = greatest(b.token, $4) + 1, holder = $1, instance = $2,
        released = false, since = clock_timestamp(), lock_pid = pg_backend_pid(),
        lock_started = (SELECT a.backend_start FROM pg_stat_activity AS a WHERE a.pid = pg_backend_pid()),
        writer_pid = NULL, writer_started = NULL
    WHERE b.id = 1
    RETURNING b.term, b.token
),
owned AS (
    UPDATE {group}.lease AS e SET token = taken.token FROM taken WHERE e.id = 1    -- whoever had it before lost it
),
closed AS (
    UPDATE {group}.tenure AS t
    SET
        ended = clock_timestamp(),
        reason = CASE
            WHEN t.instance = $2 THEN 'it lost the lock, and took over again'
            WHEN pg_postmaster_start_time() > t.began AND pg_postmaster_start_time() > l.seen
                THEN 'the database restarted, and it did not come back in time'
            WHEN l.seen > clock_timestamp() - $5 * interval '0.5 milliseconds'
                THEN 'its session ended without a word: it was killed, or its session was'
            ELSE 'nothing was heard of it any more: it was frozen, or cut off'
        END
    FROM {group}.tenure AS u
    LEFT JOIN {group}.broker AS l ON l.instance = u.instance
    WHERE t.token = u.token AND t.ended IS NULL
),
begun AS (
    INSERT INTO {group}.tenure (token, term, broker, instance)
    SELECT taken.token, taken.term, $1, $2 FROM taken
)
SELECT taken.term, taken.token FROM taken
