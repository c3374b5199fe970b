//! Acknowledgements outside transactions, and what becomes of deliveries that get none.

use batonmq::{
    broker::{AckMode, AckTarget, Change, Verdict},
    types::{ConsumerNo, SessionId},
};

use super::fixture::Table;

/// Three messages in flight.
fn three_in_flight(ack: AckMode) -> (Table, SessionId) {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    table.subscribe(consumer, 1, "orders", ack, 10);
    for id in ["a", "b", "c"] {
        table.send(producer, "orders", id);
    }
    assert_eq!(table.got(consumer), ["a", "b", "c"]);
    table.changes();
    (table, consumer)
}

fn by_id(consumer: Option<u32>, id: &str) -> AckTarget {
    AckTarget::MessageId { consumer: consumer.map(ConsumerNo), id: id.into() }
}

#[test]
fn r3_auto_mode_settles_what_is_in_the_kernel_and_nothing_else() {
    let (mut table, consumer) = three_in_flight(AckMode::Auto);
    table.written(consumer, 1, 2, 0);
    assert!(matches!(table.changes()[..], [Change::Settle { asked: false, .. }, Change::Settle { asked: false, .. }]));
    assert_eq!(table.stored(), ["c"]);
    table.close(consumer);
    assert_eq!(table.stored(), ["c"], "a byte that never left confirms nothing");
}

#[test]
fn r3_auto_mode_takes_no_ack() {
    let (mut table, consumer) = three_in_flight(AckMode::Auto);
    table.ack(consumer, 1, 1).unwrap_err();
    assert_eq!(table.settled(), 0);
}

#[test]
fn a_cumulative_ack_reaches_back_to_the_oldest() {
    let (mut table, consumer) = three_in_flight(AckMode::Cumulative);
    table.ack(consumer, 1, 2).unwrap();
    assert!(matches!(table.changes()[..], [Change::Settle { asked: true, .. }, Change::Settle { asked: true, .. }]));
    assert_eq!(table.stored(), ["c"]);
}

#[test]
fn a_cumulative_ack_by_message_id_does_the_same() {
    for consumer_named in [Some(1), None] {
        let (mut table, consumer) = three_in_flight(AckMode::Cumulative);
        table.answer(consumer, by_id(consumer_named, "b"), Verdict::Accepted, None).unwrap();
        assert_eq!(table.stored(), ["c"]);
    }
}

#[test]
fn an_individual_ack_settles_one() {
    let (mut table, consumer) = three_in_flight(AckMode::Individual);
    table.ack(consumer, 1, 2).unwrap();
    table.answer(consumer, by_id(None, "c"), Verdict::Accepted, None).unwrap();
    assert_eq!(table.stored(), ["a"]);
}

#[test]
fn r7_a_second_or_unknown_ack_is_refused_and_changes_nothing() {
    for mode in [AckMode::Cumulative, AckMode::Individual] {
        let (mut table, consumer) = three_in_flight(mode);
        table.ack(consumer, 1, 1).unwrap();
        assert_eq!(table.settled(), 1);
        for tag in [0, 1, 4] {
            table.ack(consumer, 1, tag).unwrap_err();
            table.nack(consumer, 1, tag).unwrap_err();
        }
        table.ack(consumer, 2, 2).unwrap_err();
        table.answer(consumer, by_id(None, "a"), Verdict::Accepted, None).unwrap_err();
        table.answer(consumer, by_id(Some(2), "b"), Verdict::Accepted, None).unwrap_err();
        assert!(table.changes().is_empty());
        assert!(table.got(consumer).is_empty());
    }
}

#[test]
fn r7_nobody_acknowledges_for_another_connection() {
    let (mut table, _) = three_in_flight(AckMode::Individual);
    let stranger = table.connect();
    table.ack(stranger, 1, 1).unwrap_err();
    table.answer(stranger, by_id(None, "a"), Verdict::Accepted, None).unwrap_err();
    assert!(table.changes().is_empty());
}

#[test]
fn r7_a_cumulative_ack_leaves_out_what_an_open_transaction_holds() {
    let (mut table, consumer) = three_in_flight(AckMode::Cumulative);
    table.begin(consumer, "t");
    table.ack_in(consumer, "t", 1, 1).unwrap();
    table.ack(consumer, 1, 3).unwrap();
    assert_eq!(table.settled(), 2);
    assert_eq!(table.stored(), ["a"]);
    table.abort(consumer, "t");
    table.ack(consumer, 1, 1).unwrap();
    assert!(table.stored().is_empty());
}

#[test]
fn r6_what_a_lost_consumer_held_returns_to_its_place() {
    let (mut table, consumer) = three_in_flight(AckMode::Individual);
    let next = table.connect();
    table.ack(consumer, 1, 2).unwrap();
    let producer = table.connect();
    table.send(producer, "orders", "d");
    table.close(consumer);
    table.subscribe(next, 1, "orders", AckMode::Individual, 10);
    assert_eq!(table.got_flagged(next), ["a*", "c*", "d*"]);
}

#[test]
fn r9_deliveries_are_counted_and_survive_as_absolute_numbers() {
    let (mut table, consumer) = three_in_flight(AckMode::Individual);
    for round in 2..=3 {
        table.unsubscribe(consumer, 1);
        table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
        assert!(table.deliveries(consumer).iter().all(|delivery| delivery.deliveries == round && delivery.redelivered));
    }
    table.close(consumer);
    table.restart();
    let next = table.connect();
    table.subscribe(next, 1, "orders", AckMode::Individual, 10);
    table.sync();
    assert!(table.deliveries(next).iter().all(|delivery| delivery.deliveries == 4 && delivery.redelivered));
}

#[test]
fn a_closing_connection_does_not_deliver_to_itself() {
    let (mut table, consumer) = three_in_flight(AckMode::Individual);
    table.subscribe(consumer, 2, "orders", AckMode::Individual, 10);
    table.close(consumer);
    assert!(table.got(consumer).is_empty());
    let next = table.connect();
    table.subscribe(next, 1, "orders", AckMode::Individual, 10);
    let counts: Vec<_> = table.deliveries(next).iter().map(|delivery| delivery.deliveries).collect();
    assert_eq!(counts, [2, 2, 2]);
}
