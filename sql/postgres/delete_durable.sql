-- A durable subscription is gone, with its mark. The transaction's first statement was the fence.
WITH gone AS (
    DELETE FROM {group}.durable WHERE id = $1
)
DELETE FROM {group}.dispatch_mark WHERE holder_kind = 'durable' AND holder = $1
