-- What nearly every batch is: messages that queues hold ($4 to $19), none of which was ever sent here before, and
-- settles of queues ($2, $3). The same as `commit.sql` does with them, in half of the time if they are few, because
-- each part costs, and looking whether a message is there costs even more.
WITH fence AS MATERIALIZED (
    SELECT b.token FROM {group}.baton AS b WHERE b.id = 1 AND b.token = $1 FOR SHARE
),
settled AS (
    DELETE FROM {group}.message WHERE ctid = ANY (ARRAY(
        SELECT found.ctid
        FROM fence
        CROSS JOIN unnest($2::bigint[], $3::bigint[]) AS s (sequence, queue)
        CROSS JOIN LATERAL (
            SELECT m.ctid
            FROM {group}.message AS m
            WHERE m.sequence = s.sequence AND m.queue IS NOT DISTINCT FROM s.queue
            OFFSET 0
        ) AS found
    ))
),
forgotten AS (
    DELETE FROM {group}.returned WHERE ctid = ANY (ARRAY(
        SELECT found.ctid
        FROM fence
        CROSS JOIN unnest($2::bigint[]) AS s (sequence)
        CROSS JOIN LATERAL (
            SELECT r.ctid FROM {group}.returned AS r WHERE r.sequence = s.sequence AND r.durable = 0 OFFSET 0
        ) AS found
    ))
),
inserted AS (
    INSERT INTO {group}.message (
        sequence, queue, destination, priority, persistent, created, expires, size, message_id, reply_to,
        correlation_id, type, original_destination, body_kind, headers, body
    )
    SELECT m.*
    FROM fence
    CROSS JOIN unnest(
        $4::bigint[], $5::bigint[], $6::bigint[], $7::smallint[], $8::boolean[], $9::bigint[], $10::bigint[],
        $11::integer[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[],
        $19::bytea[]
    ) AS m
)
SELECT pg_current_xact_id()::text::bigint FROM fence
