-- Forgets who was silent for long; sooner if it had the name (?2) of the process (?1) that signs.
DELETE FROM {group}_broker
WHERE instance <> ? AND seen < UTC_TIMESTAMP(3) - INTERVAL IF(name = ?, 60, 86400) SECOND
