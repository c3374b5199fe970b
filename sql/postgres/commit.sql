-- One batch: settles ($2 to $4), messages ($5 to $20), who holds them ($21 to $24), what came back ($25 to $31), marks
-- ($32 to $34). All of it, if the token ($1) is still the row's; nothing, if it is not: then the answer has no row. Else
-- it is the number of the transaction, by which a writer knows later whether the database still has it (R21).
--
-- The fence locks the baton's row, so a take-over waits for this statement, or this statement for the take-over. All
-- parts see the same snapshot; a message that is inserted here is never settled or returned here.
--
-- Nearly every batch needs little of this: commit_of_queues.sql and commit_of_one.sql do the same with less, so that a
-- change here may be one there.
--
-- Rows are found one by one by their primary key, whatever the statistics say (OFFSET 0 keeps the planner from any
-- other order), and deleted where they lie.
WITH fence AS MATERIALIZED (
    SELECT b.token FROM {group}.baton AS b WHERE b.id = 1 AND b.token = $1 FOR SHARE
),

-- Settles: 0 stands for "not a queue" and "not a durable subscription".
settle AS MATERIALIZED (
    SELECT s.sequence, s.queue, s.durable
    FROM fence
    CROSS JOIN unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS s (sequence, queue, durable)
),
settled AS (
    DELETE FROM {group}.message WHERE ctid = ANY (ARRAY(
        SELECT found.ctid
        FROM settle
        CROSS JOIN LATERAL (
            SELECT m.ctid
            FROM {group}.message AS m
            WHERE m.sequence = settle.sequence AND m.queue IS NOT DISTINCT FROM settle.queue
            OFFSET 0
        ) AS found
    ))
    RETURNING sequence
),
unheld AS (
    DELETE FROM {group}.held WHERE ctid = ANY (ARRAY(
        SELECT found.ctid
        FROM settle
        CROSS JOIN LATERAL (
            SELECT h.ctid
            FROM {group}.held AS h
            WHERE h.sequence = settle.sequence AND h.durable = settle.durable
            OFFSET 0
        ) AS found
    ))
    RETURNING sequence, durable
),

-- A message that lost the last durable subscription goes too.
orphaned AS (
    DELETE FROM {group}.message WHERE ctid = ANY (ARRAY(
        SELECT found.ctid
        FROM (SELECT u.sequence, count(*) AS parts FROM unheld AS u GROUP BY u.sequence) AS gone
        CROSS JOIN LATERAL (
            SELECT m.ctid
            FROM {group}.message AS m
            WHERE m.sequence = gone.sequence
                AND gone.parts = (SELECT count(*) FROM {group}.held AS h WHERE h.sequence = gone.sequence)
            OFFSET 0
        ) AS found
    ))
),
forgotten AS (
    DELETE FROM {group}.returned WHERE ctid = ANY (ARRAY(
        SELECT found.ctid
        FROM (SELECT s.sequence, 0 AS durable FROM settled AS s UNION ALL SELECT u.sequence, u.durable FROM unheld AS u)
            AS gone
        CROSS JOIN LATERAL (
            SELECT r.ctid
            FROM {group}.returned AS r
            WHERE r.sequence = gone.sequence AND r.durable = gone.durable
            OFFSET 0
        ) AS found
    ))
),

-- Messages; one that is there already stays as it is, and so does everybody's part in it.
inserted AS (
    INSERT INTO {group}.message (
        sequence, queue, destination, priority, persistent, created, expires, size, message_id, reply_to,
        correlation_id, type, original_destination, body_kind, headers, body
    )
    SELECT m.*
    FROM fence
    CROSS JOIN unnest(
        $5::bigint[], $6::bigint[], $7::bigint[], $8::smallint[], $9::boolean[], $10::bigint[], $11::bigint[],
        $12::integer[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[],
        $20::bytea[]
    ) AS m
    ON CONFLICT (sequence) DO NOTHING
),
holding AS (
    INSERT INTO {group}.held (sequence, durable, priority, size)
    SELECT h.sequence, h.durable, h.priority, h.size
    FROM fence
    CROSS JOIN unnest($21::bigint[], $22::bigint[], $23::smallint[], $24::integer[])
        AS h (sequence, durable, priority, size)
    LEFT JOIN LATERAL (
        SELECT m.sequence FROM {group}.message AS m WHERE m.sequence = h.sequence OFFSET 0
    ) AS known ON true
    WHERE known.sequence IS NULL
    ON CONFLICT (sequence, durable) DO NOTHING
),

-- What came back, or is inserted as if it had: only with a message that is new here, or for who holds it.
came_back AS (
    INSERT INTO {group}.returned (sequence, durable, deliveries, failures, due)
    SELECT r.sequence, r.durable, r.deliveries, r.failures, r.due
    FROM fence
    CROSS JOIN unnest(
        $25::bigint[], $26::bigint[], $27::bigint[], $28::integer[], $29::integer[], $30::bigint[], $31::boolean[]
    ) AS r (sequence, queue, durable, deliveries, failures, due, is_new)
    LEFT JOIN LATERAL (
        SELECT m.sequence, m.queue FROM {group}.message AS m WHERE m.sequence = r.sequence OFFSET 0
    ) AS known ON true
    LEFT JOIN LATERAL (
        SELECT h.durable FROM {group}.held AS h WHERE h.sequence = r.sequence AND h.durable = r.durable OFFSET 0
    ) AS part ON true
    WHERE CASE WHEN r.is_new THEN known.sequence IS NULL ELSE known.queue = r.queue OR part.durable IS NOT NULL END
    ON CONFLICT (sequence, durable) DO UPDATE
    SET deliveries = excluded.deliveries, failures = excluded.failures, due = excluded.due
),
marked AS (
    INSERT INTO {group}.dispatch_mark AS old (holder_kind, holder, upto)
    SELECT m.holder_kind, m.holder, m.upto
    FROM fence
    CROSS JOIN unnest($32::text[], $33::bigint[], $34::bigint[]) AS m (holder_kind, holder, upto)
    ON CONFLICT (holder_kind, holder) DO UPDATE SET upto = greatest(old.upto, excluded.upto)
)
SELECT pg_current_xact_id()::text::bigint FROM fence
