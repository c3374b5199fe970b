//! What random clients send, and what they are told of it: the promises of ARCHITECTURE.md, "Always true", are held
//! against what they get, and against what a store has in the end. So is what browsers are shown (`looks.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use batonmq::{
    broker::{CloseReason, CoreOptions, Delivery, Outgoing, Request},
    config::RedeliveryPolicy,
    engine::EngineHandle,
    types::{Clock, Destination, MessageDraft, Priority, Timestamp},
};
use tokio::task::{JoinSet, yield_now};

use super::{
    broker::{self, Broker, Client, ack, ack_in, asking, begin, commit, nack, nack_in, send_draft},
    looks::Looks,
};
use crate::harness::Rng;

/// Where they send. What is rejected comes back: to the first at once, to the second after a while; from the third it is
/// dead.
pub(super) const QUEUES: [&str; 3] = ["a", "b", "c"];

/// Where what was rejected too often lies, and what has expired.
const DEAD_LETTERS: &str = "ActiveMQ.DLQ";

/// What the client with this number consumes from; the last one gets the dead letters.
const CONSUMED: [&str; 4] = [QUEUES[0], QUEUES[1], QUEUES[2], DEAD_LETTERS];

/// What clients know, over all terms of one store.
#[derive(Default)]
pub(super) struct Promises {
    sent: u64,
    /// What clients were promised to be kept, and have not acknowledged.
    pub(super) owed: BTreeSet<String>,
    /// What was acknowledged, confirmed or not: it may be gone.
    pub(super) acked: BTreeSet<String>,
    /// What was rejected: it may be a dead letter.
    pub(super) rejected: BTreeSet<String>,
    /// What was acknowledged and confirmed: it never comes back.
    pub(super) done: BTreeSet<String>,
    /// Transactions: all of it, or nothing.
    units: Vec<Vec<String>>,
    /// Where each message was sent.
    pub(super) lies_in: BTreeMap<String, &'static str>,
    /// When it expires, if it does.
    pub(super) expires: BTreeMap<String, Timestamp>,
    /// What was delivered from where (R9).
    delivered: BTreeSet<(&'static str, String)>,
}

/// What a receipt will mean.
#[derive(Default)]
pub(super) struct Meaning {
    kept: Vec<String>,
    done: Vec<String>,
}

impl Meaning {
    fn kept(id: &str) -> Self {
        Self { kept: vec![id.to_owned()], ..Self::default() }
    }

    fn done(id: &str) -> Self {
        Self { done: vec![id.to_owned()], ..Self::default() }
    }
}

/// A client, and what it waits for.
pub(super) struct Peer {
    pub(super) client: Client,
    pub(super) clock: Clock,
    /// Its messages carry it.
    number: usize,
    /// By the number of its consumer.
    consumes: Vec<&'static str>,
    prefetch: usize,
    /// In the order of the frames (R4).
    pub(super) awaited: Vec<(String, Meaning)>,
    deliveries: Vec<Delivery>,
    /// The last first delivery of each queue, sender and priority (promise 4).
    last: BTreeMap<(&'static str, String, Priority), u64>,
    transactions: u64,
    /// What it is shown.
    pub(super) looks: Looks,
    /// It was told that nothing follows.
    pub(super) closed: Option<CloseReason>,
}

/// Default limits, and the policies of [`QUEUES`].
pub(super) fn options() -> CoreOptions {
    let policy = |queue: &str, delay| RedeliveryPolicy {
        destination: queue.to_owned(),
        attempts: 2,
        delay,
        backoff_multiplier: 10.0,
        ..RedeliveryPolicy::default()
    };
    let policies = [policy(QUEUES[0], Duration::ZERO), policy(QUEUES[1], Duration::from_millis(2))];
    CoreOptions { redelivery: policies.map(Arc::new).into(), ..broker::options() }
}

/// The clients of a term; each has one of these credits.
pub(super) async fn peers(broker: &Broker, seed: &mut Rng, prefetch: &[u32]) -> Vec<Peer> {
    let mut peers = Vec::new();
    for number in 0..CONSUMED.len() {
        peers.push(Peer::new(broker, number, seed.pick(prefetch)).await);
    }
    peers
}

impl Peer {
    pub(super) async fn new(broker: &Broker, number: usize, prefetch: u32) -> Self {
        Self::consuming(broker, number, &CONSUMED[number..=number], prefetch).await
    }

    async fn consuming(broker: &Broker, number: usize, queues: &[&'static str], prefetch: u32) -> Self {
        let mut client = broker.client_as(None, true).await;
        for (consumer, queue) in (0..).zip(queues) {
            client.subscribe_for(consumer, queue, prefetch).await;
        }
        Self {
            client,
            clock: broker.clock,
            number,
            consumes: queues.to_vec(),
            prefetch: prefetch as usize,
            awaited: Vec::new(),
            deliveries: Vec::new(),
            last: BTreeMap::new(),
            transactions: 0,
            looks: Looks::default(),
            closed: None,
        }
    }

    /// Goes away; another one takes its place.
    pub(super) async fn give_way(&mut self, broker: &Broker) {
        self.client.link.close().await;
        *self = Self::new(broker, self.number, self.prefetch as u32).await;
    }

    fn take_any(&mut self, seed: &mut Rng) -> Delivery {
        self.deliveries.remove(seed.below(self.deliveries.len()))
    }

    /// A dead letter that is rejected would come back after a second, which is long where time is not paused.
    fn rejects(&self, seed: &mut Rng) -> bool {
        self.consumes != [DEAD_LETTERS] && seed.one_in(4)
    }

    fn maybe_asking(&mut self, seed: &mut Rng, request: Request, receipt: String, means: Meaning) -> Request {
        if seed.one_in(3) {
            return request;
        }
        let request = asking(&receipt, request);
        self.awaited.push((receipt, means));
        request
    }
}

impl Promises {
    /// What a client does next.
    pub(super) fn acts(&mut self, seed: &mut Rng, peer: &mut Peer) -> Vec<Request> {
        let mut requests: Vec<Request> = Vec::new();
        for _ in 0..seed.range(1, 4) {
            match seed.range(0, 6) {
                0..=2 => {
                    let (request, id) = self.sends(seed, peer, None);
                    let kept = Meaning::kept(&id);
                    requests.push(peer.maybe_asking(seed, request, id, kept));
                }
                3 | 4 if !peer.deliveries.is_empty() => requests.push(self.answers(seed, peer)),
                _ => self.transacts(seed, peer, &mut requests),
            }
        }
        requests
    }

    fn sends(&mut self, seed: &mut Rng, peer: &Peer, transaction: Option<&str>) -> (Request, String) {
        self.sent += 1;
        let refused = if seed.one_in(25) { "refuse " } else { "" };
        let id = format!("{refused}{}:{}", peer.number, self.sent);
        let queue = seed.pick(&QUEUES);
        self.lies_in.insert(id.clone(), queue);
        let lifetime = seed.one_in(6).then(|| Duration::from_millis(seed.pick(&[0, 1, 5, 50, 10_000])));
        let expires = lifetime.map(|lifetime| peer.clock.now().after(lifetime));
        self.expires.extend(expires.map(|at| (id.clone(), at)));
        let draft = MessageDraft {
            id: id.as_str().into(),
            persistent: true,
            priority: if seed.one_in(3) { Priority::clamped(seed.pick(&[0, 9])) } else { Priority::default() },
            expires,
            ..MessageDraft::default()
        };
        (send_draft(Destination::queue(queue), draft, transaction), id)
    }

    fn answers(&mut self, seed: &mut Rng, peer: &mut Peer) -> Request {
        let delivery = peer.take_any(seed);
        let id = delivery.message.id.to_string();
        if peer.rejects(seed) {
            self.rejected.insert(id.clone());
            return peer.maybe_asking(seed, nack(&delivery), format!("nack {id}"), Meaning::default());
        }
        self.acked.insert(id.clone());
        peer.maybe_asking(seed, ack(&delivery), format!("ack {id}"), Meaning::done(&id))
    }

    fn transacts(&mut self, seed: &mut Rng, peer: &mut Peer, requests: &mut Vec<Request>) {
        peer.transactions += 1;
        let name = format!("t{}", peer.transactions);
        let mut means = Meaning::default();
        requests.push(begin(&name));
        for _ in 0..seed.range(0, 3) {
            let (request, id) = self.sends(seed, peer, Some(&name));
            requests.push(request);
            means.kept.push(id);
        }
        // A refused transaction gives its acknowledgements back, so it acknowledges only what it does not risk.
        if !means.kept.iter().any(|id| id.contains("refuse")) {
            for _ in 0..seed.range(0, 2).min(peer.deliveries.len() as u64) {
                let delivery = peer.deliveries.remove(0);
                if peer.rejects(seed) {
                    self.rejected.insert(delivery.message.id.to_string());
                    requests.push(nack_in(&name, &delivery));
                } else {
                    requests.push(ack_in(&name, &delivery));
                    means.done.push(delivery.message.id.to_string());
                }
            }
        }
        self.acked.extend(means.done.iter().cloned());
        self.units.push(means.kept.clone());
        peer.awaited.push((name.clone(), means));
        requests.push(asking(&name, commit(&name)));
    }

    /// What was sent to a queue so far may be gone.
    pub(super) async fn purge(&mut self, seed: &mut Rng, handle: &EngineHandle, purges: &mut JoinSet<()>) {
        let (queue, handle) = (seed.pick(&QUEUES), handle.clone());
        let sent = self.lies_in.iter().filter(|(_, lies_in)| **lies_in == queue).map(|(id, _)| id.clone());
        self.acked.extend(sent);
        purges.spawn(async move { drop(handle.purge(Destination::queue(queue)).await) });
        yield_now().await; // it stands before all that is sent from now on
    }

    /// Takes what has arrived for a client, and holds it against what was promised.
    pub(super) async fn hear(&mut self, peer: &mut Peer) {
        peer.looks.take_in(&peer.client).await;
        for outgoing in peer.client.arrived().await {
            match outgoing {
                Outgoing::Delivery(delivery) if peer.looks.are_of(delivery.consumer) => {
                    peer.looks.show(delivery);
                }
                Outgoing::BrowseEnd(browser) => {
                    let now = peer.clock.now();
                    peer.looks.end(browser, self, now);
                }
                Outgoing::Delivery(delivery) => self.gets(peer, delivery),
                Outgoing::Receipt(receipt) => {
                    let (expected, means) = peer.awaited.remove(0);
                    assert_eq!(&*receipt, expected, "R4: receipts in frame order");
                    self.owed.extend(means.kept);
                    self.done.extend(means.done);
                }
                Outgoing::Error { receipt: Some(receipt), .. } => {
                    let at = peer.awaited.iter().position(|(awaited, _)| **awaited == *receipt);
                    peer.awaited.remove(at.expect("what is refused was asked for"));
                }
                Outgoing::Error { .. } | Outgoing::Connected => {}
                Outgoing::Close(reason) => peer.closed = Some(reason),
            }
        }
    }

    fn gets(&mut self, peer: &mut Peer, delivery: Delivery) {
        let id = delivery.message.id.to_string();
        let queue = peer.consumes[delivery.consumer.0 as usize];
        assert!(!self.done.contains(&id), "promise 2: {id} was acknowledged and comes back");
        let is_first = self.delivered.insert((queue, id.clone()));
        assert!(is_first || delivery.redelivered, "R9: {id} was delivered before");
        if !delivery.redelivered && queue != DEAD_LETTERS {
            let (sender, number) = id.trim_start_matches("refuse ").split_once(':').unwrap();
            let key = (queue, sender.to_owned(), delivery.message.priority);
            let number = number.parse().unwrap();
            let before = peer.last.insert(key, number).unwrap_or(0);
            assert!(before < number, "promise 4: {id} after {before}");
        }
        peer.deliveries.push(delivery);
        assert!(
            peer.deliveries.len() <= peer.prefetch * peer.consumes.len(),
            "promise 5: no more than there is credit"
        );
    }

    /// Promises 1, 2 and 7, on what a store has after a crash.
    pub(super) fn are_kept_by(&self, ids: &[String]) {
        let kept: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(kept.len(), ids.len(), "promise 7: a message and its dead letter are there: {ids:?}");
        for id in self.owed.iter().filter(|id| !self.acked.contains(*id)) {
            assert!(kept.contains(id), "promise 1: {id} was confirmed and is gone");
        }
        for id in &self.done {
            assert!(!kept.contains(id), "promise 2: {id} was acknowledged and is kept");
        }
        for unit in &self.units {
            let there = unit.iter().filter(|id| kept.contains(id)).count();
            let unsettled = unit.iter().filter(|id| !self.acked.contains(*id)).count();
            assert!(there == 0 || there >= unsettled, "promise 7: {unit:?} is there in part");
        }
    }

    /// All that a store has is delivered by the broker that was started on it, whatever it waits for.
    pub(super) async fn are_delivered_by(&mut self, broker: &Broker, mut kept: Vec<String>) {
        let mut peer = Peer::consuming(broker, CONSUMED.len(), &CONSUMED, 60_000).await;
        while peer.deliveries.len() < kept.len() {
            peer.client.something_arrives().await;
            self.hear(&mut peer).await;
        }
        let mut delivered: Vec<String> = peer.deliveries.iter().map(|got| got.message.id.to_string()).collect();
        delivered.sort();
        kept.sort();
        assert_eq!(delivered, kept);
        peer.client.gets_nothing().await;
    }
}
