//! What the store in MySQL or MariaDB promises when connections are lost, sessions freeze, and others take over.

use std::sync::Arc;

use batonmq::{
    db::mysql::Session,
    persistence::{Backlog, CommitError, MessageReader, MysqlAdapter, PersistenceAdapter, StoreError},
    tasks::Tasks,
    types::{Batch, BatchNumber, DurableId, FencingToken, Group, Held, Holder, Op, Sequence, Stored, Tenure, Term},
};
use mysql_async::prelude::{FromValue, Queryable as _};
use tokio::time::timeout;

use super::{
    Backend, Broker, Cluster, EVERYTHING, LARGE, Mysql, NEWS, ORDERS, count_beside_batches, insert, script::Script,
    sequences, settle,
};
use crate::harness::{DatabaseServer as _, MariadbServer, PATIENCE, Proxy, own_group};

fn seq(counter: u64) -> Sequence {
    Sequence::new(Term(1), counter)
}

fn mark(upto: u64) -> Op {
    Op::Mark { holder: Holder::Queue(ORDERS), upto: seq(upto) }
}

/// Somebody with a client of the database: no broker.
async fn stranger() -> Session {
    let mut session = MariadbServer::shared().connector("nobody").connect("stranger").await.unwrap();
    // As slow as the machine is.
    let patient = "SET SESSION idle_transaction_timeout = 0, innodb_lock_wait_timeout = 60";
    session.query_drop(patient).await.unwrap();
    session
}

/// The one value that a query brings.
async fn value<T: FromValue + Send + 'static>(session: &mut Session, query: &str) -> T {
    session.query_first(query).await.unwrap().unwrap()
}

/// A broker whose connections a test can break.
async fn behind(proxy: &Proxy, backend: &Mysql) -> Broker<MysqlAdapter> {
    let connector = MariadbServer::shared().connector_at(proxy.port(), backend.group().as_str());
    Broker::on(MysqlAdapter::new(connector, backend.group().clone())).await
}

async fn proxy() -> Proxy {
    Proxy::to(MariadbServer::shared().port()).await
}

/// Waits until the database says this of itself.
async fn becomes_true(session: &mut Session, condition: &str) {
    let ask = async {
        while !value::<bool>(session, &format!("SELECT {condition}")).await {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ask).await.unwrap_or_else(|_| panic!("it never becomes true that {condition}"));
}

/// A broker is at the statement for marks, which somebody keeps it from.
fn is_at_its_marks(group: &Group) -> String {
    format!(
        "EXISTS (SELECT 1 FROM information_schema.processlist \
         WHERE info LIKE '%INSERT INTO {group}\\_dispatch\\_mark%' AND id <> CONNECTION_ID())"
    )
}

/// Cuts the network as soon as the condition holds.
async fn cut_when(proxy: &Proxy, session: &mut Session, condition: &str) {
    becomes_true(session, condition).await;
    proxy.cut();
}

const COMMIT: &str = MariadbServer::COMMIT;

/// A transaction has as many as it has statements (BEGIN, fence, settles, inserts, the end), however many messages.
#[tokio::test]
async fn a_batch_takes_few_round_trips_however_much_is_in_it() {
    let (backend, proxy) = (Mysql::new().await, proxy().await);
    proxy.count_for(" writer");
    let mut broker = behind(&proxy, &backend).await;
    broker.commit((1..=128).map(|counter| insert(seq(counter), 10)).collect()).await;
    for (first, count) in [(129, 1), (130, 128)] {
        let ops = (first..first + count).map(|counter| insert(seq(counter), 10)).chain([settle(seq(first - 1))]);
        let before = proxy.round_trips();
        broker.commit(ops.collect()).await;
        assert_eq!(proxy.round_trips() - before, 5, "{count} messages");
    }
}

#[tokio::test]
async fn r11_when_the_answer_to_a_raise_is_lost_the_next_one_is_no_deposition() {
    let (backend, mut stranger, proxy) = (Mysql::new().await, stranger().await, proxy().await);
    let mut broker = behind(&proxy, &backend).await;
    for next in [Tenure::next_token, |tenure: Tenure| tenure.next_above(tenure)] {
        let lost = next(broker.tenure);
        let raised = format!("token = {} FROM {}_baton", lost.token.0, backend.group());
        proxy.lose_answers_after(COMMIT);
        let (answer, ()) = tokio::join!(broker.adapter.raise(lost), cut_when(&proxy, &mut stranger, &raised));
        assert!(matches!(answer, Err(StoreError::Database { .. })), "{answer:?}");
        broker.tenure = lost.next_token();
        broker.adapter.raise(broker.tenure).await.unwrap();
    }
    broker.commit(vec![insert(seq(1), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)]);
}

#[tokio::test]
async fn r11_when_the_answer_to_a_batch_is_lost_it_is_repeated_under_a_new_token_and_is_there_once() {
    let (backend, mut stranger, proxy) = (Mysql::new().await, stranger().await, proxy().await);
    let mut broker = behind(&proxy, &backend).await;
    let batch = Arc::new(Batch { number: BatchNumber(1), ops: vec![insert(seq(1), 10)] });
    let is_there = format!("EXISTS (SELECT 1 FROM {}_message)", backend.group());
    proxy.lose_answers_after("COMMIT");
    let lost = broker.adapter.try_commit(&batch);
    let (answer, ()) = tokio::join!(lost, cut_when(&proxy, &mut stranger, &is_there));
    assert!(matches!(answer, Err(CommitError::Unknown { .. })), "{answer:?}");
    broker.adapter.raise(broker.tenure.next_token()).await.unwrap();
    broker.adapter.try_commit(&batch).await.unwrap();
    broker.number = 1;
    broker.commit(vec![settle(seq(1)), insert(seq(2), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(2)]);
}

#[tokio::test]
async fn r11_a_commit_that_arrives_after_the_raise_writes_nothing() {
    let (backend, proxy) = (Mysql::new().await, proxy().await);
    let mut broker = behind(&proxy, &backend).await;
    broker.commit(vec![insert(seq(1), 10)]).await;
    proxy.hold_back("COMMIT");
    let answer = broker.try_commit(vec![insert(seq(2), 10), settle(seq(1))]).await;
    assert!(matches!(answer, Err(CommitError::Unknown { .. })), "{answer:?}");
    let broker = Broker::start(&backend).await; // the transaction that still has the row is ended (R19)
    proxy.deliver().await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)], "nothing of it");
}

#[tokio::test]
async fn r12_after_a_doubt_nothing_is_written_until_the_token_was_raised() {
    let (backend, mut stranger, proxy) = (Mysql::new().await, stranger().await, proxy().await);
    let mut broker = behind(&proxy, &backend).await;
    let is_there = format!("EXISTS (SELECT 1 FROM {}_message)", backend.group());
    proxy.lose_answers_after("COMMIT");
    let lost = broker.try_commit(vec![insert(seq(1), 10)]);
    let (answer, ()) = tokio::join!(lost, cut_when(&proxy, &mut stranger, &is_there));
    assert!(matches!(answer, Err(CommitError::Unknown { .. })), "{answer:?}");
    for ops in [vec![settle(seq(1))], Script::first_batch()] {
        let answer = broker.try_commit(ops).await;
        assert!(matches!(answer, Err(CommitError::Unknown { .. })), "{answer:?}");
    }
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)]);
    broker.adapter.raise(broker.tenure.next_token()).await.unwrap();
    broker.commit(vec![settle(seq(1))]).await;
    assert_eq!(broker.messages(ORDERS).await, []);
}

#[tokio::test]
async fn r13_a_message_that_somebody_forbids_in_the_database_is_refused() {
    let (backend, mut stranger) = (Mysql::new().await, stranger().await);
    let mut broker = Broker::start(&backend).await;
    let constraint = format!("ALTER TABLE {}_message ADD CHECK (size < 1000)", backend.group());
    stranger.query_drop(constraint).await.unwrap();
    let answer = broker.try_commit(vec![insert(seq(1), 10), insert(seq(2), 5_000)]).await;
    assert!(matches!(answer, Err(CommitError::Refused { .. })), "{answer:?}");
    assert_eq!(broker.messages(ORDERS).await, [], "nothing of it");
    broker.commit(vec![insert(seq(1), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)]);
}

#[tokio::test]
async fn r13_what_no_packet_takes_is_refused_and_what_one_takes_is_split() {
    let server = MariadbServer::start(&["max-allowed-packet=1M"]);
    let mut broker = Broker::on(MysqlAdapter::new(server.connector("one"), own_group())).await;
    assert!(broker.adapter.limits().message_bytes_max < 1 << 20);
    let answer = broker.try_commit(vec![insert(seq(1), 10), insert(seq(2), 1 << 20)]).await;
    assert!(matches!(answer, Err(CommitError::Refused { .. })), "{answer:?}");
    let largest = broker.adapter.limits().message_bytes_max - 500;
    let ops = (1..=40).map(|counter| insert(seq(counter), 100 << 10)).chain([insert(seq(41), largest)]);
    broker.commit(ops.collect()).await;
    assert_eq!(broker.messages(ORDERS).await.len(), 41);
}

#[tokio::test]
async fn r15_a_deadlock_means_that_nothing_was_written_and_the_batch_can_be_repeated() {
    let (backend, mut stranger) = (Mysql::new().await, stranger().await);
    let (mut broker, group) = (Broker::start(&backend).await, backend.group());
    broker.commit(vec![mark(1)]).await;
    stranger.query_drop(format!("CREATE TABLE {group}_other (id INT PRIMARY KEY) ENGINE = InnoDB")).await.unwrap();
    // Who has written more is the one that goes on.
    let write = format!(
        "BEGIN; INSERT INTO {group}_other SELECT seq FROM seq_1_to_1000; \
                         SELECT upto FROM {group}_dispatch_mark FOR UPDATE"
    );
    stranger.query_drop(write).await.unwrap();
    let ops = vec![mark(2), insert(seq(1), 10)];
    let (answer, ()) = tokio::join!(broker.try_commit(ops.clone()), async {
        becomes_true(&mut stranger, &is_at_its_marks(group)).await;
        stranger.query_drop(format!("UPDATE {group}_baton SET released = TRUE")).await.unwrap();
        stranger.query_drop("ROLLBACK").await.unwrap();
    });
    assert!(matches!(answer, Err(CommitError::Again { .. })), "{answer:?}");
    assert_eq!(broker.messages(ORDERS).await, []);
    broker.commit(ops).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)]);
}

#[tokio::test]
async fn r15_after_an_error_in_the_middle_nothing_is_written() {
    let (backend, mut stranger) = (Mysql::new().await, stranger().await);
    let (mut broker, group) = (Broker::start(&backend).await, backend.group());
    broker.commit(vec![insert(seq(1), 10)]).await;
    for (number, is_it) in [
        (1114, (|error| matches!(error, CommitError::Full)) as fn(&CommitError) -> bool),
        (1205, |error| matches!(error, CommitError::Again { .. })),
        (1644, |error| matches!(error, CommitError::Refused { .. })),
    ] {
        let trigger = format!(
            "CREATE TRIGGER {group}_no BEFORE INSERT ON {group}_dispatch_mark FOR EACH ROW \
             SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {number}"
        );
        stranger.query_drop(trigger).await.unwrap();
        let answer = broker.try_commit(vec![settle(seq(1)), insert(seq(2), 10), mark(1)]).await;
        assert!(answer.as_ref().is_err_and(is_it), "{number}: {answer:?}");
        stranger.query_drop(format!("DROP TRIGGER {group}_no")).await.unwrap();
        assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)], "{number}");
    }
    broker.commit(vec![settle(seq(1)), insert(seq(2), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(2)]);
}

#[tokio::test]
async fn r17_who_was_taken_over_writes_and_raises_nothing() {
    let backend = Mysql::new().await;
    let mut old = Broker::start(&backend).await;
    old.commit(vec![insert(seq(1), 10)]).await;
    let new = Broker::start(&backend).await;
    assert_eq!(new.tenure, old.tenure.next_above(old.tenure));
    for ops in [vec![insert(seq(2), 10)], Script::first_batch(), vec![Op::DeleteDurable { id: DurableId(1) }]] {
        let answer = old.try_commit(ops).await;
        assert!(matches!(answer, Err(CommitError::Deposed)), "{answer:?}");
    }
    let answer = old.adapter.raise(Tenure { token: FencingToken(99), ..old.tenure }).await;
    assert!(matches!(answer, Err(StoreError::Deposed)), "{answer:?}");
    assert_eq!(sequences(&new.messages(ORDERS).await), [seq(1)]);
    let catalog = Broker::start(&backend).await.catalog;
    assert_eq!((catalog.destinations.len(), catalog.last_durable), (0, DurableId(0)));
}

#[tokio::test]
async fn a_take_over_waits_for_what_is_being_written_and_sees_it() {
    let (backend, mut stranger) = (Mysql::new().await, stranger().await);
    let (old, group) = (Broker::start(&backend).await, backend.group());
    let prove = format!("UPDATE {group}_baton SET batch = batch + 1 WHERE id = 1 AND token = {}", old.tenure.token.0);
    // As a broker's transaction that is slow between its fence and its commit.
    stranger.query_drop(format!("BEGIN; {prove}")).await.unwrap();
    assert_eq!(stranger.affected_rows(), 1);
    let write = format!(
        "SELECT SLEEP(0.7); \
         INSERT INTO {group}_message (sequence, queue, destination, priority, persistent, created, size, message_id, \
                                      body_kind, headers, body) \
         VALUES ({}, 1, 1, 4, TRUE, 0, 300, '', 'bytes', '{{}}', ''); \
         COMMIT",
        seq(1).as_u64()
    );
    let (new, written) = tokio::join!(Broker::start(&backend), stranger.query_drop(write));
    written.unwrap();
    assert_eq!(sequences(&new.messages(ORDERS).await), [seq(1)], "it was durable before the take-over was");
    stranger.query_drop(prove).await.unwrap();
    assert_eq!(stranger.affected_rows(), 0, "and nothing follows");
}

/// As a broker that is frozen while it reads what it took over.
#[tokio::test]
async fn r19_a_recovery_that_hangs_can_be_ended() {
    let (backend, mut stranger) = (Mysql::new().await, stranger().await);
    drop(Broker::start(&backend).await);
    let group = backend.group();
    let emptied = format!("UPDATE {group}_baton SET writer_session = NULL, writer_mark = NULL"); // as a take-over does
    stranger.query_drop(emptied).await.unwrap();
    let mut hangs = backend.open().await;
    let catalog = hangs.recover().await.unwrap();
    let next = Broker::start(&backend).await;
    assert_eq!(next.catalog.tenure, catalog.tenure, "nothing was written");
    let answer = hangs.raise(catalog.tenure.next_token()).await;
    assert!(matches!(answer, Err(StoreError::Database { .. })), "its session is gone: {answer:?}");
}

#[tokio::test]
async fn r19_the_session_of_a_frozen_writer_is_ended() {
    let (backend, mut stranger) = (Mysql::new().await, stranger().await);
    let (mut old, group) = (Broker::start(&backend).await, backend.group());
    old.commit(vec![mark(1)]).await;
    // Its transaction has the fence, and waits for this.
    stranger.query_drop(format!("BEGIN; SELECT upto FROM {group}_dispatch_mark FOR UPDATE")).await.unwrap();
    let (written, new) = tokio::join!(old.try_commit(vec![mark(2), insert(seq(1), 10)]), async {
        becomes_true(&mut stranger, &is_at_its_marks(group)).await;
        Broker::start(&backend).await
    });
    assert!(matches!(written, Err(CommitError::Unknown { .. })), "{written:?}");
    let answer = old.adapter.raise(old.tenure.next_token()).await;
    assert!(matches!(answer, Err(StoreError::Deposed)), "{answer:?}");
    stranger.query_drop("COMMIT").await.expect("who was in the way was left alone");
    assert_eq!(new.messages(ORDERS).await, [], "it was not confirmed, and is not there");
}

#[tokio::test]
async fn r19_a_strangers_session_is_never_ended() {
    let (backend, mut stranger) = (Mysql::new().await, stranger().await);
    let (mut broker, group) = (Broker::start(&backend).await, backend.group());
    // The row names its number, but a mark that it does not hold: a server gives numbers again after it was restarted.
    let name = format!(
        "UPDATE {group}_baton SET writer_session = CONNECTION_ID(); \
         BEGIN; SELECT token FROM {group}_baton FOR UPDATE"
    );
    stranger.query_drop(name).await.unwrap();
    let raised = broker.tenure.next_token();
    let answer = broker.adapter.raise(raised).await;
    let Err(StoreError::Database { source, .. }) = answer else { panic!("{answer:?}") };
    assert!(source.to_string().contains("innodb_trx"), "{source}");
    stranger.query_drop("COMMIT").await.expect("it is still there");
    broker.adapter.raise(raised.next_token()).await.unwrap();
    broker.commit(vec![insert(seq(1), 10)]).await;
}

#[tokio::test]
async fn r21_an_older_copy_that_was_restored_is_not_gone_on_with() {
    let (backend, mut stranger, proxy) = (Mysql::new().await, stranger().await, proxy().await);
    let (mut broker, group) = (behind(&proxy, &backend).await, backend.group());
    broker.commit(vec![insert(seq(1), 10)]).await;
    broker.commit(vec![insert(seq(2), 10)]).await;
    proxy.cut();
    let answer = broker.try_commit(vec![insert(seq(3), 10)]).await;
    assert!(matches!(answer, Err(CommitError::Unknown { .. })), "{answer:?}");
    let copy = format!(
        "DELETE FROM {group}_message WHERE sequence = {}; UPDATE {group}_baton SET batch = batch - 1",
        seq(2).as_u64()
    );
    stranger.query_drop(copy).await.unwrap();
    let answer = broker.adapter.raise(broker.tenure.next_token()).await;
    assert!(matches!(answer, Err(StoreError::Deposed)), "{answer:?}");
    assert_eq!(sequences(&Broker::start(&backend).await.messages(ORDERS).await), [seq(1)], "all is read anew");
}

#[tokio::test]
async fn r26_what_was_settled_is_in_no_page_that_is_read_later() {
    let backend = Mysql::new().await;
    let mut broker = Broker::start(&backend).await;
    broker.commit((1..=50).map(|counter| insert(seq(counter), 10)).collect()).await;
    for counter in 1..=50 {
        broker.commit(vec![settle(seq(counter))]).await;
        assert_eq!(broker.messages(ORDERS).await.len() as u64, 50 - counter);
    }
}

#[tokio::test]
async fn r28_what_is_counted_while_batches_go_on_is_what_was_there_at_the_recovery() {
    const MESSAGES: u64 = 20_000;
    let backend = Mysql::new().await;
    let mut broker = Broker::start(&backend).await;
    broker.commit((1..=MESSAGES).map(|counter| insert(seq(counter), 10)).collect()).await;
    let mut broker = Broker::start(&backend).await;
    let reader = broker.adapter.reader();
    let counted = Tasks::new();
    let (told, answer) = tokio::sync::oneshot::channel();
    counted.spawn("count", async move { told.send(reader.backlog(Holder::Queue(ORDERS)).await).unwrap() });
    for batch in 0..MESSAGES / 500 {
        let (first, new) = (batch * 500 + 1, Sequence::new(broker.tenure.term, batch + 1));
        broker
            .commit((first..first + 500).map(|counter| settle(seq(counter))).chain([insert(new, 10)]).collect())
            .await;
    }
    let backlog = answer.await.unwrap().unwrap();
    assert_eq!(backlog.messages, [0, 0, 0, 0, MESSAGES, 0, 0, 0, 0, 0]);
    assert_ne!(backlog, Backlog::default());
}

#[tokio::test]
async fn r28_a_count_that_was_interrupted_goes_on_and_is_still_that_of_the_recovery() {
    const MESSAGES: u64 = 200;
    let (backend, proxy) = (Mysql::new().await, proxy().await);
    let mut broker = Broker::start(&backend).await;
    broker.commit((1..=MESSAGES).map(|counter| insert(seq(counter), 10)).collect()).await;
    proxy.hold_back("SUM(m.size)");
    let broker = behind(&proxy, &backend).await;
    proxy.holds_something_back().await;
    proxy.deliver().await;
    let backlog = count_beside_batches(broker, MESSAGES).await;
    assert_eq!(backlog.messages, [0, 0, 0, 0, MESSAGES, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn r29_a_deleted_subscription_goes_at_once_and_its_rows_follow_in_parts() {
    let (backend, mut stranger) = (Mysql::new().await, stranger().await);
    let (mut broker, group) = (Broker::start(&backend).await, backend.group());
    broker.commit(Script::first_batch()).await;
    let news = |counter| {
        let holders = [1, 2].map(|id| Held::fresh(Holder::Durable(DurableId(id)))).into_iter().collect();
        let Op::Insert(stored) = insert(seq(counter), 10) else { unreachable!() };
        Op::Insert(Stored { destination: NEWS, holders, ..stored })
    };
    broker.commit((1..=1_200).map(news).collect()).await;
    broker.commit(vec![Op::DeleteDurable { id: DurableId(1) }]).await;
    let rows = format!("SELECT COUNT(*) FROM {group}_held WHERE durable = 1");
    assert_eq!(value::<u64>(&mut stranger, &rows).await, 1_200);
    let reader = broker.adapter.reader();
    let page = reader.page(Holder::Durable(DurableId(1)), Default::default(), EVERYTHING, LARGE).await.unwrap();
    assert!(page.messages.is_empty() && page.complete);
    for left in [700, 200, 0] {
        broker.commit(vec![insert(seq(5_000 + left), 10)]).await;
        assert_eq!(value::<u64>(&mut stranger, &rows).await, left);
    }
    let mut broker = Broker::start(&backend).await; // and the next master knows where to go on
    broker.commit(vec![]).await;
    assert_eq!(value::<u64>(&mut stranger, &format!("SELECT COUNT(*) FROM {group}_purged")).await, 0);
    assert_eq!(broker.messages(NEWS).await.len(), 1_200, "the other one's");
}

#[tokio::test]
async fn tables_that_were_altered_by_hand_end_the_term_and_say_what_to_do() {
    let (backend, mut stranger) = (Mysql::new().await, stranger().await);
    let (mut broker, group) = (Broker::start(&backend).await, backend.group());
    broker.commit(vec![insert(seq(1), 10)]).await;
    stranger.query_drop(format!("ALTER TABLE {group}_message CHANGE size bytes INT NOT NULL")).await.unwrap();
    let answer = broker.try_commit(vec![insert(seq(2), 10)]).await;
    assert!(matches!(answer, Err(CommitError::Unusable(_))), "{answer:?}");
    drop(broker);
    let error = backend.open().await.recover().await.unwrap_err();
    let StoreError::Schema(altered) = error else { panic!("{error}") };
    assert!(altered.to_string().contains(group.as_str()), "{altered}");
    assert!(altered.fix().contains("batonmq migrate --print"), "{}", altered.fix());
}

#[tokio::test]
async fn tables_without_transactions_are_refused() {
    let (backend, mut stranger) = (Mysql::new().await, stranger().await);
    drop(Broker::start(&backend).await);
    stranger.query_drop(format!("ALTER TABLE {}_held ENGINE = MyISAM", backend.group())).await.unwrap();
    let error = backend.open().await.recover().await.unwrap_err();
    let StoreError::Schema(altered) = error else { panic!("{error}") };
    let causes = format!("{altered}: {}", std::error::Error::source(&altered).unwrap());
    assert!(causes.contains("MyISAM") && causes.contains("_held"), "{causes}");
}

#[tokio::test]
async fn a_right_that_was_taken_away_ends_the_term() {
    let (backend, mut owner) = (Mysql::new().await, stranger().await);
    let (broker, group) = (Broker::start(&backend).await, backend.group());
    drop(broker);
    let database = MariadbServer::shared().database();
    owner.query_drop(format!("CREATE USER {group} IDENTIFIED BY 'own'")).await.unwrap();
    let tables: Vec<String> = owner.query(format!("SHOW TABLES LIKE '{group}\\_%'")).await.unwrap();
    for table in &tables {
        let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.{table} TO {group}");
        owner.query_drop(grant).await.unwrap();
    }
    let connector = MariadbServer::shared().connector_of(group.as_str(), "own");
    let mut broker = Broker::on(MysqlAdapter::new(connector, group.clone())).await;
    broker.commit(vec![insert(seq(1), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)], "these rights are enough");
    owner.query_drop(format!("REVOKE INSERT ON {database}.{group}_message FROM {group}")).await.unwrap();
    let answer = broker.try_commit(vec![insert(seq(2), 10)]).await;
    assert!(matches!(answer, Err(CommitError::Unusable(_))), "{answer:?}");
}

/// The row on the old master's node may still have its token when a batch asks for that; then the cluster refuses the batch
/// when it commits.
#[tokio::test]
async fn r15_a_batch_on_one_node_is_refused_after_a_take_over_on_another() {
    let backend = Cluster::new().await;
    let mut old = Broker::start(&backend).await;
    for _ in 0..20 {
        old.commit(vec![mark(1)]).await;
        let new = Broker::start(&backend).await;
        let mut answer = old.try_commit(vec![insert(seq(1), 10)]).await;
        while matches!(answer, Err(CommitError::Again { .. })) {
            answer = old.try_commit(vec![insert(seq(1), 10)]).await;
        }
        assert!(matches!(answer, Err(CommitError::Deposed)), "{answer:?}");
        assert_eq!(sequences(&new.messages(ORDERS).await), []);
        old = new;
    }
}
