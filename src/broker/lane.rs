//! The messages of one queue and priority: in memory at both ends, and in the store alone between them.
//!
//! From front to back: what returned, the head, the gap, the tail. What returned and the head are in memory, and so is
//! the tail, which is empty unless there is a gap. The gap is what the store has and memory does not: it grows at its
//! end when the front of the tail leaves memory, at its beginning when the back of the head does, and shrinks when a
//! page of it is read.
//!
//! Always true: only what the store has as it is here leaves memory, so a gap never spans what is not durable, and a
//! read of all of it finds all of it (R25). What was handed out and lies within the gap is in `skip`: a page that
//! brings it, because its settle is not durable yet or because it is in flight, brings nothing (R26, R27).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ReadNumber,
    entry::{Entry, Kept, Storage},
    run::Run,
    step::Step,
};
use crate::types::{PageRange, Priority, Sequence};

/// One priority's messages.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) priority: Priority,
    /// By sequence, and not always before all of the head: a page may be read again behind what is in flight.
    returned: BTreeMap<Sequence, Entry>,
    head: Run,
    gap: Option<Gap>,
    tail: Run,
    /// Up to here the store may have had something when the term began.
    stored_upto: Sequence,
    /// The highest sequence that ever was taken out.
    handed_out: Sequence,
    /// How many messages the last page brought.
    page: usize,
}

/// What lies in the store alone: behind `after`, up to `upto`.
#[derive(Debug)]
struct Gap {
    after: Sequence,
    upto: Sequence,
    /// What a page may bring and nobody wants.
    skip: BTreeSet<Sequence>,
    /// The read under way.
    reading: Option<ReadNumber>,
    /// Whether it begins before something that was handed out, and `skip` does not say so yet.
    moved_back: bool,
    lies_in: Places,
}

/// Where messages that are not in memory may lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) store: bool,
    pub(super) spool: bool,
}

/// What a lane or queue hands out next.
#[derive(Debug)]
pub(super) enum Popped {
    Entry(Entry),
    /// The next one lies in the store alone.
    Cold,
    Nothing,
}

/// Where the first message of a lane lies.
enum Front {
    Returned,
    Head,
    Gap,
    /// Nowhere, or nobody may see it yet.
    Nothing,
}

/// What of a lane is to be read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) after: Sequence,
    pub(super) upto: Sequence,
    /// Whether something in it was handed out, so that the store may still have what was settled (R26).
    pub(super) handed_out: bool,
    pub(super) lies_in: Places,
}

impl Lane {
    pub(super) fn new(priority: Priority) -> Self {
        Self {
            priority,
            returned: BTreeMap::new(),
            head: Run::default(),
            gap: None,
            tail: Run::default(),
            stored_upto: Sequence::ZERO,
            handed_out: Sequence::ZERO,
            page: 0,
        }
    }

    /// A lane of which the store may have anything up to `upto`.
    pub(super) fn stored(priority: Priority, upto: Sequence) -> Self {
        let lies_in = Places { store: true, spool: false };
        Self {
            gap: Some(Gap { upto, lies_in, ..Gap::empty_before(Sequence::ZERO) }),
            stored_upto: upto,
            ..Self::new(priority)
        }
    }

    /// Takes a new message in at the end.
    pub(super) fn push(&mut self, entry: Entry) {
        match self.gap {
            Some(_) => self.tail.push(entry),
            None => self.head.push(entry),
        }
    }

    /// Takes the first message out, unless nobody may see it yet.
    pub(super) fn pop(&mut self) -> Popped {
        let entry = match self.front() {
            Front::Returned => self.returned.pop_first().map(|(_, entry)| entry),
            Front::Head => self.head.pop_front(),
            Front::Gap => return Popped::Cold,
            Front::Nothing => None,
        };
        let Some(entry) = entry else { return Popped::Nothing };
        self.handed_out = self.handed_out.max(entry.sequence);
        Popped::Entry(entry)
    }

    fn front(&self) -> Front {
        let before_head = |returned: Sequence| self.head.first().is_none_or(|head| returned < head);
        let before_gap =
            |returned: Sequence| !self.head.is_empty() || self.gap.as_ref().is_none_or(|gap| returned <= gap.after);
        let returned = self.returned.first_key_value().map(|(sequence, _)| *sequence);
        if returned.is_some_and(|returned| before_head(returned) && before_gap(returned)) {
            return Front::Returned;
        }
        match self.head.front() {
            Some(first) if first.hidden => Front::Nothing,
            Some(_) => Front::Head,
            None if self.gap.is_some() => Front::Gap,
            None => Front::Nothing,
        }
    }

    /// Gives back what was taken out; it keeps its place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        if self.head.spans(entry.sequence) {
            return self.head.put_between(entry);
        }
        if self.tail.spans(entry.sequence) {
            return self.tail.put_between(entry);
        }
        self.skip(entry.sequence);
        self.returned.insert(entry.sequence, entry);
    }

    /// Takes a certain message out, if it is in memory.
    pub(super) fn take(&mut self, sequence: Sequence) -> Option<Entry> {
        let returned = self.returned.remove(&sequence);
        let entry = returned.or_else(|| self.head.take(sequence)).or_else(|| self.tail.take(sequence))?;
        self.handed_out = self.handed_out.max(sequence);
        Some(entry)
    }

    /// Looks at a certain message that was never handed out.
    pub(super) fn get_mut(&mut self, sequence: Sequence) -> Option<&mut Entry> {
        self.head.get_mut(sequence).or_else(|| self.tail.get_mut(sequence))
    }

    /// Whether a certain message, if the store has it, lies here and not in memory.
    pub(super) fn is_cold(&self, sequence: Sequence) -> bool {
        self.gap
            .as_ref()
            .is_some_and(|gap| gap.after < sequence && sequence <= gap.upto && !gap.skip.contains(&sequence))
    }

    /// A message that is not in memory here was taken out: no page brings it any more.
    pub(super) fn was_taken(&mut self, sequence: Sequence) {
        self.handed_out = self.handed_out.max(sequence);
        self.skip(sequence);
    }

    /// Whether something lies here and not in memory: what comes behind it has to be able to leave too.
    pub(super) fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// Whether something may be handed out, or is to be read for it.
    pub(super) fn serves(&self) -> bool {
        !matches!(self.front(), Front::Nothing)
    }

    /// What should be read now: something, if there is a gap, nobody reads it, and the head runs low.
    pub(super) fn wanted(&self) -> Option<Stretch> {
        let gap = self.gap.as_ref().filter(|gap| gap.reading.is_none() && self.head.len() <= self.page / 2)?;
        Some(Stretch {
            after: gap.after,
            upto: gap.upto,
            handed_out: gap.after < self.handed_out,
            lies_in: gap.lies_in,
        })
    }

    /// A read of what was wanted begins.
    pub(super) fn begin_read(&mut self, number: ReadNumber) {
        if let Some(gap) = &mut self.gap {
            gap.reading = Some(number);
        }
    }

    /// Whether a read is the one under way here; it is over then.
    pub(super) fn end_read(&mut self, number: ReadNumber) -> bool {
        self.gap.as_mut().is_some_and(|gap| gap.reading.take_if(|reading| *reading == number).is_some())
    }

    /// Takes in a message that was read, unless nobody wants it.
    pub(super) fn push_read(&mut self, entry: Entry) {
        debug_assert!(self.is_cold(entry.sequence), "what is read lies in the gap");
        self.head.push(entry);
    }

    /// Everything up to `after` was read: `count` messages.
    pub(super) fn has_read(&mut self, after: Sequence, count: usize) {
        let Some(gap) = &mut self.gap else { return };
        self.page = count;
        gap.begin_behind(after);
        self.close_empty_gap();
    }

    /// The store has nothing of what it might have had when the term began.
    pub(super) fn has_nothing_stored(&mut self) {
        if let Some(gap) = self.gap.as_mut().filter(|gap| gap.reading.is_none()) {
            gap.begin_behind(self.stored_upto);
            self.close_empty_gap();
        }
    }

    /// Lets up to `most` messages leave memory, all but `keep` bytes at the head; how many it were.
    pub(super) fn shrink(&mut self, keep: usize, most: usize, kept: Kept, left: &mut impl FnMut(Entry)) -> usize {
        self.open_gap(keep, kept);
        let Some(gap) = &mut self.gap else { return 0 };
        let mut count = 0;
        while count < most && self.tail.front().is_some_and(|entry| entry.may_leave(kept)) {
            let Some(entry) = self.tail.pop_front() else { break };
            gap.upto = entry.sequence;
            gap.lies_in.add(&entry);
            count += 1;
            left(entry);
        }
        while count < most && self.head.bytes() > keep && self.head.back().is_some_and(|entry| entry.may_leave(kept)) {
            let Some(entry) = self.head.pop_back() else { break };
            gap.begin_before(entry.sequence, self.handed_out);
            gap.lies_in.add(&entry);
            count += 1;
            left(entry);
        }
        gap.moved_back |= count > 0 && gap.after < self.handed_out;
        count
    }

    /// Lets what returned leave memory too: the gap begins before it from now on, and what is in flight behind that is
    /// to be skipped, see [`Self::has_moved_back`] (R27).
    pub(super) fn rewind(&mut self, kept: Kept, left: &mut impl FnMut(Entry)) -> usize {
        let may_leave = self.head.is_empty() && self.returned.values().all(|entry| entry.may_leave(kept));
        let (Some((first, _)), Some((last, _)), true) =
            (self.returned.first_key_value(), self.returned.last_key_value(), may_leave)
        else {
            return 0;
        };
        let (first, last) = (*first, *last);
        let gap = self.gap.get_or_insert_with(|| Gap::empty_before(first));
        gap.begin_before(first, self.handed_out);
        gap.upto = gap.upto.max(last);
        let returned = std::mem::take(&mut self.returned);
        let count = returned.len();
        for (sequence, entry) in returned {
            gap.skip.remove(&sequence);
            gap.lies_in.add(&entry);
            left(entry);
        }
        gap.moved_back |= gap.after < self.handed_out;
        count
    }

    /// Whether the gap begins before something that was handed out, since the last look: what of it is not settled has
    /// to be skipped from now on.
    pub(super) fn has_moved_back(&mut self) -> bool {
        self.gap.as_mut().is_some_and(|gap| std::mem::take(&mut gap.moved_back))
    }

    /// No page brings what is in memory.
    pub(super) fn skip_what_returned(&mut self) {
        let Some(gap) = &mut self.gap else { return };
        let within = gap.after.next()..=gap.upto;
        gap.skip.extend(self.returned.range(within).map(|(sequence, _)| *sequence));
    }

    /// No page brings this any more, because it is somewhere else.
    pub(super) fn skip(&mut self, sequence: Sequence) {
        if let Some(gap) = self.gap.as_mut().filter(|gap| gap.after < sequence && sequence <= gap.upto) {
            gap.skip.insert(sequence);
        }
    }

    /// A settled message that was skipped is not in the store any more; a page that is being read may bring it still.
    pub(super) fn need_not_skip(&mut self, sequence: Sequence) {
        if let Some(gap) = self.gap.as_mut().filter(|gap| gap.reading.is_none()) {
            gap.skip.remove(&sequence);
        }
    }

    /// Takes everything out, in memory or not. All that was `given` a sequence counts as handed out.
    pub(super) fn take_all(&mut self, given: Sequence) -> Self {
        let emptied = Self { handed_out: given.max(self.handed_out), ..Self::new(self.priority) };
        std::mem::replace(self, emptied)
    }

    /// What lies in memory behind a sequence.
    pub(super) fn behind(&self, sequence: Sequence) -> impl Iterator<Item = &Entry> {
        let returned = self.returned.range(sequence.next()..).map(|(_, entry)| entry);
        returned.chain(self.head.behind(sequence)).chain(self.tail.behind(sequence))
    }

    /// Shows what lies in memory here to somebody who only looks.
    pub(super) fn show(&self, step: &mut Step) {
        let after = step.after();
        step.offer_in_order(self.returned.range(after.next()..).map(|(_, entry)| entry));
        step.offer_in_order(self.head.behind(after));
        step.offer_in_order(self.tail.behind(after));
    }

    /// The part of a range where something may lie that is not in memory.
    pub(super) fn cold_within(&self, range: PageRange) -> Option<Stretch> {
        let gap = self.gap.as_ref()?;
        let (after, upto) = (range.after.max(gap.after), range.upto.min(gap.upto));
        (after < upto).then_some(Stretch { after, upto, handed_out: true, lies_in: gap.lies_in })
    }

    /// Takes out something that is in memory, of a lane that nobody is served from any more.
    pub(super) fn pop_any(&mut self) -> Option<Entry> {
        let returned = self.returned.pop_first().map(|(_, entry)| entry);
        returned.or_else(|| self.head.pop_front()).or_else(|| self.tail.pop_front())
    }

    /// How many are in memory.
    pub(super) fn len(&self) -> usize {
        self.returned.len() + self.head.len() + self.tail.len()
    }

    /// Makes a gap behind the first `keep` bytes and behind all that lies nowhere else, if what would leave may leave.
    fn open_gap(&mut self, keep: usize, kept: Kept) {
        if self.gap.is_some() || self.head.bytes() <= keep {
            return;
        }
        let cut = self.head.cut_behind(keep, |entry| entry.storage == Storage::Never);
        if self.head.first_behind(cut).is_some_and(|entry| entry.may_leave(kept)) {
            self.tail = self.head.split_behind(cut);
            self.gap = self.tail.first().map(Gap::empty_before);
        }
    }

    fn close_empty_gap(&mut self) {
        if self.gap.as_ref().is_some_and(|gap| gap.after >= gap.upto) {
            self.gap = None;
            self.head.append(&mut self.tail);
        }
    }

    /// Panics if an invariant of this module does not hold.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        self.head.check();
        self.tail.check();
        let Some(gap) = &self.gap else { return assert!(self.tail.is_empty(), "a tail lies behind a gap") };
        assert!(self.head.last().is_none_or(|last| last <= gap.after), "the head lies before the gap");
        assert!(self.tail.first().is_none_or(|first| gap.upto < first), "the tail lies behind the gap");
        assert!(gap.after < gap.upto, "a gap is not empty");
        assert!(gap.skip.iter().all(|sequence| gap.after < *sequence && *sequence <= gap.upto));
        for sequence in self.returned.keys() {
            assert!(!self.is_cold(*sequence), "what returned is not read again");
        }
    }
}

impl Stretch {
    /// The shortest that has both.
    pub(super) fn joined(self, other: Self) -> Self {
        Self {
            after: self.after.min(other.after),
            upto: self.upto.max(other.upto),
            handed_out: self.handed_out || other.handed_out,
            lies_in: Places {
                store: self.lies_in.store || other.lies_in.store,
                spool: self.lies_in.spool || other.lies_in.spool,
            },
        }
    }
}

impl Places {
    fn add(&mut self, entry: &Entry) {
        match entry.storage {
            Storage::Spooled => self.spool = true,
            _ => self.store = true,
        }
    }
}

impl Gap {
    fn empty_before(sequence: Sequence) -> Self {
        let before = sequence.before();
        Self {
            after: before,
            upto: before,
            skip: BTreeSet::new(),
            reading: None,
            moved_back: false,
            lies_in: Places::default(),
        }
    }

    /// Nothing up to here lies in the store alone.
    fn begin_behind(&mut self, sequence: Sequence) {
        self.after = self.after.max(sequence);
        self.skip = self.skip.split_off(&self.after.next());
    }

    /// A message in front of the gap leaves memory. What is being read now would leave it out.
    fn begin_before(&mut self, sequence: Sequence, handed_out: Sequence) {
        self.after = self.after.min(sequence.before());
        self.upto = self.upto.max(sequence);
        self.moved_back |= self.after < handed_out;
        self.reading = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::{at, entry, stored};
    use super::*;
    use crate::types::Timestamp;

    const CHANGED: Timestamp = Timestamp(1);
    const DURABLE: Kept = Kept { stored_before: CHANGED, spooled_before: CHANGED };
    const STORE: Places = Places { store: true, spool: false };

    fn lane(count: u64) -> Lane {
        let mut lane = Lane::new(Priority::default());
        (1..=count).for_each(|counter| lane.push(stored(counter)));
        lane
    }

    fn popped(lane: &mut Lane) -> Vec<u64> {
        std::iter::from_fn(|| match lane.pop() {
            Popped::Entry(entry) => Some(entry.sequence.counter()),
            Popped::Cold | Popped::Nothing => None,
        })
        .collect()
    }

    /// Shrinks to `keep` messages; what left.
    fn shrink(lane: &mut Lane, keep: usize) -> Vec<u64> {
        let mut left = Vec::new();
        lane.shrink(keep * entry(0).size(), usize::MAX, DURABLE, &mut |entry| left.push(entry.sequence.counter()));
        lane.check();
        left
    }

    /// A read that brings these, and everything up to the last of them or to the end.
    fn read(lane: &mut Lane, counters: impl IntoIterator<Item = u64>) {
        let stretch = lane.wanted().unwrap();
        lane.begin_read(ReadNumber(1));
        assert!(lane.wanted().is_none(), "one read at a time");
        assert!(lane.end_read(ReadNumber(1)));
        let mut count = 0;
        let mut last = stretch.upto;
        for counter in counters {
            if lane.is_cold(at(counter)) {
                lane.push_read(stored(counter));
            }
            (count, last) = (count + 1, at(counter));
        }
        lane.has_read(last, count);
        lane.check();
    }

    #[test]
    fn what_left_comes_back_in_order() {
        let mut lane = lane(10);
        assert_eq!(shrink(&mut lane, 2), [3, 4, 5, 6, 7, 8, 9, 10]);
        lane.push(entry(11));
        assert_eq!(popped(&mut lane), [1, 2]);
        assert!(matches!(lane.pop(), Popped::Cold));
        assert_eq!(lane.wanted(), Some(Stretch { after: at(2), upto: at(10), handed_out: false, lies_in: STORE }));
        read(&mut lane, 3..=6);
        assert_eq!(popped(&mut lane), [3, 4, 5, 6]);
        read(&mut lane, 7..=10);
        assert_eq!(popped(&mut lane), [7, 8, 9, 10, 11]);
        assert!(lane.wanted().is_none());
    }

    #[test]
    fn r25_what_the_store_does_not_have_stays_and_so_does_all_behind_it() {
        let mut lane = lane(4);
        lane.push(Entry { changed: CHANGED, ..stored(5) });
        lane.push(stored(6));
        assert_eq!(shrink(&mut lane, 0), [1, 2, 3, 4]);
        assert_eq!(lane.wanted().unwrap().upto, at(4), "no read passes what is not durable");
        read(&mut lane, 1..=4);
        assert_eq!(popped(&mut lane), [1, 2, 3, 4, 5, 6]);
        let mut hidden = Lane::new(Priority::default());
        hidden.push(Entry { hidden: true, ..stored(1) });
        assert!(shrink(&mut hidden, 0).is_empty());
    }

    #[test]
    fn r27_over_the_budget_the_cursor_goes_back_and_pages_skip_what_is_in_flight() {
        let mut lane = lane(6);
        let mut taken: Vec<Entry> = (0..4).map(|_| lane.take(lane.head.first().unwrap()).unwrap()).collect();
        taken.drain(..2).for_each(|entry| lane.put_back(entry)); // 1 and 2 return, 3 and 4 stay in flight
        assert_eq!(shrink(&mut lane, 0), [5, 6]);
        let mut left = Vec::new();
        assert_eq!(lane.rewind(DURABLE, &mut |entry| left.push(entry.sequence)), 2);
        assert!(lane.has_moved_back() && !lane.has_moved_back());
        taken.iter().for_each(|entry| lane.skip(entry.sequence));
        lane.check();
        assert_eq!(lane.len(), 0);
        assert!(lane.wanted().unwrap().handed_out);
        lane.put_back(taken.pop().unwrap()); // 4 returns, and is in memory now
        read(&mut lane, 1..=6);
        assert_eq!(popped(&mut lane), [1, 2, 4, 5, 6]);
    }

    #[test]
    fn r26_a_read_that_began_before_the_gap_grew_at_its_front_is_void() {
        let mut lane = lane(6);
        shrink(&mut lane, 3);
        lane.page = 100;
        assert_eq!(lane.wanted().unwrap().after, at(3));
        lane.begin_read(ReadNumber(7));
        shrink(&mut lane, 1);
        assert!(!lane.end_read(ReadNumber(7)));
        assert_eq!(lane.wanted().unwrap().after, at(1));
    }

    #[test]
    fn r5_nothing_is_read_for_what_nobody_may_see_yet() {
        let mut lane = Lane::new(Priority::default());
        lane.push(Entry { hidden: true, ..stored(1) });
        (2..=5).for_each(|counter| lane.push(stored(counter)));
        assert_eq!(shrink(&mut lane, 1), [2, 3, 4, 5]);
        assert!(!lane.serves(), "lower priorities are not to wait for it");
        lane.get_mut(at(1)).unwrap().hidden = false;
        assert!(lane.serves());
    }

    #[test]
    fn r26_what_was_handed_out_is_not_skipped_where_the_store_has_nothing() {
        let mut lane = Lane::stored(Priority::default(), at(5));
        lane.push(stored(6));
        lane.push(stored(7));
        shrink(&mut lane, 0);
        lane.was_taken(at(3));
        lane.has_nothing_stored();
        lane.check();
        read(&mut lane, [6, 7]);
        assert_eq!(popped(&mut lane), [6, 7]);
    }

    #[test]
    fn what_is_put_back_keeps_its_place() {
        let mut lane = lane(5);
        let third = lane.take(at(3)).unwrap();
        let Popped::Entry(first) = lane.pop() else { panic!() };
        lane.put_back(third);
        lane.put_back(first);
        lane.check();
        assert_eq!(popped(&mut lane), [1, 2, 3, 4, 5]);
    }
}
