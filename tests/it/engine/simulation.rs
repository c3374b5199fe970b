//! Random clients over a store that delays, refuses, fills up, loses its connection and dies with the engine, under a
//! baton that comes into doubt (R24); the promises of ARCHITECTURE.md, "Always true", hold after each.

use std::time::Duration;

use batonmq::{
    persistence::MemoryAdapter,
    types::{Clock, Meter},
};
use tokio::task::JoinSet;

use super::{
    broker::{Broker, quiet},
    pages::Pages,
    promises::{Peer, Promises, options, peers},
    store::{Reply, Store},
};
use crate::harness::{Rng, number};

/// Each run is several terms on one store.
const RUNS: u64 = 60;
const TERMS: u64 = 4;
const STEPS: u64 = 120;

#[tokio::test(start_paused = true)]
async fn promises_hold_whatever_the_store_does() {
    let mut seed = Rng::of("engine simulation");
    let runs = number("BATONMQ_RUNS").unwrap_or(RUNS);
    let (mut came_back, mut shown) = (0, 0);
    for _ in 0..runs {
        let mut run = Run::new();
        for _ in 0..TERMS {
            run.term(&mut seed).await;
        }
        run.drain().await;
        came_back += run.pages.came_back() as u64;
        shown += run.shown;
    }
    assert!(came_back > 20 * runs, "only {came_back} messages left memory and came back");
    assert!(shown > 100 * runs, "only {shown} messages were shown to browsers");
}

/// Several terms on one store.
struct Run {
    clock: Clock,
    store: Store,
    pages: Pages,
    promises: Promises,
    /// So many messages were shown to browsers.
    shown: u64,
}

impl Run {
    fn new() -> Self {
        let (store, pages, promises) = (Store::default(), Pages::default(), Promises::default());
        Self { clock: Clock::start(), store, pages, promises, shown: 0 }
    }

    async fn start(&self, meter: Meter) -> Broker {
        let store = self.pages.of(self.store.clone());
        Broker::start_at(self.clock, store, MemoryAdapter::new(), options(), meter).await
    }

    async fn term(&mut self, seed: &mut Rng) {
        self.store.set_full(false);
        self.store.set_brimful(false);
        self.store.let_go();
        self.pages.let_go();
        self.store.refuse("refuse");
        // In every other term memory is scarce: what is durable and waits for nobody leaves it, and is read again (R25,
        // R26).
        let meter = Meter::new(1 << 20);
        let scarce = (seed.range(0, 2) == 0).then(|| meter.charge(900 << 10));
        self.pages.bring_at_most(seed.pick(&[1, 3, 2_000]));
        let broker = self.start(meter).await;
        let mut peers = peers(&broker, seed, if scarce.is_some() { &[1, 3] } else { &[1_000] }).await;
        let mut purges = JoinSet::new();
        for _ in 0..STEPS {
            self.disturb(seed, &broker);
            let at = seed.below(peers.len());
            let requests = self.promises.acts(seed, &mut peers[at]);
            peers[at].client.submit(requests).await;
            if seed.one_in(4) {
                quiet().await;
            }
            if seed.one_in(40) {
                self.promises.purge(seed, &broker.handle, &mut purges).await;
            }
            if seed.one_in(60) {
                self.store.let_go(); // a store that says nothing for 30 s ends the term
                broker.prove();
                tokio::time::sleep(Duration::from_secs(6)).await;
            }
            self.hear(&mut peers).await;
            self.look(seed, &mut peers[at]).await;
            if seed.one_in(40) {
                self.store.let_go();
                broker.prove();
                self.shown += peers[at].looks.shown;
                peers[at].give_way(&broker).await;
            }
        }
        if seed.one_in(2) {
            self.store.set_full(false);
            self.store.let_go();
            broker.prove();
            self.store.calm();
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.hear(&mut peers).await;
            for peer in &peers {
                assert!(peer.awaited.is_empty(), "every frame is answered: {} are not", peer.awaited.len());
            }
            self.pages.let_go();
            while !peers.iter().all(|peer| peer.looks.are_over()) {
                quiet().await;
                self.hear(&mut peers).await;
            }
        }
        self.shown += peers.iter().map(|peer| peer.looks.shown).sum::<u64>();
        broker.crash().await;
        drop(scarce);
        self.promises.are_kept_by(&self.store.ids());
    }

    /// Somebody may want to see what lies in a queue, or have seen enough of it.
    async fn look(&mut self, seed: &mut Rng, peer: &mut Peer) {
        if seed.one_in(8) {
            let begin = peer.looks.begin(seed, &self.promises);
            peer.client.submit([begin]).await;
        }
        if seed.one_in(40) {
            let end = peer.looks.end_one();
            peer.client.submit(end).await;
        }
    }

    async fn hear(&mut self, peers: &mut [Peer]) {
        for peer in peers {
            self.promises.hear(peer).await;
            assert_eq!(peer.closed, None);
        }
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
            17 => self.pages.hold(),
            18..=21 => self.pages.let_go(),
            _ => {}
        }
    }

    /// Everything that is kept is delivered in the end.
    async fn drain(&mut self) {
        self.store.set_full(false);
        self.store.let_go();
        self.store.calm();
        self.pages.let_go();
        let broker = self.start(Meter::unlimited()).await;
        self.promises.are_delivered_by(&broker, self.store.ids()).await;
        broker.crash().await;
    }
}
