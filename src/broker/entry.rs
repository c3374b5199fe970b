//! A message as it lies in a queue, or with the consumer that has it.

use std::sync::Arc;

use crate::types::{Held, Holder, Message, Sequence, Stored, Timestamp};

/// What the store has to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// It never hears of it.
    Never,
    /// It has it, or will.
    Stored,
    /// It never hears of it, but the spool has it, or will (R32).
    Spooled,
    /// It refused it while the message was out: a late ack is accepted and writes nothing, and it never returns (R13).
    Withdrawn,
    /// It was purged while the message was out: it never returns, and whatever becomes of it is a settle, so that an ack
    /// is not confirmed before the purge is durable (R29).
    Purged,
}

/// Up to when what was changed can be read again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// What was changed before this is durable.
    pub stored_before: Timestamp,
    /// What was spooled before this can be read.
    pub spooled_before: Timestamp,
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) sequence: Sequence,
    pub(super) message: Arc<Message>,
    /// When what the store knows of it was changed last.
    pub(super) changed: Timestamp,
    /// Whether settling it is an operation.
    pub(super) storage: Storage,
    /// Whether its unit is not durable yet (R5).
    pub(super) hidden: bool,
    /// Whether an earlier delivery can't be ruled out (R9).
    pub(super) redelivered: bool,
    /// Deliveries begun so far.
    pub(super) deliveries: u32,
    /// Deliveries that count towards a policy's attempts.
    pub(super) failures: u32,
    /// Whether other subscriptions got the same message.
    pub(super) shared: bool,
}

impl Entry {
    /// A message that enters a queue.
    pub(super) fn new(now: Timestamp, sequence: Sequence, message: Arc<Message>) -> Self {
        Self {
            sequence,
            message,
            changed: now,
            storage: Storage::Never,
            hidden: false,
            redelivered: false,
            deliveries: 0,
            failures: 0,
            shared: false,
        }
    }

    /// A message that comes back into memory; `part` is its holder's.
    pub(super) fn read(storage: Storage, stored: &Stored, part: &Held, redelivered: bool) -> Self {
        Self {
            storage,
            redelivered: redelivered || part.deliveries > 0,
            deliveries: part.deliveries,
            failures: part.failures,
            shared: stored.holders.len() > 1,
            ..Self::new(Timestamp(0), stored.sequence, stored.message.clone())
        }
    }

    /// What it takes. Unit: bytes.
    pub(super) fn size(&self) -> usize {
        self.message.size()
    }

    /// Whether it can be read again as it is here, so that it may leave memory (R25).
    pub(super) fn may_leave(&self, kept: Kept) -> bool {
        let is_kept = match self.storage {
            Storage::Stored => self.changed < kept.stored_before,
            Storage::Spooled => self.changed < kept.spooled_before,
            Storage::Never | Storage::Withdrawn | Storage::Purged => false,
        };
        is_kept && !self.hidden
    }

    /// Whether the store has it, or will, and is to hear when it is settled.
    pub(super) fn is_stored(&self) -> bool {
        matches!(self.storage, Storage::Stored | Storage::Purged)
    }

    /// Whether its queue does not want it back: it was withdrawn or purged while it was out.
    pub(super) fn is_disowned(&self) -> bool {
        matches!(self.storage, Storage::Withdrawn | Storage::Purged)
    }

    /// The same after one more delivery that counts towards a policy's attempts.
    pub(super) fn failed(&self) -> Self {
        Self { failures: self.failures.saturating_add(1), ..self.clone() }
    }

    /// The holder's part as the store keeps it.
    pub(super) fn held(&self, holder: Holder, due: Option<Timestamp>) -> Held {
        Held { holder, deliveries: self.deliveries, failures: self.failures, due }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::types::{MessageDraft, Term};

    pub(in super::super) fn at(counter: u64) -> Sequence {
        Sequence::new(Term(1), counter)
    }

    pub(in super::super) fn entry(counter: u64) -> Entry {
        Entry::new(Timestamp(0), at(counter), Arc::new(Message::new(MessageDraft::default())))
    }

    /// One that may leave memory.
    pub(in super::super) fn stored(counter: u64) -> Entry {
        Entry { storage: Storage::Stored, ..entry(counter) }
    }
}
