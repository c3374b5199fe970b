//! A store whose answers a test decides, and which holds the writer to its rules.
//!
//! What it keeps outlives the engine, so that a test can look at it or start a new engine on it. A rule that is broken
//! panics in the store's task, with the rule's number.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use batonmq::{
    persistence::{
        Backlog, CommitError, DuePage, MessageReader, Page, PageRange, PersistenceAdapter, StoreError, StoreLimits,
        Window,
    },
    types::{Batch, Catalog, Holder, Op, Priority, Sequence, Tenure, Timestamp},
};
use tokio::{sync::Notify, time::timeout};

use super::broker::BLOCKER;
use crate::harness::Rows;

/// Longer than everything that the engine waits for by itself. Paused time passes at once when nobody works.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// What the store says to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Done,
    Refused,
    Full,
    Again,
    /// The connection dies; whether the batch was applied is for the test to know.
    Unknown {
        applied: bool,
    },
    Deposed,
}

/// A test's hand on the store. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Store {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    rows: Rows,
    /// Everything that was ever asked for.
    commits: Vec<Arc<Batch>>,
    raises: Vec<Tenure>,
    /// How often it was given a turn of its own.
    turns: usize,
    /// Requests wait while this is set.
    held: bool,
    /// What is said next, before the rules below.
    script: VecDeque<Reply>,
    raise_script: VecDeque<StoreError>,
    /// Batches that make a message, destination or durable subscription whose name contains this are refused.
    refuses: Option<&'static str>,
    /// Batches that insert are not taken.
    full: bool,
    /// Not even settles are taken.
    brimful: bool,
    rules: Rules,
}

impl Store {
    /// Requests wait from now on.
    pub(super) fn hold(&self) {
        self.lock().held = true;
    }

    /// Requests that wait go on.
    pub(super) fn let_go(&self) {
        self.lock().held = false;
        self.changed.notify_waiters();
    }

    /// Forgets what it was to say.
    pub(super) fn calm(&self) {
        self.lock().script.clear();
    }

    /// What the next batches are told.
    pub(super) fn will_say(&self, replies: impl IntoIterator<Item = Reply>) {
        self.lock().script.extend(replies);
    }

    pub(super) fn will_not_raise(&self, error: StoreError) {
        self.lock().raise_script.push_back(error);
    }

    pub(super) fn refuse(&self, marker: &'static str) {
        self.lock().refuses = Some(marker);
    }

    pub(super) fn refuse_nothing(&self) {
        self.lock().refuses = None;
    }

    /// How often it was given a turn of its own.
    pub(super) fn turns(&self) -> usize {
        self.lock().turns
    }

    pub(super) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    pub(super) fn set_brimful(&self, brimful: bool) {
        self.lock().brimful = brimful;
    }

    /// Waits until so many batches were asked for since the beginning.
    pub(super) async fn asked_for(&self, commits: usize) {
        self.until(&format!("{commits} batches"), |state| state.commits.len() >= commits).await;
    }

    /// Waits until what is kept is this, in the order of acceptance.
    pub(super) async fn keeps(&self, ids: &[&str]) {
        self.until(&format!("the store to keep {ids:?}"), |state| state.ids() == ids).await;
    }

    async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let waited = timeout(PATIENCE, async {
            loop {
                let changed = self.changed.notified();
                if condition(&self.lock()) {
                    return;
                }
                changed.await;
            }
        });
        let result = waited.await;
        assert!(result.is_ok(), "waited for {what}, but {:?} is kept after {:?}", self.ids(), self.commits());
    }

    /// The ids of what is kept, in the order of acceptance, less the one that kept the store busy.
    pub(super) fn ids(&self) -> Vec<String> {
        self.lock().ids()
    }

    /// Every batch that was asked for, repeated ones too.
    pub(super) fn commits(&self) -> Vec<Arc<Batch>> {
        self.lock().commits.clone()
    }

    /// The ids of everything that was ever asked to be inserted, in that order.
    pub(super) fn inserted(&self) -> Vec<String> {
        let commits = self.commits();
        let inserts = commits.iter().flat_map(|batch| &batch.ops).filter_map(|op| match op {
            Op::Insert(stored) => Some(stored.message.id.to_string()),
            _ => None,
        });
        inserts.collect()
    }

    pub(super) fn raises(&self) -> Vec<Tenure> {
        self.lock().raises.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn while_held(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.lock().held {
                return;
            }
            changed.await;
        }
    }
}

impl State {
    fn ids(&self) -> Vec<String> {
        self.rows.ids().filter(|id| id != BLOCKER).collect()
    }

    fn reply_to(&mut self, batch: &Batch) -> Reply {
        let name = |op: &Op| match op {
            Op::Insert(stored) => stored.message.id.to_string(),
            Op::CreateDestination { destination, .. } => destination.name().to_string(),
            Op::CreateDurable { durable, .. } => durable.name.to_string(),
            _ => String::new(),
        };
        let inserts = batch.ops.iter().any(|op| matches!(op, Op::Insert(_)));
        if self.refuses.is_some_and(|marker| batch.ops.iter().any(|op| name(op).contains(marker))) {
            Reply::Refused // whatever else happens to it, it is never taken
        } else if let Some(reply) = self.script.pop_front() {
            reply
        } else if self.brimful || self.full && inserts {
            Reply::Full
        } else {
            Reply::Done
        }
    }
}

/// What the writer has promised so far.
#[derive(Default)]
struct Rules {
    /// The batch that has to be repeated before any other.
    unresolved: Option<Arc<Batch>>,
    /// Whether the token has to be raised before that.
    raise_first: bool,
    last_number: u64,
    settled: BTreeSet<(Sequence, Holder)>,
    /// Up to where each holder was purged.
    purged: BTreeMap<Holder, Sequence>,
}

impl Rules {
    fn begin_term(&mut self) {
        let (settled, purged) = (std::mem::take(&mut self.settled), std::mem::take(&mut self.purged));
        *self = Self { settled, purged, ..Self::default() };
    }

    fn see_commit(&mut self, batch: &Arc<Batch>) {
        assert!(!self.raise_first, "R11: raise before repeating");
        match self.unresolved.take() {
            Some(before) => assert_eq!(*before, **batch, "R12: a batch that is not resolved is repeated as it was"),
            None => assert!(
                batch.number.0 > self.last_number,
                "R13: numbers rise, {:?} after {}",
                batch.number,
                self.last_number
            ),
        }
        self.last_number = batch.number.0;
        let mut rows = HashSet::new();
        for op in &batch.ops {
            for row in rows_of(op) {
                assert!(rows.insert(row), "R1: two operations on {row:?} in {batch:?}");
            }
        }
        for op in &batch.ops {
            let Op::Purge { holder, upto } = op else { continue };
            let met = rows.iter().find(|(sequence, by)| by == holder && sequence <= upto);
            assert_eq!(met, None, "R1: it is purged, too, in {batch:?}");
        }
    }

    fn see_raise(&mut self, last: Tenure, to: Tenure) {
        assert!(to.token > last.token && to.term >= last.term, "R11: {to:?} after {last:?}");
        self.raise_first = false;
    }

    fn see_reply(&mut self, batch: &Arc<Batch>, reply: Reply) {
        match reply {
            Reply::Again => self.unresolved = Some(batch.clone()),
            Reply::Unknown { .. } => (self.unresolved, self.raise_first) = (Some(batch.clone()), true),
            Reply::Done => self.see_durable(batch),
            Reply::Refused | Reply::Full | Reply::Deposed => {}
        }
    }

    fn see_durable(&mut self, batch: &Batch) {
        for op in &batch.ops {
            if let Op::Purge { holder, upto } = op {
                let purged = self.purged.entry(*holder).or_default();
                *purged = (*purged).max(*upto);
            }
            for row in rows_of(op) {
                if matches!(op, Op::Settle { .. }) {
                    self.settled.insert(row);
                    continue;
                }
                assert!(!self.settled.contains(&row), "R14: {op:?} follows its settle");
                let is_purged = self.purged.get(&row.1).is_some_and(|upto| row.0 <= *upto);
                assert!(!is_purged, "R29: {op:?} follows the purge that covers it");
            }
        }
    }
}

fn rows_of(op: &Op) -> Vec<(Sequence, Holder)> {
    match op {
        Op::Insert(stored) => stored.holders.iter().map(|held| (stored.sequence, held.holder)).collect(),
        Op::Settle { sequence, holder } => vec![(*sequence, *holder)],
        Op::Return { sequence, held } => vec![(*sequence, held.holder)],
        _ => Vec::new(),
    }
}

impl PersistenceAdapter for Store {
    type Reader = Self;

    async fn recover(&mut self) -> Result<Catalog, StoreError> {
        let mut state = self.lock();
        state.rules.begin_term();
        Ok(state.rows.catalog.clone())
    }

    async fn raise(&mut self, to: Tenure) -> Result<(), StoreError> {
        self.while_held().await;
        let mut state = self.lock();
        let last = state.raises.last().copied().unwrap_or_default();
        state.raises.push(to);
        if let Some(error) = state.raise_script.pop_front() {
            return Err(error);
        }
        state.rules.see_raise(last, to);
        state.rows.catalog.tenure = to;
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        if batch.ops.is_empty() {
            self.lock().turns += 1;
            return Ok(()); // it has nothing to do by itself
        }
        {
            let mut state = self.lock();
            state.rules.see_commit(batch);
            state.commits.push(batch.clone());
        }
        self.changed.notify_waiters();
        tokio::task::yield_now().await; // time for more to arrive, as with a real store
        self.while_held().await;
        let mut state = self.lock();
        let reply = state.reply_to(batch);
        state.rules.see_reply(batch, reply);
        if matches!(reply, Reply::Done | Reply::Unknown { applied: true }) {
            state.rows.apply_all(&batch.ops);
        }
        self.changed.notify_waiters();
        let source = || "the script says so".into();
        match reply {
            Reply::Done => Ok(()),
            Reply::Refused => Err(CommitError::Refused { source: source() }),
            Reply::Full => Err(CommitError::Full),
            Reply::Again => Err(CommitError::Again { source: source() }),
            Reply::Unknown { .. } => Err(CommitError::Unknown { source: source() }),
            Reply::Deposed => Err(CommitError::Deposed),
        }
    }

    fn reader(&self) -> Self {
        self.clone()
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits { message_bytes_max: 64 << 20 }
    }

    async fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl MessageReader for Store {
    async fn page(
        &self,
        holder: Holder,
        priority: Priority,
        range: PageRange,
        window: Window,
    ) -> Result<Page, StoreError> {
        Ok(self.lock().rows.page(holder, priority, range, window))
    }

    async fn due(
        &self,
        before: Timestamp,
        after: (Timestamp, Sequence),
        window: Window,
    ) -> Result<DuePage, StoreError> {
        Ok(self.lock().rows.due(before, after, window))
    }

    async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        Ok(self.lock().rows.holders())
    }

    async fn backlog(&self, holder: Holder) -> Result<Backlog, StoreError> {
        Ok(self.lock().rows.backlog(holder))
    }
}
