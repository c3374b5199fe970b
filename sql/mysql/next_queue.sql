-- The next queue behind ? that holds something. Jumps in the index, however many messages there are.
SELECT m.queue
FROM {group}_message AS m FORCE INDEX (message_of_queue)
WHERE m.queue > ?
ORDER BY m.queue
LIMIT 1
