-- For people: the last masterships, in UTC.
SELECT term, token, broker, CONCAT(began, '+00'), CONCAT(ended, '+00'), reason
FROM {group}_tenure
ORDER BY token DESC
LIMIT 10
