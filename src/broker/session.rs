//! Sessions in the core: who is connected, what belongs to a connection, and what happens to it when it ends.

use std::collections::BTreeMap;

use super::{
    AckMode, CloseReason, Connect, ConsumerKey, Core, Effects, Outgoing, QueueKey, Refusal, Subscribe, TransactionName,
    Unsubscribe, browsing::Browser, consumer::Consumer, core::PlaceRole, queue::QueueRole, transaction::Transaction,
};
use crate::types::{ConsumerNo, Destination, DurableId, Op, SessionId, Text, Timestamp};

/// One client's connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) user: Option<Text>,
    pub(super) client_id: Option<Text>,
    pub(super) consumers: BTreeMap<ConsumerNo, ConsumerKey>,
    pub(super) browsers: BTreeMap<ConsumerNo, Browser>,
    pub(super) transactions: BTreeMap<TransactionName, Transaction>,
    pub(super) temporaries: Vec<Destination>,
    /// What was delivered and is not in the kernel yet. Unit: bytes.
    pub(super) outbox_bytes: usize,
    /// Consumers with credit that wait until the outbox has drained.
    pub(super) blocked: Vec<ConsumerKey>,
}

impl Core {
    /// A client says who it is; a live session of the same client-id and user makes room for it.
    pub(super) fn connect(
        &mut self,
        now: Timestamp,
        id: SessionId,
        connect: Connect,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if let Some(client_id) = &connect.client_id
            && let Some(other) = self.clients.get(client_id).copied()
        {
            self.take_over(now, other, &connect, effects)?;
        }
        if let Some(client_id) = &connect.client_id {
            self.clients.insert(client_id.clone(), id);
        }
        let session = Session {
            user: connect.user,
            client_id: connect.client_id,
            consumers: BTreeMap::new(),
            browsers: BTreeMap::new(),
            transactions: BTreeMap::new(),
            temporaries: Vec::new(),
            outbox_bytes: 0,
            blocked: Vec::new(),
        };
        self.sessions.insert(id, session);
        effects.outgoing.push((id, Outgoing::Connected));
        Ok(())
    }

    fn take_over(
        &mut self,
        now: Timestamp,
        other: SessionId,
        connect: &Connect,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let client_id = connect.client_id.as_ref().map_or("", Text::as_str);
        if self.sessions.get(&other).is_some_and(|session| session.user != connect.user) {
            return Err(Refusal::fatal(
                format!("Client: {client_id} already connected."),
                "Another user is connected with this client-id; choose another one.",
            ));
        }
        let refusal = Refusal::fatal(
            format!("Client: {client_id} connected again."),
            "A new connection of the same user took this client-id over.",
        );
        effects.outgoing.push((other, Outgoing::Error { refusal, receipt: None }));
        effects.outgoing.push((other, Outgoing::Close(CloseReason::TakenOver)));
        self.close(now, other, effects);
        Ok(())
    }

    /// A connection is gone: its transactions are rolled back, its deliveries return, what was temporary ends.
    ///
    /// It is gone first, so that nothing is handed out to it again, and everything has returned before others get it.
    pub fn close(&mut self, now: Timestamp, id: SessionId, effects: &mut Effects) {
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(client_id) = session.client_id
            && self.clients.get(&client_id) == Some(&id)
        {
            self.clients.remove(&client_id);
        }
        let mut queues: Vec<QueueKey> = Vec::new();
        for consumer in session.consumers.into_values() {
            queues.extend(self.remove_consumer(now, consumer, effects));
        }
        session.browsers.values().for_each(|browser| self.remove_browser(browser));
        let acks = session.transactions.into_values().flat_map(|transaction| transaction.acks).collect();
        self.give_back(now, acks, effects);
        self.dispatch_all(now, queues, effects);
        for destination in session.temporaries {
            self.remove_temporary(&destination, effects);
        }
    }

    /// Whether the next frames of a session may give messages back: it has deliveries to acknowledge, or an open
    /// transaction with something in it.
    #[must_use]
    pub fn holds_messages(&self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        let mut consumers = session.consumers.values().filter_map(|key| self.consumers.get(*key));
        session.transactions.values().any(|transaction| transaction.operations() > 0)
            || consumers.any(|consumer| consumer.ack != AckMode::Auto && consumer.has_unsettled())
    }

    pub(super) fn create_temporary(&mut self, id: SessionId, destination: Destination) -> Result<(), Refusal> {
        if self.places.contains_key(&destination) {
            return Ok(());
        }
        self.admit_destination()?;
        self.session(id)?.temporaries.push(destination.clone());
        self.add_place(destination, None, Some(id));
        Ok(())
    }

    fn remove_temporary(&mut self, destination: &Destination, effects: &mut Effects) {
        match self.places.remove(destination).map(|place| place.role) {
            Some(PlaceRole::Queue(key)) => self.remove_subscription(key, effects),
            Some(PlaceRole::Topic(subscriptions)) => {
                subscriptions.iter().for_each(|key| self.remove_subscription(*key, effects));
            }
            None => {}
        }
    }

    pub(super) fn subscribe(
        &mut self,
        now: Timestamp,
        id: SessionId,
        subscribe: Subscribe,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        self.admit_consumer(id, subscribe.consumer)?;
        let durable = match &subscribe.durable {
            Some(name) => Some(self.admit_durable(id, name, &subscribe.destination)?),
            None => None,
        };
        self.place_for_consumer(id, &subscribe.destination, effects)?;
        let key = match durable {
            Some(identity) => self.subscribe_durably(now, id, identity, &subscribe, effects),
            None => self.add_consumer(id, &subscribe),
        };
        self.offer_turn(key);
        let queue = self.consumers.get(key).map(|consumer| consumer.queue);
        if let Some(queue) = queue {
            self.dispatch(now, queue, effects);
        }
        Ok(())
    }

    /// Refuses one consumer or browser too many, and a number that is in use.
    pub(super) fn admit_consumer(&mut self, id: SessionId, number: ConsumerNo) -> Result<(), Refusal> {
        let limit = self.options.limits.subscriptions_per_connection_max;
        let session = self.session(id)?;
        if session.consumers.len() + session.browsers.len() >= limit {
            return Err(Refusal::new(
                format!("The maximum number of subscriptions ({limit}) was exceeded."),
                "Unsubscribe from something, or raise limits.subscriptions_per_connection_max.",
            ));
        }
        if session.consumers.contains_key(&number) || session.browsers.contains_key(&number) {
            return Err(Refusal::new("The subscription id is in use.", "Choose another id, or unsubscribe first."));
        }
        Ok(())
    }

    /// What a destination is that a session wants to consume from; made if need be and allowed.
    pub(super) fn place_for_consumer(
        &mut self,
        id: SessionId,
        destination: &Destination,
        effects: &mut Effects,
    ) -> Result<PlaceRole, Refusal> {
        let place = self.place(destination, effects)?;
        if place.owner.is_some_and(|owner| owner != id) {
            return Err(Refusal::new(
                format!("Cannot consume from {destination}: it belongs to another connection."),
                "Only the connection that made a temporary destination may consume from it.",
            ));
        }
        Ok(place.role.clone())
    }

    fn add_consumer(&mut self, id: SessionId, subscribe: &Subscribe) -> ConsumerKey {
        let place = self.places.get(&subscribe.destination).map(|place| place.role.clone());
        let existing = match place {
            Some(PlaceRole::Queue(key)) => key,
            _ => super::QueueKey::default(),
        };
        let key = self.consumers.insert(Consumer::new(id, existing, subscribe));
        if !subscribe.destination.kind().is_queue() {
            let queue = self.add_subscription(&subscribe.destination, QueueRole::TopicSubscription(key), None);
            if let Some(consumer) = self.consumers.get_mut(key) {
                consumer.queue = queue;
            }
        }
        self.enlist(id, key, subscribe.consumer);
        key
    }

    /// Whose durable subscription it will be; refused if it can't be or somebody consumes from it.
    fn admit_durable(
        &mut self,
        id: SessionId,
        name: &Text,
        destination: &Destination,
    ) -> Result<(Text, Text), Refusal> {
        if destination.kind() != crate::types::DestinationKind::Topic {
            return Err(Refusal::new(
                format!("You cannot durably subscribe to {destination}."),
                "Durable subscriptions are for topics; a queue keeps its messages anyway.",
            ));
        }
        let Some(client_id) = self.session(id)?.client_id.clone() else {
            return Err(Refusal::new(
                "A durable subscription needs a client-id.",
                "Send the header client-id with CONNECT.",
            ));
        };
        let identity = (client_id, name.clone());
        let existing = self.durables.get(&identity);
        if existing.is_none() {
            self.admit_destination()?;
        }
        if existing.is_some_and(|durable| durable.consumer.is_some()) {
            return Err(Refusal::new(
                format!("Durable consumer is in use for client: {} and subscriptionName: {name}", identity.0),
                "Unsubscribe the other consumer first.",
            ));
        }
        Ok(identity)
    }

    fn subscribe_durably(
        &mut self,
        now: Timestamp,
        id: SessionId,
        identity: (Text, Text),
        subscribe: &Subscribe,
        effects: &mut Effects,
    ) -> ConsumerKey {
        if self.durables.get(&identity).is_some_and(|durable| durable.topic != subscribe.destination) {
            self.delete_durable(now, id, &identity, effects);
        }
        match self.durables.get(&identity) {
            Some(durable) => effects.changes.push(super::Change::Rely { origin: id, durable: durable.id }),
            None => self.create_durable(id, identity.clone(), &subscribe.destination, effects),
        }
        let durable = self.durables.get_mut(&identity).expect("it was there or has just been made");
        let key = self.consumers.insert(Consumer::new(id, durable.queue, subscribe));
        durable.consumer = Some(key);
        self.enlist(id, key, subscribe.consumer);
        key
    }

    fn enlist(&mut self, id: SessionId, key: ConsumerKey, number: ConsumerNo) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.consumers.insert(number, key);
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        now: Timestamp,
        id: SessionId,
        unsubscribe: &Unsubscribe,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let none = || Refusal::new("No subscription matched.", "Name the id of a live subscription.");
        let session = self.session(id)?;
        if let Some(browser) = unsubscribe.consumer.and_then(|number| session.browsers.remove(&number)) {
            self.remove_browser(&browser);
            return Ok(());
        }
        let consumer = match unsubscribe.consumer {
            Some(number) => Some(session.consumers.get(&number).copied().ok_or_else(none)?),
            None => None,
        };
        let durable = match &unsubscribe.durable {
            Some(name) => Some((session.client_id.clone().ok_or_else(none)?, name.clone())),
            None => None,
        };
        if durable.as_ref().is_some_and(|identity| !self.durables.contains_key(identity)) {
            return Err(none());
        }
        if let Some(consumer) = consumer
            && let Some(queue) = self.remove_consumer(now, consumer, effects)
        {
            self.dispatch(now, queue, effects);
        }
        if let Some(identity) = durable {
            self.delete_durable(now, id, &identity, effects);
        }
        Ok(())
    }

    fn delete_durable(&mut self, now: Timestamp, origin: SessionId, identity: &(Text, Text), effects: &mut Effects) {
        let Some(id) = self.remove_durable(now, identity, effects) else { return };
        effects.changes.push(super::Change::One { origin: Some(origin), op: Op::DeleteDurable { id } });
    }

    /// Takes a durable subscription out of memory, and its consumer with it.
    pub(super) fn remove_durable(
        &mut self,
        now: Timestamp,
        identity: &(Text, Text),
        effects: &mut Effects,
    ) -> Option<DurableId> {
        let durable = self.durables.remove(identity)?;
        self.remove_subscription(durable.queue, effects); // first, so that what its consumer holds ends with it
        if let Some(consumer) = durable.consumer {
            self.remove_consumer(now, consumer, effects);
        }
        Some(durable.id)
    }

    /// A consumer ends: what it held returns, or ends with it if it was a plain topic subscription. The queue that has
    /// something to hand out again.
    fn remove_consumer(&mut self, now: Timestamp, key: ConsumerKey, effects: &mut Effects) -> Option<QueueKey> {
        let mut consumer = self.consumers.remove(key)?;
        if let Some(session) = self.sessions.get_mut(&consumer.session) {
            session.consumers.remove(&consumer.number);
            session.blocked.retain(|blocked| *blocked != key);
        }
        let queue = self.queues.get_mut(consumer.queue)?;
        queue.ready.remove(key);
        match queue.role {
            QueueRole::Queue => {}
            QueueRole::TopicSubscription(_) => {
                self.remove_subscription(consumer.queue, effects);
                return None;
            }
            QueueRole::DurableSubscription => {
                for durable in self.durables.values_mut().filter(|durable| durable.consumer == Some(key)) {
                    durable.consumer = None;
                }
            }
        }
        while let Some(in_flight) = consumer.take_first(consumer.last_tag()) {
            self.return_lost(now, consumer.queue, in_flight.entry, effects);
        }
        Some(consumer.queue)
    }

    /// The session of a command; a command before CONNECT finds none.
    pub(super) fn session(&mut self, id: SessionId) -> Result<&mut Session, Refusal> {
        self.sessions
            .get_mut(&id)
            .ok_or_else(|| Refusal::fatal("Not connected.", "The first frame of a connection is CONNECT or STOMP."))
    }

    /// The consumer that a session numbers so.
    pub(super) fn consumer_of(&self, id: SessionId, number: ConsumerNo) -> Option<ConsumerKey> {
        self.sessions.get(&id)?.consumers.get(&number).copied()
    }

    /// Whether a consumer settles its deliveries itself.
    pub(super) fn settles_itself(&self, key: ConsumerKey) -> bool {
        self.consumers.get(key).is_some_and(|consumer| consumer.ack != AckMode::Auto)
    }
}
