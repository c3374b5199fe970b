//! What goes to the spool, and when it can be read there (R32).
//!
//! A value without I/O, as the writer is, and far simpler: nobody waits for what it writes, so nothing is confirmed and
//! nothing is lost with it but what a crash takes anyway. What it can't write stays in memory and is tried again.

use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

use super::writer::{StoreReply, StoreRequest};
use crate::{
    broker::Pending,
    persistence::CommitError,
    types::{Batch, BatchNumber, Holder, Op, Sequence, Timestamp},
};

/// How long until what could not be written is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// So many operations may be open beside inserts before anybody looks how many of them are cancelled.
const HOLES_MAX: usize = 4_096;

/// The spool's writer.
#[derive(Debug, Default)]
pub(super) struct Spool {
    /// What is to be written next; `None`: cancelled.
    open: Vec<Option<Op>>,
    /// Where inserts stand in it.
    inserts: HashMap<Sequence, usize>,
    /// When the first of it came in.
    since: Option<Timestamp>,
    under_way: Option<(Arc<Batch>, Timestamp)>,
    answer_awaited: bool,
    not_before: Option<Timestamp>,
    last_number: BatchNumber,
}

impl Spool {
    /// Takes in what the core wants spooled.
    pub(super) fn take(&mut self, now: Timestamp, ops: &mut Vec<Op>) {
        for op in ops.drain(..) {
            self.since.get_or_insert(now);
            match op {
                Op::Settle { sequence, holder } if self.cancel(sequence, holder) => {}
                Op::Insert(stored) => {
                    self.inserts.insert(stored.sequence, self.open.len());
                    self.open.push(Some(Op::Insert(stored)));
                }
                op => self.open.push(Some(op)),
            }
        }
    }

    /// Whether a settle cancelled with an insert that is not written yet (R1).
    fn cancel(&mut self, sequence: Sequence, holder: Holder) -> bool {
        let Some(at) = self.inserts.get(&sequence).copied() else { return false };
        let Some(slot) = self.open.get_mut(at) else { return false };
        let Some(Op::Insert(stored)) = slot else { return false };
        stored.holders.retain(|held| held.holder != holder);
        if stored.holders.is_empty() {
            *slot = None;
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
        self.open.retain(Option::is_some);
        for (at, op) in self.open.iter().enumerate() {
            if let Some(Op::Insert(stored)) = op {
                self.inserts.insert(stored.sequence, at);
            }
        }
    }

    /// What is to be asked of the spool now.
    pub(super) fn next_request(&mut self, now: Timestamp) -> Option<StoreRequest> {
        if self.answer_awaited || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        if self.under_way.is_none() {
            let since = self.since.take()?;
            self.inserts.clear();
            self.last_number = BatchNumber(self.last_number.0 + 1);
            let ops = self.open.drain(..).flatten().collect();
            self.under_way = Some((Arc::new(Batch { number: self.last_number, ops }), since));
        }
        let (batch, _) = self.under_way.as_ref()?;
        self.answer_awaited = true;
        Some(StoreRequest::Commit(Arc::clone(batch)))
    }

    /// Takes its answer.
    pub(super) fn answered(&mut self, now: Timestamp, reply: &StoreReply) {
        self.answer_awaited = false;
        match reply {
            StoreReply::Committed(Err(error)) => {
                if self.not_before.is_none() {
                    let source = error as &dyn Error;
                    tracing::warn!(
                        source,
                        "cannot spool: what is not persistent stays in memory as long as that lasts"
                    );
                }
                self.not_before = Some(now.after(RETRY));
                if matches!(error, CommitError::Refused { .. }) {
                    self.under_way = None; // never happens, and would never pass
                }
            }
            StoreReply::Committed(Ok(())) | StoreReply::Raised(_) => (self.under_way, self.not_before) = (None, None),
        }
    }

    /// When it wants to be asked for a request again.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.not_before.filter(|_| !self.answer_awaited)
    }

    /// When the oldest of what can't be read yet came in.
    pub(super) fn oldest_change(&self) -> Option<Timestamp> {
        self.under_way.as_ref().map(|(_, since)| *since).into_iter().chain(self.since).min()
    }

    /// What became of a holder's messages and is not written yet.
    pub(super) fn pending(&self, holder: Holder) -> HashMap<Sequence, Pending> {
        let under_way = self.under_way.iter().flat_map(|(batch, _)| &batch.ops);
        let became = |op: &Op| match op {
            Op::Settle { sequence, holder: by } if *by == holder => Some((*sequence, Pending::Settled)),
            Op::Return { sequence, held } if held.holder == holder => Some((*sequence, Pending::Returned(*held))),
            _ => None,
        };
        under_way.chain(self.open.iter().flatten()).filter_map(became).collect()
    }
}
