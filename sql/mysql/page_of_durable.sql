-- Where a durable subscription's (?1) messages of a priority (?2) after ?3 and up to ?4 are, and how large: the first
-- ?5.
SELECT h.sequence, h.size
FROM {group}_held AS h FORCE INDEX (held_by_durable)
WHERE h.durable = ? AND h.priority = ? AND h.sequence > ? AND h.sequence <= ?
ORDER BY h.sequence
LIMIT ?
