-- Settles by queues: messages go, with what was noted when they came back. ?: [[sequence, queue], …]
DELETE m, r
FROM JSON_TABLE(?, '$[*]' COLUMNS (sequence BIGINT PATH '$[0]', queue BIGINT PATH '$[1]')) AS s
STRAIGHT_JOIN {group}_message AS m FORCE INDEX (PRIMARY) ON m.sequence = s.sequence AND m.queue = s.queue
LEFT JOIN {group}_returned AS r FORCE INDEX (PRIMARY) ON r.sequence = m.sequence AND r.durable = 0
