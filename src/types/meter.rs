//! How much memory a term uses, and for how much it may (R31).
//!
//! Whoever takes memory holds a [`Charge`] beside it, so that the count is right without anybody's books.
//! Always true: what is in use is the sum of the charges that live. A meter refuses nothing: who can wait asks
//! [`Meter::is_full`] first.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Counts the bytes in use against a limit. Clones share the count.
#[derive(Clone, Debug)]
pub struct Meter {
    gauge: Arc<Gauge>,
}

#[derive(Debug)]
struct Gauge {
    limit: usize,
    in_use: AtomicUsize,
    /// The count has fallen below the limit.
    fallen: Notify,
}

impl Meter {
    /// Nothing is in use. Unit of `limit`: bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { gauge: Arc::new(Gauge { limit, in_use: AtomicUsize::new(0), fallen: Notify::new() }) }
    }

    /// A meter that is never full.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// Counts so many bytes for as long as the charge lives.
    #[must_use]
    pub fn charge(&self, bytes: usize) -> Charge {
        self.gauge.add(bytes);
        Charge { meter: self.clone(), bytes }
    }

    /// Unit: bytes.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.gauge.in_use.load(Ordering::Relaxed)
    }

    /// Unit: bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.gauge.limit
    }

    /// Whether the limit is reached.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.in_use() >= self.limit()
    }

    /// Waits until the meter is not full. Cancel safe.
    pub async fn room(&self) {
        loop {
            let fallen = self.gauge.fallen.notified(); // before the look, so that nothing is missed after it
            if !self.is_full() {
                return;
            }
            fallen.await;
        }
    }
}

impl Gauge {
    fn add(&self, bytes: usize) {
        self.in_use.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take_off(&self, bytes: usize) {
        let before = self.in_use.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.limit && before - bytes < self.limit {
            self.fallen.notify_waiters();
        }
    }
}

/// Bytes that are in use until this is dropped.
#[derive(Debug)]
pub struct Charge {
    meter: Meter,
    bytes: usize,
}

impl Charge {
    /// It is for so many bytes from now on.
    pub fn resize(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.meter.gauge.add(more),
            None => self.meter.gauge.take_off(self.bytes - bytes),
        }
        self.bytes = bytes;
    }

    /// Unit: bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Who counts it.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.meter.gauge.take_off(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[test]
    fn r31_what_is_charged_counts_while_the_charge_lives() {
        let meter = Meter::new(100);
        let mut one = meter.charge(60);
        let other = meter.clone().charge(40);
        assert_eq!((meter.in_use(), meter.is_full()), (100, true));
        one.resize(10);
        assert_eq!((meter.in_use(), meter.is_full()), (50, false));
        one.resize(30);
        drop(other);
        assert_eq!(meter.in_use(), 30);
        drop(one);
        assert_eq!(meter.in_use(), 0);
    }

    #[tokio::test]
    async fn r31_who_waits_for_room_is_woken_when_there_is_some() {
        let meter = Meter::new(100);
        meter.room().await;
        let (first, second) = (meter.charge(100), meter.charge(50));
        let mut waiting = JoinSet::new();
        for meter in [meter.clone(), meter.clone()] {
            waiting.spawn(async move { meter.room().await });
        }
        tokio::task::yield_now().await;
        drop(second);
        tokio::task::yield_now().await;
        assert!(waiting.try_join_next().is_none(), "it is full still");
        drop(first);
        assert_eq!(waiting.join_all().await.len(), 2);
    }
}
