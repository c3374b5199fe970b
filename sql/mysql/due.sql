-- What comes due behind a time and a sequence, soonest first, the first `rows_max` and a few more: messages
-- that expire (durable: -1) and those that return to a queue (0) or to a durable subscription (its id). What returns at
-- one time for one message comes together.
SELECT d.at, d.sequence, d.durable, m.size
FROM (
    (
        SELECT e.expires AS at, e.sequence, -1 AS durable
        FROM {group}_message AS e FORCE INDEX (message_expiring)
        WHERE e.expires > :at OR (e.expires = :at AND e.sequence > :sequence)
        ORDER BY e.expires, e.sequence
        LIMIT :rows_max
    )
    UNION ALL
    SELECT r.due, r.sequence, r.durable
    FROM (
        SELECT DISTINCT f.due, f.sequence
        FROM {group}_returned AS f FORCE INDEX (returned_due)
        WHERE f.due > :at OR (f.due = :at AND f.sequence > :sequence)
        ORDER BY f.due, f.sequence
        LIMIT :rows_max
    ) AS g
    STRAIGHT_JOIN {group}_returned AS r FORCE INDEX (PRIMARY) ON r.sequence = g.sequence AND r.due = g.due
) AS d
STRAIGHT_JOIN {group}_message AS m FORCE INDEX (PRIMARY) ON m.sequence = d.sequence
ORDER BY d.at, d.sequence, d.durable
