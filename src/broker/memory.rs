//! What leaves memory, and what waits while there is none (R31).
//!
//! The core is told each turn how much of the budget is in use and what is durable. Over half of the budget, queues let
//! go of what the store has anyway (R25): first what lies behind the next messages, over three quarters everything that
//! no consumer waits for. Over all of it, a consumer that has something unsettled gets nothing more, and SENDs wait.

use std::{collections::VecDeque, time::Duration};

use super::{
    ConsumerKey, Core, Effects, QueueKey,
    entry::{Entry, Kept, Storage},
    lane::Lane,
    reading::Schedule,
};
use crate::types::{Priority, Rule, Sequence, Timestamp};

/// So many messages leave memory in one turn; others follow in the next.
const LEAVING_A_TURN_MAX: usize = 10_000;

/// So many queues are looked at in one turn for something that may leave.
const QUEUES_A_TURN_MAX: usize = 1_000;

/// A queue that something was handed out from so lately is awaited, though all its consumers are busy just now: one that
/// takes its messages one by one would else have each of them read, and a page with it.
const SERVED_LATELY: Duration = Duration::from_secs(1);

/// What each priority of a queue keeps at its head, by how much the memory is used and whether a consumer waits for it.
/// Unit: bytes.
const KEPT_AWAITED: usize = 1 << 20;
const KEPT: usize = 64 << 10;
const KEPT_AWAITED_WHEN_SHORT: usize = 64 << 10;

/// The budget as of this turn, and who waits for it.
#[derive(Debug)]
pub(super) struct Memory {
    /// Unit: bytes.
    limit: usize,
    /// Unit: bytes.
    in_use: usize,
    /// What reads under way may bring. Unit: bytes.
    promised: usize,
    has_let_go: bool,
    /// What can be read again.
    kept: Kept,
    /// Queues that may have something in memory, the one in front is looked at next.
    line: VecDeque<QueueKey>,
    /// Consumers with credit that wait for memory.
    starved: Vec<ConsumerKey>,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            in_use: 0,
            promised: 0,
            has_let_go: false,
            kept: Kept::default(),
            line: VecDeque::new(),
            starved: Vec::new(),
        }
    }

    /// Whether nothing more is taken in that could wait.
    pub(super) fn is_full(&self) -> bool {
        self.in_use >= self.limit
    }

    /// How much one read may bring. Unit: bytes.
    pub(super) fn read_window(&self) -> usize {
        const MIN: usize = 16 << 10;
        const MAX: usize = 1 << 20;
        (self.limit.saturating_sub(self.in_use + self.promised) / 16).clamp(MIN, MAX)
    }

    /// A read may bring so much.
    pub(super) fn promise(&mut self, bytes: usize) {
        self.promised += bytes;
    }

    /// A read is over.
    pub(super) fn keep_promise(&mut self, bytes: usize) {
        self.promised = self.promised.saturating_sub(bytes);
    }

    /// A consumer waits until there is memory.
    pub(super) fn starve(&mut self, consumer: ConsumerKey) {
        self.starved.push(consumer);
    }

    /// Whether memory has ever been scarce in this term, or something lay in the store at its start: else nothing lies
    /// anywhere but in memory, and nothing has to.
    pub(super) fn has_let_go(&self) -> bool {
        self.has_let_go
    }

    /// There are messages that are not in memory.
    pub(super) fn lets_go(&mut self) {
        self.has_let_go = true;
    }

    /// A queue has something in memory that may leave it.
    pub(super) fn stands_in_line(&mut self, key: QueueKey) {
        self.line.push_back(key);
    }

    /// More is in memory than the last count says.
    pub(super) fn add(&mut self, bytes: usize) {
        self.in_use = self.in_use.saturating_add(bytes);
    }

    pub(super) fn is_over_half(&self) -> bool {
        self.in_use > self.limit / 2
    }

    fn is_short(&self) -> bool {
        self.in_use > self.limit / 4 * 3
    }

    /// What a queue keeps at the head of each priority. Unit: bytes.
    fn kept(&self, awaited: bool) -> usize {
        match (self.is_short(), awaited) {
            (false, true) => KEPT_AWAITED,
            (false, false) => KEPT,
            (true, true) => KEPT_AWAITED_WHEN_SHORT,
            (true, false) => 0,
        }
    }
}

impl Core {
    /// Keeps within the budget, of which `in_use` bytes are in use now. What is `kept` may leave memory (R25).
    pub fn keep_within(&mut self, now: Timestamp, in_use: usize, kept: Kept, effects: &mut Effects) {
        self.memory.in_use = in_use;
        let everything = Kept { stored_before: Timestamp(u64::MAX), spooled_before: Timestamp(u64::MAX) };
        self.memory.kept = if self.options.broken.is(Rule::LetsAnythingLeave) { everything } else { kept };
        self.forget_settled(kept.stored_before);
        if self.memory.is_over_half() {
            self.memory.lets_go();
            self.let_leave(now);
        }
        if !self.memory.is_full() && !self.memory.starved.is_empty() {
            let starved = std::mem::take(&mut self.memory.starved);
            self.feed(now, starved, effects);
        }
    }

    /// Whether [`Self::keep_within`] could do something now that it could not do at the end of the last turn.
    #[must_use]
    pub fn waits_for_memory(&self) -> bool {
        self.memory.is_over_half() || !self.memory.starved.is_empty()
    }

    /// A queue has something in memory from now on.
    pub(super) fn stand_in_line(&mut self, key: QueueKey) {
        if let Some(queue) = self.queues.get_mut(key)
            && !std::mem::replace(&mut queue.in_line, true)
        {
            self.memory.stands_in_line(key);
        }
    }

    fn let_leave(&mut self, now: Timestamp) {
        let mut most = LEAVING_A_TURN_MAX;
        for _ in 0..self.memory.line.len().min(QUEUES_A_TURN_MAX) {
            if most == 0 || !self.memory.is_over_half() {
                return;
            }
            let Some(key) = self.memory.line.pop_front() else { return };
            most = most.saturating_sub(self.shrink(now, key, most));
            let Some(queue) = self.queues.get_mut(key) else { continue };
            queue.in_line = !queue.is_out_of_memory();
            if queue.in_line {
                self.memory.line.push_back(key);
            }
        }
    }

    /// Lets what a queue has beyond its share leave memory; how many messages left.
    fn shrink(&mut self, now: Timestamp, key: QueueKey, most: usize) -> usize {
        let Some(queue) = self.queues.get_mut(key) else { return 0 };
        let awaited = !queue.ready.is_empty() || queue.served.is_some_and(|at| now < at.after(SERVED_LATELY));
        let (keep, short) = (self.memory.kept(awaited), self.memory.is_short());
        let kept = self.memory.kept;
        let mut leaving =
            Leaving { key, memory: &mut self.memory, deadlines: &mut self.deadlines, schedule: &mut self.schedule };
        let mut count = 0;
        for lane in queue.lanes_mut() {
            count += lane.shrink(keep, most.saturating_sub(count), kept, &mut |entry| leaving.leaves(&entry, None));
            if short && keep == 0 {
                count += lane.rewind(kept, &mut |entry| leaving.leaves(&entry, None));
            }
        }
        if short {
            let most = most.saturating_sub(count);
            count += queue.shrink_delayed(most, kept, &mut |due, entry| leaving.leaves(&entry, Some(due)));
        }
        if queue.has_moved_back() {
            self.skip_what_is_out(key);
        }
        count
    }

    /// What is in flight behind the beginning of a gap is not to come back with a page of it (R27).
    fn skip_what_is_out(&mut self, key: QueueKey) {
        if self.options.broken.is(Rule::ForgetsWhatIsOut) {
            return;
        }
        let out: Vec<(Priority, Sequence)> =
            self.entries_out(key).map(|entry| (entry.message.priority, entry.sequence)).collect();
        let Some(queue) = self.queues.get_mut(key) else { return };
        for (priority, sequence) in out {
            queue.lane(priority).into_iter().for_each(|lane| lane.skip(sequence));
        }
        queue.lanes_mut().iter_mut().for_each(Lane::skip_what_returned);
    }
}

/// What has to be told of a message that leaves.
struct Leaving<'a> {
    key: QueueKey,
    memory: &'a mut Memory,
    deadlines: &'a mut super::deadlines::Deadlines,
    schedule: &'a mut Schedule,
}

impl Leaving<'_> {
    fn leaves(&mut self, entry: &Entry, due: Option<Timestamp>) {
        self.memory.in_use = self.memory.in_use.saturating_sub(entry.size());
        self.deadlines.unwatch_expiry(self.key, entry);
        if entry.storage == Storage::Stored {
            due.into_iter().for_each(|at| self.schedule.expect_return(at, entry.sequence));
            entry.message.expires.into_iter().for_each(|at| self.schedule.expect_death(at, entry.sequence));
        }
    }
}
