//! Clients: they send, consume, use transactions and go away, and find another broker. Now and then one has a queue
//! purged, or ends its subscription.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use batonmq::{
    broker::{AckMode, Command, Connect, Delivery, Outgoing, Request, Unsubscribe},
    engine::{EngineGone, EngineHandle, SessionLink, Written},
    types::{ConsumerNo, Destination, Footing, Mandate, MessageDraft, Priority, Tenure},
};
use smallvec::smallvec;

use super::{
    database::Server,
    ledger::{
        DEAD_LETTERS, Got, Id, Ledger, MADE_LATER, Meaning, Moment, Number, Place, QUEUES, SUBSCRIPTIONS, Sent, Unit,
    },
    process::{Serving, at_once, timestamp},
};
use crate::{
    engine::broker::{ack, ack_in, asking, begin, commit, nack, plain, send_draft, subscribe_as},
    harness::Rng,
};

/// What each consumes; the ones of subscriptions have a client-id. The last one subscribes to one after the other.
const CONSUMED: [&[Place]; 7] =
    [&[QUEUES[0]], &[QUEUES[1]], &[DEAD_LETTERS], &[SUBSCRIPTIONS[0]], &[SUBSCRIPTIONS[1]], &[QUEUES[0]], &MADE_LATER];

const TOPIC: &str = "news";

/// So that a few fill what memory there is.
const BODY: &[u8] = &[0; 6 << 10];

/// The two that share a queue.
pub(super) const RIVALS: &[usize] = &[0, 5];

/// The one of them whose deliveries are settled by the broker, if any are.
const AUTOMATIC: usize = 5;

/// How long a message may wait that does not wait for ever. Unit: milliseconds.
const TIMES_TO_LIVE: &[u64] = &[1, 20, 100, 400, 2_000, 8_000];

/// How many there are.
pub(super) const CLIENTS: usize = CONSUMED.len();

/// What a broker is that something left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its tenure is the row's.
    Master,
    /// Another one took over, and it can't know yet.
    Unaware,
    /// The same, of a database that is not there any more.
    OfThePast,
    /// Another one took over after it had given the baton back, or had not been heard of for a lease.
    Deposed,
}

/// What clients do in a run, and what they have to reckon with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// They send to no other.
    pub(super) only_first_queue: bool,
    /// Sends may wait for room, and what is acknowledged meanwhile overtakes them (R8).
    pub(super) store_may_fill: bool,
    /// One of the rivals has its deliveries settled by the broker (R3).
    pub(super) automatic: bool,
    pub(super) messages_expire: bool,
    pub(super) purge: bool,
    pub(super) unsubscribe: bool,
}

pub(super) struct Client {
    number: usize,
    habits: Habits,
    pub(super) connection: Option<Connection>,
    purge: Option<Purge>,
    /// It sends no more.
    pub(super) only_consumes: bool,
    /// Until when it does not come back. Unit: milliseconds.
    pub(super) away_until: u64,
    /// Until when it takes what it gets, and does nothing. Unit: milliseconds.
    pub(super) rests_until: u64,
}

/// A purge that is asked for, and what it removes.
struct Purge {
    answer: Pin<Box<dyn Future<Output = Result<Option<usize>, EngineGone>>>>,
    removes: Vec<(Place, Id)>,
}

/// To a broker.
pub(super) struct Connection {
    pub(super) process: usize,
    pub(super) tenure: Tenure,
    since: Moment,
    handle: EngineHandle,
    link: SessionLink,
    prefetch: u32,
    /// What it consumes, in the order of its consumers.
    places: Vec<Place>,
    /// In the order of the frames (R4).
    pub(super) awaited: VecDeque<(String, Meaning)>,
    /// Of the frames since that ask for no receipt; the next one is theirs too.
    unconfirmed: Meaning,
    pub(super) deliveries: Vec<Delivery>,
    /// What its session has taken from the engine and has not written.
    in_hand: Vec<Outgoing>,
    /// The doubt in which it was looked at last, if there was one (R24).
    doubt: Option<u64>,
    /// The last delivery of each sender and priority that has to be in order (promise 4).
    last: BTreeMap<(Place, usize, Priority), u64>,
    /// It has ended its subscription, and only waits for the receipt.
    ends: bool,
    frames: u64,
}

impl Connection {
    fn place_of(&self, delivery: &Delivery) -> Place {
        self.places[delivery.consumer.0 as usize]
    }

    fn number_of(&self, delivery: &Delivery) -> Number {
        (self.tenure.term, delivery.deliveries)
    }

    fn submit(&mut self, requests: Vec<Request>) -> bool {
        matches!(at_once(self.link.submit(requests)), Some(Ok(())))
    }

    /// Has a frame confirmed, mostly.
    fn maybe_asking(&mut self, seed: &mut Rng, request: Request, means: Meaning) -> Request {
        match seed.one_in(3) {
            true => {
                self.unconfirmed.and(means);
                request
            }
            false => self.asking(request, means),
        }
    }

    fn asking(&mut self, request: Request, means: Meaning) -> Request {
        self.frames += 1;
        let receipt = format!("r{}", self.frames);
        let request = asking(&receipt, request);
        self.unconfirmed.and(means);
        self.awaited.push_back((receipt, std::mem::take(&mut self.unconfirmed)));
        request
    }

    /// Its session takes what the engine has for it.
    fn take_in_hand(&mut self, mandate: &Mandate) {
        let mut outgoing = Vec::new();
        at_once(self.link.outbox().take(&mut outgoing));
        let doubt = (mandate.footing() != Footing::Firm).then(|| mandate.doubts());
        let is_news = |outgoing: &Outgoing| matches!(outgoing, Outgoing::Delivery(_) | Outgoing::Receipt(_));
        let has_paused = doubt.is_none() || doubt != self.doubt || !outgoing.iter().any(is_news);
        assert!(has_paused, "R24: {outgoing:?} comes from an engine that is in doubt");
        self.doubt = doubt;
        self.in_hand.append(&mut outgoing);
    }

    /// Its session tells that a delivery is written.
    fn tell_written(&self, outgoing: &Outgoing) {
        if let Outgoing::Delivery(delivery) = outgoing {
            let last = smallvec![(delivery.consumer, delivery.tag)];
            at_once(self.link.written(Written { last, bytes: delivery.message.size() }));
        }
    }

    fn take_any(&mut self, seed: &mut Rng) -> Delivery {
        self.deliveries.remove(seed.below(self.deliveries.len()))
    }
}

impl Client {
    pub(super) fn new(number: usize, habits: Habits) -> Self {
        Self { number, habits, connection: None, purge: None, only_consumes: false, away_until: 0, rests_until: 0 }
    }

    pub(super) fn connect(&mut self, seed: &mut Rng, process: usize, serving: &Serving, prefetch: u32, since: Moment) {
        let Some(Ok(link)) = at_once(serving.handle.open_session()) else { return };
        let mut connection = Connection {
            process,
            tenure: serving.tenure,
            since,
            handle: serving.handle.clone(),
            link,
            prefetch,
            places: Vec::new(),
            awaited: VecDeque::new(),
            unconfirmed: Meaning::default(),
            deliveries: Vec::new(),
            in_hand: Vec::new(),
            doubt: None,
            last: BTreeMap::new(),
            ends: false,
            frames: seed.next() % 1_000, // receipts differ from connection to connection
        };
        let client_id = self.subscription().map(|_| format!("c{}", self.number).as_str().into());
        let connect = plain(Command::Connect(Connect { user: None, client_id, lenient: false }));
        if connection.submit(vec![connect]) {
            self.connection = Some(connection);
            if CONSUMED[self.number].len() == 1 {
                self.subscribe(seed);
            }
        }
    }

    /// To the next of what it consumes.
    fn subscribe(&mut self, seed: &mut Rng) {
        let is_durable = self.subscription().is_some();
        let ack = if self.is_automatic() { AckMode::Auto } else { AckMode::Individual };
        let Some(connection) = &mut self.connection else { return };
        let number = connection.places.len();
        let place = CONSUMED[self.number][number];
        let destination = if is_durable { Destination::topic(TOPIC) } else { Destination::queue(place) };
        let mut subscribe = subscribe_as(number as u32, destination, ack, is_durable.then_some(place));
        if let Command::Subscribe(subscribe) = &mut subscribe.command {
            subscribe.prefetch = connection.prefetch;
        }
        connection.places.push(place);
        let subscribe = connection.asking(subscribe, Meaning { subscribed: vec![place], ..Meaning::default() });
        self.submit(seed, vec![subscribe]);
    }

    /// The durable subscription that it consumes from.
    fn subscription(&self) -> Option<Place> {
        CONSUMED[self.number].iter().copied().find(|place| SUBSCRIPTIONS.contains(place))
    }

    fn is_automatic(&self) -> bool {
        self.habits.automatic && self.number == AUTOMATIC
    }

    /// Whether it consumes all that it is to consume, and waits for nothing.
    pub(super) fn is_quiet(&self) -> bool {
        let is_quiet = |connection: &Connection| {
            let has_all = connection.places.len() == CONSUMED[self.number].len() && !connection.ends;
            has_all
                && connection.awaited.is_empty()
                && connection.deliveries.is_empty()
                && connection.in_hand.is_empty()
        };
        self.purge.is_none() && self.connection.as_ref().is_some_and(is_quiet)
    }

    /// Nothing that it was promised counts any more.
    pub(super) fn forget_promises(&mut self) {
        self.purge.iter_mut().for_each(|purge| purge.removes.clear());
        if let Some(connection) = &mut self.connection {
            connection.unconfirmed = Meaning::default();
            connection.awaited.iter_mut().for_each(|(_, means)| *means = Meaning::default());
        }
    }

    /// Goes away without a word.
    pub(super) fn leave(&mut self) {
        if let Some(connection) = self.connection.take() {
            at_once(connection.link.close());
        }
    }

    /// Does something; what has to be in order is in one submission or in several.
    pub(super) fn act(&mut self, seed: &mut Rng, ledger: &mut Ledger) {
        let Some(connection) = self.connection.as_mut().filter(|connection| !connection.ends) else { return };
        let has_deliveries = !connection.deliveries.is_empty();
        if connection.places.len() < CONSUMED[self.number].len() && (self.only_consumes || seed.one_in(4)) {
            return self.subscribe(seed);
        }
        if self.habits.purge && !self.only_consumes && self.purge.is_none() && seed.one_in(40) {
            return self.purges(seed, ledger);
        }
        let requests = match seed.below(8) {
            _ if self.only_consumes && !has_deliveries => return,
            _ if self.only_consumes => self.accepts(seed, ledger),
            _ if self.habits.unsubscribe && self.subscription().is_some() && seed.one_in(20) => self.ends(ledger),
            0..3 => self.sends(seed, ledger),
            3..7 if has_deliveries => self.answers(seed, ledger),
            7 => self.transacts(seed, ledger),
            _ => return,
        };
        self.submit(seed, requests);
    }

    /// Answers a delivery, if it has any.
    pub(super) fn answer(&mut self, seed: &mut Rng, ledger: &mut Ledger) {
        if self.connection.as_ref().is_some_and(|connection| !connection.deliveries.is_empty()) {
            let requests = self.accepts(seed, ledger);
            self.submit(seed, requests);
        }
    }

    fn submit(&mut self, seed: &mut Rng, requests: Vec<Request>) {
        let Some(connection) = &mut self.connection else { return };
        let taken = match seed.one_in(4) {
            true => requests.into_iter().all(|request| connection.submit(vec![request])),
            false => connection.submit(requests),
        };
        if !taken {
            self.leave();
        }
    }

    /// Has a queue purged. What is sent from now on comes behind it.
    fn purges(&mut self, seed: &mut Rng, ledger: &mut Ledger) {
        let Some(connection) = &self.connection else { return };
        let place = seed.pick(&[QUEUES[0], QUEUES[1], DEAD_LETTERS]);
        let removes = ledger.wants_removed(place);
        let handle = connection.handle.clone();
        let answer = async move { handle.purge(Destination::queue(place)).await };
        self.purge = Some(Purge { answer: Box::pin(answer), removes });
        self.hear_of_purge(ledger);
    }

    pub(super) fn hear_of_purge(&mut self, ledger: &mut Ledger) {
        let Some(purge) = &mut self.purge else { return };
        let Poll::Ready(answer) = purge.answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { return };
        if let (Ok(Some(_)), Some(purge)) = (answer, self.purge.take()) {
            ledger.are_removed(purge.removes);
        }
    }

    /// Ends its durable subscription; it goes away with the receipt, and makes another one later.
    fn ends(&mut self, ledger: &mut Ledger) -> Vec<Request> {
        let (Some(place), Some(connection)) = (self.subscription(), &mut self.connection) else { return Vec::new() };
        connection.ends = true;
        connection.deliveries.clear();
        let told = connection.awaited.iter_mut().map(|(_, means)| means).chain([&mut connection.unconfirmed]);
        told.for_each(|means| means.subscribed.clear());
        let end = Unsubscribe { consumer: Some(ConsumerNo(0)), durable: Some(place.into()) };
        let removed = ledger.unsubscribes(place);
        vec![connection.asking(plain(Command::Unsubscribe(end)), Meaning { removed, ..Meaning::default() })]
    }

    /// A message that takes effect now, or with a transaction.
    fn message(&self, seed: &mut Rng, ledger: &mut Ledger, transaction: Option<&str>) -> (Request, Id, Sent) {
        let id = ledger.next_id();
        let priority = if seed.one_in(4) { Priority::clamped(9) } else { Priority::default() };
        let subscribed = ledger.subscribed();
        let (destination, places) = if !subscribed.is_empty() && seed.one_in(3) {
            (Destination::topic(TOPIC), subscribed)
        } else {
            let queue = match self.habits.only_first_queue {
                true => QUEUES[0],
                false if seed.one_in(10) => seed.pick(&MADE_LATER),
                false => seed.pick(&QUEUES),
            };
            (Destination::queue(queue), vec![queue])
        };
        let expires = (self.habits.messages_expire && seed.one_in(3)).then(|| ledger.now + seed.pick(TIMES_TO_LIVE));
        let draft = MessageDraft {
            id: id.to_string().as_str().into(),
            persistent: true,
            priority,
            expires: expires.map(timestamp),
            body: BODY.into(),
            ..MessageDraft::default()
        };
        let sent = Sent { sender: self.number, priority, places, expires, unit: None, rank: 0 };
        (send_draft(destination, draft, transaction), id, sent)
    }

    fn sends(&mut self, seed: &mut Rng, ledger: &mut Ledger) -> Vec<Request> {
        let mut requests = Vec::new();
        for _ in 0..seed.range(1, 3) {
            let (request, id, sent) = self.message(seed, ledger, None);
            let kept = sent.places.iter().map(|place| (*place, id)).collect();
            ledger.takes_effect(id, sent);
            let connection = self.connection.as_mut().expect("who acts is connected");
            requests.push(connection.maybe_asking(seed, request, Meaning { kept, ..Meaning::default() }));
        }
        requests
    }

    fn answers(&mut self, seed: &mut Rng, ledger: &mut Ledger) -> Vec<Request> {
        let may_reject = self.subscription().is_none() && !CONSUMED[self.number].contains(&DEAD_LETTERS);
        match seed.below(6) {
            0 if may_reject => {
                let (connection, place, delivery) = self.take_any(seed);
                ledger.rejects(place, id_of(&delivery), connection.number_of(&delivery));
                vec![connection.maybe_asking(seed, nack(&delivery), Meaning::default())]
            }
            1 | 2 if !self.habits.store_may_fill => self.forwards(seed, ledger),
            _ => self.accepts(seed, ledger),
        }
    }

    fn take_any(&mut self, seed: &mut Rng) -> (&mut Connection, Place, Delivery) {
        let connection = self.connection.as_mut().expect("who acts is connected");
        let delivery = connection.take_any(seed);
        let place = connection.place_of(&delivery);
        (connection, place, delivery)
    }

    fn accepts(&mut self, seed: &mut Rng, ledger: &mut Ledger) -> Vec<Request> {
        vec![self.accept(seed, ledger, None)]
    }

    /// Sends a result and acknowledges what it is made of, without waiting in between (R2).
    fn forwards(&mut self, seed: &mut Rng, ledger: &mut Ledger) -> Vec<Request> {
        let mut requests = self.sends(seed, ledger);
        requests.push(self.accept(seed, ledger, Some(ledger.last_id())));
        requests
    }

    fn accept(&mut self, seed: &mut Rng, ledger: &mut Ledger, result: Option<Id>) -> Request {
        let (connection, place, delivery) = self.take_any(seed);
        let id = id_of(&delivery);
        ledger.acks(place, id, connection.number_of(&delivery), result);
        let means = Meaning { done: vec![(place, id)], ..Meaning::default() };
        connection.maybe_asking(seed, ack(&delivery), means)
    }

    /// A transaction that sends and acknowledges; now and then something is sent beside it.
    fn transacts(&mut self, seed: &mut Rng, ledger: &mut Ledger) -> Vec<Request> {
        let name = format!("t{}", seed.next());
        let mut requests = vec![begin(&name)];
        let (mut means, mut sent) = (Meaning::default(), Vec::new());
        for _ in 0..seed.range(0, 4) {
            let (request, id, of_it) = self.message(seed, ledger, Some(&name));
            requests.push(request);
            means.kept.extend(of_it.places.iter().map(|place| (*place, id)));
            sent.push((id, of_it));
            if seed.one_in(3) {
                requests.extend(self.sends(seed, ledger));
            }
        }
        let ids: Vec<Id> = sent.iter().map(|(id, _)| *id).collect();
        for (id, of_it) in sent {
            ledger.takes_effect(id, Sent { unit: Some(ledger.next_unit()), ..of_it });
        }
        let result = ids.first().copied();
        let connection = self.connection.as_mut().expect("who acts is connected");
        for _ in 0..seed.range(0, 3).min(connection.deliveries.len() as u64) {
            let delivery = connection.take_any(seed);
            let (place, id) = (connection.place_of(&delivery), id_of(&delivery));
            requests.push(ack_in(&name, &delivery));
            means.done.push((place, id));
            ledger.acks(place, id, connection.number_of(&delivery), result);
        }
        ledger.unit(Unit { sent: ids, settled: means.done.clone() });
        requests.push(connection.asking(commit(&name), means));
        requests
    }

    /// Its session has something in hand from now on. `is_told`: it says too early that it is written (R3).
    pub(super) fn take_in_hand(&mut self, mandate: &Mandate, is_told: bool) {
        let Some(connection) = &mut self.connection else { return };
        connection.take_in_hand(mandate);
        if is_told {
            connection.in_hand.iter().for_each(|outgoing| connection.tell_written(outgoing));
        }
    }

    /// What its session has in hand leaves the broker for it.
    pub(super) fn hear(&mut self, standing: Standing, ledger: &mut Ledger, server: &Server) {
        ledger.speaks_to_master = standing == Standing::Master;
        let Some(connection) = &mut self.connection else { return };
        for outgoing in std::mem::take(&mut connection.in_hand) {
            let Some(connection) = &mut self.connection else { return };
            connection.tell_written(&outgoing);
            match outgoing {
                Outgoing::Delivery(_) | Outgoing::Receipt(_) if standing == Standing::Deposed => {
                    panic!("promise 3: {outgoing:?} left a broker whose lease is over");
                }
                Outgoing::Delivery(delivery) => self.gets(delivery, standing, ledger, server),
                Outgoing::Receipt(receipt) => {
                    let (expected, mut means) =
                        connection.awaited.pop_front().expect("what is confirmed was asked for");
                    assert_eq!(&*receipt, expected, "R4: receipts in frame order");
                    if standing != Standing::Master {
                        means.subscribed.clear(); // it needs no store to say so, and may not know of the end
                        means.kept.retain(|(place, _)| !SUBSCRIPTIONS.contains(place)); // nor of the beginning
                    }
                    let has_ended = connection.ends && connection.awaited.is_empty();
                    ledger.is_told(means);
                    if has_ended {
                        self.leave();
                    }
                }
                Outgoing::Connected | Outgoing::BrowseEnd(_) => {}
                Outgoing::Error { .. } | Outgoing::Close(_) => self.leave(),
            }
        }
    }

    fn gets(&mut self, delivery: Delivery, standing: Standing, ledger: &mut Ledger, server: &Server) {
        let is_automatic = self.is_automatic();
        let connection = self.connection.as_mut().expect("who gets something is connected");
        let (id, place) = (id_of(&delivery), connection.place_of(&delivery));
        let number = connection.number_of(&delivery);
        match standing {
            Standing::Master => {
                let got = Got { place, id, number, redelivered: delivery.redelivered, since: connection.since };
                ledger.gets(&got, server);
            }
            Standing::OfThePast => {}
            _ => ledger.gets_again(place, id, number),
        }
        let sent = &ledger.sent[&id];
        // What comes back to a queue of rivals may come behind what another one has; and so may what was acknowledged, if
        // that could not be stored.
        let may_come_late = delivery.redelivered && (place == QUEUES[0] || ledger.was_acked(place, id));
        let keeps_its_place = place != DEAD_LETTERS && !may_come_late;
        if standing == Standing::Master && keeps_its_place {
            let before = connection.last.insert((place, sent.sender, sent.priority), sent.rank).unwrap_or(0);
            assert!(before < sent.rank, "promise 4: {id} of {place} comes after a later one");
        }
        if is_automatic {
            return ledger.acks(place, id, number, None);
        }
        if connection.ends {
            return;
        }
        let consumer = delivery.consumer;
        connection.deliveries.push(delivery);
        let held = connection.deliveries.iter().filter(|delivery| delivery.consumer == consumer).count();
        assert!(held <= connection.prefetch as usize, "promise 5: no more than there is credit");
    }
}

fn id_of(delivery: &Delivery) -> Id {
    delivery.message.id.as_str().parse().unwrap()
}
