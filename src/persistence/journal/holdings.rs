//! Who holds which messages: sets of sequences, whatever the messages are and wherever they lie.
//!
//! Always true: a message is live as long as it is in the set of at least one holder; a part that returned belongs to a
//! holder that holds the message; see `Holdings::check`. Once settled, a part never comes back: so what is held is all
//! that was inserted less all that was settled.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
};

use smallvec::SmallVec;

use super::{
    super::{Backlog, PageRange},
    line::Line,
    scattered::Scattered,
    sequences::Sequences,
};
use crate::types::{DestinationId, DurableId, Held, Holder, Priority, Sequence, Timestamp};

/// What everybody holds.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// What anybody holds.
    live: Sequences,
    lines: HashMap<Holder, Line, foldhash::fast::RandomState>,
    /// Who holds, or held, messages of a destination; who was found to hold one last stands first.
    holders: HashMap<DestinationId, Vec<Holder>, foldhash::fast::RandomState>,
    /// The parts that are not as at first.
    returned: BTreeMap<(Holder, Sequence), Held>,
    due: BTreeSet<(Timestamp, Sequence, Holder)>,
}

/// The messages of a page that is to be read.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) sequences: Vec<Sequence>,
    /// Whether these are all in the range.
    pub(super) complete: bool,
}

impl Holdings {
    /// One holder's part in a message of `bytes`.
    pub(super) fn hold(
        &mut self,
        sequence: Sequence,
        destination: DestinationId,
        priority: Priority,
        held: Held,
        bytes: u32,
    ) {
        self.line(held.holder, destination).insert(sequence, priority, bytes);
        self.live.insert(sequence);
        self.set_part(sequence, held);
    }

    /// What an index says of a whole segment; `hold_live` is due for all of it.
    pub(super) fn hold_all(&mut self, holder: Holder, other: Line) {
        self.line(holder, other.destination).take_all(other);
    }

    /// These are live: somebody holds each of them.
    pub(super) fn hold_live(&mut self, sequences: &Sequences) {
        self.live.add_all(sequences);
    }

    /// Everything was taken in that indexes say; from now on it changes a message at a time.
    pub(super) fn loosen(&mut self) {
        self.live.loosen();
        self.lines.values_mut().for_each(Line::loosen);
    }

    fn line(&mut self, holder: Holder, destination: DestinationId) -> &mut Line {
        self.lines.entry(holder).or_insert_with(|| {
            self.holders.entry(destination).or_default().push(holder);
            Line::new(destination)
        })
    }

    /// A holder is done with a message. Whether it held it.
    pub(super) fn settle(&mut self, sequence: Sequence, holder: Holder) -> bool {
        let Some(line) = self.lines.get_mut(&holder) else { return false };
        if !line.remove(sequence) {
            return false;
        }
        let destination = line.destination;
        self.forget_part(sequence, holder);
        if !self.is_held_beside(holder, sequence, destination) {
            self.live.remove(sequence);
        }
        true
    }

    /// The same for many.
    pub(super) fn settle_all(&mut self, holder: Holder, sequences: Scattered) {
        let Some(line) = self.lines.get_mut(&holder) else { return };
        line.remove_all(&sequences);
        let destination = line.destination;
        let parts = self.returned.range((holder, Sequence::ZERO)..=(holder, Sequence::MAX));
        let settled = parts.map(|((_, sequence), _)| *sequence).filter(|sequence| sequences.contains(*sequence));
        for sequence in settled.collect::<Vec<_>>() {
            self.forget_part(sequence, holder);
        }
        self.release(holder, destination, sequences);
    }

    /// A durable subscription is gone, and its part in every message.
    pub(super) fn delete_durable(&mut self, id: DurableId) {
        let holder = Holder::Durable(id);
        let Some(line) = self.lines.remove(&holder) else { return };
        if let Some(holders) = self.holders.get_mut(&line.destination) {
            holders.retain(|other| *other != holder);
        }
        self.forget_parts(holder, Sequence::MAX);
        let destination = line.destination;
        for set in line.into_sets() {
            self.release(holder, destination, set);
        }
    }

    /// Everything up to `upto` is gone that a holder held.
    pub(super) fn purge(&mut self, holder: Holder, upto: Sequence) {
        let Some(line) = self.lines.get_mut(&holder) else { return };
        let (destination, purged) = (line.destination, line.take_upto(upto));
        self.forget_parts(holder, upto);
        for set in purged {
            self.release(holder, destination, set);
        }
    }

    /// What a holder does not hold any more is not live if nobody else of its destination holds it.
    fn release(&mut self, holder: Holder, destination: DestinationId, mut sequences: Scattered) {
        let holders = self.holders.get(&destination).into_iter().flatten();
        for other in holders.filter(|other| **other != holder) {
            let sets = self.lines.get(other).into_iter().flat_map(Line::sets);
            sets.for_each(|set| sequences.remove_all(set));
        }
        sequences.remove_from(&mut self.live);
    }

    /// Whether anybody else still holds a message of a destination.
    fn is_held_beside(&mut self, holder: Holder, sequence: Sequence, destination: DestinationId) -> bool {
        let Some(holders) = self.holders.get_mut(&destination) else { return false };
        let lines = &self.lines;
        let holds = |other: &Holder| *other != holder && lines.get(other).is_some_and(|line| line.holds(sequence));
        let found = holders.iter().position(holds);
        if let Some(index) = found {
            holders.swap(0, index); // who is behind is behind for the next message too
        }
        found.is_some()
    }

    /// A message came back to its holder, if it holds it.
    pub(super) fn give_back(&mut self, sequence: Sequence, held: Held) -> bool {
        let holds = self.lines.get(&held.holder).is_some_and(|line| line.holds(sequence));
        if holds {
            self.set_part(sequence, held);
        }
        holds
    }

    fn set_part(&mut self, sequence: Sequence, held: Held) {
        if self.returned.is_empty() && held == Held::fresh(held.holder) {
            return; // nearly always
        }
        self.forget_part(sequence, held.holder);
        if held != Held::fresh(held.holder) {
            self.returned.insert((held.holder, sequence), held);
            self.due.extend(held.due.map(|at| (at, sequence, held.holder)));
        }
    }

    fn forget_part(&mut self, sequence: Sequence, holder: Holder) {
        if let Some(held) = self.returned.remove(&(holder, sequence))
            && let Some(at) = held.due
        {
            self.due.remove(&(at, sequence, holder));
        }
    }

    /// All of a holder's up to `upto`.
    fn forget_parts(&mut self, holder: Holder, upto: Sequence) {
        let parts = self.returned.range((holder, Sequence::ZERO)..=(holder, upto));
        for sequence in parts.map(|((_, sequence), _)| *sequence).collect::<Vec<_>>() {
            self.forget_part(sequence, holder);
        }
    }

    /// One holder's part in a message that it holds.
    pub(super) fn part(&self, sequence: Sequence, holder: Holder) -> Held {
        self.returned.get(&(holder, sequence)).copied().unwrap_or(Held::fresh(holder))
    }

    /// Who holds a message of a destination.
    pub(super) fn parts(&self, sequence: Sequence, destination: DestinationId) -> SmallVec<[Held; 1]> {
        let holders = self.holders.get(&destination).map(Vec::as_slice).unwrap_or_default();
        if let [only] = holders {
            return self.live.contains(sequence).then(|| self.part(sequence, *only)).into_iter().collect();
        }
        let holding = holders.iter().filter(|holder| self.lines.get(holder).is_some_and(|line| line.holds(sequence)));
        let mut parts: SmallVec<[Held; 1]> = holding.map(|holder| self.part(sequence, *holder)).collect();
        parts.sort_unstable_by_key(|held| held.holder);
        parts
    }

    /// What a holder holds in a range, up to so many; and the destination where it lies.
    pub(super) fn list(
        &self,
        holder: Holder,
        priority: Priority,
        range: PageRange,
        messages: usize,
    ) -> Option<(DestinationId, Listed)> {
        let line = self.lines.get(&holder).filter(|_| range.after < range.upto)?;
        let mut held = line.of(priority)?.range((Bound::Excluded(range.after), Bound::Included(range.upto)));
        let sequences = held.by_ref().take(messages).collect();
        Some((line.destination, Listed { sequences, complete: held.next().is_none() }))
    }

    /// Where a message lies that a holder holds.
    pub(super) fn lane(&self, holder: Holder, sequence: Sequence) -> Option<(DestinationId, Priority)> {
        let line = self.lines.get(&holder)?;
        Some((line.destination, line.priority(sequence)?))
    }

    /// What returns behind a time and sequence, in order.
    pub(super) fn due_after(
        &self,
        (at, sequence): (Timestamp, Sequence),
    ) -> impl Iterator<Item = (Timestamp, Sequence, Holder)> {
        let last = (at, sequence, Holder::Durable(DurableId(u64::MAX)));
        self.due.range((Bound::Excluded(last), Bound::Unbounded)).copied()
    }

    pub(super) fn live(&self) -> &Sequences {
        &self.live
    }

    /// What each holder holds that holds anything.
    pub(super) fn backlogs(&self) -> BTreeMap<Holder, Backlog> {
        let backlogs = self.lines.iter().map(|(holder, line)| (*holder, line.backlog()));
        backlogs.filter(|(_, backlog)| backlog.messages.iter().any(|messages| *messages > 0)).collect()
    }

    /// How many messages of each destination anybody holds.
    pub(super) fn by_destination(&self) -> BTreeMap<DestinationId, u64> {
        let count = |holders: &Vec<Holder>| {
            let mut union = Sequences::default();
            let lines = holders.iter().filter_map(|holder| self.lines.get(holder));
            lines.flat_map(Line::sets).for_each(|set| set.add_to(&mut union));
            union.len()
        };
        self.holders.iter().map(|(destination, holders)| (*destination, count(holders))).collect()
    }

    /// What this module promises; for tests and debug builds.
    pub(super) fn check(&self) -> bool {
        let mut live = Sequences::default();
        for (holder, line) in &self.lines {
            let holders = self.holders.get(&line.destination);
            assert!(holders.is_some_and(|holders| holders.contains(holder)), "{holder:?} is found by its destination");
            line.sets().for_each(|set| set.add_to(&mut live));
            assert!(line.check(), "{holder:?}'s sets are as they should be");
        }
        assert_eq!(live, self.live, "what somebody holds is live, and nothing else is");
        for ((holder, sequence), held) in &self.returned {
            assert!(self.lines.get(holder).is_some_and(|line| line.holds(*sequence)), "{holder:?} holds {sequence}");
            assert!(held.due.is_none_or(|at| self.due.contains(&(at, *sequence, *holder))), "{sequence} comes due");
        }
        let delayed = self.returned.values().filter(|held| held.due.is_some()).count();
        assert_eq!(delayed, self.due.len(), "what comes due has returned");
        true
    }
}
