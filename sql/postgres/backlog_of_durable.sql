-- How much a durable subscription ($1) holds above its purge ($2) and up to $3, by priority.
SELECT h.priority, count(*), sum(h.size)
FROM {group}.held AS h
WHERE h.durable = $1 AND h.sequence > $2 AND h.sequence <= $3
GROUP BY h.priority
