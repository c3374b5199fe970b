//! What goes to the spool, and when it can be read there (R32).
//!
//! A value without I/O, as the writer is, and far simpler: nobody waits for what it writes, so nothing is confirmed and
//! nothing is lost with it but what a crash takes anyway.
//! Always true: what was not written stays in memory, because until then `oldest_change` is not after it.
//! On failure: a batch that was certainly not written is opened again, and what makes room in the spool goes first:
//! else a full disk would keep what nobody wants any more. One that found no room is tried again in smaller parts: the
//! room that there is takes what fits. One of unknown outcome is repeated as it is.

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
    types::{Batch, BatchNumber, DurableId, Held, Holder, Op, Sequence, Timestamp},
};

/// How long until what could not be written is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// A batch is complete with the message that reaches this, so that a failure undoes little. Unit: bytes.
const BATCH_BYTES: usize = 4 << 20;

/// So many cancelled operations may stay open, or as many as there are others.
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
    /// In which slots returns stand.
    returns: HashMap<(Sequence, Holder), i64>,
    /// How many slots are cancelled.
    holes: usize,
    under_way: Option<UnderWay>,
    answer_awaited: bool,
    /// The next batch, or the one under way, has only what makes room.
    makes_room: bool,
    /// How often the next batch is cut in half, because there was no room.
    halvings: u32,
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
            let cancels = match &op {
                Op::Settle { sequence, holder } => self.cancel(*sequence, *holder),
                Op::Return { sequence, held } => self.merge(*sequence, *held),
                _ => false,
            };
            if !cancels {
                self.index(self.first.saturating_add_unsigned(self.open.len() as u64), &op);
                self.open.push_back(Slot { since: now, op: Some(op) });
            }
        }
    }

    /// Whether a settle cancelled with an insert that is not written yet (R1). A return that is not goes either way.
    fn cancel(&mut self, sequence: Sequence, holder: Holder) -> bool {
        if let Some(number) = self.returns.remove(&(sequence, holder)) {
            self.clear(number);
        }
        let Some(number) = self.inserts.get(&sequence).copied() else { return false };
        let Some(Op::Insert(stored)) = self.op(number) else { return false };
        stored.holders.retain(|held| held.holder != holder);
        if stored.holders.is_empty() {
            self.inserts.remove(&sequence);
            self.clear(number);
        }
        true
    }

    /// Whether a return became part of the insert, or of the last return, that is not written yet.
    fn merge(&mut self, sequence: Sequence, held: Held) -> bool {
        let at = self.inserts.get(&sequence).or_else(|| self.returns.get(&(sequence, held.holder))).copied();
        let part = match at.and_then(|number| self.op(number)) {
            Some(Op::Insert(stored)) => stored.holders.iter_mut().find(|part| part.holder == held.holder),
            Some(Op::Return { held, .. }) => Some(held),
            _ => None,
        };
        part.map(|part| *part = held).is_some()
    }

    fn op(&mut self, number: i64) -> Option<&mut Op> {
        let index = usize::try_from(number - self.first).ok()?;
        self.open.get_mut(index)?.op.as_mut()
    }

    fn clear(&mut self, number: i64) {
        let index = usize::try_from(number - self.first).ok();
        if let Some(slot) = index.and_then(|index| self.open.get_mut(index)) {
            slot.op = None;
            self.holes += 1;
        }
        self.close_holes();
    }

    fn index(&mut self, number: i64, op: &Op) {
        match op {
            Op::Insert(stored) => drop(self.inserts.insert(stored.sequence, number)),
            Op::Return { sequence, held } => drop(self.returns.insert((*sequence, held.holder), number)),
            _ => {}
        }
    }

    fn forget(&mut self, op: &Op) {
        match op {
            Op::Insert(stored) => drop(self.inserts.remove(&stored.sequence)),
            Op::Return { sequence, held } => drop(self.returns.remove(&(*sequence, held.holder))),
            _ => {}
        }
    }

    /// When most of what is open is cancelled, as while nothing can be written, it gives back its room. So every slot is
    /// looked at once for each that was cancelled, about.
    fn close_holes(&mut self) {
        if self.holes < HOLES_MAX.max(self.open.len() / 2) {
            return;
        }
        self.holes = 0;
        self.open.retain(|slot| slot.op.is_some());
        let open = std::mem::take(&mut self.open);
        for (number, slot) in (self.first..).zip(&open) {
            slot.op.iter().for_each(|op| self.index(number, op));
        }
        self.open = open;
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
        while bytes < BATCH_BYTES >> self.halvings
            && let Some(slot) = self.open.pop_front()
        {
            self.first += 1;
            let Some(op) = slot.op else {
                self.holes -= 1;
                continue;
            };
            self.forget(&op);
            bytes += if let Op::Insert(stored) = &op { stored.message.size() } else { 0 };
            ops.push(op);
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
            self.holes += 1;
        }
        // Of what was under way when it was settled, and is open again.
        taken.retain(|op| !matches!(op, Op::Settle { sequence, holder } if self.cancel(*sequence, *holder)));
        if !gone.is_empty() {
            self.leave_out(&gone);
        }
        self.close_holes();
        taken
    }

    /// What is open for these need not be written.
    fn leave_out(&mut self, gone: &HashSet<DurableId>) {
        let is_gone = |holder| matches!(holder, Holder::Durable(id) if gone.contains(&id));
        for slot in &mut self.open {
            let is_left_out = match &mut slot.op {
                Some(Op::Insert(stored)) => {
                    stored.holders.retain(|held| !is_gone(held.holder));
                    stored.holders.is_empty() && self.inserts.remove(&stored.sequence).is_some()
                }
                Some(Op::Return { sequence, held }) => {
                    is_gone(held.holder) && self.returns.remove(&(*sequence, held.holder)).is_some()
                }
                _ => false,
            };
            if is_left_out {
                slot.op = None;
                self.holes += 1;
            }
        }
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
                if !self.makes_room {
                    self.halvings = self.halvings.saturating_sub(1);
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
            if matches!(error, CommitError::Full) && !self.makes_room {
                self.halvings = BATCH_BYTES.ilog2().min(self.halvings + 1);
            }
            self.reopen(&batch.ops, since);
        }
        self.makes_room = !self.makes_room; // in turns: neither may stand in the other's way for ever
    }

    /// Goes before all that is open.
    fn reopen(&mut self, ops: &[Op], since: Timestamp) {
        for op in ops.iter().rev() {
            let Some(op) = self.with_later_returns(op.clone()) else { continue };
            self.first -= 1;
            self.index(self.first, &op);
            self.open.push_front(Slot { since, op: Some(op) });
        }
    }

    /// What is opened again, merged with the returns that came in meanwhile; `None`: one of them stands for it.
    fn with_later_returns(&mut self, mut op: Op) -> Option<Op> {
        match &mut op {
            Op::Return { sequence, held } if self.returns.contains_key(&(*sequence, held.holder)) => return None,
            Op::Insert(stored) => {
                for part in &mut stored.holders {
                    let Some(number) = self.returns.remove(&(stored.sequence, part.holder)) else { continue };
                    if let Some(Op::Return { held, .. }) = self.op(number) {
                        *part = *held;
                    }
                    self.clear(number);
                }
            }
            _ => {}
        }
        Some(op)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DestinationId, Message, MessageDraft, Stored, Term};

    const NOW: Timestamp = Timestamp(1_000);
    const HOLDER: Holder = Holder::Durable(DurableId(1));

    fn at(counter: u64) -> Sequence {
        Sequence::new(Term(1), counter)
    }

    fn held(deliveries: u32) -> Held {
        Held { deliveries, ..Held::fresh(HOLDER) }
    }

    fn insert(counter: u64, deliveries: u32) -> Op {
        insert_of(counter, deliveries, Vec::new())
    }

    fn insert_of(counter: u64, deliveries: u32, body: Vec<u8>) -> Op {
        Op::Insert(Stored {
            sequence: at(counter),
            destination: DestinationId(1),
            holders: [held(deliveries)].into_iter().collect(),
            message: Arc::new(Message::new(MessageDraft { body: body.into(), ..MessageDraft::default() })),
        })
    }

    fn returned(counter: u64, deliveries: u32) -> Op {
        Op::Return { sequence: at(counter), held: held(deliveries) }
    }

    fn settle(counter: u64) -> Op {
        Op::Settle { sequence: at(counter), holder: HOLDER }
    }

    fn take(spool: &mut Spool, ops: impl IntoIterator<Item = Op>) {
        spool.take(NOW, &mut ops.into_iter().collect());
    }

    /// What is written now.
    fn written(spool: &mut Spool, now: Timestamp) -> Vec<Op> {
        match spool.next_request(now) {
            Some(StoreRequest::Commit(batch)) => batch.ops.clone(),
            other => panic!("{other:?} instead of a batch"),
        }
    }

    fn answer(spool: &mut Spool, result: Result<(), CommitError>) {
        spool.answered(NOW, &StoreReply::Committed(result));
    }

    #[test]
    fn r32_a_return_is_merged_and_goes_with_its_insert() {
        let mut spool = Spool::default();
        take(&mut spool, [insert(1, 0), insert(2, 0), insert(3, 0), returned(1, 1), returned(1, 2), returned(2, 1)]);
        take(&mut spool, [settle(2)]);
        assert_eq!(written(&mut spool, NOW), [insert(1, 2), insert(3, 0)]);
        take(&mut spool, [returned(1, 3), returned(3, 1), returned(1, 4), settle(3)]);
        answer(&mut spool, Ok(()));
        assert_eq!(written(&mut spool, NOW), [returned(1, 4), settle(3)]);
    }

    #[test]
    fn r32_what_is_opened_again_takes_the_returns_that_came_meanwhile_in() {
        let mut spool = Spool::default();
        take(&mut spool, [insert(1, 0), returned(2, 1)]);
        written(&mut spool, NOW);
        take(&mut spool, [returned(1, 1), returned(2, 2), insert(3, 0)]);
        answer(&mut spool, Err(CommitError::Full));
        let later = NOW.after(RETRY);
        assert!(matches!(spool.next_request(later), Some(StoreRequest::Turn(_))), "nothing makes room");
        answer(&mut spool, Ok(()));
        assert_eq!(written(&mut spool, later), [insert(1, 1), returned(2, 2), insert(3, 0)]);
    }

    #[test]
    fn r32_what_finds_no_room_is_tried_again_in_smaller_parts() {
        let mut spool = Spool::default();
        let body = vec![0; BATCH_BYTES / 4];
        take(&mut spool, (1..=8).map(|counter| insert_of(counter, 0, body.clone())));
        let mut sizes = Vec::new();
        for _ in 0..3 {
            sizes.push(written(&mut spool, NOW).len());
            answer(&mut spool, Err(CommitError::Full));
            assert!(matches!(spool.next_request(NOW.after(RETRY)), Some(StoreRequest::Turn(_))), "nothing makes room");
            answer(&mut spool, Ok(()));
        }
        while !spool.open.is_empty() {
            sizes.push(written(&mut spool, NOW).len());
            answer(&mut spool, Ok(()));
        }
        assert_eq!(sizes, [4, 2, 1, 1, 1, 2, 4]);
    }

    /// With so many operations beside it, one look at all of them for each that is cancelled would take minutes.
    #[test]
    fn r32_while_nothing_can_be_written_settling_costs_as_much_as_ever() {
        const OPEN: u64 = 100_000;
        let mut spool = Spool::default();
        take(&mut spool, [insert(1, 0)]);
        written(&mut spool, NOW);
        take(&mut spool, (2..OPEN).map(settle));
        for counter in OPEN..2 * OPEN {
            take(&mut spool, [insert(counter, 0), returned(counter, 1), settle(counter)]);
        }
        assert!(spool.open.len() as u64 <= 2 * OPEN, "what is cancelled takes no room");
        assert!(spool.inserts.is_empty() && spool.returns.is_empty());
        answer(&mut spool, Ok(()));
        assert!(written(&mut spool, NOW).into_iter().eq((2..OPEN).map(settle)));
    }
}
