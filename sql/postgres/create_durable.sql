-- A durable subscription is there from now on. The transaction's first statement was the fence.
INSERT INTO {group}.durable (id, client_id, name, topic) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET client_id = excluded.client_id, name = excluded.name, topic = excluded.topic
