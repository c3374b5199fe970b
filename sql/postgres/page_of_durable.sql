-- A durable subscription's ($1) messages of a priority ($2) after $3 and up to $4: at most $5, of $6 bytes together,
-- one at least. Behind them comes one row without a message if there is more. See page_of_queue.sql.
SELECT s.*
FROM (
    SELECT c.sequence, c.number, c.number = 1 OR (c.number <= $5 AND c.bytes <= $6) AS fits
    FROM (
        SELECT h.sequence, h.size, row_number() OVER line AS number, sum(h.size) OVER line AS bytes
        FROM {group}.held AS h
        WHERE (h.durable, h.priority, h.sequence) > ($1, $2, $3) AND (h.durable, h.priority, h.sequence) <= ($1, $2, $4)
        WINDOW line AS (ORDER BY h.durable, h.priority, h.sequence ROWS UNBOUNDED PRECEDING)
        LIMIT $5::bigint + 1
    ) AS c
    WHERE c.number <= 2 OR c.bytes - c.size <= $6
) AS c
LEFT JOIN LATERAL (
    SELECT s.* FROM {group}.stored_message AS s WHERE c.fits AND s.sequence = c.sequence OFFSET 0
) AS s ON true
ORDER BY c.number
