//! Messages in the order of their sequences.
//!
//! Always true: sequences rise. Something that is taken out of the middle leaves a hole, so that a great many may
//! expire at once; neither the first nor the last is a hole, and holes never outnumber what lies here by much. Nor does
//! the room that was needed once: what left memory would take some of it else (R31).

use std::collections::VecDeque;

use super::entry::Entry;
use crate::types::Sequence;

/// Room for so many stays, so that a queue which fills and empties all the time need not ask for it. Of ten thousand
/// queues it takes a few megabytes.
const ROOM_KEPT: usize = 8;

/// A stretch of a lane that lies in memory.
#[derive(Debug, Default)]
pub(super) struct Run {
    entries: VecDeque<(Sequence, Option<Entry>)>,
    holes: usize,
    /// Of what lies here. Unit: bytes.
    bytes: usize,
}

impl Run {
    /// Takes a message in at the end.
    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert!(self.last().is_none_or(|last| last < entry.sequence), "sequences rise (R6)");
        self.bytes += entry.size();
        self.entries.push_back((entry.sequence, Some(entry)));
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.entries.front()?.1.as_ref()
    }

    pub(super) fn back(&self) -> Option<&Entry> {
        self.entries.back()?.1.as_ref()
    }

    pub(super) fn pop_front(&mut self) -> Option<Entry> {
        let (_, entry) = self.entries.pop_front()?;
        self.taken(entry)
    }

    pub(super) fn pop_back(&mut self) -> Option<Entry> {
        let (_, entry) = self.entries.pop_back()?;
        self.taken(entry)
    }

    /// Takes a certain message out.
    pub(super) fn take(&mut self, sequence: Sequence) -> Option<Entry> {
        let at = self.position(sequence).ok()?;
        let entry = self.entries.get_mut(at)?.1.take()?;
        self.holes += 1;
        self.taken(Some(entry))
    }

    /// Looks at a certain message.
    pub(super) fn get_mut(&mut self, sequence: Sequence) -> Option<&mut Entry> {
        let at = self.position(sequence).ok()?;
        self.entries.get_mut(at)?.1.as_mut()
    }

    /// Whether a sequence lies between the first and the last.
    pub(super) fn spans(&self, sequence: Sequence) -> bool {
        self.first().is_some_and(|first| first < sequence) && self.last().is_some_and(|last| sequence < last)
    }

    /// Puts a message to its place between the first and the last.
    pub(super) fn put_between(&mut self, entry: Entry) {
        debug_assert!(self.spans(entry.sequence));
        self.bytes += entry.size();
        match self.position(entry.sequence) {
            Ok(at) => {
                if let Some((_, hole)) = self.entries.get_mut(at) {
                    self.holes -= usize::from(hole.is_none());
                    *hole = Some(entry);
                }
            }
            Err(at) => self.entries.insert(at, (entry.sequence, Some(entry))),
        }
    }

    /// Where to cut so that what lies before has at least all that `stays`, and else no more than `bytes`.
    pub(super) fn cut_behind(&self, bytes: usize, stays: impl Fn(&Entry) -> bool) -> usize {
        let last = self.entries.iter().rposition(|(_, entry)| entry.as_ref().is_some_and(&stays));
        let mut kept = 0;
        let fits = self.entries.iter().take_while(|(_, entry)| {
            kept += entry.as_ref().map_or(0, Entry::size);
            kept <= bytes
        });
        fits.count().max(last.map_or(0, |last| last + 1))
    }

    /// The first message behind a cut.
    pub(super) fn first_behind(&self, cut: usize) -> Option<&Entry> {
        self.entries.range(cut.min(self.entries.len())..).find_map(|(_, entry)| entry.as_ref())
    }

    /// Takes out all that lies behind a cut.
    pub(super) fn split_behind(&mut self, cut: usize) -> Self {
        let mut behind = Self { entries: self.entries.split_off(cut.min(self.entries.len())), ..Self::default() };
        self.count();
        behind.count();
        behind
    }

    /// Takes over all of another run that lies behind this one.
    pub(super) fn append(&mut self, other: &mut Self) {
        if self.entries.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        debug_assert!(other.first().is_none_or(|first| self.last().is_none_or(|last| last < first)));
        self.entries.append(&mut other.entries);
        self.holes += std::mem::take(&mut other.holes);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// What lies behind a sequence.
    pub(super) fn behind(&self, sequence: Sequence) -> impl Iterator<Item = &Entry> {
        let begin = self.entries.partition_point(|(other, _)| *other <= sequence);
        self.entries.range(begin..).filter_map(|(_, entry)| entry.as_ref())
    }

    pub(super) fn first(&self) -> Option<Sequence> {
        self.entries.front().map(|(sequence, _)| *sequence)
    }

    pub(super) fn last(&self) -> Option<Sequence> {
        self.entries.back().map(|(sequence, _)| *sequence)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many messages lie here.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.holes
    }

    /// What they take. Unit: bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn position(&self, sequence: Sequence) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&sequence, |(sequence, _)| *sequence)
    }

    fn taken(&mut self, entry: Option<Entry>) -> Option<Entry> {
        self.bytes -= entry.as_ref().map_or(0, Entry::size);
        self.close_holes();
        entry
    }

    /// Holes at both ends go at once; when most of the rest is holes, all go.
    fn close_holes(&mut self) {
        while let Some((_, None)) = self.entries.front() {
            self.entries.pop_front();
            self.holes -= 1;
        }
        while let Some((_, None)) = self.entries.back() {
            self.entries.pop_back();
            self.holes -= 1;
        }
        if self.holes > self.entries.len() / 2 + 16 {
            self.entries.retain(|(_, entry)| entry.is_some());
            self.holes = 0;
        }
        self.give_back_room();
    }

    /// When three quarters are empty, so that it costs no more than what was taken out since.
    fn give_back_room(&mut self) {
        let (used, room) = (self.entries.len(), self.entries.capacity());
        if room > ROOM_KEPT && used < room / 4 {
            self.entries.shrink_to(ROOM_KEPT.max(2 * used));
        }
    }

    fn count(&mut self) {
        self.holes = self.entries.iter().filter(|(_, entry)| entry.is_none()).count();
        self.bytes = self.entries.iter().filter_map(|(_, entry)| entry.as_ref()).map(Entry::size).sum();
        self.close_holes();
    }

    /// Panics if an invariant of this module does not hold.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        assert!(self.entries.iter().is_sorted_by_key(|(sequence, _)| *sequence));
        assert_eq!(self.holes, self.entries.iter().filter(|(_, entry)| entry.is_none()).count());
        let bytes: usize = self.entries.iter().filter_map(|(_, entry)| entry.as_ref()).map(Entry::size).sum();
        assert_eq!(self.bytes, bytes);
        assert!(self.entries.front().is_none_or(|(_, entry)| entry.is_some()), "the first is no hole");
        assert!(self.entries.back().is_none_or(|(_, entry)| entry.is_some()), "the last is no hole");
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::{at, entry};
    use super::*;

    fn run(count: u64) -> Run {
        let mut run = Run::default();
        (0..count).for_each(|counter| run.push(entry(counter)));
        run
    }

    fn counters(mut run: Run) -> Vec<u64> {
        std::iter::from_fn(|| run.pop_front()).map(|entry| entry.sequence.counter()).collect()
    }

    #[test]
    fn what_leaves_from_the_middle_leaves_bounded_holes() {
        let mut run = run(10_000);
        for counter in (0..10_000).filter(|counter| counter % 4 != 1) {
            assert!(run.take(at(counter)).is_some());
            assert!(run.take(at(counter)).is_none());
            if counter % 97 == 0 {
                run.check();
            }
        }
        run.check();
        assert_eq!(run.len(), 2_500);
        assert!(counters(run).into_iter().eq((0..10_000).filter(|counter| counter % 4 == 1)));
    }

    #[test]
    fn r31_what_is_taken_out_takes_its_room_with_it() {
        let mut run = run(10_000);
        for left in (0..10_000).rev() {
            let taken = if left % 2 == 0 { run.pop_front() } else { run.pop_back() };
            assert!(taken.is_some());
            let room = run.entries.capacity();
            assert!(room <= ROOM_KEPT.max(4 * left + 4), "{room} for {left}");
        }
    }

    #[test]
    fn what_is_put_back_fills_its_hole() {
        let mut run = run(5);
        let third = run.take(at(2)).unwrap();
        run.check();
        run.put_between(third);
        run.check();
        assert_eq!(counters(run), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_run_is_cut_by_bytes_and_joined_again() {
        let mut run = run(10);
        run.take(at(4)).unwrap();
        let size = entry(0).size();
        let cut = run.cut_behind(3 * size, |_| false);
        assert_eq!(run.first_behind(cut).unwrap().sequence, at(3));
        let cut = run.cut_behind(size, |entry| entry.sequence == at(3));
        assert_eq!(run.first_behind(cut).unwrap().sequence, at(5));
        let mut behind = run.split_behind(cut);
        run.check();
        behind.check();
        assert_eq!((run.len(), behind.len(), behind.first()), (4, 5, Some(at(5))));
        run.append(&mut behind);
        run.check();
        assert_eq!(counters(run), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    }
}
