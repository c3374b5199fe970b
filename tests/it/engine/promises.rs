//! What random clients send, and what they are told of it: the promises of ARCHITECTURE.md, "Always true", are held
//! against what they get, and against what a store has in the end.

use std::collections::{BTreeMap, BTreeSet};

use batonmq::{
    broker::{CloseReason, Delivery, Outgoing, Request},
    engine::EngineHandle,
    types::Destination,
};
use tokio::task::{JoinSet, yield_now};

use super::broker::{Broker, Client, ack, ack_in, asking, begin, commit, send, send_in};
use crate::harness::Rng;

/// Where they send.
pub(super) const QUEUES: [&str; 3] = ["a", "b", "c"];

/// So many clients: one consumes from each queue, and one only sends.
const PEERS: usize = QUEUES.len() + 1;

/// What clients know, over all terms of one store.
#[derive(Default)]
pub(super) struct Promises {
    sent: u64,
    /// What clients were promised to be kept, and have not acknowledged.
    owed: BTreeSet<String>,
    /// What was acknowledged, confirmed or not: it may be gone.
    acked: BTreeSet<String>,
    /// What was acknowledged and confirmed: it never comes back.
    done: BTreeSet<String>,
    /// Transactions: all of it, or nothing.
    units: Vec<Vec<String>>,
    /// Where each message was sent.
    lies_in: BTreeMap<String, &'static str>,
}

/// What a receipt will mean.
pub(super) enum Meaning {
    Kept(Vec<String>),
    Done(Vec<String>),
    Both { kept: Vec<String>, done: Vec<String> },
}

/// A client, and what it waits for.
pub(super) struct Peer {
    pub(super) client: Client,
    /// Its messages carry it.
    number: usize,
    /// In the order of the frames (R4).
    pub(super) awaited: Vec<(String, Meaning)>,
    deliveries: Vec<Delivery>,
    /// The last first delivery of each queue and sender (promise 4).
    last: BTreeMap<(String, String), u64>,
    transactions: u64,
    /// It was told that nothing follows.
    pub(super) closed: Option<CloseReason>,
}

/// The clients of a term; who consumes has one of these credits.
pub(super) async fn peers(broker: &Broker, seed: &mut Rng, prefetch: &[u32]) -> Vec<Peer> {
    let mut peers = Vec::new();
    for number in 0..PEERS {
        let mut client = broker.client_as(None, true).await;
        if let Some(queue) = QUEUES.get(number) {
            client.subscribe_for(1, queue, seed.pick(prefetch)).await;
        }
        let (awaited, deliveries, last) = (Vec::new(), Vec::new(), BTreeMap::new());
        peers.push(Peer { client, number, awaited, deliveries, last, transactions: 0, closed: None });
    }
    peers
}

impl Promises {
    /// What a client does next.
    pub(super) fn acts(&mut self, seed: &mut Rng, peer: &mut Peer) -> Vec<Request> {
        let mut requests: Vec<Request> = Vec::new();
        for _ in 0..seed.range(1, 4) {
            match seed.range(0, 6) {
                0..=2 => {
                    let id = self.next_id(peer, seed.range(0, 25) == 0);
                    let request = send(self.address(seed, &id), &id);
                    let kept = Meaning::Kept(vec![id.clone()]);
                    requests.push(self.maybe_asking(seed, peer, request, id, kept));
                }
                3 | 4 if !peer.deliveries.is_empty() => {
                    let delivery = peer.deliveries.remove(seed.range(0, peer.deliveries.len() as u64) as usize);
                    let id = delivery.message.id.to_string();
                    self.acked.insert(id.clone());
                    let done = Meaning::Done(vec![id.clone()]);
                    requests.push(self.maybe_asking(seed, peer, ack(&delivery), format!("ack {id}"), done));
                }
                _ => self.transact(seed, peer, &mut requests),
            }
        }
        requests
    }

    fn transact(&mut self, seed: &mut Rng, peer: &mut Peer, requests: &mut Vec<Request>) {
        peer.transactions += 1;
        let name = format!("t{}", peer.transactions);
        let (mut kept, mut done) = (Vec::new(), Vec::new());
        requests.push(begin(&name));
        for _ in 0..seed.range(0, 3) {
            let id = self.next_id(peer, seed.range(0, 25) == 0);
            requests.push(send_in(&name, self.address(seed, &id), &id));
            kept.push(id);
        }
        // A refused transaction gives its acknowledgements back, so it acknowledges only what it does not risk.
        if !kept.iter().any(|id| id.contains("refuse")) {
            for _ in 0..seed.range(0, 2).min(peer.deliveries.len() as u64) {
                let delivery = peer.deliveries.remove(0);
                requests.push(ack_in(&name, &delivery));
                done.push(delivery.message.id.to_string());
            }
        }
        self.acked.extend(done.iter().cloned());
        self.units.push(kept.clone());
        peer.awaited.push((name.clone(), Meaning::Both { kept, done }));
        requests.push(asking(&name, commit(&name)));
    }

    fn address(&mut self, seed: &mut Rng, id: &str) -> &'static str {
        let queue = seed.pick(&QUEUES);
        self.lies_in.insert(id.to_owned(), queue);
        queue
    }

    fn next_id(&mut self, peer: &Peer, refused: bool) -> String {
        self.sent += 1;
        format!("{}{}:{}", if refused { "refuse " } else { "" }, peer.number, self.sent)
    }

    fn maybe_asking(&self, seed: &mut Rng, peer: &mut Peer, request: Request, id: String, means: Meaning) -> Request {
        if seed.range(0, 3) == 0 {
            return request;
        }
        peer.awaited.push((id.clone(), means));
        asking(&id, request)
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
        for outgoing in peer.client.arrived().await {
            match outgoing {
                Outgoing::Delivery(delivery) => {
                    let id = delivery.message.id.to_string();
                    assert!(!self.done.contains(&id), "promise 2: {id} was acknowledged and comes back");
                    if !delivery.redelivered {
                        let (sender, number) = id.trim_start_matches("refuse ").split_once(':').unwrap();
                        let key = (delivery.consumer.0.to_string(), sender.to_owned());
                        let number = number.parse().unwrap();
                        let before = peer.last.insert(key, number).unwrap_or(0);
                        assert!(before < number, "promise 4: {id} after {before}");
                    }
                    peer.deliveries.push(delivery);
                }
                Outgoing::Receipt(receipt) => {
                    let (expected, means) = peer.awaited.remove(0);
                    assert_eq!(&*receipt, expected, "R4: receipts in frame order");
                    self.learn(means);
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

    fn learn(&mut self, means: Meaning) {
        let (kept, done) = match means {
            Meaning::Kept(kept) => (kept, Vec::new()),
            Meaning::Done(done) => (Vec::new(), done),
            Meaning::Both { kept, done } => (kept, done),
        };
        self.owed.extend(kept);
        self.done.extend(done);
    }

    /// Promises 1, 2 and 7, on what a store has after a crash.
    pub(super) fn are_kept_by(&self, kept: &BTreeSet<String>) {
        for id in self.owed.iter().filter(|id| !self.acked.contains(*id)) {
            assert!(kept.contains(id), "promise 1: {id} was confirmed and is gone");
        }
        for id in &self.done {
            assert!(!kept.contains(id), "promise 2: {id} was acknowledged and is kept");
        }
        for unit in &self.units {
            let there = unit.iter().filter(|id| kept.contains(*id)).count();
            let unsettled = unit.iter().filter(|id| !self.acked.contains(*id)).count();
            assert!(there == 0 || there >= unsettled, "promise 7: {unit:?} is there in part");
        }
    }
}
