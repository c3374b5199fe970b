-- These messages ($1), in any order; those that are gone are left out.
SELECT s.*
FROM unnest($1::bigint[]) AS wanted (sequence)
CROSS JOIN LATERAL (
    SELECT s.* FROM {group}.stored_message AS s WHERE s.sequence = wanted.sequence OFFSET 0
) AS s
