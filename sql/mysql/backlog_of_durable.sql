-- How much a durable subscription (?1) holds above its purge (?2) and up to ?3, by priority.
SELECT h.priority, COUNT(*), CAST(SUM(h.size) AS SIGNED)
FROM {group}_held AS h FORCE INDEX (held_by_durable)
WHERE h.durable = ? AND h.sequence > ? AND h.sequence <= ?
GROUP BY h.priority
