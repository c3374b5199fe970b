//! What operators want to know of the core: plain counts, kept as messages pass, and levels that are read when asked for.
//!
//! Always true: a count only grows within a term. Nothing is kept for a reader that a message would have to pay for but
//! an addition.

use std::{
    collections::HashMap,
    ops::{Add, AddAssign},
};

use super::{
    Core, QueueKey,
    core::{Place, PlaceRole},
};
use crate::types::{Destination, DestinationKind, Text};

/// So many destinations, and so many durable subscriptions, are told by name: those that were made first, so that nobody
/// comes and goes between two looks. All others are summed up, and temporary destinations always.
pub const NAMED_MAX: usize = 1_000;

/// What happened to messages since the term began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Taken from clients, in transactions when they were committed.
    pub received: u64,
    /// Handed to consumers, each time.
    pub delivered: u64,
    /// Of these, marked as redelivered.
    pub redelivered: u64,
    /// Done with by a consumer's acknowledgement, an automatic one too; one for each holder.
    pub acknowledged: u64,
    /// Found to have expired; one for each holder.
    pub expired: u64,
    /// Made a dead letter.
    pub dead_lettered: u64,
}

/// What came to a destination, and what left it for good, since the term began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Messages that were put there.
    pub enqueued: u64,
    /// Messages that left: acknowledged, expired, made dead letters, or refused by the store.
    pub dequeued: u64,
}

impl Passed {
    /// Adds what left elsewhere, where nothing came from but this.
    pub(super) fn add_left(&mut self, other: Self) {
        self.dequeued += other.dequeued;
    }
}

/// A destination at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DestinationStatistics {
    /// What waits or is in flight; of a topic: in all its subscriptions together.
    pub messages: usize,
    /// The same. Unit: bytes.
    pub bytes: usize,
    /// Of these, what consumers have and have not acknowledged.
    pub in_flight: usize,
    /// Who consumes from it.
    pub consumers: usize,
    /// What came and went.
    pub passed: Passed,
}

impl Add for DestinationStatistics {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            messages: self.messages + other.messages,
            bytes: self.bytes + other.bytes,
            in_flight: self.in_flight + other.in_flight,
            consumers: self.consumers + other.consumers,
            passed: Passed {
                enqueued: self.passed.enqueued + other.passed.enqueued,
                dequeued: self.passed.dequeued + other.passed.dequeued,
            },
        }
    }
}

impl AddAssign for DestinationStatistics {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// A durable subscription at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableStatistics {
    /// Whose it is.
    pub client_id: Text,
    /// Its name.
    pub name: Text,
    /// What it is subscribed to.
    pub topic: Destination,
    /// What it holds.
    pub of: DestinationStatistics,
}

/// The core at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// What happened to messages.
    pub totals: Totals,
    /// How many destinations there are, temporary ones included.
    pub destinations: usize,
    /// Durable subscriptions, whether somebody consumes from them or not.
    pub durable_subscriptions: usize,
    /// Transactions that were begun and not ended.
    pub open_transactions: usize,
    /// Destinations by name, [`NAMED_MAX`] at most.
    pub named: Vec<(Destination, DestinationStatistics)>,
    /// All other queues together.
    pub other_queues: DestinationStatistics,
    /// All other topics together.
    pub other_topics: DestinationStatistics,
    /// Durable subscriptions by name, [`NAMED_MAX`] at most.
    pub named_durables: Vec<DurableStatistics>,
    /// All others together.
    pub other_durables: DestinationStatistics,
}

/// Consumers of a queue, and what they have not acknowledged.
type Consuming = HashMap<QueueKey, (usize, usize), foldhash::fast::FixedState>;

impl Core {
    /// Looks at every destination once, which takes about as long as handing out that many messages.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let consuming = self.consuming();
        let mut statistics = Statistics {
            totals: self.totals,
            destinations: self.places.len(),
            durable_subscriptions: self.durables.len(),
            open_transactions: self.sessions.values().map(|session| session.transactions.len()).sum(),
            ..Statistics::default()
        };
        let named_upto = smallest(self.places.values().filter_map(|place| place.id), NAMED_MAX);
        for (destination, place) in &self.places {
            let of = self.place_statistics(place, &consuming);
            let named = place.id.is_some_and(|id| named_upto.is_none_or(|upto| id <= upto));
            match destination.kind() {
                _ if named => statistics.named.push((destination.clone(), of)),
                DestinationKind::Queue | DestinationKind::TemporaryQueue => statistics.other_queues += of,
                DestinationKind::Topic | DestinationKind::TemporaryTopic => statistics.other_topics += of,
            }
        }
        let named_upto = smallest(self.durables.values().map(|durable| durable.id), NAMED_MAX);
        for ((client_id, name), durable) in &self.durables {
            let of = self.queue_statistics(durable.queue, &consuming);
            if named_upto.is_none_or(|upto| durable.id <= upto) {
                let (client_id, name, topic) = (client_id.clone(), name.clone(), durable.topic.clone());
                statistics.named_durables.push(DurableStatistics { client_id, name, topic, of });
            } else {
                statistics.other_durables += of;
            }
        }
        statistics
    }

    fn consuming(&self) -> Consuming {
        let mut consuming = Consuming::default();
        for consumer in self.consumers.values() {
            let (consumers, in_flight) = consuming.entry(consumer.queue).or_default();
            *consumers += 1;
            *in_flight += consumer.unsettled();
        }
        consuming
    }

    fn place_statistics(&self, place: &Place, consuming: &Consuming) -> DestinationStatistics {
        match &place.role {
            PlaceRole::Queue(key) => self.queue_statistics(*key, consuming),
            PlaceRole::Topic(subscriptions) => {
                let held = subscriptions.iter().map(|key| self.queue_statistics(*key, consuming));
                let mut of = held.fold(DestinationStatistics::default(), Add::add);
                // What one message became in each subscription came to the topic once.
                of.passed.enqueued = place.passed.enqueued;
                of.passed.dequeued += place.passed.dequeued;
                of
            }
        }
    }

    fn queue_statistics(&self, key: QueueKey, consuming: &Consuming) -> DestinationStatistics {
        let Some(queue) = self.queues.get(key) else { return DestinationStatistics::default() };
        let (consumers, in_flight) = consuming.get(&key).copied().unwrap_or_default();
        DestinationStatistics {
            messages: queue.messages,
            bytes: queue.bytes,
            in_flight,
            consumers,
            passed: queue.passed,
        }
    }
}

/// The largest of the `count` smallest ids; `None`: there are no more than that.
fn smallest<Id: Ord + Copy>(ids: impl Iterator<Item = Id>, count: usize) -> Option<Id> {
    let mut ids: Vec<Id> = ids.collect();
    (ids.len() > count).then(|| *ids.select_nth_unstable(count - 1).1)
}
