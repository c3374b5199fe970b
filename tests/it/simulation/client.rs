//! Clients: they send, consume, use transactions and go away, and find another broker.

use std::collections::{BTreeMap, VecDeque};

use batonmq::{
    broker::{AckMode, Command, Connect, Delivery, Outgoing, Request},
    engine::{SessionLink, Written},
    types::{ConsumerNo, Destination, MessageDraft, Priority, Tenure},
};
use smallvec::smallvec;

use super::{
    database::Server,
    ledger::{DEAD_LETTERS, Id, Ledger, Meaning, Place, QUEUES, SUBSCRIPTIONS},
    process::{Serving, at_once},
};
use crate::{
    engine::broker::{ack, ack_in, asking, begin, commit, nack, plain, send_draft, subscribe_as},
    harness::Rng,
};

/// What each consumes; the ones of subscriptions have a client-id.
const CONSUMED: [Place; 6] = [QUEUES[0], QUEUES[1], DEAD_LETTERS, SUBSCRIPTIONS[0], SUBSCRIPTIONS[1], QUEUES[0]];

const TOPIC: &str = "news";

/// So that a few fill what memory there is.
const BODY: &[u8] = &[0; 6 << 10];

/// The two that share a queue.
pub(super) const RIVALS: &[usize] = &[0, 5];

/// How many there are.
pub(super) const CLIENTS: usize = CONSUMED.len();

/// What a broker is that something left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its tenure is the row's.
    Master,
    /// Another one took over, and it can't know yet.
    Unaware,
    /// Another one took over after it had given the baton back, or had not been heard of for a lease.
    Deposed,
}

pub(super) struct Client {
    number: usize,
    place: Place,
    pub(super) connection: Option<Connection>,
    /// It sends to no other.
    pub(super) only_first_queue: bool,
    /// It sends no more.
    pub(super) only_consumes: bool,
    /// Until when it does not come back. Unit: milliseconds.
    pub(super) away_until: u64,
    /// Until when it takes what it gets, and does nothing. Unit: milliseconds.
    pub(super) rests_until: u64,
    /// Sends may wait for room, and what it acknowledges meanwhile overtakes them (R8).
    pub(super) store_may_fill: bool,
}

/// To a broker.
pub(super) struct Connection {
    pub(super) process: usize,
    pub(super) tenure: Tenure,
    pub(super) link: SessionLink,
    prefetch: usize,
    /// In the order of the frames (R4).
    pub(super) awaited: VecDeque<(String, Meaning)>,
    pub(super) deliveries: Vec<Delivery>,
    /// The last first delivery of each sender and priority (promise 4).
    last: BTreeMap<(usize, Priority), u64>,
    frames: u64,
}

impl Connection {
    fn submit(&mut self, requests: Vec<Request>) -> bool {
        matches!(at_once(self.link.submit(requests)), Some(Ok(())))
    }

    /// Has a frame confirmed, mostly.
    fn maybe_asking(&mut self, seed: &mut Rng, request: Request, means: Meaning) -> Request {
        if seed.one_in(3) { request } else { self.asking(request, means) }
    }

    fn asking(&mut self, request: Request, means: Meaning) -> Request {
        self.frames += 1;
        let receipt = format!("r{}", self.frames);
        let request = asking(&receipt, request);
        self.awaited.push_back((receipt, means));
        request
    }

    fn take_any(&mut self, seed: &mut Rng) -> Delivery {
        self.deliveries.remove(seed.below(self.deliveries.len()))
    }
}

impl Client {
    pub(super) fn new(number: usize, only_first_queue: bool, store_may_fill: bool) -> Self {
        Self {
            number,
            place: CONSUMED[number],
            connection: None,
            only_first_queue,
            only_consumes: false,
            away_until: 0,
            rests_until: 0,
            store_may_fill,
        }
    }

    pub(super) fn connect(&mut self, seed: &mut Rng, process: usize, serving: &Serving, prefetch: u32) {
        let Some(Ok(link)) = at_once(serving.handle.open_session()) else { return };
        let mut connection = Connection {
            process,
            tenure: serving.tenure,
            link,
            prefetch: prefetch as usize,
            awaited: VecDeque::new(),
            deliveries: Vec::new(),
            last: BTreeMap::new(),
            frames: seed.next() % 1_000, // receipts differ from connection to connection
        };
        let is_durable = SUBSCRIPTIONS.contains(&self.place);
        let client_id = is_durable.then(|| format!("c{}", self.number).as_str().into());
        let connect = plain(Command::Connect(Connect { user: None, client_id, lenient: true }));
        let destination = if is_durable { Destination::topic(TOPIC) } else { Destination::queue(self.place) };
        let mut subscribe = subscribe_as(0, destination, AckMode::Individual, is_durable.then_some(self.place));
        if let Command::Subscribe(subscribe) = &mut subscribe.command {
            subscribe.prefetch = prefetch;
        }
        let means = Meaning { subscribed: Some(self.place), ..Meaning::default() };
        let subscribe = connection.asking(subscribe, means);
        if connection.submit(vec![connect, subscribe]) {
            self.connection = Some(connection);
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
        let Some(connection) = &mut self.connection else { return };
        let has_deliveries = !connection.deliveries.is_empty();
        let requests = match seed.below(8) {
            _ if self.only_consumes && !has_deliveries => return,
            _ if self.only_consumes => self.accepts(seed, ledger),
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

    /// A message that takes effect now, or with a transaction.
    fn message(&self, seed: &mut Rng, ledger: &mut Ledger, transaction: Option<&str>) -> (Request, Id, Vec<Place>) {
        let id = ledger.next_id();
        let priority = if seed.one_in(4) { Priority::clamped(9) } else { Priority::default() };
        let to_topic = ledger.all_are_subscribed() && seed.one_in(3);
        let (destination, places) = if to_topic {
            (Destination::topic(TOPIC), SUBSCRIPTIONS.to_vec())
        } else {
            let queue = if self.only_first_queue { QUEUES[0] } else { seed.pick(&QUEUES) };
            (Destination::queue(queue), vec![queue])
        };
        let draft = MessageDraft {
            id: id.to_string().as_str().into(),
            persistent: true,
            priority,
            body: BODY.into(),
            ..MessageDraft::default()
        };
        if transaction.is_none() {
            ledger.takes_effect(id, self.number, priority, None);
        }
        (send_draft(destination, draft, transaction), id, places)
    }

    fn sends(&mut self, seed: &mut Rng, ledger: &mut Ledger) -> Vec<Request> {
        let mut requests = Vec::new();
        for _ in 0..seed.range(1, 3) {
            let (request, id, places) = self.message(seed, ledger, None);
            let kept = places.into_iter().map(|place| (place, id)).collect();
            let connection = self.connection.as_mut().expect("who acts is connected");
            requests.push(connection.maybe_asking(seed, request, Meaning { kept, ..Meaning::default() }));
        }
        requests
    }

    fn answers(&mut self, seed: &mut Rng, ledger: &mut Ledger) -> Vec<Request> {
        let may_reject = QUEUES.contains(&self.place);
        match seed.below(6) {
            0 if may_reject => {
                let connection = self.connection.as_mut().expect("who acts is connected");
                let delivery = connection.take_any(seed);
                ledger.rejects(self.place, id_of(&delivery));
                vec![connection.maybe_asking(seed, nack(&delivery), Meaning::default())]
            }
            1 | 2 if !self.store_may_fill => self.forwards(seed, ledger),
            _ => self.accepts(seed, ledger),
        }
    }

    fn accepts(&mut self, seed: &mut Rng, ledger: &mut Ledger) -> Vec<Request> {
        let connection = self.connection.as_mut().expect("who acts is connected");
        let delivery = connection.take_any(seed);
        let id = id_of(&delivery);
        ledger.acks(self.place, id, None);
        let means = Meaning { done: vec![(self.place, id)], ..Meaning::default() };
        vec![connection.maybe_asking(seed, ack(&delivery), means)]
    }

    /// Sends a result and acknowledges what it is made of, without waiting in between (R2).
    fn forwards(&mut self, seed: &mut Rng, ledger: &mut Ledger) -> Vec<Request> {
        let mut requests = self.sends(seed, ledger);
        let result = ledger.last_id();
        let connection = self.connection.as_mut().expect("who acts is connected");
        let delivery = connection.take_any(seed);
        let id = id_of(&delivery);
        ledger.acks(self.place, id, Some(result));
        let means = Meaning { done: vec![(self.place, id)], ..Meaning::default() };
        requests.push(connection.maybe_asking(seed, ack(&delivery), means));
        requests
    }

    /// A transaction that sends and acknowledges; now and then something is sent beside it.
    fn transacts(&mut self, seed: &mut Rng, ledger: &mut Ledger) -> Vec<Request> {
        let name = format!("t{}", seed.next());
        let mut requests = vec![begin(&name)];
        let (mut means, mut sent) = (Meaning::default(), Vec::new());
        for _ in 0..seed.range(0, 4) {
            let (request, id, places) = self.message(seed, ledger, Some(&name));
            let priority = priority_of(&request);
            requests.push(request);
            sent.push((id, priority));
            means.kept.extend(places.into_iter().map(|place| (place, id)));
            if seed.one_in(3) {
                requests.extend(self.sends(seed, ledger));
            }
        }
        let unit = ledger.next_unit();
        for (id, priority) in &sent {
            ledger.takes_effect(*id, self.number, *priority, Some(unit));
        }
        ledger.unit(sent.iter().map(|(id, _)| *id).collect());
        let connection = self.connection.as_mut().expect("who acts is connected");
        for _ in 0..seed.range(0, 3).min(connection.deliveries.len() as u64) {
            let delivery = connection.take_any(seed);
            let id = id_of(&delivery);
            requests.push(ack_in(&name, &delivery));
            means.done.push((self.place, id));
            ledger.acks(self.place, id, sent.first().map(|(result, _)| *result));
        }
        requests.push(connection.asking(commit(&name), means));
        requests
    }

    /// What left the broker for it.
    pub(super) fn hear(&mut self, outgoing: Vec<Outgoing>, standing: Standing, ledger: &mut Ledger, server: &Server) {
        for outgoing in outgoing {
            let Some(connection) = &mut self.connection else { return };
            match outgoing {
                Outgoing::Delivery(_) | Outgoing::Receipt(_) if standing == Standing::Deposed => {
                    panic!("promise 3: {outgoing:?} left a broker whose lease is over");
                }
                Outgoing::Delivery(delivery) => self.gets(delivery, standing, ledger, server),
                Outgoing::Receipt(receipt) => {
                    let (expected, means) = connection.awaited.pop_front().expect("what is confirmed was asked for");
                    assert_eq!(&*receipt, expected, "R4: receipts in frame order");
                    ledger.is_told(means);
                }
                Outgoing::Connected | Outgoing::BrowseEnd(_) => {}
                Outgoing::Error { .. } | Outgoing::Close(_) => self.leave(),
            }
        }
    }

    fn gets(&mut self, delivery: Delivery, standing: Standing, ledger: &mut Ledger, server: &Server) {
        let connection = self.connection.as_mut().expect("who gets something is connected");
        let id = id_of(&delivery);
        match standing {
            Standing::Master => ledger.gets(self.place, id, delivery.redelivered, server),
            _ => ledger.gets_again(self.place, id),
        }
        let sent = ledger.sent[&id];
        if standing == Standing::Master && !delivery.redelivered && self.place != DEAD_LETTERS {
            let before = connection.last.insert((sent.sender, sent.priority), sent.rank).unwrap_or(0);
            assert!(before < sent.rank, "promise 4: {id} of {} comes after a later one", self.place);
        }
        let written = Written { last: smallvec![(ConsumerNo(0), delivery.tag)], bytes: delivery.message.size() };
        at_once(connection.link.written(written));
        connection.deliveries.push(delivery);
        assert!(connection.deliveries.len() <= connection.prefetch, "promise 5: no more than there is credit");
    }
}

fn id_of(delivery: &Delivery) -> Id {
    delivery.message.id.as_str().parse().unwrap()
}

fn priority_of(request: &Request) -> Priority {
    match &request.command {
        Command::Send(send) => send.message.priority,
        _ => Priority::default(),
    }
}
