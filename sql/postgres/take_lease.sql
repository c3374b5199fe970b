-- A take-over without a lock begins with this: takes the lease for $1 milliseconds if it ran out by the database's clock,
-- or if it is still the one ($2) that did not change for a whole lease by the broker's own (R23). Holds its row.
UPDATE {group}.lease
SET until = clock_timestamp() + $1 * interval '1 millisecond', beat = beat + 1
WHERE id = 1 AND (until < clock_timestamp() OR beat = $2)
