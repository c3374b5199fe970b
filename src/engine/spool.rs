//! What goes to the spool, and when it can be read there (R32).
//!
//! A value without I/O, as the writer is, and far simpler: nobody waits for what it writes, so nothing is confirmed and
//! nothing is lost with it but what a crash takes anyway.
//! Always true: what was not written stays in memory, because until then `oldest_change` is not after it.
//! On failure: a batch that was certainly not written is opened again, and what makes room in the spool goes first:
//! else a full disk would keep what nobody wants any more. One of unknown outcome is repeated as it is.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    error::Error,
    sync::Arc,
    time::Duration,
};

use super::writer::{StoreReply, StoreRequest};
use crate::{
    broker::Pending,
    persistence::CommitError,
    types::{Batch, BatchNumber, DurableId, Holder, Op, Sequence, Timestamp},
};

/// How long until what could not be written is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// A batch is complete with the message that reaches this, so that a failure undoes little. Unit: bytes.
const BATCH_BYTES: usize = 4 << 20;

/// So many operations may be open beside inserts before anybody looks how many of them are cancelled.
const HOLES_MAX: usize = 4_096;

/// The spool's writer.
#[derive(Debug, Default)]
pub(super) struct Spool {
    /// What is to be written, in order.
    open: VecDeque<Slot>,
    /// The number of the first slot; what is opened again goes before it.
    first: i64,
    /// In which slots inserts stand.
    inserts: HashMap<Sequence, i64>,
    under_way: Option<UnderWay>,
    answer_awaited: bool,
    /// The next batch, or the one under way, has only what makes room.
    makes_room: bool,
    /// The failure was told of.
    told: bool,
    not_before: Option<Timestamp>,
    last_number: BatchNumber,
}

#[derive(Debug)]
struct Slot {
    since: Timestamp,
    /// `None`: cancelled.
    op: Option<Op>,
}

#[derive(Debug)]
struct UnderWay {
    batch: Arc<Batch>,
    /// When the first of it came in.
    since: Timestamp,
}

impl Spool {
    /// Takes in what the core wants spooled.
    pub(super) fn take(&mut self, now: Timestamp, ops: &mut Vec<Op>) {
        for op in ops.drain(..) {
            match op {
                Op::Settle { sequence, holder } if self.cancel(sequence, holder) => {}
                op => {
                    if let Op::Insert(stored) = &op {
                        self.inserts
                            .insert(stored.sequence, self.first.saturating_add_unsigned(self.open.len() as u64));
                    }
                    self.open.push_back(Slot { since: now, op: Some(op) });
                }
            }
        }
    }

    /// Whether a settle cancelled with an insert that is not written yet (R1).
    fn cancel(&mut self, sequence: Sequence, holder: Holder) -> bool {
        let Some(number) = self.inserts.get(&sequence).copied() else { return false };
        let index = usize::try_from(number - self.first).ok();
        let Some(slot) = index.and_then(|index| self.open.get_mut(index)) else { return false };
        let Some(Op::Insert(stored)) = &mut slot.op else { return false };
        stored.holders.retain(|held| held.holder != holder);
        if stored.holders.is_empty() {
            slot.op = None;
            self.inserts.remove(&sequence);
            self.close_holes();
        }
        true
    }

    /// When most of what is open is cancelled, as while nothing can be written, it gives back its room.
    fn close_holes(&mut self) {
        if self.open.len() < 2 * self.inserts.len() + HOLES_MAX {
            return;
        }
        self.open.retain(|slot| slot.op.is_some());
        for (number, slot) in (self.first..).zip(&self.open) {
            if let Some(Op::Insert(stored)) = &slot.op {
                self.inserts.insert(stored.sequence, number);
            }
        }
    }

    /// What is to be asked of the spool now.
    pub(super) fn next_request(&mut self, now: Timestamp) -> Option<StoreRequest> {
        if self.answer_awaited || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        if self.under_way.is_none() {
            let since = self.open.front()?.since;
            let ops = if self.makes_room { self.take_what_makes_room() } else { self.take_front() };
            self.last_number = BatchNumber(self.last_number.0 + 1);
            self.under_way = Some(UnderWay { batch: Arc::new(Batch { number: self.last_number, ops }), since });
        }
        let batch = Arc::clone(&self.under_way.as_ref()?.batch);
        self.answer_awaited = true;
        let is_turn = self.makes_room && batch.ops.is_empty(); // the spool makes room by itself
        Some(if is_turn { StoreRequest::Turn(batch) } else { StoreRequest::Commit(batch) })
    }

    /// The next batch.
    fn take_front(&mut self) -> Vec<Op> {
        let (mut ops, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(slot) = self.open.pop_front()
        {
            self.first += 1;
            if let Some(Op::Insert(stored)) = &slot.op {
                self.inserts.remove(&stored.sequence);
                bytes += stored.message.size();
            }
            ops.extend(slot.op);
        }
        ops
    }

    /// Takes what was settled, and whom nothing is to be kept for any more; what is open for them need not be written.
    fn take_what_makes_room(&mut self) -> Vec<Op> {
        let mut taken = Vec::new();
        let mut gone: HashSet<DurableId> = HashSet::new();
        for slot in &mut self.open {
            match &slot.op {
                Some(Op::DeleteDurable { id }) => _ = gone.insert(*id),
                Some(Op::Settle { .. }) => {}
                _ => continue,
            }
            taken.extend(slot.op.take());
        }
        // Of what was under way when it was settled, and is open again.
        taken.retain(|op| !matches!(op, Op::Settle { sequence, holder } if self.cancel(*sequence, *holder)));
        let is_gone = |holder| matches!(holder, Holder::Durable(id) if gone.contains(&id));
        for slot in self.open.iter_mut().filter(|_| !gone.is_empty()) {
            if let Some(Op::Insert(stored)) = &mut slot.op {
                stored.holders.retain(|held| !is_gone(held.holder));
                if stored.holders.is_empty() {
                    self.inserts.remove(&stored.sequence);
                    slot.op = None;
                }
            }
        }
        self.close_holes();
        taken
    }

    /// Takes its answer.
    pub(super) fn answered(&mut self, now: Timestamp, reply: &StoreReply) {
        self.answer_awaited = false;
        match reply {
            StoreReply::Committed(Err(error)) => self.not_written(now, error),
            StoreReply::Committed(Ok(())) | StoreReply::Raised(_) => {
                if !self.makes_room && std::mem::take(&mut self.told) {
                    tracing::info!("the spool takes what is not persistent again");
                }
                (self.under_way, self.not_before, self.makes_room) = (None, None, false);
            }
        }
    }

    fn not_written(&mut self, now: Timestamp, error: &CommitError) {
        if !std::mem::replace(&mut self.told, true) {
            let source = error as &dyn Error;
            tracing::warn!(source, "cannot spool: what is not persistent stays in memory as long as that lasts");
        }
        self.not_before = Some(now.after(RETRY));
        if matches!(error, CommitError::Unknown { .. }) {
            return;
        }
        if let Some(UnderWay { batch, since }) = self.under_way.take() {
            self.reopen(&batch.ops, since);
        }
        self.makes_room = !self.makes_room; // in turns: neither may stand in the other's way for ever
    }

    /// Goes before all that is open.
    fn reopen(&mut self, ops: &[Op], since: Timestamp) {
        for op in ops.iter().rev() {
            self.first -= 1;
            if let Op::Insert(stored) = op {
                self.inserts.insert(stored.sequence, self.first);
            }
            self.open.push_front(Slot { since, op: Some(op.clone()) });
        }
    }

    /// When it wants to be asked for a request again.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.not_before.filter(|_| !self.answer_awaited)
    }

    /// When the oldest of what can't be read yet came in.
    pub(super) fn oldest_change(&self) -> Option<Timestamp> {
        let under_way = self.under_way.iter().map(|under_way| under_way.since);
        under_way.chain(self.open.front().map(|slot| slot.since)).min()
    }

    /// What became of a holder's messages and is not written yet.
    pub(super) fn pending(&self, holder: Holder) -> HashMap<Sequence, Pending> {
        let under_way = self.under_way.iter().flat_map(|under_way| &under_way.batch.ops);
        let became = |op: &Op| match op {
            Op::Settle { sequence, holder: by } if *by == holder => Some((*sequence, Pending::Settled)),
            Op::Return { sequence, held } if held.holder == holder => Some((*sequence, Pending::Returned(*held))),
            _ => None,
        };
        let open = self.open.iter().filter_map(|slot| slot.op.as_ref());
        under_way.chain(open).filter_map(became).collect()
    }
}
