//! What the store in PostgreSQL promises when connections are lost, sessions freeze, and others take over.

use std::sync::Arc;

use batonmq::{
    db::postgres::Session,
    persistence::{Backlog, CommitError, MessageReader, PersistenceAdapter, PostgresAdapter, StoreError},
    tasks::Tasks,
    types::{
        Batch, BatchNumber, DurableId, FencingToken, Group, Held, Holder, Message, MessageDraft, Op, Sequence, Stored,
        Tenure, Term,
    },
};
use smallvec::smallvec;
use tokio::time::timeout;

use super::{
    Backend, Broker, EVERYTHING, LARGE, NEWS, ORDERS, Postgres, count_beside_batches, insert, script::Script,
    sequences, settle,
};
use crate::harness::{DatabaseServer as _, PATIENCE, PostgresServer, Proxy, Stop, own_group};

fn seq(counter: u64) -> Sequence {
    Sequence::new(Term(1), counter)
}

/// Somebody with a `psql`: no broker.
pub(super) async fn stranger() -> Session {
    session_of(PostgresServer::shared()).await
}

pub(super) async fn session_of(server: &PostgresServer) -> Session {
    let (session, driver) = server.connector("nobody").connect("stranger").await.unwrap();
    Tasks::new().spawn("stranger", driver.run());
    session.batch_execute("SET idle_in_transaction_session_timeout = 0").await.unwrap(); // as slow as the machine is
    session
}

/// A broker whose connections a test can break.
async fn behind(proxy: &Proxy, backend: &Postgres) -> Broker<PostgresAdapter> {
    let connector = PostgresServer::shared().connector_at(proxy.port(), backend.group().as_str());
    Broker::on(PostgresAdapter::new(connector, backend.group().clone()).unwrap()).await
}

async fn proxy() -> Proxy {
    Proxy::to(PostgresServer::shared().port()).await
}

/// Waits until the database says this of itself.
pub(super) async fn becomes_true(session: &Session, condition: &str) {
    let ask = async {
        while !session.query_one_scalar::<bool, _>(&format!("SELECT {condition}"), &[]).await.unwrap() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ask).await.unwrap_or_else(|_| panic!("it never becomes true that {condition}"));
}

/// How many sessions of a group wait for a lock.
fn waits_for_a_lock(group: &impl std::fmt::Display) -> String {
    format!(
        "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%\"{group}\"%' \
         AND pid <> pg_backend_pid())"
    )
}

/// Cuts the network as soon as the condition holds.
async fn cut_when(proxy: &Proxy, session: &Session, condition: &str) {
    becomes_true(session, condition).await;
    proxy.cut();
}

/// All of a batch is one statement: fence, settles and inserts.
#[tokio::test]
async fn a_batch_is_one_round_trip() {
    let (backend, proxy) = (Postgres::new().await, proxy().await);
    proxy.count_for(" writer");
    let mut broker = behind(&proxy, &backend).await;
    broker.commit(vec![insert(seq(1), 10)]).await; // the first one may have to prepare something
    for (first, count) in [(2, 1), (3, 200)] {
        let ops = (first..first + count).map(|counter| insert(seq(counter), 10)).chain([settle(seq(first - 1))]);
        let before = proxy.round_trips();
        broker.commit(ops.collect()).await;
        assert_eq!(proxy.round_trips() - before, 1, "{count} messages");
    }
}

#[tokio::test]
async fn r11_when_the_answer_to_a_raise_is_lost_the_next_one_is_no_deposition() {
    let (backend, stranger, proxy) = (Postgres::new().await, stranger().await, proxy().await);
    let mut broker = behind(&proxy, &backend).await;
    for next in [Tenure::next_token, |tenure: Tenure| tenure.next_above(tenure)] {
        let lost = next(broker.tenure);
        let raised = format!("token = {} FROM {}.baton", lost.token.0, backend.group());
        proxy.lose_answers_after("COMMIT");
        let (answer, ()) = tokio::join!(broker.adapter.raise(lost), cut_when(&proxy, &stranger, &raised));
        assert!(matches!(answer, Err(StoreError::Database { .. })), "{answer:?}");
        broker.tenure = lost.next_token();
        broker.adapter.raise(broker.tenure).await.unwrap();
    }
    broker.commit(vec![insert(seq(1), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)]);
}

#[tokio::test]
async fn r11_when_the_answer_to_a_batch_is_lost_it_is_repeated_under_a_new_token_and_is_there_once() {
    let (backend, stranger, proxy) = (Postgres::new().await, stranger().await, proxy().await);
    let mut broker = behind(&proxy, &backend).await;
    let batch = Arc::new(Batch { number: BatchNumber(1), ops: vec![insert(seq(1), 10)] });
    proxy.lose_answers_after("ID:test-1.1");
    let is_there = format!("EXISTS (SELECT FROM {}.message)", backend.group());
    let (answer, ()) = tokio::join!(broker.adapter.try_commit(&batch), cut_when(&proxy, &stranger, &is_there));
    assert!(matches!(answer, Err(CommitError::Unknown { .. })), "{answer:?}");
    broker.adapter.raise(broker.tenure.next_token()).await.unwrap();
    broker.adapter.try_commit(&batch).await.unwrap();
    broker.number = 1;
    broker.commit(vec![settle(seq(1)), insert(seq(2), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(2)]);
}

#[tokio::test]
async fn r11_a_statement_that_arrives_after_the_raise_writes_nothing() {
    let stranger = stranger().await;
    for others in [vec![], vec![insert(seq(4), 10)]] {
        let (backend, proxy) = (Postgres::new().await, proxy().await);
        let mut broker = behind(&proxy, &backend).await;
        broker.commit(vec![insert(seq(1), 10)]).await;
        proxy.hold_back("ID:test-1.2");
        let late = [insert(seq(2), 10), settle(seq(1))].into_iter().chain(others);
        let answer = broker.try_commit(late.collect()).await;
        assert!(matches!(answer, Err(CommitError::Unknown { .. })), "{answer:?}");
        broker.adapter.raise(broker.tenure.next_token()).await.unwrap();
        let name = format!("application_name = 'batonmq {} writer'", backend.group());
        let sessions = format!("(SELECT count(*) FROM pg_stat_activity WHERE {name})");
        becomes_true(&stranger, &format!("{sessions} = 2")).await; // the late one is still there
        proxy.deliver().await;
        becomes_true(&stranger, &format!("{sessions} = 1")).await;
        assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)], "nothing of it");
        broker.commit(vec![insert(seq(5), 10)]).await;
        assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1), seq(5)]);
    }
}

#[tokio::test]
async fn r12_after_a_doubt_nothing_is_written_until_the_token_was_raised() {
    let (backend, stranger, proxy) = (Postgres::new().await, stranger().await, proxy().await);
    let mut broker = behind(&proxy, &backend).await;
    proxy.lose_answers_after("ID:test-1.1");
    let is_there = format!("EXISTS (SELECT FROM {}.message)", backend.group());
    let lost = broker.try_commit(vec![insert(seq(1), 10)]);
    let (answer, ()) = tokio::join!(lost, cut_when(&proxy, &stranger, &is_there));
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
async fn r13_an_impossible_character_is_refused_and_everything_else_goes_on() {
    let backend = Postgres::new().await;
    let mut broker = Broker::start(&backend).await;
    let draft = MessageDraft { correlation_id: Some("a\0b".into()), ..MessageDraft::default() };
    let holders = smallvec![Held::fresh(Holder::Queue(ORDERS))];
    let message = Arc::new(Message::new(draft));
    let bad = Op::Insert(Stored { sequence: seq(2), destination: ORDERS, holders, message });
    for ops in [vec![insert(seq(1), 10), bad.clone()], vec![bad]] {
        let answer = broker.try_commit(ops).await;
        assert!(matches!(answer, Err(CommitError::Refused { .. })), "{answer:?}");
    }
    broker.commit(vec![insert(seq(1), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)]);
}

#[tokio::test]
async fn r13_a_message_that_somebody_forbids_in_the_database_is_refused() {
    let (backend, stranger) = (Postgres::new().await, stranger().await);
    let mut broker = Broker::start(&backend).await;
    let constraint = format!("ALTER TABLE {}.message ADD CHECK (size < 1000)", backend.group());
    stranger.batch_execute(&constraint).await.unwrap();
    let answer = broker.try_commit(vec![insert(seq(1), 10), insert(seq(2), 5_000)]).await;
    assert!(matches!(answer, Err(CommitError::Refused { .. })), "{answer:?}");
    broker.commit(vec![insert(seq(1), 10)]).await;
}

/// Raises until the database answers: a session that a restart ended is found out by the first attempt.
async fn raise(broker: &mut Broker<PostgresAdapter>) -> Result<(), StoreError> {
    loop {
        broker.tenure = broker.tenure.next_token();
        match broker.adapter.raise(broker.tenure).await {
            Err(StoreError::Database { .. }) => {}
            answer => return answer,
        }
    }
}

#[tokio::test]
async fn r21_a_writer_that_finds_an_older_copy_does_not_go_on() {
    let mut server = PostgresServer::own();
    let mut broker = Broker::on(PostgresAdapter::new(server.connector("one"), own_group()).unwrap()).await;
    broker.commit(vec![insert(seq(1), 10)]).await;
    server.stop(Stop::Polite);
    server.copy_data();
    server.launch();
    assert!(raise(&mut broker).await.is_ok(), "a restart is the same history");
    for counter in 2..20 {
        broker.commit(vec![insert(seq(counter), 10)]).await; // less than a server writes when it starts
    }
    server.stop(Stop::Polite);
    server.restore_data();
    server.launch();
    let answer = raise(&mut broker).await;
    assert!(matches!(answer, Err(StoreError::Deposed)), "{answer:?}");
}

#[tokio::test]
async fn r16_a_warning_is_no_confirmation() {
    let (backend, stranger) = (Postgres::new().await, stranger().await);
    let (mut broker, group) = (Broker::start(&backend).await, backend.group());
    let warn = |table: &str, event: &str| {
        format!(
            "CREATE FUNCTION {group}.warn() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE WARNING 'not on the standby'; RETURN NEW; END $$; \
             CREATE TRIGGER warn AFTER {event} ON {group}.{table} EXECUTE FUNCTION {group}.warn()"
        )
    };
    let hush = format!("DROP FUNCTION {group}.warn CASCADE");
    stranger.batch_execute(&warn("message", "INSERT")).await.unwrap();
    let batch = Arc::new(Batch { number: BatchNumber(1), ops: vec![insert(seq(1), 10)] });
    let answer = broker.adapter.try_commit(&batch).await;
    assert!(matches!(answer, Err(CommitError::Unknown { .. })), "{answer:?}");
    stranger.batch_execute(&hush).await.unwrap();
    stranger.batch_execute(&warn("baton", "UPDATE")).await.unwrap();
    let raised = broker.tenure.next_token();
    let answer = broker.adapter.raise(raised).await;
    assert!(matches!(answer, Err(StoreError::Database { .. })), "{answer:?}");
    stranger.batch_execute(&hush).await.unwrap();
    broker.adapter.raise(raised.next_token()).await.unwrap();
    broker.adapter.try_commit(&batch).await.unwrap();
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)]);
}

#[tokio::test]
async fn r16_a_wait_for_the_standby_that_was_cancelled_is_no_confirmation() {
    let server = PostgresServer::start(&[]);
    let adapter = PostgresAdapter::new(server.connector("one"), Group::default()).unwrap();
    let mut broker = Broker::on(adapter).await;
    broker.commit(vec![insert(seq(1), 10)]).await;
    server.psql("CREATE TABLE public.probe ()");
    server.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.psql("SELECT pg_reload_conf()");
    let (administrator, probe) = (session_of(&server).await, session_of(&server).await);
    let [probe_is_cancelled, writer_is_cancelled] = ["stranger", "writer"].map(|who| {
        let waits = format!("wait_event = 'SyncRep' AND application_name LIKE '% {who}'");
        format!("(SELECT count(pg_cancel_backend(pid)) > 0 FROM pg_stat_activity WHERE {waits})")
    });
    // A server takes a setting when it comes to it: from then on every commit waits.
    let commits = async { while probe.batch_execute("INSERT INTO public.probe DEFAULT VALUES").await.is_ok() {} };
    tokio::select! {
        () = becomes_true(&administrator, &probe_is_cancelled) => {}
        () = commits => panic!("a wait that is cancelled is a WARNING, and no error"),
    }
    let batch = Arc::new(Batch { number: BatchNumber(2), ops: vec![insert(seq(2), 10)] });
    let (answer, ()) =
        tokio::join!(broker.adapter.try_commit(&batch), becomes_true(&administrator, &writer_is_cancelled));
    assert!(matches!(answer, Err(CommitError::Unknown { .. })), "{answer:?}");
}

#[tokio::test]
async fn r17_who_was_taken_over_writes_and_raises_nothing() {
    let backend = Postgres::new().await;
    let mut old = Broker::start(&backend).await;
    old.commit(vec![insert(seq(1), 10)]).await;
    let new = Broker::start(&backend).await;
    assert_eq!(new.tenure, old.tenure.next_above(old.tenure));
    let one = vec![settle(seq(1)), insert(seq(2), 10)];
    let some = vec![settle(seq(1)), insert(seq(3), 10), insert(seq(4), 10)];
    let not_new = one.clone(); // each of the three is a statement of its own
    for ops in [one, some, not_new, Script::first_batch(), vec![Op::DeleteDurable { id: DurableId(1) }]] {
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
    let (backend, stranger) = (Postgres::new().await, stranger().await);
    let (old, group) = (Broker::start(&backend).await, backend.group());
    let token = old.tenure.token.0;
    let prove = format!("SELECT token FROM {group}.baton WHERE id = 1 AND token = {token} FOR SHARE");
    // As a broker's transaction that is slow between its fence and its commit.
    stranger.batch_execute("BEGIN").await.unwrap();
    assert_eq!(stranger.query(&prove, &[]).await.unwrap().len(), 1);
    let write = format!(
        "SELECT pg_sleep(0.7); \
         INSERT INTO {group}.message (sequence, queue, destination, priority, persistent, created, size, message_id, \
                                      body_kind, headers, body) \
         VALUES ({}, 1, 1, 4, true, 0, 300, '', 'bytes', '{{}}', ''); \
         COMMIT",
        seq(1).as_u64()
    );
    let (new, written) = tokio::join!(Broker::start(&backend), stranger.batch_execute(&write));
    written.unwrap();
    assert_eq!(sequences(&new.messages(ORDERS).await), [seq(1)], "it was durable before the take-over was");
    stranger.batch_execute("BEGIN").await.unwrap();
    assert_eq!(stranger.query(&prove, &[]).await.unwrap().len(), 0, "and nothing follows");
}

/// As a broker that is frozen while it reads what it took over.
#[tokio::test]
async fn r19_a_recovery_that_hangs_can_be_ended() {
    let (backend, stranger) = (Postgres::new().await, stranger().await);
    drop(Broker::start(&backend).await);
    let group = backend.group();
    let emptied = format!("UPDATE {group}.baton SET writer_pid = NULL, writer_started = NULL"); // as a take-over does
    stranger.batch_execute(&emptied).await.unwrap();
    let mut hangs = backend.open().await;
    let catalog = hangs.recover().await.unwrap();
    let next = Broker::start(&backend).await;
    assert_eq!(next.catalog.tenure, catalog.tenure, "nothing was written");
    let answer = hangs.raise(catalog.tenure.next_token()).await;
    assert!(matches!(answer, Err(StoreError::Database { .. })), "its session is gone: {answer:?}");
}

#[tokio::test]
async fn r19_the_session_of_a_frozen_writer_is_ended() {
    let (backend, stranger) = (Postgres::new().await, stranger().await);
    let (mut old, group) = (Broker::start(&backend).await, backend.group());
    let mark = |upto| Op::Mark { holder: Holder::Queue(ORDERS), upto: seq(upto) };
    old.commit(vec![mark(1)]).await;
    // Its statement has the fence, and waits for this.
    stranger.batch_execute(&format!("BEGIN; SELECT FROM {group}.dispatch_mark FOR UPDATE")).await.unwrap();
    let (written, new) = tokio::join!(old.try_commit(vec![mark(2), insert(seq(1), 10)]), async {
        becomes_true(&stranger, &waits_for_a_lock(group)).await;
        Broker::start(&backend).await
    });
    assert!(matches!(written, Err(CommitError::Unknown { .. })), "{written:?}");
    let answer = old.adapter.raise(old.tenure.next_token()).await;
    assert!(matches!(answer, Err(StoreError::Deposed)), "{answer:?}");
    stranger.batch_execute("COMMIT").await.expect("who was in the way was left alone");
    assert_eq!(new.messages(ORDERS).await, [], "it was not confirmed, and is not there");
}

#[tokio::test]
async fn r19_a_strangers_session_is_never_ended() {
    let (backend, stranger) = (Postgres::new().await, stranger().await);
    let (mut broker, group) = (Broker::start(&backend).await, backend.group());
    // The row names its process, but another start: the operating system gives numbers again.
    let name = format!(
        "UPDATE {group}.baton SET writer_pid = pg_backend_pid(), writer_started = now() - interval '1 day'; \
         BEGIN; SELECT FROM {group}.baton FOR UPDATE"
    );
    stranger.batch_execute(&name).await.unwrap();
    let raised = broker.tenure.next_token();
    let answer = broker.adapter.raise(raised).await;
    let Err(StoreError::Database { source, .. }) = answer else { panic!("{answer:?}") };
    assert!(source.to_string().contains("pg_blocking_pids"), "{source}");
    stranger.batch_execute("COMMIT").await.expect("it is still there");
    broker.adapter.raise(raised.next_token()).await.unwrap();
    broker.commit(vec![insert(seq(1), 10)]).await;
}

#[tokio::test]
async fn r26_what_was_settled_is_in_no_page_that_is_read_later() {
    let backend = Postgres::new().await;
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
    let backend = Postgres::new().await;
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
    let (backend, proxy) = (Postgres::new().await, proxy().await);
    let mut broker = Broker::start(&backend).await;
    broker.commit((1..=MESSAGES).map(|counter| insert(seq(counter), 10)).collect()).await;
    proxy.hold_back("sum(m.size)");
    let broker = behind(&proxy, &backend).await;
    proxy.holds_something_back().await;
    proxy.deliver().await;
    let backlog = count_beside_batches(broker, MESSAGES).await;
    assert_eq!(backlog.messages, [0, 0, 0, 0, MESSAGES, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn r29_a_deleted_subscription_goes_at_once_and_its_rows_follow_in_parts() {
    let (backend, stranger) = (Postgres::new().await, stranger().await);
    let (mut broker, group) = (Broker::start(&backend).await, backend.group());
    broker.commit(Script::first_batch()).await;
    let news = |counter| {
        let holders = [1, 2].map(|id| Held::fresh(Holder::Durable(DurableId(id)))).into_iter().collect();
        let Op::Insert(stored) = insert(seq(counter), 10) else { unreachable!() };
        Op::Insert(Stored { destination: NEWS, holders, ..stored })
    };
    broker.commit((1..=1_200).map(news).collect()).await;
    broker.commit(vec![Op::DeleteDurable { id: DurableId(1) }]).await;
    let rows = async || {
        let count = format!("SELECT count(*) FROM {group}.held WHERE durable = 1");
        stranger.query_one_scalar::<i64, _>(&count, &[]).await.unwrap()
    };
    assert_eq!(rows().await, 1_200);
    let reader = broker.adapter.reader();
    let page = reader.page(Holder::Durable(DurableId(1)), Default::default(), EVERYTHING, LARGE).await.unwrap();
    assert!(page.messages.is_empty() && page.complete);
    for left in [700, 200, 0] {
        broker.commit(vec![insert(seq(5_000 + left), 10)]).await;
        assert_eq!(rows().await as u64, left);
    }
    let mut broker = Broker::start(&backend).await; // and the next master knows where to go on
    broker.commit(vec![]).await;
    let purges = format!("SELECT count(*) FROM {group}.purged");
    assert_eq!(stranger.query_one_scalar::<i64, _>(&purges, &[]).await.unwrap(), 0);
    assert_eq!(broker.messages(NEWS).await.len(), 1_200, "the other one's");
}

#[tokio::test]
async fn tables_that_were_altered_by_hand_end_the_term_and_say_what_to_do() {
    let (backend, stranger) = (Postgres::new().await, stranger().await);
    let (mut broker, group) = (Broker::start(&backend).await, backend.group());
    broker.commit(vec![insert(seq(1), 10)]).await;
    let alter = format!("ALTER TABLE {group}.message RENAME COLUMN size TO bytes");
    stranger.batch_execute(&alter).await.unwrap();
    let answer = broker.try_commit(vec![insert(seq(2), 10)]).await;
    assert!(matches!(answer, Err(CommitError::Unusable(_))), "{answer:?}");
    drop(broker);
    let error = backend.open().await.recover().await.unwrap_err();
    let StoreError::Schema(altered) = error else { panic!("{error}") };
    assert!(altered.to_string().contains(group.as_str()), "{altered}");
    assert!(altered.fix().contains("batonmq migrate --print"), "{}", altered.fix());
}

#[tokio::test]
async fn a_right_that_was_taken_away_ends_the_term() {
    let (backend, owner) = (Postgres::new().await, stranger().await);
    let (broker, group) = (Broker::start(&backend).await, backend.group());
    drop(broker);
    let grants = format!(
        "CREATE ROLE {group} LOGIN PASSWORD 'own'; GRANT USAGE ON SCHEMA {group} TO {group}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {group} TO {group}"
    );
    owner.batch_execute(&grants).await.unwrap();
    let connector = PostgresServer::shared().connector_of(group.as_str(), "own");
    let mut broker = Broker::on(PostgresAdapter::new(connector, group.clone()).unwrap()).await;
    broker.commit(vec![insert(seq(1), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)], "these rights are enough");
    owner.batch_execute(&format!("REVOKE INSERT ON {group}.message FROM {group}")).await.unwrap();
    let answer = broker.try_commit(vec![insert(seq(2), 10)]).await;
    assert!(matches!(answer, Err(CommitError::Unusable(_))), "{answer:?}");
}
