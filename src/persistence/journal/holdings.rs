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
    sequences::Sequences,
};
use crate::types::{DestinationId, DurableId, Held, Holder, Message, Priority, Sequence, Timestamp};

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

/// What one holder holds.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) destination: DestinationId,
    pub(super) by_priority: [Sequences; Priority::COUNT],
    /// What all messages that ever stood here were, for the average. Unit: bytes.
    pub(super) bytes: u64,
    pub(super) messages: u64,
}

/// The messages of a page that is to be read.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) sequences: Vec<Sequence>,
    /// Whether these are all in the range.
    pub(super) complete: bool,
}

impl Line {
    pub(super) fn new(destination: DestinationId) -> Self {
        Self { destination, by_priority: Default::default(), bytes: 0, messages: 0 }
    }

    pub(super) fn of(&mut self, priority: Priority) -> Option<&mut Sequences> {
        self.by_priority.get_mut(priority.index())
    }

    fn holds(&self, sequence: Sequence) -> bool {
        self.by_priority.iter().any(|set| set.contains(sequence))
    }

    fn remove(&mut self, sequence: Sequence) -> bool {
        self.by_priority.iter_mut().any(|set| set.remove(sequence))
    }

    fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        for (messages, set) in backlog.messages.iter_mut().zip(&self.by_priority) {
            *messages = set.len();
        }
        let average = self.bytes.checked_div(self.messages).unwrap_or_default() + Message::OVERHEAD as u64;
        backlog.bytes = backlog.messages.iter().sum::<u64>() * average;
        backlog
    }
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
        let line = self.line(held.holder, destination);
        if line.of(priority).is_some_and(|set| set.insert(sequence)) {
            line.messages += 1;
            line.bytes += u64::from(bytes);
        }
        self.live.insert(sequence);
        self.set_part(sequence, held);
    }

    /// What an index says of a whole segment; `hold_live` is due for all of it.
    pub(super) fn hold_all(&mut self, holder: Holder, other: Line) {
        let line = self.line(holder, other.destination);
        line.messages += other.messages;
        line.bytes += other.bytes;
        for (set, other) in line.by_priority.iter_mut().zip(other.by_priority) {
            set.take_all(other);
        }
    }

    /// These are live: somebody holds each of them.
    pub(super) fn hold_live(&mut self, sequences: &Sequences) {
        self.live.add_all(sequences);
    }

    /// Everything was taken in that indexes say; from now on it changes a message at a time.
    pub(super) fn loosen(&mut self) {
        self.live.loosen();
        self.lines.values_mut().flat_map(|line| &mut line.by_priority).for_each(Sequences::loosen);
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
        if !self.is_held(sequence, destination) {
            self.live.remove(sequence);
        }
        true
    }

    /// The same for many.
    pub(super) fn settle_all(&mut self, holder: Holder, sequences: &Sequences) {
        let Some(line) = self.lines.get_mut(&holder) else { return };
        line.by_priority.iter_mut().for_each(|set| set.remove_all(sequences));
        let destination = line.destination;
        let parts = self.returned.range((holder, Sequence::ZERO)..=(holder, Sequence::MAX));
        let settled = parts.map(|((_, sequence), _)| *sequence).filter(|sequence| sequences.contains(*sequence));
        for sequence in settled.collect::<Vec<_>>() {
            self.forget_part(sequence, holder);
        }
        self.release(destination, sequences.clone());
    }

    /// A durable subscription is gone, and its part in every message.
    pub(super) fn delete_durable(&mut self, id: DurableId) {
        let holder = Holder::Durable(id);
        let Some(line) = self.lines.remove(&holder) else { return };
        if let Some(holders) = self.holders.get_mut(&line.destination) {
            holders.retain(|other| *other != holder);
        }
        self.forget_parts(holder, Sequence::MAX);
        for set in line.by_priority {
            self.release(line.destination, set);
        }
    }

    /// Everything up to `upto` is gone that a holder held.
    pub(super) fn purge(&mut self, holder: Holder, upto: Sequence) {
        let Some(line) = self.lines.get_mut(&holder) else { return };
        let destination = line.destination;
        let purged = line.by_priority.each_mut().map(|set| set.take_upto(upto));
        self.forget_parts(holder, upto);
        for set in purged {
            self.release(destination, set);
        }
    }

    /// What nobody of its destination holds any more is not live.
    fn release(&mut self, destination: DestinationId, mut sequences: Sequences) {
        for holder in self.holders.get(&destination).into_iter().flatten() {
            let sets = self.lines.get(holder).into_iter().flat_map(|line| &line.by_priority);
            sets.for_each(|set| sequences.remove_all(set));
        }
        self.live.remove_all(&sequences);
    }

    /// Whether anybody still holds a message of a destination.
    fn is_held(&mut self, sequence: Sequence, destination: DestinationId) -> bool {
        let Some(holders) = self.holders.get_mut(&destination) else { return false };
        let lines = &self.lines;
        let holds = |holder: &Holder| lines.get(holder).is_some_and(|line| line.holds(sequence));
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
        let holders = self.holders.get(&destination).into_iter().flatten();
        let holding = holders.filter(|holder| self.lines.get(holder).is_some_and(|line| line.holds(sequence)));
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
        let mut held =
            line.by_priority.get(priority.index())?.range((Bound::Excluded(range.after), Bound::Included(range.upto)));
        let sequences = held.by_ref().take(messages).collect();
        Some((line.destination, Listed { sequences, complete: held.next().is_none() }))
    }

    /// Where a message lies that a holder holds.
    pub(super) fn lane(&self, holder: Holder, sequence: Sequence) -> Option<(DestinationId, Priority)> {
        let line = self.lines.get(&holder)?;
        let level = line.by_priority.iter().position(|set| set.contains(sequence))?;
        Some((line.destination, Priority::clamped(u8::try_from(level).ok()?)))
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
            lines.flat_map(|line| &line.by_priority).for_each(|set| union.add_all(set));
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
            line.by_priority.iter().for_each(|set| live.add_all(set));
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
