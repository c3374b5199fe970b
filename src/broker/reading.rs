//! What comes back into memory: pages of queues, and what comes due while it lies in the store alone.
//!
//! The core asks for a read as an effect and goes on; what was read is taken in when it comes. A read that the core has
//! moved on from meanwhile is ignored by its number. What a read brings and nobody wants is left out: what is in
//! memory, in flight or settled (R26).

use std::collections::{HashMap, HashSet, VecDeque};

use super::{
    BrowseKey, Change, Core, Effects, QueueKey,
    entry::{Entry, Storage},
};
use crate::types::{
    Backlog, DueMessage, DuePage, DueReason, Held, Holder, Op, Page, PageRange, Priority, Rule, Sequence, Stored,
    Timestamp, Window,
};

/// How many messages one read may bring.
const READ_MESSAGES_MAX: usize = 2_000;

/// A read's number, unique in the term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadNumber(pub(super) u64);

/// What the core wants to have read.
#[derive(Clone, Debug)]
pub enum Read {
    /// A stretch of a queue; for [`Core::page_read`].
    Page {
        /// Its number.
        number: ReadNumber,
        /// In which queue they are to lie.
        queue: QueueKey,
        /// Whose messages they are in the store; `None`: none lie there.
        stored: Option<Holder>,
        /// Whose messages they are in the spool; `None`: none lie there.
        spooled: Option<Holder>,
        /// Of this priority.
        priority: Priority,
        /// Which ones; all of it is durable.
        range: PageRange,
        /// How many.
        window: Window,
        /// Whether messages in it were handed out: then what is not durable of their settles and returns has to be told
        /// with the page (R26).
        handed_out: bool,
    },
    /// A stretch of a queue that somebody is to be shown; for [`Core::page_read`]. What is not durable of its settles
    /// and returns has to be told with the page (R26).
    Browse {
        /// For whom.
        browse: BrowseKey,
        /// Whose messages they are in the store; `None`: none lie there.
        stored: Option<Holder>,
        /// Whose messages they are in the spool; `None`: none lie there.
        spooled: Option<Holder>,
        /// Of this priority.
        priority: Priority,
        /// Which ones.
        range: PageRange,
        /// How many.
        window: Window,
    },
    /// What comes due; for [`Core::due_read`].
    Due {
        /// Its number.
        number: ReadNumber,
        /// By this time.
        before: Timestamp,
        /// Behind this one, by time and sequence.
        after: (Timestamp, Sequence),
        /// How many.
        window: Window,
    },
}

/// What became of a message and is not durable yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pending {
    /// It is settled.
    Settled,
    /// It came back.
    Returned(Held),
}

/// What lies in the store alone and comes due some time. What returns and what expires lie there in one order, and are
/// read together; but what returns goes ahead while nothing may die.
#[derive(Debug)]
pub(super) struct Schedule {
    returns: Course,
    deaths: Course,
    reading: Option<DueRead>,
    /// Expiring messages that were settled since the read under way began, or were not durably settled then: it may
    /// bring them all the same (R26). Oldest first.
    settled: VecDeque<Settled>,
    /// What was settled before this is durable.
    durable_before: Timestamp,
    /// The same when the read under way began.
    began_before: Timestamp,
}

/// How far one kind of what comes due was taken in.
#[derive(Clone, Copy, Debug)]
struct Course {
    /// Not before this is something due; `None`: nothing ever is.
    next: Option<Timestamp>,
    /// Everything up to here was taken in.
    after: (Timestamp, Sequence),
}

/// A read of what comes due.
#[derive(Clone, Copy, Debug)]
struct DueRead {
    number: ReadNumber,
    /// Whether it is for what expires too.
    of_deaths: bool,
}

/// An expiring message that was settled.
#[derive(Clone, Copy, Debug)]
struct Settled {
    at: Timestamp,
    holder: Holder,
    priority: Priority,
    sequence: Sequence,
}

impl Schedule {
    /// Nothing is known of what the store has.
    pub(super) fn unknown() -> Self {
        let start = Course { next: Some(Timestamp(0)), after: (Timestamp(0), Sequence::ZERO) };
        Self {
            returns: start,
            deaths: start,
            reading: None,
            settled: VecDeque::new(),
            durable_before: Timestamp(0),
            began_before: Timestamp(0),
        }
    }

    /// A holder is done with a message.
    pub(super) fn settled(&mut self, now: Timestamp, holder: Option<Holder>, entry: &Entry) {
        if entry.is_stored() && entry.message.expires.is_some() {
            let (priority, sequence) = (entry.message.priority, entry.sequence);
            self.settled.extend(holder.map(|holder| Settled { at: now, holder, priority, sequence }));
        }
    }

    /// The oldest of what was settled, if it was durably so before the read under way began, or is if there is none: no
    /// read brings it any more.
    fn forget_settled(&mut self) -> Option<Settled> {
        let before = if self.reading.is_some() { self.began_before } else { self.durable_before };
        self.settled.pop_front_if(|settled| settled.at < before)
    }

    /// Whether a read that was under way may bring a message that is settled by now.
    fn has_settled(&self, page: &DuePage) -> HashSet<(Holder, Sequence)> {
        let brought: HashSet<Sequence> = page.messages.iter().map(|due| due.stored.sequence).collect();
        let settled = self.settled.iter().filter(|settled| brought.contains(&settled.sequence));
        settled.map(|settled| (settled.holder, settled.sequence)).collect()
    }

    /// A message that returns then leaves memory.
    pub(super) fn expect_return(&mut self, at: Timestamp, sequence: Sequence) {
        self.returns.expect(at, sequence);
    }

    /// A message that expires then leaves memory, or was read and may not die yet.
    pub(super) fn expect_death(&mut self, at: Timestamp, sequence: Sequence) {
        self.deaths.expect(at, sequence);
    }

    /// Begins to read what is due by `now`, if anything is. Behind what it has to begin.
    fn begin_read(&mut self, now: Timestamp, number: ReadNumber, may_die: bool) -> Option<(Timestamp, Sequence)> {
        let is_due = |next: Option<Timestamp>| next.is_some_and(|next| next <= now);
        let of_deaths = may_die && is_due(self.next_death());
        if !of_deaths && !is_due(self.next_return()) {
            return None;
        }
        self.reading = Some(DueRead { number, of_deaths });
        self.began_before = self.durable_before;
        self.returns.next = None;
        if !of_deaths {
            return Some(self.returns.after);
        }
        self.deaths.next = None;
        Some(self.deaths.after.min(self.returns.after))
    }

    /// What lay behind `after` was read. Whether that was for what expires too; `None`: by another read than is under
    /// way.
    fn end_read(&mut self, number: ReadNumber, after: (Timestamp, Sequence), page: &DuePage) -> Option<bool> {
        let read = self.reading.take_if(|reading| reading.number == number)?;
        self.returns.has_read(after, page);
        if read.of_deaths {
            self.deaths.has_read(after, page);
        }
        Some(read.of_deaths)
    }

    /// When the store is to be asked next for what returns.
    pub(super) fn next_return(&self) -> Option<Timestamp> {
        self.returns.next.filter(|_| self.reading.is_none())
    }

    /// When the store is to be asked next for what expires.
    pub(super) fn next_death(&self) -> Option<Timestamp> {
        self.deaths.next.filter(|_| self.reading.is_none())
    }
}

impl Course {
    fn expect(&mut self, at: Timestamp, sequence: Sequence) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
        self.after = self.after.min((at, sequence.before()));
    }

    /// What left memory meanwhile and comes due before what was read is read then.
    fn has_read(&mut self, after: (Timestamp, Sequence), page: &DuePage) {
        self.next = self.next.into_iter().chain(page.next).min();
        if let Some(last) = page.messages.last().filter(|_| self.after >= after) {
            self.after = self.after.max((last.at, last.stored.sequence));
        }
    }
}

impl Core {
    /// What a holder held before the first command of the term; from now on limits apply to it (R28). A subscription
    /// that does not exist any more and holds something all the same is deleted once more: nobody else ever would.
    pub fn count(&mut self, now: Timestamp, holder: Holder, backlog: &Backlog, effects: &mut Effects) {
        match (self.holders.get(&holder).copied(), holder) {
            (Some(key), _) => {
                self.queues.get_mut(key).into_iter().for_each(|queue| queue.count(backlog));
                self.dispatch(now, key, effects); // what had to be looked for first may be known to be nothing
            }
            (None, Holder::Durable(id)) => {
                effects.changes.push(Change::One { origin: None, op: Op::DeleteDurable { id } });
            }
            (None, Holder::Queue(_)) => {}
        }
    }

    /// Asks for the next page of a queue whose head runs low.
    pub(super) fn want_page(&mut self, key: QueueKey, effects: &mut Effects) {
        let bytes = self.memory.read_window();
        let Some(queue) = self.queues.get_mut(key) else { return };
        let (stored, spooled) = (queue.holder, queue.spool_holder());
        // What a higher priority serves comes first.
        let Some(lane) = queue.lanes_mut().iter_mut().find(|lane| lane.serves()) else { return };
        let Some(stretch) = lane.wanted() else { return };
        self.last_read = ReadNumber(self.last_read.0 + 1);
        lane.begin_read(self.last_read);
        self.memory.promise(bytes);
        effects.reads.push(Read::Page {
            number: self.last_read,
            queue: key,
            stored: stored.filter(|_| stretch.lies_in.store),
            spooled: spooled.filter(|_| stretch.lies_in.spool),
            priority: lane.priority,
            range: PageRange { after: stretch.after, upto: stretch.upto },
            window: Window { messages: READ_MESSAGES_MAX, bytes },
            handed_out: stretch.handed_out,
        });
    }

    /// Takes in a page. `pending` has what was settled or came back and was not durable when the read began.
    pub fn page_read(
        &mut self,
        now: Timestamp,
        read: &Read,
        page: &Page,
        pending: &HashMap<Sequence, Pending>,
        effects: &mut Effects,
    ) {
        let Read::Page { number, queue: key, stored: in_store, spooled: in_spool, priority, range, window, .. } = read
        else {
            return self.browse_read(now, read, page, pending, effects);
        };
        self.memory.keep_promise(window.bytes);
        let key = *key;
        let Some(queue) = self.queues.get_mut(key) else { return };
        if !queue.lane(*priority).is_some_and(|lane| lane.end_read(*number)) {
            return;
        }
        for stored in &page.messages {
            if let Some((storage, part)) = brought(stored, *in_store, *in_spool, pending) {
                self.take_in(now, key, storage, stored, &part);
            }
        }
        let last = page.messages.last().map(|stored| stored.sequence).filter(|_| !page.complete);
        let lane = self.queues.get_mut(key).and_then(|queue| queue.lane(*priority));
        lane.into_iter().for_each(|lane| lane.has_read(last.unwrap_or(range.upto), page.messages.len()));
        self.stand_in_line(key);
        self.dispatch(now, key, effects);
    }

    /// Lays a message that was read into its queue, unless it is there already, or somewhere else.
    fn take_in(&mut self, now: Timestamp, key: QueueKey, storage: Storage, stored: &Stored, part: &Held) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let (priority, sequence) = (stored.message.priority, stored.sequence);
        if queue.delays(sequence) || !queue.lane(priority).is_some_and(|lane| lane.is_cold(sequence)) {
            return;
        }
        let redelivered = storage == Storage::Stored && queue.mark.was_passed(sequence);
        let entry = Entry::read(storage, stored, part, redelivered);
        self.memory.add(entry.size());
        self.deadlines.watch_expiry(key, &entry);
        if let Some(due) = part.due.filter(|due| *due > now) {
            self.deadlines.watch_redelivery(key, due);
            queue.delay(due, entry);
        } else if let Some(lane) = queue.lane(priority) {
            lane.push_read(entry);
        }
    }

    /// What was settled long enough ago is remembered no longer (R26).
    pub(super) fn forget_settled(&mut self, durable_before: Timestamp) {
        self.schedule.durable_before = durable_before;
        while let Some(settled) = self.schedule.forget_settled() {
            let key = self.holders.get(&settled.holder).copied();
            let queue = key.and_then(|key| self.queues.get_mut(key));
            let lane = queue.and_then(|queue| queue.lane(settled.priority));
            lane.into_iter().for_each(|lane| lane.need_not_skip(settled.sequence));
        }
    }

    /// Asks for what comes due by `now` and lies in the store alone, if there is memory for it.
    pub(super) fn want_due(&mut self, now: Timestamp, effects: &mut Effects) {
        if self.memory.is_full() {
            return;
        }
        let number = ReadNumber(self.last_read.0 + 1);
        let Some(after) = self.schedule.begin_read(now, number, self.may_die(now)) else { return };
        self.last_read = number;
        let window = Window { messages: READ_MESSAGES_MAX, bytes: self.memory.read_window() };
        effects.reads.push(Read::Due { number, before: now, after, window });
    }

    /// Takes in what came due.
    pub fn due_read(&mut self, now: Timestamp, read: &Read, page: &DuePage, effects: &mut Effects) {
        let Read::Due { number, after, .. } = read else { return };
        let Some(of_deaths) = self.schedule.end_read(*number, *after, page) else { return };
        let forgets = self.options.broken.is(Rule::ForgetsSettled);
        let settled = if forgets { HashSet::new() } else { self.schedule.has_settled(page) };
        for due in &page.messages {
            match due.reason {
                DueReason::Returns(holder) => self.returns(now, holder, due, effects),
                DueReason::Expires if !of_deaths => {}
                DueReason::Expires if !self.may_die(now) => self.schedule.expect_death(due.at, due.stored.sequence),
                DueReason::Expires => self.expires(now, due, &settled, effects),
            }
        }
    }

    /// A delayed message that is in the store alone goes back to its place.
    fn returns(&mut self, now: Timestamp, holder: Holder, due: &DueMessage, effects: &mut Effects) {
        let Some(key) = self.holders.get(&holder).copied() else { return };
        let Some(queue) = self.queues.get_mut(key) else { return };
        let part = due.stored.holders.iter().find(|part| part.holder == holder);
        let Some(part) = part.filter(|_| queue.take_cold_delayed(due.stored.sequence)) else { return };
        let entry = Entry::read(Storage::Stored, &due.stored, part, true);
        self.memory.add(entry.size());
        self.deadlines.watch_expiry(key, &entry);
        queue.put_back(entry);
        self.stand_in_line(key);
        self.dispatch(now, key, effects);
    }

    /// A message that is in the store alone has expired; one that is in memory has its own deadline.
    fn expires(
        &mut self,
        now: Timestamp,
        due: &DueMessage,
        settled: &HashSet<(Holder, Sequence)>,
        effects: &mut Effects,
    ) {
        let held = |part: &&Held| !settled.contains(&(part.holder, due.stored.sequence));
        for part in due.stored.holders.iter().filter(held) {
            let Some(key) = self.holders.get(&part.holder).copied() else { continue };
            let Some(queue) = self.queues.get_mut(key) else { continue };
            if queue.take_cold(due.stored.message.priority, due.stored.sequence) {
                let entry = Entry::read(Storage::Stored, &due.stored, part, false);
                self.expire(now, key, entry, effects);
            }
        }
    }
}

/// What a page brings of a message: where it lies, and its holder's part as that is by now; nothing if it was settled.
pub(super) fn brought(
    stored: &Stored,
    in_store: Option<Holder>,
    in_spool: Option<Holder>,
    pending: &HashMap<Sequence, Pending>,
) -> Option<(Storage, Held)> {
    let storage = |part: &Held| match Some(part.holder) {
        holder if holder == in_store => Some(Storage::Stored),
        holder if holder == in_spool => Some(Storage::Spooled),
        _ => None,
    };
    let (storage, part) = stored.holders.iter().find_map(|part| Some((storage(part)?, *part)))?;
    match pending.get(&stored.sequence) {
        Some(Pending::Settled) => None,
        Some(Pending::Returned(later)) => Some((storage, *later)),
        None => Some((storage, part)),
    }
}
