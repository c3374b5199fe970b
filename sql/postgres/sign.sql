-- A sign of life of process $1, of the broker $2, which is a $3 and has its doors at $4. Forgets who was silent for long.
WITH forgotten AS (
    DELETE FROM {group}.broker
    WHERE instance <> $1
        AND seen < clock_timestamp() - CASE WHEN name = $2 THEN interval '1 minute' ELSE interval '1 day' END
)
INSERT INTO {group}.broker (instance, name, role, addresses) VALUES ($1, $2, $3, $4)
ON CONFLICT (instance)
    DO UPDATE SET role = excluded.role, addresses = excluded.addresses, seen = clock_timestamp()
