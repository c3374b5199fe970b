//! How PostgreSQL runs the statements: they are planned once, on tables that may be empty then and full later.

use batonmq::{
    db::postgres::Session,
    persistence::{MessageReader, PersistenceAdapter, PostgresAdapter, Window},
    types::{DurableId, Group, Held, Holder, Op, Priority, Sequence, Stored, Term, Timestamp},
};

use super::{
    Backend, Broker, EVERYTHING, LARGE, NEWS, NOTHING_BEFORE, ORDERS, Postgres, insert,
    postgres_rules::{becomes_true, stranger},
    script::Script,
    settle,
};
use crate::harness::PostgresServer;

/// So many messages wait in a queue, and as many for two durable subscriptions.
const MESSAGES: u64 = 20_000;

fn seq(counter: u64) -> Sequence {
    Sequence::new(Term(1), counter)
}

/// A bit of everything that a broker does, with messages behind `from`.
async fn work(broker: &mut Broker<PostgresAdapter>, from: u64) {
    let [one, two] = [1, 2].map(|id| Holder::Durable(DurableId(id)));
    let news = |counter| {
        let Op::Insert(stored) = insert(seq(counter), 10) else { unreachable!() };
        Op::Insert(Stored { destination: NEWS, holders: [one, two].map(Held::fresh).into_iter().collect(), ..stored })
    };
    let returned = |counter, holder| {
        let held = Held { deliveries: 1, due: Some(Timestamp(7)), ..Held::fresh(holder) };
        Op::Return { sequence: seq(counter), held }
    };
    let taken = |counter, holder| Op::Settle { sequence: seq(counter), holder };
    let (queued, topical) = (from + 1..=from + 50, from + 100_001..=from + 100_050);
    broker
        .commit(queued.clone().map(|counter| insert(seq(counter), 10)).chain(topical.clone().map(news)).collect())
        .await;
    let back = queued.clone().map(|counter| returned(counter, Holder::Queue(ORDERS)));
    broker.commit(back.chain(topical.clone().map(|counter| returned(counter, two))).collect()).await;
    let reader = broker.adapter.reader();
    let window = Window { messages: 20, ..LARGE };
    for holder in [Holder::Queue(ORDERS), one, two] {
        reader.page(holder, Priority::default(), EVERYTHING, window).await.unwrap();
    }
    reader.due(Timestamp(u64::MAX), NOTHING_BEFORE, window).await.unwrap();
    let settles = topical.flat_map(|counter| [taken(counter, one), taken(counter, two)]);
    broker.commit(queued.map(|counter| settle(seq(counter))).chain(settles).collect()).await;
    // Nothing but messages of queues, which is a statement of its own.
    let (last, others) = (from + 101..=from + 150, from + 151..=from + 200);
    broker.commit(last.clone().map(|counter| insert(seq(counter), 10)).collect()).await;
    broker
        .commit(
            last.map(|counter| settle(seq(counter))).chain(others.map(|counter| insert(seq(counter), 10))).collect(),
        )
        .await;
}

/// How many rows of a group's tables were read by scanning a table, and by index.
async fn rows_read(stranger: &Session, group: &Group) -> [i64; 2] {
    let read = format!(
        "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = '{group}')::bigint, \
                (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = '{group}')::bigint"
    );
    let row = stranger.query_one(&read, &[]).await.unwrap();
    [0, 1].map(|column| row.get(column))
}

/// All that a group's sessions read is counted: a session tells it at its end at the latest.
fn no_session(group: &Group) -> String {
    format!("NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'batonmq {group} %')")
}

/// Messages for a queue, as `SELECT ... FROM generate_series` makes them; when they expire as SQL, of their number `n`.
fn messages_of_a_queue(group: &Group, first: Sequence, count: u64, expires: &str) -> String {
    format!(
        "INSERT INTO {group}.message (sequence, queue, destination, priority, persistent, created, expires, size, \
                                      message_id, body_kind, headers, body) \
         SELECT {} + n, 1, 1, 4, true, 0, {expires}, 300, '', 'bytes', '{{}}', '' \
         FROM generate_series(1, {count}) AS n",
        first.as_u64()
    )
}

#[tokio::test]
async fn what_was_planned_on_empty_tables_is_as_good_on_full_ones() {
    let tables = ["message", "held", "returned", "dispatch_mark", "baton"];
    is_as_good_on_full_tables(|group| tables.map(|table| format!("VACUUM ANALYZE {group}.{table}")).to_vec()).await;
}

/// The server knows of no row then, and of many pages: it would take a bitmap for the best way to the few there may be.
#[tokio::test]
async fn what_was_planned_on_tables_that_were_emptied_is_as_good_on_full_ones() {
    let emptied = |group: &Group| {
        vec![
            messages_of_a_queue(group, seq(1_000_000), 5 * MESSAGES, "NULL"),
            format!("ANALYZE {group}.message"),
            format!("DELETE FROM {group}.message"),
            format!("ANALYZE {group}.message, {group}.held, {group}.returned"),
        ]
    };
    is_as_good_on_full_tables(emptied).await;
}

/// Few rows are read on full tables, by what is planned after something was `done` to empty ones.
async fn is_as_good_on_full_tables(done: impl Fn(&Group) -> Vec<String>) {
    let (backend, stranger) = (Postgres::new().await, stranger().await);
    let group = backend.group();
    let connector = PostgresServer::shared().connector(group.as_str());
    let mut broker = Broker::on(PostgresAdapter::new(connector, group.clone()).unwrap()).await;
    for statement in done(group) {
        stranger.batch_execute(&statement).await.unwrap();
    }
    broker.commit(Script::first_batch()).await;
    work(&mut broker, 0).await;
    let first = seq(1_000).as_u64();
    stranger
        .batch_execute(&format!(
            "{}; UPDATE {group}.message SET queue = NULL WHERE sequence >= {first} + {MESSAGES}; \
             INSERT INTO {group}.held (sequence, durable, priority, size) \
             SELECT {first} + n, durable, 4, 300 \
             FROM generate_series({MESSAGES}, {MESSAGES} * 2) AS n CROSS JOIN generate_series(1, 2) AS durable; \
             INSERT INTO {group}.returned (sequence, durable, deliveries, failures, due) \
             SELECT {first} + n, 0, 1, 0, 6000000 FROM generate_series(1, {MESSAGES} - 1) AS n",
            messages_of_a_queue(group, seq(1_000), 2 * MESSAGES, "5000000 + n")
        ))
        .await
        .unwrap();
    stranger.batch_execute("SELECT pg_stat_force_next_flush()").await.unwrap();
    let before = rows_read(&stranger, group).await;
    work(&mut broker, 500).await;
    broker.adapter.close().await.unwrap();
    becomes_true(&stranger, &no_session(group)).await;
    let after = rows_read(&stranger, group).await;
    let [by_scan, by_index] = [0, 1].map(|at| after[at] - before[at]);
    assert!(by_scan < 100, "{by_scan} rows were read by scanning a table");
    assert!(by_index < 10_000, "{by_index} rows were read by index, of {MESSAGES} in each of four");
    assert!(by_index > 500, "{by_index}: it is counted");
    assert!(backend.open().await.recover().await.is_ok());
}

/// What a client that waits for each receipt brings is a statement of its own.
#[tokio::test]
async fn one_message_and_one_settle_find_their_rows_on_full_tables_too() {
    let (backend, stranger) = (Postgres::new().await, stranger().await);
    let group = backend.group();
    let mut broker = Broker::on(backend.open().await).await;
    broker.commit(Script::first_batch()).await;
    broker.commit(vec![insert(seq(1), 10)]).await;
    broker.commit(vec![settle(seq(1)), insert(seq(2), 10)]).await;
    stranger.batch_execute(&messages_of_a_queue(group, seq(1_000), MESSAGES, "5000000 + n")).await.unwrap();
    stranger.batch_execute("SELECT pg_stat_force_next_flush()").await.unwrap();
    let before = rows_read(&stranger, group).await;
    for counter in 3..103 {
        broker.commit(vec![settle(seq(counter - 1)), insert(seq(counter), 10)]).await;
    }
    broker.adapter.close().await.unwrap();
    becomes_true(&stranger, &no_session(group)).await;
    let after = rows_read(&stranger, group).await;
    assert_eq!(after[0] - before[0], 0, "rows were read by scanning a table");
    assert!(
        (100..1_000).contains(&(after[1] - before[1])),
        "{before:?} {after:?}: of each batch the baton and a message"
    );
}

/// Else its count would lie there for ever.
#[tokio::test]
async fn what_came_back_in_this_term_or_before_goes_with_its_message() {
    let stranger = stranger().await;
    for comes_back_before in [false, true] {
        let backend = Postgres::new().await;
        let mut broker = Broker::on(backend.open().await).await;
        broker.commit(Script::first_batch()).await;
        broker.commit(vec![insert(seq(1), 10)]).await;
        let held = Held { deliveries: 1, ..Held::fresh(Holder::Queue(ORDERS)) };
        broker.commit(vec![Op::Return { sequence: seq(1), held }]).await;
        if comes_back_before {
            broker.adapter.close().await.unwrap();
            broker = Broker::on(backend.open().await).await;
        }
        broker.commit(vec![settle(seq(1)), insert(seq(2), 10)]).await;
        let left =
            format!("SELECT (SELECT count(*) FROM {0}.message), (SELECT count(*) FROM {0}.returned)", backend.group());
        let left = stranger.query_one(&left, &[]).await.unwrap();
        assert_eq!([0, 1].map(|at| left.get::<_, i64>(at)), [1, 0], "before: {comes_back_before}");
    }
}
