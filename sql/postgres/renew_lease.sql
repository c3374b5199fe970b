-- Extends the lease of the tenure with this token ($1) by $2 milliseconds. That it had run out does not matter while nobody
-- took it.
UPDATE {group}.lease
SET until = clock_timestamp() + $2 * interval '1 millisecond', beat = beat + 1
WHERE id = 1 AND token = $1
