//! Which answer leaves when: R1 to R5.

use super::{
    broker::{Broker, ack, asking, begin, commit, plain, quiet, send, send_in},
    store::Store,
};

#[tokio::test(start_paused = true)]
async fn r1_what_is_settled_before_it_is_sealed_is_never_written() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
    consumer.subscribe(1, "q").await;
    broker.keep_busy(&store).await;
    producer.submit([send("q", "m")]).await;
    let delivery = consumer.gets("m").await;
    consumer.submit([asking("acked", ack(&delivery))]).await;
    consumer.gets_receipts(&["acked"]).await;
    store.let_go();
    producer.submit([asking("sent", send("q", "last"))]).await;
    producer.gets_receipts(&["sent"]).await;
    assert_eq!(store.inserted(), ["blocker", "last"]);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r2_a_settled_message_confirms_its_send_before_any_disk() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
    consumer.subscribe(1, "q").await;
    broker.keep_busy(&store).await;
    producer.submit([asking("sent", send("q", "m"))]).await;
    let delivery = consumer.gets("m").await;
    producer.gets_nothing().await;
    consumer.submit([ack(&delivery)]).await;
    producer.gets_receipts(&["sent"]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r5_a_transaction_is_visible_when_it_is_durable() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
    consumer.subscribe(1, "q").await;
    broker.keep_busy(&store).await;
    let whole = [begin("t"), send_in("t", "q", "a"), send_in("t", "q", "b"), asking("committed", commit("t"))];
    producer.submit(whole).await;
    consumer.gets_nothing().await;
    producer.gets_nothing().await;
    store.let_go();
    consumer.gets("a").await;
    consumer.gets("b").await;
    producer.gets_receipts(&["committed"]).await;
    store.keeps(&["a", "b"]).await;
    broker.crash().await;
}
