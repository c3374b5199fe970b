//! What comes due: expiries, redeliveries, slow subscriptions. In order, so that one timer serves all.

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
pub(super) struct Deadlines {
    /// What makes dead letters may have to wait, and nothing else with it.
    deaths: BTreeSet<(Timestamp, Deadline)>,
    others: BTreeSet<(Timestamp, Deadline)>,
}

impl Deadlines {
    /// When a persistent message expires next.
    pub(super) fn next_death(&self) -> Option<Timestamp> {
        self.deaths.first().map(|(at, _)| *at)
    }

    /// When anything else is due next.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.others.first().map(|(at, _)| *at)
    }

    /// Takes the soonest one out if it is due.
    pub(super) fn take_due(&mut self, now: Timestamp, may_die: bool) -> Option<Deadline> {
        let death = self.deaths.first().filter(|_| may_die);
        let dies_first = death.is_some_and(|death| self.others.first().is_none_or(|other| death < other));
        let soonest = if dies_first { &mut self.deaths } else { &mut self.others };
        soonest.first().filter(|(at, _)| *at <= now)?;
        soonest.pop_first().map(|(_, deadline)| deadline)
    }

    /// A message lies in a queue from now on; nothing if it never expires.
    pub(super) fn watch_expiry(&mut self, queue: QueueKey, entry: &Entry) {
        let expiry = Self::expiry(queue, entry);
        self.expiries(entry).extend(expiry);
    }

    /// A message was taken out of a queue.
    pub(super) fn unwatch_expiry(&mut self, queue: QueueKey, entry: &Entry) {
        if let Some(expiry) = Self::expiry(queue, entry) {
            self.expiries(entry).remove(&expiry);
        }
    }

    pub(super) fn watch_redelivery(&mut self, queue: QueueKey, due: Timestamp) {
        self.others.insert((due, Deadline::Redelivery(queue)));
    }

    pub(super) fn watch_slowness(&mut self, queue: QueueKey, at: Timestamp) {
        self.others.insert((at, Deadline::SlowSubscription(queue)));
    }

    fn expiries(&mut self, entry: &Entry) -> &mut BTreeSet<(Timestamp, Deadline)> {
        if entry.message.persistent { &mut self.deaths } else { &mut self.others }
    }

    fn expiry(queue: QueueKey, entry: &Entry) -> Option<(Timestamp, Deadline)> {
        let at = entry.message.expires?;
        Some((at, Deadline::Expiry(queue, entry.message.priority, entry.sequence)))
    }
}
