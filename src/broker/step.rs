//! What one step of a browse shows: the next messages of one priority, from wherever they lie.
//!
//! Always true: everything that was offered and lies within the step's range is here. What is more than its window
//! leaves at the end, and takes the end of the range with it.

use std::{collections::BTreeMap, sync::Arc};

use super::entry::Entry;
use crate::types::{Message, PageRange, Priority, Sequence, Timestamp, Window};

/// So much that lies in order is looked at for one step, whatever of it belongs there.
const LOOKS_MAX: usize = 10_000;

/// The next messages of a priority.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) priority: Priority,
    range: PageRange,
    window: Window,
    /// `None`: it is there, and nobody is to see it.
    found: BTreeMap<Sequence, Option<Shown>>,
    /// Unit: bytes.
    bytes: usize,
}

/// A message as a browser sees it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) message: Arc<Message>,
    pub(super) redelivered: bool,
    /// Which delivery it is out for, or the next one will be.
    pub(super) deliveries: u32,
    pub(super) shared: bool,
}

impl Step {
    /// The messages of this priority in this range, as far as they fit the window.
    pub(super) fn new(priority: Priority, range: PageRange, window: Window) -> Self {
        Self { priority, range, window, found: BTreeMap::new(), bytes: 0 }
    }

    /// What it begins behind.
    pub(super) fn after(&self) -> Sequence {
        self.range.after
    }

    /// What it reaches now; it may become less.
    pub(super) fn range(&self) -> PageRange {
        self.range
    }

    /// Offers what lies in a queue, the lowest sequence first.
    pub(super) fn offer_in_order<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) {
        for (looked_at, entry) in entries.enumerate() {
            if entry.sequence > self.range.upto {
                return;
            }
            if looked_at == LOOKS_MAX {
                return self.end_at(entry.sequence.before());
            }
            self.offer(entry);
        }
    }

    /// Offers what lies in a queue, in memory or not.
    pub(super) fn offer(&mut self, entry: &Entry) {
        self.take_in(entry, entry.deliveries.saturating_add(1));
    }

    /// Offers what is out of its queue.
    pub(super) fn offer_out(&mut self, entry: &Entry) {
        self.take_in(entry, entry.deliveries.max(1));
    }

    fn take_in(&mut self, entry: &Entry, deliveries: u32) {
        let (sequence, message) = (entry.sequence, &entry.message);
        let within = self.range.after < sequence && sequence <= self.range.upto;
        if !within || message.priority != self.priority || self.found.contains_key(&sequence) {
            return;
        }
        let (redelivered, shared) = (entry.redelivered, entry.shared);
        let shown = Shown { message: Arc::clone(message), redelivered, deliveries, shared };
        let shown = Some(shown).filter(|_| !entry.hidden && !entry.is_disowned());
        self.bytes += size(shown.as_ref());
        self.found.insert(sequence, shown);
        while self.found.len() > 1 && (self.found.len() > self.window.messages || self.bytes > self.window.bytes) {
            self.drop_last();
        }
    }

    /// Nothing behind this is known.
    pub(super) fn end_at(&mut self, upto: Sequence) {
        self.range.upto = self.range.upto.min(upto);
        while self.found.last_key_value().is_some_and(|(last, _)| *last > upto) {
            self.drop_last();
        }
    }

    fn drop_last(&mut self) {
        if let Some((last, shown)) = self.found.pop_last() {
            self.bytes -= size(shown.as_ref());
            self.range.upto = self.range.upto.min(last.before());
        }
    }

    /// What is to be seen of it now, in order.
    pub(super) fn into_shown(self, now: Timestamp) -> impl Iterator<Item = Shown> {
        let lives = move |shown: &Shown| shown.message.expires.is_none_or(|expires| expires > now);
        self.found.into_values().flatten().filter(lives)
    }
}

fn size(shown: Option<&Shown>) -> usize {
    shown.map_or(0, |shown| shown.message.size())
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::{at, entry};
    use super::*;

    fn step(messages: usize) -> Step {
        let range = PageRange { after: at(10), upto: at(1_000_000) };
        Step::new(Priority::default(), range, Window { messages, bytes: usize::MAX })
    }

    fn found(step: &Step) -> Vec<u64> {
        step.found.keys().map(|sequence| sequence.counter()).collect()
    }

    #[test]
    fn of_what_was_offered_the_first_stay_and_the_range_ends_with_them() {
        let mut step = step(3);
        [40, 10, 30].into_iter().for_each(|counter| step.offer_out(&entry(counter)));
        step.offer_in_order([20, 25, 50].map(entry).iter());
        assert_eq!(found(&step), [20, 25, 30]);
        assert_eq!(step.range(), PageRange { after: at(10), upto: at(39) });
        step.offer(&entry(39));
        step.offer(&entry(11));
        assert_eq!((found(&step), step.range().upto), (vec![11, 20, 25], at(29)), "39 came and went");
        step.end_at(at(20));
        step.offer(&entry(21));
        assert_eq!((found(&step), step.range().upto), (vec![11, 20], at(20)));
    }

    #[test]
    fn what_nobody_may_see_is_not_shown_wherever_it_comes_from() {
        let mut step = step(3);
        step.offer(&Entry { hidden: true, ..entry(11) });
        step.offer(&entry(11));
        step.offer(&entry(12));
        assert_eq!(step.into_shown(Timestamp(0)).count(), 1);
    }

    #[test]
    fn what_is_looked_at_is_bounded() {
        let mut step = Step { priority: Priority::clamped(9), ..step(3) };
        let others: Vec<Entry> = (11..11 + 2 * LOOKS_MAX as u64).map(entry).collect();
        step.offer_in_order(others.iter());
        assert_eq!((step.found.len(), step.range().upto), (0, at(10 + LOOKS_MAX as u64)));
    }
}
