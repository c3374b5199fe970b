//! The store that forgets: for tests, and for brokers that need no durability.
//!
//! Always true: each message lies in exactly one lane (destination and priority) and has at least one holder; see
//! `State::check`. "Durable" means here: in the [`MemoryStore`], which outlives its adapters. Nothing can fail but a
//! tenure that is no longer the highest.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{CommitError, Committed, MessageReader, PersistenceAdapter, StoreError, StoreLimits, Window};
use crate::types::{
    Batch, BatchNumber, Catalog, DestinationId, DurableId, Holder, Op, Priority, Sequence, Stored, Tenure, Term,
};

/// What memory adapters keep their messages in; clones share it, and each adapter opened on it sees what the last one
/// left.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps everything in memory.
#[derive(Debug)]
pub struct MemoryAdapter {
    store: MemoryStore,
    /// Of the last `raise`; nothing may be committed before.
    tenure: Option<Tenure>,
}

impl MemoryAdapter {
    /// A body is bounded by what a journal could hold, so that a broker may change its store.
    const MESSAGE_BYTES_MAX: usize = 1 << 30;

    /// An adapter on an empty store of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::open(&MemoryStore::default())
    }

    /// An adapter on `store`.
    #[must_use]
    pub fn open(store: &MemoryStore) -> Self {
        Self { store: store.clone(), tenure: None }
    }
}

impl Default for MemoryAdapter {
    fn default() -> Self {
        Self::new()
    }
}

impl PersistenceAdapter for MemoryAdapter {
    type Reader = MemoryReader;

    async fn recover(&mut self) -> Result<Catalog, StoreError> {
        Ok(self.store.lock().catalog.clone())
    }

    async fn raise(&mut self, to: Tenure) -> Result<(), StoreError> {
        let mut state = self.store.lock();
        if !to.is_above(state.catalog.tenure) {
            return Err(StoreError::Deposed);
        }
        state.catalog.tenure = to;
        self.tenure = Some(to);
        Ok(())
    }

    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<Committed, CommitError> {
        let mut state = self.store.lock();
        if self.tenure != Some(state.catalog.tenure) {
            return Err(CommitError::Deposed);
        }
        state.commit(batch);
        Ok(Committed::default())
    }

    fn reader(&self) -> MemoryReader {
        MemoryReader(self.store.clone())
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits { message_bytes_max: Self::MESSAGE_BYTES_MAX }
    }

    async fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Reads a [`MemoryStore`].
#[derive(Clone, Debug)]
pub struct MemoryReader(MemoryStore);

impl MessageReader for MemoryReader {
    async fn page(
        &self,
        destination: DestinationId,
        priority: Priority,
        after: Sequence,
        window: Window,
    ) -> Result<Vec<Stored>, StoreError> {
        let state = self.0.lock();
        let Some(lane) = state.lanes.get(&(destination, priority)) else { return Ok(Vec::new()) };
        let mut page = Vec::new();
        let mut bytes = 0;
        for stored in lane.range((Bound::Excluded(after), Bound::Unbounded)).map(|(_, stored)| stored) {
            bytes += stored.message.body.len() + stored.message.properties.as_bytes().len();
            if !page.is_empty() && (page.len() >= window.messages || bytes > window.bytes) {
                break;
            }
            page.push(stored.clone());
        }
        Ok(page)
    }
}

type Lane = (DestinationId, Priority);

#[derive(Debug, Default)]
struct State {
    catalog: Catalog,
    lanes: BTreeMap<Lane, BTreeMap<Sequence, Stored>>,
    /// Where each message lies.
    lane_of: HashMap<Sequence, Lane>,
    /// The last batch; its repetition changes nothing.
    last: Option<(Term, BatchNumber)>,
}

impl State {
    fn commit(&mut self, batch: &Batch) {
        let this = (self.catalog.tenure.term, batch.number);
        if self.last == Some(this) {
            return;
        }
        for op in &batch.ops {
            self.apply(op);
            self.catalog.apply(op);
        }
        self.last = Some(this);
        debug_assert!(self.lane_of.len() > 1_000 || self.check()); // bounded, so that a debug build can carry load
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Insert(stored) => self.insert(stored),
            Op::Settle { sequence, holder } => self.settle(*sequence, *holder),
            Op::Return { sequence, held } => {
                let part = self
                    .find(*sequence)
                    .and_then(|stored| stored.holders.iter_mut().find(|part| part.holder == held.holder));
                if let Some(part) = part {
                    *part = *held;
                }
            }
            Op::DeleteDurable { id } => self.delete_durable(*id),
            Op::Copy(_) | Op::Mark { .. } | Op::CreateDestination { .. } | Op::CreateDurable { .. } => {}
        }
    }

    fn insert(&mut self, stored: &Stored) {
        let lane = (stored.destination, stored.message.priority);
        if self.lane_of.contains_key(&stored.sequence) {
            return; // a message that is there already stays as it is
        }
        self.lane_of.insert(stored.sequence, lane);
        self.lanes.entry(lane).or_default().insert(stored.sequence, stored.clone());
    }

    fn settle(&mut self, sequence: Sequence, holder: Holder) {
        let Some(stored) = self.find(sequence) else { return };
        stored.holders.retain(|part| part.holder != holder);
        if stored.holders.is_empty() {
            self.remove(sequence);
        }
    }

    fn delete_durable(&mut self, id: DurableId) {
        let held: Vec<Sequence> = (self.lanes.values().flatten())
            .filter(|(_, stored)| stored.holders.iter().any(|part| part.holder == Holder::Durable(id)))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in held {
            self.settle(sequence, Holder::Durable(id));
        }
    }

    fn find(&mut self, sequence: Sequence) -> Option<&mut Stored> {
        let lane = self.lane_of.get(&sequence)?;
        self.lanes.get_mut(lane)?.get_mut(&sequence)
    }

    fn remove(&mut self, sequence: Sequence) {
        let Some(lane) = self.lane_of.remove(&sequence) else { return };
        if let Some(messages) = self.lanes.get_mut(&lane) {
            messages.remove(&sequence);
            if messages.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }

    fn check(&self) -> bool {
        let lying: usize = self.lanes.values().map(BTreeMap::len).sum();
        assert_eq!(lying, self.lane_of.len(), "each message lies in exactly one lane");
        for (lane, messages) in &self.lanes {
            for (sequence, stored) in messages {
                assert_eq!(self.lane_of.get(sequence), Some(lane), "{sequence} lies where it is looked for");
                assert!(!stored.holders.is_empty(), "{sequence} has a holder");
            }
        }
        true
    }
}
