-- A destination is there from now on.
INSERT INTO {group}_destination (id, kind, name) VALUES (?, ?, ?)
ON DUPLICATE KEY UPDATE kind = VALUES(kind), name = VALUES(name)
