-- A destination is there from now on. The transaction's first statement was the fence.
INSERT INTO {group}.destination (id, kind, name) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, name = excluded.name
