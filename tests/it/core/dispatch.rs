//! Who gets what, and when: order, credit, priorities, expiry.

use std::time::Duration;

use batonmq::{
    broker::{AckMode, Subscribe},
    types::{Destination, MessageDraft},
};

use super::fixture::{Table, draft, inserted, priority, subscription};

#[test]
fn r6_a_queue_hands_out_in_the_order_of_acceptance_of_all_its_producers() {
    let mut table = Table::new();
    let (one, two, consumer) = (table.connect(), table.connect(), table.connect());
    table.send(one, "orders", "a1");
    table.send(two, "orders", "b1");
    table.send(one, "orders", "a2");
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.send(two, "orders", "b2");
    assert_eq!(table.got(consumer), ["a1", "b1", "a2", "b2"]);
}

#[test]
fn higher_priorities_come_first_and_each_in_its_order() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    for (level, id) in [(4, "a"), (9, "b"), (0, "c"), (9, "d"), (4, "e")] {
        table.send_to(producer, &Destination::queue("orders"), priority(level, id)).unwrap();
    }
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    assert_eq!(table.got(consumer), ["b", "d", "a", "e", "c"]);
}

#[test]
fn in_flight_never_exceeds_the_prefetch() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 2);
    for id in ["a", "b", "c", "d"] {
        table.send(producer, "orders", id);
    }
    assert_eq!(table.got(consumer), ["a", "b"]);
    table.ack(consumer, 1, 2).unwrap();
    assert_eq!(table.got(consumer), ["c"]);
    table.ack(consumer, 1, 1).unwrap();
    assert_eq!(table.got(consumer), ["d"]);
}

#[test]
fn equal_consumers_take_turns_and_a_higher_priority_is_served_first() {
    let mut table = Table::new();
    let (producer, a, b, vip) = (table.connect(), table.connect(), table.connect(), table.connect());
    table.subscribe(a, 1, "orders", AckMode::Individual, 10);
    table.subscribe(b, 1, "orders", AckMode::Individual, 10);
    let first = Subscribe { priority: 5, prefetch: 2, ..subscription(1, Destination::queue("orders")) };
    table.subscribe_to(vip, first).unwrap();
    for id in ["1", "2", "3", "4", "5", "6"] {
        table.send(producer, "orders", id);
    }
    assert_eq!(table.got(vip), ["1", "2"]);
    assert_eq!(table.got(a), ["3", "5"]);
    assert_eq!(table.got(b), ["4", "6"]);
}

#[test]
fn a_full_outbox_pauses_its_session_and_no_other() {
    let mut table = Table::new();
    let (producer, slow, quick) = (table.connect(), table.connect(), table.connect());
    table.subscribe(slow, 1, "orders", AckMode::Individual, 100);
    let large = |id: &str| MessageDraft { body: vec![0; (1 << 20) - id.len()].into(), ..draft(id) };
    for id in ["1", "2", "3", "4", "5", "6"] {
        table.send_to(producer, &Destination::queue("orders"), large(id)).unwrap();
    }
    let got = table.deliveries(slow);
    assert_eq!(got.len(), 4, "four MiB are enough");
    table.subscribe(quick, 1, "orders", AckMode::Individual, 1);
    assert_eq!(table.got(quick), ["5"]);
    let bytes = got.iter().map(|delivery| delivery.message.size()).sum();
    table.written(slow, 1, 4, bytes);
    assert_eq!(table.got(slow), ["6"]);
}

#[test]
fn what_has_expired_is_not_delivered_and_does_not_stand_in_the_way() {
    let mut table = Table::new();
    let (producer, consumer, undertaker) = (table.connect(), table.connect(), table.connect());
    let expired = MessageDraft { expires: Some(table.now), ..draft("late") };
    table.send_to(producer, &Destination::queue("orders"), expired).unwrap();
    table.send(producer, "orders", "fresh");
    table.changes();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    assert_eq!(table.got(consumer), ["fresh"]);
    table.pass(Duration::ZERO);
    let dead = inserted(&table.changes());
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].message.expires, None, "a dead letter never expires");
    table.sync();
    table.subscribe(undertaker, 1, "ActiveMQ.DLQ", AckMode::Individual, 10);
    table.sync();
    assert_eq!(table.got(undertaker), ["late"]);
}

#[test]
fn what_nobody_asks_for_expires_by_its_deadline() {
    let mut table = Table::new();
    let (producer, undertaker) = (table.connect(), table.connect());
    table.subscribe(undertaker, 1, "ActiveMQ.DLQ", AckMode::Individual, 10);
    table.pass(Duration::ZERO); // the store is asked once for what comes due there
    let expires = table.now.after(Duration::from_secs(5));
    table
        .send_to(producer, &Destination::queue("orders"), MessageDraft { expires: Some(expires), ..draft("a") })
        .unwrap();
    assert_eq!(table.core.next_deadline(), Some(expires));
    table.pass(Duration::from_secs(4));
    assert!(table.got(undertaker).is_empty());
    table.pass(Duration::from_secs(1));
    table.sync();
    assert_eq!(table.got(undertaker), ["a"]);
    table.pass(Duration::from_secs(3_600));
    assert_eq!(table.core.next_deadline(), None, "a dead letter never expires");
    table.ack(undertaker, 1, 1).unwrap();
    assert!(table.stored().is_empty());
}

#[test]
fn what_is_not_persistent_is_dropped_when_it_expires() {
    let mut table = Table::new();
    let (producer, undertaker) = (table.connect(), table.connect());
    table.subscribe(undertaker, 1, "ActiveMQ.DLQ", AckMode::Individual, 10);
    let expires = Some(table.now.after(Duration::from_secs(5)));
    let draft = MessageDraft { persistent: false, expires, ..draft("a") };
    table.send_to(producer, &Destination::queue("orders"), draft).unwrap();
    table.pass(Duration::from_secs(5));
    assert!(table.got(undertaker).is_empty());
    assert!(inserted(&table.changes()).is_empty());
}

#[test]
fn what_is_in_flight_does_not_expire_but_may_when_it_returns() {
    let mut table = Table::new();
    let (producer, consumer, undertaker) = (table.connect(), table.connect(), table.connect());
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.subscribe(undertaker, 1, "ActiveMQ.DLQ", AckMode::Individual, 10);
    let expires = Some(table.now.after(Duration::from_secs(5)));
    for id in ["a", "b"] {
        table.send_to(producer, &Destination::queue("orders"), MessageDraft { expires, ..draft(id) }).unwrap();
    }
    table.pass(Duration::from_secs(6));
    assert!(table.got(undertaker).is_empty());
    table.ack(consumer, 1, 1).unwrap();
    table.close(consumer);
    table.pass(Duration::ZERO);
    table.sync();
    assert_eq!(table.got(undertaker), ["b"]);
}
