-- Extends the lease of the tenure with this token (?2) by ?1 milliseconds. That it had run out does not matter while nobody
-- took it.
UPDATE {group}_lease
SET until = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, beat = beat + 1
WHERE id = 1 AND token = ?
