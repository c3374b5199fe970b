//! A message as it lies in a queue, or with the consumer that has it.

use std::sync::Arc;

use crate::types::{Held, Holder, Message, Sequence, Timestamp};

/// What the store has to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// It never hears of it.
    Never,
    /// It has it, or will.
    Stored,
    /// It refused it while the message was out: a late ack is accepted and writes nothing, and it never returns (R13).
    Withdrawn,
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) sequence: Sequence,
    pub(super) message: Arc<Message>,
    /// Whether settling it is an operation.
    pub(super) storage: Storage,
    /// Whether its transaction is not durable yet (R5).
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
    pub(super) fn new(sequence: Sequence, message: Arc<Message>) -> Self {
        Self {
            sequence,
            message,
            storage: Storage::Never,
            hidden: false,
            redelivered: false,
            deliveries: 0,
            failures: 0,
            shared: false,
        }
    }

    /// The holder's part as the store keeps it.
    pub(super) fn held(&self, holder: Holder, due: Option<Timestamp>) -> Held {
        Held { holder, deliveries: self.deliveries, failures: self.failures, due }
    }
}
