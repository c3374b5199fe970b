//! R9: dispatch marks. A restart flags as redelivered exactly what may have been delivered before.

use batonmq::{
    broker::{AckMode, Change},
    types::SessionId,
};

use super::{
    fixture::{Table, inserted},
    store::Store,
};

fn marks(changes: &[Change]) -> Vec<bool> {
    let awaited = |change: &Change| if let Change::Mark { awaited, .. } = change { Some(*awaited) } else { None };
    changes.iter().filter_map(awaited).collect()
}

fn consumer(table: &mut Table, queue: &str, prefetch: u32) -> SessionId {
    let session = table.connect();
    table.subscribe(session, 1, queue, AckMode::Individual, prefetch);
    session
}

#[test]
fn r9_a_new_message_passes_at_once_with_a_mark_in_its_batch() {
    let mut table = Table::new();
    let consumer = consumer(&mut table, "orders", 10);
    table.send(consumer, "orders", "a");
    table.send(consumer, "orders", "b");
    assert_eq!(table.got(consumer), ["a", "b"]);
    let changes = table.changes();
    assert_eq!(marks(&changes), [false], "one mark for both");
    let at_mark = changes.iter().position(|change| matches!(change, Change::Mark { .. })).unwrap();
    assert_eq!(inserted(&changes[..at_mark]).len(), 1, "beside the insert of the first: nothing was sealed between");
}

#[test]
fn r9_what_was_sealed_before_waits_for_its_mark() {
    let mut table = Table::new();
    let producer = table.connect();
    table.send(producer, "orders", "a");
    table.send(producer, "orders", "b");
    table.core.sealed();
    table.send(producer, "orders", "c");
    table.changes();
    let consumer = consumer(&mut table, "orders", 10);
    assert!(table.got(consumer).is_empty());
    assert_eq!(marks(&table.changes()), [true]);
    table.send(producer, "orders", "d");
    assert!(table.got(consumer).is_empty());
    table.sync();
    assert_eq!(table.got_flagged(consumer), ["a", "b", "c", "d"]);
}

#[test]
fn r9_a_recovered_backlog_waits_for_its_mark() {
    let mut table = Table::new();
    let producer = table.connect();
    for id in ["a", "b"] {
        table.send(producer, "orders", id);
    }
    table.restart();
    table.changes();
    let consumer = consumer(&mut table, "orders", 1);
    assert!(table.got(consumer).is_empty());
    assert_eq!(marks(&table.changes()), [true]);
    table.sync();
    assert_eq!(table.got_flagged(consumer), ["a"]);
    table.ack(consumer, 1, 1).unwrap();
    assert_eq!(table.got_flagged(consumer), ["b"]);
}

#[test]
fn r9_after_a_restart_what_lies_above_the_mark_is_new_and_what_lies_below_is_flagged() {
    let mut table = Table::new();
    let producer = table.connect();
    for id in ["a", "b"] {
        table.send(producer, "orders", id);
    }
    table.core.sealed();
    // The mark is written but not durable when the broker dies: nothing was delivered, nothing is flagged.
    let without_mark = table.store.clone();
    let first = consumer(&mut table, "orders", 1);
    table.store = without_mark;
    assert!(table.got(first).is_empty());
    table.restart();
    let second = consumer(&mut table, "orders", 1);
    table.sync();
    assert_eq!(table.got_flagged(second), ["a"]);
    // Now it is durable, so an earlier delivery can't be ruled out.
    table.restart();
    let third = consumer(&mut table, "orders", 10);
    assert_eq!(table.got_flagged(third), ["a*", "b*"]);
    let producer = table.connect();
    table.send(producer, "orders", "c");
    assert_eq!(table.got_flagged(third), ["c"], "a new term's messages lie above it");
}

#[test]
fn r9_first_deliveries_write_nothing_but_marks_set_in_blocks_ahead() {
    let mut table = Table::new();
    let session = consumer(&mut table, "orders", 20_000);
    for _ in 0..10_000 {
        table.send(session, "orders", "a");
        if table.got(session).is_empty() {
            table.sync();
        }
    }
    table.sync();
    let changes = table.changes();
    assert_eq!(inserted(&changes).len(), 10_000);
    assert!((3..=8).contains(&marks(&changes).len()), "{} marks", marks(&changes).len());
    assert_eq!(changes.len() - inserted(&changes).len() - marks(&changes).len(), 1, "and the queue itself");
}

#[test]
fn r9_marks_that_become_durable_in_time_never_make_dispatch_wait() {
    let mut table = Table::new();
    let session = consumer(&mut table, "orders", 20_000);
    for number in 0..9_000 {
        // an outbox has room for them
        table.send(session, "orders", "a");
        if number % 100 == 0 {
            table.sync_once();
        }
        assert_eq!(table.got_flagged(session), ["a"]);
    }
    assert!(marks(&table.changes()).iter().all(|awaited| !awaited));
}

#[test]
fn r9_nothing_is_delivered_unflagged_twice_whatever_was_durable() {
    // Every prefix of the batches, as a crash might leave them.
    let mut table = Table::new();
    let session = consumer(&mut table, "orders", 2);
    let (mut changes, mut batches) = (table.changes(), vec![0]);
    for id in ["a", "b", "c", "d"] {
        table.send(session, "orders", id);
        changes.extend(table.changes());
        table.core.sealed();
        batches.push(changes.len());
    }
    table.ack(session, 1, 1).unwrap();
    table.sync();
    changes.extend(table.changes());
    batches.push(changes.len());
    let delivered = table.got(session);
    for length in batches {
        let mut crashed = Table::new();
        crashed.store = Store::default();
        changes[..length].iter().for_each(|change| crashed.store.apply(change));
        crashed.restart();
        let next = consumer(&mut crashed, "orders", 10);
        crashed.sync();
        for again in crashed.deliveries(next) {
            let before = delivered.contains(&again.message.id.to_string());
            assert!(again.redelivered || !before, "{} came again as new, after {length} changes", again.message.id);
        }
    }
}
