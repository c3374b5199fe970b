-- The next rows of a queue (?1) at or below its purge (?2), at most ?3.
SELECT m.sequence
FROM {group}_message AS m FORCE INDEX (message_of_queue)
WHERE m.queue = ? AND m.priority IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9) AND m.sequence <= ?
LIMIT ?
