//! Messages on their way out: which consumer gets which message, and when.

use std::time::Duration;

use super::{
    Change, CloseReason, ConsumerKey, Core, Delivery, Effects, Outgoing, QueueKey, Refusal,
    deadlines::Deadline,
    entry::{Entry, Storage},
    lane::Popped,
    mark::Marking,
    queue::{Queue, QueueRole},
};
use crate::types::{Rule, Sequence, Timestamp};

/// A session whose outbox holds this much gets nothing more until some of it is in the kernel. Unit: bytes.
pub(super) const OUTBOX_BYTES_MAX: usize = 4 << 20;

/// So many deadlines are served in one turn; the others come in the next.
const DEADLINES_A_TURN_MAX: usize = 1_000;

/// What a queue hands out next.
enum Next {
    Deliver(Entry),
    Expired(Entry),
    Nothing,
}

impl Core {
    /// Hands out what a queue has to consumers with credit, until either ends.
    pub(super) fn dispatch(&mut self, now: Timestamp, key: QueueKey, effects: &mut Effects) {
        let mut delivered = false;
        let may_pass = self.options.broken.is(Rule::DeliversBeforeMark);
        let open_from = if may_pass { Sequence::ZERO } else { self.open_from };
        while self.queues.get(key).is_some_and(Queue::serves)
            && let Some((priority, consumer)) = self.next_consumer(key)
            && let Some(queue) = self.queues.get_mut(key)
        {
            match next_message(queue, now, open_from, effects) {
                Next::Deliver(entry) => {
                    queue.served = Some(now);
                    self.deliver(key, consumer, entry, effects);
                    delivered = true;
                }
                Next::Expired(entry) => {
                    queue.ready.push_front(priority, consumer);
                    queue.set_aside(entry);
                }
                Next::Nothing => {
                    queue.ready.push_front(priority, consumer);
                    break;
                }
            }
        }
        let awaited = || delivered || self.queues.get(key).is_some_and(|queue| !queue.ready.is_empty());
        if self.memory.has_let_go() && awaited() {
            self.want_page(key, effects);
        }
        self.watch_slowness(now, key);
    }

    /// Hands out what each of these queues has.
    pub(super) fn dispatch_all(&mut self, now: Timestamp, mut queues: Vec<QueueKey>, effects: &mut Effects) {
        queues.dedup();
        for key in queues {
            self.dispatch(now, key, effects);
        }
    }

    /// The consumer whose turn it is, taken out of its queue's ring; those without credit or room fall out on the way.
    fn next_consumer(&mut self, key: QueueKey) -> Option<(u8, ConsumerKey)> {
        let queue = self.queues.get_mut(key)?;
        while let Some((priority, candidate)) = queue.ready.pop() {
            let Some(consumer) = self.consumers.get_mut(candidate) else { continue };
            let Some(session) = self.sessions.get_mut(&consumer.session) else { continue };
            if !consumer.has_credit() {
                consumer.waiting = false;
            } else if self.memory.is_full() && consumer.has_unsettled() {
                consumer.waiting = false; // R31: it takes its turn when it has settled something, or there is memory
                if !std::mem::replace(&mut consumer.starves, true) {
                    self.memory.starve(candidate);
                }
            } else if session.outbox_bytes >= OUTBOX_BYTES_MAX {
                session.blocked.push(candidate);
            } else {
                return Some((priority, candidate));
            }
        }
        None
    }

    fn deliver(&mut self, key: QueueKey, consumer_key: ConsumerKey, mut entry: Entry, effects: &mut Effects) {
        let Some(consumer) = self.consumers.get_mut(consumer_key) else { return };
        let Some(session) = self.sessions.get_mut(&consumer.session) else { return };
        self.deadlines.unwatch_expiry(key, &entry);
        entry.deliveries = entry.deliveries.saturating_add(1);
        self.totals.delivered += 1;
        self.totals.redelivered += u64::from(entry.redelivered);
        session.outbox_bytes += entry.message.size();
        let (message, redelivered, deliveries, shared) =
            (entry.message.clone(), entry.redelivered, entry.deliveries, entry.shared);
        let tag = consumer.hold(entry);
        let delivery = Delivery { consumer: consumer.number, tag, message, redelivered, deliveries, shared };
        effects.outgoing.push((consumer.session, Outgoing::Delivery(delivery)));
        consumer.waiting = false;
        self.offer_turn(consumer_key);
    }

    /// Lets a consumer that has credit wait for its turn, if it does not wait already.
    pub(super) fn offer_turn(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        if consumer.waiting || !consumer.has_credit() {
            return;
        }
        if let Some(queue) = self.queues.get_mut(consumer.queue) {
            consumer.waiting = true;
            queue.ready.push(consumer.priority, key);
        }
    }

    /// Consumers that waited for their session's outbox take their turns again.
    pub(super) fn unblock(&mut self, now: Timestamp, blocked: Vec<ConsumerKey>, effects: &mut Effects) {
        for key in blocked {
            let Some(consumer) = self.consumers.get_mut(key) else { continue };
            let queue = consumer.queue;
            consumer.waiting = false;
            self.offer_turn(key);
            self.dispatch(now, queue, effects);
        }
    }

    /// There is memory again: consumers that waited for it take their turns.
    pub(super) fn feed(&mut self, now: Timestamp, starved: Vec<ConsumerKey>, effects: &mut Effects) {
        for key in starved {
            let Some(consumer) = self.consumers.get_mut(key) else { continue };
            consumer.starves = false;
            let queue = consumer.queue;
            self.offer_turn(key);
            self.dispatch(now, queue, effects);
        }
    }

    /// Serves what is due by `now`, a bounded part of it.
    pub fn advance(&mut self, now: Timestamp, effects: &mut Effects) {
        self.drop_garbage();
        self.browse_on(now, effects);
        self.want_due(now, effects);
        for _ in 0..DEADLINES_A_TURN_MAX {
            let may_die = self.may_die(now);
            let Some(deadline) = self.deadlines.take_due(now, may_die) else { return };
            match deadline {
                Deadline::Expiry(key, priority, sequence) => {
                    let Some(queue) = self.queues.get_mut(key) else { continue };
                    let visible = !queue.hides(priority, sequence);
                    let entry = if visible { queue.take(priority, sequence) } else { None };
                    if let Some(entry) = entry {
                        self.expire(now, key, entry, effects);
                    }
                }
                Deadline::Redelivery(key) => {
                    if let Some(queue) = self.queues.get_mut(key) {
                        queue.release_due(now);
                        self.dispatch(now, key, effects);
                    }
                }
                Deadline::SlowSubscription(key) => self.close_if_slow(now, key, effects),
            }
        }
    }

    /// Starts the clock of a topic subscription that goes over its bound, and stops it when it is under it again.
    pub(super) fn watch_slowness(&mut self, now: Timestamp, key: QueueKey) {
        let bound = self.options.limits.topic_backlog_bytes_max;
        let Some(queue) = self.queues.get_mut(key) else { return };
        let over = matches!(queue.role, QueueRole::TopicSubscription(_)) && queue.bytes >= bound;
        if !over {
            queue.over_bound_since = None;
        } else if queue.over_bound_since.is_none() {
            queue.over_bound_since = Some(now);
            if !std::mem::replace(&mut queue.slowness_watched, true) {
                self.deadlines.watch_slowness(key, now.after(self.options.limits.slow_consumer_timeout));
            }
        }
    }

    /// Nothing was handed out for so long, and nobody is to blame for it.
    pub fn paused(&mut self, paused: Duration) {
        for queue in self.queues.values_mut() {
            queue.over_bound_since = queue.over_bound_since.map(|since| since.after(paused));
        }
    }

    fn close_if_slow(&mut self, now: Timestamp, key: QueueKey, effects: &mut Effects) {
        let timeout = self.options.limits.slow_consumer_timeout;
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.slowness_watched = false;
        let (Some(since), QueueRole::TopicSubscription(consumer)) = (queue.over_bound_since, &queue.role) else {
            return;
        };
        if now < since.after(timeout) {
            queue.slowness_watched = true; // it settled something meanwhile, and its time began anew
            self.deadlines.watch_slowness(key, since.after(timeout));
            return;
        }
        let Some(session) = self.consumers.get(*consumer).map(|consumer| consumer.session) else { return };
        let why = format!(
            "its subscription to {} settled nothing for {} s and is {} bytes behind",
            queue.destination,
            timeout.as_secs(),
            queue.bytes
        );
        let refusal = Refusal::fatal(
            format!("The subscription to {} is too slow.", queue.destination),
            "It settled nothing for too long while messages piled up; read and acknowledge faster, or subscribe durably.",
        );
        effects.outgoing.push((session, Outgoing::Error { refusal, receipt: None }));
        effects.outgoing.push((session, Outgoing::Close(CloseReason::SlowConsumer(why))));
        self.close(now, session, effects);
    }
}

/// The next message of a queue that may leave, taken out.
fn next_message(queue: &mut Queue, now: Timestamp, open_from: Sequence, effects: &mut Effects) -> Next {
    if queue.mark.awaited {
        return Next::Nothing;
    }
    let Popped::Entry(entry) = queue.pop() else { return Next::Nothing };
    if entry.message.expires.is_some_and(|expires| expires <= now) {
        return Next::Expired(entry);
    }
    let (Storage::Stored, Some(holder)) = (entry.storage, queue.holder) else { return Next::Deliver(entry) };
    match queue.mark.pass(entry.sequence, open_from) {
        Marking::Passed => Next::Deliver(entry),
        Marking::PassedWith(upto) => {
            effects.changes.push(Change::Mark { holder, upto, awaited: false });
            Next::Deliver(entry)
        }
        Marking::Awaits(upto) => {
            effects.changes.extend(upto.map(|upto| Change::Mark { holder, upto, awaited: true }));
            queue.put_back(entry);
            Next::Nothing
        }
    }
}
