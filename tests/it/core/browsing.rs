//! Browsing on the core: everything that lies in a queue is shown, wherever it lies, and nothing of it changes.

use std::time::Duration;

use batonmq::{
    broker::{AckMode, Browse, Refusal, Verdict},
    types::{ConsumerNo, Destination, DestinationKind, MessageDraft, SessionId, Timestamp},
};

use super::fixture::{Table, by_tag, draft, options, policy, priority, with_policy};

/// Who looks, in each test; each session has one.
const BROWSER: u32 = 9;

/// So many queues may be browsed at once.
const BROWSERS: usize = 64;

/// Everything that may leave memory does.
fn squeeze(table: &mut Table) {
    table.pass(Duration::from_secs(2)); // nobody awaits anything any more
    table.use_memory(options().limits.memory_bytes_max / 100 * 80);
}

fn send_all(table: &mut Table, names: &[&str]) {
    let producer = table.connect();
    names.iter().for_each(|name| table.send(producer, "orders", name));
}

fn browse_of(destination: Destination, prefetch: u32) -> Browse {
    Browse { consumer: ConsumerNo(BROWSER), destination, ack: AckMode::Individual, prefetch }
}

/// A new browser of `orders`, with what it is shown at first.
fn browses(table: &mut Table, prefetch: u32) -> SessionId {
    let browser = table.connect();
    table.browse(browser, browse_of(Destination::queue("orders"), prefetch)).unwrap();
    table.pass(Duration::ZERO);
    browser
}

/// What a browser is shown until it has seen everything; a `*` follows what is marked as redelivered.
fn all_of(table: &mut Table, browser: SessionId) -> Vec<String> {
    let (mut shown, mut tag) = (Vec::new(), 0);
    loop {
        let step = table.got_flagged(browser);
        tag += step.len() as u64;
        shown.extend(step);
        if table.has_seen_all(browser) {
            return shown;
        }
        table.written(browser, BROWSER, tag, 0);
        table.pass(Duration::ZERO);
    }
}

fn seen(table: &mut Table) -> Vec<String> {
    let browser = browses(table, 2);
    let shown = all_of(table, browser);
    table.close(browser);
    shown
}

fn refused(result: Result<(), Refusal>) -> String {
    result.unwrap_err().message
}

#[test]
fn an_empty_queue_is_seen_at_once() {
    let mut table = Table::new();
    assert!(seen(&mut table).is_empty());
    let browser = table.connect();
    let answers = Destination::new(DestinationKind::TemporaryQueue, "answers");
    table.apply(browser, batonmq::broker::Command::CreateTemporary(answers.clone())).unwrap();
    table.browse(browser, browse_of(answers.clone(), 1)).unwrap();
    table.pass(Duration::ZERO);
    assert!(table.has_seen_all(browser));
    let other = table.connect();
    assert!(refused(table.browse(other, browse_of(answers, 1))).contains("another connection"));
}

#[test]
fn all_is_shown_in_its_order_wherever_it_lies_and_stays_as_it_was() {
    let mut table = Table::with(with_policy(policy("orders", 5)));
    let orders = Destination::queue("orders");
    let (producer, holds, answers) = (table.connect(), table.connect(), table.connect());
    send_all(&mut table, &["out", "acked", "late", "late and cold", "returned"]);
    let many: Vec<String> = (1..=400).map(|number| format!("m{number}")).collect();
    many.iter().for_each(|name| table.send(producer, "orders", name));
    table.subscribe(holds, 1, "orders", AckMode::Individual, 1);
    table.subscribe(answers, 1, "orders", AckMode::Individual, 3);
    table.begin(answers, "t");
    table.ack_in(answers, "t", 1, 1).unwrap();
    table.nack(answers, 1, 3).unwrap();
    table.use_memory(options().limits.memory_bytes_max / 100 * 80); // and most of what waits leaves memory
    table.nack(answers, 1, 2).unwrap();
    table.unsubscribe(answers, 1);
    table.send(producer, "orders", "m401");
    table.send_to(producer, &orders, MessageDraft { persistent: false, ..draft("fleeting") }).unwrap();
    table.send_to(producer, &orders, priority(9, "urgent")).unwrap();
    table.send_to(producer, &orders, priority(0, "idle")).unwrap();
    table.begin(producer, "open");
    table.send_in(producer, "open", "orders", "uncommitted");
    table.begin(producer, "u");
    table.send_in(producer, "u", "orders", "not durable");
    table.commit(producer, "u").unwrap();
    table.got(holds);
    table.got(answers);
    table.pass(Duration::ZERO);
    table.changes();
    let deadline = table.next_deadline();

    let mut expected =
        ["urgent", "out", "acked", "late*", "late and cold*", "returned*", "m1*", "m2*"].map(String::from).to_vec();
    expected.extend_from_slice(&many[2..]);
    expected.extend(["m401", "fleeting", "idle"].map(String::from));
    assert_eq!(seen(&mut table), expected);
    assert!(table.changes().is_empty() && table.got(holds).is_empty(), "nothing comes of it");
    assert_eq!(table.next_deadline(), deadline);
}

#[test]
fn a_browser_is_told_which_delivery_the_next_one_is() {
    let mut table = Table::with(with_policy(policy("orders", 5)));
    let consumer = table.connect();
    send_all(&mut table, &["returned", "out", "out too"]);
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 2);
    table.nack(consumer, 1, 1).unwrap();
    let counts = |table: &mut Table| -> Vec<_> {
        let browser = browses(table, 10);
        table.deliveries(browser).iter().map(|one| (one.redelivered, one.deliveries)).collect()
    };
    assert_eq!(counts(&mut table), [(true, 2), (false, 1), (false, 1)]);
    table.close(consumer);
    assert_eq!(counts(&mut table), [(true, 2); 3]);
    squeeze(&mut table);
    assert_eq!(counts(&mut table), [(true, 2); 3], "the store knows it too");
    table.restart();
    assert_eq!(counts(&mut table), [(true, 2); 3]);
}

#[test]
fn what_comes_later_is_not_shown_and_what_was_settled_need_not_be() {
    let mut table = Table::new();
    let consumer = table.connect();
    send_all(&mut table, &["m1", "m2", "m3", "m4", "m5"]);
    let browser = browses(&mut table, 2);
    send_all(&mut table, &["m6"]);
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 3);
    table.ack(consumer, 1, 3).unwrap();
    assert_eq!(all_of(&mut table, browser), ["m1", "m2", "m4", "m5"]);
}

/// What was acknowledged and is not durable yet is in the store still.
#[test]
fn r26_what_was_settled_before_is_not_shown_though_the_store_has_it() {
    let mut table = Table::new();
    let (lost, settles) = (table.connect(), table.connect());
    send_all(&mut table, &["m1", "m2", "m3"]);
    table.subscribe(lost, 1, "orders", AckMode::Individual, 1);
    table.subscribe(settles, 1, "orders", AckMode::Individual, 1);
    table.close(lost);
    squeeze(&mut table); // all but "m2" lies in the store alone
    table.hold_reads();
    table.hold_settles();
    table.ack(settles, 1, 1).unwrap();
    let browser = browses(&mut table, 10);
    table.answer_reads();
    assert_eq!(table.got(browser), ["m1", "m3"]);
    assert_eq!(table.stored(), ["m1", "m2", "m3"]);
}

#[test]
fn expired_messages_are_not_shown() {
    let mut table = Table::new();
    let (producer, orders) = (table.connect(), Destination::queue("orders"));
    let expires = |seconds: u64| Some(Timestamp(1_000_000 + 1_000 * seconds));
    for (name, expires) in [("m1", expires(1)), ("m2", expires(100)), ("m3", expires(3)), ("m4", None)] {
        table.send_to(producer, &orders, MessageDraft { expires, ..draft(name) }).unwrap();
    }
    let browser = browses(&mut table, 2);
    table.hold_reads();
    squeeze(&mut table);
    assert_eq!(table.got(browser), ["m1", "m2"]);
    table.written(browser, BROWSER, 2, 0);
    table.pass(Duration::from_secs(2)); // the store still has "m3", and it is being read
    table.answer_reads();
    assert_eq!(table.got(browser), ["m4"]);
    assert!(table.has_seen_all(browser));
}

#[test]
fn the_next_step_waits_until_the_kernel_has_all_of_the_last() {
    let mut table = Table::new();
    send_all(&mut table, &["m1", "m2", "m3", "m4", "m5"]);
    let browser = browses(&mut table, 2);
    assert_eq!(table.got(browser), ["m1", "m2"]);
    table.written(browser, BROWSER, 1, 0);
    table.pass(Duration::ZERO);
    assert!(table.got(browser).is_empty() && table.next_deadline().is_none());
    table.written(browser, BROWSER, 2, 0);
    assert_eq!(table.next_deadline(), Some(Timestamp(0)), "the next step is due at once");
    table.written(browser, BROWSER, 2, 0);
    table.pass(Duration::ZERO);
    assert_eq!(table.got(browser), ["m3", "m4"]);
}

#[test]
fn r31_a_step_shows_no_more_than_a_quarter_of_a_megabyte() {
    let mut table = Table::new();
    let (producer, orders) = (table.connect(), Destination::queue("orders"));
    let big = |name: &str, bytes: usize| MessageDraft { body: vec![0; bytes].into(), ..draft(name) };
    for (name, bytes) in [("m1", 100 << 10), ("m2", 100 << 10), ("m3", 100 << 10), ("m4", 500 << 10)] {
        table.send_to(producer, &orders, big(name, bytes)).unwrap();
    }
    for _ in 0..2 {
        let browser = browses(&mut table, 1_000);
        for step in [&["m1", "m2"][..], &["m3"], &["m4"]] {
            assert_eq!(table.got(browser), step);
            table.written(browser, BROWSER, 10, 0);
            table.pass(Duration::ZERO);
        }
        squeeze(&mut table); // once more, from the store
    }
}

#[test]
fn r29_a_purge_is_the_end() {
    let mut table = Table::new();
    let consumer = table.connect();
    send_all(&mut table, &["m1", "m2", "m3", "m4"]);
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 1);
    squeeze(&mut table);
    let shown = browses(&mut table, 2);
    table.hold_reads();
    let waits = browses(&mut table, 2);
    table.purge("orders");
    assert!(table.has_seen_all(shown) && table.has_seen_all(waits));
    table.answer_reads();
    assert_eq!(table.got(shown), ["m1", "m2"]);
    assert!(table.got(waits).is_empty());
    assert!(seen(&mut table).is_empty(), "what is out is the queue's no more");
}

#[test]
fn whoever_has_seen_everything_is_a_browser_until_it_is_unsubscribed() {
    let mut table = Table::new();
    send_all(&mut table, &["m1"]);
    let browser = browses(&mut table, 2);
    assert_eq!(all_of(&mut table, browser), ["m1"]);
    let again = browse_of(Destination::queue("orders"), 1);
    assert!(refused(table.browse(browser, again)).contains("in use"));
    send_all(&mut table, &["m2"]);
    table.written(browser, BROWSER, 1, 0);
    table.pass(Duration::ZERO);
    assert!(table.got(browser).is_empty() && !table.has_seen_all(browser), "a browse ends once");
    table.unsubscribe(browser, BROWSER);
    table.browse(browser, browse_of(Destination::queue("orders"), 10)).unwrap();
    table.pass(Duration::ZERO);
    assert_eq!(table.got(browser), ["m1", "m2"]);
}

#[test]
fn a_browser_that_goes_is_shown_nothing_more() {
    let mut table = Table::new();
    send_all(&mut table, &["m1", "m2", "m3"]);
    squeeze(&mut table);
    table.hold_reads();
    let (unsubscribed, closed) = (browses(&mut table, 1), browses(&mut table, 1));
    table.unsubscribe(unsubscribed, BROWSER);
    table.close(closed);
    table.answer_reads();
    table.pass(Duration::ZERO);
    assert!(table.got(unsubscribed).is_empty() && table.got(closed).is_empty());
    assert!(!table.has_seen_all(unsubscribed) && !table.has_seen_all(closed));
    assert_eq!(seen(&mut table), ["m1", "m2", "m3"]);
}

#[test]
fn r31_so_many_browse_at_once_and_reads_that_nobody_waits_for_count() {
    let mut table = Table::new();
    send_all(&mut table, &["m1", "m2"]);
    squeeze(&mut table);
    table.hold_reads();
    let orders = || browse_of(Destination::queue("orders"), 1);
    for _ in 0..BROWSERS {
        let browser = browses(&mut table, 1);
        table.close(browser);
    }
    let browser = table.connect();
    assert!(refused(table.browse(browser, orders())).contains("browsers at once (64)"));
    table.answer_reads();
    table.browse(browser, orders()).unwrap();
    table.pass(Duration::ZERO);
    assert_eq!(all_of(&mut table, browser), ["m1", "m2"]);
    for _ in 0..2 * BROWSERS {
        let browser = browses(&mut table, 10);
        assert_eq!(all_of(&mut table, browser), ["m1", "m2"], "who has seen everything does not count");
    }
}

#[test]
fn what_is_no_queue_is_not_browsed() {
    let mut table = Table::new();
    let browser = table.connect();
    let says = refused(table.browse(browser, browse_of(Destination::topic("news"), 1)));
    assert!(says.contains("no queue"), "{says}");
}

#[test]
fn r7_an_ack_of_what_was_shown_changes_nothing() {
    let mut table = Table::new();
    send_all(&mut table, &["m1", "m2", "m3"]);
    let browser = browses(&mut table, 2);
    table.changes();
    table.ack(browser, BROWSER, 2).unwrap();
    table.ack(browser, BROWSER, 2).unwrap();
    table.begin(browser, "t");
    table.ack_in(browser, "t", BROWSER, 1).unwrap();
    assert!(refused(table.ack_in(browser, "unknown", BROWSER, 1)).contains("transaction id: unknown"));
    table.commit(browser, "t").unwrap();
    assert!(refused(table.ack(browser, BROWSER, 3)).contains("Unexpected ACK"), "it has not been shown");
    assert!(refused(table.nack(browser, BROWSER, 1)).contains("Cannot Nack"));
    let automatic = table.connect();
    let browse = Browse { ack: AckMode::Auto, ..browse_of(Destination::queue("orders"), 2) };
    table.browse(automatic, browse).unwrap();
    table.pass(Duration::ZERO);
    let answer = table.answer(automatic, by_tag(BROWSER, 1), Verdict::Accepted, None);
    assert!(refused(answer).contains("Unexpected ACK"));
    assert!(table.changes().is_empty());
    assert_eq!(seen(&mut table), ["m1", "m2", "m3"]);
}
