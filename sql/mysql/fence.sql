-- The first statement of every transaction that writes: proves the token (?4) under a lock of the row, keeps the
-- highest ids (?2, ?3), and notes the number of the transaction (?1), which always changes the row: what is not written
-- is proven on one server of a cluster only.
UPDATE {group}_baton
SET batch = ?, last_destination = GREATEST(last_destination, ?), last_durable = GREATEST(last_durable, ?)
WHERE id = 1 AND token = ?
