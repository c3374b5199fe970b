//! Several lives of a journal on one disk, at random: each begins with the recovery of what the last one left, meets a
//! fault at some call or none, and ends by kill -9, power loss or politely. After each start: what was confirmed is
//! there, as it was, in order; what was settled is not; a batch in doubt is there whole or not at all; and what the
//! start accepted, a power loss does not take (R33).
//!
//! `BATONMQ_RUNS` asks for more than the usual number of seeds; 1 repeats the one that failed.

use std::{io, ops::Range, sync::Mutex, thread};

use batonmq::{
    persistence::{CommitError, PersistenceAdapter, journal::JournalAdapter},
    types::{Broken, Priority, Rule, Stored, Tenure},
};

use super::{
    Broker,
    life::{Promised, Threads, open_broken},
    read_all,
    script::Script,
    try_read_line,
};
use crate::harness::{Fault, FaultyDisk, Moment, Rng, number};

/// Seeds of the usual tests.
const RUNS: u64 = 2_000;
const RUNS_WITH_THREADS: u64 = 300;

#[test]
fn promises_survive_random_lives_on_a_bad_disk() {
    live_all(RUNS, Threads::None);
}

/// A crash stops all threads at the same call; which one it falls into is not the seed's choice alone.
#[test]
fn promises_survive_random_lives_with_the_journals_threads() {
    live_all(RUNS_WITH_THREADS, Threads::Some);
}

fn live_all(usual: u64, journal: Threads) {
    let (first, runs) = (number("BATONMQ_SEED").unwrap_or(1), number("BATONMQ_RUNS").unwrap_or(usual));
    let seeds = Mutex::new(first..first + runs);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let met = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| live_through(&seeds, journal))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).fold(Met::default(), Met::with)
    });
    println!("{met:?}");
    met.expect_everything(runs);
}

/// Rules that are broken, and in how many seeds that has to be found.
const MUTATIONS: [(Rule, u64); 3] =
    [(Rule::ReusesSegmentsAtOnce, 1_000), (Rule::CopiesWhatIsSettled, 1_000), (Rule::BelievesTheCache, 1_000)];

/// Only a debug build can break them.
#[cfg(debug_assertions)]
#[test]
fn every_broken_rule_of_the_journal_is_found() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let breaks = |rule: Rule, seed: u64| {
        let lives = Lives { broken: Broken::on_purpose(rule), ..Lives::new(seed, Threads::None) };
        let live = || runtime.block_on(lives.live(&mut Met::default()));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(live)).is_err()
    };
    let found = MUTATIONS.map(|(rule, seeds_max)| (rule, (1..=seeds_max).find(|seed| breaks(rule, *seed))));
    println!("in so many seeds: {found:?}");
    assert!(found.iter().all(|(_, seeds)| seeds.is_some()), "the lives are too weak: {found:?}");
}

/// Takes seeds until there are no more.
fn live_through(seeds: &Mutex<Range<u64>>, journal: Threads) -> Met {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut met = Met::default();
    let next = || seeds.lock().unwrap().next();
    while let Some(seed) = next() {
        let lives = || runtime.block_on(Lives::new(seed, journal).live(&mut met));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(lives));
        assert!(result.is_ok(), "repeat it with BATONMQ_SEED={seed} BATONMQ_RUNS=1");
    }
    met
}

/// What happened in all lives together, so that a test that meets nothing is none.
#[derive(Debug, Default)]
struct Met {
    lives: u64,
    batches: u64,
    pages: u64,
    refused_recoveries: u64,
    undone_batches: u64,
    batches_in_doubt: u64,
    accepted_in_doubt: u64,
    segments_made: u64,
    bytes_copied: u64,
}

impl Met {
    fn with(self, other: Self) -> Self {
        Self {
            lives: self.lives + other.lives,
            batches: self.batches + other.batches,
            pages: self.pages + other.pages,
            refused_recoveries: self.refused_recoveries + other.refused_recoveries,
            undone_batches: self.undone_batches + other.undone_batches,
            batches_in_doubt: self.batches_in_doubt + other.batches_in_doubt,
            accepted_in_doubt: self.accepted_in_doubt + other.accepted_in_doubt,
            segments_made: self.segments_made + other.segments_made,
            bytes_copied: self.bytes_copied + other.bytes_copied,
        }
    }

    fn expect_everything(&self, runs: u64) {
        if runs < 100 {
            return; // one seed need not meet all
        }
        let Self { lives, batches, pages, refused_recoveries, undone_batches, .. } = self;
        let Self { batches_in_doubt, accepted_in_doubt, segments_made, bytes_copied, .. } = self;
        for often in [lives, batches, pages, segments_made, bytes_copied] {
            assert!(*often > runs, "{self:?}");
        }
        for seldom in [refused_recoveries, undone_batches, batches_in_doubt, accepted_in_doubt] {
            assert!(*seldom > runs / 50, "{self:?}");
        }
    }
}

struct Lives {
    seed: u64,
    journal: Threads,
    rng: Rng,
    script: Script,
    disk: FaultyDisk,
    promised: Promised,
    /// What the journal does not keep.
    broken: Broken,
}

impl Lives {
    fn new(seed: u64, journal: Threads) -> Self {
        let mut rng = Rng::new(seed);
        let script = Script::new(Rng::new(rng.next()), 3_000);
        let disk = FaultyDisk::new(Fault::Never, rng.next());
        Self { seed, journal, rng, script, disk, promised: Promised::default(), broken: Broken::default() }
    }

    async fn live(mut self, met: &mut Met) {
        for life in 0..2 + self.rng.below(4) {
            let ends_in_a_batch = self.rng.one_in(3);
            let fault = if ends_in_a_batch { Fault::Never } else { self.fault() };
            let what = format!("seed {}, life {life}, {fault:?}, in its last batch: {ends_in_a_batch}", self.seed);
            self.disk = self.disk.clone().with_fault(fault);
            self.one_life(&what, ends_in_a_batch, met).await;
            met.lives += 1;
            self.disk.stop();
            self.disk = match self.rng.below(2) {
                0 => self.disk.after_kill(),
                _ => self.disk.after_power_loss(self.rng.next()),
            };
        }
        let what = format!("seed {}, at last", self.seed);
        let (broker, found) = self.promised.assert_kept(&self.disk.after_power_loss(self.rng.next()), &what).await;
        assert!(read_all(&broker).await == found, "{what}: there is nothing else");
    }

    /// Most fall into the recovery or soon after it.
    fn fault(&mut self) -> Fault {
        let soon = self.rng.pick(&[8, 30, 100, 400]);
        let call = self.rng.below(soon) as u64;
        let moment = self.rng.pick(&Moment::ALL);
        match self.rng.below(8) {
            0 => Fault::Never,
            1..4 => Fault::Crash(call, moment),
            4 => Fault::FailFrom(call),
            5 => Fault::Fail(call, moment, io::ErrorKind::StorageFull),
            _ => Fault::Fail(call, moment, io::ErrorKind::Other),
        }
    }

    /// The disk goes in the middle of what comes next: a batch is a few calls, so that it is left in doubt.
    fn strike(&mut self) {
        let (call, moment) = (self.rng.below(3) as u64, self.rng.pick(&Moment::ALL));
        self.disk = self.disk.clone().with_fault(Fault::Crash(call, moment));
    }

    async fn one_life(&mut self, what: &str, ends_in_a_batch: bool, met: &mut Met) {
        let mut adapter = open_broken(&self.disk, self.journal, self.broken).0;
        let Ok(catalog) = adapter.recover().await else {
            assert!(self.disk.has_failed(), "{what}: a start needs a reason to be refused");
            met.refused_recoveries += 1;
            return;
        };
        let (_, accepted) = self.promised.assert_kept(&self.disk.after_power_loss(self.rng.next()), what).await;
        assert!(accepted.catalog == catalog, "{what}: what was accepted was made durable");
        let was_in_doubt = self.promised.or.is_some();
        met.accepted_in_doubt += u64::from(was_in_doubt && !accepted.same_but_for_the_tenure(&self.promised.model));
        self.promised = Promised { tenure: accepted.catalog.tenure, model: accepted, ..Promised::default() };

        let tenure = Tenure::default().next_above(catalog.tenure);
        let mut broker = Broker { adapter, catalog, tenure, number: 0 };
        if broker.adapter.raise(tenure).await.is_ok() {
            self.promised.tenure = tenure;
            self.script.new_term(tenure);
            self.serve(&mut broker, what, ends_in_a_batch, met).await;
        }
        let usage = broker.adapter.usage();
        met.segments_made += usage.segments as u64;
        met.bytes_copied += usage.copied_bytes;
        if self.rng.one_in(3) {
            broker.adapter.close().await.unwrap_or_default();
        }
    }

    async fn serve(&mut self, broker: &mut Broker<JournalAdapter>, what: &str, ends_in_a_batch: bool, met: &mut Met) {
        for left in (0..self.rng.below(50)).rev() {
            if ends_in_a_batch && left == 0 {
                self.strike();
            }
            let is_new = self.promised.model.catalog.destinations.is_empty();
            let ops = if is_new { Script::first_batch() } else { self.script.next_batch(&self.promised.model) };
            let mut after = self.promised.model.clone();
            after.apply_all(&ops);
            met.batches += 1;
            match broker.try_commit(ops).await {
                Ok(()) => self.promised.model = after,
                Err(CommitError::Full | CommitError::Again { .. }) => {
                    assert!(self.disk.has_failed(), "{what}: a batch needs a reason to be undone");
                    met.undone_batches += 1;
                    let images = [self.disk.after_kill(), self.disk.after_power_loss(self.rng.next())];
                    for image in images {
                        self.promised.assert_kept(&image, what).await;
                    }
                }
                Err(CommitError::Unknown { .. }) => {
                    met.batches_in_doubt += 1;
                    self.promised.or = Some(after);
                    return;
                }
                Err(error) => panic!("{what}: {error}"),
            }
            if self.rng.one_in(4) {
                met.pages += 1;
                self.read_a_line(broker, what).await;
            }
        }
    }

    /// Reads are calls like others, and what they bring is what was promised.
    async fn read_a_line(&mut self, broker: &Broker<JournalAdapter>, what: &str) {
        let model = &self.promised.model;
        let holders = model.holders();
        if holders.is_empty() {
            return;
        }
        let (holder, priority) = (self.rng.pick(&holders), Priority::clamped(self.rng.below(10) as u8));
        let in_line = |stored: &&Stored| {
            stored.message.priority == priority && stored.holders.iter().any(|held| held.holder == holder)
        };
        match try_read_line(&broker.adapter.reader(), holder, priority).await {
            Ok(found) => assert!(found.iter().eq(model.messages.values().filter(in_line)), "{what}: {holder:?}"),
            Err(error) => assert!(self.disk.has_failed(), "{what}: {error}"),
        }
    }
}
