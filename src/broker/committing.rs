//! Units on their way to the disk: transactions, and dead letters with the messages that they are made of.
//!
//! Always true: nothing that a unit brings is visible, and nothing that it settles is gone, before all of it is durable
//! (R5). A unit that is refused is as if it had never been: what it brings leaves its queues, and what it was to settle
//! is there again.

use smallvec::SmallVec;

use super::{Change, Core, Effects, QueueKey, entry::Entry, transaction::Acknowledged};
use crate::types::{Op, Priority, Sequence, SessionId, Timestamp};

/// A unit's number, unique in the term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(u64);

/// Where messages lie that nobody may see yet.
pub(super) type Hidden = SmallVec<[(QueueKey, Priority, Sequence); 1]>;

/// A unit on its way to the disk.
#[derive(Debug)]
pub(super) struct Committing {
    /// What becomes visible.
    pub(super) hidden: Hidden,
    /// Since when: what it gives back is due from then on.
    pub(super) since: Timestamp,
    /// What a transaction settles or gives back then.
    pub(super) acks: Vec<Acknowledged>,
    /// What a dead letter is made of, and where that lay.
    pub(super) dying: Option<(QueueKey, Entry)>,
}

impl Committing {
    /// What it settles or gives back, and where that lay.
    pub(super) fn leaving_mut(&mut self) -> impl Iterator<Item = (QueueKey, &mut Entry)> {
        let acks = self.acks.iter_mut().map(|acknowledged| (acknowledged.queue, &mut acknowledged.in_flight.entry));
        acks.chain(self.dying.as_mut().map(|(key, entry)| (*key, entry)))
    }
}

impl Core {
    /// Sends a unit on its way. One that the store need not hear of is there at once.
    pub(super) fn set_out(
        &mut self,
        now: Timestamp,
        committing: Committing,
        ops: SmallVec<[Op; 1]>,
        origin: Option<SessionId>,
        effects: &mut Effects,
    ) {
        let id = self.next_unit();
        let awaited = committing.dying.is_none();
        self.committing.insert(id, committing);
        if ops.is_empty() {
            self.committed(now, id, effects);
        } else {
            effects.changes.push(Change::Unit { origin, ops, id, awaited });
        }
    }

    pub(super) fn next_unit(&mut self) -> UnitId {
        self.last_unit = UnitId(self.last_unit.0 + 1);
        self.last_unit
    }

    /// A unit is durable: what it brings becomes visible, what it settles is gone.
    pub fn committed(&mut self, now: Timestamp, id: UnitId, effects: &mut Effects) {
        let Some(committing) = self.committing.remove(&id) else { return };
        let mut queues: Vec<QueueKey> = Vec::new();
        for (key, priority, sequence) in &committing.hidden {
            let Some(queue) = self.queues.get_mut(*key) else { continue };
            if let Some(entry) = queue.reveal(*priority, *sequence) {
                self.deadlines.watch_expiry(*key, entry); // it may have come due while nobody could see it
                queues.push(*key);
            }
        }
        for acknowledged in committing.acks {
            queues.push(acknowledged.queue);
            self.complete_answer(committing.since, acknowledged, effects);
        }
        if let Some((key, entry)) = committing.dying {
            queues.push(key);
            self.totals.dead_lettered += 1;
            self.forget_for_good(committing.since, key, &entry, effects);
        }
        self.dispatch_all(now, queues, effects);
        for sent in committing.hidden.chunk_by(|(.., one), (.., other)| one == other) {
            let Some((_, priority, sequence)) = sent.first().copied() else { continue };
            let targets: SmallVec<[QueueKey; 4]> = sent.iter().map(|(key, ..)| *key).collect();
            self.spool(now, &targets, priority, sequence, effects);
        }
    }

    /// The store refused a unit: a transaction is aborted, and what was to be a dead letter stays a message (R13).
    pub fn commit_refused(&mut self, now: Timestamp, id: UnitId, effects: &mut Effects) {
        let Some(committing) = self.committing.remove(&id) else { return };
        let mut queues: Vec<QueueKey> = Vec::new();
        for (key, priority, sequence) in committing.hidden {
            let Some(queue) = self.queues.get_mut(key) else { continue };
            if let Some(entry) = queue.take(priority, sequence) {
                queue.forget(&entry);
                self.deadlines.unwatch_expiry(key, &entry);
                queues.push(key);
            }
        }
        self.give_back(now, committing.acks, effects);
        if let Some((key, entry)) = committing.dying {
            queues.push(key);
            self.postpone_death(now, key, entry, None, effects);
        }
        self.dispatch_all(now, queues, effects);
    }
}
