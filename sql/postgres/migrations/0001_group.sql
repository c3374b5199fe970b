-- Version 1: the tables of a broker group, in a schema of the group's name.
--
-- Only the master writes here, and every statement of it proves the token in `baton` first; but every broker keeps its
-- own row of `broker`. Times in `message` and `returned` are the broker's, in milliseconds since 1970; times of type
-- timestamptz are the database's own.

CREATE TABLE {group}.schema_version (
    version  integer     PRIMARY KEY,
    applied  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Who holds the baton: one row. Whoever takes over raises term and token; every write proves the token under a lock of
-- this row, so a take-over waits for what is being written, and nothing can follow it.
CREATE TABLE {group}.baton (
    id                smallint    PRIMARY KEY CHECK (id = 1),
    term              integer     NOT NULL,
    token             bigint      NOT NULL,
    holder            text,                    -- the master's broker_name
    instance          text,                    -- its process, as in `broker`
    released          boolean     NOT NULL,    -- it gave the baton back; nobody need wait for it
    since             timestamptz,
    lock_pid          integer,                 -- the sessions of the master that a take-over may end
    lock_started      timestamptz,
    writer_pid        integer,                 -- a take-over empties these two
    writer_started    timestamptz,
    last_destination  bigint      NOT NULL,    -- ids up to here were given, even if what they named is gone
    last_durable      bigint      NOT NULL
);
INSERT INTO {group}.baton (id, term, token, released, last_destination, last_durable) VALUES (1, 0, 0, true, 0, 0);

-- The lease of brokers that hold no session lock. Not the baton's row: renewals and commits must not wait for each
-- other.
CREATE TABLE {group}.lease (
    id     smallint    PRIMARY KEY CHECK (id = 1),
    token  bigint      NOT NULL,
    until  timestamptz NOT NULL,
    beat   bigint      NOT NULL
);
INSERT INTO {group}.lease (id, token, until, beat) VALUES (1, 0, '-infinity', 0);

-- Every mastership there was.
CREATE TABLE {group}.tenure (
    token     bigint      PRIMARY KEY,
    term      integer     NOT NULL,
    broker    text        NOT NULL,
    instance  text        NOT NULL,
    began     timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended     timestamptz,
    reason    text
);

-- The brokers of the group, and when each was last heard of.
CREATE TABLE {group}.broker (
    instance   text        PRIMARY KEY,
    name       text        NOT NULL,
    role       text        NOT NULL,
    addresses  text        NOT NULL,
    seen       timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE {group}.destination (
    id    bigint PRIMARY KEY,
    kind  text   NOT NULL,    -- queue, topic, temp-queue, temp-topic
    name  text   NOT NULL
);

-- Durable subscriptions of topics.
CREATE TABLE {group}.durable (
    id         bigint PRIMARY KEY,
    client_id  text   NOT NULL,
    name       text   NOT NULL,
    topic      bigint NOT NULL
);

-- What lies at or below `upto` may have been delivered before.
CREATE TABLE {group}.dispatch_mark (
    holder_kind  text   NOT NULL,    -- queue: a destination's id; durable: a durable subscription's
    holder       bigint NOT NULL,
    upto         bigint NOT NULL,
    PRIMARY KEY (holder_kind, holder)
) WITH (fillfactor = 50);

-- What was purged, or belonged to a durable subscription that is deleted: all of the holder at or below `upto` is gone.
-- The rows follow in small parts; then this one goes too.
CREATE TABLE {group}.purged (
    holder_kind  text   NOT NULL,
    holder       bigint NOT NULL,
    upto         bigint NOT NULL,
    PRIMARY KEY (holder_kind, holder)
);

-- The messages. Rows are inserted and deleted, and never updated.
CREATE TABLE {group}.message (
    sequence              bigint   PRIMARY KEY,    -- the order of acceptance
    queue                 bigint,                  -- the queue that holds it; NULL: durable subscriptions do (`held`)
    destination           bigint   NOT NULL,
    priority              smallint NOT NULL,
    persistent            boolean  NOT NULL,
    created               bigint   NOT NULL,       -- milliseconds since 1970
    expires               bigint,                  -- the same; NULL: never
    size                  integer  NOT NULL,       -- bytes, as the broker's limits count
    message_id            text     NOT NULL,
    reply_to              text,                    -- a destination: queue://orders
    correlation_id        text,
    type                  text,
    original_destination  text,                    -- where it was sent first, if that is not where it lies
    body_kind             text     NOT NULL,       -- none, text, bytes, map, stream, object
    headers               text     NOT NULL,       -- a JSON object, in the order in which they were attached
    body                  bytea    NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000,
    toast.autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX message_of_queue ON {group}.message (queue, priority, sequence) INCLUDE (size) WHERE queue IS NOT NULL;
CREATE INDEX message_expiring ON {group}.message (expires, sequence) WHERE expires IS NOT NULL;

-- Large bodies are compressed by lz4 where the server has it, and else not at all: pglz costs more than it saves.
DO $$
BEGIN
    ALTER TABLE {group}.message ALTER COLUMN body SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    ALTER TABLE {group}.message ALTER COLUMN body SET STORAGE EXTERNAL;
END
$$;

-- Which durable subscriptions hold a message of a topic. It is stored once, and goes with the last of them.
CREATE TABLE {group}.held (
    sequence  bigint   NOT NULL,
    durable   bigint   NOT NULL,
    priority  smallint NOT NULL,
    size      integer  NOT NULL,
    PRIMARY KEY (sequence, durable)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1
);
CREATE INDEX held_by_durable ON {group}.held (durable, priority, sequence) INCLUDE (size);

-- Messages that came back after a delivery, for whom, and how often.
CREATE TABLE {group}.returned (
    sequence    bigint  NOT NULL,
    durable     bigint  NOT NULL,    -- 0: the queue
    deliveries  integer NOT NULL,
    failures    integer NOT NULL,    -- how many of them count towards a redelivery policy
    due         bigint,              -- not to be delivered before this; milliseconds since 1970
    PRIMARY KEY (sequence, durable)
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX returned_due ON {group}.returned (due, sequence, durable) WHERE due IS NOT NULL;

-- What a broker reads of a message: all of it, and everybody who holds it.
CREATE VIEW {group}.stored_message AS
SELECT
    m.sequence, m.queue, m.destination, m.priority, m.persistent, m.created, m.expires, m.message_id, m.reply_to,
    m.correlation_id, m.type, m.original_destination, m.body_kind, m.headers, m.body,
    ARRAY(SELECT h.durable FROM {group}.held AS h WHERE h.sequence = m.sequence ORDER BY h.durable) AS durables,
    r.durables AS returned_durables, r.deliveries AS returned_deliveries, r.failures AS returned_failures,
    r.due AS returned_due
FROM {group}.message AS m
CROSS JOIN LATERAL (
    SELECT
        array_agg(r.durable) AS durables, array_agg(r.deliveries) AS deliveries, array_agg(r.failures) AS failures,
        array_agg(r.due) AS due
    FROM {group}.returned AS r
    WHERE r.sequence = m.sequence
) AS r;

-- Views for people. They only read, and no broker needs them.

-- Bytes as text, if they are UTF-8 text that PostgreSQL can show; else printable characters and \ooo.
CREATE FUNCTION {group}.text_of(bytes bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN OTHERS THEN
    RETURN encode(bytes, 'escape');
END
$$;

-- How much lies in each queue, and since when. Counts; ask with WHERE name = '…' while a backlog is large.
CREATE VIEW {group}.queue_depth AS
SELECT
    d.name, d.kind, depth.messages, depth.bytes, to_timestamp(depth.oldest / 1000.0) AS oldest,
    clock_timestamp() - to_timestamp(depth.oldest / 1000.0) AS age
FROM {group}.destination AS d
CROSS JOIN LATERAL (
    SELECT count(*) AS messages, coalesce(sum(m.size), 0) AS bytes, min(m.created) AS oldest
    FROM {group}.message AS m
    WHERE m.queue = d.id
        AND m.sequence > coalesce(
            (SELECT p.upto FROM {group}.purged AS p WHERE p.holder_kind = 'queue' AND p.holder = d.id), 0)
) AS depth
WHERE d.kind IN ('queue', 'temp-queue');

-- The messages, as a person reads them.
CREATE VIEW {group}.message_view AS
SELECT
    m.sequence, d.name AS destination, d.kind, m.message_id, m.priority, m.persistent,
    to_timestamp(m.created / 1000.0) AS created, to_timestamp(m.expires / 1000.0) AS expires, m.size, m.reply_to,
    m.correlation_id, m.type, m.original_destination, m.headers::json AS headers, m.body_kind,
    CASE WHEN m.body_kind = 'text' THEN {group}.text_of(m.body) END AS body_text,
    (SELECT max(r.deliveries) FROM {group}.returned AS r WHERE r.sequence = m.sequence) AS deliveries
FROM {group}.message AS m
LEFT JOIN {group}.destination AS d ON d.id = m.destination;

-- The durable subscriptions, how much waits for each, and since when.
CREATE VIEW {group}.durable_subscription AS
SELECT
    s.client_id, s.name, d.name AS topic, depth.messages, depth.bytes, to_timestamp(depth.oldest / 1000.0) AS oldest,
    clock_timestamp() - to_timestamp(depth.oldest / 1000.0) AS age
FROM {group}.durable AS s
LEFT JOIN {group}.destination AS d ON d.id = s.topic
CROSS JOIN LATERAL (
    SELECT
        count(*) AS messages, coalesce(sum(h.size), 0) AS bytes,
        (SELECT m.created FROM {group}.message AS m WHERE m.sequence = min(h.sequence)) AS oldest
    FROM {group}.held AS h
    WHERE h.durable = s.id
        AND h.sequence > coalesce(
            (SELECT p.upto FROM {group}.purged AS p WHERE p.holder_kind = 'durable' AND p.holder = s.id), 0)
) AS depth;
