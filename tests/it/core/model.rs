//! The naive model: plain lists that say which message must be where. It does not decide who gets a message; it is told
//! of every delivery and says whether that was right, and in the end whether one is missing.
//!
//! Beside its lists it keeps what a store must hold, as it would be after the batches that became durable: see
//! [`Shadow`]. Orders are the model's own sequences.

use std::collections::{BTreeMap, BTreeSet};

use batonmq::{
    broker::{AckMode, Delivery, Verdict},
    config::RedeliveryPolicy,
    types::{Destination, SessionId, Timestamp},
};

pub(super) const DLQ: &str = "ActiveMQ.DLQ";

/// A queue of the model, never used again.
pub(super) type QueueNo = u64;
/// A consumer: its session, and a number that is never used again.
pub(super) type Who = (SessionId, u32);
/// A message in a queue.
pub(super) type Place = (QueueNo, u64);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    Queue(String),
    /// Client-id, name, topic.
    Durable(String, String, String),
    /// A subscription that ends with its consumer, and its topic.
    Plain(Who, String),
    Temporary(SessionId, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Hidden,
    Delayed(Timestamp),
    InFlight(Who, u64),
    /// Acknowledged in a transaction that is open, or on its way to the store; or dying.
    Held,
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) priority: u8,
    pub(super) persistent: bool,
    pub(super) expires: Option<Timestamp>,
    pub(super) stored: bool,
    pub(super) withdrawn: bool,
    /// It was purged while it was out: it is gone when it is answered, however that is.
    pub(super) purged: bool,
    pub(super) state: State,
    pub(super) redelivered: bool,
    pub(super) deliveries: u32,
    pub(super) failures: u32,
    /// The command by which it came back last, came due, or died.
    pub(super) moved: u64,
    /// Where it was sent first, if it is a dead letter.
    pub(super) origin: Option<Destination>,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) label: Label,
    pub(super) records: BTreeMap<u64, Record>,
}

#[derive(Clone, Debug)]
pub(super) struct Consumer {
    pub(super) queue: QueueNo,
    pub(super) mode: AckMode,
    pub(super) prefetch: usize,
    pub(super) priority: u8,
    pub(super) last_tag: u64,
    /// What aborts gave back above the prefetch.
    pub(super) excess: usize,
}

/// Somebody who is shown what lies in a queue.
#[derive(Debug)]
pub(super) struct Browser {
    queue: QueueNo,
    prefetch: usize,
    /// What lay there when it began.
    lay: BTreeMap<u64, Record>,
    /// The message-ids of what it was shown.
    shown: Vec<String>,
    /// Priority and order of the last one.
    at: Option<(u8, u64)>,
    pub(super) last_tag: u64,
    /// What the kernel had.
    pub(super) written: u64,
    pub(super) over: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) place: Place,
    pub(super) who: Who,
    pub(super) tag: u64,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Transaction {
    pub(super) sends: Vec<(Destination, Record)>,
    pub(super) answers: Vec<Answer>,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) client: Option<String>,
    pub(super) transactions: BTreeMap<String, Transaction>,
    pub(super) temporaries: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Committing {
    since: Timestamp,
    hidden: Vec<Place>,
    answers: Vec<Answer>,
    /// What a dead letter is made of.
    pub(super) dying: Option<Place>,
}

/// What a store must learn.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Add(Place, Record),
    Remove(Place),
    Return(Place, u32, u32, Option<Timestamp>),
    NewDurable(QueueNo, Label),
    DeleteDurable(QueueNo),
}

/// Events that stand or fall together.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The transaction or dead letter.
    pub(super) unit: Option<u64>,
    /// The places of a message sent outside a transaction, which the store may refuse.
    pub(super) sent: Vec<Place>,
    pub(super) events: Vec<Event>,
}

/// What the store must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Shadow {
    pub(super) labels: BTreeMap<QueueNo, Label>,
    pub(super) records: BTreeMap<Place, (Record, Option<Timestamp>)>,
}

impl Shadow {
    pub(super) fn apply(&mut self, group: &Group) {
        for event in &group.events {
            match event.clone() {
                Event::Add(place, record) => {
                    // Of a subscription that was deleted since, nothing is kept.
                    if self.labels.contains_key(&place.0) {
                        self.records.insert(place, (record, None));
                    }
                }
                Event::Remove(place) => {
                    self.records.remove(&place);
                }
                Event::Return(place, deliveries, failures, due) => {
                    if let Some((record, kept_until)) = self.records.get_mut(&place) {
                        (record.deliveries, record.failures, *kept_until) = (deliveries, failures, due);
                    }
                }
                Event::NewDurable(queue, label) => {
                    self.labels.insert(queue, label);
                }
                Event::DeleteDurable(queue) => {
                    self.labels.remove(&queue);
                    self.records.retain(|place, _| place.0 != queue);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: Timestamp,
    pub(super) queues: BTreeMap<QueueNo, Queue>,
    pub(super) consumers: BTreeMap<Who, Consumer>,
    pub(super) browsers: BTreeMap<Who, Browser>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) committing: BTreeMap<u64, Committing>,
    /// The store refused a dead letter: what has expired need not be one before.
    pub(super) deaths_from: Timestamp,
    pub(super) policies: Vec<RedeliveryPolicy>,
    /// What the last command wants the store to learn.
    pub(super) groups: Vec<Group>,
    /// What was ever delivered, over all terms.
    pub(super) seen: BTreeSet<Place>,
    /// Commands so far.
    pub(super) commands: u64,
    /// The last first delivery of each queue and priority in this term.
    pub(super) firsts: BTreeMap<(QueueNo, u8), u64>,
    pub(super) numbers: u64,
}

impl Model {
    pub(super) fn next(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    // Destinations.

    pub(super) fn find(&self, label: &Label) -> Option<QueueNo> {
        self.queues.iter().find(|(_, queue)| queue.label == *label).map(|(number, _)| *number)
    }

    pub(super) fn queue(&mut self, label: Label) -> QueueNo {
        self.find(&label).unwrap_or_else(|| {
            let number = self.next();
            self.queues.insert(number, Queue { label, records: BTreeMap::new() });
            number
        })
    }

    /// Which queues a message for a destination goes to; `None`: there is no such destination.
    pub(super) fn targets(&mut self, destination: &Destination) -> Option<Vec<QueueNo>> {
        let name = destination.name().to_owned();
        if destination.kind().is_temporary() {
            let owner = self.sessions.iter().find(|(_, session)| session.temporaries.contains(&name))?;
            let label = Label::Temporary(*owner.0, name);
            return Some(vec![self.queue(label)]);
        }
        if destination.kind().is_queue() {
            return Some(vec![self.queue(Label::Queue(name))]);
        }
        let of_topic = |label: &Label| match label {
            Label::Plain(_, topic) | Label::Durable(_, _, topic) => *topic == name,
            _ => false,
        };
        Some(self.queues.iter().filter(|(_, queue)| of_topic(&queue.label)).map(|(number, _)| *number).collect())
    }

    /// Puts a message into its queues; its places, and the events for those that are stored.
    fn enter(&mut self, queues: &[QueueNo], record: &Record, state: State) -> (Vec<Place>, Vec<Event>) {
        let order = self.next();
        let (mut places, mut events) = (Vec::new(), Vec::new());
        for number in queues {
            let queue = self.queues.get_mut(number).unwrap();
            let stored = record.persistent && matches!(queue.label, Label::Queue(_) | Label::Durable(..));
            let record = Record { state, stored, ..record.clone() };
            if stored {
                events.push(Event::Add((*number, order), record.clone()));
            }
            queue.records.insert(order, record);
            places.push((*number, order));
        }
        (places, events)
    }

    fn group(&mut self, unit: Option<u64>, events: Vec<Event>) {
        if !events.is_empty() {
            self.groups.push(Group { unit, sent: Vec::new(), events });
        }
    }

    pub(super) fn record(&mut self, place: Place) -> Option<&mut Record> {
        self.queues.get_mut(&place.0)?.records.get_mut(&place.1)
    }

    fn remove(&mut self, place: Place) -> Option<Record> {
        self.queues.get_mut(&place.0)?.records.remove(&place.1)
    }

    // What clients do.

    pub(super) fn send(&mut self, destination: &Destination, record: &Record) {
        let Some(queues) = self.targets(destination) else { return }; // a requester that has left
        let (places, events) = self.enter(&queues, record, State::Pending);
        let sent = places.into_iter().filter(|place| self.queues[&place.0].records[&place.1].stored).collect();
        if !events.is_empty() {
            self.groups.push(Group { unit: None, sent, events });
        }
    }

    /// What an answer to `tag` reaches, in order.
    pub(super) fn reached(&self, who: Who, tag: u64) -> Vec<(u64, Place)> {
        let consumer = &self.consumers[&who];
        let mut held = self.in_flight(who);
        held.retain(|(other, _)| match consumer.mode {
            AckMode::Individual => *other == tag,
            AckMode::Auto | AckMode::Cumulative => *other <= tag,
        });
        held
    }

    /// What a consumer has in flight, by tag.
    pub(super) fn in_flight(&self, who: Who) -> Vec<(u64, Place)> {
        let Some(consumer) = self.consumers.get(&who) else { return Vec::new() };
        let mut held = Vec::new();
        for (order, record) in &self.queues[&consumer.queue].records {
            if let State::InFlight(other, tag) = record.state
                && other == who
            {
                held.push((tag, (consumer.queue, *order)));
            }
        }
        held.sort_unstable();
        held
    }

    pub(super) fn answer(&mut self, who: Who, tag: u64, verdict: Verdict) {
        for (_, place) in self.reached(who, tag) {
            match verdict {
                Verdict::Accepted => self.settle(place),
                Verdict::Rejected => self.reject(place),
            }
        }
        self.forgive(who);
    }

    pub(super) fn answer_in(&mut self, who: Who, tag: u64, verdict: Verdict, name: &str) {
        for (tag, place) in self.reached(who, tag) {
            self.record(place).unwrap().state = State::Held;
            let answer = Answer { place, who, tag, verdict };
            self.sessions.get_mut(&who.0).unwrap().transactions.get_mut(name).unwrap().answers.push(answer);
        }
        self.forgive(who);
    }

    /// What an abort gave back above the prefetch is allowed until it is answered.
    fn forgive(&mut self, who: Who) {
        let held = self.in_flight(who).len();
        if let Some(consumer) = self.consumers.get_mut(&who) {
            consumer.excess = consumer.excess.min(held.saturating_sub(consumer.prefetch));
        }
    }

    fn settle(&mut self, place: Place) {
        let record = self.remove(place).unwrap();
        if record.stored && !record.withdrawn {
            self.group(None, vec![Event::Remove(place)]);
        }
    }

    fn reject(&mut self, place: Place) {
        let record = self.record(place).unwrap();
        if record.withdrawn || record.purged {
            return self.settle(place);
        }
        record.failures += 1;
        let failures = record.failures;
        match self.fate(place.0, failures) {
            Some(due) => self.give_back(place, due),
            None => self.die(place),
        }
    }

    fn policy(&self, queue: QueueNo) -> Option<&RedeliveryPolicy> {
        let name = match &self.queues[&queue].label {
            Label::Queue(name) | Label::Durable(_, _, name) | Label::Plain(_, name) | Label::Temporary(_, name) => name,
        };
        self.policies.iter().find(|policy| policy.destination == *name)
    }

    /// When what failed so often is delivered again; `None`: never.
    fn fate(&self, queue: QueueNo, failures: u32) -> Option<Option<Timestamp>> {
        if self.queues[&queue].label == Label::Queue(DLQ.into()) {
            return Some(Some(Timestamp(self.now.0 + 1_000)));
        }
        let policy = self.policy(queue).filter(|policy| failures <= policy.attempts)?;
        let delay = policy.delay.as_millis() as u64 * (policy.backoff_multiplier as u64).pow(failures - 1);
        Some((delay > 0).then_some(Timestamp(self.now.0 + delay)))
    }

    fn give_back(&mut self, place: Place, due: Option<Timestamp>) {
        let command = self.commands;
        let record = self.record(place).unwrap();
        record.moved = command;
        record.redelivered = true;
        record.state = due.map_or(State::Pending, State::Delayed);
        let (deliveries, failures) = (record.deliveries, record.failures);
        if record.stored {
            self.group(None, vec![Event::Return(place, deliveries, failures, due)]);
        }
    }

    /// A message becomes a dead letter when the store has that.
    fn die(&mut self, place: Place) {
        let number = self.next();
        let (hidden, events) = self.bury(place);
        self.record(place).unwrap().state = State::Held;
        self.committing.insert(number, Committing { hidden, dying: Some(place), ..Committing::default() });
        if events.is_empty() {
            self.committed(number);
        } else {
            self.group(Some(number), events);
        }
    }

    /// Makes a dead letter of a message, which stays where it is.
    fn bury(&mut self, place: Place) -> (Vec<Place>, Vec<Event>) {
        let record = self.record(place).unwrap().clone();
        let here = match &self.queues[&place.0].label {
            Label::Queue(name) => Destination::queue(name),
            Label::Durable(_, _, topic) | Label::Plain(_, topic) => Destination::topic(topic),
            Label::Temporary(_, name) => Destination::new(batonmq::types::DestinationKind::TemporaryQueue, name),
        };
        let dead = Record {
            expires: None,
            redelivered: false,
            withdrawn: false,
            purged: false,
            deliveries: 0,
            failures: 0,
            moved: self.commands,
            origin: Some(record.origin.clone().unwrap_or(here)),
            ..record.clone()
        };
        let dlq = self.queue(Label::Queue(DLQ.into()));
        let (places, added) = self.enter(&[dlq], &dead, State::Hidden);
        let removed = (record.stored && !record.withdrawn).then_some(Event::Remove(place));
        (places, removed.into_iter().chain(added).collect())
    }

    fn lose(&mut self, place: Place) {
        let counts = self.queues.contains_key(&place.0)
            && self.policy(place.0).is_some_and(|policy| policy.count_lost_consumers);
        let Some(record) = self.record(place) else { return };
        if record.withdrawn || record.purged {
            self.settle(place);
        } else if counts {
            self.reject(place);
        } else {
            self.give_back(place, None);
        }
    }

    pub(super) fn commit(&mut self, session: SessionId, name: &str, number: u64) {
        let transaction = self.sessions.get_mut(&session).unwrap().transactions.remove(name).unwrap();
        let (mut committing, mut events) = (Committing::default(), Vec::new());
        for (destination, record) in &transaction.sends {
            let Some(queues) = self.targets(destination) else { continue };
            let (places, added) = self.enter(&queues, record, State::Hidden);
            committing.hidden.extend(places);
            events.extend(added);
        }
        for answer in &transaction.answers {
            let Some(record) = self.record(answer.place).map(|record| record.clone()) else { continue };
            if record.withdrawn {
                continue;
            }
            if answer.verdict == Verdict::Accepted || record.purged {
                events.extend(record.stored.then_some(Event::Remove(answer.place)));
                continue;
            }
            match self.fate(answer.place.0, record.failures + 1) {
                Some(due) => {
                    let returned = Event::Return(answer.place, record.deliveries, record.failures + 1, due);
                    events.extend(record.stored.then_some(returned));
                }
                None => {
                    let (places, buried) = self.bury(answer.place);
                    committing.hidden.extend(places);
                    events.extend(buried);
                }
            }
        }
        (committing.answers, committing.since) = (transaction.answers, self.now);
        self.committing.insert(number, committing);
        if events.is_empty() {
            self.committed(number);
        } else {
            self.group(Some(number), events);
        }
    }

    pub(super) fn committed(&mut self, number: u64) {
        let committing = self.committing.remove(&number).unwrap();
        for place in committing.hidden {
            if let Some(record) = self.record(place) {
                record.state = State::Pending;
            }
        }
        for answer in committing.answers {
            let Some(record) = self.record(answer.place) else { continue };
            let failures = record.failures + 1;
            if answer.verdict == Verdict::Accepted || record.withdrawn {
                self.remove(answer.place);
                continue;
            }
            if record.purged {
                self.settle(answer.place);
                continue;
            }
            let now = std::mem::replace(&mut self.now, committing.since);
            let fate = self.fate(answer.place.0, failures);
            self.now = now;
            match fate {
                None => drop(self.remove(answer.place)),
                Some(due) => {
                    let record = self.record(answer.place).unwrap();
                    record.failures = failures;
                    record.redelivered = true;
                    record.state = due.map_or(State::Pending, State::Delayed);
                }
            }
        }
        if let Some(place) = committing.dying {
            self.remove(place);
        }
    }

    pub(super) fn commit_refused(&mut self, number: u64) {
        let committing = self.committing.remove(&number).unwrap();
        for place in committing.hidden {
            self.remove(place);
        }
        self.return_answers(committing.answers);
        let Some(dying) = committing.dying else { return };
        match self.record(dying).map(|record| record.withdrawn || record.purged) {
            Some(true) => self.settle(dying),
            Some(false) => {
                self.deaths_from = Timestamp(self.now.0 + 5_000);
                self.give_back(dying, Some(self.deaths_from));
            }
            None => {} // its subscription is gone
        }
    }

    pub(super) fn abort(&mut self, session: SessionId, name: &str) {
        let transaction = self.sessions.get_mut(&session).unwrap().transactions.remove(name).unwrap();
        self.return_answers(transaction.answers);
    }

    fn return_answers(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            if !self.consumers.contains_key(&answer.who) {
                self.lose(answer.place);
            } else if let Some(record) = self.record(answer.place) {
                record.state = State::InFlight(answer.who, answer.tag);
                let held = self.in_flight(answer.who).len();
                let consumer = self.consumers.get_mut(&answer.who).unwrap();
                consumer.excess = held.saturating_sub(consumer.prefetch);
            }
        }
    }

    pub(super) fn end_consumer(&mut self, who: Who) {
        let held = self.in_flight(who);
        let consumer = self.consumers.remove(&who).unwrap();
        if matches!(self.queues[&consumer.queue].label, Label::Plain(..)) {
            self.queues.remove(&consumer.queue);
            return;
        }
        for (_, place) in held {
            self.lose(place);
        }
    }

    pub(super) fn delete_durable(&mut self, queue: QueueNo) {
        let of_queue = |who: &Who, consumers: &BTreeMap<Who, Consumer>| consumers[who].queue == queue;
        let gone: Vec<Who> = self.consumers.keys().filter(|who| of_queue(who, &self.consumers)).copied().collect();
        for who in gone {
            self.consumers.remove(&who);
        }
        self.queues.remove(&queue);
        self.group(None, vec![Event::DeleteDurable(queue)]);
    }

    pub(super) fn close(&mut self, session: SessionId) {
        let consumers: Vec<Who> = self.consumers.keys().filter(|who| who.0 == session).copied().collect();
        for who in consumers {
            self.end_consumer(who);
        }
        self.browsers.retain(|who, _| who.0 != session);
        let gone = self.sessions.remove(&session).unwrap();
        for transaction in gone.transactions.into_values() {
            self.return_answers(transaction.answers);
        }
        for name in gone.temporaries {
            if let Some(queue) = self.find(&Label::Temporary(session, name)) {
                self.queues.remove(&queue);
            }
        }
    }

    /// What waits goes at once, what is out when it is answered; what nobody may see yet stays, and what came behind that
    /// and is out is the store's until it is answered. How many have gone.
    pub(super) fn purge(&mut self, queue: QueueNo) -> usize {
        let records: Vec<(u64, Record)> = self.queues[&queue].records.clone().into_iter().collect();
        let hidden = records.iter().find(|(_, record)| record.state == State::Hidden).map(|(order, _)| *order);
        let (mut events, mut gone) = (Vec::new(), 0);
        for (order, record) in records {
            let place = (queue, order);
            match record.state {
                State::Hidden => continue,
                State::Pending | State::Delayed(_) => {
                    self.remove(place);
                    gone += 1;
                }
                State::InFlight(..) | State::Held => {
                    self.record(place).unwrap().purged = true;
                    if hidden.is_some_and(|hidden| hidden < order) {
                        continue;
                    }
                }
            }
            events.extend((record.stored && !record.withdrawn).then_some(Event::Remove(place)));
        }
        self.group(None, events);
        gone
    }

    /// The store refuses a message (R13).
    pub(super) fn withdraw(&mut self, places: &[Place]) {
        for place in places {
            match self.record(*place).map(|record| record.state) {
                Some(State::InFlight(..) | State::Held) => self.record(*place).unwrap().withdrawn = true,
                Some(_) => drop(self.remove(*place)),
                None => {}
            }
        }
    }

    // What time and the core do.

    /// What is due returns, what has expired dies; in which order, the core's changes say. `died` has what dead letters
    /// in them are made of, if the store has that, and their message-ids.
    pub(super) fn advance(&mut self, died: &[(Option<Place>, String)]) {
        let now = self.now;
        let mut expired = Vec::new();
        for (number, queue) in &mut self.queues {
            for (order, record) in &mut queue.records {
                if matches!(record.state, State::Delayed(due) if due <= now) {
                    record.state = State::Pending;
                    record.moved = self.commands;
                }
                let lies_here = matches!(record.state, State::Pending | State::Delayed(_));
                if lies_here && record.expires.is_some_and(|expires| expires <= now) {
                    expired.push((*number, *order));
                }
            }
        }
        for (place, id) in died {
            let same = |other: &Place| match place {
                Some(place) => place == other,
                None => self.is_kept(*other) && self.queues[&other.0].records[&other.1].id == *id,
            };
            if let Some(at) = expired.iter().position(same) {
                self.die(expired.remove(at));
            }
        }
        for place in expired {
            if self.is_kept(place) {
                assert!(now < self.deaths_from, "{:?} has expired and is no dead letter", self.record(place));
            } else {
                self.remove(place);
            }
        }
    }

    fn is_kept(&self, place: Place) -> bool {
        let queue = &self.queues[&place.0];
        queue.records[&place.1].persistent && !matches!(queue.label, Label::Plain(..))
    }

    /// The message that a queue must hand out next.
    pub(super) fn head(&self, queue: QueueNo) -> Option<u64> {
        self.head_of(queue, |_| true)
    }

    fn head_of(&self, queue: QueueNo, counts: impl Fn(&Record) -> bool) -> Option<u64> {
        let records = &self.queues[&queue].records;
        (0..10).rev().find_map(|priority| {
            let alive = |record: &Record| record.expires.is_none_or(|expires| expires > self.now);
            let counts = |record: &Record| (alive(record) || record.state == State::Hidden) && counts(record);
            let lane = records.iter().filter(|(_, record)| record.priority == priority && counts(record));
            let mut visible = lane.filter(|(_, record)| matches!(record.state, State::Pending | State::Hidden));
            visible.next().filter(|(_, record)| record.state == State::Pending).map(|(order, _)| *order)
        })
    }

    pub(super) fn has_credit(&self, who: Who) -> bool {
        self.in_flight(who).len() < self.consumers[&who].prefetch
    }

    /// The core delivered: that must have been right.
    pub(super) fn delivered(&mut self, session: SessionId, delivery: &Delivery) {
        let who = (session, delivery.consumer.0);
        let consumer = self.consumers.get(&who).expect("a delivery goes to a live consumer").clone();
        assert!(self.has_credit(who), "in flight is at most the prefetch");
        let first = self.consumers.iter().filter(|(other, _)| self.has_credit(**other));
        let highest = first.filter(|(_, other)| other.queue == consumer.queue).map(|(_, other)| other.priority).max();
        assert_eq!(highest, Some(consumer.priority), "higher consumers come first");
        let order = self.head(consumer.queue).expect("a queue hands out what it has");
        // One command may give back or bury much, and hand some of it out before it gives back or buries the rest.
        let (command, id) = (self.commands, delivery.message.id.as_str());
        let counts = |record: &Record| record.moved != command;
        let other = self.head_of(consumer.queue, |record| counts(record) || record.id == id);
        let is_meant = |order: &u64| self.queues[&consumer.queue].records[order].id == id;
        let order = other.filter(is_meant).unwrap_or(order);
        let place = (consumer.queue, order);
        assert_eq!(delivery.tag.0, consumer.last_tag + 1, "tags are counted");
        self.consumers.get_mut(&who).unwrap().last_tag += 1;
        let now = self.now;
        let record = self.record(place).unwrap();
        let message = &delivery.message;
        assert_eq!(message.id.as_str(), record.id, "the order of a queue and priority holds");
        assert_eq!(message.priority.level(), record.priority);
        assert_eq!(message.original_destination, record.origin);
        assert_eq!(message.expires, record.expires);
        assert!(record.expires.is_none_or(|expires| expires > now), "what has expired is not delivered");
        record.deliveries += 1;
        assert_eq!(delivery.deliveries, record.deliveries, "deliveries of {}", record.id);
        assert_eq!(delivery.redelivered, record.redelivered, "redelivered of {}", record.id);
        record.state = State::InFlight(who, delivery.tag.0);
        let (priority, again) = (record.priority, record.redelivered);
        assert!(self.seen.insert(place) || again, "R9: it has been delivered before");
        if !again {
            let last = self.firsts.insert((place.0, priority), order);
            assert!(last.is_none_or(|last| last < order), "first deliveries are in order");
        }
    }

    pub(super) fn browse(&mut self, who: Who, queue: QueueNo, prefetch: usize) {
        let here = self.queues[&queue].records.clone().into_iter();
        let lay = here.filter(|(_, record)| !record.purged && !record.withdrawn).collect();
        let (shown, at, last_tag, written, over) = (Vec::new(), None, 0, 0, false);
        self.browsers.insert(who, Browser { queue, prefetch, lay, shown, at, last_tag, written, over });
    }

    /// A browser was shown a message: it lay there when the browse began, it is its turn, and it has not expired and is
    /// none that nobody may see yet.
    pub(super) fn shown(&mut self, who: Who, delivery: &Delivery) {
        let browser = self.browsers.get_mut(&who).expect("somebody browses");
        assert!(!browser.over, "nothing follows the end");
        browser.last_tag += 1;
        assert_eq!(delivery.tag.0, browser.last_tag, "tags are counted");
        assert!(browser.last_tag - browser.written <= browser.prefetch as u64, "a browser has its prefetch at most");
        let (id, level) = (delivery.message.id.as_str(), delivery.message.priority.level());
        // Dead letters may have one message-id: the first that can be meant is taken.
        let follows = |order: u64| browser.at.is_none_or(|(last, at)| level < last || (level == last && order > at));
        let is_it = |order: u64, record: &Record| record.id == id && record.priority == level && follows(order);
        let found = browser.lay.iter().find(|(order, record)| is_it(**order, record)).map(|(order, _)| *order);
        let order = found.unwrap_or_else(|| panic!("{id} did not lie in the queue, or is out of turn"));
        browser.at = Some((level, order));
        browser.shown.push(id.to_owned());
        let alone = browser.lay.values().filter(|record| record.id == id).count() == 1;
        let place = (browser.queue, order);
        assert!(delivery.message.expires.is_none_or(|expires| expires > self.now), "{id} has expired");
        let hidden = self.record(place).is_some_and(|record| record.state == State::Hidden);
        assert!(!alone || !hidden, "nobody may see {id} yet");
    }

    /// A browser was told that it has seen everything: all that could be seen when it began and still can.
    pub(super) fn seen_all(&mut self, who: Who) {
        let browser = self.browsers.get_mut(&who).expect("somebody browses");
        assert!(!std::mem::replace(&mut browser.over, true), "a browse ends once");
        let now = self.now;
        let visible = |record: &Record| {
            let alive = record.expires.is_none_or(|expires| expires > now);
            record.state != State::Hidden && !record.purged && !record.withdrawn && alive
        };
        let queue = &self.queues[&browser.queue].records;
        let stayed = browser.lay.iter().filter(|(_, record)| visible(record));
        let stayed = stayed.filter(|(order, _)| queue.get(order).is_some_and(visible));
        let mut shown = browser.shown.clone();
        for (_, record) in stayed {
            let at = shown.iter().position(|id| *id == record.id);
            shown.remove(at.unwrap_or_else(|| panic!("{} was there all the time and not shown", record.id)));
        }
    }

    /// Nothing that could be delivered lies still, but where dispatch waits for a mark.
    pub(super) fn check(&self, waits_for_a_mark: impl Fn(&Label) -> bool) {
        for (who, consumer) in &self.consumers {
            let held = self.in_flight(*who).len();
            assert!(held <= consumer.prefetch + consumer.excess, "in flight is at most the prefetch");
            let label = &self.queues[&consumer.queue].label;
            if held < consumer.prefetch && !waits_for_a_mark(label) {
                assert_eq!(self.head(consumer.queue), None, "{label:?} has something for {who:?}");
            }
        }
    }

    /// A crash: what the store holds is all there is.
    pub(super) fn restart(&mut self, shadow: &Shadow) {
        self.sessions.clear();
        self.consumers.clear();
        self.browsers.clear();
        self.committing.clear();
        self.deaths_from = Timestamp(0);
        self.groups.clear();
        self.firsts.clear();
        let keep = |label: &Label| matches!(label, Label::Queue(_));
        self.queues.retain(|_, queue| keep(&queue.label));
        for queue in self.queues.values_mut() {
            queue.records.clear();
        }
        for (number, label) in &shadow.labels {
            self.queues.insert(*number, Queue { label: label.clone(), records: BTreeMap::new() });
        }
        for ((number, order), (record, due)) in &shadow.records {
            let state = due.map_or(State::Pending, State::Delayed);
            let record = Record { state, withdrawn: false, purged: false, ..record.clone() };
            self.queues.get_mut(number).unwrap().records.insert(*order, record);
        }
    }
}
