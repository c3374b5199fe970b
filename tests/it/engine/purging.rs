//! R29 through the engine: a purge is durable when it is answered, and nothing that it took comes back.

use std::path::Path;

use batonmq::{
    broker::{AckMode, Command, Unsubscribe},
    engine::EngineHandle,
    persistence::{
        MemoryAdapter, MemoryStore, PersistenceAdapter,
        journal::{JournalAdapter, JournalOptions},
    },
    types::{ConsumerNo, Destination, Meter, Op},
};
use tokio::task::JoinSet;

use super::{
    broker::{
        Broker, Client, ack, ack_in, asking, begin, commit, options, plain, quiet, send, send_in, send_to, subscribe_as,
    },
    pages::Pages,
    store::{Reply, Store},
};

fn queue() -> Destination {
    Destination::queue("q")
}

/// A purge that was asked for, and is not waited for yet.
async fn purging(handle: &EngineHandle) -> JoinSet<Option<usize>> {
    let (handle, mut asked) = (handle.clone(), JoinSet::new());
    asked.spawn(async move { handle.purge(queue()).await.unwrap() });
    quiet().await;
    asked
}

fn is_purge(op: &Op) -> bool {
    matches!(op, Op::Purge { .. })
}

#[tokio::test(start_paused = true)]
async fn r29_a_purge_is_answered_when_it_is_durable() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    client.submit([asking("one", send("q", "one"))]).await;
    client.gets_receipts(&["one"]).await;
    broker.keep_busy(&store).await;
    let mut asked = purging(&broker.handle).await;
    assert!(asked.try_join_next().is_none());
    store.let_go();
    assert_eq!(asked.join_next().await.unwrap().unwrap(), Some(1));
    store.keeps(&[]).await;
    assert_eq!(broker.handle.purge(queue()).await.unwrap(), Some(0));
    assert_eq!(broker.handle.purge(Destination::queue("unknown")).await.unwrap(), None);
    broker.crash().await;
}

/// The first has counted them; the second one's answer says the same: nothing that was sent before comes back.
/// Else a kill between the two leaves both, and what the first one holds reaches nobody any more.
#[tokio::test(start_paused = true)]
async fn r29_a_durable_subscription_is_gone_when_another_one_of_its_name_is_made() {
    let durably = || subscribe_as(1, Destination::topic("news"), AckMode::Individual, Some("all"));
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut reader = broker.client_as(Some("reader"), false).await;
    reader.submit([asking("subscribed", durably())]).await;
    reader.gets_receipts(&["subscribed"]).await;
    broker.keep_busy(&store).await;
    reader.submit([send_to(Destination::topic("news"), "m", None)]).await;
    let delivery = reader.gets("m").await;
    let end = Unsubscribe { consumer: Some(ConsumerNo(1)), durable: Some("all".into()) };
    reader.submit([begin("t"), ack_in("t", &delivery), commit("t")]).await; // it settles what is open: the next batch's
    reader.submit([plain(Command::Unsubscribe(end)), asking("subscribed again", durably())]).await;
    quiet().await;
    let under_way = store.commits().len();
    store.let_go();
    reader.gets_receipts(&["subscribed again"]).await;
    let next = &store.commits()[under_way].ops;
    let deleted = next.iter().position(|op| matches!(op, Op::DeleteDurable { .. }));
    let made = next.iter().position(|op| matches!(op, Op::CreateDurable { .. }));
    assert!(deleted.is_some() && deleted < made, "{next:?}");
    store.keeps(&[]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r29_a_second_purge_is_answered_when_the_first_is_durable() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    client.submit([asking("one", send("q", "one"))]).await;
    client.gets_receipts(&["one"]).await;
    broker.keep_busy(&store).await;
    let (mut first, mut second) = (purging(&broker.handle).await, purging(&broker.handle).await);
    assert!(first.try_join_next().is_none() && second.try_join_next().is_none());
    store.let_go();
    assert_eq!(second.join_next().await.unwrap().unwrap(), Some(0));
    assert_eq!(first.join_next().await.unwrap().unwrap(), Some(1));
    store.keeps(&[]).await;
    broker.crash().await;
}

/// A queue is empty when its last message is acknowledged; a crash would bring that back as long as it is not durable.
#[tokio::test(start_paused = true)]
async fn r29_a_purge_of_an_empty_queue_waits_for_what_was_acknowledged() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    client.subscribe(1, "q").await;
    client.submit([asking("one", send("q", "one"))]).await;
    let one = client.gets("one").await;
    client.gets_receipts(&["one"]).await;
    broker.keep_busy(&store).await;
    client.submit([ack(&one)]).await;
    let mut asked = purging(&broker.handle).await;
    assert!(asked.try_join_next().is_none());
    store.let_go();
    assert_eq!(asked.join_next().await.unwrap().unwrap(), Some(0));
    store.keeps(&[]).await;
    broker.crash().await;
}

/// Promise 2: who was told that it is acknowledged never gets it again, if the purge is lost with the broker too.
#[tokio::test(start_paused = true)]
async fn r29_an_ack_of_what_was_purged_is_confirmed_with_the_purge() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    client.subscribe(1, "q").await;
    client.submit([send("q", "one"), asking("two", send("q", "two"))]).await;
    let (one, two) = (client.gets("one").await, client.gets("two").await);
    client.gets_receipts(&["two"]).await;
    broker.keep_busy(&store).await;
    let mut asked = purging(&broker.handle).await;
    let transaction = [begin("t"), ack_in("t", &two), asking("committed", commit("t"))];
    client.submit([asking("acked", ack(&one))].into_iter().chain(transaction)).await;
    client.gets_nothing().await;
    store.let_go();
    client.gets_receipts(&["acked", "committed"]).await;
    assert_eq!(asked.join_next().await.unwrap().unwrap(), Some(0));
    store.keeps(&[]).await;
    broker.crash().await;
}

/// R1, R2: its sender waits, though nothing of it is written.
#[tokio::test(start_paused = true)]
async fn r29_a_purge_cancels_what_is_not_stored_yet() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    broker.keep_busy(&store).await;
    let mut client = broker.client().await;
    client.submit([asking("one", send("q", "one"))]).await;
    let mut asked = purging(&broker.handle).await;
    client.submit([asking("two", send("q", "two"))]).await;
    client.gets_nothing().await;
    store.let_go();
    client.gets_receipts(&["one", "two"]).await;
    assert_eq!(asked.join_next().await.unwrap().unwrap(), Some(1));
    store.keeps(&["two"]).await;
    assert!(!store.inserted().contains(&"one".to_owned()));
    broker.crash().await;
}

/// A transaction in `q` that is not durable, and a message behind it.
fn hidden_and_behind() -> [batonmq::broker::Request; 4] {
    [begin("t"), send_in("t", "q", "hidden"), asking("committed", commit("t")), asking("behind", send("q", "behind"))]
}

/// R1: what came behind a transaction that is not durable cancels too.
#[tokio::test(start_paused = true)]
async fn r29_a_purge_cancels_what_its_mark_does_not_cover() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    broker.keep_busy(&store).await;
    client.submit(hidden_and_behind()).await;
    let mut asked = purging(&broker.handle).await;
    store.let_go();
    assert_eq!(asked.join_next().await.unwrap().unwrap(), Some(1));
    client.gets_receipts(&["committed", "behind"]).await;
    store.keeps(&["hidden"]).await;
    assert!(!store.inserted().contains(&"behind".to_owned()));
    broker.crash().await;
}

/// What its mark does not cover and is under way is settled, and that has to be durable too.
#[tokio::test(start_paused = true)]
async fn r29_a_purge_is_answered_when_all_that_it_counted_is_durably_gone() {
    let store = Store::default();
    let mut broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    store.hold();
    client.submit(hidden_and_behind()).await;
    store.asked_for(1).await;
    let mut asked = purging(&broker.handle).await;
    let refused_and_bisected = [Reply::Refused, Reply::Done, Reply::Deposed];
    store.will_say([Reply::Done].into_iter().chain(refused_and_bisected));
    store.let_go();
    assert!(broker.ended().await.is_err());
    assert!(asked.join_next().await.unwrap().is_err(), "nobody knows");
    assert!(store.commits().iter().any(|batch| matches!(batch.ops[..], [Op::Purge { .. }])), "it was written alone");
    store.keeps(&["hidden", "behind"]).await;
}

#[tokio::test(start_paused = true)]
async fn r14_a_purge_frees_a_full_store_and_nothing_follows_it() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    client.submit([asking("one", send("q", "one"))]).await;
    client.gets_receipts(&["one"]).await;
    store.set_full(true);
    let unit = [begin("t"), send_in("t", "other", "three"), asking("committed", commit("t"))];
    client.submit([asking("two", send("q", "two"))].into_iter().chain(unit)).await;
    store.asked_for(2).await;
    assert_eq!(broker.handle.purge(queue()).await.unwrap(), Some(2));
    client.gets_receipts(&["two"]).await;
    store.keeps(&[]).await;
    store.set_full(false);
    client.gets_receipts(&["committed"]).await;
    store.keeps(&["three"]).await;
    let commits = store.commits();
    let purges = commits.iter().filter(|batch| batch.ops.iter().any(is_purge)).count();
    assert_eq!(purges, 1, "{commits:?}");
    broker.crash().await;
}

/// A page of what lies in the store alone is under way when the queue is purged, and arrives afterwards.
async fn nothing_comes_back_after_a_purge<A: PersistenceAdapter>(open: impl AsyncFn() -> A) {
    const MESSAGES: usize = 2_000;
    let (pages, meter) = (Pages::default(), Meter::new(1 << 20));
    let _scarce = meter.charge(900 << 10);
    let broker = Broker::start_on(pages.of(open().await), MemoryAdapter::new(), options(), meter).await;
    let mut producer = broker.client().await;
    for first in (0..MESSAGES).step_by(100) {
        let batch = (first..first + 99).map(|number| send("q", &number.to_string()));
        producer.submit(batch.chain([asking("stored", send("q", &format!("{}", first + 99)))])).await;
        producer.gets_receipts(&["stored"]).await;
    }
    let mut consumer = broker.client().await;
    consumer.subscribe_for(1, "q", 10).await;
    let first = consumer.gets("0").await;
    consumer.submit([ack(&first)]).await;
    assert!(pages.came_back() > 0, "what was sent had left memory");
    pages.hold();
    let taken = pages.one_is_under_way_for(&mut consumer, 1).await;
    let purged = broker.handle.purge(queue()).await.unwrap().unwrap();
    assert!(purged + taken <= MESSAGES && purged > 0, "{purged}");
    pages.let_go();
    pages.none_is_under_way().await;
    producer.submit([send("q", "behind")]).await;
    takes_all_up_to(&mut consumer, taken, "behind").await;
    consumer.gets_nothing().await;
    broker.stopped().await;

    let broker = Broker::start_on(open().await, MemoryAdapter::new(), options(), Meter::unlimited()).await;
    let mut client = broker.client().await;
    client.submit([asking("stored", send("q", "after"))]).await;
    client.gets_receipts(&["stored"]).await;
    client.subscribe(1, "q").await;
    client.gets("after").await;
    broker.stopped().await;
}

/// Acknowledges what is in flight, from `next` on; behind it comes `last`.
async fn takes_all_up_to(consumer: &mut Client, next: usize, last: &str) {
    for number in next.. {
        let batonmq::broker::Outgoing::Delivery(delivery) = consumer.next().await else { panic!("a delivery") };
        let id = delivery.message.id.to_string();
        if id == last {
            consumer.submit([asking("acked", ack(&delivery))]).await;
            return consumer.gets_receipts(&["acked"]).await;
        }
        consumer.submit([ack(&delivery)]).await;
        assert_eq!(id, number.to_string(), "what was in flight when the queue was purged");
    }
}

#[tokio::test]
async fn r29_a_page_under_way_brings_nothing_back_from_memory() {
    let store = MemoryStore::default();
    nothing_comes_back_after_a_purge(async || MemoryAdapter::open(&store)).await;
}

#[tokio::test]
async fn r29_a_page_under_way_brings_nothing_back_from_a_journal() {
    let data = tempfile::tempdir().unwrap();
    nothing_comes_back_after_a_purge(async || journal(data.path())).await;
}

fn journal(data: &Path) -> JournalAdapter {
    let options = JournalOptions { segment_bytes: 256 << 10, ..JournalOptions::default() };
    JournalAdapter::open(data, options).unwrap()
}
