-- The first statement of a transaction that gives ids: proves the token ($1), locks the row, and keeps the highest ids.
UPDATE {group}.baton
SET last_destination = greatest(last_destination, $2), last_durable = greatest(last_durable, $3)
WHERE id = 1 AND token = $1
