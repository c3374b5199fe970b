//! What is full, and who waits for it: R8, budgets, lazy batches.

use std::{sync::Arc, time::Duration};

use batonmq::{
    broker::{CloseReason, Command, Connect, CoreOptions, Outgoing, Request},
    config::{Limits, StompOptions},
    engine::{self, SESSION_BUDGET_BYTES_MAX},
    persistence::{MemoryAdapter, PersistenceAdapter},
    session::{Authenticator, ConnectionInfo, End, SessionOptions, serve},
    tasks::Tasks,
    types::{Clock, Destination, Mandate, MessageDraft, Meter, Op, TermContext},
};
use tokio::{
    io::AsyncWriteExt,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    broker::{Broker, ack, asking, begin, commit, nack, options, plain, quiet, send, send_draft, send_in, stores},
    store::Store,
};

/// A queue that takes one message of this size.
fn small_queues() -> CoreOptions {
    CoreOptions { limits: Limits { queue_bytes_max: Some(300), ..Limits::default() }, ..options() }
}

/// What a broker with little memory has of it.
const MEMORY_BYTES: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn r8_acks_go_ahead_of_a_send_that_a_full_queue_holds() {
    let store = Store::default();
    let broker = Broker::start_with(&store, small_queues()).await;
    let mut client = broker.client().await;
    client.subscribe(1, "q").await;
    client.submit([asking("one", send("q", "one"))]).await;
    let one = client.gets("one").await;
    client.gets_receipts(&["one"]).await;
    let behind = [asking("two", send("q", "two")), asking("acked", ack(&one))];
    client.submit(behind).await;
    client.gets("two").await;
    client.gets_receipts(&["two", "acked"]).await;
    store.keeps(&["two"]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r8_a_send_that_a_full_queue_holds_gets_error_after_ten_seconds() {
    let store = Store::default();
    let broker = Broker::start_with(&store, small_queues()).await;
    let mut client = broker.client().await;
    client.submit([asking("one", send("q", "one")), asking("two", send("q", "two"))]).await;
    client.gets_receipts(&["one"]).await;
    let begun = Instant::now();
    assert_eq!(client.gets_error().await.1.as_deref(), Some("two"));
    assert!((9_900..10_100).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    client.is_closed(CloseReason::Refused).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r5_a_commit_that_a_full_queue_holds_too_long_is_an_abort() {
    let store = Store::default();
    let options = CoreOptions { limits: Limits { queue_bytes_max: Some(300), ..Limits::default() }, ..options() };
    let broker = Broker::start_with(&store, options).await;
    let mut client = broker.client_as(None, true).await;
    client.submit([asking("one", send("q", "one"))]).await;
    client.gets_receipts(&["one"]).await;
    client.submit([begin("t"), send_in("t", "q", "two"), asking("committed", commit("t"))]).await;
    assert_eq!(client.gets_error().await.1.as_deref(), Some("committed"));
    client.submit([asking("again", begin("t"))]).await;
    client.gets_receipts(&["again"]).await;
    store.keeps(&["one"]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_takes_nothing_asks_for_nothing_more() {
    let store = Store::default();
    let broker = Broker::start_with(&store, options()).await;
    let mut client = broker.client().await;
    let confirm = || (0..1_000).map(|_| asking("r", plain(Command::Confirm)));
    for _ in 0..17 {
        client.submit(confirm()).await;
    }
    quiet().await;
    let waits = timeout(Duration::from_secs(1), client.link.submit(confirm().collect())).await;
    assert!(waits.is_err(), "its answers have no room");
    assert_eq!(client.arrived().await.len(), 17_000);
    client.submit(confirm()).await;
    quiet().await;
    assert_eq!(client.arrived().await.len(), 1_000);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn frames_that_wait_for_the_store_are_bounded() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    broker.keep_busy(&store).await;
    client.submit([asking("m", send("q", "m"))]).await;
    let confirm = || (0..1_000).map(|_| Request { bytes: 256, ..asking("r", plain(Command::Confirm)) }).collect();
    let mut taken = 0;
    while timeout(Duration::from_secs(1), client.link.submit(confirm())).await.is_ok() {
        taken += 1;
        assert!(taken < 200, "each waits behind a message that is not stored, and nobody stops the session");
    }
    store.let_go();
    quiet().await;
    client.gets_receipts(&["m", "r"]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r8_acks_go_ahead_of_a_send_that_full_memory_holds() {
    let (store, meter) = (Store::default(), Meter::new(MEMORY_BYTES));
    let broker = Broker::start_on(store.clone(), MemoryAdapter::new(), options(), meter.clone()).await;
    let mut client = broker.client().await;
    client.subscribe(1, "q").await;
    client.submit([asking("done", send("q", "done"))]).await;
    let done = client.gets("done").await;
    client.gets_receipts(&["done"]).await;
    let full = meter.charge(MEMORY_BYTES);
    client.submit([asking("told", plain(Command::Confirm))]).await;
    client.gets_receipts(&["told"]).await;
    client.submit([asking("waits", send("other", "waits")), asking("acked", ack(&done))]).await;
    tokio::time::sleep(Duration::from_millis(20)).await; // nobody waits for its settle, as its receipt has to wait
    assert_eq!(store.ids(), [""; 0], "the ACK is served while the SEND waits");
    client.gets_nothing().await;
    drop(full);
    client.gets_receipts(&["waits", "acked"]).await;
    assert_eq!(store.ids(), ["waits"]);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r31_requests_count_until_they_are_served() {
    let (store, meter) = (Store::default(), Meter::new(MEMORY_BYTES));
    let broker = Broker::start_on(store.clone(), MemoryAdapter::new(), options(), meter.clone()).await;
    let mut client = broker.client().await;
    let full = meter.charge(MEMORY_BYTES);
    client.submit([asking("told", plain(Command::Confirm))]).await;
    client.gets_receipts(&["told"]).await;
    let before = meter.in_use();
    let large = Request { bytes: 100 << 10, ..plain(Command::Confirm) };
    client.submit([asking("waits", send("q", "waits")), large]).await;
    quiet().await;
    assert!(meter.in_use() >= before + (100 << 10), "it is held behind the SEND");
    drop(full);
    client.gets_receipts(&["waits"]).await;
    quiet().await;
    assert!(meter.in_use() < 10 << 10, "{} bytes", meter.in_use());
    broker.crash().await;
    assert_eq!(meter.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn r8_a_slow_but_steady_consumer_keeps_its_producers() {
    let store = Store::default();
    let broker = Broker::start_with(&store, small_queues()).await;
    let (mut one, mut two, mut consumer) = (broker.client().await, broker.client().await, broker.client().await);
    consumer.subscribe(1, "q").await;
    for at in 0..10 {
        one.submit([asking("1", send("q", &format!("one {at}")))]).await;
        two.submit([asking("2", send("q", &format!("two {at}")))]).await;
    }
    for _ in 0..20 {
        let Outgoing::Delivery(delivery) = consumer.next().await else { panic!("a delivery") };
        tokio::time::sleep(Duration::from_secs(4)).await;
        consumer.submit([ack(&delivery)]).await;
    }
    one.gets_receipts(&["1"; 10]).await;
    two.gets_receipts(&["2"; 10]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r8_a_full_store_refuses_sends_after_ten_seconds_and_recovers() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut strict, mut other) = (broker.client().await, broker.client_as(None, true).await);
    store.set_full(true);
    let begun = Instant::now();
    strict.submit([asking("a", send("q", "a")), asking("b", send("q", "b"))]).await;
    assert_eq!(strict.gets_error().await.1.as_deref(), Some("a"));
    strict.is_closed(CloseReason::Refused).await;
    assert!((9_900..10_500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert!((9_900..10_500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert!((30..50).contains(&store.turns()), "R35: {} turns of its own", store.turns());
    other.submit([asking("c", send("q", "c"))]).await;
    other.gets_nothing().await;
    store.set_full(false);
    other.gets_receipts(&["c"]).await;
    other.submit([asking("d", send("q", "d"))]).await;
    other.gets_receipts(&["d"]).await;
    assert_eq!(store.ids(), ["c", "d"]);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r8_a_full_store_is_asked_four_times_a_second() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
    producer.submit([asking("old", send("q", "old"))]).await;
    producer.gets_receipts(&["old"]).await;
    consumer.subscribe(1, "q").await;
    let old = consumer.gets("old").await;
    store.set_brimful(true);
    let asked = store.commits().len();
    consumer.submit([asking("dead", nack(&old))]).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let asked = store.commits().len() - asked;
    assert!((20..=90).contains(&asked), "asked {asked} times");
    store.set_brimful(false);
    consumer.gets_receipts(&["dead"]).await;
    assert_eq!(store.ids(), ["old"], "as a dead letter, after all");
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_its_budget_and_the_engine_does_not() {
    let store = Store::default();
    let broker = Broker::start_with(&store, small_queues()).await;
    let (mut greedy, mut other) = (broker.client().await, broker.client().await);
    greedy.submit([send("q", "one")]).await;
    let large = batonmq::broker::Request { bytes: SESSION_BUDGET_BYTES_MAX, ..send("q", "two") };
    greedy.submit([large]).await;
    let waits = timeout(Duration::from_secs(5), greedy.link.submit(vec![send("q", "three")])).await;
    assert!(waits.is_err(), "the second is held and has used the budget up");
    other.submit([asking("served", send("r", "x"))]).await;
    other.gets_receipts(&["served"]).await;
    greedy.gets_error().await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_waits_for_its_budget_hears_of_the_end() {
    let store = Store::default();
    let broker = Broker::start_with(&store, small_queues()).await;
    let mut greedy = broker.client().await;
    greedy.submit([send("q", "one")]).await;
    let large = batonmq::broker::Request { bytes: SESSION_BUDGET_BYTES_MAX, ..send("q", "two") };
    greedy.submit([large]).await;
    let link = greedy.link.clone();
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(async move { link.submit(vec![send("q", "three")]).await.is_err() });
    quiet().await;
    broker.crash().await;
    let gone = timeout(Duration::from_secs(1), waiting.join_next()).await;
    assert!(gone.expect("it does not wait for ever").unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_goes_after_five_milliseconds_or_with_a_receipt() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    let begun = Instant::now();
    client.submit([send("q", "lazy")]).await;
    store.asked_for(1).await;
    assert_eq!(begun.elapsed().as_millis(), 5);
    quiet().await;
    let begun = Instant::now();
    client.submit([send("q", "taken along"), asking("eager", send("q", "eager"))]).await;
    client.gets_receipts(&["eager"]).await;
    assert_eq!(begun.elapsed().as_millis(), 0);
    assert_eq!(store.commits().len(), 2);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_goes_at_a_size() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    let begun = Instant::now();
    let body = vec![0; 1 << 20].into();
    let draft = MessageDraft { id: "large".into(), persistent: true, body, ..MessageDraft::default() };
    client.submit([send_draft(Destination::queue("q"), draft, None)]).await;
    store.asked_for(1).await;
    assert_eq!(begun.elapsed().as_millis(), 0);
    broker.crash().await;
}

/// OPEN_BYTES_MAX: sixteen MiB wait for the store, and it is busy.
#[tokio::test(start_paused = true)]
async fn r8_sends_wait_while_a_busy_store_has_enough_before_it() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut greedy, mut other, mut consumer) = (broker.client().await, broker.client().await, broker.client().await);
    consumer.subscribe(1, "q").await;
    broker.keep_busy(&store).await;
    let under_way = store.commits().len();
    let body = vec![0; 1 << 20];
    let mib = |at: u32| {
        let (id, body) = (at.to_string().as_str().into(), body.clone().into());
        send_draft(Destination::queue("large"), MessageDraft { id, body, persistent: true, ..Default::default() }, None)
    };
    greedy.submit((0..16).map(mib).chain([asking("held", send("q", "held"))])).await;
    quiet().await;
    other.submit([asking("held too", send("q", "held too"))]).await;
    // What is not stored has nothing to wait for.
    let mut third = broker.client().await;
    let passing = MessageDraft { id: "passing".into(), ..MessageDraft::default() };
    third.submit([asking("taken", send_draft(Destination::queue("q"), passing, None))]).await;
    third.gets_receipts(&["taken"]).await;
    consumer.gets("passing").await;
    // It is no standing cause: nobody is told to give up, however long it takes.
    tokio::time::sleep(Duration::from_secs(60)).await;
    for client in [&mut greedy, &mut other, &mut consumer] {
        client.gets_nothing().await;
    }
    store.let_go();
    consumer.gets("held").await;
    consumer.gets("held too").await;
    greedy.gets_receipts(&["held"]).await;
    other.gets_receipts(&["held too"]).await;
    let next = &store.commits()[under_way];
    assert_eq!(next.ops.iter().filter(|op| matches!(op, Op::Insert(_))).count(), 16, "and not before there is enough");
    broker.crash().await;
}

/// INBOX_MAX: who finds no room waits, and goes on when the engine does.
#[tokio::test(start_paused = true)]
async fn a_session_waits_for_an_engine_that_does_not_come_round() {
    let mut adapter = Store::default();
    let catalog = adapter.recover().await.unwrap();
    let tenure = catalog.tenure.next_above(catalog.tenure);
    adapter.raise(tenure).await.unwrap();
    let stop = CancellationToken::new();
    let context = TermContext { clock: Clock::start(), mandate: Mandate::permanent(), meter: Meter::unlimited() };
    let started = engine::start(stores(adapter), options(), &catalog, tenure, context, stop);
    let engine::Running { handle, engine, store } = started;
    let mut opened = Vec::new();
    let waiting = loop {
        assert!(opened.len() < 10_000, "the inbox has a bound");
        let mut opening = Box::pin(async { handle.open_session().await.unwrap() });
        match timeout(Duration::from_secs(1), &mut opening).await {
            Ok(link) => opened.push(link),
            Err(_) => break opening,
        }
    };
    assert_eq!(opened.len(), 4_096);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(engine.await) });
    tasks.spawn(async move { drop(store.await) });
    timeout(Duration::from_secs(1), waiting).await.expect("there is room now");
    let connect = Connect { user: None, client_id: None, lenient: false };
    opened[0].submit(vec![plain(Command::Connect(connect))]).await.unwrap();
    let mut answers = Vec::new();
    timeout(Duration::from_secs(1), opened[0].outbox().take(&mut answers)).await.expect("it works again");
    assert!(matches!(&*answers, [Outgoing::Connected]), "{answers:?}");
}

/// LINGER_BYTES_MAX: who was refused is listened to for a while, so that it can read why, but not for ever.
#[tokio::test(start_paused = true)]
async fn a_refused_client_that_goes_on_sending_is_cut_off() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut client, socket) = tokio::io::duplex(64 << 10);
    let options = SessionOptions {
        stomp: StompOptions::default(),
        limits: Limits::default(),
        broker_name: "test".into(),
        term_started: Clock::start().now(),
        clock: Clock::start(),
        mandate: Mandate::permanent(),
        meter: Meter::unlimited(),
        buffers: Arc::default(),
        farewells: Tasks::new(),
        traffic: Arc::default(),
        authenticator: Arc::new(Authenticator::new([]).unwrap()),
    };
    let info = ConnectionInfo {
        peer: "127.0.0.1:1".parse().unwrap(),
        connector: "test".into(),
        frame_bytes_max: 1 << 20,
        certificate_name: None,
    };
    let mut session = JoinSet::new();
    session.spawn(serve(socket, info, broker.handle.clone(), Arc::new(options), broker.stop.clone()));
    let begun = Instant::now();
    client.write_all(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0SHOUT\n\n\0").await.unwrap();
    let (chunk, mut sent) = ([b'x'; 16 << 10], 0);
    while sent < 16 << 20 && client.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
    }
    assert!((1 << 20..2 << 20).contains(&sent), "{sent} bytes");
    assert!(begun.elapsed() < Duration::from_secs(1), "it was not the time that ran out");
    let end = session.join_next().await.unwrap().unwrap();
    assert!(matches!(end, End::Refused(_)), "{end}");
    broker.crash().await;
}
