-- The next durable subscription behind ? that holds something. See next_queue.sql.
SELECT h.durable
FROM {group}_held AS h FORCE INDEX (held_by_durable)
WHERE h.durable > ?
ORDER BY h.durable
LIMIT 1
