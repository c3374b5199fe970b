-- A queue's ($1) messages of a priority ($2) after $3 and up to $4: at most $5, of $6 bytes together, one at least.
-- Behind them comes one row without a message if there is more.
--
-- The comparisons of rows can be followed along one index only, whatever the statistics say. No body is read that is
-- not sent.
SELECT s.*
FROM (
    SELECT c.sequence, c.number, c.number = 1 OR (c.number <= $5 AND c.bytes <= $6) AS fits
    FROM (
        SELECT m.sequence, m.size, row_number() OVER line AS number, sum(m.size) OVER line AS bytes
        FROM {group}.message AS m
        WHERE m.queue IS NOT NULL
            AND (m.queue, m.priority, m.sequence) > ($1, $2, $3) AND (m.queue, m.priority, m.sequence) <= ($1, $2, $4)
        WINDOW line AS (ORDER BY m.queue, m.priority, m.sequence ROWS UNBOUNDED PRECEDING)
        LIMIT $5::bigint + 1
    ) AS c
    WHERE c.number <= 2 OR c.bytes - c.size <= $6
) AS c
LEFT JOIN LATERAL (
    SELECT s.* FROM {group}.stored_message AS s WHERE c.fits AND s.sequence = c.sequence OFFSET 0
) AS s ON true
ORDER BY c.number
