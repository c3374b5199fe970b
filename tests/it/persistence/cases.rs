//! The cases of the behaviour suite, each on any backend.

use std::sync::Arc;

use batonmq::{
    persistence::{
        Backlog, CommitError, DuePage, DueReason, MessageReader, Page, PageRange, PersistenceAdapter, StoreError,
        Window,
    },
    types::{
        Batch, BatchNumber, BodyKind, Catalog, Destination, DestinationKind, Durable, DurableId, FencingToken, Held,
        Holder, Message, MessageDraft, Op, Priority, PropertiesBuilder, PropertyValue, Sequence, Stored, Tenure, Term,
        Timestamp,
    },
};
use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Backend, Broker, EVERYTHING, LARGE, NEWS, NOTHING_BEFORE, ORDERS, insert, read_all, read_due, script::Script,
    sequences, settle, stored,
};
use crate::harness::{Rng, Rows};

fn seq(counter: u64) -> Sequence {
    Sequence::new(Term(1), counter)
}

/// What the queue `ORDERS` holds, of the default priority.
async fn page(broker: &Broker<impl PersistenceAdapter>, after: Sequence, upto: Sequence, window: Window) -> Page {
    let range = PageRange { after, upto };
    broker.adapter.reader().page(Holder::Queue(ORDERS), Priority::default(), range, window).await.unwrap()
}

/// A message to two durable subscriptions.
fn news(sequence: Sequence) -> Stored {
    let both = [1, 2].map(|id| Held::fresh(Holder::Durable(DurableId(id))));
    Stored { destination: NEWS, holders: SmallVec::from_slice(&both), ..stored(sequence, 10) }
}

pub(super) async fn a_new_store_is_empty<B: Backend>(backend: &B) {
    let mut adapter = backend.open().await;
    assert_eq!(adapter.recover().await.unwrap(), Catalog::default());
    assert!(adapter.limits().message_bytes_max >= 100 << 20, "ActiveMQ's default frame limit fits");
    let (reader, queue) = (adapter.reader(), Holder::Queue(ORDERS));
    let page = reader.page(queue, Priority::default(), EVERYTHING, LARGE).await.unwrap();
    assert_eq!(page, Page { messages: vec![], complete: true });
    let due = reader.due(Timestamp(u64::MAX), NOTHING_BEFORE, LARGE).await.unwrap();
    assert_eq!(due, DuePage::default());
    assert_eq!(reader.holders().await.unwrap(), []);
    assert_eq!(reader.backlog(queue).await.unwrap(), Backlog::default());
    adapter.close().await.unwrap();
}

pub(super) async fn a_message_comes_back_as_it_was<B: Backend>(backend: &B) {
    let mut properties = PropertiesBuilder::default();
    properties.push("colour", PropertyValue::Text("größe"));
    properties.push("amount", PropertyValue::Integer(-1));
    let draft = MessageDraft {
        id: "ID:ä-1".into(),
        persistent: true,
        priority: Priority::clamped(7),
        timestamp: Timestamp(1_700_000_000_000),
        expires: Some(Timestamp(1_700_000_000_001)),
        reply_to: Some(Destination::new(DestinationKind::TemporaryTopic, "answers")),
        correlation_id: Some("".into()),
        message_type: Some("order".into()),
        original_destination: Some(Destination::queue("first")),
        body_kind: BodyKind::Map,
        properties: properties.build(),
        body: Bytes::from_static(&[0, 255, 10, 0]),
    };
    let full = Stored { message: Arc::new(Message::new(draft)), ..stored(seq(1), 0) };
    let bare = Stored { message: Arc::new(Message::new(MessageDraft::default())), ..stored(seq(2), 0) };
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![Op::Insert(full.clone()), Op::Insert(bare.clone())]).await;
    assert_eq!(broker.messages(ORDERS).await, [full.clone(), bare.clone()]);
    broker.adapter.close().await.unwrap();
    assert_eq!(Broker::start(backend).await.messages(ORDERS).await, [full, bare]);
}

pub(super) async fn a_batch_is_applied_whole<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![insert(seq(1), 10), insert(seq(2), 10)]).await;
    broker.commit(vec![settle(seq(1)), insert(seq(3), 10), Op::Insert(news(seq(4))), settle(seq(2))]).await;
    for _ in 0..2 {
        assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(3)]);
        assert_eq!(sequences(&broker.messages(NEWS).await), [seq(4)]);
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn commit_twice_is_once<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let batch = Arc::new(Batch { number: BatchNumber(1), ops: vec![insert(seq(1), 10), insert(seq(2), 10)] });
    broker.adapter.try_commit(&batch).await.unwrap();
    broker.adapter.try_commit(&batch).await.unwrap();
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1), seq(2)]);
    broker.number = 1;
    broker.commit(vec![settle(seq(1))]).await;
    broker.adapter.close().await.unwrap();
    assert_eq!(sequences(&Broker::start(backend).await.messages(ORDERS).await), [seq(2)]);
}

pub(super) async fn an_insert_of_what_is_there_changes_nothing<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let held = Held { deliveries: 2, ..Held::fresh(Holder::Queue(ORDERS)) };
    broker.commit(vec![insert(seq(1), 10)]).await;
    broker.commit(vec![Op::Return { sequence: seq(1), held }]).await;
    broker.commit(vec![insert(seq(1), 10)]).await;
    for _ in 0..2 {
        let messages = broker.messages(ORDERS).await;
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].holders.as_slice(), [held]);
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn r1_a_settled_message_is_gone<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![insert(seq(1), 10), insert(seq(2), 10)]).await;
    broker.commit(vec![settle(seq(1))]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(2)]);
    drop(broker); // no polite end
    assert_eq!(sequences(&Broker::start(backend).await.messages(ORDERS).await), [seq(2)]);
}

pub(super) async fn a_message_stays_until_every_holder_settled<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![Op::Insert(news(seq(1)))]).await;
    broker.commit(vec![Op::Settle { sequence: seq(1), holder: Holder::Durable(DurableId(1)) }]).await;
    for _ in 0..2 {
        let messages = broker.messages(NEWS).await;
        assert_eq!(messages[0].holders.as_slice(), [Held::fresh(Holder::Durable(DurableId(2)))]);
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
    broker.commit(vec![Op::Settle { sequence: seq(1), holder: Holder::Durable(DurableId(2)) }]).await;
    assert_eq!(broker.messages(NEWS).await, []);
}

pub(super) async fn settling_what_is_not_there_is_nothing<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![insert(seq(1), 10)]).await;
    broker.commit(vec![settle(seq(7)), Op::Settle { sequence: seq(1), holder: Holder::Queue(NEWS) }]).await;
    broker.commit(vec![Op::Settle { sequence: seq(1), holder: Holder::Durable(DurableId(1)) }]).await;
    let held = Held { deliveries: 1, ..Held::fresh(Holder::Durable(DurableId(1))) };
    broker.commit(vec![Op::Return { sequence: seq(1), held }, Op::Return { sequence: seq(7), held }]).await;
    assert_eq!(broker.messages(ORDERS).await, [stored(seq(1), 10)]);
    broker.commit(vec![insert(seq(7), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1), seq(7)]);
}

pub(super) async fn r9_a_return_keeps_its_absolute_numbers<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![Op::Insert(news(seq(1)))]).await;
    let part = |deliveries| Held {
        holder: Holder::Durable(DurableId(2)),
        deliveries,
        failures: 1,
        due: Some(Timestamp(1_700_000_000_000)),
    };
    broker.commit(vec![Op::Return { sequence: seq(1), held: part(5) }]).await;
    broker.commit(vec![Op::Return { sequence: seq(1), held: part(6) }]).await;
    for _ in 0..2 {
        let messages = broker.messages(NEWS).await;
        assert_eq!(messages[0].holders.as_slice(), [Held::fresh(Holder::Durable(DurableId(1))), part(6)]);
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn r9_a_mark_never_falls<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let holder = Holder::Queue(ORDERS);
    broker.commit(vec![Op::Mark { holder, upto: seq(100) }]).await;
    broker.commit(vec![Op::Mark { holder, upto: seq(50) }]).await;
    drop(broker);
    assert_eq!(Broker::start(backend).await.catalog.marks[&holder], seq(100));
}

pub(super) async fn the_catalog_survives<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let mut expected = Catalog { tenure: broker.tenure, ..Catalog::default() };
    let long = "x".repeat(1_000);
    let durable = Durable { client_id: "größe".into(), name: long.as_str().into(), topic: NEWS };
    let ops = vec![
        Op::CreateDestination { id: ORDERS, destination: Destination::queue("orders") },
        Op::CreateDestination { id: NEWS, destination: Destination::new(DestinationKind::TemporaryTopic, &long) },
        Op::CreateDurable { id: DurableId(4), durable },
        Op::Mark { holder: Holder::Durable(DurableId(4)), upto: seq(9) },
    ];
    ops.iter().for_each(|op| expected.apply(op));
    broker.commit(ops).await;
    drop(broker);
    assert_eq!(Broker::start(backend).await.catalog, expected);
}

pub(super) async fn r29_ids_are_known_after_what_they_named_is_gone<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let durable = Durable { client_id: "c".into(), name: "n".into(), topic: NEWS };
    broker.commit(vec![Op::CreateDurable { id: DurableId(8), durable }]).await;
    broker.commit(vec![Op::DeleteDurable { id: DurableId(8) }]).await;
    drop(broker);
    let catalog = Broker::start(backend).await.catalog;
    assert!(catalog.durables.is_empty());
    assert_eq!(catalog.last_durable, DurableId(8));
}

pub(super) async fn a_deleted_durable_takes_its_part_of_every_message<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(Script::first_batch()).await;
    broker.commit(vec![Op::Insert(news(seq(1))), Op::Insert(news(seq(2)))]).await;
    broker.commit(vec![Op::Settle { sequence: seq(2), holder: Holder::Durable(DurableId(1)) }]).await;
    broker.commit(vec![Op::DeleteDurable { id: DurableId(2) }]).await;
    for _ in 0..2 {
        let messages = broker.messages(NEWS).await;
        assert_eq!(sequences(&messages), [seq(1)]);
        assert_eq!(messages[0].holders.as_slice(), [Held::fresh(Holder::Durable(DurableId(1)))]);
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn r29_a_purge_takes_all_that_one_holder_has_up_to_its_mark<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let [one, two] = [1, 2].map(|id| Holder::Durable(DurableId(id)));
    broker.commit(Script::first_batch()).await;
    broker.commit((1..=40).map(|counter| expiring(seq(counter), 100 + counter)).collect()).await; // of all priorities
    broker.commit((41..=50).map(|counter| Op::Insert(news(seq(counter)))).collect()).await;
    let later = |holder| Held { deliveries: 2, due: Some(Timestamp(50)), ..Held::fresh(holder) };
    let held = [Holder::Queue(ORDERS), Holder::Queue(ORDERS), two, one].map(later);
    let returns = [7, 31, 45, 45].into_iter().zip(held).map(|(counter, held)| (seq(counter), held));
    broker.commit(returns.map(|(sequence, held)| Op::Return { sequence, held }).collect()).await;
    let purge = |holder, counter| Op::Purge { holder, upto: seq(counter) };
    broker
        .commit(vec![purge(Holder::Queue(ORDERS), 30), purge(two, 47), purge(Holder::Durable(DurableId(9)), 50)])
        .await;
    for _ in 0..2 {
        let mut orders = sequences(&broker.messages(ORDERS).await);
        orders.sort();
        assert_eq!(orders, (31..=40).map(seq).collect::<Vec<_>>());
        let messages = broker.messages(NEWS).await;
        assert_eq!(sequences(&messages), (41..=50).map(seq).collect::<Vec<_>>());
        let holders = |stored: &Stored| stored.holders.iter().map(|held| held.holder).collect::<Vec<_>>();
        assert!(messages.iter().all(|stored| (stored.sequence > seq(47)) == (holders(stored) == [one, two])));
        let due: Vec<_> = read_due(&broker).await.into_iter().map(|(_, sequence, reason)| (sequence, reason)).collect();
        assert_eq!(
            due[..2],
            [31, 45].map(seq).into_iter().zip([Holder::Queue(ORDERS), one].map(DueReason::Returns)).collect::<Vec<_>>()
        );
        assert_eq!(due[2..], (31..=40).map(|counter| (seq(counter), DueReason::Expires)).collect::<Vec<_>>());
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
    let backlog = broker.adapter.reader().backlog(Holder::Queue(ORDERS)).await.unwrap();
    assert_eq!(backlog.messages, [1; 10], "R28");
    // what it took may be named again and is nothing
    broker.commit(vec![settle(seq(3)), Op::Return { sequence: seq(4), held: later(Holder::Queue(ORDERS)) }]).await;
    broker.commit(vec![purge(one, 50), purge(two, 50), purge(Holder::Queue(ORDERS), 40)]).await;
    for _ in 0..2 {
        assert_eq!(
            broker.adapter.reader().due(Timestamp(u64::MAX), NOTHING_BEFORE, LARGE).await.unwrap(),
            DuePage::default()
        );
        assert!(broker.messages(ORDERS).await.is_empty() && broker.messages(NEWS).await.is_empty());
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
    assert_eq!(broker.adapter.reader().holders().await.unwrap(), []);
}

pub(super) async fn r29_a_purge_beside_inserts_takes_none_of_them<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![insert(seq(1), 10), insert(seq(2), 10)]).await;
    let purge = Op::Purge { holder: Holder::Queue(ORDERS), upto: seq(2) };
    broker.commit(vec![purge, insert(seq(3), 10)]).await;
    broker.commit(vec![insert(seq(4), 10)]).await;
    for _ in 0..2 {
        assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(3), seq(4)]);
        drop(broker);
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn reads_in_order_of_acceptance_by_priority<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let with_priority = |sequence, level| {
        let draft = MessageDraft { priority: Priority::clamped(level), ..stored(sequence, 1).message.to_draft() };
        Op::Insert(Stored { message: Arc::new(Message::new(draft)), ..stored(sequence, 1) })
    };
    // a transaction's messages may be committed after later ones
    broker.commit(vec![with_priority(seq(5), 4), with_priority(seq(2), 9), with_priority(seq(6), 0)]).await;
    broker.commit(vec![with_priority(seq(3), 4), with_priority(seq(4), 4), with_priority(seq(1), 9)]).await;
    let second_term = Sequence::new(Term(2), 1);
    broker.commit(vec![with_priority(second_term, 4), Op::Insert(news(seq(7)))]).await;
    for _ in 0..2 {
        let expected = [seq(1), seq(2), seq(3), seq(4), seq(5), second_term, seq(6)];
        assert_eq!(sequences(&broker.messages(ORDERS).await), expected);
        let page = page(&broker, seq(4), Sequence::MAX, LARGE).await;
        assert_eq!((sequences(&page.messages), page.complete), (vec![seq(5), second_term], true));
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn a_page_keeps_to_its_window<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit((1..=20).map(|counter| insert(seq(counter), 1_000)).collect()).await;
    let size = stored(seq(10), 1_000).message.size();
    let broker = &broker;
    let page = |messages, bytes| async move {
        let page = page(broker, Sequence::ZERO, Sequence::MAX, Window { messages, bytes }).await;
        (page.messages.len(), page.complete)
    };
    assert_eq!(page(7, usize::MAX).await, (7, false));
    assert_eq!(page(20, usize::MAX).await, (20, true));
    assert_eq!(page(100, usize::MAX).await, (20, true));
    assert_eq!(page(100, 1).await, (1, false), "at least one message");
    assert_eq!(page(0, 0).await, (1, false), "at least one message");
    assert_eq!(page(100, 5 * size).await, (5, false), "bytes count as everywhere else");
}

pub(super) async fn r25_a_page_ends_where_it_is_told_to<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit((1..=9).map(|counter| insert(seq(counter), 10)).collect()).await;
    broker.commit(vec![settle(seq(4)), settle(seq(9))]).await;
    for _ in 0..2 {
        for (after, upto, messages, expected, complete) in [
            (0, 5, 9, vec![1, 2, 3, 5], true),
            (0, 5, 4, vec![1, 2, 3, 5], true),
            (0, 5, 3, vec![1, 2, 3], false),
            (2, 4, 9, vec![3], true),
            (3, 4, 9, vec![], true),
            (8, 99, 9, vec![], true),
            (5, 5, 9, vec![], true),
            (6, 5, 9, vec![], true),
            (7, 99, 9, vec![8], true),
        ] {
            let page = page(&broker, seq(after), seq(upto), Window { messages, ..LARGE }).await;
            let expected: Vec<Sequence> = expected.into_iter().map(seq).collect();
            assert_eq!((sequences(&page.messages), page.complete), (expected, complete), "{after} to {upto}");
        }
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn durables_read_one_body_each_at_its_own_place<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let [one, two] = [1, 2].map(|id| Holder::Durable(DurableId(id)));
    broker.commit((1..=6).map(|counter| Op::Insert(news(seq(counter)))).collect()).await;
    let urgent = MessageDraft { priority: Priority::clamped(9), ..news(seq(7)).message.to_draft() };
    let alone = Stored { holders: SmallVec::from_slice(&[Held::fresh(two)]), ..news(seq(7)) };
    broker.commit(vec![Op::Insert(Stored { message: Arc::new(Message::new(urgent)), ..alone })]).await;
    broker.commit((1..=4).map(|counter| Op::Settle { sequence: seq(counter), holder: one }).collect()).await;
    broker.commit(vec![Op::Settle { sequence: seq(2), holder: two }]).await;
    for _ in 0..2 {
        let reader = broker.adapter.reader();
        let left = async |holder| {
            let page = reader.page(holder, Priority::default(), EVERYTHING, LARGE).await.unwrap();
            assert!(page.complete);
            page.messages
        };
        assert_eq!(sequences(&left(one).await), [seq(5), seq(6)]);
        let messages = left(two).await;
        assert_eq!(sequences(&messages), [seq(1), seq(3), seq(4), seq(5), seq(6)]);
        let holders = |stored: &Stored| stored.holders.iter().map(|held| held.holder).collect::<Vec<_>>();
        assert_eq!((holders(&messages[0]), holders(&messages[3])), (vec![two], vec![one, two]));
        assert_eq!(left(Holder::Queue(NEWS)).await, []);
        assert_eq!(left(Holder::Durable(DurableId(3))).await, []);
        let urgent = reader.page(two, Priority::clamped(9), EVERYTHING, LARGE).await.unwrap();
        assert_eq!(sequences(&urgent.messages), [seq(7)]);
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

/// A message of some priority that expires, and one that returns.
fn expiring(sequence: Sequence, at: u64) -> Op {
    let draft = MessageDraft {
        priority: Priority::clamped(u8::try_from(sequence.counter() % 10).unwrap()),
        expires: Some(Timestamp(at)),
        ..stored(sequence, 10).message.to_draft()
    };
    Op::Insert(Stored { message: Arc::new(Message::new(draft)), ..stored(sequence, 10) })
}

fn returning(sequence: Sequence, holder: Holder, at: u64) -> Op {
    let held = Held { deliveries: 1, due: Some(Timestamp(at)), ..Held::fresh(holder) };
    Op::Return { sequence, held }
}

pub(super) async fn r27_what_comes_due_is_found_by_time<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let [one, two] = [1, 2].map(|id| Holder::Durable(DurableId(id)));
    let queue = Holder::Queue(ORDERS);
    broker.commit(vec![expiring(seq(1), 500), expiring(seq(2), 300), expiring(seq(3), 300)]).await;
    broker
        .commit(vec![Op::Insert(news(seq(4))), Op::Insert(news(seq(5))), insert(seq(6), 10), insert(seq(7), 10)])
        .await;
    broker.commit(vec![returning(seq(4), one, 400), returning(seq(4), two, 400), returning(seq(5), two, 200)]).await;
    broker
        .commit(vec![returning(seq(1), queue, 500), returning(seq(6), queue, 900), returning(seq(7), queue, 100)])
        .await;
    broker.commit(vec![returning(seq(6), queue, 600), settle(seq(2)), settle(seq(7))]).await;
    broker.commit(vec![Op::Settle { sequence: seq(4), holder: one }, expiring(seq(8), 700)]).await;
    let all = [
        (200, DueReason::Returns(two), seq(5)),
        (300, DueReason::Expires, seq(3)),
        (400, DueReason::Returns(two), seq(4)),
        (500, DueReason::Expires, seq(1)),
        (500, DueReason::Returns(queue), seq(1)),
        (600, DueReason::Returns(queue), seq(6)),
        (700, DueReason::Expires, seq(8)),
    ];
    for _ in 0..2 {
        let reader = broker.adapter.reader();
        let due = async |before, after: (u64, u64), messages| {
            let (after, window) = ((Timestamp(after.0), seq(after.1)), Window { messages, ..LARGE });
            let page = reader.due(Timestamp(before), after, window).await.unwrap();
            let found: Vec<_> = page.messages.iter().map(|due| (due.at.0, due.reason, due.stored.sequence)).collect();
            (found, page.next.map(|at| at.0))
        };
        assert_eq!(due(u64::MAX, (0, 0), 100).await, (all.to_vec(), None));
        assert_eq!(due(199, (0, 0), 100).await, (vec![], Some(200)), "nothing yet");
        assert_eq!(due(400, (0, 0), 100).await, (all[..3].to_vec(), Some(500)));
        assert_eq!(due(900, (0, 0), 2).await, (all[..2].to_vec(), Some(400)));
        assert_eq!(due(900, (300, 3), 2).await, (all[2..5].to_vec(), Some(600)), "what is due at once comes at once");
        assert_eq!(due(900, (500, 1), 1).await, (all[5..6].to_vec(), Some(700)));
        assert_eq!(due(900, (300, 2), 1).await, (all[1..2].to_vec(), Some(400)), "behind another message's time");
        assert_eq!(due(900, (700, 8), 1).await, (vec![], None));
        let page = reader.due(Timestamp(400), NOTHING_BEFORE, LARGE).await.unwrap();
        let part = Held { deliveries: 1, due: Some(Timestamp(400)), ..Held::fresh(two) };
        assert_eq!(page.messages[2].stored.holders.as_slice(), [part], "with everybody who still holds it");
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn r28_a_backlog_is_that_of_the_recovery<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let (queue, one) = (Holder::Queue(ORDERS), Holder::Durable(DurableId(1)));
    broker.commit((1..=100).map(|counter| insert(seq(counter), 1_000)).collect()).await;
    broker.commit((101..=110).map(|counter| Op::Insert(news(seq(counter)))).collect()).await;
    broker.commit(vec![expiring(seq(119), 1), settle(seq(7)), Op::Settle { sequence: seq(101), holder: one }]).await;
    assert_eq!(broker.adapter.reader().backlog(queue).await.unwrap(), Backlog::default(), "nothing at its recovery");
    broker.adapter.close().await.unwrap();
    let mut broker = Broker::start(backend).await;
    broker.commit((1..=50).map(|counter| settle(seq(counter))).collect()).await;
    let reader = broker.adapter.reader();
    assert_eq!(reader.holders().await.unwrap(), [queue, one, Holder::Durable(DurableId(2))]);
    let backlog = reader.backlog(queue).await.unwrap();
    assert_eq!(backlog.messages, [0, 0, 0, 0, 99, 0, 0, 0, 0, 1]);
    assert!((100_000..200_000).contains(&backlog.bytes), "{} bytes", backlog.bytes);
    assert_eq!(reader.backlog(one).await.unwrap().messages, [0, 0, 0, 0, 9, 0, 0, 0, 0, 0]);
    assert_eq!(reader.backlog(Holder::Queue(NEWS)).await.unwrap(), Backlog::default());
}

pub(super) async fn a_batch_without_operations_changes_nothing<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![]).await;
    broker.commit(vec![insert(seq(1), 10)]).await;
    broker.commit(vec![]).await;
    for _ in 0..2 {
        assert_eq!(broker.messages(ORDERS).await, [stored(seq(1), 10)]);
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn r17_a_tenure_that_is_not_above_is_deposed<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let seen = Tenure { term: Term(5), token: FencingToken(9) };
    broker.adapter.raise(seen).await.unwrap();
    for (term, token) in [(5, 9), (5, 8), (4, 10), (6, 9), (1, 1)] {
        let stale = Tenure { term: Term(term), token: FencingToken(token) };
        let error = broker.adapter.raise(stale).await.unwrap_err();
        assert!(matches!(error, StoreError::Deposed), "{stale:?}: {error}");
    }
    broker.commit(vec![insert(seq(1), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(1)], "a refused raise leaves the term as it is");
}

pub(super) async fn r17_the_highest_tenure_survives<B: Backend>(backend: &B) {
    let mut adapter = backend.open().await;
    adapter.recover().await.unwrap();
    let highest = Tenure { term: Term(5), token: FencingToken(9) };
    adapter.raise(highest).await.unwrap();
    drop(adapter);
    let mut adapter = backend.open().await;
    assert_eq!(adapter.recover().await.unwrap().tenure, highest);
    assert!(matches!(adapter.raise(highest).await, Err(StoreError::Deposed)));
}

pub(super) async fn r11_a_raised_token_carries_on_in_its_term<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    let batch = Arc::new(Batch { number: BatchNumber(1), ops: vec![insert(seq(1), 10)] });
    broker.adapter.try_commit(&batch).await.unwrap();
    broker.adapter.raise(broker.tenure.next_token()).await.unwrap();
    broker.adapter.try_commit(&batch).await.unwrap();
    broker.number = 1;
    broker.commit(vec![settle(seq(1)), insert(seq(2), 10)]).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [seq(2)]);
}

pub(super) async fn nothing_is_committed_before_a_raise<B: Backend>(backend: &B) {
    let mut adapter = backend.open().await;
    adapter.recover().await.unwrap();
    let batch = Arc::new(Batch { number: BatchNumber(1), ops: vec![insert(seq(1), 10)] });
    let error = adapter.try_commit(&batch).await.unwrap_err();
    assert!(matches!(error, CommitError::Deposed), "{error}");
    drop(adapter);
    assert_eq!(Broker::start(backend).await.messages(ORDERS).await, []);
}

pub(super) async fn a_large_message_and_a_large_batch_come_back<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![insert(seq(1), 3 << 20)]).await;
    broker.commit((2..2_000).map(|counter| insert(seq(counter), 1_000)).collect()).await;
    broker.commit((2..1_999).map(|counter| settle(seq(counter))).collect()).await;
    for _ in 0..2 {
        assert_eq!(broker.messages(ORDERS).await, [stored(seq(1), 3 << 20), stored(seq(1_999), 1_000)]);
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn reopening_keeps_every_promise<B: Backend>(backend: &B) {
    let mut script = Script::new(Rng::from_env(), 6_000);
    let mut model = Rows::default();
    let mut broker = Broker::start(backend).await;
    model.apply_all(&Script::first_batch());
    broker.commit(Script::first_batch()).await;
    for round in 0..400 {
        let ops = script.next_batch(&model);
        model.apply_all(&ops);
        broker.commit(ops).await;
        if round % 40 == 39 {
            let tenure = broker.tenure;
            if round % 80 == 79 {
                broker.adapter.close().await.unwrap()
            } else {
                drop(broker)
            }
            broker = Broker::start(backend).await;
            assert_eq!(broker.catalog.tenure, tenure);
            model.catalog.tenure = tenure;
            assert_eq!(read_all(&broker).await, model, "seed {}", script.seed());
            assert_eq!(read_due(&broker).await, model.all_due(), "seed {}", script.seed());
            let reader = broker.adapter.reader();
            let holders = reader.holders().await.unwrap();
            assert_eq!(holders, model.holders(), "seed {}", script.seed());
            for holder in holders {
                let backlog = reader.backlog(holder).await.unwrap();
                assert_eq!(backlog.messages, model.backlog(holder).messages, "{holder:?}, seed {}", script.seed());
            }
            script.new_term(broker.tenure);
        }
    }
}
