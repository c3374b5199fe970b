//! The store that forgets: for tests, and for brokers that need no durability.
//!
//! Always true: each message has at least one holder and stands in the line of each of them; see `State::check`.
//! "Durable" means here: in the [`MemoryStore`], which outlives its adapters. Nothing can fail but a tenure that is no
//! longer the highest.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound::{Excluded, Included, Unbounded},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Backlog, CommitError, DueMessage, DuePage, DueReason, MessageReader, Page, PageRange, PersistenceAdapter,
    StoreError, StoreLimits, Window,
};
use crate::types::{
    Batch, BatchNumber, Catalog, DurableId, Held, Holder, Op, Priority, Sequence, Stored, Tenure, Term, Timestamp,
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
    /// What everybody held when this adapter recovered.
    backlogs: Arc<BTreeMap<Holder, Backlog>>,
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
        Self { store: store.clone(), backlogs: Arc::default(), tenure: None }
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
        let state = self.store.lock();
        self.backlogs = Arc::new(state.backlogs());
        Ok(state.catalog.clone())
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

    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        let mut state = self.store.lock();
        if self.tenure != Some(state.catalog.tenure) {
            return Err(CommitError::Deposed);
        }
        state.commit(batch);
        Ok(())
    }

    fn reader(&self) -> MemoryReader {
        MemoryReader { store: self.store.clone(), backlogs: Arc::clone(&self.backlogs) }
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
pub struct MemoryReader {
    store: MemoryStore,
    backlogs: Arc<BTreeMap<Holder, Backlog>>,
}

impl MessageReader for MemoryReader {
    async fn page(
        &self,
        holder: Holder,
        priority: Priority,
        PageRange { after, upto }: PageRange,
        window: Window,
    ) -> Result<Page, StoreError> {
        let state = self.store.lock();
        let mut page = Page { complete: true, ..Page::default() };
        let line = state.lines.get(&(holder, priority)).filter(|_| after < upto);
        let mut bytes = 0;
        for sequence in line.into_iter().flat_map(|line| line.range((Excluded(after), Included(upto)))) {
            let Some(stored) = state.messages.get(sequence) else { continue };
            let size = stored.message.size();
            if !window.has_room(page.messages.len(), bytes, size) {
                page.complete = false;
                break;
            }
            bytes += size;
            page.messages.push(stored.clone());
        }
        Ok(page)
    }

    async fn due(
        &self,
        before: Timestamp,
        after: (Timestamp, Sequence),
        window: Window,
    ) -> Result<DuePage, StoreError> {
        let state = self.store.lock();
        let mut page = DuePage::default();
        let (mut bytes, mut last) = (0, after);
        for (at, sequence, reason) in state.due.range((Excluded((after.0, after.1, LAST_REASON)), Unbounded)) {
            let Some(stored) = state.messages.get(sequence) else { continue };
            let size = stored.message.size();
            let belongs_to_the_last = (*at, *sequence) == last;
            if *at > before || !(belongs_to_the_last || window.has_room(page.messages.len(), bytes, size)) {
                page.next = Some(*at);
                break;
            }
            bytes += size;
            last = (*at, *sequence);
            page.messages.push(DueMessage { at: *at, reason: *reason, stored: stored.clone() });
        }
        Ok(page)
    }

    async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        Ok(self.backlogs.keys().copied().collect())
    }

    async fn backlog(&self, holder: Holder) -> Result<Backlog, StoreError> {
        Ok(self.backlogs.get(&holder).copied().unwrap_or_default())
    }
}

/// Above every reason that there is.
const LAST_REASON: DueReason = DueReason::Returns(Holder::Durable(DurableId(u64::MAX)));

#[derive(Debug, Default)]
struct State {
    catalog: Catalog,
    messages: BTreeMap<Sequence, Stored>,
    /// What each holder holds.
    lines: HashMap<(Holder, Priority), BTreeSet<Sequence>>,
    /// What comes due when.
    due: BTreeSet<(Timestamp, Sequence, DueReason)>,
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
        debug_assert!(self.messages.len() > 1_000 || self.check()); // bounded, so that a debug build can carry load
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Insert(stored) => self.insert(stored),
            Op::Settle { sequence, holder } => self.settle(*sequence, *holder),
            Op::Return { sequence, held } => self.replace(*sequence, *held),
            Op::DeleteDurable { id } => self.purge(Holder::Durable(*id), Sequence::MAX),
            Op::Purge { holder, upto } => self.purge(*holder, *upto),
            Op::Mark { .. } | Op::CreateDestination { .. } | Op::CreateDurable { .. } => {}
        }
    }

    fn insert(&mut self, stored: &Stored) {
        if self.messages.contains_key(&stored.sequence) {
            return; // a message that is there already stays as it is
        }
        for held in &stored.holders {
            let line = self.lines.entry((held.holder, stored.message.priority)).or_default();
            line.insert(stored.sequence);
            self.due.extend(returning(stored.sequence, *held));
        }
        self.due.extend(expiring(stored));
        self.messages.insert(stored.sequence, stored.clone());
    }

    fn settle(&mut self, sequence: Sequence, holder: Holder) {
        let Some(stored) = self.messages.get_mut(&sequence) else { return };
        let Some(index) = stored.holders.iter().position(|held| held.holder == holder) else { return };
        if let Some(due) = returning(sequence, stored.holders.remove(index)) {
            self.due.remove(&due);
        }
        let line = (holder, stored.message.priority);
        if stored.holders.is_empty()
            && let Some(stored) = self.messages.remove(&sequence)
            && let Some(expiry) = expiring(&stored)
        {
            self.due.remove(&expiry);
        }
        if let Some(sequences) = self.lines.get_mut(&line) {
            sequences.remove(&sequence);
            if sequences.is_empty() {
                self.lines.remove(&line);
            }
        }
    }

    fn replace(&mut self, sequence: Sequence, held: Held) {
        let part = self.messages.get_mut(&sequence).map(|stored| stored.holders.iter_mut());
        let Some(part) = part.and_then(|mut parts| parts.find(|part| part.holder == held.holder)) else { return };
        if let Some(due) = returning(sequence, *part) {
            self.due.remove(&due);
        }
        *part = held;
        self.due.extend(returning(sequence, held));
    }

    fn purge(&mut self, holder: Holder, upto: Sequence) {
        let lines = self.lines.iter().filter(|((who, _), _)| *who == holder);
        for sequence in lines.flat_map(|(_, line)| line.range(..=upto)).copied().collect::<Vec<_>>() {
            self.settle(sequence, holder);
        }
    }

    fn backlogs(&self) -> BTreeMap<Holder, Backlog> {
        let mut backlogs: BTreeMap<Holder, Backlog> = BTreeMap::new();
        for ((holder, priority), line) in &self.lines {
            let backlog = backlogs.entry(*holder).or_default();
            if let Some(messages) = backlog.messages.get_mut(priority.index()) {
                *messages = line.len() as u64;
            }
            let sizes = line.iter().filter_map(|sequence| self.messages.get(sequence)).map(|one| one.message.size());
            backlog.bytes += sizes.sum::<usize>() as u64;
        }
        backlogs
    }

    fn check(&self) -> bool {
        let standing: usize = self.lines.values().map(BTreeSet::len).sum();
        let held: usize = self.messages.values().map(|stored| stored.holders.len()).sum();
        assert_eq!(standing, held, "each message stands once in the line of each holder");
        for (sequence, stored) in &self.messages {
            assert!(!stored.holders.is_empty(), "{sequence} has a holder");
            let due = stored.holders.iter().filter_map(|held| returning(*sequence, *held)).chain(expiring(stored));
            assert!(due.into_iter().all(|due| self.due.contains(&due)), "{sequence} comes due");
            for held in &stored.holders {
                let line = self.lines.get(&(held.holder, stored.message.priority));
                assert!(line.is_some_and(|line| line.contains(sequence)), "{sequence} is found by its holder");
            }
        }
        true
    }
}

fn expiring(stored: &Stored) -> Option<(Timestamp, Sequence, DueReason)> {
    stored.message.expires.map(|at| (at, stored.sequence, DueReason::Expires))
}

fn returning(sequence: Sequence, held: Held) -> Option<(Timestamp, Sequence, DueReason)> {
    held.due.map(|at| (at, sequence, DueReason::Returns(held.holder)))
}
