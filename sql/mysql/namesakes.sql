-- Other processes (?2 is this one) with this name (?1), and when each gave its last sign.
SELECT instance, addresses, CAST(UNIX_TIMESTAMP(seen) * 1000 AS SIGNED)
FROM {group}_broker
WHERE name = ? AND instance <> ?
