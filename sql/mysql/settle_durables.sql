-- Settles by durable subscriptions: their parts go, with what was noted when they came back. ?: [[sequence, durable],
-- …]
DELETE h, r
FROM JSON_TABLE(?, '$[*]' COLUMNS (sequence BIGINT PATH '$[0]', durable BIGINT PATH '$[1]')) AS s
STRAIGHT_JOIN {group}_held AS h FORCE INDEX (PRIMARY) ON h.sequence = s.sequence AND h.durable = s.durable
LEFT JOIN {group}_returned AS r FORCE INDEX (PRIMARY) ON r.sequence = h.sequence AND r.durable = h.durable
