-- Gives the lease of the tenure with this token ($1) back.
UPDATE {group}.lease SET until = '-infinity', beat = beat + 1 WHERE id = 1 AND token = $1
