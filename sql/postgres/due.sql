-- What comes due behind a time ($1) and sequence ($2), soonest first, the first $3 and a few more: messages that
-- expire (durable: -1) and those that return to a queue (0) or to a durable subscription (its id). What returns at one
-- time for one message comes together.
SELECT d.at, d.sequence, d.durable, m.size
FROM (
    (
        SELECT m.expires AS at, m.sequence, -1::bigint AS durable
        FROM {group}.message AS m
        WHERE m.expires IS NOT NULL AND (m.expires, m.sequence) > ($1, $2)
        ORDER BY m.expires, m.sequence
        LIMIT $3
    )
    UNION ALL
    (
        SELECT r.due, r.sequence, r.durable
        FROM {group}.returned AS r
        WHERE r.due IS NOT NULL AND (r.due, r.sequence) > ($1, $2)
        ORDER BY r.due, r.sequence
        FETCH FIRST ($3) ROWS WITH TIES
    )
) AS d
CROSS JOIN LATERAL (SELECT m.size FROM {group}.message AS m WHERE m.sequence = d.sequence OFFSET 0) AS m
ORDER BY d.at, d.sequence, d.durable
