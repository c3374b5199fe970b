//! Topics, their durable subscriptions, and what slow ones do to others.

use std::time::Duration;

use batonmq::{
    broker::{AckMode, CloseReason, Command, CoreOptions, Hold, Subscribe, Unsubscribe},
    types::{ConsumerNo, Destination, MessageDraft, Op, SessionId},
};

use super::fixture::{Table, draft, held, inserted, options, subscription};
use super::store::operations;

fn durable(consumer: u32, topic: &str, name: &str) -> Subscribe {
    Subscribe { durable: Some(name.into()), ..subscription(consumer, Destination::topic(topic)) }
}

fn client(table: &mut Table, id: &str) -> SessionId {
    table.connect_as(Some(id), None).unwrap()
}

fn delete(table: &mut Table, session: SessionId, consumer: Option<u32>, name: &str) -> bool {
    let unsubscribe = Unsubscribe { consumer: consumer.map(ConsumerNo), durable: Some(name.into()) };
    table.apply(session, Command::Unsubscribe(unsubscribe)).is_ok()
}

#[test]
fn a_topic_without_subscriptions_keeps_nothing() {
    let mut table = Table::new();
    let session = table.connect();
    table.publish(session, "news", "a");
    table.subscribe_to(session, subscription(1, Destination::topic("news"))).unwrap();
    assert!(table.got(session).is_empty());
    assert!(table.stored().is_empty());
}

#[test]
fn every_subscription_gets_every_message() {
    let mut table = Table::new();
    let (one, two) = (table.connect(), table.connect());
    table.subscribe_to(one, subscription(1, Destination::topic("news"))).unwrap();
    table.publish(one, "news", "a");
    table.subscribe_to(two, subscription(1, Destination::topic("news"))).unwrap();
    table.publish(one, "news", "b");
    let got = table.deliveries(one);
    assert_eq!(got.iter().map(|delivery| delivery.shared).collect::<Vec<_>>(), [false, true]);
    assert_eq!(table.got(two), ["b"]);
    assert!(table.stored().is_empty(), "nobody keeps it");
}

#[test]
fn a_durable_subscription_gets_what_came_while_it_was_away() {
    let mut table = Table::new();
    let producer = table.connect();
    let away = client(&mut table, "me");
    table.subscribe_to(away, durable(1, "news", "d")).unwrap();
    table.publish(producer, "news", "a");
    table.close(away);
    table.publish(producer, "news", "b");
    table.restart();
    let producer = table.connect();
    table.publish(producer, "news", "c");
    let back = client(&mut table, "me");
    table.subscribe_to(back, durable(7, "news", "d")).unwrap();
    table.sync();
    assert_eq!(table.got_flagged(back), ["a*", "b*", "c"]);
}

#[test]
fn one_stored_body_serves_all_durable_subscriptions() {
    let mut table = Table::new();
    let clients = ["one", "two", "three"].map(|id| client(&mut table, id));
    for session in clients {
        table.subscribe_to(session, durable(1, "news", "d")).unwrap();
    }
    table.changes();
    table.publish(clients[0], "news", "a");
    let stored = inserted(&table.changes());
    assert_eq!((stored.len(), stored[0].holders.len()), (1, 3));
    table.ack(clients[0], 1, 1).unwrap();
    table.ack(clients[2], 1, 1).unwrap();
    assert_eq!(table.stored(), ["a"]);
    table.restart();
    for (id, expected) in [("one", vec![]), ("two", vec!["a*"]), ("three", vec![])] {
        let session = client(&mut table, id);
        table.subscribe_to(session, durable(1, "news", "d")).unwrap();
        table.sync();
        assert_eq!(table.got_flagged(session), expected, "{id}");
    }
}

#[test]
fn a_deleted_durable_subscription_takes_its_part_with_it() {
    let mut table = Table::new();
    let (one, two) = (client(&mut table, "one"), client(&mut table, "two"));
    for session in [one, two] {
        table.subscribe_to(session, durable(1, "news", "d")).unwrap();
    }
    table.publish(one, "news", "a");
    table.publish(one, "news", "b");
    table.ack(two, 1, 1).unwrap();
    assert!(delete(&mut table, one, Some(1), "d"));
    assert_eq!(table.stored(), ["b"]);
    assert!(!delete(&mut table, one, None, "d"));
    table.got(one);
    table.subscribe_to(one, durable(1, "news", "d")).unwrap();
    assert!(table.got(one).is_empty(), "a new one, with nothing of the old");
    table.publish(one, "news", "c");
    table.restart();
    let one = client(&mut table, "one");
    table.subscribe_to(one, durable(1, "news", "d")).unwrap();
    table.sync();
    assert_eq!(table.got_flagged(one), ["c*"]);
}

#[test]
fn a_durable_subscription_that_ends_takes_what_is_in_flight_with_it() {
    let mut table = Table::new();
    let me = client(&mut table, "me");
    table.subscribe_to(me, durable(1, "news", "d")).unwrap();
    table.publish(me, "news", "a");
    table.changes();
    assert!(delete(&mut table, me, None, "d"));
    let ops: Vec<Op> = table.changes().iter().flat_map(operations).collect();
    assert!(matches!(ops[..], [Op::DeleteDurable { .. }]), "{ops:?}");
    table.ack(me, 1, 1).unwrap_err();
}

#[test]
fn a_durable_subscription_to_another_topic_starts_anew() {
    let mut table = Table::new();
    let me = client(&mut table, "me");
    table.subscribe_to(me, durable(1, "news", "d")).unwrap();
    table.publish(me, "news", "old");
    table.unsubscribe(me, 1);
    table.got(me);
    table.subscribe_to(me, durable(1, "weather", "d")).unwrap();
    assert!(table.stored().is_empty());
    table.publish(me, "news", "x");
    table.publish(me, "weather", "rain");
    assert_eq!(table.got(me), ["rain"]);
}

#[test]
fn a_second_consumer_of_a_durable_subscription_is_refused_and_changes_nothing() {
    let mut table = Table::new();
    let me = client(&mut table, "me");
    table.subscribe_to(me, durable(1, "news", "d")).unwrap();
    table.changes();
    table.subscribe_to(me, durable(2, "news", "d")).unwrap_err();
    table.subscribe_to(me, durable(2, "weather", "d")).unwrap_err();
    assert!(table.changes().is_empty(), "not even a destination");
    table.publish(me, "news", "a");
    assert_eq!(table.got(me), ["a"]);
}

#[test]
fn durable_subscriptions_need_a_topic_and_a_client_id() {
    let mut table = Table::new();
    let (me, nobody) = (client(&mut table, "me"), table.connect());
    table.subscribe_to(nobody, durable(1, "news", "d")).unwrap_err();
    let queue = Subscribe { durable: Some("d".into()), ..subscription(1, Destination::queue("orders")) };
    table.subscribe_to(me, queue).unwrap_err();
    assert!(table.changes().is_empty(), "not even a destination");
}

#[test]
fn an_unsubscribe_that_is_refused_changes_nothing() {
    let mut table = Table::new();
    let me = client(&mut table, "me");
    table.subscribe_to(me, durable(1, "news", "d")).unwrap();
    assert!(!delete(&mut table, me, Some(1), "unknown"));
    assert!(!delete(&mut table, me, Some(2), "d"));
    table.publish(me, "news", "a");
    assert_eq!(table.got(me), ["a"]);
}

// Slow subscriptions.

/// A topic subscription may be 10,000 bytes behind, for 30 s.
fn small_backlog() -> CoreOptions {
    let mut options = options();
    options.limits.topic_backlog_bytes_max = 10_000;
    options
}

/// A message that counts `bytes`.
fn sized(id: &str, bytes: usize) -> MessageDraft {
    let empty = batonmq::types::Message::new(MessageDraft { body: Default::default(), ..draft(id) }).size();
    let message = MessageDraft { body: vec![0; bytes - empty].into(), ..draft(id) };
    assert_eq!(batonmq::types::Message::new(message.clone()).size(), bytes);
    message
}

/// A producer, and a subscription that answers one by one and may hold one.
fn slow_one() -> (Table, SessionId, SessionId) {
    let mut table = Table::with(small_backlog());
    let (producer, slow) = (table.connect(), table.connect());
    let one = Subscribe { prefetch: 1, ack: AckMode::Individual, ..subscription(1, Destination::topic("news")) };
    table.subscribe_to(slow, one).unwrap();
    (table, producer, slow)
}

/// Sends until the topic holds its producers back; how many it took.
fn fill(table: &mut Table, producer: SessionId, bytes: usize) -> usize {
    for count in 0..100 {
        match table.send_to(producer, &Destination::topic("news"), sized("m", bytes)) {
            Ok(()) => {}
            result => {
                assert_eq!(held(result), Some(Hold::SlowSubscription));
                return count;
            }
        }
    }
    panic!("the backlog has a bound")
}

#[test]
fn a_slow_subscription_holds_the_producers_of_its_topic_and_is_then_closed() {
    let (mut table, producer, slow) = slow_one();
    assert!((9..=11).contains(&fill(&mut table, producer, 1_000)));
    table.pass(Duration::from_secs(29));
    assert!(table.closed().is_empty());
    table.pass(Duration::from_secs(2));
    let closed = table.closed();
    assert!(matches!(&closed[..], [(session, CloseReason::SlowConsumer(_))] if *session == slow), "{closed:?}");
    table.publish(producer, "news", "goes on");
}

#[test]
fn producers_are_never_held_without_a_clock_that_runs() {
    for bytes in [1_000, 4_900, 5_000, 5_100, 9_000, 12_000] {
        let (mut table, producer, slow) = slow_one();
        table.send_to(producer, &Destination::topic("news"), sized("first", 4_000)).unwrap();
        fill(&mut table, producer, bytes);
        table.pass(Duration::from_secs(31));
        assert_eq!(table.closed().len(), 1, "messages of {bytes} bytes are held for ever");
        assert!(table.got(slow).len() == 1);
    }
}

#[test]
fn progress_sets_the_clock_of_a_slow_subscription_back() {
    let (mut table, producer, slow) = slow_one();
    for round in 1..=8 {
        fill(&mut table, producer, 1_000);
        table.pass(Duration::from_secs(20));
        table.ack(slow, 1, round).unwrap();
    }
    assert!(table.closed().is_empty());
}

#[test]
fn a_subscription_without_a_backlog_has_all_the_time_in_the_world() {
    let (mut table, producer, _) = slow_one();
    table.publish(producer, "news", "a");
    table.publish(producer, "news", "b");
    table.pass(Duration::from_secs(3_600));
    assert!(table.closed().is_empty());
}
