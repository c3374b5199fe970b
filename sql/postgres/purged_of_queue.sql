-- The next rows of a queue ($1) at or below its purge ($2), at most $3 of each priority.
SELECT rest.sequence
FROM generate_series(0, 9) AS priority
CROSS JOIN LATERAL (
    SELECT m.sequence
    FROM {group}.message AS m
    WHERE m.queue IS NOT NULL
        AND (m.queue, m.priority, m.sequence) >= ($1, priority, 0)
        AND (m.queue, m.priority, m.sequence) <= ($1, priority, $2)
    ORDER BY m.queue, m.priority, m.sequence
    LIMIT $3
) AS rest
LIMIT $3
