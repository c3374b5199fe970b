//! Who is connected, what belongs to a connection, and the limits on it.

use std::time::Duration;

use batonmq::{
    broker::{AckMode, CloseReason, Command, CoreOptions, Hold, NotDone, Refusal, Subscribe},
    config::Limits,
    types::{Destination, DestinationKind, MessageDraft, SessionId},
};

use super::fixture::{Table, draft, held, options, refused, subscription};

fn temporary_queue(name: &str) -> Destination {
    Destination::new(DestinationKind::TemporaryQueue, name)
}

fn limited(change: impl FnOnce(&mut Limits)) -> Table {
    let mut options = options();
    change(&mut options.limits);
    Table::with(options)
}

fn begin(table: &mut Table, session: SessionId, name: &str) -> Result<(), Refusal> {
    refused(table.apply(session, Command::Begin(name.into())))
}

#[test]
fn nothing_goes_before_connect() {
    let mut table = Table::new();
    let stranger = SessionId(99);
    let refusals = [
        refused(table.send_to(stranger, &Destination::queue("orders"), draft("a"))),
        table.subscribe_to(stranger, subscription(1, Destination::queue("orders"))),
        table.ack(stranger, 1, 1),
        begin(&mut table, stranger, "t"),
        refused(table.commit(stranger, "t")),
    ];
    assert!(refusals[..2].iter().chain(&refusals[3..]).all(|result| result.as_ref().unwrap_err().fatal));
    assert!(refusals[2].is_err());
    assert!(table.changes().is_empty());
}

// Temporary destinations.

#[test]
fn only_its_owner_consumes_from_a_temporary_destination_and_everybody_sends() {
    let mut table = Table::new();
    let (owner, other) = (table.connect(), table.connect());
    for answers in [temporary_queue("answers"), Destination::new(DestinationKind::TemporaryTopic, "news")] {
        table.apply(owner, Command::CreateTemporary(answers.clone())).unwrap();
        table.apply(owner, Command::CreateTemporary(answers.clone())).unwrap();
        table.subscribe_to(other, subscription(1, answers.clone())).unwrap_err();
        let number = 1 + u32::from(!answers.kind().is_queue());
        table.subscribe_to(owner, subscription(number, answers.clone())).unwrap();
        table.send_to(other, &answers, draft("a")).unwrap();
        assert_eq!(table.got(owner), ["a"]);
    }
    assert!(table.changes().is_empty(), "nothing of it is stored");
}

#[test]
fn a_temporary_destination_is_gone_with_its_connection() {
    let mut table = Table::new();
    let (owner, other) = (table.connect(), table.connect());
    let answers = temporary_queue("answers");
    table.send_to(other, &answers, draft("early")).unwrap(); // goes to nobody
    table.apply(owner, Command::CreateTemporary(answers.clone())).unwrap();
    table.subscribe_to(owner, subscription(1, answers.clone())).unwrap();
    let expires = Some(table.now.after(Duration::from_secs(1)));
    table.send_to(other, &answers, MessageDraft { expires, ..draft("a") }).unwrap();
    table.close(owner);
    table.send_to(other, &answers, draft("late")).unwrap(); // an answer that nobody waits for any more
    table.subscribe_to(other, subscription(1, answers)).unwrap_err();
    table.pass(Duration::from_secs(2));
    assert!(table.changes().is_empty(), "nor does what lay there become a dead letter");
}

// Memory.

#[test]
fn r31_a_session_that_may_give_messages_back_is_known() {
    let mut table = Table::new();
    let (automatic, consumer, sender) = (table.connect(), table.connect(), table.connect());
    table.subscribe(automatic, 1, "logs", AckMode::Auto, 10);
    table.send(sender, "logs", "a");
    assert!(!table.core.holds_messages(automatic), "it acknowledges nothing");

    table.subscribe(consumer, 1, "orders", AckMode::Cumulative, 10);
    assert!(!table.core.holds_messages(consumer));
    table.send(sender, "orders", "b");
    assert!(table.core.holds_messages(consumer));
    table.ack(consumer, 1, 1).unwrap();
    assert!(!table.core.holds_messages(consumer));

    table.begin(sender, "t");
    assert!(!table.core.holds_messages(sender), "the transaction is empty");
    table.send_in(sender, "t", "orders", "c");
    assert!(table.core.holds_messages(sender));
    table.abort(sender, "t");
    assert!(!table.core.holds_messages(sender));
}

// Client-ids.

#[test]
fn a_new_connection_of_the_same_user_takes_the_client_id_over() {
    let mut table = Table::new();
    let old = table.connect_as(Some("me"), Some("ann")).unwrap();
    let durable = Subscribe { durable: Some("d".into()), ..subscription(1, Destination::topic("news")) };
    table.subscribe_to(old, durable).unwrap();
    table.publish(old, "news", "a");
    table.got(old);
    let new = table.connect_as(Some("me"), Some("ann")).unwrap();
    assert_eq!(table.closed(), [(old, CloseReason::TakenOver)]);
    let durable = Subscribe { durable: Some("d".into()), ..subscription(1, Destination::topic("news")) };
    table.subscribe_to(new, durable).unwrap();
    assert_eq!(table.got_flagged(new), ["a*"]);
    table.close(old);
    let third = table.connect_as(Some("me"), Some("ann")).unwrap();
    assert_eq!(table.closed(), [(new, CloseReason::TakenOver)]);
    table.close(third);
}

#[test]
fn another_user_is_refused_the_client_id() {
    let mut table = Table::new();
    let old = table.connect_as(Some("me"), Some("ann")).unwrap();
    assert!(table.connect_as(Some("me"), Some("bob")).unwrap_err().fatal);
    assert!(table.connect_as(Some("me"), None).unwrap_err().fatal);
    assert!(table.closed().is_empty());
    table.close(old);
    table.connect_as(Some("me"), Some("bob")).unwrap();
}

// Limits.

#[test]
fn destinations_are_limited_temporary_ones_included() {
    let mut table = limited(|limits| limits.destinations_max = 2);
    let session = table.connect();
    table.send(session, "one", "a");
    table.apply(session, Command::CreateTemporary(temporary_queue("two"))).unwrap();
    refused(table.send_to(session, &Destination::queue("three"), draft("b"))).unwrap_err();
    table.subscribe_to(session, subscription(1, Destination::topic("three"))).unwrap_err();
    refused(table.apply(session, Command::CreateTemporary(temporary_queue("three")))).unwrap_err();
    table.send(session, "one", "b");
}

#[test]
fn durable_subscriptions_count_as_destinations() {
    let mut table = limited(|limits| limits.destinations_max = 2);
    let session = table.connect_as(Some("me"), None).unwrap();
    let durable = |number, name: &str| Subscribe {
        durable: Some(name.into()),
        ..subscription(number, Destination::topic("news"))
    };
    table.subscribe_to(session, durable(1, "one")).unwrap();
    table.subscribe_to(session, durable(2, "two")).unwrap_err();
}

#[test]
fn subscriptions_of_a_connection_are_limited() {
    let mut table = limited(|limits| limits.subscriptions_per_connection_max = 1);
    let (session, other) = (table.connect(), table.connect());
    table.subscribe(session, 1, "orders", AckMode::Auto, 1);
    table.subscribe_to(session, subscription(2, Destination::queue("orders"))).unwrap_err();
    table.subscribe(other, 1, "orders", AckMode::Auto, 1);
    table.unsubscribe(session, 1);
    table.subscribe(session, 2, "orders", AckMode::Auto, 1);
}

#[test]
fn a_consumer_number_in_use_is_refused() {
    let mut table = Table::new();
    let session = table.connect();
    table.subscribe(session, 1, "orders", AckMode::Auto, 1);
    table.subscribe_to(session, subscription(1, Destination::queue("others"))).unwrap_err();
}

#[test]
fn transactions_of_a_connection_are_limited() {
    let mut table = limited(|limits| limits.transactions_per_connection_max = 2);
    let session = table.connect();
    begin(&mut table, session, "one").unwrap();
    begin(&mut table, session, "two").unwrap();
    begin(&mut table, session, "three").unwrap_err();
    table.abort(session, "one");
    begin(&mut table, session, "three").unwrap();
}

#[test]
fn operations_and_bytes_of_a_transaction_are_limited() {
    let mut table = limited(|limits| {
        limits.transaction_operations_max = 2;
        limits.transaction_bytes_max = 2_000;
    });
    let session = table.connect();
    let orders = Destination::queue("orders");
    table.subscribe(session, 1, "orders", AckMode::Individual, 10);
    table.send(session, "orders", "x");
    begin(&mut table, session, "t").unwrap();
    table.send_in(session, "t", "orders", "a");
    table.ack_in(session, "t", 1, 1).unwrap();
    table.send_to_in(session, "t", &orders, draft("b")).unwrap_err();
    table.ack(session, 1, 1).unwrap_err();
    refused(table.commit(session, "t")).unwrap_err();
    table.ack(session, 1, 1).unwrap();
    begin(&mut table, session, "u").unwrap();
    let large = |id| MessageDraft { body: vec![0; 1_000].into(), ..draft(id) };
    table.send_to_in(session, "u", &orders, large("c")).unwrap();
    table.send_to_in(session, "u", &orders, large("d")).unwrap_err();
    refused(table.commit(session, "u")).unwrap_err();
    assert!(table.stored().is_empty());
}

#[test]
fn a_message_that_the_store_could_not_hold_is_refused_at_the_door() {
    let mut table = Table::with(CoreOptions { message_bytes_max: 100, ..options() });
    let session = table.connect();
    let sized = |bytes: usize| MessageDraft { body: vec![0; bytes - "a".len()].into(), ..draft("a") };
    table.send_to(session, &Destination::queue("orders"), sized(100)).unwrap();
    let with_texts = MessageDraft { correlation_id: Some("c".into()), ..sized(100) };
    refused(table.send_to(session, &Destination::queue("orders"), with_texts)).unwrap_err();
    refused(table.send_to(session, &Destination::queue("orders"), sized(101))).unwrap_err();
    begin(&mut table, session, "t").unwrap();
    table.send_to_in(session, "t", &Destination::queue("orders"), sized(101)).unwrap_err();
}

#[test]
fn r8_a_full_queue_holds_sends_for_a_standing_cause_and_others_go_on() {
    let mut table = limited(|limits| limits.queue_bytes_max = Some(1_000));
    let session = table.connect();
    table.subscribe(session, 1, "orders", AckMode::Individual, 1);
    let full = loop {
        match table.send_to(session, &Destination::queue("orders"), draft("a")) {
            Ok(()) => {}
            Err(NotDone::Held { command, hold }) => break (command, hold),
            Err(NotDone::Refused(refusal)) => panic!("{refusal}"),
        }
    };
    let (command, Hold::Standing(why)) = full else { panic!("{full:?}") };
    assert!(why.to_string().contains("queue://orders is full"), "{why}");
    assert!(matches!(&command, Command::Send(send) if send.message.id == "a".into()), "it comes back unchanged");
    table.send(session, "others", "b");
    begin(&mut table, session, "t").unwrap();
    table.send_in(session, "t", "orders", "c");
    assert!(matches!(held(table.commit(session, "t")), Some(Hold::Standing(_))));
    table.ack(session, 1, 1).unwrap();
    table.apply(session, command).unwrap();
    table.ack(session, 1, 2).unwrap();
    table.commit(session, "t").unwrap();
}

#[test]
fn r8_a_full_durable_subscription_holds_its_topic() {
    let mut table = limited(|limits| limits.queue_bytes_max = Some(1_000));
    let me = table.connect_as(Some("me"), None).unwrap();
    let durable = Subscribe { durable: Some("d".into()), ..subscription(1, Destination::topic("news")) };
    table.subscribe_to(me, durable).unwrap();
    table.publish(me, "news", "a");
    table.publish(me, "news", "b");
    let third = table.send_to(me, &Destination::topic("news"), draft("c"));
    assert!(matches!(held(third), Some(Hold::Standing(_))));
    table.ack(me, 1, 1).unwrap();
    table.publish(me, "news", "c");
}

#[test]
fn an_empty_queue_takes_a_message_of_any_size() {
    let mut table = limited(|limits| limits.queue_bytes_max = Some(100));
    let session = table.connect();
    table.send(session, "orders", "larger than the limit by its overhead alone");
}

#[test]
fn the_same_commands_have_the_same_effects() {
    let run = || {
        let mut table = Table::new();
        let sessions = [0; 4].map(|_| table.connect());
        for (at, session) in sessions.into_iter().enumerate() {
            table.subscribe(session, 1, "orders", AckMode::Individual, 3);
            table.subscribe_to(session, subscription(2, Destination::topic(&format!("t{at}")))).unwrap();
        }
        for number in 0..50_u64 {
            let session = sessions[number as usize % 4];
            table.send(session, "orders", &number.to_string());
            table.publish(session, &format!("t{}", number % 4), "news");
            if number % 7 == 0 && table.ack(session, 1, number / 7 + 1).is_err() {
                table.begin(session, &number.to_string());
            }
        }
        table.close(sessions[0]);
        let got = sessions.map(|session| format!("{:?}", table.deliveries(session)));
        (format!("{:?}", table.changes()), got)
    };
    assert_eq!(run(), run());
}
