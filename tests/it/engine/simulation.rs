//! Random clients over a store that delays, refuses, fills up, loses its connection and dies with the engine, under a
//! baton that comes into doubt (R24); the promises of ARCHITECTURE.md, "Always true", hold after each.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use batonmq::{
    broker::{Delivery, Outgoing, Request},
    types::{Destination, Meter},
};
use tokio::task::{JoinSet, yield_now};

use super::{
    broker::{Broker, Client, ack, ack_in, asking, begin, commit, options, quiet, send, send_in},
    store::{Reply, Store},
};
use crate::harness::Rng;

/// Each run is several terms on one store.
const RUNS: u64 = 60;
const TERMS: u64 = 4;
const STEPS: u64 = 120;
const QUEUES: [&str; 3] = ["a", "b", "c"];

#[tokio::test(start_paused = true)]
async fn promises_hold_whatever_the_store_does() {
    let mut seed = Rng::of("engine simulation");
    for _ in 0..RUNS {
        let mut run = Run::default();
        for _ in 0..TERMS {
            run.term(&mut seed).await;
        }
        run.drain().await;
    }
}

/// What clients know, over all terms of one store.
#[derive(Default)]
struct Run {
    store: Store,
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

fn pick(seed: &mut Rng) -> &'static str {
    QUEUES[seed.range(0, 3) as usize]
}

/// What a receipt will mean.
enum Meaning {
    Kept(Vec<String>),
    Done(Vec<String>),
    Both { kept: Vec<String>, done: Vec<String> },
}

struct Peer {
    client: Client,
    /// In the order of the frames (R4).
    awaited: Vec<(String, Meaning)>,
    deliveries: Vec<Delivery>,
    /// The last first delivery of each queue and sender (promise 4).
    last: BTreeMap<(String, String), u64>,
    transactions: u64,
}

impl Run {
    async fn term(&mut self, seed: &mut Rng) {
        self.store.set_full(false);
        self.store.set_brimful(false);
        self.store.let_go();
        self.store.refuse("refuse");
        // In every other term memory is scarce: what is durable leaves it at once, and is read again (R25, R26).
        let meter = Meter::new(1 << 20);
        let scarce = (seed.range(0, 2) == 0).then(|| meter.charge(900 << 10));
        let broker = Broker::start_within(&self.store, options(), meter).await;
        let mut peers = Vec::new();
        for _ in 0..4 {
            let client = broker.client_as(None, true).await;
            let (awaited, deliveries) = (Vec::new(), Vec::new());
            peers.push(Peer { client, awaited, deliveries, last: BTreeMap::new(), transactions: 0 });
        }
        for (at, queue) in QUEUES.iter().enumerate() {
            peers[at].client.subscribe(1, queue).await;
        }
        let mut purges = JoinSet::new();
        for _ in 0..STEPS {
            self.disturb(seed, &broker);
            let at = seed.range(0, 4) as usize;
            self.act(seed, &mut peers[at], at).await;
            if seed.range(0, 4) == 0 {
                quiet().await;
            }
            if seed.range(0, 40) == 0 {
                self.purge(seed, &broker, &mut purges).await;
            }
            if seed.range(0, 60) == 0 {
                self.store.let_go(); // a store that says nothing for 30 s ends the term
                broker.prove();
                tokio::time::sleep(Duration::from_secs(6)).await;
            }
            for peer in &mut peers {
                self.hear(peer).await;
            }
        }
        if seed.range(0, 2) == 0 {
            self.store.set_full(false);
            self.store.let_go();
            broker.prove();
            self.store.calm();
            tokio::time::sleep(Duration::from_secs(1)).await;
            for peer in &mut peers {
                self.hear(peer).await;
                assert!(peer.awaited.is_empty(), "every frame is answered: {} are not", peer.awaited.len());
            }
        }
        broker.crash().await;
        drop(scarce);
        self.check();
    }

    fn disturb(&mut self, seed: &mut Rng, broker: &Broker) {
        match seed.range(0, 40) {
            0 => self.store.hold(),
            1..=3 => self.store.let_go(),
            4 => self.store.set_full(true),
            5 | 6 => self.store.set_full(false),
            7 => self.store.will_say([Reply::Unknown { applied: true }]),
            8 => self.store.will_say([Reply::Unknown { applied: false }, Reply::Again]),
            9 => self.store.will_say([Reply::Again]),
            10 => self.store.will_say([Reply::Unknown { applied: true }, Reply::Full]),
            11 => self.store.will_say([Reply::Full]),
            12 => broker.keeper.doubt(),
            13..=16 => broker.prove(),
            _ => {}
        }
    }

    /// What was sent to a queue so far may be gone.
    async fn purge(&mut self, seed: &mut Rng, broker: &Broker, purges: &mut JoinSet<()>) {
        let (queue, handle) = (pick(seed), broker.handle.clone());
        let sent = self.lies_in.iter().filter(|(_, lies_in)| **lies_in == queue).map(|(id, _)| id.clone());
        self.acked.extend(sent);
        purges.spawn(async move { drop(handle.purge(Destination::queue(queue)).await) });
        yield_now().await; // it stands before all that is sent from now on
    }

    async fn act(&mut self, seed: &mut Rng, peer: &mut Peer, at: usize) {
        let mut requests: Vec<Request> = Vec::new();
        for _ in 0..seed.range(1, 4) {
            match seed.range(0, 6) {
                0..=2 => {
                    let id = self.next_id(at, seed.range(0, 25) == 0);
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
                _ => self.transact(seed, peer, at, &mut requests),
            }
        }
        peer.client.submit(requests).await;
    }

    fn transact(&mut self, seed: &mut Rng, peer: &mut Peer, at: usize, requests: &mut Vec<Request>) {
        peer.transactions += 1;
        let name = format!("t{}", peer.transactions);
        let (mut kept, mut done) = (Vec::new(), Vec::new());
        requests.push(super::broker::plain(begin(&name).command));
        for _ in 0..seed.range(0, 3) {
            let id = self.next_id(at, seed.range(0, 25) == 0);
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
        let queue = pick(seed);
        self.lies_in.insert(id.to_owned(), queue);
        queue
    }

    fn next_id(&mut self, at: usize, refused: bool) -> String {
        self.sent += 1;
        format!("{}{at}:{}", if refused { "refuse " } else { "" }, self.sent)
    }

    fn maybe_asking(&self, seed: &mut Rng, peer: &mut Peer, request: Request, id: String, means: Meaning) -> Request {
        if seed.range(0, 3) == 0 {
            return request;
        }
        peer.awaited.push((id.clone(), means));
        asking(&id, request)
    }

    /// Takes what has arrived for a client, and holds it against what was promised.
    async fn hear(&mut self, peer: &mut Peer) {
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
                Outgoing::Close(reason) => panic!("{reason}"),
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

    /// Promises 1, 2 and 7, on what the store has after a crash.
    fn check(&self) {
        let kept: BTreeSet<_> = self.store.ids().into_iter().collect();
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

    /// Everything that is kept is delivered in the end.
    async fn drain(&mut self) {
        self.store.set_full(false);
        self.store.let_go();
        self.store.calm();
        let broker = Broker::start(&self.store).await;
        let mut client = broker.client().await;
        for (at, queue) in QUEUES.iter().enumerate() {
            client.subscribe(at as u32, queue).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut delivered = BTreeSet::new();
        for outgoing in client.arrived().await {
            let Outgoing::Delivery(delivery) = outgoing else { panic!("{outgoing:?}") };
            assert!(delivered.insert(delivery.message.id.to_string()), "{} is there twice", delivery.message.id);
        }
        assert_eq!(delivered, self.store.ids().into_iter().collect());
        broker.crash().await;
    }
}
