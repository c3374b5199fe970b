-- Everybody who holds something. Jumps from one holder to the next in the index: it takes as long for millions of
-- messages as for none.
WITH RECURSIVE queues AS (
    (
        SELECT m.queue AS id
        FROM {group}.message AS m
        WHERE m.queue IS NOT NULL
        ORDER BY m.queue, m.priority, m.sequence
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT m.queue
        FROM {group}.message AS m
        WHERE m.queue IS NOT NULL AND m.queue > q.id
        ORDER BY m.queue, m.priority, m.sequence
        LIMIT 1
    )
    FROM queues AS q
    WHERE q.id IS NOT NULL
),
durables AS (
    (SELECT h.durable AS id FROM {group}.held AS h ORDER BY h.durable, h.priority, h.sequence LIMIT 1)
    UNION ALL
    SELECT (
        SELECT h.durable
        FROM {group}.held AS h
        WHERE h.durable > d.id
        ORDER BY h.durable, h.priority, h.sequence
        LIMIT 1
    )
    FROM durables AS d
    WHERE d.id IS NOT NULL
)
SELECT 'queue' AS holder_kind, q.id AS holder FROM queues AS q WHERE q.id IS NOT NULL
UNION ALL
SELECT 'durable', d.id FROM durables AS d WHERE d.id IS NOT NULL
