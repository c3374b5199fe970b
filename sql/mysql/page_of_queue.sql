-- Where a queue's (?1) messages of a priority (?2) after ?3 and up to ?4 are, and how large: the first ?5.
SELECT m.sequence, m.size
FROM {group}_message AS m FORCE INDEX (message_of_queue)
WHERE m.queue = ? AND m.priority = ? AND m.sequence > ? AND m.sequence <= ?
ORDER BY m.sequence
LIMIT ?
