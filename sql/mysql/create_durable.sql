-- A durable subscription is there from now on.
INSERT INTO {group}_durable (id, client_id, name, topic) VALUES (?, ?, ?, ?)
ON DUPLICATE KEY UPDATE client_id = VALUES(client_id), name = VALUES(name), topic = VALUES(topic)
