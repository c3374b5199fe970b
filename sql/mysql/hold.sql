-- The durable subscriptions that hold new messages, before those are inserted: one that is there already stays as it
-- is, and so does everybody's part in it. ?: [[sequence, durable, priority, size], …]
INSERT INTO {group}_held (sequence, durable, priority, size)
SELECT p.sequence, p.durable, p.priority, p.size
FROM JSON_TABLE(?, '$[*]' COLUMNS (
    sequence BIGINT PATH '$[0]', durable BIGINT PATH '$[1]', priority INT PATH '$[2]', size INT PATH '$[3]'
)) AS p
LEFT JOIN {group}_message AS m FORCE INDEX (PRIMARY) ON m.sequence = p.sequence
WHERE m.sequence IS NULL
ON DUPLICATE KEY UPDATE sequence = p.sequence
