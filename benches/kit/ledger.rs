//! What is known of every message of a lane, and what must never be seen.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use anyhow::ensure;

use super::Label;

/// The broker has confirmed the SEND.
const CONFIRMED: u8 = 1;
/// It came from its destination.
const DELIVERED: u8 = 2;
/// It came from the dead letters.
const DEAD: u8 = 4;
/// The broker has confirmed its ACK.
const SETTLED: u8 = 8;
/// An ACK of it was sent; until that is confirmed it may have arrived or not.
const ACKED: u8 = 16;
/// It may be lost: not persistent, and the broker was killed.
const FORGIVEN: u8 = 32;
/// More of them tell nothing new.
const WRONGS_KEPT: usize = 10;

/// Who is told what a consumer sees.
pub(crate) trait Witness: Sync {
    /// A message came.
    fn delivered(&self, label: Label, is_redelivered: bool);
    /// An ACK of these is about to be sent.
    fn acked(&self, labels: &[Label]);
    /// The broker has confirmed the ACK of these.
    fn settled(&self, labels: &[Label]);
    /// Something came that must never be seen.
    fn wrong(&self, what: String);
}

/// The messages of one lane, or of one durable subscription to it.
pub(crate) struct Ledger {
    pub(crate) name: &'static str,
    lane: u8,
    /// What is known of each message, by producer and number.
    known: Vec<Mutex<Vec<u8>>>,
    confirmed: AtomicU64,
    settled: AtomicU64,
    /// Messages that were marked as redelivered when they came first.
    marked_at_first: AtomicU64,
    wrongs: Mutex<Wrongs>,
}

#[derive(Default)]
struct Wrongs {
    count: u64,
    first: Vec<String>,
}

/// What a ledger holds at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) confirmed: u64,
    pub(crate) settled: u64,
    /// Confirmed and acknowledged, but nobody knows whether the ACK has arrived: its connection was lost.
    pub(crate) in_doubt: u64,
    /// Confirmed and never acknowledged, not forgiven.
    pub(crate) missing: u64,
}

impl Ledger {
    pub(crate) fn new(name: &'static str, lane: u8, producers: u8) -> Self {
        let known = (0..producers).map(|_| Mutex::default()).collect();
        let [confirmed, settled, marked_at_first] = [const { AtomicU64::new(0) }; 3];
        Self { name, lane, known, confirmed, settled, marked_at_first, wrongs: Mutex::default() }
    }

    /// The label of a producer's next message.
    pub(crate) fn next(&self, producer: u8) -> Label {
        let mut known = self.known(producer);
        known.push(0);
        Label { lane: self.lane, producer, number: u32::try_from(known.len() - 1).unwrap_or(u32::MAX) }
    }

    /// The broker has confirmed the SENDs of these.
    pub(crate) fn confirmed(&self, labels: &[Label]) {
        for label in labels {
            self.note(*label, CONFIRMED);
        }
        self.confirmed.fetch_add(labels.len() as u64, Ordering::Relaxed);
    }

    /// How many SENDs of this producer the broker has confirmed.
    pub(crate) fn confirmed_by(&self, producer: u8) -> u64 {
        self.known(producer).iter().filter(|known| **known & CONFIRMED != 0).count() as u64
    }

    /// How many SENDs the broker has confirmed.
    pub(crate) fn confirmed_count(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// How many are settled; a message that was settled twice counts twice.
    pub(crate) fn settled_count(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// What is not settled now may be lost.
    pub(crate) fn forgive(&self) {
        for known in &self.known {
            lock(known).iter_mut().for_each(|known| *known |= FORGIVEN);
        }
    }

    /// A message of this lane came from the dead letters.
    pub(crate) fn delivered_dead(&self, label: Label, is_redelivered: bool) {
        self.came(label, DEAD, is_redelivered);
    }

    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for known in &self.known {
            for known in lock(known).iter() {
                let is = |fact| *known & fact != 0;
                tally.sent += 1;
                tally.confirmed += u64::from(is(CONFIRMED));
                tally.settled += u64::from(is(SETTLED));
                tally.in_doubt += u64::from(is(CONFIRMED) && is(ACKED) && !is(SETTLED));
                tally.missing += u64::from(is(CONFIRMED) && !is(ACKED) && !is(FORGIVEN));
            }
        }
        tally
    }

    /// How often something came that must never be seen, and the first of it.
    pub(crate) fn wrongs(&self) -> (u64, Vec<String>) {
        let wrongs = lock(&self.wrongs);
        (wrongs.count, wrongs.first.clone())
    }

    /// What was confirmed has come, and nothing came that must not.
    pub(crate) fn verify(&self) -> anyhow::Result<()> {
        let (count, first) = self.wrongs();
        ensure!(count == 0, "{count} times something came that must not, such as: {}", first.join("; "));
        let tally = self.tally();
        ensure!(tally.missing == 0, "{}: {} confirmed messages are missing: {tally:?}", self.name, tally.missing);
        Ok(())
    }

    /// As [`Ledger::verify`]; and nobody was told of an earlier delivery, because there can't have been any.
    pub(crate) fn verify_first_deliveries(&self) -> anyhow::Result<()> {
        let marked = self.marked_at_first.load(Ordering::Relaxed);
        ensure!(marked == 0, "{}: {marked} messages that nobody had before were marked as redelivered", self.name);
        self.verify()
    }

    fn came(&self, label: Label, from: u8, is_redelivered: bool) {
        match self.note(label, from) {
            None => self.wrong(format!("{label:?} was never sent")),
            Some(known) if known & SETTLED != 0 => {
                self.wrong(format!("{label:?} came again after its ACK was confirmed"));
            }
            Some(known) if known & from != 0 && !is_redelivered => {
                self.wrong(format!("{label:?} came before and is not marked as redelivered"));
            }
            Some(known) if known & from == 0 && is_redelivered => {
                self.marked_at_first.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {}
        }
    }

    /// Adds a fact; what was known before, if there is such a message.
    fn note(&self, label: Label, fact: u8) -> Option<u8> {
        let known = self.known.get(usize::from(label.producer)).filter(|_| label.lane == self.lane)?;
        let mut known = lock(known);
        let known = known.get_mut(usize::try_from(label.number).ok()?)?;
        let before = *known;
        *known |= fact;
        Some(before)
    }

    fn known(&self, producer: u8) -> MutexGuard<'_, Vec<u8>> {
        lock(self.known.get(usize::from(producer)).expect("the ledger was made for so many producers"))
    }
}

impl Witness for Ledger {
    fn delivered(&self, label: Label, is_redelivered: bool) {
        self.came(label, DELIVERED, is_redelivered);
    }

    fn acked(&self, labels: &[Label]) {
        for label in labels {
            self.note(*label, ACKED);
        }
    }

    fn settled(&self, labels: &[Label]) {
        for label in labels {
            self.note(*label, SETTLED);
        }
        self.settled.fetch_add(labels.len() as u64, Ordering::Relaxed);
    }

    fn wrong(&self, what: String) {
        let mut wrongs = lock(&self.wrongs);
        wrongs.count += 1;
        if wrongs.first.len() < WRONGS_KEPT {
            wrongs.first.push(format!("{}: {what}", self.name));
        }
    }
}

/// A thread that panicked has left whole values: every change here is one store.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
