-- What came back, or is inserted as if it had: only with a message that is new here, or for who holds it. Before
-- messages are inserted. ?: [[sequence, queue, durable, deliveries, failures, due, is_new], …]
INSERT INTO {group}_returned (sequence, durable, deliveries, failures, due)
SELECT b.sequence, b.durable, b.deliveries, b.failures, b.due
FROM JSON_TABLE(?, '$[*]' COLUMNS (
    sequence BIGINT PATH '$[0]', queue BIGINT PATH '$[1]', durable BIGINT PATH '$[2]', deliveries INT PATH '$[3]',
    failures INT PATH '$[4]', due BIGINT PATH '$[5]', is_new INT PATH '$[6]'
)) AS b
LEFT JOIN {group}_message AS m FORCE INDEX (PRIMARY) ON m.sequence = b.sequence
LEFT JOIN {group}_held AS h FORCE INDEX (PRIMARY) ON h.sequence = b.sequence AND h.durable = b.durable
WHERE CASE WHEN b.is_new THEN m.sequence IS NULL ELSE m.queue = b.queue OR h.durable IS NOT NULL END
ON DUPLICATE KEY UPDATE deliveries = b.deliveries, failures = b.failures, due = b.due
