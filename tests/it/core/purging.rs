//! R29 on the core: a purge is one mark, and what it took never comes back.

use std::{sync::Arc, time::Duration};

use batonmq::{
    broker::{AckMode, Change, Command, Connect, Core, CoreOptions, Effects, Full, Hold, Send, Subscribe, Unsubscribe},
    config::Limits,
    types::{
        Catalog, ConsumerNo, Destination, Durable, DurableId, Message, MessageDraft, Meter, Op, SessionId, Term,
        Timestamp,
    },
};

use super::fixture::{Table, draft, held, options, policy, priority, subscription, with_policy};

/// More than three quarters of the budget: nothing stays that nobody waits for.
fn short() -> usize {
    options().limits.memory_bytes_max / 100 * 80
}

fn send_all(table: &mut Table, names: &[&str]) {
    let producer = table.connect();
    names.iter().for_each(|name| table.send(producer, "orders", name));
}

#[test]
fn r29_a_purge_takes_what_waits_and_no_more() {
    let mut table = Table::new();
    let consumer = table.connect();
    send_all(&mut table, &["m1", "m2", "m3", "m4", "m5"]);
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 2);
    assert_eq!(table.purge("orders"), Some(3));
    assert_eq!(table.got(consumer), ["m1", "m2"]);
    send_all(&mut table, &["m6"]);
    table.ack(consumer, 1, 2).unwrap();
    assert_eq!(table.got(consumer), ["m6"]);
    table.ack(consumer, 1, 2).unwrap_err();
    assert_eq!(table.stored(), ["m6"]);
    assert_eq!(table.purge("orders"), Some(0));
    assert_eq!((table.purge("unknown"), table.purge("orders")), (None, Some(0)), "what is out was told already");
}

#[test]
fn r29_what_was_out_is_gone_when_its_consumer_is_done() {
    let mut table = Table::with(with_policy(policy("orders", 5)));
    let (consumer, next) = (table.connect(), table.connect());
    send_all(&mut table, &["m1", "m2", "m3", "m4"]);
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 4);
    table.begin(consumer, "aborted");
    table.begin(consumer, "committed");
    table.ack_in(consumer, "aborted", 1, 3).unwrap();
    table.ack_in(consumer, "committed", 1, 4).unwrap();
    assert_eq!(table.purge("orders"), Some(0));
    table.commit(consumer, "committed").unwrap();
    table.nack(consumer, 1, 1).unwrap();
    table.abort(consumer, "aborted");
    table.close(consumer);
    table.sync();
    table.subscribe(next, 1, "orders", AckMode::Individual, 10);
    table.subscribe(next, 2, "ActiveMQ.DLQ", AckMode::Individual, 10);
    table.pass(Duration::from_secs(3_600));
    assert!(table.got(next).is_empty());
    assert!(table.stored().is_empty());
}

#[test]
fn r29_an_ack_of_what_was_purged_is_a_settle_so_that_it_waits_for_the_purge() {
    let mut table = Table::new();
    let consumer = table.connect();
    send_all(&mut table, &["m1"]);
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 1);
    table.purge("orders");
    table.changes();
    table.ack(consumer, 1, 1).unwrap();
    assert!(matches!(table.changes()[..], [Change::Settle { .. }]));
}

#[test]
fn r29_what_lies_in_the_store_alone_costs_one_operation() {
    let mut table = Table::new();
    let consumer = table.connect();
    let producer = table.connect();
    (0..500).for_each(|number| table.send(producer, "orders", &number.to_string()));
    table.use_memory(short());
    table.changes();
    assert_eq!(table.purge("orders"), Some(500));
    assert!(matches!(table.changes()[..], [Change::Purge { .. }]));
    table.hold_reads();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.send(producer, "orders", "next");
    assert_eq!(table.got(consumer), ["next"], "nothing has to be read before it");
    table.restart();
    assert_eq!(table.stored(), ["next"]);
}

/// R26: the page was read as the store stood before the purge was durable.
#[test]
fn r29_a_page_that_was_read_before_brings_nothing_back() {
    let mut table = Table::new();
    let consumer = table.connect();
    send_all(&mut table, &["m1", "m2", "m3"]);
    table.use_memory(short());
    table.hold_reads();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    let before = table.store.clone();
    table.purge("orders");
    let after = std::mem::replace(&mut table.store, before);
    table.answer_reads();
    table.store = after;
    assert!(table.got(consumer).is_empty());
    send_all(&mut table, &["m4"]);
    assert_eq!(table.got(consumer), ["m4"]);
}

#[test]
fn r29_what_belongs_to_a_transaction_that_is_not_durable_stays() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    table.send(producer, "orders", "m1");
    table.begin(producer, "t");
    table.send_in(producer, "t", "orders", "m2");
    table.commit(producer, "t").unwrap();
    let orders = Destination::queue("orders");
    table.send(producer, "orders", "behind");
    table.send_to(producer, &orders, priority(9, "behind and higher")).unwrap();
    table.send_to(producer, &orders, priority(9, "out")).unwrap();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 1);
    assert_eq!(table.got(consumer), ["behind and higher"]);
    assert_eq!(table.purge("orders"), Some(3));
    table.ack(consumer, 1, 1).unwrap();
    assert!(table.got(consumer).is_empty());
    table.sync();
    assert_eq!(table.got(consumer), ["m2"]);
    assert_eq!(table.stored(), ["m2"]);
}

#[test]
fn r29_a_refused_transaction_takes_what_it_sent_with_it() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    table.begin(producer, "t");
    table.send_in(producer, "t", "orders", "m1");
    table.commit(producer, "t").unwrap();
    table.purge("orders");
    table.refuse_units();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 1);
    assert!(table.got(consumer).is_empty());
}

#[test]
fn r29_what_was_delayed_or_was_to_expire_is_no_dead_letter() {
    for leaves_memory in [false, true] {
        let mut table = Table::with(with_policy(policy("orders", 5)));
        let consumer = table.connect();
        let orders = Destination::queue("orders");
        let expires = Some(table.now.after(Duration::from_secs(60)));
        table.send_to(consumer, &orders, draft("delayed")).unwrap();
        table.send_to(consumer, &orders, MessageDraft { expires, ..draft("expires") }).unwrap();
        table.subscribe(consumer, 1, "orders", AckMode::Individual, 1);
        table.nack(consumer, 1, 1).unwrap();
        table.unsubscribe(consumer, 1);
        assert_eq!(table.got(consumer), ["delayed", "expires"]);
        if leaves_memory {
            table.use_memory(short());
        }
        assert_eq!(table.purge("orders"), Some(2));
        table.subscribe(consumer, 2, "orders", AckMode::Individual, 10);
        table.subscribe(consumer, 3, "ActiveMQ.DLQ", AckMode::Individual, 10);
        table.pass(Duration::from_secs(3_600));
        assert!(table.got(consumer).is_empty());
        assert!(table.stored().is_empty());
    }
}

#[test]
fn r29_what_was_spooled_is_purged_there() {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    let orders = Destination::queue("orders");
    let plain = |name| MessageDraft { persistent: false, ..draft(name) };
    table.use_memory(short());
    for name in ["a1", "a2", "a3"] {
        table.send_to(producer, &orders, plain(name)).unwrap();
    }
    table.use_memory(short());
    assert_eq!(table.spooled(), ["a1", "a2", "a3"]);
    assert_eq!(table.purge("orders"), Some(3));
    assert!(table.spooled().is_empty());
    table.send_to(producer, &orders, plain("a4")).unwrap();
    assert_eq!(table.spooled(), ["a4"]);
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    assert_eq!(table.got(consumer), ["a4"]);
    table.ack(consumer, 1, 1).unwrap();
    assert!(table.spooled().is_empty());
}

#[test]
fn r28_a_purged_queue_has_room_at_once_and_is_counted() {
    let limits = Limits { queue_bytes_max: Some(300), ..options().limits };
    let mut table = Table::with(CoreOptions { limits, ..options() });
    let producer = table.connect();
    let orders = Destination::queue("orders");
    let is_full = |table: &mut Table, producer| {
        let result = table.send_to(producer, &orders, draft("one more"));
        matches!(held(result), Some(Hold::Standing(Full::Queue(..))))
    };
    table.send(producer, "orders", "m1");
    assert!(is_full(&mut table, producer));
    table.purge("orders");
    assert!(!is_full(&mut table, producer));
    table.restart_uncounted();
    let producer = table.connect();
    table.purge("orders");
    assert!(!is_full(&mut table, producer));
    assert!(is_full(&mut table, producer), "all there is is known");
    table.count();
    assert!(is_full(&mut table, producer));
    assert_eq!(table.purge("orders"), Some(1));
    assert!(!is_full(&mut table, producer), "what the store had at the start is not counted again");
}

/// A core without a store, whose messages are counted.
struct Counted {
    core: Core,
    effects: Effects,
    meter: Meter,
    session: SessionId,
}

impl Counted {
    const NOW: Timestamp = Timestamp(1_000);

    fn new(catalog: &Catalog) -> Self {
        let core = Core::recover(options(), Term(1), catalog);
        let (meter, session) = (Meter::unlimited(), SessionId(1));
        let mut counted = Self { core, effects: Effects::default(), meter, session };
        let connect = Connect { user: None, client_id: Some("c".into()), lenient: false };
        counted.apply(Command::Connect(connect));
        counted
    }

    fn apply(&mut self, command: Command) {
        self.core.apply(Self::NOW, self.session, command, &mut self.effects).unwrap();
        self.effects.changes.clear();
    }

    fn send(&mut self, destination: &Destination, messages: usize) {
        for _ in 0..messages {
            let message = Arc::new(Message::new(draft("m")));
            message.charge(&self.meter);
            self.apply(Command::Send(Send { destination: destination.clone(), message, transaction: None }));
        }
    }

    /// What is in memory goes, but not much in one turn. How many turns it took.
    fn turns_until_empty(&mut self) -> usize {
        const A_TURN: usize = 10_000;
        let one = Message::new(draft("m")).size();
        for turn in 0.. {
            let before = self.meter.in_use();
            if before == 0 {
                assert_ne!(self.core.next_deadline(), Some(Timestamp(0)), "nothing is left to do");
                return turn;
            }
            assert_eq!(self.core.next_deadline(), Some(Timestamp(0)), "the next turn comes at once");
            self.core.advance(Self::NOW, &mut self.effects);
            let dropped = (before - self.meter.in_use()) / one;
            assert!((1..=A_TURN).contains(&dropped), "{dropped} in one turn");
        }
        unreachable!("it ends")
    }
}

#[test]
fn r29_what_was_purged_leaves_memory_in_slices() {
    let mut counted = Counted::new(&Catalog::default());
    let orders = Destination::queue("orders");
    counted.send(&orders, 25_000);
    let full = counted.meter.in_use();
    let purged = counted.core.purge(Counted::NOW, &orders, &mut counted.effects).unwrap();
    assert_eq!(purged.messages, 25_000);
    assert_eq!(counted.meter.in_use(), full, "not in the turn of the purge");
    assert_eq!(counted.turns_until_empty(), 3);
}

#[test]
fn r29_what_a_deleted_subscription_held_leaves_memory_in_slices() {
    let news = Destination::topic("news");
    let mut catalog = Catalog::default();
    let (id, topic) = (DurableId(1), batonmq::types::DestinationId(1));
    catalog.apply(&Op::CreateDestination { id: topic, destination: news.clone() });
    let durable = Durable { client_id: "c".into(), name: "d".into(), topic };
    catalog.apply(&Op::CreateDurable { id, durable });
    for durable in [Some("d"), None] {
        let mut counted = Counted::new(&catalog);
        if durable.is_none() {
            let unsubscribe = Unsubscribe { consumer: None, durable: Some("d".into()) };
            counted.apply(Command::Unsubscribe(unsubscribe));
            let plain = Subscribe { prefetch: 1, ..subscription(1, news.clone()) };
            counted.apply(Command::Subscribe(plain));
        }
        counted.send(&news, 25_000);
        counted.effects = Effects::default();
        let consumer = durable.is_none().then_some(ConsumerNo(1));
        let unsubscribe = Unsubscribe { consumer, durable: durable.map(Into::into) };
        counted.apply(Command::Unsubscribe(unsubscribe));
        assert_eq!(counted.turns_until_empty(), 3);
    }
}
