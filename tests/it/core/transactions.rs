//! Transactions: nothing is visible or settled before all of it is durable.

use std::time::Duration;

use batonmq::{
    broker::{AckMode, AckTarget, Change, Command, CoreOptions, NotDone, Refusal, Subscribe, Unsubscribe, Verdict},
    config::RedeliveryPolicy,
    types::{ConsumerNo, Destination, DestinationKind, MessageDraft, Op, SessionId},
};

use super::fixture::{Table, by_tag, draft, inserted, options, policy, priority, refused, subscription, with_policy};

/// A producer and a consumer of `orders`.
fn pair() -> (Table, SessionId, SessionId) {
    let mut table = Table::new();
    let (producer, consumer) = (table.connect(), table.connect());
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.changes();
    (table, producer, consumer)
}

#[test]
fn r5_what_a_transaction_sends_is_invisible_until_it_is_durable() {
    let (mut table, producer, consumer) = pair();
    table.begin(producer, "t");
    table.send_in(producer, "t", "orders", "a");
    table.send_in(producer, "t", "orders", "b");
    assert!(table.changes().is_empty());
    table.commit(producer, "t").unwrap();
    let changes = table.changes();
    let [Change::Unit { origin: Some(origin), ops, awaited: true, .. }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((*origin, ops.len()), (producer, 2));
    assert!(table.got(consumer).is_empty());
    table.sync_once();
    table.sync();
    assert_eq!(table.got(consumer), ["a", "b"]);
}

#[test]
fn r5_the_order_holds_with_hidden_messages_in_the_middle() {
    let (mut table, producer, consumer) = pair();
    let other = table.connect();
    table.send(other, "orders", "1");
    table.begin(producer, "t");
    table.send_in(producer, "t", "orders", "3");
    table.send(other, "orders", "2");
    table.commit(producer, "t").unwrap();
    table.send(other, "orders", "4");
    table.send_to(other, &Destination::queue("orders"), priority(9, "first")).unwrap();
    assert_eq!(
        table.got(consumer),
        ["1", "2", "first"],
        "its order is that of COMMIT, and other priorities go on (R6)"
    );
    table.sync();
    assert_eq!(table.got(consumer), ["3", "4"]);
}

#[test]
fn r5_a_refused_commit_uncovers_what_lay_behind_it() {
    let (mut table, producer, consumer) = pair();
    table.begin(producer, "t");
    table.send_in(producer, "t", "orders", "never");
    table.commit(producer, "t").unwrap();
    table.send(producer, "orders", "a");
    assert!(table.got(consumer).is_empty());
    table.refuse_units();
    assert_eq!(table.got(consumer), ["a"]);
}

#[test]
fn r5_acks_take_effect_when_the_transaction_is_durable() {
    let (mut table, producer, consumer) = pair();
    table.send(producer, "orders", "a");
    table.changes();
    table.begin(consumer, "t");
    table.ack_in(consumer, "t", 1, 1).unwrap();
    table.ack_in(consumer, "t", 1, 1).unwrap_err();
    table.ack(consumer, 1, 1).unwrap_err();
    assert!(table.changes().is_empty());
    table.commit(consumer, "t").unwrap();
    let changes = table.changes();
    let [Change::Unit { ops, .. }] = &changes[..] else { panic!("{changes:?}") };
    assert!(matches!(ops[..], [Op::Settle { .. }]));
    table.refuse_units();
    table.ack(consumer, 1, 1).unwrap();
}

#[test]
fn acks_in_a_transaction_give_credit_at_once() {
    let mut table = Table::new();
    let session = table.connect();
    table.subscribe(session, 1, "orders", AckMode::Individual, 1);
    table.send(session, "orders", "a");
    table.send(session, "orders", "b");
    table.begin(session, "t");
    table.ack_in(session, "t", 1, 1).unwrap();
    assert_eq!(table.got(session), ["a", "b"]);
}

#[test]
fn an_abort_leaves_acked_messages_with_the_subscription_to_be_acked_again() {
    let (mut table, producer, consumer) = pair();
    for id in ["a", "b"] {
        table.send(producer, "orders", id);
    }
    assert_eq!(table.got(consumer), ["a", "b"]);
    table.begin(consumer, "t");
    table.send_in(consumer, "t", "orders", "never");
    table.ack_in(consumer, "t", 1, 1).unwrap();
    table.answer(consumer, by_tag(1, 2), Verdict::Rejected, Some("t")).unwrap();
    table.abort(consumer, "t");
    assert!(table.got(consumer).is_empty(), "not delivered again: it has them");
    table.ack(consumer, 1, 2).unwrap();
    table.ack(consumer, 1, 1).unwrap();
    assert!(table.stored().is_empty());
}

#[test]
fn after_an_abort_credit_is_withheld_until_in_flight_is_below_the_prefetch() {
    let mut table = Table::new();
    let session = table.connect();
    table.subscribe(session, 1, "orders", AckMode::Individual, 1);
    for id in ["a", "b", "c"] {
        table.send(session, "orders", id);
    }
    table.begin(session, "t");
    table.ack_in(session, "t", 1, 1).unwrap();
    table.abort(session, "t");
    table.got(session);
    table.ack(session, 1, 1).unwrap();
    assert!(table.got(session).is_empty());
    table.ack(session, 1, 2).unwrap();
    assert_eq!(table.got(session), ["c"]);
}

#[test]
fn a_session_lost_with_an_open_transaction_leaves_nothing_of_it() {
    let (mut table, producer, consumer) = pair();
    table.send(producer, "orders", "a");
    table.got(consumer);
    table.begin(consumer, "t");
    table.send_in(consumer, "t", "orders", "never");
    table.ack_in(consumer, "t", 1, 1).unwrap();
    table.close(consumer);
    let next = table.connect();
    table.subscribe(next, 1, "orders", AckMode::Individual, 10);
    assert_eq!(table.got_flagged(next), ["a*"]);
    assert_eq!(table.stored(), ["a"]);
}

#[test]
fn r5_a_commit_under_way_outlives_its_session() {
    for refused in [false, true] {
        let (mut table, producer, consumer) = pair();
        table.send(producer, "orders", "a");
        table.got(consumer);
        table.begin(consumer, "t");
        table.send_in(consumer, "t", "orders", "b");
        table.ack_in(consumer, "t", 1, 1).unwrap();
        table.commit(consumer, "t").unwrap();
        table.close(consumer);
        let next = table.connect();
        table.subscribe(next, 1, "orders", AckMode::Individual, 10);
        assert!(table.got(next).is_empty(), "it may be settled already");
        if refused {
            table.refuse_units()
        } else {
            table.sync()
        }
        assert_eq!(table.got_flagged(next), if refused { ["a*"] } else { ["b"] });
    }
}

#[test]
fn r5_a_commit_under_way_outlives_its_consumer() {
    for refused in [false, true] {
        let (mut table, producer, consumer) = pair();
        table.send(producer, "orders", "a");
        table.begin(consumer, "t");
        table.ack_in(consumer, "t", 1, 1).unwrap();
        table.commit(consumer, "t").unwrap();
        table.unsubscribe(consumer, 1);
        table.subscribe(consumer, 2, "orders", AckMode::Individual, 10);
        table.got(consumer);
        if refused {
            table.refuse_units()
        } else {
            table.sync()
        }
        assert_eq!(table.got_flagged(consumer), if refused { vec!["a*"] } else { vec![] });
    }
}

#[test]
fn r5_a_commit_under_way_outlives_its_durable_subscription() {
    for refused in [false, true] {
        let mut table = Table::new();
        let session = table.connect_as(Some("me"), None).unwrap();
        let durable = Subscribe { durable: Some("d".into()), ..subscription(1, Destination::topic("news")) };
        table.subscribe_to(session, durable).unwrap();
        table.publish(session, "news", "a");
        table.begin(session, "t");
        table.ack_in(session, "t", 1, 1).unwrap();
        table.send_to_in(session, "t", &Destination::topic("news"), draft("b")).unwrap();
        table.commit(session, "t").unwrap();
        let delete = Unsubscribe { consumer: Some(ConsumerNo(1)), durable: Some("d".into()) };
        table.apply(session, Command::Unsubscribe(delete)).unwrap();
        assert!(table.stored().is_empty());
        if refused {
            table.refuse_units()
        } else {
            table.sync()
        }
        assert_eq!(table.got(session), ["a"]);
    }
}

#[test]
fn r7_transactions_of_one_session_do_not_disturb_each_other() {
    let (mut table, producer, consumer) = pair();
    for id in ["a", "b", "c"] {
        table.send(producer, "orders", id);
    }
    for (name, tag) in [("one", 1), ("two", 2), ("three", 3)] {
        table.begin(consumer, name);
        table.ack_in(consumer, name, 1, tag).unwrap();
        table.send_in(consumer, name, "results", name);
    }
    table.commit(consumer, "two").unwrap();
    table.abort(consumer, "one");
    table.commit(consumer, "three").unwrap();
    table.sync();
    assert_eq!(table.stored(), ["a", "two", "three"]);
    assert!(matches!(table.commit(consumer, "two"), Err(NotDone::Refused(_))));
    table.ack(consumer, 1, 1).unwrap();
}

#[test]
fn what_the_store_does_not_hear_of_commits_at_once() {
    let (mut table, producer, consumer) = pair();
    table.begin(producer, "t");
    table
        .send_to_in(producer, "t", &Destination::queue("orders"), MessageDraft { persistent: false, ..draft("a") })
        .unwrap();
    assert!(!table.core.commit_stores(producer, &"t".into()));
    table.commit(producer, "t").unwrap();
    assert_eq!(table.got(consumer), ["a"]);
    assert!(table.changes().is_empty());
}

#[test]
fn a_nack_in_a_transaction_takes_effect_with_it() {
    let (mut table, producer, consumer) = pair();
    let undertaker = table.connect();
    table.subscribe(undertaker, 1, "ActiveMQ.DLQ", AckMode::Individual, 10);
    table.send(producer, "orders", "a");
    table.changes();
    table.begin(consumer, "t");
    table.answer(consumer, by_tag(1, 1), Verdict::Rejected, Some("t")).unwrap();
    table.commit(consumer, "t").unwrap();
    let changes = table.changes();
    assert!(matches!(&changes[..], [Change::Unit { ops, .. }] if ops.len() == 2), "{changes:?}");
    assert!(table.got(undertaker).is_empty());
    table.sync();
    assert_eq!(table.got(undertaker), ["a"]);
    assert_eq!(table.stored(), ["a"]);
}

#[test]
fn a_nack_in_a_transaction_follows_the_policy() {
    let mut table = Table::with(with_policy(policy("orders", 1)));
    let consumer = table.connect();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.send(consumer, "orders", "a");
    table.begin(consumer, "t");
    table.answer(consumer, by_tag(1, 1), Verdict::Rejected, Some("t")).unwrap();
    table.commit(consumer, "t").unwrap();
    table.sync();
    assert_eq!(table.got(consumer), ["a"]);
    table.pass(Duration::from_secs(1));
    assert_eq!(table.got_flagged(consumer), ["a*"]);
    assert_eq!(table.store.messages.values().next().unwrap().holders[0].failures, 1);
}

#[test]
fn what_expires_while_its_commit_is_under_way_is_a_dead_letter_then() {
    let (mut table, producer, consumer) = pair();
    table.begin(producer, "t");
    let expires = Some(table.now.after(Duration::from_secs(1)));
    table.send_to_in(producer, "t", &Destination::queue("orders"), MessageDraft { expires, ..draft("a") }).unwrap();
    table.commit(producer, "t").unwrap();
    table.changes();
    table.pass(Duration::from_secs(2));
    assert!(table.changes().is_empty(), "nobody can see it yet");
    table.sync();
    table.pass(Duration::ZERO);
    assert!(table.got(consumer).is_empty());
    assert_eq!(inserted(&table.changes()).len(), 1);
}

#[test]
fn r5_a_commit_goes_on_without_the_requester_that_has_left() {
    let mut table = Table::new();
    let (owner, consumer) = (table.connect(), table.connect());
    let answers = Destination::new(DestinationKind::TemporaryQueue, "answers");
    table.apply(owner, Command::CreateTemporary(answers.clone())).unwrap();
    table.subscribe(consumer, 1, "orders", AckMode::Individual, 10);
    table.send(owner, "orders", "a");
    table.begin(consumer, "t");
    table.ack_in(consumer, "t", 1, 1).unwrap();
    table.send_in(consumer, "t", "done", "b");
    table.send_to_in(consumer, "t", &answers, draft("answer")).unwrap();
    table.close(owner);
    table.commit(consumer, "t").unwrap();
    table.sync();
    assert_eq!(table.stored(), ["b"], "the request is settled, though nobody gets its answer");
}

#[test]
fn unknown_transactions_are_refused_and_change_nothing() {
    let (mut table, producer, consumer) = pair();
    table.send(producer, "orders", "a");
    table.changes();
    table.begin(consumer, "t");
    let again = table.apply(consumer, Command::Begin("t".into()));
    refused(again).unwrap_err();
    table.ack_in(consumer, "other", 1, 1).unwrap_err();
    refused(table.commit(producer, "t")).unwrap_err();
    table.send_to_in(consumer, "other", &Destination::queue("elsewhere"), draft("b")).unwrap_err();
    assert!(table.changes().is_empty(), "not even a destination");
    table.ack(consumer, 1, 1).unwrap();
}

#[test]
fn r5_a_transaction_of_which_a_send_was_refused_is_not_committed() {
    type Refuse = fn(&mut Table, SessionId) -> Result<(), Refusal>;
    let large: Refuse = |table, session| {
        let large = MessageDraft { body: vec![0; 101].into(), ..draft("large") };
        table.send_to_in(session, "t", &Destination::queue("results"), large)
    };
    let declined_by_the_session: Refuse = |table, session| {
        let refusal = Refusal { transaction: Some("t".into()), ..Refusal::new("no", "") };
        refused(table.apply(session, Command::Refuse(refusal)))
    };
    for refuse in [large, declined_by_the_session] {
        let mut table = Table::with(CoreOptions { message_bytes_max: 100, ..options() });
        let session = table.connect();
        table.subscribe(session, 1, "orders", AckMode::Individual, 10);
        table.send(session, "orders", "a");
        for name in ["t", "other"] {
            table.begin(session, name);
            table.send_in(session, name, "results", name);
        }
        table.ack_in(session, "t", 1, 1).unwrap();
        refuse(&mut table, session).unwrap_err();
        table.commit(session, "other").unwrap();
        refused(table.commit(session, "t")).unwrap_err();
        table.sync();
        assert_eq!(table.stored(), ["a", "other"]);
        table.ack(session, 1, 1).unwrap();
        table.begin(session, "t");
    }
}

#[test]
fn r7_an_individual_ack_by_message_id_passes_over_what_a_transaction_holds() {
    let mut table = Table::with(options());
    let session = table.connect();
    table.subscribe(session, 1, "orders", AckMode::Individual, 10);
    table.send(session, "orders", "same");
    table.send(session, "orders", "same");
    let by_id = AckTarget::MessageId { consumer: None, id: "same".into() };
    table.begin(session, "t");
    table.answer(session, by_id.clone(), Verdict::Accepted, Some("t")).unwrap();
    table.answer(session, by_id.clone(), Verdict::Accepted, None).unwrap();
    table.answer(session, by_id, Verdict::Accepted, None).unwrap_err();
    assert_eq!(table.stored().len(), 1);
}

#[test]
fn an_abort_takes_credit_back_before_it_makes_dead_letters() {
    let counting = RedeliveryPolicy { count_lost_consumers: true, delay: Duration::ZERO, ..policy("lost", 0) };
    let mut table = Table::with(with_policy(counting));
    let session = table.connect();
    table.subscribe(session, 1, "lost", AckMode::Individual, 1);
    table.subscribe(session, 2, "ActiveMQ.DLQ", AckMode::Individual, 1);
    table.send(session, "lost", "a");
    table.send(session, "ActiveMQ.DLQ", "b");
    assert_eq!(table.got(session), ["a", "b"]);
    table.begin(session, "t");
    table.ack_in(session, "t", 1, 1).unwrap();
    table.ack_in(session, "t", 2, 1).unwrap();
    table.unsubscribe(session, 1);
    table.abort(session, "t");
    assert!(table.got(session).is_empty(), "it has b again, and no credit for a");
    table.sync();
    assert!(table.got(session).is_empty(), "it has b again, and no credit for a");
    table.ack(session, 2, 1).unwrap();
    table.sync();
    assert_eq!(table.got(session), ["a"]);
}
