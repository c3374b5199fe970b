//! The messages of one queue and priority that lie there: what returned, then what was never delivered.
//!
//! Always true: both parts are in the order of sequences, and what returned lies before what is fresh. Something that
//! is taken out of the middle leaves a hole, so that a great many may expire at once; the first is never a hole, and
//! holes never outnumber what lies there by much.

use std::collections::{BTreeMap, VecDeque};

use super::entry::Entry;
use crate::types::Sequence;

/// One priority's messages.
#[derive(Debug, Default)]
pub(super) struct Lane {
    returned: BTreeMap<Sequence, Entry>,
    fresh: VecDeque<(Sequence, Option<Entry>)>,
    holes: usize,
}

impl Lane {
    /// Takes a new message in at the end.
    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert!(self.fresh.back().is_none_or(|(last, _)| *last < entry.sequence), "sequences rise (R6)");
        self.fresh.push_back((entry.sequence, Some(entry)));
    }

    /// Takes the first message out, unless nobody may see it yet.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        if let Some(first) = self.returned.first_entry() {
            return if first.get().hidden { None } else { Some(first.remove()) };
        }
        if self.fresh.front()?.1.as_ref()?.hidden {
            return None;
        }
        let (_, entry) = self.fresh.pop_front()?;
        self.close_holes();
        entry
    }

    /// Gives back what was taken out; it keeps its place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        // Not always before what is fresh: a delay may end after a restart, when all the others are loaded as fresh.
        match self.fresh.binary_search_by_key(&entry.sequence, |(sequence, _)| *sequence) {
            Ok(at) => {
                if let Some((_, hole)) = self.fresh.get_mut(at) {
                    self.holes -= usize::from(hole.is_none());
                    *hole = Some(entry);
                }
            }
            Err(0) => drop(self.returned.insert(entry.sequence, entry)),
            Err(at) => self.fresh.insert(at, (entry.sequence, Some(entry))),
        }
    }

    /// Takes a certain message out.
    pub(super) fn take(&mut self, sequence: Sequence) -> Option<Entry> {
        if let Some(entry) = self.returned.remove(&sequence) {
            return Some(entry);
        }
        let at = self.position(sequence)?;
        let entry = self.fresh.get_mut(at)?.1.take()?;
        self.holes += 1;
        self.close_holes();
        Some(entry)
    }

    /// Looks at a certain message that has never been delivered.
    pub(super) fn fresh_mut(&mut self, sequence: Sequence) -> Option<&mut Entry> {
        let at = self.position(sequence)?;
        self.fresh.get_mut(at)?.1.as_mut()
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry> {
        let Self { returned, fresh, .. } = std::mem::take(self);
        returned.into_values().chain(fresh.into_iter().filter_map(|(_, entry)| entry))
    }

    /// How many lie here.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn len(&self) -> usize {
        self.returned.len() + self.fresh.len() - self.holes
    }

    fn position(&self, sequence: Sequence) -> Option<usize> {
        self.fresh.binary_search_by_key(&sequence, |(sequence, _)| *sequence).ok()
    }

    /// Holes in front go at once; when most of the rest is holes, all go.
    fn close_holes(&mut self) {
        while let Some((_, None)) = self.fresh.front() {
            self.fresh.pop_front();
            self.holes -= 1;
        }
        if self.holes > self.fresh.len() / 2 + 16 {
            self.fresh.retain(|(_, entry)| entry.is_some());
            self.holes = 0;
        }
    }

    /// Panics if an invariant of this module does not hold.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        assert!(self.fresh.iter().is_sorted_by_key(|(sequence, _)| *sequence));
        assert_eq!(self.holes, self.fresh.iter().filter(|(_, entry)| entry.is_none()).count());
        assert!(self.fresh.front().is_none_or(|(_, entry)| entry.is_some()), "the first is no hole");
        if let (Some((last, _)), Some((first, _))) = (self.returned.last_key_value(), self.fresh.front()) {
            assert!(last < first, "what returned lies before what is fresh");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::{Message, MessageDraft, Term};

    fn at(counter: u64) -> Sequence {
        Sequence::new(Term(1), counter)
    }

    fn lane(count: u64) -> Lane {
        let mut lane = Lane::default();
        for counter in 0..count {
            lane.push(Entry::new(at(counter), Arc::new(Message::new(MessageDraft::default()))));
        }
        lane
    }

    #[test]
    fn what_leaves_from_the_middle_leaves_bounded_holes() {
        let mut lane = lane(10_000);
        for counter in (0..10_000).filter(|counter| counter % 4 != 1) {
            assert!(lane.take(at(counter)).is_some());
            assert!(lane.take(at(counter)).is_none());
            if counter % 97 == 0 {
                lane.check();
            }
        }
        lane.check();
        assert_eq!(lane.len(), 2_500);
        let left: Vec<u64> = std::iter::from_fn(|| lane.pop()).map(|entry| entry.sequence.counter()).collect();
        assert!(left.iter().copied().eq((0..10_000).filter(|counter| counter % 4 == 1)));
    }

    #[test]
    fn what_is_put_back_fills_its_hole() {
        let mut lane = lane(5);
        let third = lane.take(at(2)).unwrap();
        let first = lane.pop().unwrap();
        lane.put_back(third);
        lane.put_back(first);
        lane.check();
        let order: Vec<u64> = std::iter::from_fn(|| lane.pop()).map(|entry| entry.sequence.counter()).collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }
}
