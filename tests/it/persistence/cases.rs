//! The cases of the behaviour suite, each on any backend.

use std::sync::Arc;

use batonmq::{
    persistence::{CommitError, MessageReader, PersistenceAdapter, StoreError, Window},
    types::{
        Batch, BatchNumber, BodyKind, Catalog, Destination, DestinationId, DestinationKind, Durable, DurableId,
        FencingToken, Held, Holder, Message, MessageDraft, Op, Priority, PropertiesBuilder, PropertyValue, Sequence,
        Stored, Tenure, Term, Timestamp,
    },
};
use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Backend, Broker, NEWS, ORDERS, insert,
    script::{Model, Script},
    seed::Rng,
    sequences, settle, stored,
};

fn seq(counter: u64) -> Sequence {
    Sequence::new(Term(1), counter)
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
    let window = Window { messages: 1, bytes: 1 };
    let page = adapter.reader().page(ORDERS, Priority::default(), Sequence::ZERO, window).await.unwrap();
    assert_eq!(page, []);
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
        let window = Window { messages: 10, bytes: usize::MAX };
        let page = broker.adapter.reader().page(ORDERS, Priority::default(), seq(4), window).await.unwrap();
        assert_eq!(sequences(&page), [seq(5), second_term]);
        let end = broker.adapter.reader().page(ORDERS, Priority::default(), second_term, window).await.unwrap();
        assert_eq!(end, []);
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn a_page_keeps_to_its_window<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit((1..=20).map(|counter| insert(seq(counter), 1_000)).collect()).await;
    let reader = broker.adapter.reader();
    let page = |messages, bytes| {
        let reader = reader.clone();
        async move { reader.page(ORDERS, Priority::default(), seq(0), Window { messages, bytes }).await.unwrap().len() }
    };
    assert_eq!(page(7, usize::MAX).await, 7);
    assert_eq!(page(100, usize::MAX).await, 20);
    assert_eq!(page(100, 1).await, 1, "at least one message");
    assert_eq!(page(0, 0).await, 1, "at least one message");
    let bounded = page(100, 5_500).await;
    assert!((4..=5).contains(&bounded), "{bounded} messages of 1,000 bytes in 5,500");
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

pub(super) async fn r34_a_copy_changes_nothing_that_is_read<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![insert(seq(1), 10), insert(seq(2), 10)]).await;
    fill(&mut broker, 100).await;
    broker.commit(vec![Op::Copy(stored(seq(1), 10))]).await;
    for _ in 0..2 {
        assert_eq!(broker.messages(ORDERS).await, [stored(seq(1), 10), stored(seq(2), 10)]);
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
}

pub(super) async fn r34_a_copied_message_that_is_settled_never_comes_back<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![insert(seq(1), 10)]).await;
    fill(&mut broker, 100).await;
    broker.commit(vec![Op::Copy(stored(seq(1), 10))]).await;
    broker.commit(vec![settle(seq(1))]).await;
    fill(&mut broker, 400).await; // the segments of the insert and of the settle leave
    drop(broker);
    assert_eq!(Broker::start(backend).await.messages(ORDERS).await, []);
}

pub(super) async fn r34_a_copy_of_a_settled_message_is_nothing<B: Backend>(backend: &B) {
    let mut broker = Broker::start(backend).await;
    broker.commit(vec![insert(seq(1), 10), Op::Insert(news(seq(2)))]).await;
    fill(&mut broker, 100).await;
    let one = Holder::Durable(DurableId(1));
    broker.commit(vec![settle(seq(1)), Op::Settle { sequence: seq(2), holder: one }]).await;
    broker.commit(vec![Op::Copy(stored(seq(1), 10)), Op::Copy(news(seq(2)))]).await;
    for _ in 0..2 {
        assert_eq!(broker.messages(ORDERS).await, []);
        let left: Vec<Holder> = broker.messages(NEWS).await[0].holders.iter().map(|held| held.holder).collect();
        assert_eq!(left, [Holder::Durable(DurableId(2))]);
        fill(&mut broker, 400).await;
        broker.adapter.close().await.unwrap();
        broker = Broker::start(backend).await;
    }
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
    let mut model = Model::default();
    let mut broker = Broker::start(backend).await;
    model.apply(&Script::first_batch());
    broker.commit(Script::first_batch()).await;
    for round in 0..400 {
        let ops = script.next_batch(&model);
        model.apply(&ops);
        let committed = broker.commit(ops).await;
        script.wish(committed.copies_asked);
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
            assert_eq!(Model::read(&broker).await, model, "seed {}", script.seed());
            script.new_term(broker.tenure);
        }
    }
}

/// Messages of 10 KiB that come and go, so that a store with segments fills and leaves some.
async fn fill<A: PersistenceAdapter>(broker: &mut Broker<A>, messages: u64) {
    const AWAY: DestinationId = DestinationId(99);
    let holder = Holder::Queue(AWAY);
    for _ in 0..messages {
        let sequence = Sequence::new(Term(9), broker.number);
        let mut away = stored(sequence, 10 << 10);
        (away.destination, away.holders) = (AWAY, SmallVec::from_slice(&[Held::fresh(holder)]));
        broker.commit(vec![Op::Insert(away)]).await;
        broker.commit(vec![Op::Settle { sequence, holder }]).await;
    }
}
