-- What a client that waits for each receipt brings: one message that a queue holds ($4 to $19), never sent here before,
-- and at most one settle of a queue ($2, $3), of a message that never came back. The same as `commit.sql` does with
-- them, without what arrays and the table of what came back cost.
WITH fence AS MATERIALIZED (
    SELECT b.token FROM {group}.baton AS b WHERE b.id = 1 AND b.token = $1 FOR SHARE
),
settled AS (
    DELETE FROM {group}.message AS m
    USING fence
    WHERE m.sequence = $2::bigint AND m.queue IS NOT DISTINCT FROM $3::bigint
),
inserted AS (
    INSERT INTO {group}.message (
        sequence, queue, destination, priority, persistent, created, expires, size, message_id, reply_to,
        correlation_id, type, original_destination, body_kind, headers, body
    )
    SELECT
        $4::bigint, $5::bigint, $6::bigint, $7::smallint, $8::boolean, $9::bigint, $10::bigint, $11::integer,
        $12::text, $13::text, $14::text, $15::text, $16::text, $17::text, $18::text, $19::bytea
    FROM fence
)
SELECT pg_current_xact_id()::text::bigint FROM fence
