-- The second half, in the same transaction: the lease belongs to the tenure with this token ($1).
UPDATE {group}.lease SET token = $1 WHERE id = 1
