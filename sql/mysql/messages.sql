-- These messages, in any order, and everybody who holds them; those that are gone are left out. ?: [sequence, …]
SELECT
    m.sequence, m.queue, m.destination, m.priority, m.persistent, m.created, m.expires, m.message_id, m.reply_to,
    m.correlation_id, m.type, m.original_destination, m.body_kind, m.headers, m.body,
    (SELECT JSON_ARRAYAGG(h.durable) FROM {group}_held AS h WHERE h.sequence = m.sequence) AS durables,
    (
        SELECT JSON_ARRAYAGG(JSON_ARRAY(r.durable, r.deliveries, r.failures, r.due))
        FROM {group}_returned AS r
        WHERE r.sequence = m.sequence
    ) AS returned
FROM JSON_TABLE(?, '$[*]' COLUMNS (sequence BIGINT PATH '$')) AS wanted
STRAIGHT_JOIN {group}_message AS m FORCE INDEX (PRIMARY) ON m.sequence = wanted.sequence
