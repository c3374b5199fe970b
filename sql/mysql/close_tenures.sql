-- With a take-over by process ?1: the records of earlier tenures that nobody closed get a reason: what can be known after
-- ?4 milliseconds, the lease. The server runs for ?2 (and ?3) seconds.
UPDATE {group}_tenure AS t
LEFT JOIN {group}_broker AS l ON l.instance = t.instance
SET
    t.ended = UTC_TIMESTAMP(3),
    t.reason = CASE
        WHEN t.instance = ? THEN 'it lost the lock, and took over again'
        WHEN UTC_TIMESTAMP(3) - INTERVAL ? SECOND > t.began AND UTC_TIMESTAMP(3) - INTERVAL ? SECOND > l.seen
            THEN 'the database restarted, and it did not come back in time'
        WHEN l.seen > UTC_TIMESTAMP(3) - INTERVAL ? * 500 MICROSECOND
            THEN 'its session ended without a word: it was killed, or its session was'
        ELSE 'nothing was heard of it any more: it was frozen, or cut off'
    END
WHERE t.ended IS NULL
