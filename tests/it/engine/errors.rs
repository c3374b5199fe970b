//! What follows an error of the store: R10 to R14.

use std::time::Duration;

use batonmq::{
    broker::{AckMode, CloseReason},
    types::{Destination, Op},
};

use super::{
    broker::{
        Broker, Client, ack, asking, begin, commit, nack, nack_in, send, send_in, send_to, subscribe, subscribe_as,
    },
    store::{Reply, Store},
};

#[tokio::test(start_paused = true)]
async fn r11_a_batch_of_unknown_outcome_is_repeated_under_a_higher_token() {
    for applied in [false, true] {
        let store = Store::default();
        let broker = Broker::start(&store).await;
        let mut producer = broker.client().await;
        store.will_say([Reply::Unknown { applied }, Reply::Unknown { applied }]);
        store.will_not_raise(batonmq::persistence::StoreError::Closed);
        producer.submit([asking("a", send("q", "a"))]).await;
        producer.gets_receipts(&["a"]).await;
        assert_eq!(store.ids(), ["a"]);
        let tokens: Vec<_> = store.raises().iter().map(|tenure| tenure.token.0).collect();
        assert_eq!(tokens, [1, 2, 3, 4], "one to start, one that fails, two that do");
        broker.crash().await;
    }
}

#[tokio::test(start_paused = true)]
async fn r12_a_batch_that_was_not_done_is_repeated_first() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut producer = broker.client().await;
    store.will_say([Reply::Again, Reply::Again]);
    producer.submit([asking("a", send("q", "a"))]).await;
    store.asked_for(1).await;
    producer.submit([asking("b", send("q", "b"))]).await;
    producer.gets_receipts(&["a", "b"]).await;
    assert_eq!(store.raises().len(), 1);
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r10_a_store_that_only_asks_to_try_again_ends_the_term() {
    let store = Store::default();
    let mut broker = Broker::start(&store).await;
    let mut producer = broker.client().await;
    store.will_say(std::iter::repeat_n(Reply::Again, 10_000));
    producer.submit([asking("a", send("q", "a"))]).await;
    assert!(broker.ended().await.is_err());
    producer.is_closed(CloseReason::Stopping).await;
}

#[tokio::test(start_paused = true)]
async fn r9_a_dead_letter_is_delivered_when_it_is_durable() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut consumer, mut clerk) = rejecter_and_clerk(&broker, &["a"]).await;
    let rejected = consumer.gets("a").await;
    broker.keep_busy(&store).await;
    consumer.submit([nack(&rejected)]).await;
    clerk.gets_nothing().await;
    broker.crash().await;
    store.let_go();
    let broker = Broker::start(&store).await;
    let (mut consumer, mut clerk) = rejecter_and_clerk(&broker, &[]).await;
    let again = consumer.gets("a").await;
    assert!(again.redelivered, "nothing of its death was written");
    consumer.submit([nack(&again)]).await;
    assert!(!clerk.gets("a").await.redelivered);
    broker.crash().await;
    let broker = Broker::start(&store).await;
    let (_, mut clerk) = rejecter_and_clerk(&broker, &[]).await;
    assert!(clerk.gets("a").await.redelivered, "it was delivered before the kill");
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r14_a_dead_letter_waits_for_room_and_acks_go_ahead() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut consumer, mut clerk) = rejecter_and_clerk(&broker, &["a", "b"]).await;
    let (rejected, accepted) = (consumer.gets("a").await, consumer.gets("b").await);
    store.set_full(true);
    consumer.submit([nack(&rejected), asking("accepted", ack(&accepted))]).await;
    store.keeps(&["a"]).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    consumer.gets_nothing().await; // its receipt is behind its NACK (R4)
    clerk.gets_nothing().await;
    store.set_full(false);
    consumer.gets_receipts(&["accepted"]).await;
    let dead = clerk.gets("a").await;
    clerk.submit([asking("buried", ack(&dead))]).await;
    clerk.gets_receipts(&["buried"]).await;
    store.keeps(&[]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r13_a_refused_dead_letter_gives_its_message_back() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut consumer, mut clerk) = rejecter_and_clerk(&broker, &["bad"]).await;
    let rejected = consumer.gets("bad").await;
    store.refuse("bad");
    consumer.submit([asking("rejected", nack(&rejected))]).await;
    consumer.gets_receipts(&["rejected"]).await;
    clerk.gets_nothing().await;
    let again = consumer.gets("bad").await;
    assert!(again.redelivered);
    store.keeps(&["bad"]).await;
    consumer.submit([asking("accepted", ack(&again))]).await;
    consumer.gets_receipts(&["accepted"]).await;
    store.keeps(&[]).await;
    broker.crash().await;
}

/// A consumer of `q`, which these messages were sent to, and one of the dead letters.
async fn rejecter_and_clerk(broker: &Broker, ids: &[&str]) -> (Client, Client) {
    let (mut producer, mut consumer, mut clerk) = (broker.client().await, broker.client().await, broker.client().await);
    for id in ids {
        producer.submit([asking(id, send("q", id))]).await;
    }
    producer.gets_receipts(ids).await;
    consumer.subscribe(1, "q").await;
    clerk.subscribe(1, "ActiveMQ.DLQ").await;
    (consumer, clerk)
}

#[tokio::test(start_paused = true)]
async fn r10_a_deposed_broker_confirms_nothing_and_its_term_ends() {
    let store = Store::default();
    let mut broker = Broker::start(&store).await;
    let mut producer = broker.client().await;
    store.will_say([Reply::Deposed]);
    producer.submit([asking("a", send("q", "a"))]).await;
    assert!(broker.ended().await.is_err());
    producer.is_closed(CloseReason::Stopping).await;
}

#[tokio::test(start_paused = true)]
async fn r13_only_the_sender_of_a_refused_message_gets_error() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut good, mut bad, mut consumer) = (broker.client().await, broker.client().await, broker.client().await);
    broker.keep_busy(&store).await;
    store.refuse("bad");
    for at in 0..8 {
        let id = format!("good {at}");
        good.submit([asking(&id, send("q", &id))]).await;
        if at == 4 {
            bad.submit([asking("refused", send("q", "bad"))]).await;
        }
    }
    store.let_go();
    let ids: Vec<_> = (0..8).map(|at| format!("good {at}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    good.gets_receipts(&ids).await;
    assert_eq!(bad.gets_error().await.1.as_deref(), Some("refused"));
    bad.is_closed(CloseReason::Refused).await;
    store.keeps(&ids).await;
    consumer.subscribe(1, "q").await;
    for id in ids {
        consumer.gets(id).await;
    }
    consumer.gets_nothing().await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r13_a_late_ack_of_a_refused_message_writes_nothing() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer) = (broker.client_as(None, true).await, broker.client().await);
    consumer.subscribe(1, "q").await;
    broker.keep_busy(&store).await;
    store.refuse("bad");
    producer.submit([asking("refused", send("q", "bad"))]).await;
    let delivery = consumer.gets("bad").await;
    store.let_go();
    assert_eq!(producer.gets_error().await.1.as_deref(), Some("refused"));
    consumer.submit([asking("acked", ack(&delivery))]).await;
    consumer.gets_receipts(&["acked"]).await;
    producer.submit([asking("next", send("q", "good"))]).await;
    producer.gets_receipts(&["next"]).await;
    store.keeps(&["good"]).await;
    broker.crash().await;
}

/// Nothing is stored that a recovery would not find, and the name serves as soon as the store takes it.
#[tokio::test(start_paused = true)]
async fn r13_who_sends_to_a_destination_that_is_refused_gets_error_and_others_go_on() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let mut senders = Vec::new();
    for _ in 0..3 {
        senders.push(broker.client_as(None, true).await);
    }
    let mut good = broker.client().await;
    broker.keep_busy(&store).await;
    store.refuse("bad");
    senders[0].submit([asking("first", send("bad queue", "1"))]).await;
    good.submit([asking("good", send("q", "good"))]).await;
    senders[1].submit([begin("t"), send_in("t", "q", "2"), send_in("t", "bad queue", "3")]).await;
    senders[1].submit([asking("second", commit("t"))]).await;
    store.asked_for(1).await;
    store.let_go();
    good.gets_receipts(&["good"]).await;
    for (sender, receipt) in senders.iter_mut().zip(["first", "second"]) {
        assert_eq!(sender.gets_error().await.1.as_deref(), Some(receipt));
    }
    senders[2].submit([asking("third", send("bad queue", "4"))]).await;
    assert_eq!(senders[2].gets_error().await.1.as_deref(), Some("third"), "asked for again, refused again");
    store.refuse_nothing();
    senders[2].submit([asking("taken", send("bad queue", "5"))]).await;
    senders[2].gets_receipts(&["taken"]).await;
    store.keeps(&["good", "5"]).await;
    broker.crash().await;
    let broker = Broker::start(&store).await;
    let mut consumer = broker.client().await;
    consumer.subscribe(1, "bad queue").await;
    consumer.gets("5").await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r13_a_dead_letter_whose_queue_is_refused_stays_a_message() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
    producer.submit([asking("sent", send("q", "m"))]).await;
    producer.gets_receipts(&["sent"]).await;
    consumer.subscribe(1, "q").await;
    let delivery = consumer.gets("m").await;
    store.refuse("DLQ");
    consumer.submit([asking("rejected", nack(&delivery))]).await;
    consumer.gets_receipts(&["rejected"]).await;
    let again = consumer.gets("m").await;
    store.refuse_nothing();
    consumer.submit([asking("dead", nack(&again))]).await;
    consumer.gets_receipts(&["dead"]).await;
    consumer.subscribe(2, "ActiveMQ.DLQ").await;
    consumer.gets("m").await;
    store.keeps(&["m"]).await;
    broker.crash().await;
}

/// What it was to keep is not kept for it, and who relied on it hears of it too.
#[tokio::test(start_paused = true)]
async fn r13_a_durable_subscription_that_is_refused_never_was() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let topic = Destination::topic("news");
    let durable = |consumer, receipt| {
        asking(receipt, subscribe_as(consumer, topic.clone(), AckMode::Individual, Some("bad subscription")))
    };
    let mut producer = broker.client().await;
    let mut first = broker.client_as(Some("reader"), true).await;
    broker.keep_busy(&store).await;
    store.refuse("bad");
    first.submit([durable(1, "made")]).await;
    let mut second = broker.client_as(Some("reader"), true).await;
    first.gets_error().await;
    first.is_closed(CloseReason::TakenOver).await;
    second.submit([durable(2, "relied")]).await;
    producer.submit([asking("one", send_to(topic.clone(), "one", None))]).await;
    store.asked_for(1).await;
    store.let_go();
    second.gets("one").await;
    assert_eq!(second.gets_error().await.1.as_deref(), Some("relied"));
    producer.gets_receipts(&["one"]).await;
    second.gets_nothing().await;
    store.keeps(&[]).await;
    store.refuse_nothing();
    second.submit([durable(3, "made")]).await;
    second.gets_receipts(&["made"]).await;
    producer.submit([asking("two", send_to(topic, "two", None))]).await;
    producer.gets_receipts(&["two"]).await;
    second.gets("two").await;
    store.keeps(&["two"]).await;
    broker.crash().await;
}

/// Its sender is told that nothing of it will be delivered.
#[tokio::test(start_paused = true)]
async fn r13_a_refused_message_makes_no_dead_letter() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer, mut clerk) = sender_rejecter_and_clerk(&broker).await;
    broker.keep_busy(&store).await;
    store.refuse("bad");
    producer.submit([asking("refused", send("q", "bad"))]).await;
    let delivery = consumer.gets("bad").await;
    consumer.submit([asking("rejected", nack(&delivery))]).await;
    store.let_go();
    assert_eq!(producer.gets_error().await.1.as_deref(), Some("refused"));
    consumer.gets_receipts(&["rejected"]).await;
    clerk.gets_nothing().await;
    let commits = store.commits();
    let mut ops = commits.iter().flat_map(|batch| &batch.ops);
    let is_dead = |op: &Op| matches!(op, Op::Insert(stored) if stored.message.original_destination.is_some());
    assert!(!ops.any(is_dead), "{commits:?}");
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r8_what_a_full_store_never_had_makes_no_dead_letter() {
    for in_transaction in [false, true] {
        let store = Store::default();
        let broker = Broker::start(&store).await;
        let (mut producer, mut consumer, mut clerk) = sender_rejecter_and_clerk(&broker).await;
        store.set_full(true);
        producer.submit([asking("refused", send("q", "late"))]).await;
        let delivery = consumer.gets("late").await;
        if in_transaction {
            consumer.submit([begin("t"), nack_in("t", &delivery), asking("committed", commit("t"))]).await;
        } else {
            consumer.submit([asking("rejected", nack(&delivery))]).await;
        }
        assert_eq!(producer.gets_error().await.1.as_deref(), Some("refused"));
        if in_transaction {
            assert_eq!(consumer.gets_error().await.1.as_deref(), Some("committed"), "a refused COMMIT is an ABORT");
            consumer.submit([asking("rejected", nack(&delivery))]).await; // a late one writes nothing
        }
        consumer.gets_receipts(&["rejected"]).await;
        store.set_full(false);
        producer.submit([asking("next", send("other", "next"))]).await;
        producer.gets_receipts(&["next"]).await;
        clerk.gets_nothing().await;
        store.keeps(&["next"]).await;
        broker.crash().await;
    }
}

/// One that sends, a consumer of `q`, and one of the dead letters; the first two live on after an ERROR.
async fn sender_rejecter_and_clerk(broker: &Broker) -> (Client, Client, Client) {
    let (producer, mut consumer) = (broker.client_as(None, true).await, broker.client_as(None, true).await);
    let mut clerk = broker.client().await;
    consumer.subscribe(1, "q").await;
    clerk.subscribe(1, "ActiveMQ.DLQ").await;
    (producer, consumer, clerk)
}

#[tokio::test(start_paused = true)]
async fn r5_a_refused_commit_is_an_abort_and_an_error() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut worker, mut observer) = (broker.client_as(None, true).await, broker.client().await);
    worker.submit([asking("sent", send("jobs", "job"))]).await;
    worker.gets_receipts(&["sent"]).await;
    worker.subscribe(1, "jobs").await;
    let job = worker.gets("job").await;
    observer.subscribe(1, "results").await;
    store.refuse("bad");
    let in_t = super::broker::ack_in("t", &job);
    worker.submit([begin("t"), send_in("t", "results", "bad"), in_t, asking("done", commit("t"))]).await;
    assert_eq!(worker.gets_error().await.1.as_deref(), Some("done"));
    observer.gets_nothing().await;
    worker.submit([asking("acked", ack(&job))]).await;
    worker.gets_receipts(&["acked"]).await;
    store.keeps(&[]).await;
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r14_settles_go_ahead_of_inserts_that_wait() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
    producer.submit([asking("1", send("q", "one")), asking("2", send("q", "two"))]).await;
    producer.gets_receipts(&["1", "2"]).await;
    consumer.submit([subscribe(1, Destination::queue("q"))]).await;
    let (one, two) = (consumer.gets("one").await, consumer.gets("two").await);
    store.set_full(true);
    producer.submit([asking("3", send("q", "three"))]).await;
    let three = consumer.gets("three").await;
    consumer.submit([asking("first", ack(&one))]).await;
    consumer.gets_receipts(&["first"]).await;
    store.keeps(&["two"]).await;
    producer.gets_nothing().await;
    consumer.submit([begin("t"), super::broker::ack_in("t", &two), asking("t", commit("t"))]).await;
    consumer.gets_receipts(&["t"]).await;
    store.keeps(&[]).await;
    consumer.submit([asking("third", ack(&three))]).await;
    consumer.gets_receipts(&["third"]).await;
    producer.gets_receipts(&["3"]).await;
    assert_eq!(store.ids(), [""; 0], "three was settled before it found room");
    broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r14_what_may_have_been_written_does_not_cancel() {
    let store = Store::default();
    let broker = Broker::start(&store).await;
    let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
    consumer.subscribe(1, "q").await;
    store.will_say([Reply::Unknown { applied: true }, Reply::Full]);
    store.set_full(true);
    store.hold();
    producer.submit([asking("sent", send("q", "m"))]).await;
    let delivery = consumer.gets("m").await;
    consumer.submit([asking("acked", ack(&delivery))]).await;
    store.let_go();
    consumer.gets_receipts(&["acked"]).await;
    assert_eq!(store.ids(), [""; 0], "a confirmed ACK means: never delivered again");
    broker.crash().await;
}
