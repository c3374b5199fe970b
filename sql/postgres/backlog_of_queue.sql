-- How much a queue ($1) holds above its purge ($2) and up to $3, by priority.
SELECT m.priority, count(*), sum(m.size)
FROM {group}.message AS m
WHERE m.queue = $1 AND m.sequence > $2 AND m.sequence <= $3
GROUP BY m.priority
