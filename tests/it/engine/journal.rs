//! Random clients of a broker on a journal whose process is gone at a random call to its disk, by kill -9 or a power
//! loss: what they were told stays true over the lives that follow (promises 1, 2, 4, 5 and 7 of ARCHITECTURE.md, R9,
//! R33). Here time is not paused: the journal has a thread.
//!
//! `BATONMQ_RUNS` asks for more than the usual number of seeds; 1 repeats the one that failed, but for what the threads
//! do in another order.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use batonmq::{
    persistence::{
        MemoryAdapter, MessageReader, PersistenceAdapter,
        journal::{JournalAdapter, JournalOptions, OnPoison},
    },
    types::{Clock, Meter, PageRange, Priority, Sequence, Window},
};
use tokio::task::JoinSet;

use super::{
    broker::Broker,
    pages::Pages,
    promises::{Peer, Promises, options, peers},
};
use crate::harness::{Fault, FaultyDisk, Moment, Rng, number};

/// Seeds of the usual test; each is several lives of one journal.
const RUNS: u64 = 1_000;
const LIVES: u64 = 3;

/// Most lives end before.
const STEPS: u64 = 80;

/// Up to which call to the disk after the start a life goes; in most there are as many and more.
const CALLS: [u64; 3] = [30, 120, 300];

/// Small, so that a short life fills many.
const SEGMENT_BYTES: u64 = 24 << 10;

#[test]
fn promises_hold_whatever_call_to_the_disk_is_the_last() {
    let (first, runs) = (number("BATONMQ_SEED").unwrap_or(1), number("BATONMQ_RUNS").unwrap_or(RUNS));
    let seeds = Mutex::new(first..first + runs);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let met = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| live_through(&seeds))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).fold(Met::default(), Met::with)
    });
    println!("{met:?}");
    if runs >= 100 {
        assert!(met.crashes > runs * LIVES / 2 && met.failures > 0 && met.came_back > runs, "{met:?}");
    }
}

/// Takes seeds until there are no more.
fn live_through(seeds: &Mutex<Range<u64>>) -> Met {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut met = Met::default();
    let next = || seeds.lock().unwrap().next();
    while let Some(seed) = next() {
        let lives = || runtime.block_on(Run::new(seed).live(&mut met));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(lives));
        assert!(result.is_ok(), "repeat it with BATONMQ_SEED={seed} BATONMQ_RUNS=1");
    }
    met
}

/// What happened in all runs together, so that a test that meets nothing is none.
#[derive(Debug, Default)]
struct Met {
    /// Lives that ended in a call to the disk.
    crashes: u64,
    /// Calls that failed.
    failures: u64,
    /// Messages that left memory and came back.
    came_back: u64,
}

impl Met {
    fn with(self, other: Self) -> Self {
        Self {
            crashes: self.crashes + other.crashes,
            failures: self.failures + other.failures,
            came_back: self.came_back + other.came_back,
        }
    }
}

/// Several lives of one journal.
struct Run {
    seed: Rng,
    disk: FaultyDisk,
    pages: Pages,
    promises: Promises,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut seed = Rng::new(seed);
        let disk = FaultyDisk::new(Fault::Never, seed.next());
        Self { seed, disk, pages: Pages::default(), promises: Promises::default() }
    }

    async fn live(mut self, met: &mut Met) {
        for _ in 0..LIVES {
            self.life(met).await;
            self.promises.are_kept_by(&held_on(&self.disk.after_kill()).await);
        }
        met.came_back += self.pages.came_back() as u64;
        let kept = held_on(&self.disk).await;
        let broker = self.start(Meter::unlimited()).await;
        self.promises.are_delivered_by(&broker, kept).await;
        broker.crash().await;
    }

    async fn start(&self, meter: Meter) -> Broker {
        let store = self.pages.of(open(&self.disk));
        Broker::start_at(Clock::start(), store, MemoryAdapter::new(), options(), meter).await
    }

    async fn life(&mut self, met: &mut Met) {
        let meter = Meter::new(1 << 20);
        let scarce = self.seed.one_in(2).then(|| meter.charge(900 << 10));
        self.pages.bring_at_most(self.seed.pick(&[1, 3, 2_000]));
        let broker = self.start(meter).await;
        let mut peers = peers(&broker, &mut self.seed, if scarce.is_some() { &[1, 3] } else { &[1_000] }).await;
        let fault = self.fault();
        self.disk = self.disk.clone().with_fault(fault);
        let has_crashed = self.serve(&broker, &mut peers).await;
        assert!(!has_crashed || self.disk.has_failed(), "a broker needs a reason to end");
        met.crashes += u64::from(has_crashed);
        met.failures += u64::from(self.disk.has_failed() && matches!(fault, Fault::Fail(..)));
        self.disk.stop();
        for peer in &mut peers {
            self.promises.hear(peer).await;
        }
        broker.crash().await;
        self.disk = match self.seed.one_in(2) {
            true => self.disk.after_kill(),
            false => self.disk.after_power_loss(self.seed.next()),
        };
    }

    /// Few calls fail without a crash, because a read that fails is tried again after a second.
    fn fault(&mut self) -> Fault {
        let calls = self.seed.pick(&CALLS);
        let (call, moment) = (self.seed.range(0, calls), self.seed.pick(&Moment::ALL));
        match self.seed.below(24) {
            0 => Fault::Fail(call, moment, io::ErrorKind::Other),
            1 => Fault::Fail(call, moment, io::ErrorKind::StorageFull),
            _ => Fault::Crash(call, moment),
        }
    }

    /// Whether the process was gone before the end.
    async fn serve(&mut self, broker: &Broker, peers: &mut [Peer]) -> bool {
        let mut purges = JoinSet::new();
        for _ in 0..STEPS {
            if self.seed.one_in(40) {
                self.promises.purge(&mut self.seed, &broker.handle, &mut purges).await;
            }
            let at = self.seed.below(peers.len());
            let requests = self.promises.acts(&mut self.seed, &mut peers[at]);
            if !peers[at].client.try_submit(requests).await || self.hear(peers, at).await {
                return true;
            }
        }
        false
    }

    /// Hears them all, and waits for the one that has just asked for something. Whether the process is gone.
    async fn hear(&mut self, peers: &mut [Peer], asked: usize) -> bool {
        if !peers[asked].awaited.is_empty() {
            tokio::select! {
                biased;
                () = self.disk.gone() => return true,
                () = peers[asked].client.something_arrives() => {}
            }
        }
        for peer in peers.iter_mut() {
            self.promises.hear(peer).await;
        }
        peers.iter().any(|peer| peer.closed.is_some())
    }
}

fn open(disk: &FaultyDisk) -> JournalAdapter {
    let stopped = disk.clone();
    let options = JournalOptions {
        disk: Arc::new(disk.clone()),
        segment_bytes: SEGMENT_BYTES,
        fill_in_background: false,
        on_poison: OnPoison::new(move |_, _, _| stopped.stop()), // as the end of the process does
        ..JournalOptions::default()
    };
    JournalAdapter::open(Path::new("/data"), options).unwrap()
}

/// The ids of all that a journal holds.
async fn held_on(disk: &FaultyDisk) -> Vec<String> {
    let mut adapter = open(disk);
    adapter.recover().await.unwrap();
    let reader = adapter.reader();
    let mut ids = Vec::new();
    for holder in reader.holders().await.unwrap() {
        for level in 0..10 {
            let range = PageRange { after: Sequence::ZERO, upto: Sequence::MAX };
            let window = Window { messages: usize::MAX, bytes: usize::MAX };
            let page = reader.page(holder, Priority::clamped(level), range, window).await.unwrap();
            assert!(page.complete);
            ids.extend(page.messages.iter().map(|stored| stored.message.id.to_string()));
        }
    }
    ids
}
