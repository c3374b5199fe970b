-- How much a queue (?1) holds above its purge (?2) and up to ?3, by priority.
SELECT m.priority, COUNT(*), CAST(SUM(m.size) AS SIGNED)
FROM {group}_message AS m FORCE INDEX (message_of_queue)
WHERE m.queue = ? AND m.sequence > ? AND m.sequence <= ?
GROUP BY m.priority
