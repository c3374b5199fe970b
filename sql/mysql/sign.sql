-- A sign of life of process ?1, of the broker ?2, which is a ?3 and has its doors at ?4.
INSERT INTO {group}_broker (instance, name, role, addresses, seen) VALUES (?, ?, ?, ?, UTC_TIMESTAMP(3))
ON DUPLICATE KEY UPDATE role = VALUES(role), addresses = VALUES(addresses), seen = VALUES(seen)
