//! The messages of one holder in their order, and the consumers that may have them.
//!
//! A queue destination has one of these, and so has every durable subscription and every other subscription of a topic.
//!
//! Always true: within a priority messages are handed out by sequence, whether they are in memory or have to be read
//! first; `messages` and `bytes` count everything that is not settled, in flight or not, in memory or not; what is hidden
//! belongs to a unit that is not durable yet, and nothing behind it in its priority is delivered before it (R5).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    ConsumerKey,
    entry::{Entry, Kept, Storage},
    lane::{Lane, Places, Popped, Stretch},
    mark::DispatchMark,
    ready::ReadyConsumers,
    statistics::Passed,
    step::Step,
};
use crate::{
    config::RedeliveryPolicy,
    types::{Backlog, Destination, DurableId, Holder, PageRange, Priority, Sequence, Timestamp},
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

/// Who keeps a message outside memory, under which name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    Store(Holder),
    Spool(Holder),
}

/// Messages of one holder, and who may have them.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) role: QueueRole,
    /// The destination that its messages were sent to.
    pub(super) destination: Destination,
    /// Under which name the store keeps its messages; `None`: it never does.
    pub(super) holder: Option<Holder>,
    /// Under which name the spool keeps what the store does not, once it had to (R32).
    pub(super) spooler: Option<DurableId>,
    pub(super) redelivery: Option<Arc<RedeliveryPolicy>>,
    /// Those that something lay in, the highest priority first.
    lanes: Vec<Lane>,
    /// What comes back later, by when and sequence.
    delayed: BTreeMap<(Timestamp, Sequence), Entry>,
    /// When each of them does.
    due: BTreeMap<Sequence, Timestamp>,
    /// What comes back later and lies in the store alone until then (R27).
    cold_delayed: BTreeSet<Sequence>,
    pub(super) ready: ReadyConsumers,
    /// When something was handed out last.
    pub(super) served: Option<Timestamp>,
    /// Without what the store held at the start of the term, until that is counted (R28).
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// What came and went in this term.
    pub(super) passed: Passed,
    /// Whether `messages` and `bytes` are all there is, so that limits apply (R28).
    pub(super) counted: bool,
    /// What was forgotten before that.
    forgotten_uncounted: (usize, usize),
    /// Whether it stands in the line of those that may have something to leave memory.
    pub(super) in_line: bool,
    pub(super) mark: DispatchMark,
    /// Since when a topic subscription has been over its bound without settling anything.
    pub(super) over_bound_since: Option<Timestamp>,
    /// Whether a deadline will look at that; one at a time.
    pub(super) slowness_watched: bool,
}

/// What lay in a queue, to be dropped.
#[derive(Debug)]
pub(super) struct Remains {
    lanes: Vec<Lane>,
    delayed: BTreeMap<(Timestamp, Sequence), Entry>,
    due: BTreeMap<Sequence, Timestamp>,
    cold_delayed: BTreeSet<Sequence>,
}

impl Remains {
    /// What lies here in memory behind a sequence.
    pub(super) fn behind(&self, sequence: Sequence) -> impl Iterator<Item = &Entry> {
        let delayed = self.due.range(sequence.next()..);
        let delayed = delayed.filter_map(|(sequence, due)| self.delayed.get(&(*due, *sequence)));
        delayed.chain(self.lanes.iter().flat_map(move |lane| lane.behind(sequence)))
    }

    /// Takes a message out, whichever comes easiest, and what is remembered of others.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.due.pop_first();
        self.cold_delayed.pop_first();
        let delayed = self.delayed.pop_first().map(|(_, entry)| entry);
        delayed.or_else(|| self.lanes.iter_mut().find_map(Lane::pop_any))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.delayed.is_empty() && self.cold_delayed.is_empty() && self.lanes.iter().all(|lane| lane.len() == 0)
    }
}

impl Queue {
    pub(super) fn new(role: QueueRole, destination: Destination, holder: Option<Holder>) -> Self {
        Self {
            role,
            destination,
            holder,
            spooler: None,
            redelivery: None,
            lanes: Vec::new(),
            delayed: BTreeMap::new(),
            due: BTreeMap::new(),
            cold_delayed: BTreeSet::new(),
            ready: ReadyConsumers::default(),
            served: None,
            messages: 0,
            bytes: 0,
            passed: Passed::default(),
            counted: true,
            forgotten_uncounted: (0, 0),
            in_line: false,
            mark: DispatchMark::default(),
            over_bound_since: None,
            slowness_watched: false,
        }
    }

    /// The store may hold anything for this queue that was sent up to `upto`; see [`Self::count`].
    pub(super) fn expect_stored(&mut self, upto: Sequence) {
        self.lanes = (0..=9).rev().map(|level| Lane::stored(Priority::clamped(level), upto)).collect();
        self.counted = false;
    }

    /// What the store held before the first command of the term is known now (R28).
    pub(super) fn count(&mut self, backlog: &Backlog) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        let stored: u64 = backlog.messages.iter().sum();
        let (messages, bytes) = std::mem::take(&mut self.forgotten_uncounted);
        self.messages = (self.messages + usize::try_from(stored).unwrap_or(usize::MAX)).saturating_sub(messages);
        self.bytes = (self.bytes + usize::try_from(backlog.bytes).unwrap_or(usize::MAX)).saturating_sub(bytes);
        for lane in &mut self.lanes {
            if backlog.messages.get(lane.priority.index()) == Some(&0) {
                lane.has_nothing_stored();
            }
        }
    }

    /// Takes a new message in at its priority's end.
    pub(super) fn push(&mut self, entry: Entry) {
        self.messages += 1;
        self.bytes += entry.size();
        self.passed.enqueued += 1;
        self.lane_or_new(entry.message.priority).push(entry);
    }

    /// Whether something may be handed out, or is to be read for it; a consumer need not be asked otherwise.
    pub(super) fn serves(&self) -> bool {
        self.lanes.iter().any(Lane::serves)
    }

    /// The next message that may be delivered, taken out: the highest priority first. Nothing while one of a higher
    /// priority has to be read first.
    pub(super) fn pop(&mut self) -> Popped {
        let popped = self.lanes.iter_mut().map(Lane::pop).find(|popped| !matches!(popped, Popped::Nothing));
        popped.unwrap_or(Popped::Nothing)
    }

    /// Gives back what was taken out; it keeps its place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.lane_or_new(entry.message.priority).put_back(entry);
    }

    /// Keeps what was taken out until `due`.
    pub(super) fn delay(&mut self, due: Timestamp, entry: Entry) {
        self.due.insert(entry.sequence, due);
        self.delayed.insert((due, entry.sequence), entry);
    }

    /// Keeps what was taken out and has expired until its deadline is served.
    pub(super) fn set_aside(&mut self, entry: Entry) {
        self.delay(Timestamp(u64::MAX), entry);
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
        self.passed.dequeued += 1;
        if !self.counted {
            self.forgotten_uncounted.0 += 1;
            self.forgotten_uncounted.1 += entry.size();
            return;
        }
        self.messages = self.messages.saturating_sub(1);
        // What the store held may be counted by an estimate of its bytes.
        self.bytes = if self.messages == 0 { 0 } else { self.bytes.saturating_sub(entry.size()) };
    }

    /// Takes a certain message out, if it lies here in memory.
    pub(super) fn take(&mut self, priority: Priority, sequence: Sequence) -> Option<Entry> {
        if let Some(due) = self.due.remove(&sequence) {
            self.lane(priority).into_iter().for_each(|lane| lane.was_taken(sequence));
            return self.delayed.remove(&(due, sequence));
        }
        self.lane(priority)?.take(sequence)
    }

    /// Makes a message visible whose unit is durable (R5).
    pub(super) fn reveal(&mut self, priority: Priority, sequence: Sequence) -> Option<&Entry> {
        let entry = self.lane(priority)?.get_mut(sequence)?;
        entry.hidden = false;
        Some(entry)
    }

    /// Whether a certain message lies here and nobody may see it yet.
    pub(super) fn hides(&mut self, priority: Priority, sequence: Sequence) -> bool {
        self.lane(priority).and_then(|lane| lane.get_mut(sequence)).is_some_and(|entry| entry.hidden)
    }

    /// Whether a certain message waits for a time, in memory or not.
    pub(super) fn delays(&self, sequence: Sequence) -> bool {
        self.due.contains_key(&sequence) || self.cold_delayed.contains(&sequence)
    }

    /// Takes a message out that is not in memory, if it is none that is in flight; the caller has just read it.
    pub(super) fn take_cold(&mut self, priority: Priority, sequence: Sequence) -> bool {
        let was_delayed = self.cold_delayed.remove(&sequence);
        if self.due.contains_key(&sequence) {
            return false; // it is in memory
        }
        let lane = self.lane(priority).filter(|lane| was_delayed || lane.is_cold(sequence));
        lane.map(|lane| lane.was_taken(sequence)).is_some() || was_delayed
    }

    /// Takes a message out that waits for a time and is not in memory.
    pub(super) fn take_cold_delayed(&mut self, sequence: Sequence) -> bool {
        self.cold_delayed.remove(&sequence)
    }

    /// Lets up to `most` of what comes back latest leave memory (R27); with the time when it does.
    pub(super) fn shrink_delayed(&mut self, most: usize, kept: Kept, left: &mut impl FnMut(Timestamp, Entry)) -> usize {
        // The store finds what is due, the spool does not.
        let leaves = |entry: &Entry| entry.storage == Storage::Stored && entry.may_leave(kept);
        let mut count = 0;
        while count < most && self.delayed.last_key_value().is_some_and(|(_, entry)| leaves(entry)) {
            let Some(((due, sequence), entry)) = self.delayed.pop_last() else { break };
            self.due.remove(&sequence);
            self.cold_delayed.insert(sequence);
            count += 1;
            left(due, entry);
        }
        count
    }

    /// Who keeps a message of this queue outside memory, and whether that is the spool.
    pub(super) fn keeper(&self, storage: Storage) -> Option<Keeper> {
        match storage {
            Storage::Stored | Storage::Purged => self.holder.map(Keeper::Store),
            Storage::Spooled => self.spool_holder().map(Keeper::Spool),
            Storage::Never | Storage::Withdrawn => None,
        }
    }

    /// Under which name the spool keeps messages of this queue, if it does.
    pub(super) fn spool_holder(&self) -> Option<Holder> {
        self.spooler.map(Holder::Durable)
    }

    /// A message that lies here in memory and nowhere else, to be spooled. One that is to be a dead letter at its time
    /// stays: the spool does not tell what comes due.
    pub(super) fn unspooled_mut(&mut self, priority: Priority, sequence: Sequence) -> Option<&mut Entry> {
        let has_a_time = |entry: &Entry| entry.message.persistent && entry.message.expires.is_some();
        let entry = self.lane(priority)?.get_mut(sequence)?;
        (entry.storage == Storage::Never && !entry.hidden && !has_a_time(entry)).then_some(entry)
    }

    /// Shows what lies in memory here to somebody who only looks.
    pub(super) fn show(&self, step: &mut Step) {
        let delayed = self.due.range(step.after().next()..);
        step.offer_in_order(delayed.filter_map(|(sequence, due)| self.delayed.get(&(*due, *sequence))));
        if let Some(lane) = self.lanes.iter().find(|lane| lane.priority == step.priority) {
            lane.show(step);
        }
    }

    /// The part of a range, which is not empty, where something of a priority may lie that is not in memory.
    pub(super) fn cold_within(&self, priority: Priority, range: PageRange) -> Option<Stretch> {
        let lane = self.lanes.iter().find(|lane| lane.priority == priority);
        let gap = lane.and_then(|lane| lane.cold_within(range));
        let mut delayed = self.cold_delayed.range(range.after.next()..=range.upto);
        let Some(first) = delayed.next() else { return gap };
        let delayed = Stretch {
            after: first.before(),
            upto: *delayed.next_back().unwrap_or(first),
            handed_out: true,
            lies_in: Places { store: true, spool: false },
        };
        Some(gap.map_or(delayed, |gap| gap.joined(delayed)))
    }

    /// The next lower priority that something lay in.
    pub(super) fn priority_below(&self, priority: Priority) -> Option<Priority> {
        self.lanes.iter().map(|lane| lane.priority).find(|lower| *lower < priority)
    }

    /// Takes everything out that lies here, in memory or not, and counts nothing any more. No message that was `given`
    /// a sequence before comes back.
    pub(super) fn take_all(&mut self, given: Sequence) -> Remains {
        (self.messages, self.bytes, self.forgotten_uncounted) = (0, 0, (0, 0));
        self.counted = true;
        Remains {
            lanes: self.lanes.iter_mut().map(|lane| lane.take_all(given)).collect(),
            delayed: std::mem::take(&mut self.delayed),
            due: std::mem::take(&mut self.due),
            cold_delayed: std::mem::take(&mut self.cold_delayed),
        }
    }

    /// The lanes that something lay in, the highest priority first.
    pub(super) fn lanes_mut(&mut self) -> &mut [Lane] {
        &mut self.lanes
    }

    /// Whether a gap begins before something that was handed out, since the last look.
    pub(super) fn has_moved_back(&mut self) -> bool {
        let mut moved_back = false;
        for lane in &mut self.lanes {
            moved_back |= lane.has_moved_back();
        }
        moved_back
    }

    /// One of them.
    pub(super) fn lane(&mut self, priority: Priority) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.priority == priority)
    }

    /// Whether nothing is in memory that could leave it.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.delayed.is_empty() && self.lanes.iter().all(|lane| lane.len() == 0)
    }

    fn lane_or_new(&mut self, priority: Priority) -> &mut Lane {
        let at = self.lanes.partition_point(|lane| lane.priority > priority);
        if self.lanes.get(at).is_none_or(|lane| lane.priority != priority) {
            self.lanes.insert(at, Lane::new(priority));
        }
        self.lanes.get_mut(at).expect("it was there or has just been made")
    }

    /// Panics if an invariant of this module does not hold.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        self.lanes.iter().for_each(Lane::check);
        assert!(self.delayed.keys().all(|(due, sequence)| self.due.get(sequence) == Some(due)));
        assert_eq!(self.delayed.len(), self.due.len());
        assert!(self.lanes.iter().is_sorted_by_key(|lane| std::cmp::Reverse(lane.priority)));
        let lying: usize = self.lanes.iter().map(Lane::len).sum();
        assert!(!self.counted || lying + self.delayed.len() <= self.messages, "what lies here is counted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Message, MessageDraft, Term};

    fn entry(counter: u64, priority: u8) -> Entry {
        let draft = MessageDraft { priority: Priority::clamped(priority), ..MessageDraft::default() };
        Entry::new(Timestamp(0), Sequence::new(Term(1), counter), Arc::new(Message::new(draft)))
    }

    fn popped(queue: &mut Queue) -> Option<Entry> {
        if let Popped::Entry(entry) = queue.pop() { Some(entry) } else { None }
    }

    fn counters(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| popped(queue)).map(|entry| entry.sequence.counter()).collect()
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
        let (first, second) = (popped(&mut queue).unwrap(), popped(&mut queue).unwrap());
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
