//! What comes back and what is dead: rejections, lost consumers, expiry, dead letters, and what the store refused.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::{
    Change, Core, Effects, QueueKey, UnitId, Verdict,
    committing::{Committing, Hidden},
    entry::{Entry, Storage},
    policy,
    queue::{Keeper, Queue, QueueRole},
    spooling::unspool,
    transaction::Acknowledged,
};
use crate::types::{Destination, Message, Op, PropertiesBuilder, PropertyValue, SessionId, Stored, Timestamp};

/// Where dead letters go, as ActiveMQ names it.
pub(super) const DEAD_LETTER_QUEUE: &str = "ActiveMQ.DLQ";

/// Why a message is there, as ActiveMQ names it.
const CAUSE: &str = "dlqDeliveryFailureCause";

/// When an expired message would have expired, as ActiveMQ names it.
const ORIGINAL_EXPIRATION: &str = "originalExpiration";

/// A dead letter that is rejected once more waits this long, so that its consumer does not spin.
const REJECTED_DEAD_LETTER_DELAY: std::time::Duration = std::time::Duration::from_secs(1);

/// What can't be a dead letter now is tried again after this.
const DEATH_DELAY: std::time::Duration = std::time::Duration::from_secs(5);

/// Nothing more dies while so many units wait for the store: a full one may let them wait for long, and what expires in
/// it would be read into memory.
pub(super) const COMMITTING_MAX: usize = 10_000;

/// What becomes of a delivery that was rejected.
enum Fate {
    /// Back to its place, at `Some` time.
    Redelivered(Option<Timestamp>),
    Dead,
}

impl Core {
    /// A NACK outside a transaction.
    pub(super) fn reject(
        &mut self,
        now: Timestamp,
        key: QueueKey,
        mut entry: Entry,
        by: SessionId,
        effects: &mut Effects,
    ) {
        if entry.is_disowned() {
            return self.drop_disowned(now, key, &entry, Some(by), effects);
        }
        let Some(queue) = self.queues.get(key) else { return };
        entry.failures = entry.failures.saturating_add(1);
        match fate(queue, &entry, now) {
            Fate::Redelivered(due) => self.return_entry(now, key, entry, due, Some(by), effects),
            Fate::Dead => self.dead_letter(now, key, entry, "rejected by its consumer", Some(by), effects),
        }
    }

    /// A consumer went away with this delivery unanswered: no attempt, unless a policy counts it.
    pub(super) fn return_lost(&mut self, now: Timestamp, key: QueueKey, mut entry: Entry, effects: &mut Effects) {
        if entry.is_disowned() {
            return self.drop_disowned(now, key, &entry, None, effects);
        }
        let Some(queue) = self.queues.get(key) else { return };
        if !queue.redelivery.as_ref().is_some_and(|policy| policy.count_lost_consumers) {
            return self.return_entry(now, key, entry, None, None, effects);
        }
        entry.failures = entry.failures.saturating_add(1);
        match fate(queue, &entry, now) {
            Fate::Redelivered(due) => self.return_entry(now, key, entry, due, None, effects),
            Fate::Dead => self.dead_letter(now, key, entry, "its consumers went away too often", None, effects),
        }
    }

    /// A message that was withdrawn or purged while it was out is gone with its delivery.
    fn drop_disowned(
        &mut self,
        now: Timestamp,
        key: QueueKey,
        entry: &Entry,
        origin: Option<SessionId>,
        effects: &mut Effects,
    ) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.forget(entry);
        self.schedule.settled(now, queue.holder, entry);
        if let Some(Keeper::Store(holder)) = queue.keeper(entry.storage) {
            let op = Op::Settle { sequence: entry.sequence, holder };
            effects.changes.push(Change::One { origin, op });
        }
    }

    /// Puts a delivery back to its place, at once or at `due`; the store learns the counts, lazily (R9).
    fn return_entry(
        &mut self,
        now: Timestamp,
        key: QueueKey,
        entry: Entry,
        due: Option<Timestamp>,
        origin: Option<SessionId>,
        effects: &mut Effects,
    ) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let sequence = entry.sequence;
        match queue.keeper(entry.storage) {
            Some(Keeper::Store(holder)) => {
                effects.changes.push(Change::Return { origin, sequence, held: entry.held(holder, due) });
            }
            Some(Keeper::Spool(holder)) => effects.spool.push(Op::Return { sequence, held: entry.held(holder, due) }),
            None => {}
        }
        self.lay_back(now, key, entry, due);
    }

    fn lay_back(&mut self, now: Timestamp, key: QueueKey, mut entry: Entry, due: Option<Timestamp>) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        (entry.redelivered, entry.changed) = (true, now);
        self.deadlines.watch_expiry(key, &entry);
        match due {
            Some(due) => {
                self.deadlines.watch_redelivery(key, due);
                queue.delay(due, entry);
            }
            None => queue.put_back(entry),
        }
        self.stand_in_line(key);
    }

    /// What an answer within a transaction writes; [`Self::complete_answer`] follows when it is durable.
    pub(super) fn answer_in_unit(
        &mut self,
        now: Timestamp,
        acknowledged: &Acknowledged,
        ops: &mut SmallVec<[Op; 1]>,
        hidden: &mut Hidden,
        effects: &mut Effects,
    ) {
        let Some(queue) = self.queues.get(acknowledged.queue) else { return };
        let entry = &acknowledged.in_flight.entry;
        let holder = queue.holder.filter(|_| entry.is_stored());
        let settle = |holder| Op::Settle { sequence: entry.sequence, holder };
        if acknowledged.verdict == Verdict::Accepted || entry.is_disowned() {
            return ops.extend(holder.map(settle));
        }
        let failed = entry.failed();
        match fate(queue, &failed, now) {
            Fate::Redelivered(due) => {
                ops.extend(holder.map(|holder| Op::Return { sequence: entry.sequence, held: failed.held(holder, due) }))
            }
            Fate::Dead => {
                let dead = dead_message(&entry.message, &queue.destination, "rejected by its consumer");
                ops.extend(holder.map(settle));
                let destination = self.dead_letter_queue(effects);
                if let Some(route) = self.route(&destination, &dead, effects) {
                    ops.extend(route.stored.clone().map(Op::Insert));
                    self.enqueue_hidden(now, &route, &dead, hidden);
                }
            }
        }
    }

    /// An answer within a transaction takes effect.
    pub(super) fn complete_answer(&mut self, now: Timestamp, acknowledged: Acknowledged, effects: &mut Effects) {
        let Some(queue) = self.queues.get_mut(acknowledged.queue) else { return };
        let mut entry = acknowledged.in_flight.entry;
        if acknowledged.verdict == Verdict::Accepted {
            self.totals.acknowledged += 1;
            queue.over_bound_since = None;
            return self.forget_for_good(now, acknowledged.queue, &entry, effects);
        }
        if entry.is_disowned() {
            return self.drop_disowned(now, acknowledged.queue, &entry, None, effects);
        }
        entry.failures = entry.failures.saturating_add(1);
        match fate(queue, &entry, now) {
            Fate::Redelivered(due) => {
                if let Some(Keeper::Spool(holder)) = queue.keeper(entry.storage) {
                    effects.spool.push(Op::Return { sequence: entry.sequence, held: entry.held(holder, due) });
                }
                self.lay_back(now, acknowledged.queue, entry, due);
            }
            Fate::Dead => {
                self.totals.dead_lettered += 1;
                self.forget_for_good(now, acknowledged.queue, &entry, effects);
            }
        }
    }

    /// A unit has settled a message that was taken out of its queue.
    pub(super) fn forget_for_good(&mut self, since: Timestamp, key: QueueKey, entry: &Entry, effects: &mut Effects) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        self.schedule.settled(since, queue.holder, entry);
        unspool(queue, entry, effects);
        queue.forget(entry);
    }

    /// A message that lay in a queue has expired: a dead letter if it was kept for somebody, else it is dropped, as
    /// ActiveMQ does.
    pub(super) fn expire(&mut self, now: Timestamp, key: QueueKey, entry: Entry, effects: &mut Effects) {
        let Some(queue) = self.queues.get(key) else { return };
        let kept = entry.message.persistent && !matches!(queue.role, QueueRole::TopicSubscription(_));
        self.totals.expired += u64::from(!kept || self.has_room_to_die()); // else it comes here once more
        let Some(queue) = self.queues.get_mut(key) else { return };
        if kept {
            return self.dead_letter(now, key, entry, "expired", None, effects);
        }
        unspool(queue, &entry, effects);
        queue.forget(&entry);
    }

    /// Moves a message that was taken out of its queue to the dead letters: one unit, with a sequence of its own (R6). The
    /// dead letter is there when the unit is durable, else a kill could make a second one of a message whose first one
    /// was delivered (R9).
    fn dead_letter(
        &mut self,
        now: Timestamp,
        key: QueueKey,
        entry: Entry,
        cause: &str,
        origin: Option<SessionId>,
        effects: &mut Effects,
    ) {
        if !self.has_room_to_die() {
            return self.postpone_death(now, key, entry, origin, effects);
        }
        let destination = self.dead_letter_queue(effects);
        let Some(queue) = self.queues.get_mut(key) else { return };
        let holder = queue.holder.filter(|_| entry.storage == Storage::Stored);
        let dead = dead_message(&entry.message, &queue.destination, cause);
        let Some(route) = self.route(&destination, &dead, effects) else {
            effects.term_wanted = true; // the counter's end
            return self.postpone_death(now, key, entry, origin, effects);
        };
        let mut ops: SmallVec<[Op; 1]> = smallvec![];
        ops.extend(holder.map(|holder| Op::Settle { sequence: entry.sequence, holder }));
        ops.extend(route.stored.clone().map(Op::Insert));
        let mut hidden = Hidden::new();
        self.enqueue_hidden(now, &route, &dead, &mut hidden);
        let committing = Committing { hidden, since: now, acks: Vec::new(), dying: Some((key, entry)) };
        self.set_out(now, committing, ops, origin, effects);
    }

    /// What can't be a dead letter now stays a message for a while.
    pub(super) fn postpone_death(
        &mut self,
        now: Timestamp,
        key: QueueKey,
        entry: Entry,
        origin: Option<SessionId>,
        effects: &mut Effects,
    ) {
        if entry.is_disowned() {
            return self.drop_disowned(now, key, &entry, origin, effects);
        }
        if !self.queues.contains_key(key) {
            return; // its subscription is gone
        }
        self.deaths_from = now.after(DEATH_DELAY);
        self.return_entry(now, key, entry, Some(self.deaths_from), origin, effects);
    }

    /// Whether what has expired by `now` becomes a dead letter now.
    pub(super) fn may_die(&self, now: Timestamp) -> bool {
        self.has_room_to_die() && now >= self.deaths_from
    }

    /// Whether one more dead letter may wait for the store.
    pub(super) fn has_room_to_die(&self) -> bool {
        self.committing.len() < COMMITTING_MAX
    }

    /// The queue of dead letters; it may exceed every limit, because what can't be put there would be lost.
    fn dead_letter_queue(&mut self, effects: &mut Effects) -> Destination {
        let destination = Destination::queue(DEAD_LETTER_QUEUE);
        if !self.places.contains_key(&destination) {
            self.create_destination(destination.clone(), effects);
        }
        destination
    }

    /// The store refused a message that was sent outside a transaction (R13): it leaves its queues; where it is out
    /// already, a late ack is accepted and writes nothing.
    pub fn withdraw(&mut self, stored: &Stored) {
        let (priority, sequence) = (stored.message.priority, stored.sequence);
        for held in &stored.holders {
            let Some(key) = self.holders.get(&held.holder).copied() else { continue };
            let Some(queue) = self.queues.get_mut(key) else { continue };
            if let Some(entry) = queue.take(priority, sequence) {
                queue.forget(&entry);
                self.deadlines.unwatch_expiry(key, &entry);
                continue;
            }
            for entry in self.entries_out(key).filter(|entry| entry.sequence == sequence) {
                entry.storage = Storage::Withdrawn;
            }
        }
    }

    /// The units under way that make a dead letter of a message that was withdrawn, oldest first: they are to be refused
    /// with it (R13), because its sender is told that nothing of it will be delivered.
    #[must_use]
    pub fn units_that_bury(&self, withdrawn: &Stored) -> Vec<UnitId> {
        let is_it = |entry: &Entry| entry.sequence == withdrawn.sequence && entry.storage == Storage::Withdrawn;
        let rejected = |acknowledged: &Acknowledged, since: Timestamp| {
            let failed = acknowledged.in_flight.entry.failed();
            let queue = self.queues.get(acknowledged.queue).filter(|_| acknowledged.verdict == Verdict::Rejected);
            is_it(&failed) && queue.is_some_and(|queue| matches!(fate(queue, &failed, since), Fate::Dead))
        };
        let buries = |committing: &Committing| {
            committing.dying.iter().any(|(_, entry)| is_it(entry))
                || committing.acks.iter().any(|acknowledged| rejected(acknowledged, committing.since))
        };
        let buried = self.committing.iter().filter(|(_, committing)| buries(committing));
        let mut units: Vec<UnitId> = buried.map(|(id, _)| *id).collect();
        units.sort_unstable();
        units
    }

    /// What of a queue is out and not settled: with consumers, acknowledged in transactions, or dying.
    pub(super) fn entries_out(&mut self, key: QueueKey) -> impl Iterator<Item = &mut Entry> {
        let consumers = self.consumers.values_mut().filter(move |consumer| consumer.queue == key);
        let held = consumers.flat_map(super::consumer::Consumer::entries_mut);
        let open = self.sessions.values_mut().flat_map(|session| session.transactions.values_mut());
        let open = open.flat_map(|transaction| &mut transaction.acks);
        let open = open.map(|acknowledged| (acknowledged.queue, &mut acknowledged.in_flight.entry));
        let committing = self.committing.values_mut().flat_map(Committing::leaving_mut);
        let leaving = open.chain(committing).filter(move |(queue, _)| *queue == key);
        held.chain(leaving.map(|(_, entry)| entry))
    }
}

/// What a policy says of a delivery that failed `entry.failures` times; without a policy it is dead at once.
fn fate(queue: &Queue, entry: &Entry, now: Timestamp) -> Fate {
    if queue.role == QueueRole::Queue && queue.destination.name() == DEAD_LETTER_QUEUE {
        return Fate::Redelivered(Some(now.after(REJECTED_DEAD_LETTER_DELAY)));
    }
    match &queue.redelivery {
        Some(policy) if entry.failures <= policy.attempts => {
            let delay = policy::delay_before(policy, entry.failures);
            Fate::Redelivered((!delay.is_zero()).then(|| now.after(delay)))
        }
        _ => Fate::Dead,
    }
}

/// The message as a dead letter: it never expires, and says where it came from and why it is here.
fn dead_message(message: &Message, destination: &Destination, cause: &str) -> Arc<Message> {
    let mut draft = message.to_draft();
    let added = [CAUSE, ORIGINAL_EXPIRATION];
    let mut properties = PropertiesBuilder::default();
    for (name, value) in draft.properties.iter().filter(|(name, _)| !added.contains(name)) {
        properties.push(name, value);
    }
    properties.push(CAUSE, PropertyValue::Text(cause));
    if let Some(expires) = draft.expires {
        properties.push(ORIGINAL_EXPIRATION, PropertyValue::Text(&expires.to_string()));
    }
    draft.properties = properties.build();
    draft.expires = None;
    draft.original_destination.get_or_insert_with(|| destination.clone());
    let dead = Message::new(draft);
    dead.charge_as(message);
    Arc::new(dead)
}
