-- The next parts of a durable subscription (?1) at or below its purge (?2), at most ?3.
SELECT h.sequence
FROM {group}_held AS h FORCE INDEX (held_by_durable)
WHERE h.durable = ? AND h.priority IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9) AND h.sequence <= ?
LIMIT ?
