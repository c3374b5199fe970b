//! What operators are told of the core.

use std::collections::BTreeMap;

use batonmq::{
    broker::{AckMode, Command, Connect, Core, Effects, NAMED_MAX, Send, Subscribe},
    types::{
        Catalog, ConsumerNo, DeliveryTag, Destination, DestinationId, DestinationKind, Message, SessionId, Term,
        Timestamp,
    },
};

use super::fixture::{draft, options, subscription};

const NOW: Timestamp = Timestamp(1_000_000);
const SESSION: SessionId = SessionId(1);

fn apply(core: &mut Core, command: Command) {
    core.apply(NOW, SESSION, command, &mut Effects::default()).unwrap();
}

fn anybody() -> Connect {
    Connect { user: None, client_id: None, lenient: false }
}

fn requester() -> Destination {
    Destination::new(DestinationKind::TemporaryQueue, "requester")
}

fn send(core: &mut Core, destination: Destination, id: &str) {
    let message = Message::new(draft(id)).into();
    apply(core, Command::Send(Send { destination, message, transaction: None }));
}

#[test]
fn destinations_beyond_a_number_are_summed_up() {
    let queues = NAMED_MAX as u64 + 5;
    let destinations = (1..=queues).map(|id| (DestinationId(id), Destination::queue(&format!("q{id}")))).collect();
    let catalog = Catalog { destinations, last_destination: DestinationId(queues), ..Catalog::default() };
    let mut options = options();
    options.limits.destinations_max = 2 * NAMED_MAX;
    let mut core = Core::recover(options, Term(1), &catalog);
    apply(&mut core, Command::Connect(anybody()));
    apply(&mut core, Command::CreateTemporary(requester()));
    for name in ["q1", "q1", &format!("q{queues}"), &format!("q{}", queues - 1)] {
        send(&mut core, Destination::queue(name), name);
    }
    send(&mut core, requester(), "to a temporary queue");

    let statistics = core.statistics();
    assert_eq!((statistics.destinations, statistics.named.len()), (NAMED_MAX + 6, NAMED_MAX));
    let named: BTreeMap<_, _> = statistics.named.iter().cloned().collect();
    assert_eq!(named[&Destination::queue("q1")].passed.enqueued, 2, "those that were made first have names");
    assert!(!named.contains_key(&Destination::queue(&format!("q{queues}"))));
    assert_eq!(statistics.other_queues.passed.enqueued, 3, "the rest is summed up, temporary ones always");
    assert_eq!(statistics.totals.received, 5);
}

#[test]
fn what_left_a_subscription_that_has_ended_still_counts() {
    let mut core = Core::recover(options(), Term(1), &Catalog::default());
    let news = Destination::topic("news");
    apply(&mut core, Command::Connect(anybody()));
    apply(&mut core, Command::Subscribe(Subscribe { ack: AckMode::Auto, ..subscription(1, news.clone()) }));
    send(&mut core, news.clone(), "one");
    send(&mut core, news.clone(), "two");
    core.written(NOW, SESSION, &[(ConsumerNo(1), DeliveryTag(1))], 1, &mut Effects::default());

    let of = |core: &Core| core.statistics().named.into_iter().find(|(name, _)| *name == news).unwrap().1;
    let before = of(&core);
    assert_eq!((before.messages, before.in_flight, before.consumers), (1, 1, 1));
    assert_eq!((before.passed.enqueued, before.passed.dequeued), (2, 1));
    core.close(NOW, SESSION, &mut Effects::default());
    let after = of(&core);
    assert_eq!((after.messages, after.consumers), (0, 0));
    assert_eq!(after.passed, before.passed, "a count never shrinks");
}
