//! The open batch: what waits to be sealed, and what cancels before it is.
//!
//! Always true: a sealed batch has no two operations on one message and holder (R1). A unit is never cut. A unit that
//! settles what is still open here waits for the next batch, so that refusing it can't lose the other's insert. Marks
//! and purges become durable with the first operation of the batch, and nothing that a purge here covers is written
//! beside it or after it.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::Duration,
};

use smallvec::{SmallVec, smallvec};

use super::receipts::StepRef;
use crate::{
    broker::{Pending, UnitId},
    types::{Batch, BatchNumber, Broken, DurableId, Held, Holder, Op, Rule, Sequence, Timestamp},
};

/// What nobody waits for is sealed after this, if nothing eager takes it along before.
const LAZY_DELAY: Duration = Duration::from_millis(5);

/// What nobody waits for is sealed at this size. Unit: bytes.
const LAZY_BYTES_MAX: usize = 1 << 20;

/// What an operation without a message counts. Unit: bytes.
const OP_BYTES: usize = 32;

/// Operations that stand or fall together, and who waits for them.
#[derive(Debug)]
pub(super) struct Unit {
    /// `None`: cancelled since.
    pub(super) ops: SmallVec<[Option<Op>; 1]>,
    /// The frame whose answer waits for it.
    pub(super) origin: Option<StepRef>,
    /// What the core calls it; `None`: it is a single operation, or what is left of one.
    pub(super) id: Option<UnitId>,
    /// Whether a client waits for what the core gave an id.
    pub(super) awaited: bool,
    /// When it came in.
    pub(super) since: Timestamp,
    /// Whether it is over only when everything before it is (R2): who settled the message had something of its own
    /// under way.
    in_order: bool,
    /// Whether a try of unknown outcome may have written it already: then its settle is written too (R14).
    doubtful: bool,
    /// The durable subscription without which its frame is refused, though it writes nothing.
    relies_on: Option<DurableId>,
}

impl Unit {
    pub(super) fn new(ops: SmallVec<[Op; 1]>, origin: Option<StepRef>, since: Timestamp) -> Self {
        Self {
            ops: ops.into_iter().map(Some).collect(),
            origin,
            id: None,
            awaited: false,
            since,
            in_order: false,
            doubtful: false,
            relies_on: None,
        }
    }

    /// The same under a name of the core's.
    pub(super) fn named(self, id: UnitId, awaited: bool) -> Self {
        Self { id: Some(id), awaited, ..self }
    }

    /// Whether it is a message that dies: one that nobody waits for.
    pub(super) fn is_dead_letter(&self) -> bool {
        self.id.is_some() && !self.awaited
    }

    /// What is left of it.
    pub(super) fn live(&self) -> impl Iterator<Item = &Op> {
        self.ops.iter().flatten()
    }

    /// Nothing to write, but a frame that waits until everything before it is over.
    fn barrier(origin: StepRef, since: Timestamp) -> Self {
        Self { in_order: true, ..Self::new(smallvec![], Some(origin), since) }
    }

    /// A frame that relies on a durable subscription which is being made.
    pub(super) fn relying(durable: DurableId, origin: StepRef, since: Timestamp) -> Self {
        Self { relies_on: Some(durable), ..Self::barrier(origin, since) }
    }

    fn is_empty(&self) -> bool {
        self.live().next().is_none()
    }

    /// Whether the core can take it back: what a client wrote, and what becomes of it with its unit. A store in order
    /// refuses nothing else, which is numbers alone, and memory has acted on it (R13).
    pub(super) fn can_be_undone(&self) -> bool {
        let is_written_by_a_client =
            |op: &Op| matches!(op, Op::Insert(_) | Op::CreateDestination { .. } | Op::CreateDurable { .. });
        let is_commit = self.id.is_some() && self.origin.is_some();
        is_commit || self.live().any(is_written_by_a_client)
    }

    /// Whether it can't be without what a refused operation was to make (R13).
    fn needs(&self, refused: &Op) -> bool {
        match refused {
            Op::CreateDestination { id, .. } => self.live().any(|op| match op {
                Op::Insert(stored) => stored.destination == *id,
                Op::CreateDurable { durable, .. } => durable.topic == *id,
                _ => false,
            }),
            Op::CreateDurable { id, .. } => self.relies_on == Some(*id),
            _ => false,
        }
    }

    /// Leaves out what these purges cover.
    fn leave_out(&mut self, purges: &BTreeMap<Holder, Sequence>) {
        if purges.is_empty() {
            return; // nearly always
        }
        let covers = |holder: Holder, sequence: Sequence| purges.get(&holder).is_some_and(|upto| sequence <= *upto);
        for slot in &mut self.ops {
            let is_covered = match slot {
                Some(Op::Insert(stored)) => {
                    stored.holders.retain(|held| !covers(held.holder, stored.sequence));
                    stored.holders.is_empty()
                }
                Some(Op::Settle { sequence, holder }) => covers(*holder, *sequence),
                Some(Op::Return { sequence, held }) => covers(held.holder, *sequence),
                _ => false,
            };
            if is_covered {
                *slot = None;
            }
        }
    }

    /// What became of a holder's messages by it.
    fn pending(&self, holder: Holder) -> SmallVec<[(Sequence, Pending); 1]> {
        let became = |op: &Op| match op {
            Op::Settle { sequence, holder: by } if *by == holder => Some((*sequence, Pending::Settled)),
            Op::Return { sequence, held } if held.holder == holder => Some((*sequence, Pending::Returned(*held))),
            _ => None,
        };
        self.live().filter_map(became).collect()
    }

    /// What it is, if that may cancel or merge.
    fn stands_alone(&self) -> Option<Op> {
        match self.ops.as_slice() {
            [Some(op @ (Op::Settle { .. } | Op::Return { .. }))] if self.id.is_none() => Some(op.clone()),
            _ => None,
        }
    }

    fn made_durable(&self) -> Option<DurableId> {
        self.live().find_map(|op| match op {
            Op::CreateDurable { id, .. } => Some(*id),
            _ => None,
        })
    }

    fn makes(&self, durable: DurableId) -> bool {
        self.made_durable() == Some(durable)
    }

    fn deleted_durable(&self) -> Option<DurableId> {
        self.live().find_map(|op| match op {
            Op::DeleteDurable { id } => Some(*id),
            _ => None,
        })
    }

    /// Whether it only removes, or changes what is there.
    fn only_settles(&self) -> bool {
        self.live().all(|op| matches!(op, Op::Settle { .. } | Op::Return { .. } | Op::DeleteDurable { .. }))
    }

    /// Whether it is what a client sent, and hears of when a full store can't have it (R8). Everything else waits: dead
    /// letters, and what may be there already.
    fn is_send(&self) -> bool {
        if self.doubtful {
            return false;
        }
        if self.id.is_some() {
            return !self.is_dead_letter() && !self.only_settles();
        }
        self.origin.is_some() && !self.is_empty() && self.live().all(|op| matches!(op, Op::Insert(_)))
    }

    /// Which of a batch's units, asked in order, a full store still takes (R14). A deletion goes with what was left out
    /// because of it, but not before what makes the durable subscription.
    fn goes_ahead() -> impl FnMut(&Self) -> bool {
        let (mut something_waits, mut unmade) = (false, Vec::new());
        move |unit| {
            let in_turn = something_waits && unit.in_order && unit.is_empty();
            let is_unmade = unit.deleted_durable().is_some_and(|id| unmade.contains(&id));
            let waits = !unit.only_settles() || in_turn || is_unmade;
            something_waits |= waits;
            unmade.extend(unit.made_durable());
            !waits
        }
    }
}

/// What became of a settle.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It goes to the store with a batch.
    Written,
    /// It cancelled with the insert. The frame that sent the message, if R2 lets it go now.
    Cancelled(Option<StepRef>),
}

/// Where an operation stands: its unit, and its place in it.
type Slot = (usize, usize);

/// What waits to be sealed.
#[derive(Debug, Default)]
pub(super) struct OpenBatch {
    units: Vec<Unit>,
    marks: BTreeMap<Holder, Sequence>,
    purges: BTreeMap<Holder, Sequence>,
    inserts: HashMap<Sequence, Slot, BuildHasherDefault<SequenceHasher>>,
    returns: HashMap<(Sequence, Holder), Slot>,
    /// What waits for the next batch, in order.
    deferred: Vec<Unit>,
    bytes: usize,
    eager: bool,
    first: Option<Timestamp>,
    /// For simulations.
    broken: Broken,
}

/// What was taken out of the open batch to be written, and who waits for what of it.
#[derive(Debug)]
pub(super) struct Part {
    /// The marks that its first operations are.
    pub(super) marks: Vec<(Holder, Sequence)>,
    /// The purges that come next.
    pub(super) purges: Vec<(Holder, Sequence)>,
    pub(super) units: Vec<Unit>,
    /// When the oldest of it came in; `None`: there is nothing in it.
    pub(super) since: Option<Timestamp>,
}

/// A part as the store gets it.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) batch: Arc<Batch>,
    pub(super) part: Part,
}

impl OpenBatch {
    pub(super) fn new(broken: Broken) -> Self {
        Self { broken, ..Self::default() }
    }

    /// All of it; this is empty then.
    fn take_all(&mut self) -> Self {
        let empty = Self::new(self.broken);
        std::mem::replace(self, empty)
    }

    /// Where a message's insert stands, if it is open.
    fn insert_of(&self, sequence: Sequence) -> Option<Slot> {
        self.inserts.get(&sequence).copied().filter(|_| !self.broken.is(Rule::NeverCancels))
    }

    /// Adds operations that stand or fall together. The deletion of a durable subscription takes along what names it, and
    /// so it never has to wait for the next batch: whoever makes another one by this name is to find it gone (R29).
    pub(super) fn push(&mut self, unit: Unit) {
        let since = unit.since;
        match unit.deleted_durable() {
            Some(_) if self.broken.is(Rule::DeletesLater) => self.deferred.push(unit),
            Some(_) => self.refill_with([unit]),
            None => self.add(unit),
        }
        self.touch(since);
    }

    fn add(&mut self, mut unit: Unit) {
        unit.leave_out(&self.purges);
        self.touch(unit.since);
        if unit.live().any(|op| self.is_open(op)) {
            return self.deferred.push(unit);
        }
        let at = self.units.len();
        for (place, op) in unit.ops.iter().enumerate() {
            let Some(op) = op else { continue };
            self.bytes += size(op);
            match op {
                Op::Insert(stored) => drop(self.inserts.insert(stored.sequence, (at, place))),
                Op::Return { sequence, held } => drop(self.returns.insert((*sequence, held.holder), (at, place))),
                _ => {}
            }
        }
        self.units.push(unit);
    }

    /// Adds a final positive acknowledgement outside a transaction (R1). `clean`: its connection has nothing under way.
    pub(super) fn settle(
        &mut self,
        sequence: Sequence,
        holder: Holder,
        origin: Option<StepRef>,
        since: Timestamp,
        clean: bool,
    ) -> Settled {
        if let Some(slot) = self.insert_of(sequence) {
            let doubtful = self.is_doubtful(slot);
            let freed = match self.cancel(slot, sequence, holder, clean && !doubtful) {
                Some((sender, true)) => {
                    self.push_behind(sender, since);
                    None
                }
                freed => freed.map(|(sender, _)| sender),
            };
            // An insert that the store may have is settled there too, below.
            if !doubtful {
                return Settled::Cancelled(freed);
            }
            self.forget_deferred_return(sequence, holder);
        }
        if let Some(slot) = self.returns.remove(&(sequence, holder)) {
            self.clear(slot);
        }
        self.push(Unit { in_order: !clean, ..Unit::new(smallvec![Op::Settle { sequence, holder }], origin, since) });
        Settled::Written
    }

    /// Adds a message's return to its holder; merged into its insert or earlier return if that is open. An insert that
    /// the store may have changes nothing there, so the return follows it.
    pub(super) fn give_back(&mut self, sequence: Sequence, held: Held, origin: Option<StepRef>, since: Timestamp) {
        if let Some(slot) = self.insert_of(sequence).filter(|slot| !self.is_doubtful(*slot)) {
            if let Some(Some(Op::Insert(stored))) = self.op(slot)
                && let Some(part) = stored.holders.iter_mut().find(|part| part.holder == held.holder)
            {
                *part = held;
            }
            if let Some(origin) = origin {
                self.push_behind(origin, since);
            }
            return;
        }
        if let Some(slot) = self.returns.remove(&(sequence, held.holder)) {
            self.clear(slot);
        }
        self.push(Unit::new(smallvec![Op::Return { sequence, held }], origin, since));
    }

    /// Raises a dispatch mark; it becomes durable before every insert of the batch.
    pub(super) fn mark(&mut self, holder: Holder, upto: Sequence, since: Timestamp) {
        self.touch(since);
        raise(&mut self.marks, holder, upto);
    }

    /// Purges a holder. What it covers here cancels, sends whose insert is open too: their senders wait for the batch (R2).
    /// A settle that is covered needs no operation, and who asked for it waits for the purge (R1, R29).
    pub(super) fn purge(&mut self, holder: Holder, upto: Sequence, since: Timestamp) {
        raise(&mut self.purges, holder, upto);
        self.refill_with([]);
        self.touch(since);
    }

    /// Settles what a purge's mark does not cover (R29). What is open here cancels as what it covers does; the rest is a
    /// unit, so that it can be told when all of it is durable.
    pub(super) fn settle_all(&mut self, holder: Holder, sequences: &[Sequence], id: UnitId, since: Timestamp) {
        let mut ops: SmallVec<[Op; 1]> = smallvec![];
        for sequence in sequences.iter().copied() {
            match self.insert_of(sequence).filter(|slot| !self.is_doubtful(*slot)) {
                Some(slot) => match self.cancel(slot, sequence, holder, true) {
                    Some((sender, true)) => self.push_behind(sender, since),
                    Some((sender, false)) => self.push(Unit::new(smallvec![], Some(sender), since)),
                    None => {}
                },
                None => {
                    self.returns.remove(&(sequence, holder)).into_iter().for_each(|slot| self.clear(slot));
                    ops.push(Op::Settle { sequence, holder });
                }
            }
        }
        self.push(Unit::new(ops, None, since).named(id, true));
    }

    /// When the oldest of what is in here came in.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.first
    }

    /// What became of a holder's messages by what is in here (R26).
    pub(super) fn pending(&self, holder: Holder) -> impl Iterator<Item = (Sequence, Pending)> {
        self.units.iter().chain(&self.deferred).flat_map(move |unit| unit.pending(holder))
    }

    /// Whether it makes a durable subscription.
    pub(super) fn makes(&self, durable: DurableId) -> bool {
        self.units.iter().chain(&self.deferred).any(|unit| unit.makes(durable))
    }

    /// Somebody waits for what is in here.
    pub(super) fn make_eager(&mut self) {
        self.eager = true;
    }

    /// Whether it is time to seal it.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        match self.first {
            None => false,
            Some(first) => self.eager || self.bytes >= LAZY_BYTES_MAX || now >= first.after(LAZY_DELAY),
        }
    }

    /// When it will be time, if nobody waits for it before.
    pub(super) fn due_at(&self) -> Option<Timestamp> {
        self.first.map(|first| first.after(LAZY_DELAY))
    }

    /// Whether nothing is in here.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.deferred.is_empty()
    }

    /// What it holds. Unit: bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Seals all of it; what had to wait becomes the next open batch.
    pub(super) fn take(&mut self) -> Part {
        let units = std::mem::take(&mut self.units);
        self.start_next(units, Vec::new())
    }

    /// Seals what a full store still takes (R14); inserts stay here.
    pub(super) fn take_settles(&mut self) -> Part {
        let (settles, waiting) = std::mem::take(&mut self.units).into_iter().partition(Unit::goes_ahead());
        self.start_next(settles, waiting)
    }

    /// Whether [`Self::take_settles`] would seal anything.
    pub(super) fn has_settles(&self) -> bool {
        let mut goes_ahead = Unit::goes_ahead();
        let awaited = |unit: &Unit| unit.origin.is_some() || !unit.is_empty(); // else it was cancelled
        !self.marks.is_empty()
            || !self.purges.is_empty()
            || self.units.iter().any(|unit| goes_ahead(unit) && awaited(unit))
    }

    /// Opens a batch again that was certainly not written: it comes before all that is here, and cancels again (R14).
    pub(super) fn reopen(&mut self, part: Part) {
        let newer = self.take_all();
        part.since.into_iter().for_each(|since| self.touch(since));
        for (holder, upto) in part.marks.into_iter().chain(newer.marks) {
            self.mark(holder, upto, newer.first.unwrap_or_default());
        }
        for (holder, upto) in part.purges.into_iter().chain(newer.purges) {
            raise(&mut self.purges, holder, upto);
        }
        self.refill(part.units.into_iter().chain(newer.units).chain(newer.deferred));
        self.eager = newer.eager;
    }

    /// Takes out what a client has waited for since before `limit`: a full store can't have it (R8).
    pub(super) fn take_overdue(&mut self, limit: Timestamp) -> Vec<Unit> {
        let overdue = |unit: &Unit| unit.since <= limit && unit.is_send();
        if !self.units.iter().any(overdue) {
            return Vec::new();
        }
        let (late, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.units).into_iter().partition(overdue);
        let newer = self.take_all();
        (self.marks, self.purges) = (newer.marks, newer.purges);
        self.refill(rest.into_iter().chain(newer.deferred));
        (self.eager, self.first) = (newer.eager, newer.first);
        late
    }

    /// Takes out what can't be without what a refused operation was to make, oldest first; a holder that was not made
    /// keeps nothing (R13).
    pub(super) fn take_what_needs(&mut self, refused: &Op) -> Vec<Unit> {
        let before = self.take_all();
        let all = before.units.into_iter().chain(before.deferred);
        let (taken, mut rest): (Vec<_>, Vec<_>) = all.partition(|unit| unit.needs(refused));
        (self.marks, self.purges) = (before.marks, before.purges);
        if let Some(holder) = unmade_holder(refused) {
            self.marks.remove(&holder);
            rest.iter_mut().for_each(|unit| unit.leave_out(&BTreeMap::from([(holder, Sequence::MAX)])));
        }
        self.refill(rest.into_iter());
        (self.eager, self.first) = (before.eager, before.first);
        taken
    }

    /// Takes out a unit that is not to be written any more.
    pub(super) fn take_out(&mut self, id: UnitId) -> Option<Unit> {
        let is_it = |unit: &Unit| unit.id == Some(id);
        if let Some(index) = self.deferred.iter().position(is_it) {
            return Some(self.deferred.remove(index));
        }
        let index = self.units.iter().position(is_it)?;
        let unit = self.units.get_mut(index)?;
        let empty = Unit::new(smallvec![], None, unit.since); // the places of others stay
        let unit = std::mem::replace(unit, empty);
        for op in unit.live() {
            self.bytes -= size(op);
            match op {
                Op::Insert(stored) => drop(self.inserts.remove(&stored.sequence)),
                Op::Return { sequence, held } => drop(self.returns.remove(&(*sequence, held.holder))),
                _ => {}
            }
        }
        Some(unit)
    }

    /// Since when the oldest of what [`Self::take_overdue`] may take waits.
    pub(super) fn oldest_send(&self) -> Option<Timestamp> {
        self.units.iter().filter(|unit| unit.is_send()).map(|unit| unit.since).min()
    }

    /// Whether something waits that a full store can't take.
    pub(super) fn adds(&self) -> bool {
        !self.units.iter().all(Unit::only_settles)
    }

    fn start_next(&mut self, units: Vec<Unit>, waiting: Vec<Unit>) -> Part {
        let (eager, since) = (self.eager && !waiting.is_empty(), self.first);
        let deferred = std::mem::take(&mut self.deferred);
        let marks: Vec<_> = std::mem::take(&mut self.marks).into_iter().collect();
        let purges: Vec<_> = std::mem::take(&mut self.purges).into_iter().collect();
        *self = Self { eager, ..Self::new(self.broken) };
        self.refill(waiting.into_iter().chain(deferred));
        self.eager |= !self.units.is_empty(); // somebody waits for what was deferred
        Part { marks, purges, units, since }
    }

    /// What is here meets again, and what comes behind it.
    fn refill_with(&mut self, behind: impl IntoIterator<Item = Unit>) {
        let before = self.take_all();
        (self.marks, self.purges) = (before.marks, before.purges);
        self.refill(before.units.into_iter().chain(before.deferred).chain(behind));
        (self.eager, self.first) = (before.eager, before.first);
    }

    /// What was here before meets again: a settle may cancel now, a return may merge, and what names a durable
    /// subscription that is deleted is left out.
    fn refill(&mut self, units: impl Iterator<Item = Unit>) {
        let units: Vec<Unit> = units.collect();
        let deleted = units.iter().filter_map(Unit::deleted_durable);
        let deleted = deleted.map(|id| (Holder::Durable(id), Sequence::MAX)).collect();
        let mut behind = Vec::new();
        for mut unit in units {
            unit.leave_out(&deleted);
            let Unit { origin, since, in_order, .. } = unit;
            let clean = !in_order;
            match unit.stands_alone() {
                Some(Op::Settle { .. }) if self.broken.is(Rule::SettlesBeforeInsert) => self.units.push(unit),
                Some(Op::Settle { sequence, holder }) => {
                    let slot = self.insert_of(sequence).filter(|slot| !self.is_doubtful(*slot));
                    let Some(slot) = slot else {
                        self.settle(sequence, holder, origin, since, clean);
                        continue;
                    };
                    behind.extend(self.cancel(slot, sequence, holder, clean).map(|freed| (freed, since)));
                    behind.extend(origin.map(|origin| ((origin, false), since)));
                }
                Some(Op::Return { sequence, held }) => self.give_back(sequence, held, origin, since),
                _ => self.add(unit),
            }
        }
        for ((origin, in_order), since) in behind {
            match in_order {
                true => self.push_behind(origin, since),
                false => self.add(Unit::new(smallvec![], Some(origin), since)),
            }
        }
    }

    /// Lets a frame wait for everything that is here.
    pub(super) fn push_behind(&mut self, origin: StepRef, since: Timestamp) {
        self.push_last(Unit::barrier(origin, since));
    }

    /// Adds a unit that writes nothing behind everything that is here.
    pub(super) fn push_last(&mut self, barrier: Unit) {
        match self.deferred.is_empty() {
            true => self.push(barrier),
            false => self.deferred.push(barrier),
        }
    }

    fn touch(&mut self, since: Timestamp) {
        self.first = Some(self.first.map_or(since, |first| first.min(since)));
    }

    /// Whether an operation meets one on the same message here.
    fn is_open(&self, op: &Op) -> bool {
        let (sequence, holder) = match op {
            Op::Settle { sequence, holder } => (sequence, *holder),
            Op::Return { sequence, held } => (sequence, held.holder),
            _ => return false,
        };
        self.insert_of(*sequence).is_some() || self.returns.contains_key(&(*sequence, holder))
    }

    /// Takes a holder out of an open insert; if nothing is left of a plain send, its frame, and whether that has to
    /// wait for everything before it (R2).
    fn cancel(&mut self, slot: Slot, sequence: Sequence, holder: Holder, clean: bool) -> Option<(StepRef, bool)> {
        let Some(Some(Op::Insert(stored))) = self.op(slot) else { return None };
        stored.holders.retain(|held| held.holder != holder);
        let gone = stored.holders.is_empty();
        if gone {
            self.inserts.remove(&sequence);
            self.clear(slot);
        }
        let unit = self.units.get_mut(slot.0)?;
        unit.in_order |= !clean;
        let is_over = unit.is_empty() || self.broken.is(Rule::ConfirmsWithFirstHolder);
        let sender = if is_over { unit.origin.take() } else { None };
        sender.map(|sender| (sender, unit.in_order))
    }

    /// A return that waits for the next batch is overtaken by a settle; who asked for it waits for that batch still.
    fn forget_deferred_return(&mut self, sequence: Sequence, holder: Holder) {
        let is_it =
            |op: &mut Op| matches!(op, Op::Return { sequence: of, held } if (*of, held.holder) == (sequence, holder));
        for op in self.deferred.iter_mut().flat_map(|unit| &mut unit.ops) {
            op.take_if(is_it);
        }
    }

    fn is_doubtful(&self, (unit, _): Slot) -> bool {
        self.units.get(unit).is_some_and(|unit| unit.doubtful)
    }

    fn op(&mut self, (unit, place): Slot) -> Option<&mut Option<Op>> {
        self.units.get_mut(unit)?.ops.get_mut(place)
    }

    fn clear(&mut self, slot: Slot) {
        if let Some(op) = self.op(slot).and_then(Option::take) {
            self.bytes -= size(&op);
        }
    }
}

impl Part {
    /// Two parts that together do the same, for bisecting (R13); itself if there is only one unit.
    pub(super) fn split(mut self) -> Result<(Self, Self), Self> {
        let has_marks = !self.marks.is_empty() || !self.purges.is_empty();
        if self.units.len() < 2 && (!has_marks || self.units.is_empty()) {
            return Err(self);
        }
        let later = self.units.split_off(if self.units.len() < 2 { 0 } else { self.units.len() / 2 });
        let since = self.since;
        Ok((self, Self { marks: Vec::new(), purges: Vec::new(), units: later, since }))
    }

    /// What became of a holder's messages by it.
    pub(super) fn pending(&self, holder: Holder) -> impl Iterator<Item = (Sequence, Pending)> {
        self.units.iter().flat_map(move |unit| unit.pending(holder))
    }

    /// As [`OpenBatch::take_what_needs`].
    pub(super) fn take_what_needs(&mut self, refused: &Op) -> Vec<Unit> {
        if let Some(holder) = unmade_holder(refused) {
            self.marks.retain(|(marked, _)| *marked != holder);
            self.units.iter_mut().for_each(|unit| unit.leave_out(&BTreeMap::from([(holder, Sequence::MAX)])));
        }
        self.units.extract_if(.., |unit| unit.needs(refused)).collect()
    }

    /// Whether it makes a durable subscription.
    pub(super) fn makes(&self, durable: DurableId) -> bool {
        self.units.iter().any(|unit| unit.makes(durable))
    }

    /// Whether a full store can't take it (R14).
    pub(super) fn adds(&self) -> bool {
        !self.units.iter().all(Unit::only_settles)
    }

    /// Whether an earlier try may have written it.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.units.iter().any(|unit| unit.doubtful)
    }

    /// An earlier try may have written it.
    pub(super) fn doubt(&mut self) {
        self.units.iter_mut().for_each(|unit| unit.doubtful = true);
    }
}

impl Sealed {
    pub(super) fn new(number: BatchNumber, mut part: Part) -> Self {
        let mut ops: Vec<Op> = Vec::with_capacity(part.marks.len() + part.purges.len() + part.units.len());
        ops.extend(part.marks.iter().map(|(holder, upto)| Op::Mark { holder: *holder, upto: *upto }));
        ops.extend(part.purges.iter().map(|(holder, upto)| Op::Purge { holder: *holder, upto: *upto }));
        for unit in &mut part.units {
            unit.ops.retain(|op| op.is_some());
            ops.extend(unit.live().cloned());
        }
        Self { batch: Arc::new(Batch { number, ops }), part }
    }
}

/// Who keeps nothing if this operation is refused.
fn unmade_holder(refused: &Op) -> Option<Holder> {
    match refused {
        Op::CreateDurable { id, .. } => Some(Holder::Durable(*id)),
        _ => None,
    }
}

/// A mark never falls.
fn raise(marks: &mut BTreeMap<Holder, Sequence>, holder: Holder, upto: Sequence) {
    let mark = marks.entry(holder).or_default();
    *mark = (*mark).max(upto);
}

fn size(op: &Op) -> usize {
    match op {
        Op::Insert(stored) => stored.message.size(),
        _ => OP_BYTES,
    }
}

/// Sequences are counted, so their own bits spread well enough.
#[derive(Debug, Default)]
struct SequenceHasher(u64);

impl Hasher for SequenceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DestinationId, Durable, Message, MessageDraft, SessionId, Stored, Term};

    const QUEUE: Holder = Holder::Queue(DestinationId(1));
    const NOW: Timestamp = Timestamp(1_000);

    fn sequence(counter: u64) -> Sequence {
        Sequence::new(Term(1), counter)
    }

    fn step(number: u64) -> StepRef {
        StepRef { session: SessionId(1), number }
    }

    fn insert(counter: u64, holders: &[Holder]) -> Op {
        Op::Insert(Stored {
            sequence: sequence(counter),
            destination: DestinationId(1),
            holders: holders.iter().copied().map(Held::fresh).collect(),
            message: Arc::new(Message::new(MessageDraft::default())),
        })
    }

    fn settle(counter: u64) -> Op {
        Op::Settle { sequence: sequence(counter), holder: QUEUE }
    }

    fn sent(batch: &mut OpenBatch, counter: u64) {
        batch.push(Unit::new(smallvec![insert(counter, &[QUEUE])], Some(step(counter)), NOW));
    }

    fn ops(part: Part) -> Vec<Op> {
        Sealed::new(BatchNumber(1), part).batch.ops.clone()
    }

    #[test]
    fn r1_insert_and_settle_cancel() {
        let mut batch = OpenBatch::default();
        sent(&mut batch, 1);
        sent(&mut batch, 2);
        assert_eq!(batch.settle(sequence(1), QUEUE, None, NOW, true), Settled::Cancelled(Some(step(1))));
        let sealed = batch.take();
        assert_eq!(ops(sealed), [insert(2, &[QUEUE])]);
        assert_eq!(batch.settle(sequence(2), QUEUE, None, NOW, true), Settled::Written, "it is sealed");
    }

    #[test]
    fn r9_a_return_of_what_the_store_may_have_follows_its_insert() {
        let mut batch = OpenBatch::default();
        sent(&mut batch, 1);
        let mut in_doubt = batch.take();
        in_doubt.doubt();
        batch.reopen(in_doubt);
        let held = Held { deliveries: 1, ..Held::fresh(QUEUE) };
        batch.give_back(sequence(1), held, None, NOW);
        assert_eq!(ops(batch.take()), [insert(1, &[QUEUE])]);
        assert_eq!(ops(batch.take()), [Op::Return { sequence: sequence(1), held }]);
    }

    #[test]
    fn r14_a_settle_of_what_the_store_may_have_overtakes_its_return() {
        let mut batch = OpenBatch::default();
        sent(&mut batch, 1);
        let mut in_doubt = batch.take();
        in_doubt.doubt();
        batch.reopen(in_doubt);
        batch.give_back(sequence(1), Held::fresh(QUEUE), Some(step(2)), NOW);
        assert_eq!(batch.settle(sequence(1), QUEUE, None, NOW, true), Settled::Written);
        assert_eq!(ops(batch.take()), [settle(1)]);
        let part = batch.take();
        assert_eq!(origins(&part), [2, 1].map(step), "they wait for the batch still");
        assert!(ops(part).is_empty());
    }

    #[test]
    fn r2_every_holder_has_to_settle() {
        let (one, two) = (Holder::Durable(DurableId(1)), Holder::Durable(DurableId(2)));
        let mut batch = OpenBatch::default();
        batch.push(Unit::new(smallvec![insert(1, &[one, two])], Some(step(1)), NOW));
        assert_eq!(batch.settle(sequence(1), one, None, NOW, true), Settled::Cancelled(None));
        assert_eq!(batch.settle(sequence(1), two, None, NOW, true), Settled::Cancelled(Some(step(1))));
        assert!(ops(batch.take()).is_empty());
    }

    #[test]
    fn r2_a_holder_with_something_under_way_keeps_the_sender_waiting() {
        let (one, two) = (Holder::Durable(DurableId(1)), Holder::Durable(DurableId(2)));
        let mut batch = OpenBatch::default();
        batch.push(Unit::new(smallvec![insert(1, &[one, two])], Some(step(1)), NOW));
        assert_eq!(batch.settle(sequence(1), one, None, NOW, false), Settled::Cancelled(None));
        sent(&mut batch, 2);
        assert_eq!(batch.settle(sequence(1), two, None, NOW, true), Settled::Cancelled(None));
        let origins: Vec<_> = batch.take().units.iter().filter_map(|unit| unit.origin).collect();
        assert_eq!(origins, [step(2), step(1)], "behind everything that is here by now");
    }

    #[test]
    fn r14_a_sender_that_waits_in_order_waits_for_inserts_that_wait() {
        let mut batch = OpenBatch::default();
        sent(&mut batch, 1);
        sent(&mut batch, 2);
        batch.settle(sequence(1), QUEUE, None, NOW, false);
        assert!(!batch.has_settles());
        assert_eq!(batch.settle(sequence(2), QUEUE, None, NOW, true), Settled::Cancelled(Some(step(2))));
        assert!(batch.has_settles(), "nothing is before it any more");
    }

    #[test]
    fn r29_a_durable_subscription_is_deleted_with_what_names_it_and_before_another_is_made() {
        let (one, other) = (DurableId(1), DurableId(2));
        let settle_of = |of: u64| Op::Settle { sequence: sequence(of), holder: Holder::Durable(one) };
        let create = |id| {
            let durable = Durable { client_id: "c".into(), name: "n".into(), topic: DestinationId(1) };
            Unit::new(smallvec![Op::CreateDurable { id, durable }], None, NOW)
        };
        let mut batch = OpenBatch::default();
        batch.push(create(one));
        batch.push(Unit::new(smallvec![insert(1, &[Holder::Durable(one), QUEUE])], Some(step(1)), NOW));
        batch.push(Unit::new(smallvec![insert(2, &[Holder::Durable(one)])], Some(step(2)), NOW));
        batch.push(Unit::new(smallvec![settle_of(2)], Some(step(3)), NOW).named(UnitId::default(), true)); // deferred
        batch.push(Unit::new(smallvec![settle(1), insert(3, &[Holder::Durable(one)])], None, NOW)); // deferred
        batch.push(Unit::new(smallvec![Op::DeleteDurable { id: one }], Some(step(4)), NOW));
        batch.push(create(other));
        let part = batch.take();
        assert_eq!(origins(&part), [1, 2, 3, 4].map(step));
        let made = |id| create(id).live().next().cloned().unwrap();
        assert_eq!(ops(part), [made(one), insert(1, &[QUEUE]), Op::DeleteDurable { id: one }, made(other)]);
        assert_eq!(ops(batch.take()), [settle(1)], "it settles what was open");
    }

    #[test]
    fn r14_a_deletion_goes_ahead_and_nothing_that_names_the_durable_subscription_follows() {
        let durable = DurableId(1);
        let mut batch = OpenBatch::default();
        batch.push(Unit::new(smallvec![insert(1, &[Holder::Durable(durable)])], Some(step(1)), NOW));
        sent(&mut batch, 2);
        let settled = Op::Settle { sequence: sequence(9), holder: Holder::Durable(durable) };
        batch.push(Unit::new(smallvec![settled], Some(step(9)), NOW));
        let full = batch.take();
        batch.push(Unit::new(smallvec![Op::DeleteDurable { id: durable }], None, NOW));
        batch.reopen(full);
        assert!(batch.has_settles());
        let part = batch.take_settles();
        assert_eq!(origins(&part), [1, 9].map(step), "they are confirmed with the deletion");
        assert_eq!(ops(part), [Op::DeleteDurable { id: durable }]);
        assert_eq!(ops(batch.take()), [insert(2, &[QUEUE])]);
    }

    #[test]
    fn r5_a_unit_that_settles_what_is_open_goes_with_the_next_batch() {
        let mut batch = OpenBatch::default();
        sent(&mut batch, 1);
        batch.push(Unit::new(smallvec![settle(1), insert(2, &[QUEUE])], None, NOW));
        assert_eq!(ops(batch.take()), [insert(1, &[QUEUE])]);
        assert!(batch.is_due(NOW));
        assert_eq!(ops(batch.take()), [settle(1), insert(2, &[QUEUE])]);
        assert!(batch.is_empty());
    }

    #[test]
    fn r13_a_unit_that_is_taken_out_leaves_nothing_behind() {
        let id = UnitId::default();
        let unit = |of| Unit::new(smallvec![settle(of), insert(of + 1, &[QUEUE])], None, NOW).named(id, false);
        let mut batch = OpenBatch::default();
        batch.push(unit(1));
        sent(&mut batch, 9);
        let bytes = batch.bytes();
        assert!(batch.take_out(id).is_some());
        assert!(batch.bytes() < bytes && batch.take_out(id).is_none());
        batch.push(unit(9)); // deferred: it settles what is open
        assert!(batch.take_out(id).is_some());
        assert_eq!(ops(batch.take()), [insert(9, &[QUEUE])]);
        assert!(batch.is_empty());
    }

    #[test]
    fn r9_a_return_is_merged_into_an_open_insert_and_dropped_by_a_settle() {
        let mut batch = OpenBatch::default();
        let held = Held { deliveries: 3, ..Held::fresh(QUEUE) };
        sent(&mut batch, 1);
        batch.give_back(sequence(1), held, None, NOW);
        batch.give_back(sequence(7), held, None, NOW);
        batch.settle(sequence(7), QUEUE, None, NOW, true);
        let sealed = batch.take();
        assert!(matches!(ops(sealed).as_slice(), [Op::Insert(stored), Op::Settle { .. }]
            if stored.holders.as_slice() == [held]));
    }

    #[test]
    fn r14_a_reopened_batch_cancels_again_and_its_settles_go_ahead() {
        let mut batch = OpenBatch::default();
        sent(&mut batch, 5);
        batch.push(Unit::new(smallvec![settle(1)], None, NOW));
        let sealed = batch.take();
        batch.settle(sequence(5), QUEUE, None, NOW, true);
        sent(&mut batch, 6);
        batch.reopen(sealed);
        assert_eq!(ops(batch.take_settles()), [settle(1)], "the settle of 5 cancelled its insert");
        assert_eq!(ops(batch.take()), [insert(6, &[QUEUE])]);
    }

    #[test]
    fn r29_what_a_purge_does_not_cover_cancels_or_is_one_unit() {
        let id = UnitId::default();
        let mut batch = OpenBatch::default();
        sent(&mut batch, 4);
        batch.give_back(sequence(3), Held { deliveries: 1, ..Held::fresh(QUEUE) }, None, NOW);
        sent(&mut batch, 5);
        batch.settle_all(QUEUE, &[2, 3, 4].map(sequence), id, NOW);
        let part = batch.take();
        assert!(part.units.iter().any(|unit| unit.id == Some(id) && unit.live().count() == 2));
        assert_eq!(origins(&part), [5, 4].map(step), "who sent what cancelled waits for it");
        assert_eq!(ops(part), [insert(5, &[QUEUE]), settle(2), settle(3)]);
        assert!(batch.is_empty());
    }

    fn purge(upto: u64) -> Op {
        Op::Purge { holder: QUEUE, upto: sequence(upto) }
    }

    fn origins(part: &Part) -> Vec<StepRef> {
        part.units.iter().filter_map(|unit| unit.origin).collect()
    }

    #[test]
    fn r29_nothing_that_a_purge_covers_is_written_beside_it_and_who_asked_waits_for_it() {
        let other = Holder::Durable(DurableId(1));
        let mut batch = OpenBatch::default();
        sent(&mut batch, 2);
        batch.push(Unit::new(smallvec![insert(3, &[QUEUE, other])], None, NOW));
        batch.settle(sequence(1), QUEUE, Some(step(7)), NOW, true);
        batch.push(Unit::new(smallvec![settle(2), insert(9, &[other])], None, NOW)); // deferred: it settles what is open
        batch.purge(QUEUE, sequence(5), NOW);
        let held = Held { deliveries: 3, ..Held::fresh(QUEUE) };
        batch.give_back(sequence(4), held, None, NOW);
        assert_eq!(batch.settle(sequence(3), QUEUE, Some(step(8)), NOW, true), Settled::Cancelled(None));
        assert_eq!(batch.settle(sequence(4), QUEUE, Some(step(9)), NOW, true), Settled::Written);
        sent(&mut batch, 6);
        let part = batch.take();
        assert_eq!(origins(&part), [2, 7, 9, 6].map(step));
        assert_eq!(ops(part), [purge(5), insert(3, &[other]), insert(9, &[other]), insert(6, &[QUEUE])]);
        assert!(batch.is_empty());
        assert_eq!(
            batch.settle(sequence(4), QUEUE, None, NOW, true),
            Settled::Written,
            "later it is an op like others"
        );
        assert_eq!(ops(batch.take()), [settle(4)]);
    }

    #[test]
    fn r14_a_purge_goes_ahead_and_what_it_covers_never_follows() {
        let mut batch = OpenBatch::default();
        batch.push(Unit::new(smallvec![settle(1), insert(7, &[QUEUE])], None, NOW)); // a dead letter in its own queue
        sent(&mut batch, 5);
        let sealed = batch.take();
        batch.purge(QUEUE, sequence(6), NOW);
        sent(&mut batch, 8);
        batch.reopen(sealed);
        let first = batch.take_settles();
        assert_eq!(origins(&first), [step(5)], "its message is gone, and is confirmed with the purge");
        assert_eq!(ops(first), [purge(6)]);
        assert_eq!(ops(batch.take()), [insert(7, &[QUEUE]), insert(8, &[QUEUE])]);
    }

    #[test]
    fn r14_a_purge_that_was_not_written_is_written_again() {
        let mut batch = OpenBatch::default();
        batch.purge(QUEUE, sequence(6), NOW);
        let sealed = batch.take();
        assert!(!batch.has_settles() && batch.is_empty());
        batch.reopen(sealed);
        assert!(batch.has_settles() && batch.due_at().is_some());
        batch.purge(QUEUE, sequence(4), NOW);
        assert_eq!(ops(batch.take()), [purge(6)], "a mark never falls");
    }

    #[test]
    fn r13_a_purge_is_in_the_first_part() {
        let mut batch = OpenBatch::default();
        batch.purge(QUEUE, sequence(6), NOW);
        sent(&mut batch, 7);
        let (first, second) = batch.take().split().unwrap();
        assert_eq!((ops(first), ops(second)), (vec![purge(6)], vec![insert(7, &[QUEUE])]));
    }

    #[test]
    fn r13_a_batch_is_bisected_between_units() {
        let mut batch = OpenBatch::default();
        batch.push(Unit::new(smallvec![settle(1), insert(2, &[QUEUE])], None, NOW));
        sent(&mut batch, 3);
        let (first, second) = batch.take().split().unwrap();
        assert_eq!(ops(first), [settle(1), insert(2, &[QUEUE])]);
        assert_eq!(ops(second.split().unwrap_err()), [insert(3, &[QUEUE])]);
    }

    #[test]
    fn what_nobody_waits_for_is_lazy() {
        let mut batch = OpenBatch::default();
        assert!(!batch.is_due(NOW));
        batch.push(Unit::new(smallvec![settle(1)], None, NOW));
        assert!(!batch.is_due(NOW));
        assert!(batch.is_due(NOW.after(LAZY_DELAY)));
        batch.make_eager();
        assert!(batch.is_due(NOW));
    }
}
