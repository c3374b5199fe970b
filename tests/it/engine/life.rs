//! How sessions and terms end.

use std::{sync::Arc, time::Duration};

use batonmq::{
    broker::{CloseReason, Command, Outgoing, Refusal},
    persistence::PersistenceAdapter,
    types::{
        Batch, BatchNumber, Destination, DestinationId, DurableId, Held, Holder, Message, MessageDraft, Op, Sequence,
        Stored,
    },
};
use smallvec::smallvec;

use super::{
    broker::{Broker, ack, asking, plain, send},
    store::{Reply, Store},
};

#[tokio::test(start_paused = true)]
async fn what_nobody_holds_any_more_is_settled_at_the_start_of_a_term() {
    let store = Store::default();
    let mut adapter = store.clone();
    let catalog = adapter.recover().await.unwrap();
    let tenure = catalog.tenure.next_above(catalog.tenure);
    adapter.raise(tenure).await.unwrap();
    let topic = DestinationId(1);
    let stored = Stored {
        sequence: Sequence::new(tenure.term, 1),
        destination: topic,
        holders: smallvec![Held::fresh(Holder::Durable(DurableId(9)))],
        message: Arc::new(Message::new(MessageDraft { id: "m".into(), persistent: true, ..MessageDraft::default() })),
    };
    let ops = vec![Op::CreateDestination { id: topic, destination: Destination::topic("t") }, Op::Insert(stored)];
    adapter.try_commit(&Arc::new(Batch { number: BatchNumber(1), ops })).await.unwrap();
    assert_eq!(store.ids(), ["m"]);
    let broker = Broker::start(&store).await;
    store.keeps(&[]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_polite_stop_writes_all_that_is_left() {
    let store = Store::default();
    let mut broker = Broker::start(&store).await;
    let mut producer = broker.client().await;
    broker.keep_busy(&store).await;
    store.will_say([Reply::Again, Reply::Unknown { applied: false }, Reply::Full, Reply::Again]);
    producer.submit([send("q", "lazy"), asking("sent", send("q", "eager"))]).await;
    broker.stop.cancel();
    store.let_go();
    broker.ended().await.unwrap();
    assert_eq!(store.ids(), ["lazy", "eager"]);
    producer.gets_receipts(&["sent"]).await;
    producer.is_closed(CloseReason::Stopping).await;
}

/// Nobody else would ever settle it, and its segment would stay for ever.
#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_ever_for_room_in_a_full_store() {
    let store = Store::default();
    let mut broker = Broker::start(&store).await;
    let mut producer = broker.client().await;
    store.set_full(true);
    producer.submit([asking("sent", send("q", "m"))]).await;
    producer.gets_nothing().await;
    broker.stop.cancel();
    broker.ended().await.unwrap();
    producer.is_closed(CloseReason::Stopping).await;
    assert_eq!(store.ids(), [""; 0], "nobody was told that it is safe");
}

#[tokio::test(start_paused = true)]
async fn r4_a_goodbye_is_answered_after_everything_before_it() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    broker.keep_busy(&store).await;
    client.submit([send("q", "m"), asking("bye", plain(Command::Disconnect)), send("q", "late")]).await;
    client.gets_nothing().await;
    store.let_go();
    client.gets_receipts(&["bye"]).await;
    client.is_closed(CloseReason::Disconnected).await;
    assert_eq!(store.ids(), ["m"]);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r4_one_receipt_for_a_thousand_sends() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    broker.keep_busy(&store).await;
    let sends = (0..999).map(|at| send("q", &at.to_string()));
    client.submit(sends.chain([asking("all", send("q", "last"))])).await;
    client.gets_nothing().await;
    store.let_go();
    client.gets_receipts(&["all"]).await;
    assert_eq!(store.ids().len(), 1_000);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r4_an_error_keeps_its_place_for_five_seconds() {
    for lenient in [false, true] {
        let store = Store::default();
        let broker = Broker::start(&store).await;
        let mut client = broker.client_as(None, lenient).await;
        broker.keep_busy(&store).await;
        let begun = tokio::time::Instant::now();
        let bad = plain(Command::Refuse(Refusal::new("no", "")));
        client.submit([asking("sent", send("q", "m")), asking("bad", bad)]).await;
        assert_eq!(client.gets_error().await.1.as_deref(), Some("bad"));
        assert_eq!(begun.elapsed().as_secs(), 5);
        if lenient {
            client.gets_nothing().await;
            store.let_go();
            client.gets_receipts(&["sent"]).await;
        } else {
            client.is_closed(CloseReason::Refused).await;
        }
        broker.crash().await;
    }
}

#[tokio::test(start_paused = true)]
async fn r2_an_error_that_was_hastened_confirms_nobody_elses_send() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut worker) = (broker.client().await, broker.client().await);
    worker.subscribe(1, "jobs").await;
    broker.keep_busy(&store).await;
    producer.submit([asking("job", send("jobs", "job"))]).await;
    let job = worker.gets("job").await;
    let bad = plain(Command::Refuse(Refusal::new("no", "")));
    worker.submit([send("results", "result"), ack(&job), bad]).await;
    worker.gets_error().await;
    worker.is_closed(CloseReason::Refused).await;
    worker.link.close().await;
    producer.gets_nothing().await;
    store.let_go();
    producer.gets_receipts(&["job"]).await;
    assert_eq!(store.ids(), ["result"]);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_closed_session_held_goes_to_another() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut first, mut second) = (broker.client().await, broker.client().await, broker.client().await);
    first.subscribe(1, "q").await;
    producer.submit([send("q", "m")]).await;
    assert!(!first.gets("m").await.redelivered);
    second.subscribe(1, "q").await;
    first.link.close().await;
    assert!(second.gets("m").await.redelivered);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_takes_the_place_of_one_with_its_client_id() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut old = broker.client_as(Some("c"), false).await;
    broker.keep_busy(&store).await;
    old.submit([asking("never", send("q", "m"))]).await;
    let mut new = broker.client_as(Some("c"), false).await;
    old.gets_error().await;
    old.is_closed(CloseReason::TakenOver).await;
    new.submit([asking("new", send("q", "n"))]).await;
    store.let_go();
    new.gets_receipts(&["new"]).await;
    old.gets_nothing().await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_heard_whatever_comes_in() {
    let store = Store::default();
    let mut broker = Broker::start(&store).await;
    let link = broker.client().await.link;
    let mut flood = tokio::task::JoinSet::new();
    flood.spawn(async move { while link.submit(vec![plain(Command::Confirm)]).await.is_ok() {} });
    broker.stop.cancel();
    broker.ended().await.unwrap();
    flood.join_next().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_does_not_end_ends_the_term() {
    let store = Store::default();
    let mut broker = Broker::start(&store).await;
    let mut producer = broker.client().await;
    store.will_say([Reply::Unknown { applied: true }; 10_000]);
    let begun = tokio::time::Instant::now();
    producer.submit([asking("a", send("q", "a"))]).await;
    for _ in 0..400 {
        store.will_not_raise(batonmq::persistence::StoreError::Closed);
    }
    assert!(broker.ended().await.is_err());
    assert!(begun.elapsed() >= Duration::from_secs(30));
    assert!(matches!(producer.next().await, Outgoing::Close(CloseReason::Stopping)));
}
