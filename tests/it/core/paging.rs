//! What leaves memory and comes back, and what waits while there is none (R25 to R28, R31, R32).

use std::time::Duration;

use batonmq::{
    broker::{AckMode, Full, Hold, Refusal, Subscribe},
    types::{Destination, MessageDraft, Timestamp},
};

use super::fixture::{Table, draft, held, options, policy, priority, refused, subscription, with_policy};

/// More than three quarters of the budget: nothing stays that nobody waits for.
const SHORT: usize = 80;
/// More than all of the budget.
const FULL: usize = 110; // so that it is full still when the last of the backlog has left

/// So long after the last delivery a queue is not awaited any more, if all its consumers are busy.
const A_WHILE: Duration = Duration::from_secs(2);

/// So many percent of the budget.
fn percent(part: usize) -> usize {
    options().limits.memory_bytes_max.div_ceil(100) * part
}

fn names(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| format!("m{number}")).collect()
}

#[test]
fn a_backlog_that_left_memory_comes_back_in_order_behind_what_stayed() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    for name in names(1..=100) {
        table.send(producer, "orders", &name);
    }
    table.use_memory(percent(SHORT));
    for name in names(101..=110) {
        table.send(producer, "orders", &name);
    }
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 1_000);
    assert_eq!(table.got(consumer), names(1..=110));
}

#[test]
fn priorities_come_back_before_lower_ones() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    let orders = Destination::queue("orders");
    for level in [4, 9, 0, 4, 9] {
        for name in names(1..=5) {
            table.send_to(producer, &orders, priority(level, &format!("{level}{name}"))).unwrap();
        }
    }
    table.use_memory(percent(SHORT));
    table.hold_reads();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 1_000);
    assert!(table.got(consumer).is_empty(), "a lower priority does not overtake one that is being read");
    table.answer_reads();
    let levels: Vec<u8> = table.deliveries(consumer).iter().map(|delivery| delivery.message.priority.level()).collect();
    assert_eq!(levels.len(), 25);
    assert!(levels.is_sorted_by(|one, other| one >= other));
}

#[test]
fn r25_what_is_not_durable_stays_in_memory() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    for name in names(1..=3) {
        table.send(producer, "orders", &name);
    }
    table.use_memory_before(percent(SHORT), Timestamp(0));
    table.hold_reads();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    assert_eq!(table.got(consumer), names(1..=3), "nothing had to be read");
}

#[test]
fn r25_a_transaction_that_is_not_durable_stays_in_memory() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    table.begin(producer, "t");
    table.send_in(producer, "t", "orders", "m1");
    table.commit(producer, "t").unwrap();
    table.use_memory(percent(SHORT));
    table.hold_reads();
    table.sync();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.sync();
    assert_eq!(table.got(consumer), ["m1"], "nothing had to be read");
}

#[test]
fn r26_what_was_settled_after_a_read_began_does_not_come_back_with_it() {
    let mut table = Table::new();
    let (producer, first, second) = (table.connect(), table.connect(), table.connect());
    for name in names(1..=4) {
        table.send(producer, "orders", &name);
    }
    table.subscribe(first, 1, "orders", AckMode::Individual, 2);
    assert_eq!(table.got(first), names(1..=2));
    table.close(first); // both return, and leave memory with the rest
    table.pass(A_WHILE);
    table.use_memory(percent(SHORT));
    table.subscribe(second, 1, "orders", AckMode::Individual, 1);
    assert_eq!(table.got(second), ["m1"]);
    table.pass(A_WHILE);
    table.use_memory(percent(SHORT)); // what was read leaves again, m1 is in flight
    table.hold_reads();
    table.ack(second, 1, 1).unwrap(); // the read for the next one is under way now
    table.answer_reads();
    assert_eq!(table.got(second), ["m2"], "m1 is settled");
}

#[test]
fn r27_what_returned_leaves_memory_too_and_what_is_in_flight_is_not_read_again() {
    let mut table = Table::new();
    let (producer, lost, stays, next) = (table.connect(), table.connect(), table.connect(), table.connect());
    for name in names(1..=6) {
        table.send(producer, "orders", &name);
    }
    table.subscribe(lost, 1, "orders", AckMode::Individual, 1);
    table.subscribe(stays, 1, "orders", AckMode::Individual, 1);
    assert_eq!((table.got(lost), table.got(stays)), (vec!["m1".into()], vec!["m2".into()]));
    table.close(lost);
    table.pass(A_WHILE);
    table.use_memory(percent(SHORT));
    table.subscribe(next, 1, "orders", AckMode::Individual, 10);
    assert_eq!(table.got_flagged(next), ["m1*", "m3", "m4", "m5", "m6"], "m2 is in flight");
    table.close(stays);
    assert_eq!(table.got_flagged(next), ["m2*"]);
}

#[test]
fn a_consumer_that_takes_one_message_after_the_other_does_not_have_each_of_them_read() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    for name in names(1..=100) {
        table.send(producer, "orders", &name);
    }
    table.use_memory(percent(SHORT));
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 1);
    table.hold_reads();
    for number in 1..=100 {
        table.use_memory(percent(SHORT));
        assert_eq!(table.got(consumer), [format!("m{number}")], "nothing more is read");
        table.ack(consumer, 1, number).unwrap();
    }
}

#[test]
fn r27_a_delayed_return_leaves_memory_and_comes_back_when_it_is_due() {
    let mut table = Table::with(with_policy(policy("orders", 3)));
    let (producer, consumer) = (table.connect(), table.connect());
    for name in names(1..=3) {
        table.send(producer, "orders", &name);
    }
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    assert_eq!(table.got(consumer), names(1..=3));
    table.nack(consumer, 1, 2).unwrap();
    table.use_memory(percent(SHORT));
    table.pass(Duration::from_millis(900));
    assert!(table.got(consumer).is_empty());
    table.pass(Duration::from_millis(100));
    assert_eq!(table.got_flagged(consumer), ["m2*"]);
    table.ack(consumer, 1, 4).unwrap();
    assert_eq!(table.stored(), ["m1", "m3"]);
}

/// R13: what has expired waits after a refused dead letter, and nothing else with it.
#[test]
fn r27_a_delayed_return_comes_back_from_the_store_while_nothing_may_die() {
    let mut table = Table::with(with_policy(policy("orders", 3)));
    let (producer, consumer, undertaker) = (table.connect(), table.connect(), table.connect());
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.subscribe(consumer, 2, "other", AckMode::Individual, 10);
    table.subscribe(undertaker, 1, "ActiveMQ.DLQ", AckMode::Individual, 10);
    let late = MessageDraft { expires: Some(table.now.after(Duration::from_millis(500))), ..draft("late") };
    table.send_to(producer, &Destination::queue("lonely"), late).unwrap();
    table.send(producer, "orders", "delayed");
    table.send(producer, "other", "doomed");
    assert_eq!(table.got(consumer), ["delayed", "doomed"]);
    table.nack(consumer, 1, 1).unwrap();
    let due = table.now.after(Duration::from_secs(1));
    table.use_memory(percent(SHORT));
    table.nack(consumer, 2, 1).unwrap();
    table.refuse_units();
    assert!(table.next_deadline().is_some_and(|next| next <= due));
    table.pass(Duration::from_secs(1));
    assert_eq!(table.got_flagged(consumer), ["delayed*"]);
    table.sync();
    assert!(table.got(undertaker).is_empty());
    table.pass(Duration::from_secs(4));
    table.sync();
    assert_eq!((table.got(undertaker), table.got_flagged(consumer)), (vec!["late".into()], vec!["doomed*".into()]));
}

#[test]
fn what_expires_while_it_is_not_in_memory_is_a_dead_letter_at_its_time() {
    let mut table = Table::new();
    let (producer, undertaker, consumer) = (table.connect(), table.connect(), table.connect());
    table.subscribe(undertaker, 1, "ActiveMQ.DLQ", AckMode::Individual, 10);
    let expires = table.now.after(Duration::from_secs(5));
    for name in names(1..=5) {
        let expires = (name == "m3").then_some(expires);
        table.send_to(producer, &Destination::queue("orders"), MessageDraft { expires, ..draft(&name) }).unwrap();
    }
    table.use_memory(percent(SHORT));
    table.pass(Duration::from_secs(4));
    assert!(table.got(undertaker).is_empty());
    table.pass(Duration::from_secs(1));
    table.sync();
    assert_eq!(table.got(undertaker), ["m3"]);
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.sync();
    assert_eq!(table.got(consumer), ["m1", "m2", "m4", "m5"]);
}

#[test]
fn r28_limits_apply_once_it_is_known_what_the_store_held() {
    let mut limited = options();
    limited.limits.queue_bytes_max = Some(1_000);
    let mut table = Table::with(limited);
    let producer = table.connect();
    for name in names(1..=3) {
        table.send_if_there_is_room(producer, "orders", &name);
    }
    let full = table.send_to(producer, &Destination::queue("orders"), draft("m4"));
    assert!(matches!(held(full), Some(Hold::Standing(Full::Queue(..)))));
    table.restart_uncounted();
    let producer = table.connect();
    table.send(producer, "orders", "m5");
    table.count();
    let full = table.send_to(producer, &Destination::queue("orders"), draft("m6"));
    assert!(matches!(held(full), Some(Hold::Standing(Full::Queue(..)))));
    let consumer = table.connect();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.sync();
    for tag in 1..=table.got(consumer).len() as u64 {
        table.ack(consumer, 1, tag).unwrap();
    }
    table.send(producer, "orders", "m6");
}

#[test]
fn r31_who_has_something_in_flight_gets_nothing_more_while_memory_is_full() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    for name in names(1..=3) {
        table.send(producer, "orders", &name);
    }
    table.use_memory(percent(FULL));
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    assert_eq!(table.got(consumer), ["m1"], "nobody starves altogether");
    table.ack(consumer, 1, 1).unwrap();
    assert_eq!(table.got(consumer), ["m2"]);
    table.use_memory(0);
    assert_eq!(table.got(consumer), ["m3"], "and goes on when there is room");
}

#[test]
fn r31_sends_wait_and_transactions_grow_no_more_while_memory_is_full() {
    let mut table = Table::new();
    let producer = table.connect();
    for (name, id) in [("t", "m1"), ("u", "m0")] {
        table.begin(producer, name);
        table.send_in(producer, name, "orders", id);
    }
    table.use_memory(percent(FULL));
    let send = table.send_to(producer, &Destination::queue("orders"), draft("m2"));
    assert_eq!(held(send), Some(Hold::Standing(Full::Memory)));
    let too_much = table.send_to_in(producer, "u", &Destination::queue("orders"), draft("m3"));
    assert_eq!(too_much.unwrap_err().message, Refusal::memory_full().message);
    refused(table.commit(producer, "u")).unwrap_err();
    table.commit(producer, "t").unwrap(); // what is there already goes its way
    table.sync();
    assert_eq!(table.stored(), ["m1"]);
}

#[test]
fn r32_what_is_not_persistent_is_spooled_and_comes_back_in_order() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    let orders = Destination::queue("orders");
    let fleeting = |name: &str| MessageDraft { persistent: false, ..draft(name) };
    table.use_memory(percent(60));
    for name in names(1..=20) {
        table.send_to(producer, &orders, fleeting(&name)).unwrap();
    }
    table.use_memory(percent(SHORT));
    assert_eq!(table.spooled(), names(1..=20));
    table.hold_reads();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 100);
    assert!(table.got(consumer).is_empty(), "nothing of it is in memory");
    table.answer_reads();
    assert_eq!(table.got(consumer), names(1..=20));
    for tag in 1..=20 {
        table.ack(consumer, 1, tag).unwrap();
    }
    assert!(table.spooled().is_empty());
    assert!(table.stored().is_empty());
}

#[test]
fn r32_dead_letters_that_are_not_persistent_are_spooled_too() {
    let mut table = Table::new();
    let (producer, consumer, undertaker) = (table.connect(), table.connect(), table.connect());
    for name in names(1..=3) {
        let fleeting = MessageDraft { persistent: false, ..draft(&name) };
        table.send_to(producer, &Destination::queue("orders"), fleeting).unwrap();
    }
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.use_memory(percent(60));
    for tag in 1..=3 {
        table.nack(consumer, 1, tag).unwrap();
    }
    assert_eq!(table.spooled(), names(1..=3));
    table.use_memory(percent(SHORT));
    table.subscribe(undertaker, 1, "ActiveMQ.DLQ", AckMode::Individual, 10);
    assert_eq!(table.got(undertaker), names(1..=3));
}

#[test]
fn r32_a_slow_topic_subscription_is_spooled_once_for_all_and_ends_with_its_consumers() {
    let mut table = Table::new();
    let (producer, fast) = (table.connect(), table.connect());
    let slow = [table.connect(), table.connect()];
    let news = |prefetch| Subscribe { prefetch, ..subscription(1, Destination::topic("news")) };
    table.subscribe_to(fast, news(100)).unwrap();
    for session in slow {
        table.subscribe_to(session, news(1)).unwrap();
    }
    table.use_memory(percent(60));
    for name in names(1..=5) {
        table.publish(producer, "news", &name);
    }
    assert_eq!(table.got(fast), names(1..=5));
    assert_eq!(table.spooled(), names(2..=5), "the first is in flight everywhere");
    table.use_memory(percent(SHORT));
    assert_eq!(table.got(slow[0]), ["m1"]);
    table.ack(slow[0], 1, 1).unwrap();
    assert_eq!(table.got(slow[0]), ["m2"]);
    table.close(slow[0]);
    assert_eq!(table.spooled(), names(2..=5));
    table.close(slow[1]);
    assert!(table.spooled().is_empty());
}

#[test]
fn two_durable_subscriptions_read_one_stored_body_at_their_own_pace() {
    let mut table = Table::new();
    let producer = table.connect();
    let keeps_up = table.connect_as(Some("keeps-up"), None).unwrap();
    let away = table.connect_as(Some("away"), None).unwrap();
    let durable = |name: &str| Subscribe { durable: Some(name.into()), ..subscription(1, Destination::topic("news")) };
    table.subscribe_to(keeps_up, durable("all")).unwrap();
    table.subscribe_to(away, durable("all")).unwrap();
    table.close(away);
    for (tag, name) in names(1..=50).iter().enumerate() {
        table.publish(producer, "news", name);
        assert_eq!(table.got(keeps_up), [name.as_str()]);
        table.ack(keeps_up, 1, tag as u64 + 1).unwrap();
        table.use_memory(percent(SHORT));
    }
    assert_eq!(table.stored(), names(1..=50));
    let away = table.connect_as(Some("away"), None).unwrap();
    table.subscribe_to(away, Subscribe { prefetch: 100, ..durable("all") }).unwrap();
    assert_eq!(table.got(away), names(1..=50));
}

#[test]
fn ten_thousand_queues_with_a_backlog_each_leave_memory_and_come_back() {
    let mut many = options();
    many.limits.destinations_max = 20_000;
    let mut table = Table::with(many);
    let producer = table.connect();
    for name in names(1..=2) {
        for queue in 0..10_000 {
            table.send(producer, &format!("q{queue}"), &format!("q{queue} {name}"));
        }
    }
    for _ in 0..10 {
        table.use_memory(percent(SHORT)); // a bounded number a turn
    }
    table.hold_reads();
    let consumer = table.connect();
    for queue in [0, 4_999, 9_999] {
        table.subscribe(consumer, queue, &format!("q{queue}"), AckMode::Individual, 10);
    }
    assert!(table.got(consumer).is_empty(), "nothing of them was left in memory");
    table.answer_reads();
    let got = table.got(consumer);
    assert_eq!(got.len(), 6, "{got:?}");
    for queue in ["q0 ", "q4999 ", "q9999 "] {
        let of_it: Vec<_> = got.iter().filter_map(|id| id.strip_prefix(queue)).collect();
        assert_eq!(of_it, ["m1", "m2"]);
    }
}
