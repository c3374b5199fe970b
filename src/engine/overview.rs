//! What operators want to know of a term: the core, the store and memory at one moment.

use super::task::Engine;
use crate::broker::Statistics;

/// A term at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// Queues, topics and what passed through them.
    pub core: Statistics,
    /// What the store does.
    pub store: StoreOverview,
    /// Sessions whose SENDs wait, for whatever reason.
    pub held_sessions: usize,
    /// What is in memory. Unit: bytes.
    pub memory_bytes: usize,
    /// For how much it may. Unit: bytes.
    pub memory_bytes_max: usize,
}

/// What the store does at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOverview {
    /// Whether it has no room.
    pub is_full: bool,
    /// Batches that were handed to it and not answered.
    pub batches_under_way: usize,
    /// What waits for the next batch. Unit: bytes.
    pub waiting_bytes: usize,
    /// What it answered so far.
    pub answers: Answers,
}

/// What a store answered in this term, by what followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Durable.
    pub committed: u64,
    /// It had no room.
    pub full: u64,
    /// It asked to try again.
    pub again: u64,
    /// Nobody knows; it was repeated under a higher token (R11).
    pub unknown: u64,
    /// It never takes it (R13).
    pub refused: u64,
}

impl Engine {
    pub(super) fn overview(&self) -> Overview {
        Overview {
            core: self.core.statistics(),
            store: self.writer.overview(),
            held_sessions: self.held.len(),
            memory_bytes: self.meter.in_use(),
            memory_bytes_max: self.meter.limit(),
        }
    }
}
