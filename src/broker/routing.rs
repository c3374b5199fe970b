//! Messages on their way in: admission, sequence, and the queues that get them.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::{
    Change, Command, Core, Effects, Full, Hold, NotDone, QueueKey, Refusal, Send,
    committing::Hidden,
    core::{Place, PlaceRole},
    entry::{Entry, Storage},
    queue::{Queue, QueueRole},
};
use crate::types::{Destination, Held, Message, Op, Priority, Rule, Sequence, SessionId, Stored, Timestamp};

/// Where a message goes, found before anything changes.
#[derive(Debug)]
pub(super) struct Route {
    /// The store's part, if it has one.
    pub(super) stored: Option<Stored>,
    sequence: Sequence,
    priority: Priority,
    targets: Targets,
}

/// The queues that get a message.
#[derive(Debug)]
enum Targets {
    One(QueueKey),
    All(Arc<Vec<QueueKey>>),
}

impl Targets {
    fn as_slice(&self) -> &[QueueKey] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::All(keys) => keys,
        }
    }
}

impl Route {
    /// For simulations: the same with another sequence.
    pub(super) fn renumbered(mut self, sequence: Sequence) -> Self {
        self.stored.iter_mut().for_each(|stored| stored.sequence = sequence);
        Self { sequence, ..self }
    }
}

impl Core {
    /// A SEND: into its transaction, or to its queues at once.
    pub(super) fn send(
        &mut self,
        now: Timestamp,
        session: SessionId,
        send: Send,
        effects: &mut Effects,
    ) -> Result<(), NotDone> {
        self.admit_size(&send.message)?;
        self.session(session)?;
        if let Some(name) = &send.transaction {
            self.open_transaction(session, name, send.message.size())?; // before a place is made for what is refused
        }
        if self.is_gone(&send.destination) {
            return Ok(());
        }
        self.place(&send.destination, effects)?;
        if send.transaction.is_some() {
            return Ok(self.send_in_transaction(session, send)?);
        }
        let admitted = match self.memory.is_full() {
            true => Err(Hold::Standing(Full::Memory)), // R31; what a COMMIT brings is in memory already
            false => self.admit(&send.destination, send.message.size()),
        };
        if let Err(hold) = admitted {
            return Err(NotDone::Held { command: Command::Send(send), hold });
        }
        let Some(route) = self.route(&send.destination, &send.message, effects) else {
            effects.term_wanted = true;
            return Err(NotDone::Held { command: Command::Send(send), hold: Hold::Passing });
        };
        effects.term_wanted |= self.sequences.term_wanted();
        if let Some(stored) = &route.stored {
            effects.changes.push(Change::One { origin: Some(session), op: Op::Insert(stored.clone()) });
        }
        self.totals.received += 1;
        self.enqueue(now, &route, &send.message, false);
        self.dispatch_route(now, &route, effects);
        Ok(())
    }

    /// Whether this is a temporary destination whose connection has ended. What is sent there goes to nobody, as to a
    /// topic without subscriptions: who answers a requester that has left did nothing wrong.
    pub(super) fn is_gone(&self, destination: &Destination) -> bool {
        destination.kind().is_temporary() && !self.places.contains_key(destination)
    }

    /// Refuses what the store could not hold.
    fn admit_size(&self, message: &Message) -> Result<(), Refusal> {
        let max = self.options.message_bytes_max;
        if message.content_bytes() <= max {
            return Ok(());
        }
        Err(Refusal::new(
            format!("The maximum message size ({max} bytes) was exceeded."),
            "Send a smaller message, or a reference to where its content lies.",
        ))
    }

    /// Whether a destination takes another message of this size now.
    pub(super) fn admit(&self, destination: &Destination, size: usize) -> Result<(), Hold> {
        let limits = &self.options.limits;
        let fits = |queue: &Queue| limits.queue_bytes_max.is_none_or(|max| queue.bytes + size <= max);
        let full = |queue: &Queue| queue.counted && queue.messages > 0 && !fits(queue); // R28
        let targets = match self.places.get(destination).map(|place| &place.role) {
            None => return Ok(()),
            Some(PlaceRole::Queue(key)) => std::slice::from_ref(key),
            Some(PlaceRole::Topic(subscriptions)) => subscriptions.as_slice(),
        };
        for queue in targets.iter().filter_map(|key| self.queues.get(*key)) {
            match queue.role {
                QueueRole::Queue if full(queue) => {
                    return Err(Hold::Standing(Full::Queue(destination.clone(), queue.messages)));
                }
                QueueRole::DurableSubscription if full(queue) => {
                    return Err(Hold::Standing(Full::DurableSubscription(destination.clone(), queue.messages)));
                }
                // Whatever the size: so a subscription's clock runs while it holds anybody.
                QueueRole::TopicSubscription(_) if queue.bytes >= limits.topic_backlog_bytes_max => {
                    return Err(Hold::SlowSubscription);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives a message its sequence and finds its targets; `None` at the counter's end.
    pub(super) fn route(
        &mut self,
        destination: &Destination,
        message: &Arc<Message>,
        effects: &mut Effects,
    ) -> Option<Route> {
        let place = self.places.get(destination)?;
        let targets = match &place.role {
            PlaceRole::Queue(key) => Targets::One(*key),
            PlaceRole::Topic(subscriptions) => Targets::All(subscriptions.clone()),
        };
        let holders = self.holders_of(place, message, targets.as_slice());
        let id = place.id;
        let sequence = self.sequences.take()?;
        let stored = id.filter(|_| !holders.is_empty()).map(|destination| Stored {
            sequence,
            destination,
            holders,
            message: message.clone(),
        });
        if let Some(stored) = &stored {
            self.make_again(stored.destination, effects);
        }
        if matches!(targets, Targets::All(_)) {
            self.places.get_mut(destination)?.passed.enqueued += 1;
        }
        Some(Route { stored, sequence, priority: message.priority, targets })
    }

    /// Who keeps a message in the store: nobody if it is not persistent or goes to a temporary destination.
    fn holders_of(&self, place: &Place, message: &Message, targets: &[QueueKey]) -> SmallVec<[Held; 1]> {
        if !message.persistent || place.id.is_none() {
            return smallvec![];
        }
        targets.iter().filter_map(|key| self.queues.get(*key)?.holder).map(Held::fresh).collect()
    }

    /// Puts a routed message into its queues.
    pub(super) fn enqueue(&mut self, now: Timestamp, route: &Route, message: &Arc<Message>, hidden: bool) {
        let shared = route.targets.as_slice().len() > 1;
        for key in route.targets.as_slice() {
            let Some(queue) = self.queues.get_mut(*key) else { continue };
            let stored = route.stored.is_some() && queue.holder.is_some();
            let storage = if stored { Storage::Stored } else { Storage::Never };
            let entry = Entry { storage, hidden, shared, ..Entry::new(now, route.sequence, message.clone()) };
            self.deadlines.watch_expiry(*key, &entry);
            queue.push(entry);
            if !std::mem::replace(&mut queue.in_line, true) {
                self.memory.stands_in_line(*key);
            }
        }
    }

    /// Puts a routed message into its queues, hidden until its unit is durable; where it lies.
    pub(super) fn enqueue_hidden(
        &mut self,
        now: Timestamp,
        route: &Route,
        message: &Arc<Message>,
        hidden: &mut Hidden,
    ) {
        self.enqueue(now, route, message, !self.options.broken.is(Rule::ShowsTransactions));
        hidden.extend(route.targets.as_slice().iter().map(|key| (*key, message.priority, route.sequence)));
    }

    /// Lets the queues of a route hand out; what nobody takes may have to be spooled.
    pub(super) fn dispatch_route(&mut self, now: Timestamp, route: &Route, effects: &mut Effects) {
        for key in route.targets.as_slice() {
            self.dispatch(now, *key, effects);
        }
        if self.memory.has_let_go() {
            self.spool(now, route.targets.as_slice(), route.priority, route.sequence, effects);
        }
    }
}
