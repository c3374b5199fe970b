//! What the threads of a soak share: where the broker is, what the script says just now, and what happened.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a client waits before it connects again.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);

/// The scene.
pub(crate) struct Stage {
    pub(crate) address: SocketAddr,
    pub(crate) began: Instant,
    /// The broker's process; 0 while there is none.
    pub(crate) pid: AtomicU32,
    /// SENDs that were confirmed.
    confirmed: AtomicU64,
    /// Consumers of queues and one durable subscription stay away.
    consumers_away: AtomicBool,
    disk_full: AtomicBool,
    producers_end: AtomicBool,
    consumers_end: AtomicBool,
    /// What clients were told, by the text of the error.
    told: Mutex<BTreeMap<String, u64>>,
}

impl Stage {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            began: Instant::now(),
            pid: AtomicU32::new(0),
            confirmed: AtomicU64::new(0),
            consumers_away: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            producers_end: AtomicBool::new(false),
            consumers_end: AtomicBool::new(false),
            told: Mutex::default(),
        }
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// A stretch of the script begins.
    pub(crate) fn begin(&self, consumers_away: bool, disk_full: bool) {
        self.consumers_away.store(consumers_away, Ordering::Relaxed);
        self.disk_full.store(disk_full, Ordering::Relaxed);
    }

    pub(crate) fn disk_is_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    pub(crate) fn consumers_are_away(&self) -> bool {
        self.consumers_away.load(Ordering::Relaxed)
    }

    pub(crate) fn end_producers(&self) {
        self.producers_end.store(true, Ordering::Relaxed);
    }

    pub(crate) fn producers_go_on(&self) -> bool {
        !self.producers_end.load(Ordering::Relaxed)
    }

    pub(crate) fn end_consumers(&self) {
        self.consumers_end.store(true, Ordering::Relaxed);
    }

    pub(crate) fn consumers_go_on(&self) -> bool {
        !self.consumers_end.load(Ordering::Relaxed)
    }

    pub(crate) fn note_confirmed(&self, sends: u64) {
        self.confirmed.fetch_add(sends, Ordering::Relaxed);
    }

    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// A client's connection ended; it will connect again.
    pub(crate) fn lost(&self, who: &str, why: &std::io::Error) {
        *self.told().entry(format!("{who}: {why}")).or_default() += 1;
        thread::sleep(RECONNECT_AFTER);
    }

    /// What clients were told, and how often.
    pub(crate) fn told(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A small generator, so that a seed repeats what clients choose.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }

    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
