//! What is rejected, comes back, or dies.

use std::time::Duration;

use batonmq::{
    broker::{AckMode, Change, CoreOptions, Subscribe, Verdict},
    config::RedeliveryPolicy,
    types::{Destination, MessageDraft, Op, PropertyValue, SessionId},
};

use super::fixture::{Table, by_tag, draft, inserted, options, policy, subscription, with_policy};

const DLQ: &str = "ActiveMQ.DLQ";

/// A consumer of `orders` and one of the dead letters, with these messages in flight.
fn in_flight(options: CoreOptions, ack: AckMode, ids: &[&str]) -> (Table, SessionId, SessionId) {
    let mut table = Table::with(options);
    let (producer, consumer, undertaker) = (table.connect(), table.connect(), table.connect());
    table.subscribe(consumer, 1, "orders", ack, 10);
    table.subscribe(undertaker, 1, DLQ, AckMode::Individual, 10);
    for id in ids {
        table.send(producer, "orders", id);
    }
    assert_eq!(table.got(consumer), ids);
    table.changes();
    (table, consumer, undertaker)
}

#[test]
fn r6_a_nack_without_a_policy_is_a_dead_letter_with_cause_origin_and_a_sequence_of_its_own() {
    let (mut table, consumer, undertaker) = in_flight(options(), AckMode::Individual, &["a"]);
    table.nack(consumer, 1, 1).unwrap();
    let changes = table.changes();
    let [Change::Unit { origin: Some(origin), ops, .. }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(*origin, consumer);
    let [Op::Settle { sequence, .. }, Op::Insert(dead)] = &ops[..] else { panic!("{ops:?}") };
    assert!(dead.sequence > *sequence, "a sequence is given anew on entering a queue (R6)");
    table.sync();
    let got = table.deliveries(undertaker);
    assert_eq!(got[0].message, dead.message);
    assert_eq!(dead.message.id, "a".into(), "the message-id stays");
    assert_eq!(dead.message.original_destination, Some(Destination::queue("orders")));
    assert_eq!(
        dead.message.properties.find("dlqDeliveryFailureCause"),
        Some(PropertyValue::Text("rejected by its consumer"))
    );
    assert!(!got[0].redelivered, "the dead letter itself is new");
    assert_eq!(table.stored(), ["a"]);
}

#[test]
fn a_dead_letter_remembers_when_it_would_have_expired() {
    let (mut table, consumer, undertaker) = in_flight(options(), AckMode::Individual, &[]);
    let producer = table.connect();
    let expires = table.now.after(Duration::from_secs(5));
    let message = MessageDraft { expires: Some(expires), ..draft("a") };
    table.send_to(producer, &Destination::queue("orders"), message).unwrap();
    table.nack(consumer, 1, 1).unwrap();
    table.sync();
    let dead = &table.deliveries(undertaker)[0].message;
    assert_eq!(dead.expires, None);
    let remembered = expires.to_string();
    assert_eq!(dead.properties.find("originalExpiration"), Some(PropertyValue::Text(&remembered)));
}

#[test]
fn a_rejected_dead_letter_stays_one_and_waits_a_second() {
    let (mut table, consumer, undertaker) = in_flight(options(), AckMode::Individual, &["a"]);
    table.nack(consumer, 1, 1).unwrap();
    table.sync();
    assert_eq!(table.got(undertaker), ["a"]);
    table.nack(undertaker, 1, 1).unwrap();
    assert!(table.got(undertaker).is_empty());
    table.pass(Duration::from_secs(1));
    assert_eq!(table.got_flagged(undertaker), ["a*"]);
    assert_eq!(table.stored(), ["a"]);
}

#[test]
fn a_policy_redelivers_with_growing_delays_and_then_gives_up() {
    let (mut table, consumer, undertaker) = in_flight(with_policy(policy("orders", 3)), AckMode::Individual, &["a"]);
    for (attempt, delay) in [(1, 1), (2, 2), (3, 4)] {
        table.nack(consumer, 1, attempt).unwrap();
        let changes = table.changes();
        let [Change::Return { origin: Some(_), held, .. }] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((held.deliveries, held.failures), (attempt as u32, attempt as u32));
        assert_eq!(held.due, Some(table.now.after(Duration::from_secs(delay))));
        table.pass(Duration::from_secs(delay) - Duration::from_millis(1));
        assert!(table.got(consumer).is_empty());
        table.pass(Duration::from_millis(1));
        let got = table.deliveries(consumer);
        assert_eq!((got.len(), got[0].redelivered, got[0].deliveries), (1, true, attempt as u32 + 1));
    }
    assert!(table.got(undertaker).is_empty());
    table.nack(consumer, 1, 4).unwrap();
    table.sync();
    assert_eq!(table.got(undertaker), ["a"]);
}

#[test]
fn attempts_and_delays_survive_a_restart() {
    let (mut table, consumer, _) = in_flight(with_policy(policy("orders", 1)), AckMode::Individual, &["a"]);
    table.nack(consumer, 1, 1).unwrap();
    table.restart();
    let (consumer, undertaker) = (table.connect(), table.connect());
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.subscribe(undertaker, 1, DLQ, AckMode::Individual, 10);
    table.sync();
    assert!(table.got(consumer).is_empty(), "its delay is not over");
    table.pass(Duration::from_secs(1));
    table.sync();
    assert_eq!(table.got_flagged(consumer), ["a*"]);
    table.nack(consumer, 1, 1).unwrap();
    table.sync();
    assert_eq!(table.got(undertaker), ["a"]);
}

#[test]
fn r6_a_delayed_message_finds_its_place_again_after_a_restart() {
    let (mut table, consumer, _) = in_flight(with_policy(policy("orders", 3)), AckMode::Individual, &["a", "b", "c"]);
    table.nack(consumer, 1, 2).unwrap();
    table.restart();
    table.pass(Duration::from_secs(1));
    let consumer = table.connect();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.sync();
    assert_eq!(table.got_flagged(consumer), ["a*", "b*", "c*"]);
}

#[test]
fn a_policy_without_delay_redelivers_at_once() {
    let at_once = RedeliveryPolicy { delay: Duration::ZERO, ..policy("orders", 1) };
    let (mut table, consumer, undertaker) = in_flight(with_policy(at_once), AckMode::Individual, &["a", "b"]);
    table.nack(consumer, 1, 1).unwrap();
    assert_eq!(table.got_flagged(consumer), ["a*"]);
    table.nack(consumer, 1, 3).unwrap();
    table.sync();
    assert!(table.got(consumer).is_empty());
    assert_eq!(table.got(undertaker), ["a"]);
}

#[test]
fn a_cumulative_nack_reaches_back_to_the_oldest() {
    let (mut table, consumer, undertaker) = in_flight(options(), AckMode::Cumulative, &["a", "b", "c"]);
    table.nack(consumer, 1, 2).unwrap();
    table.sync();
    assert_eq!(table.got(undertaker), ["a", "b"]);
    table.ack(consumer, 1, 3).unwrap();
    assert_eq!(table.stored(), ["a", "b"]);
}

#[test]
fn lost_consumers_make_no_dead_letter() {
    let (mut table, consumer, undertaker) = in_flight(with_policy(policy("orders", 0)), AckMode::Individual, &["a"]);
    for _ in 0..10 {
        table.unsubscribe(consumer, 1);
        table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
        assert_eq!(table.got_flagged(consumer), ["a*"]);
    }
    assert!(table.got(undertaker).is_empty());
}

#[test]
fn lost_consumers_count_if_the_policy_says_so_and_each_loss_once() {
    let counting = RedeliveryPolicy { count_lost_consumers: true, delay: Duration::ZERO, ..policy("orders", 1) };
    let (mut table, consumer, undertaker) = in_flight(with_policy(counting), AckMode::Individual, &["a"]);
    // More consumers of the same connection could each have lost it once more.
    table.subscribe(consumer, 2, "orders", AckMode::Individual, 10);
    table.subscribe(consumer, 3, "orders", AckMode::Individual, 10);
    table.close(consumer);
    assert!(table.got(undertaker).is_empty());
    let next = table.connect();
    table.subscribe(next, 1, "orders", AckMode::Individual, 10);
    assert_eq!(table.deliveries(next)[0].deliveries, 2);
    table.close(next);
    table.sync();
    let dead = table.deliveries(undertaker);
    assert_eq!(
        dead[0].message.properties.find("dlqDeliveryFailureCause"),
        Some(PropertyValue::Text("its consumers went away too often"))
    );
}

#[test]
fn dead_letters_may_exceed_the_limit_of_destinations() {
    let mut options = options();
    options.limits.destinations_max = 1;
    let mut table = Table::with(options);
    let session = table.connect();
    table.subscribe(session, 1, "orders", AckMode::Individual, 10);
    table.send(session, "orders", "a");
    table.nack(session, 1, 1).unwrap();
    assert_eq!(inserted(&table.changes()).len(), 2);
    table.subscribe(session, 2, DLQ, AckMode::Individual, 10);
    table.sync();
    assert_eq!(table.got(session), ["a", "a"]);
}

#[test]
fn what_is_not_persistent_is_not_stored_as_a_dead_letter_either() {
    let (mut table, consumer, undertaker) = in_flight(options(), AckMode::Individual, &[]);
    let message = MessageDraft { persistent: false, ..draft("a") };
    table.send_to(consumer, &Destination::queue("orders"), message).unwrap();
    table.nack(consumer, 1, 1).unwrap();
    table.sync();
    assert_eq!(table.got(undertaker), ["a"]);
    assert!(inserted(&table.changes()).is_empty());
}

#[test]
fn a_dead_letter_of_one_durable_subscription_leaves_the_others_alone() {
    let mut table = Table::new();
    let (one, two) = (table.connect_as(Some("one"), None).unwrap(), table.connect_as(Some("two"), None).unwrap());
    for session in [one, two] {
        let durable = Subscribe { durable: Some("d".into()), ..subscription(1, Destination::topic("news")) };
        table.subscribe_to(session, durable).unwrap();
    }
    table.publish(one, "news", "a");
    table.nack(one, 1, 1).unwrap();
    assert_eq!(table.stored(), ["a", "a"], "two's, and the dead letter");
    table.ack(two, 1, 1).unwrap();
    assert_eq!(table.stored(), ["a"]);
}

// A dead letter is there when it is durable.

#[test]
fn r9_a_dead_letter_is_hidden_until_its_unit_is_durable() {
    let (mut table, consumer, undertaker) = in_flight(options(), AckMode::Individual, &["a", "b"]);
    table.nack(consumer, 1, 1).unwrap();
    table.sync_once(); // the mark is there for what follows
    table.sync();
    assert_eq!(table.got(undertaker), ["a"]);
    table.nack(consumer, 1, 2).unwrap();
    table.pass(Duration::from_secs(3_600));
    assert!(table.got(undertaker).is_empty());
    table.sync_once();
    assert_eq!(table.got(undertaker), ["b"]);
}

#[test]
fn r5_a_dead_letter_that_the_store_need_not_keep_is_there_at_once() {
    let (mut table, consumer, undertaker) = in_flight(options(), AckMode::Individual, &[]);
    table.send_to(consumer, &Destination::queue("orders"), MessageDraft { persistent: false, ..draft("a") }).unwrap();
    table.nack(consumer, 1, 1).unwrap();
    assert_eq!(table.got(undertaker), ["a"]);
}

#[test]
fn r13_what_a_refused_dead_letter_is_made_of_comes_back_after_a_while() {
    let (mut table, consumer, undertaker) = in_flight(options(), AckMode::Individual, &["a"]);
    table.nack(consumer, 1, 1).unwrap();
    table.refuse_units();
    table.pass(Duration::from_millis(4_999));
    assert!(table.got(consumer).is_empty());
    table.pass(Duration::from_millis(1));
    assert_eq!(table.got_flagged(consumer), ["a*"]);
    table.nack(consumer, 1, 2).unwrap();
    table.sync();
    assert_eq!(table.got(undertaker), ["a"]);
}

#[test]
fn r13_what_has_expired_dies_later_if_its_dead_letter_is_refused_and_is_not_delivered() {
    let (mut table, consumer, undertaker) = in_flight(options(), AckMode::Individual, &[]);
    let expires = Some(table.now);
    table.send_to(consumer, &Destination::queue("orders"), MessageDraft { expires, ..draft("late") }).unwrap();
    table.pass(Duration::ZERO);
    table.refuse_units();
    table.send(consumer, "orders", "fresh");
    assert_eq!(table.got(consumer), ["fresh"]);
    table.pass(Duration::from_secs(5));
    table.sync();
    assert!(table.got(consumer).is_empty());
    assert_eq!(table.got(undertaker), ["late"]);
}

// R13: what the store refuses.

#[test]
fn r13_a_refused_message_leaves_its_queue() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    table.send(producer, "orders", "a");
    table.send(producer, "orders", "b");
    let refused = inserted(&table.changes()).remove(0);
    table.withdraw(&refused);
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    assert_eq!(table.got(consumer), ["b"]);
}

#[test]
fn r13_a_late_ack_of_a_refused_message_is_accepted_and_writes_nothing() {
    for verdict in [Verdict::Accepted, Verdict::Rejected] {
        let (mut table, consumer) = refused_in_flight();
        table.answer(consumer, by_tag(1, 1), verdict, None).unwrap();
        assert_nothing_came_of(&mut table, consumer);
        table.answer(consumer, by_tag(1, 1), verdict, None).unwrap_err();
    }
}

#[test]
fn r13_a_refused_message_never_comes_back() {
    let (mut table, consumer) = refused_in_flight();
    table.unsubscribe(consumer, 1);
    assert_nothing_came_of(&mut table, consumer);
}

#[test]
fn r13_a_refused_message_in_an_open_transaction_is_accepted_and_writes_nothing() {
    for verdict in [Verdict::Accepted, Verdict::Rejected] {
        let mut table = Table::new();
        let consumer = table.connect();
        table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
        table.send(consumer, "orders", "a");
        let refused = inserted(&table.changes()).remove(0);
        table.begin(consumer, "t");
        table.answer(consumer, by_tag(1, 1), verdict, Some("t")).unwrap();
        table.withdraw(&refused);
        table.commit(consumer, "t").unwrap();
        table.sync();
        table.got(consumer);
        assert_nothing_came_of(&mut table, consumer);
    }
}

#[test]
fn r13_a_refused_message_never_comes_back_from_a_commit_under_way() {
    let at_once = RedeliveryPolicy { delay: Duration::ZERO, ..policy("orders", 5) };
    for committed in [true, false] {
        let mut table = Table::with(with_policy(at_once.clone()));
        let consumer = table.connect();
        table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
        table.send(consumer, "orders", "a");
        let refused = inserted(&table.changes()).remove(0);
        table.begin(consumer, "t");
        table.answer(consumer, by_tag(1, 1), Verdict::Rejected, Some("t")).unwrap();
        table.commit(consumer, "t").unwrap();
        table.changes();
        table.withdraw(&refused);
        if committed {
            table.sync()
        } else {
            table.refuse_units()
        }
        table.got(consumer);
        table.unsubscribe(consumer, 1);
        assert_nothing_came_of(&mut table, consumer);
    }
}

/// A message with a consumer that the store has refused.
fn refused_in_flight() -> (Table, SessionId) {
    let mut table = Table::new();
    let consumer = table.connect();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.send(consumer, "orders", "a");
    assert_eq!(table.got(consumer), ["a"]);
    let refused = inserted(&table.changes()).remove(0);
    table.withdraw(&refused);
    (table, consumer)
}

/// Nothing was written, and nobody ever gets the message again.
fn assert_nothing_came_of(table: &mut Table, consumer: SessionId) {
    let changes = table.changes();
    let harmless = |change: &Change| matches!(change, Change::One { op: Op::CreateDestination { .. }, .. });
    assert!(changes.iter().all(harmless), "{changes:?}");
    table.subscribe(consumer, 8, "orders", AckMode::Individual, 10);
    table.subscribe(consumer, 9, DLQ, AckMode::Individual, 10);
    table.pass(Duration::from_secs(3_600));
    assert!(table.got(consumer).is_empty());
}
