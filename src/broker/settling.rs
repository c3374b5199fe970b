//! Answers to deliveries: acknowledgements, automatic ones, and the transactions that gather them.

use smallvec::{SmallVec, smallvec};

use super::{
    Ack, AckMode, AckTarget, Change, Command, ConsumerKey, Core, Effects, Hold, NotDone, QueueKey, Refusal, Send,
    TransactionName, Verdict,
    committing::{Committing, Hidden},
    consumer::InFlight,
    entry::Entry,
    queue::Keeper,
    spooling::unspool,
    transaction::{Acknowledged, Transaction},
};
use crate::types::{ConsumerNo, DeliveryTag, Op, Rule, SessionId, Timestamp};

impl Core {
    /// An ACK or NACK.
    pub(super) fn ack(
        &mut self,
        now: Timestamp,
        session: SessionId,
        ack: Ack,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if self.is_of_browser(session, &ack)? {
            return Ok(());
        }
        let (key, tag) = self.find_delivery(session, &ack)?;
        if let Some(name) = &ack.transaction {
            return self.ack_in_transaction(now, session, (key, tag), ack.verdict, name, effects);
        }
        let Some(consumer) = self.consumers.get_mut(key) else { return Ok(()) };
        let (queue, mode) = (consumer.queue, consumer.ack);
        while let Some(in_flight) = take_reached(self.consumers.get_mut(key), mode, tag) {
            match ack.verdict {
                Verdict::Accepted => self.settle(now, queue, &in_flight.entry, (session, true), effects),
                Verdict::Rejected => {
                    self.offer_turn(key); // a dead letter hands out what came back before it
                    self.reject(now, queue, in_flight.entry, session, effects);
                }
            }
        }
        self.offer_turn(key);
        self.dispatch(now, queue, effects);
        Ok(())
    }

    /// The delivery that an ACK names; R7: a second or unknown one is refused and changes nothing.
    fn find_delivery(&mut self, session: SessionId, ack: &Ack) -> Result<(ConsumerKey, DeliveryTag), Refusal> {
        let consumers: SmallVec<[ConsumerKey; 4]> = match &ack.target {
            AckTarget::Tag { consumer, .. } | AckTarget::MessageId { consumer: Some(consumer), .. } => {
                self.consumer_of(session, *consumer).into_iter().collect()
            }
            AckTarget::MessageId { consumer: None, .. } => self.session(session)?.consumers.values().copied().collect(),
        };
        let found = consumers.into_iter().filter(|key| self.settles_itself(*key)).find_map(|key| {
            let tag = self.consumers.get(key)?.find(&ack.target)?;
            Some((key, tag))
        });
        found.ok_or_else(|| unexpected(ack))
    }

    /// What one write put into the kernel: automatic deliveries in it are settled (R3), and there is room again.
    pub fn written(
        &mut self,
        now: Timestamp,
        session: SessionId,
        last: &[(ConsumerNo, DeliveryTag)],
        bytes: usize,
        effects: &mut Effects,
    ) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        state.outbox_bytes = state.outbox_bytes.saturating_sub(bytes);
        let room = state.outbox_bytes < super::dispatch::OUTBOX_BYTES_MAX / 2;
        let blocked = if room { std::mem::take(&mut state.blocked) } else { Vec::new() };
        for (number, tag) in last {
            self.was_shown(session, *number, *tag);
            let Some(key) = self.consumer_of(session, *number) else { continue };
            if self.settles_itself(key) {
                continue;
            }
            let Some(queue) = self.consumers.get(key).map(|consumer| consumer.queue) else { continue };
            while let Some(in_flight) = self.consumers.get_mut(key).and_then(|consumer| consumer.take_first(*tag)) {
                self.settle(now, queue, &in_flight.entry, (session, false), effects);
            }
            self.offer_turn(key);
            self.dispatch(now, queue, effects);
        }
        self.unblock(now, blocked, effects);
    }

    /// A delivery is done with for good: by whom, and whether a frame asked for it.
    fn settle(
        &mut self,
        now: Timestamp,
        key: QueueKey,
        entry: &Entry,
        (by, asked): (SessionId, bool),
        effects: &mut Effects,
    ) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.forget(entry);
        self.totals.acknowledged += 1;
        self.schedule.settled(now, queue.holder, entry);
        queue.over_bound_since = None;
        match queue.keeper(entry.storage) {
            Some(Keeper::Store(holder)) => {
                effects.changes.push(Change::Settle { by, asked, sequence: entry.sequence, holder });
            }
            Some(Keeper::Spool(_)) => unspool(queue, entry, effects),
            None => {}
        }
    }

    pub(super) fn begin(&mut self, session: SessionId, name: TransactionName) -> Result<(), Refusal> {
        let limit = self.options.limits.transactions_per_connection_max;
        let transactions = &mut self.session(session)?.transactions;
        if transactions.contains_key(&name) {
            return Err(Refusal::new(
                format!("The transaction was already started: {name}"),
                "COMMIT or ABORT it first, or choose another name.",
            ));
        }
        if transactions.len() >= limit {
            return Err(Refusal::new(
                format!("The maximum number of open transactions ({limit}) was exceeded."),
                "COMMIT or ABORT some, or raise limits.transactions_per_connection_max.",
            ));
        }
        transactions.insert(name, Transaction::default());
        Ok(())
    }

    pub(super) fn send_in_transaction(&mut self, session: SessionId, send: Send) -> Result<(), Refusal> {
        if self.memory.is_full() {
            return Err(Refusal::memory_full());
        }
        let size = send.message.size();
        let name = send.transaction.unwrap_or_default();
        let numbered = if self.options.broken.is(Rule::NumbersAtSend) { self.sequences.take() } else { None };
        let transaction = self.open_transaction(session, &name, size)?;
        transaction.numbered.extend(numbered);
        transaction.bytes += size;
        transaction.sends.push((send.destination, send.message));
        Ok(())
    }

    fn ack_in_transaction(
        &mut self,
        now: Timestamp,
        session: SessionId,
        (key, tag): (ConsumerKey, DeliveryTag),
        verdict: Verdict,
        name: &TransactionName,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        self.open_transaction(session, name, 0)?;
        let Some(consumer) = self.consumers.get_mut(key) else { return Ok(()) };
        let (queue, mode) = (consumer.queue, consumer.ack);
        let mut acks = Vec::new();
        while let Some(in_flight) = take_reached(Some(&mut *consumer), mode, tag) {
            acks.push(Acknowledged { consumer: key, queue, in_flight, verdict });
        }
        self.open_transaction(session, name, 0)?.acks.append(&mut acks);
        self.offer_turn(key);
        self.dispatch(now, queue, effects);
        Ok(())
    }

    /// An open transaction with room for one more operation of `bytes`.
    pub(super) fn open_transaction(
        &mut self,
        session: SessionId,
        name: &TransactionName,
        bytes: usize,
    ) -> Result<&mut Transaction, Refusal> {
        let limits = self.options.limits.clone();
        let transaction = self.session(session)?.transactions.get_mut(name).ok_or_else(|| no_transaction(name))?;
        if transaction.operations() >= limits.transaction_operations_max
            || transaction.bytes.saturating_add(bytes) > limits.transaction_bytes_max
        {
            transaction.is_cut = true;
            return Err(Refusal::new(
                format!("The maximum size of the transaction {name} was exceeded."),
                "COMMIT more often, or raise limits.transaction_operations_max or limits.transaction_bytes_max.",
            ));
        }
        Ok(transaction)
    }

    /// Something of a transaction was refused, and a client may commit the rest before it has seen the ERROR.
    pub(super) fn cut_transaction(&mut self, session: SessionId, name: Option<&TransactionName>) {
        let transactions = self.sessions.get_mut(&session).map(|session| &mut session.transactions);
        if let Some(transaction) = transactions.zip(name).and_then(|(transactions, name)| transactions.get_mut(name)) {
            transaction.is_cut = true;
        }
    }

    /// Whether a COMMIT has something for the store to add: a full one still takes acknowledgements alone (R14).
    #[must_use]
    pub fn commit_stores(&self, session: SessionId, name: &TransactionName) -> bool {
        let transaction = self.sessions.get(&session).and_then(|session| session.transactions.get(name));
        transaction.is_some_and(|transaction| transaction.sends.iter().any(|(_, message)| message.persistent))
    }

    /// Sends everything of a transaction on its way to the disk as one unit; visible and settled when it is durable
    /// (R5). One that is refused is an ABORT.
    pub(super) fn commit(
        &mut self,
        now: Timestamp,
        session: SessionId,
        name: TransactionName,
        effects: &mut Effects,
    ) -> Result<(), NotDone> {
        let transaction = self.session(session)?.transactions.get(&name).ok_or_else(|| no_transaction(&name))?;
        if transaction.is_cut {
            self.abort(now, session, &name, effects)?;
            return Err(cut(&name).into());
        }
        let operations = transaction.operations();
        let admitted = transaction.sends.iter().map(|(destination, message)| (destination.clone(), message.size()));
        for (destination, size) in admitted.collect::<Vec<_>>() {
            if let Err(hold) = self.admit(&destination, size) {
                return Err(NotDone::Held { command: Command::Commit(name), hold });
            }
        }
        if !self.sequences.has(operations) {
            effects.term_wanted = true;
            return Err(NotDone::Held { command: Command::Commit(name), hold: Hold::Passing });
        }
        effects.term_wanted |= self.sequences.term_wanted();
        if let Some(transaction) = self.session(session)?.transactions.remove(&name) {
            self.commit_unit(now, session, transaction, effects);
        }
        Ok(())
    }

    fn commit_unit(&mut self, now: Timestamp, session: SessionId, mut transaction: Transaction, effects: &mut Effects) {
        let mut ops: SmallVec<[Op; 1]> = smallvec![];
        let mut hidden = Hidden::new();
        for (destination, message) in &transaction.sends {
            if self.is_gone(destination) {
                continue;
            }
            let route = self.route(destination, message, effects);
            let route = route.expect("its place was made with it, and sequences are left");
            let route = match transaction.numbered.pop_front() {
                Some(sequence) => route.renumbered(sequence),
                None => route,
            };
            ops.extend(route.stored.clone().map(Op::Insert));
            self.totals.received += 1;
            self.enqueue_hidden(now, &route, message, &mut hidden);
        }
        for acknowledged in &transaction.acks {
            self.answer_in_unit(now, acknowledged, &mut ops, &mut hidden, effects);
        }
        let committing = Committing { hidden, since: now, acks: transaction.acks, dying: None };
        self.set_out(now, committing, ops, Some(session), effects);
    }

    pub(super) fn abort(
        &mut self,
        now: Timestamp,
        session: SessionId,
        name: &TransactionName,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let transaction = self.session(session)?.transactions.remove(name).ok_or_else(|| no_transaction(name))?;
        self.give_back(now, transaction.acks, effects);
        Ok(())
    }

    /// Acknowledgements that do not count: the deliveries are the consumer's again, or the queue's if it is gone.
    /// Nothing is handed out before all consumers have theirs: it takes their credit.
    pub(super) fn give_back(&mut self, now: Timestamp, acks: Vec<Acknowledged>, effects: &mut Effects) {
        let mut lost = Vec::new();
        for acknowledged in acks {
            match self.consumers.get_mut(acknowledged.consumer) {
                Some(consumer) => consumer.put_back(acknowledged.in_flight),
                None => lost.push(acknowledged),
            }
        }
        let mut queues: Vec<QueueKey> = Vec::new();
        for acknowledged in lost {
            queues.push(acknowledged.queue);
            self.return_lost(now, acknowledged.queue, acknowledged.in_flight.entry, effects);
        }
        self.dispatch_all(now, queues, effects);
    }
}

/// The next delivery that an ACK of `tag` reaches, taken out.
fn take_reached(consumer: Option<&mut super::consumer::Consumer>, mode: AckMode, tag: DeliveryTag) -> Option<InFlight> {
    match mode {
        AckMode::Auto | AckMode::Cumulative => consumer?.take_first(tag),
        AckMode::Individual => consumer?.take(tag),
    }
}

pub(super) fn unexpected(ack: &Ack) -> Refusal {
    let verb = if ack.verdict == Verdict::Accepted { "ACK" } else { "NACK" };
    let named = match &ack.target {
        AckTarget::Tag { consumer, tag } => format!("{}-{}", consumer.0, tag.0),
        AckTarget::MessageId { id, .. } => id.to_string(),
    };
    Refusal::new(
        format!("Unexpected {verb} received for message-id [{named}]"),
        "It names no delivery that is outstanding: it was acknowledged before, it is settled automatically, or it \
         belongs to another connection or subscription.",
    )
}

fn cut(name: &TransactionName) -> Refusal {
    Refusal::new(
        format!("The transaction {name} was aborted: something of it had been refused."),
        "Nothing of it was stored, and what it acknowledged may be acknowledged again. Send all of it once more.",
    )
}

fn no_transaction(name: &TransactionName) -> Refusal {
    Refusal::new(format!("Invalid transaction id: {name}"), "BEGIN it first; COMMIT and ABORT end it.")
}
