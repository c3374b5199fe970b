-- Messages that lost the last durable subscription go too. ?: [[sequence, durable], …], what was settled.
DELETE m
FROM JSON_TABLE(?, '$[*]' COLUMNS (sequence BIGINT PATH '$[0]')) AS s
STRAIGHT_JOIN {group}_message AS m FORCE INDEX (PRIMARY) ON m.sequence = s.sequence AND m.queue IS NULL
LEFT JOIN {group}_held AS h FORCE INDEX (PRIMARY) ON h.sequence = m.sequence
WHERE h.sequence IS NULL
