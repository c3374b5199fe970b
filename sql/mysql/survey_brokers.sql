-- For people: the brokers that gave signs of life.
SELECT name, instance, role, addresses, TIMESTAMPDIFF(MICROSECOND, seen, UTC_TIMESTAMP(3)) DIV 1000
FROM {group}_broker
ORDER BY name, instance
