-- A durable subscription is gone, with its mark.
DELETE s, k
FROM {group}_durable AS s
LEFT JOIN {group}_dispatch_mark AS k ON k.holder_kind = 'durable' AND k.holder = s.id
WHERE s.id = ?
