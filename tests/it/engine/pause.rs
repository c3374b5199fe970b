//! The paused broker: what is in doubt is neither confirmed nor handed out (R24), and goes on in the order of R18.

use std::time::Duration;

use batonmq::{broker::CloseReason, persistence::StoreError, types::BootTime};

use super::{
    broker::{Broker, LEASE, ack, asking, send},
    store::{Reply, Store},
};

impl Broker {
    /// The lock is proven, for as long as a test takes.
    pub(super) fn prove(&self) {
        self.keeper.prove(BootTime::now().after(LEASE));
    }
}

#[tokio::test(start_paused = true)]
async fn r24_while_the_lock_is_in_doubt_nothing_is_applied_delivered_or_confirmed() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
    consumer.subscribe(1, "q").await;
    producer.submit([asking("before", send("q", "before"))]).await;
    let before = consumer.gets("before").await;
    producer.gets_receipts(&["before"]).await;
    broker.keep_busy(&store).await;
    producer.submit([asking("under way", send("other", "under way"))]).await;
    consumer.gets_nothing().await;
    broker.keeper.doubt();
    store.let_go(); // the batch is durable, and nobody is told
    producer.submit([asking("after", send("q", "after"))]).await;
    consumer.submit([asking("acked", ack(&before))]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    producer.gets_nothing().await;
    consumer.gets_nothing().await;
    broker.prove();
    producer.gets_receipts(&["under way", "after"]).await;
    consumer.gets("after").await;
    consumer.gets_receipts(&["acked"]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r18_the_token_is_raised_before_anything_is_written_again() {
    for reply in [Reply::Done, Reply::Unknown { applied: true }, Reply::Unknown { applied: false }] {
        let store = Store::default();
        let broker = Broker::start(&store).await;
        let mut producer = broker.client().await;
        broker.keep_busy(&store).await;
        store.will_say([reply]);
        producer.submit([asking("waits", send("q", "waits"))]).await;
        producer.gets_nothing().await;
        broker.keeper.doubt();
        let (raised, committed) = (store.raises().len(), store.commits().len());
        store.let_go();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!((store.raises().len(), store.commits().len()), (raised, committed), "nothing is asked for in doubt");
        broker.prove();
        producer.gets_receipts(&["waits"]).await;
        assert_eq!(store.raises().len(), raised + 1);
        store.keeps(&["waits"]).await;
        broker.crash().await;
    }
}

#[tokio::test(start_paused = true)]
async fn r18_nothing_is_handed_out_before_the_token_is_raised_and_the_batch_in_doubt_is_settled() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
    consumer.subscribe(1, "q").await;
    broker.keep_busy(&store).await;
    store.will_say([Reply::Unknown { applied: false }]);
    producer.submit([asking("in doubt", send("other", "in doubt"))]).await;
    producer.gets_nothing().await;
    broker.keeper.doubt();
    store.let_go();
    producer.submit([asking("after", send("q", "after"))]).await;
    consumer.gets_nothing().await;
    for _ in 0..20 {
        store.will_not_raise(StoreError::Closed);
    }
    broker.prove();
    tokio::time::sleep(Duration::from_secs(1)).await; // half of the time that raising takes now
    consumer.gets_nothing().await;
    producer.gets_nothing().await;
    producer.gets_receipts(&["in doubt", "after"]).await;
    consumer.gets("after").await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r18_a_doubt_that_is_over_before_anybody_looked_is_not_missed() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut producer = broker.client().await;
    let raised = store.raises().len();
    broker.keeper.doubt();
    broker.prove();
    producer.submit([asking("after", send("q", "after"))]).await;
    producer.gets_receipts(&["after"]).await;
    assert_eq!(store.raises().len(), raised + 1);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r24_a_doubt_that_is_over_at_once_costs_a_raise_and_nothing_else() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut producer = broker.client().await;
    for at in 0..10 {
        broker.keeper.doubt();
        tokio::time::sleep(Duration::from_secs(40)).await; // longer than a store may say nothing: it is not asked
        broker.prove();
        let id = at.to_string();
        producer.submit([asking(&id, send("q", &id))]).await;
        producer.gets_receipts(&[&id]).await;
    }
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r24_who_waits_for_a_full_store_has_the_pause_on_top() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut producer = broker.client_as(None, true).await;
    store.set_full(true);
    producer.submit([asking("open", send("q", "open")), asking("held", send("q", "held"))]).await;
    producer.gets_nothing().await;
    broker.keeper.doubt();
    tokio::time::sleep(Duration::from_secs(25)).await;
    producer.gets_nothing().await;
    store.set_full(false);
    broker.prove();
    producer.gets_receipts(&["open", "held"]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r24_a_baton_that_is_lost_ends_the_term_and_confirms_nothing() {
    let store = Store::default();
    let mut broker = Broker::start(&store).await;
    let mut producer = broker.client().await;
    broker.keep_busy(&store).await;
    producer.submit([asking("waits", send("q", "waits"))]).await;
    producer.gets_nothing().await;
    broker.keeper.doubt();
    broker.keeper.lose("another broker took over");
    let ended = broker.ended().await.unwrap_err();
    assert!(ended.to_string().contains("another broker took over"), "{ended}");
    producer.is_closed(CloseReason::Stopping).await;
}

#[tokio::test(start_paused = true)]
async fn r24_a_stop_does_not_wait_for_a_doubt_to_end() {
    let store = Store::default();
    let mut broker = Broker::start(&store).await;
    let mut producer = broker.client().await;
    broker.keeper.doubt();
    producer.submit([asking("waits", send("q", "waits"))]).await;
    broker.stop.cancel();
    assert!(broker.ended().await.is_ok());
    producer.is_closed(CloseReason::Stopping).await;
}
