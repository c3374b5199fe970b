//! What random clients see when they browse: what lay in a queue all the time is shown once and in its order, and
//! nothing is that was gone before.

use std::collections::{BTreeMap, BTreeSet};

use batonmq::{
    broker::{AckMode, Browse, Command, Delivery, Request, Unsubscribe},
    types::{ConsumerNo, Destination, Priority, Timestamp},
};

use super::{
    broker::{Client, plain},
    promises::{Promises, QUEUES},
};
use crate::harness::Rng;

/// Consumers have lower numbers.
const FIRST_BROWSER: u32 = 1_000;

/// One client's browses.
#[derive(Default)]
pub(super) struct Looks {
    running: BTreeMap<ConsumerNo, Look>,
    begun: u32,
    /// So many messages were shown to it.
    pub(super) shown: u64,
}

/// A browse that is not over.
struct Look {
    queue: &'static str,
    /// What was promised then to be kept.
    owed: BTreeSet<String>,
    /// What was acknowledged and confirmed then.
    done: BTreeSet<String>,
    shown: BTreeSet<String>,
    /// The last of each sender and priority.
    last: BTreeMap<(String, Priority), u64>,
    priority: Priority,
    /// The last that the kernel does not have.
    unread: Option<Delivery>,
}

impl Looks {
    /// Begins to look into a queue.
    pub(super) fn begin(&mut self, seed: &mut Rng, promises: &Promises) -> Request {
        let (consumer, queue) = (ConsumerNo(FIRST_BROWSER + self.begun), seed.pick(&QUEUES));
        self.begun += 1;
        let lies_there = |id: &&String| promises.lies_in.get(*id) == Some(&queue);
        let look = Look {
            queue,
            owed: promises.owed.iter().filter(lies_there).cloned().collect(),
            done: promises.done.clone(),
            shown: BTreeSet::new(),
            last: BTreeMap::new(),
            priority: Priority::HIGHEST,
            unread: None,
        };
        self.running.insert(consumer, look);
        let (destination, prefetch) = (Destination::queue(queue), seed.pick(&[1, 3, 500]));
        plain(Command::Browse(Browse { consumer, destination, ack: AckMode::Auto, prefetch }))
    }

    /// Is tired of one.
    pub(super) fn end_one(&mut self) -> Option<Request> {
        let (consumer, _) = self.running.pop_first()?;
        Some(plain(Command::Unsubscribe(Unsubscribe { consumer: Some(consumer), durable: None })))
    }

    pub(super) fn are_over(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn are_of(&self, consumer: ConsumerNo) -> bool {
        consumer.0 >= FIRST_BROWSER
    }

    /// The kernel has what was shown.
    pub(super) async fn take_in(&mut self, client: &Client) {
        for look in self.running.values_mut() {
            if let Some(last) = look.unread.take() {
                client.took(&last).await;
            }
        }
    }

    pub(super) fn show(&mut self, delivery: Delivery) {
        let Some(look) = self.running.get_mut(&delivery.consumer) else { return }; // it is tired of it
        self.shown += 1;
        let id = delivery.message.id.to_string();
        assert!(look.shown.insert(id.clone()), "{id} is shown twice");
        assert!(!look.done.contains(&id), "{id} was acknowledged before");
        let (sender, number) = id.trim_start_matches("refuse ").split_once(':').unwrap();
        let number = number.parse().unwrap();
        let priority = delivery.message.priority;
        assert!(priority <= look.priority, "{id} is out of turn");
        look.priority = priority;
        let before = look.last.insert((sender.to_owned(), priority), number).unwrap_or(0);
        assert!(before < number, "{id} after {before}");
        look.unread = Some(delivery);
    }

    pub(super) fn end(&mut self, browser: ConsumerNo, promises: &Promises, now: Timestamp) {
        let Some(look) = self.running.remove(&browser) else { return };
        let lives = |id: &String| promises.expires.get(id).is_none_or(|expires| *expires > now);
        let stayed = look.owed.iter().filter(|id| !promises.acked.contains(*id) && !promises.rejected.contains(*id));
        for id in stayed.filter(|id| lives(id)) {
            assert!(look.shown.contains(id), "{id} lay in {} all the time and was not shown", look.queue);
        }
    }
}
