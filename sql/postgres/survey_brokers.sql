-- For people: the brokers that gave signs of life.
SELECT name, instance, role, addresses, (extract(epoch FROM clock_timestamp() - seen) * 1000)::bigint AS seen_ms_ago
FROM {group}.broker
ORDER BY name, instance
