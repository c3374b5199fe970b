//! The messages of one holder in their order, and the consumers that may have them.
//!
//! A queue destination has one of these, and so has every durable subscription and every other subscription of a topic.
//!
//! Always true: within a priority what returned lies before what was never delivered, both by sequence; `messages` and
//! `bytes` count everything that is not settled, in flight or not; what is hidden belongs to a transaction that is not
//! durable yet, and nothing behind it in its priority is delivered before it (R5).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::ConsumerKey;
use crate::{
    config::RedeliveryPolicy,
    types::{Destination, Held, Holder, Message, Priority, Sequence, Timestamp},
};

/// So many sequences a dispatch mark is set ahead, so that marks are seldom written (R9).
const MARK_BLOCK: u64 = 4_096;

/// What the store has to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// It never hears of it.
    Never,
    /// It has it, or will.
    Stored,
    /// It refused it while the message was out: a late ack is accepted and writes nothing, and it never returns (R13).
    Withdrawn,
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) sequence: Sequence,
    pub(super) message: Arc<Message>,
    /// Whether settling it is an operation.
    pub(super) storage: Storage,
    /// Whether its transaction is not durable yet (R5).
    pub(super) hidden: bool,
    /// Whether an earlier delivery can't be ruled out (R9).
    pub(super) redelivered: bool,
    /// Deliveries begun so far.
    pub(super) deliveries: u32,
    /// Deliveries that count towards a policy's attempts.
    pub(super) failures: u32,
    /// Whether other subscriptions got the same message.
    pub(super) shared: bool,
}

impl Entry {
    /// A message that enters a queue.
    pub(super) fn new(sequence: Sequence, message: Arc<Message>) -> Self {
        Self {
            sequence,
            message,
            storage: Storage::Never,
            hidden: false,
            redelivered: false,
            deliveries: 0,
            failures: 0,
            shared: false,
        }
    }

    /// The holder's part as the store keeps it.
    pub(super) fn held(&self, holder: Holder, due: Option<Timestamp>) -> Held {
        Held { holder, deliveries: self.deliveries, failures: self.failures, due }
    }
}

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
    pub(super) ready: ReadyConsumers,
    pub(super) consumers: usize,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) mark: DispatchMark,
    /// Since when a topic subscription has been over its bound without settling anything.
    pub(super) over_bound_since: Option<Timestamp>,
}

/// One priority's messages.
#[derive(Debug, Default)]
struct Lane {
    returned: BTreeMap<Sequence, Entry>,
    fresh: VecDeque<Entry>,
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
            ready: ReadyConsumers::default(),
            consumers: 0,
            messages: 0,
            bytes: 0,
            mark: DispatchMark::default(),
            over_bound_since: None,
        }
    }

    /// Takes a new message in at its priority's end.
    pub(super) fn push(&mut self, entry: Entry) {
        self.messages += 1;
        self.bytes += entry.message.size();
        let lane = self.lane(entry.message.priority);
        debug_assert!(lane.fresh.back().is_none_or(|last| last.sequence < entry.sequence), "sequences rise (R6)");
        lane.fresh.push_back(entry);
    }

    /// The next message that may be delivered, taken out: the highest priority first, and within it what returned.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.lanes.iter_mut().rev().find_map(Lane::pop)
    }

    /// Gives back what was taken out; it keeps its place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        let lane = self.lane(entry.message.priority);
        // Not always before what is fresh: a delay may end after a restart, when all the others are loaded as fresh.
        let at = lane.fresh.partition_point(|fresh| fresh.sequence < entry.sequence);
        if at == 0 {
            lane.returned.insert(entry.sequence, entry);
        } else {
            lane.fresh.insert(at, entry);
        }
    }

    /// Keeps what was taken out until `due`.
    pub(super) fn delay(&mut self, due: Timestamp, entry: Entry) {
        self.delayed.insert((due, entry.sequence), entry);
    }

    /// Puts what is due by `now` back to its place.
    pub(super) fn release_due(&mut self, now: Timestamp) {
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                break;
            }
            let entry = first.remove();
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
        let lane = self.lane(priority);
        if let Some(entry) = lane.returned.remove(&sequence) {
            return Some(entry);
        }
        if let Ok(at) = lane.fresh.binary_search_by_key(&sequence, |entry| entry.sequence) {
            return lane.fresh.remove(at);
        }
        let key = self.delayed.keys().find(|(_, delayed)| *delayed == sequence).copied()?;
        self.delayed.remove(&key)
    }

    /// Makes a message visible whose transaction is durable (R5).
    pub(super) fn reveal(&mut self, priority: Priority, sequence: Sequence) -> Option<&Entry> {
        let lane = self.lane(priority);
        let at = lane.fresh.binary_search_by_key(&sequence, |entry| entry.sequence).ok()?;
        let entry = lane.fresh.get_mut(at)?;
        entry.hidden = false;
        Some(entry)
    }

    /// Whether a certain message lies here and nobody may see it yet.
    pub(super) fn hides(&mut self, priority: Priority, sequence: Sequence) -> bool {
        let lane = self.lane(priority);
        let at = lane.fresh.binary_search_by_key(&sequence, |entry| entry.sequence);
        at.ok().and_then(|at| lane.fresh.get(at)).is_some_and(|entry| entry.hidden)
    }

    /// Takes everything out that lies here.
    pub(super) fn drain(&mut self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = std::mem::take(&mut self.delayed).into_values().collect();
        for lane in &mut self.lanes {
            entries.extend(std::mem::take(&mut lane.returned).into_values());
            entries.extend(std::mem::take(&mut lane.fresh));
        }
        entries
    }

    fn lane(&mut self, priority: Priority) -> &mut Lane {
        self.lanes.get_mut(priority.index()).expect("a Priority is below Priority::COUNT")
    }

    /// Panics if an invariant of this module does not hold.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        for lane in &self.lanes {
            assert!(lane.fresh.iter().is_sorted_by_key(|entry| entry.sequence));
            if let (Some((last, _)), Some(first)) = (lane.returned.last_key_value(), lane.fresh.front()) {
                assert!(*last < first.sequence, "what returned lies before what is fresh");
            }
        }
        let lying: usize = self.lanes.iter().map(|lane| lane.returned.len() + lane.fresh.len()).sum();
        assert!(lying + self.delayed.len() <= self.messages, "what lies here is counted");
    }
}

impl Lane {
    fn pop(&mut self) -> Option<Entry> {
        if let Some(first) = self.returned.first_entry() {
            return if first.get().hidden { None } else { Some(first.remove()) };
        }
        self.fresh.pop_front_if(|entry| !entry.hidden)
    }
}

/// What may be dispatched without leaving a message that comes back unmarked after a crash (R9).
///
/// A message whose insert is in the mark's batch or a later one survives only together with the mark; for an older one
/// the mark has to be durable first.
#[derive(Debug, Default)]
pub(super) struct DispatchMark {
    durable: Sequence,
    requested: Sequence,
    /// The first sequence whose insert is in the requested mark's batch or later.
    requested_from: Sequence,
    /// Whether dispatch stands still until the requested mark is durable.
    pub(super) awaited: bool,
}

/// What a mark says of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marking {
    /// Deliver it.
    Passed,
    /// Deliver it, and write this mark.
    PassedWith(Sequence),
    /// Not before the mark is durable; write this one if it is given.
    Awaits(Option<Sequence>),
}

impl DispatchMark {
    /// The mark as the store has it at the start of a term.
    pub(super) fn recovered(durable: Sequence) -> Self {
        Self { durable, requested: durable, requested_from: Sequence::ZERO, awaited: false }
    }

    /// What the store has, or will have before any message of this term that was passed.
    pub(super) fn covers(&self, sequence: Sequence) -> bool {
        sequence <= self.durable
    }

    /// Decides on the next stored message; `open_from` is the first sequence whose insert is not sealed yet.
    pub(super) fn pass(&mut self, sequence: Sequence, open_from: Sequence) -> Marking {
        let passed = sequence <= self.durable || (sequence <= self.requested && sequence >= self.requested_from);
        if passed {
            return if sequence.ahead(MARK_BLOCK / 2) > self.requested && self.durable == self.requested {
                Marking::PassedWith(self.request(sequence, open_from))
            } else {
                Marking::Passed
            };
        }
        if sequence <= self.requested {
            self.awaited = true;
            return Marking::Awaits(None);
        }
        let upto = self.request(sequence, open_from);
        if sequence >= open_from {
            return Marking::PassedWith(upto);
        }
        self.awaited = true;
        Marking::Awaits(Some(upto))
    }

    fn request(&mut self, sequence: Sequence, open_from: Sequence) -> Sequence {
        self.requested = sequence.ahead(MARK_BLOCK);
        self.requested_from = open_from;
        self.requested
    }

    /// A mark is durable.
    pub(super) fn made_durable(&mut self, upto: Sequence) {
        self.durable = self.durable.max(upto);
        self.awaited &= self.durable < self.requested;
    }
}

/// Consumers with credit, by priority and within a priority in turn.
#[derive(Debug, Default)]
pub(super) struct ReadyConsumers(Vec<(u8, VecDeque<ConsumerKey>)>);

impl ReadyConsumers {
    /// Lets a consumer take its turn; the caller knows that it is not here yet.
    pub(super) fn push(&mut self, priority: u8, consumer: ConsumerKey) {
        let at = self.0.partition_point(|(higher, _)| *higher > priority);
        match self.0.get_mut(at) {
            Some((same, consumers)) if *same == priority => consumers.push_back(consumer),
            _ => self.0.insert(at, (priority, VecDeque::from([consumer]))),
        }
    }

    /// Whose turn it is, taken out.
    pub(super) fn pop(&mut self) -> Option<(u8, ConsumerKey)> {
        self.0.iter_mut().find_map(|(priority, consumers)| Some((*priority, consumers.pop_front()?)))
    }

    /// Puts back whose turn it still is.
    pub(super) fn push_front(&mut self, priority: u8, consumer: ConsumerKey) {
        if let Some((_, consumers)) = self.0.iter_mut().find(|(same, _)| *same == priority) {
            consumers.push_front(consumer);
        }
    }

    /// Takes a consumer out wherever it stands.
    pub(super) fn remove(&mut self, consumer: ConsumerKey) {
        for (_, consumers) in &mut self.0 {
            consumers.retain(|waiting| *waiting != consumer);
        }
        self.0.retain(|(_, consumers)| !consumers.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{MessageDraft, Term};

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

    #[test]
    fn r9_a_new_message_passes_with_its_mark_and_an_old_one_waits() {
        let at = |counter| Sequence::new(Term(2), counter);
        let mut mark = DispatchMark::recovered(Sequence::new(Term(1), 10));
        assert_eq!(mark.pass(Sequence::new(Term(1), 11), at(1)), Marking::Awaits(Some(Sequence::new(Term(1), 4_107))));
        assert_eq!(mark.pass(Sequence::new(Term(1), 11), at(1)), Marking::Awaits(None));
        mark.made_durable(Sequence::new(Term(1), 4_107));
        assert_eq!(mark.pass(Sequence::new(Term(1), 11), at(1)), Marking::Passed);
        assert_eq!(mark.pass(at(5), at(5)), Marking::PassedWith(at(4_101)));
        assert_eq!(mark.pass(at(6), at(6)), Marking::Passed, "its insert is in the mark's batch or later");
    }

    #[test]
    fn consumers_of_a_higher_priority_come_first_and_equals_take_turns() {
        let mut keys = slotmap::SlotMap::<ConsumerKey, ()>::with_key();
        let [a, b, c] = [(); 3].map(|()| keys.insert(()));
        let mut ready = ReadyConsumers::default();
        ready.push(0, a);
        ready.push(5, b);
        ready.push(0, c);
        let order: Vec<_> = std::iter::from_fn(|| ready.pop()).map(|(_, consumer)| consumer).collect();
        assert_eq!(order, [b, a, c]);
    }
}
