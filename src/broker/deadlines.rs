//! What comes due: expiries, redeliveries, slow subscriptions. One ordered set, so that one timer serves all.

use std::collections::BTreeSet;

use super::{QueueKey, entry::Entry};
use crate::types::{Priority, Sequence, Timestamp};

/// Something that happens at a time unless it is called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// A message that lies in a queue expires.
    Expiry(QueueKey, Priority, Sequence),
    /// A queue has something to give back.
    Redelivery(QueueKey),
    /// A topic subscription has been over its bound for too long.
    SlowSubscription(QueueKey),
}

/// All deadlines, soonest first.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Timestamp, Deadline)>);

impl Deadlines {
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes the soonest one out if it is due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<Deadline> {
        self.0.first().filter(|(at, _)| *at <= now)?;
        self.0.pop_first().map(|(_, deadline)| deadline)
    }

    /// A message lies in a queue from now on; nothing if it never expires.
    pub(super) fn watch_expiry(&mut self, queue: QueueKey, entry: &Entry) {
        self.0.extend(Self::expiry(queue, entry));
    }

    /// A message was taken out of a queue.
    pub(super) fn unwatch_expiry(&mut self, queue: QueueKey, entry: &Entry) {
        if let Some(expiry) = Self::expiry(queue, entry) {
            self.0.remove(&expiry);
        }
    }

    pub(super) fn watch_redelivery(&mut self, queue: QueueKey, due: Timestamp) {
        self.0.insert((due, Deadline::Redelivery(queue)));
    }

    pub(super) fn watch_slowness(&mut self, queue: QueueKey, at: Timestamp) {
        self.0.insert((at, Deadline::SlowSubscription(queue)));
    }

    fn expiry(queue: QueueKey, entry: &Entry) -> Option<(Timestamp, Deadline)> {
        let at = entry.message.expires?;
        Some((at, Deadline::Expiry(queue, entry.message.priority, entry.sequence)))
    }
}
