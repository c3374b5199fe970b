-- For people: the last masterships.
SELECT term, token, broker, began::text, ended::text, reason
FROM {group}.tenure
ORDER BY token DESC
LIMIT 10
