-- Messages; one that is there already stays as it is. {rows}: (?, ?, …), (?, ?, …), …
INSERT INTO {group}_message (
    sequence, queue, destination, priority, persistent, created, expires, size, message_id, reply_to, correlation_id,
    type, original_destination, body_kind, headers, body
) VALUES {rows}
ON DUPLICATE KEY UPDATE sequence = VALUES(sequence)
