//! Which answer leaves when: R1 to R5.

use batonmq::{
    broker::AckMode,
    types::{Destination, Op},
};

use super::{
    broker::{Broker, ack, ack_in, asking, begin, commit, nack, send, send_in, send_to, subscribe, subscribe_as},
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
async fn r4_a_durable_subscription_is_confirmed_again_when_it_is_durable() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    broker.keep_busy(&store).await;
    let durably = || subscribe_as(1, Destination::topic("news"), AckMode::Individual, Some("all"));
    let mut first = broker.client_as(Some("reader"), false).await;
    first.submit([durably()]).await;
    first.link.close().await;
    let mut second = broker.client_as(Some("reader"), false).await;
    second.submit([asking("subscribed", durably())]).await;
    second.gets_nothing().await;
    store.let_go();
    second.gets_receipts(&["subscribed"]).await;
    assert!(store.commits().iter().flat_map(|batch| &batch.ops).any(|op| matches!(op, Op::CreateDurable { .. })));
    second.link.close().await;
    store.hold();
    let mut third = broker.client_as(Some("reader"), false).await;
    third.submit([asking("subscribed", durably())]).await;
    third.gets_receipts(&["subscribed"]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r2_not_before_what_the_acker_sent_is_durable() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut worker) = (broker.client().await, broker.client().await);
    worker.subscribe(1, "jobs").await;
    broker.keep_busy(&store).await;
    producer.submit([asking("job", send("jobs", "job"))]).await;
    let job = worker.gets("job").await;
    worker.submit([send("results", "result"), ack(&job)]).await;
    producer.gets_nothing().await;
    store.let_go();
    producer.gets_receipts(&["job"]).await;
    assert_eq!(store.ids(), ["result"]);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r2_a_chain_of_workers_confirms_when_the_last_result_is_durable() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut producer = broker.client().await;
    let mut workers = [broker.client().await, broker.client().await];
    for (worker, queue) in workers.iter_mut().zip(["0", "1"]) {
        worker.subscribe(1, queue).await;
    }
    broker.keep_busy(&store).await;
    producer.submit([asking("sent", send("0", "first"))]).await;
    let [one, two] = &mut workers;
    let job = one.gets("first").await;
    one.submit([asking("passed on", send("1", "second")), asking("done", ack(&job))]).await;
    let job = two.gets("second").await;
    two.submit([asking("kept", send("2", "third")), asking("done", ack(&job))]).await;
    producer.gets_nothing().await;
    one.gets_nothing().await;
    store.let_go();
    producer.gets_receipts(&["sent"]).await;
    one.gets_receipts(&["passed on", "done"]).await;
    two.gets_receipts(&["kept", "done"]).await;
    assert_eq!(store.inserted(), ["blocker", "third"]);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r2_who_answers_each_other_is_answered() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut client, mut server) = (broker.client().await, broker.client().await);
    client.subscribe(1, "replies").await;
    server.subscribe(1, "requests").await;
    for _ in 0..3 {
        broker.keep_busy(&store).await;
        client.submit([asking("asked", send("requests", "request"))]).await;
        let request = server.gets("request").await;
        server.submit([asking("answered", send("replies", "reply")), asking("done", ack(&request))]).await;
        let reply = client.gets("reply").await;
        client.submit([asking("read", ack(&reply))]).await;
        store.let_go();
        client.gets_receipts(&["asked", "read"]).await;
        server.gets_receipts(&["answered", "done"]).await;
    }
    assert_eq!(store.inserted(), ["blocker"; 3]);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r2_who_consumes_its_own_messages_is_answered() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut client = broker.client().await;
    client.subscribe(1, "q").await;
    broker.keep_busy(&store).await;
    client.submit([asking("sent", send("q", "m"))]).await;
    let delivery = client.gets("m").await;
    client.submit([asking("acked", ack(&delivery))]).await;
    store.let_go();
    client.gets_receipts(&["sent", "acked"]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r2_not_when_the_ack_is_in_a_transaction_or_the_answer_is_no() {
    for rejects in [false, true] {
        let store = Store::default();
        let broker = Broker::start(&store).await;
        let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
        consumer.subscribe(1, "q").await;
        broker.keep_busy(&store).await;
        producer.submit([asking("sent", send("q", "m"))]).await;
        let delivery = consumer.gets("m").await;
        let answers = match rejects {
            false => vec![begin("t"), ack_in("t", &delivery), asking("answered", commit("t"))],
            true => vec![asking("answered", nack(&delivery))],
        };
        consumer.submit(answers).await;
        producer.gets_nothing().await;
        consumer.gets_nothing().await;
        store.let_go();
        producer.gets_receipts(&["sent"]).await;
        consumer.gets_receipts(&["answered"]).await;
        assert_eq!(store.ids().len(), usize::from(rejects), "a dead letter, or nothing");
        broker.crash().await;
    }
}

#[tokio::test(start_paused = true)]
async fn r2_not_before_every_durable_subscription_has_settled() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let topic = Destination::topic("t");
    let mut producer = broker.client().await;
    let mut subscribers = [broker.client_as(Some("one"), false).await, broker.client_as(Some("two"), false).await];
    for subscriber in &mut subscribers {
        let durable = subscribe_as(1, topic.clone(), AckMode::Individual, Some("durable"));
        subscriber.submit([asking("subscribed", durable)]).await;
        subscriber.gets_receipts(&["subscribed"]).await;
    }
    broker.keep_busy(&store).await;
    producer.submit([asking("sent", send_to(topic, "m", None))]).await;
    for subscriber in &mut subscribers {
        let delivery = subscriber.gets("m").await;
        producer.gets_nothing().await;
        subscriber.submit([ack(&delivery)]).await;
    }
    producer.gets_receipts(&["sent"]).await;
    assert_eq!(store.inserted(), ["blocker"]);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r3_an_automatic_delivery_is_settled_when_it_is_in_the_kernel() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
    consumer.submit([subscribe_as(1, Destination::queue("q"), AckMode::Auto, None)]).await;
    consumer.submit([subscribe(2, Destination::queue("other"))]).await;
    broker.keep_busy(&store).await;
    producer.submit([asking("sent", send("q", "m"))]).await;
    let delivery = consumer.gets("m").await;
    producer.gets_nothing().await;
    consumer.took(&delivery).await;
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
