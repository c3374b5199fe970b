//! What is read of a store beside its writer: stretches of queues, what comes due, and how much there is.

use super::{Holder, Priority, Sequence, Stored, Timestamp};

/// A stretch of one holder's messages of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// Behind this one.
    pub after: Sequence,
    /// Up to this one, and it too. Whoever asks knows that everything up to here is durable (R25).
    pub upto: Sequence,
}

/// How much one read may bring: at least one message, then up to both bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bound in messages.
    pub messages: usize,
    /// Bound in bytes, as `Message::size` counts.
    pub bytes: usize,
}

impl Window {
    /// Whether what holds this much already has room for a message of `size` bytes.
    #[must_use]
    pub fn has_room(self, messages: usize, bytes: usize, size: usize) -> bool {
        messages == 0 || (messages < self.messages && bytes.saturating_add(size) <= self.bytes)
    }
}

/// What a stretch holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Oldest first, with everybody who still holds them.
    pub messages: Vec<Stored>,
    /// Whether there is nothing more in the stretch.
    pub complete: bool,
}

/// Why a message comes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DueReason {
    /// It expires.
    Expires,
    /// It was returned to this holder and may be delivered again.
    Returns(Holder),
}

/// A message that comes due.
#[derive(Clone, Debug, PartialEq)]
pub struct DueMessage {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: DueReason,
    /// The message.
    pub stored: Stored,
}

/// What comes due, soonest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DuePage {
    /// By time and sequence.
    pub messages: Vec<DueMessage>,
    /// When the next one comes due that is not in here; `None`: none ever does.
    pub next: Option<Timestamp>,
}

/// How much a holder held when the store was recovered (R28).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// By priority.
    pub messages: [u64; Priority::COUNT],
    /// Unit: bytes; may be an estimate.
    pub bytes: u64,
}
