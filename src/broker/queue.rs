//! The messages of one holder in their order, and the consumers that may have them.
//!
//! A queue destination has one of these, and so has every durable subscription and every other subscription of a topic.
//!
//! Always true: within a priority what returned lies before what was never delivered, both by sequence; `messages` and
//! `bytes` count everything that is not settled, in flight or not; what is hidden belongs to a transaction that is not
//! durable yet, and nothing behind it in its priority is delivered before it (R5).

use std::{collections::BTreeMap, sync::Arc};

use super::{ConsumerKey, entry::Entry, lane::Lane, mark::DispatchMark, ready::ReadyConsumers};
use crate::{
    config::RedeliveryPolicy,
    types::{Destination, Holder, Priority, Sequence, Timestamp},
};

/// What a queue serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum QueueRole {
    /// A queue destination, temporary or not.
    Queue,
    /// A durable subscription, whether somebody consumes from it or not.
    DurableSubscription,
    /// A subscription that ends with its consumer.
    TopicSubscription(ConsumerKey),
}

/// Messages of one holder, and who may have them.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) role: QueueRole,
    /// The destination that its messages were sent to.
    pub(super) destination: Destination,
    /// Under which name the store keeps its messages; `None`: it never does.
    pub(super) holder: Option<Holder>,
    pub(super) redelivery: Option<Arc<RedeliveryPolicy>>,
    lanes: [Lane; Priority::COUNT],
    /// What comes back later, by when and sequence.
    delayed: BTreeMap<(Timestamp, Sequence), Entry>,
    /// When each of them does.
    due: BTreeMap<Sequence, Timestamp>,
    pub(super) ready: ReadyConsumers,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) mark: DispatchMark,
    /// Since when a topic subscription has been over its bound without settling anything.
    pub(super) over_bound_since: Option<Timestamp>,
    /// Whether a deadline will look at that; one at a time.
    pub(super) slowness_watched: bool,
}

impl Queue {
    pub(super) fn new(role: QueueRole, destination: Destination, holder: Option<Holder>) -> Self {
        Self {
            role,
            destination,
            holder,
            redelivery: None,
            lanes: Default::default(),
            delayed: BTreeMap::new(),
            due: BTreeMap::new(),
            ready: ReadyConsumers::default(),
            messages: 0,
            bytes: 0,
            mark: DispatchMark::default(),
            over_bound_since: None,
            slowness_watched: false,
        }
    }

    /// Takes a new message in at its priority's end.
    pub(super) fn push(&mut self, entry: Entry) {
        self.messages += 1;
        self.bytes += entry.message.size();
        self.lane(entry.message.priority).push(entry);
    }

    /// The next message that may be delivered, taken out: the highest priority first, and within it what returned.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.lanes.iter_mut().rev().find_map(Lane::pop)
    }

    /// Gives back what was taken out; it keeps its place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.lane(entry.message.priority).put_back(entry);
    }

    /// Keeps what was taken out until `due`.
    pub(super) fn delay(&mut self, due: Timestamp, entry: Entry) {
        self.due.insert(entry.sequence, due);
        self.delayed.insert((due, entry.sequence), entry);
    }

    /// Puts what is due by `now` back to its place.
    pub(super) fn release_due(&mut self, now: Timestamp) {
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                break;
            }
            let entry = first.remove();
            self.due.remove(&entry.sequence);
            self.put_back(entry);
        }
    }

    /// Counts a message that was taken out as gone for good.
    pub(super) fn forget(&mut self, entry: &Entry) {
        self.messages -= 1;
        self.bytes -= entry.message.size();
    }

    /// Takes a certain message out, if it lies here and is not in flight.
    pub(super) fn take(&mut self, priority: Priority, sequence: Sequence) -> Option<Entry> {
        if let Some(due) = self.due.remove(&sequence) {
            return self.delayed.remove(&(due, sequence));
        }
        self.lane(priority).take(sequence)
    }

    /// Makes a message visible whose transaction is durable (R5).
    pub(super) fn reveal(&mut self, priority: Priority, sequence: Sequence) -> Option<&Entry> {
        let entry = self.lane(priority).fresh_mut(sequence)?;
        entry.hidden = false;
        Some(entry)
    }

    /// Whether a certain message lies here and nobody may see it yet.
    pub(super) fn hides(&mut self, priority: Priority, sequence: Sequence) -> bool {
        self.lane(priority).fresh_mut(sequence).is_some_and(|entry| entry.hidden)
    }

    /// Takes everything out that lies here.
    pub(super) fn drain(&mut self) -> Vec<Entry> {
        self.due.clear();
        let delayed = std::mem::take(&mut self.delayed).into_values();
        delayed.chain(self.lanes.iter_mut().flat_map(Lane::drain)).collect()
    }

    fn lane(&mut self, priority: Priority) -> &mut Lane {
        self.lanes.get_mut(priority.index()).expect("a Priority is below Priority::COUNT")
    }

    /// Panics if an invariant of this module does not hold.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        self.lanes.iter().for_each(Lane::check);
        assert!(self.delayed.keys().all(|(due, sequence)| self.due.get(sequence) == Some(due)));
        assert_eq!(self.delayed.len(), self.due.len());
        let lying: usize = self.lanes.iter().map(Lane::len).sum();
        assert!(lying + self.delayed.len() <= self.messages, "what lies here is counted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Message, MessageDraft, Term};

    fn entry(counter: u64, priority: u8) -> Entry {
        let draft = MessageDraft { priority: Priority::clamped(priority), ..MessageDraft::default() };
        Entry::new(Sequence::new(Term(1), counter), Arc::new(Message::new(draft)))
    }

    fn counters(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|entry| entry.sequence.counter()).collect()
    }

    fn queue() -> Queue {
        Queue::new(QueueRole::Queue, Destination::queue("orders"), None)
    }

    #[test]
    fn priority_first_then_sequence() {
        let mut queue = queue();
        for (counter, priority) in [(1, 4), (2, 9), (3, 4), (4, 0), (5, 9)] {
            queue.push(entry(counter, priority));
        }
        assert_eq!(counters(&mut queue), [2, 5, 1, 3, 4]);
    }

    #[test]
    fn r6_what_returns_keeps_its_place() {
        let mut queue = queue();
        for counter in 1..=4 {
            queue.push(entry(counter, 4));
        }
        let (first, second) = (queue.pop().unwrap(), queue.pop().unwrap());
        queue.put_back(second);
        queue.put_back(first);
        queue.check();
        assert_eq!(counters(&mut queue), [1, 2, 3, 4]);
    }

    #[test]
    fn r5_the_cursor_stops_in_front_of_what_is_hidden() {
        let mut queue = queue();
        queue.push(entry(1, 4));
        queue.push(Entry { hidden: true, ..entry(2, 4) });
        queue.push(entry(3, 4));
        assert_eq!(counters(&mut queue), [1]);
        assert!(queue.hides(Priority::default(), Sequence::new(Term(1), 2)));
        queue.reveal(Priority::default(), Sequence::new(Term(1), 2)).unwrap();
        assert_eq!(counters(&mut queue), [2, 3]);
    }
}
