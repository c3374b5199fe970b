-- Version 1: the tables of a broker group, whose names begin with the group's.
--
-- The database commits after each of these statements, whatever is done; so each changes nothing the second time, and
-- the version is noted last. Only the master writes here, and every transaction of it proves the token in the table of
-- the baton first; but every broker keeps its own row of the table of brokers. Times of messages are the broker's, in milliseconds since 1970; times of type DATETIME are the
-- database's own, in UTC.

CREATE TABLE IF NOT EXISTS {group}_schema_version (
    version  INT         NOT NULL PRIMARY KEY,
    applied  DATETIME(3) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Who holds the baton: one row. Whoever takes over raises term and token; every write proves the token and writes this
-- row, so a take-over waits for what is being written, and nothing can follow it. (A plain read would prove nothing.)
CREATE TABLE IF NOT EXISTS {group}_baton (
    id                TINYINT      NOT NULL PRIMARY KEY,
    term              INT          NOT NULL,
    token             BIGINT       NOT NULL,
    batch             BIGINT       NOT NULL,    -- grows with each transaction of a writing session
    holder            VARCHAR(64),              -- the master's broker_name
    instance          VARCHAR(64),              -- its process, as in the table of brokers
    released          BOOLEAN      NOT NULL,    -- it gave the baton back; nobody need wait for it
    since             DATETIME(3),
    lock_session      BIGINT,                   -- the sessions of the master that a take-over may end: their numbers,
    lock_mark         VARCHAR(64),              -- and the name of a lock that such a session holds, and no other
    writer_session    BIGINT,
    writer_mark       VARCHAR(64),
    last_destination  BIGINT       NOT NULL,    -- ids up to here were given, even if what they named is gone
    last_durable      BIGINT       NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT INTO {group}_baton (id, term, token, batch, released, last_destination, last_durable)
VALUES (1, 0, 0, 0, TRUE, 0, 0)
ON DUPLICATE KEY UPDATE id = id;

-- The lease of brokers that hold no session lock. Not the baton's row: renewals and commits must not wait for each
-- other.
CREATE TABLE IF NOT EXISTS {group}_lease (
    id     TINYINT     NOT NULL PRIMARY KEY,
    token  BIGINT      NOT NULL,
    until  DATETIME(3) NOT NULL,
    beat   BIGINT      NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT INTO {group}_lease (id, token, until, beat) VALUES (1, 0, '1970-01-02', 0) ON DUPLICATE KEY UPDATE id = id;

-- Every mastership there was.
CREATE TABLE IF NOT EXISTS {group}_tenure (
    token     BIGINT      NOT NULL PRIMARY KEY,
    term      INT         NOT NULL,
    broker    VARCHAR(64) NOT NULL,
    instance  VARCHAR(64) NOT NULL,
    began     DATETIME(3) NOT NULL,
    ended     DATETIME(3),
    reason    TEXT
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The brokers of the group, and when each was last heard of.
CREATE TABLE IF NOT EXISTS {group}_broker (
    instance   VARCHAR(64) NOT NULL PRIMARY KEY,
    name       VARCHAR(64) NOT NULL,
    role       VARCHAR(16) NOT NULL,
    addresses  TEXT        NOT NULL,
    seen       DATETIME(3) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS {group}_destination (
    id    BIGINT      NOT NULL PRIMARY KEY,
    kind  VARCHAR(16) NOT NULL,    -- queue, topic, temp-queue, temp-topic
    name  LONGTEXT    NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Durable subscriptions of topics.
CREATE TABLE IF NOT EXISTS {group}_durable (
    id         BIGINT   NOT NULL PRIMARY KEY,
    client_id  LONGTEXT NOT NULL,
    name       LONGTEXT NOT NULL,
    topic      BIGINT   NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What lies at or below `upto` may have been delivered before.
CREATE TABLE IF NOT EXISTS {group}_dispatch_mark (
    holder_kind  VARCHAR(16) NOT NULL,    -- queue: a destination's id; durable: a durable subscription's
    holder       BIGINT      NOT NULL,
    upto         BIGINT      NOT NULL,
    PRIMARY KEY (holder_kind, holder)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What was purged, or belonged to a durable subscription that is deleted: all of the holder at or below `upto` is gone.
-- The rows follow in small parts; then this one goes too.
CREATE TABLE IF NOT EXISTS {group}_purged (
    holder_kind  VARCHAR(16) NOT NULL,
    holder       BIGINT      NOT NULL,
    upto         BIGINT      NOT NULL,
    PRIMARY KEY (holder_kind, holder)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The messages. Rows are inserted and deleted, and never updated.
CREATE TABLE IF NOT EXISTS {group}_message (
    sequence              BIGINT      NOT NULL PRIMARY KEY,    -- the order of acceptance
    queue                 BIGINT,                              -- the queue that holds it; NULL: durable subscriptions
    destination           BIGINT      NOT NULL,
    priority              TINYINT     NOT NULL,
    persistent            BOOLEAN     NOT NULL,
    created               BIGINT      NOT NULL,                -- milliseconds since 1970
    expires               BIGINT,                              -- the same; NULL: never
    size                  INT         NOT NULL,                -- bytes, as the broker's limits count
    message_id            LONGTEXT    NOT NULL,
    reply_to              LONGTEXT,                            -- a destination: queue://orders
    correlation_id        LONGTEXT,
    type                  LONGTEXT,
    original_destination  LONGTEXT,                            -- where it was sent first, if not where it lies
    body_kind             VARCHAR(16) NOT NULL,                -- none, text, bytes, map, stream, object
    headers               LONGTEXT    NOT NULL,                -- a JSON object, in the order they were attached
    body                  LONGBLOB    NOT NULL,
    INDEX message_of_queue (queue, priority, sequence, size),
    INDEX message_expiring (expires, sequence)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Which durable subscriptions hold a message of a topic. It is stored once, and goes with the last of them.
CREATE TABLE IF NOT EXISTS {group}_held (
    sequence  BIGINT  NOT NULL,
    durable   BIGINT  NOT NULL,
    priority  TINYINT NOT NULL,
    size      INT     NOT NULL,
    PRIMARY KEY (sequence, durable),
    INDEX held_by_durable (durable, priority, sequence, size)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Messages that came back after a delivery, for whom, and how often.
CREATE TABLE IF NOT EXISTS {group}_returned (
    sequence    BIGINT NOT NULL,
    durable     BIGINT NOT NULL,    -- 0: the queue
    deliveries  INT    NOT NULL,
    failures    INT    NOT NULL,    -- how many of them count towards a redelivery policy
    due         BIGINT,             -- not to be delivered before this; milliseconds since 1970
    PRIMARY KEY (sequence, durable),
    INDEX returned_due (due, sequence, durable)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Views for people. They only read, and no broker needs them. Ages are in seconds: a TIME ends after 35 days.

-- How much lies in each queue, and since when. Counts; ask with WHERE name = '…' while a backlog is large.
CREATE OR REPLACE VIEW {group}_queue_depth AS
SELECT
    d.name, d.kind, COUNT(m.sequence) AS messages, COALESCE(SUM(m.size), 0) AS bytes,
    FROM_UNIXTIME(MIN(m.created) / 1000) AS oldest,
    TIMESTAMPDIFF(SECOND, FROM_UNIXTIME(MIN(m.created) / 1000), NOW(3)) AS age
FROM {group}_destination AS d
LEFT JOIN {group}_purged AS p ON p.holder_kind = 'queue' AND p.holder = d.id
LEFT JOIN {group}_message AS m ON m.queue = d.id AND m.sequence > COALESCE(p.upto, 0)
WHERE d.kind IN ('queue', 'temp-queue')
GROUP BY d.id;

-- The messages, as a person reads them.
CREATE OR REPLACE VIEW {group}_message_view AS
SELECT
    m.sequence, d.name AS destination, d.kind, m.message_id, m.priority, m.persistent,
    FROM_UNIXTIME(m.created / 1000) AS created, FROM_UNIXTIME(m.expires / 1000) AS expires, m.size, m.reply_to,
    m.correlation_id, m.type, m.original_destination, m.headers, m.body_kind,
    CASE WHEN m.body_kind = 'text' THEN CONVERT(m.body USING utf8mb4) END AS body_text,
    (SELECT MAX(r.deliveries) FROM {group}_returned AS r WHERE r.sequence = m.sequence) AS deliveries
FROM {group}_message AS m
LEFT JOIN {group}_destination AS d ON d.id = m.destination;

-- The durable subscriptions, how much waits for each, and since when.
CREATE OR REPLACE VIEW {group}_durable_subscription AS
SELECT
    s.client_id, s.name, d.name AS topic, COUNT(h.sequence) AS messages, COALESCE(SUM(h.size), 0) AS bytes,
    FROM_UNIXTIME(MIN(m.created) / 1000) AS oldest,
    TIMESTAMPDIFF(SECOND, FROM_UNIXTIME(MIN(m.created) / 1000), NOW(3)) AS age
FROM {group}_durable AS s
LEFT JOIN {group}_destination AS d ON d.id = s.topic
LEFT JOIN {group}_purged AS p ON p.holder_kind = 'durable' AND p.holder = s.id
LEFT JOIN {group}_held AS h ON h.durable = s.id AND h.sequence > COALESCE(p.upto, 0)
LEFT JOIN {group}_message AS m ON m.sequence = h.sequence
GROUP BY s.id
