-- The next parts of a durable subscription ($1) at or below its purge ($2), at most $3 of each priority.
SELECT rest.sequence
FROM generate_series(0, 9) AS priority
CROSS JOIN LATERAL (
    SELECT h.sequence
    FROM {group}.held AS h
    WHERE (h.durable, h.priority, h.sequence) >= ($1, priority, 0)
        AND (h.durable, h.priority, h.sequence) <= ($1, priority, $2)
    ORDER BY h.durable, h.priority, h.sequence
    LIMIT $3
) AS rest
LIMIT $3
