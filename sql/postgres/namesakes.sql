-- Other processes ($2 is this one) with this name ($1), and when each gave its last sign.
SELECT instance, addresses, (extract(epoch FROM seen) * 1000000)::bigint AS seen
FROM {group}.broker
WHERE name = $1 AND instance <> $2
