//! Transactions: what a client sent and acknowledged between BEGIN and COMMIT.
//!
//! Always true: nothing of a transaction is visible or settled before all of it is durable (R5). Its acknowledged
//! deliveries lie here and with no consumer, so a cumulative ACK can't reach them (R7).

use std::{collections::VecDeque, sync::Arc};

use super::{ConsumerKey, QueueKey, Verdict, consumer::InFlight};
use crate::types::{Destination, Message, Sequence};

/// An open transaction.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) sends: Vec<(Destination, Arc<Message>)>,
    pub(super) acks: Vec<Acknowledged>,
    pub(super) bytes: usize,
    /// Something of it was refused: it is never committed (R5).
    pub(super) is_cut: bool,
    /// For simulations: sequences that were given at SEND.
    pub(super) numbered: VecDeque<Sequence>,
}

impl Transaction {
    /// Sends and acks together.
    pub(super) fn operations(&self) -> usize {
        self.sends.len() + self.acks.len()
    }
}

/// A delivery that a transaction has acknowledged.
#[derive(Debug)]
pub(super) struct Acknowledged {
    /// Who had it; may be gone when the transaction ends.
    pub(super) consumer: ConsumerKey,
    /// Where it lies.
    pub(super) queue: QueueKey,
    pub(super) in_flight: InFlight,
    pub(super) verdict: Verdict,
}
