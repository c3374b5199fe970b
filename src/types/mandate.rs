//! What a master stands on: what is known of its lock, and until when that may be relied on.
//!
//! Whoever keeps the lock tells; the engine, the sessions and the doors ask. A mandate belongs to one term.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

/// How long a term outlives a store that takes nothing, and a lock that can't be had back.
pub const OUTAGE_PATIENCE: Duration = Duration::from_secs(30);

/// While a lease has run out, it is looked at this often.
const LEASE_LOOK: Duration = Duration::from_millis(50);

/// What is known of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Footing {
    /// It is held.
    Firm,
    /// It may be gone, and may come back: pause (R24).
    Doubtful,
    /// It is gone, and the term with it; why.
    Lost(Arc<str>),
}

/// The term is over: somebody else may hold the baton.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the baton is lost: {0}")]
pub struct BatonLost(pub Arc<str>);

/// A time that goes on while the machine sleeps, and knows no steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(u64);

impl BootTime {
    /// Reads `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let millis = |seconds: u64, nanos: u64| seconds * 1_000 + nanos / 1_000_000;
        Self(millis(u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0)))
    }

    /// This point in time and `duration`, rounded down: a lease must not last longer than it was given.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long it is from here until `later`; nothing if that is past.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

/// Where boot times come from: the machine, unless a simulation sets them. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct BootClock(Option<Arc<AtomicU64>>);

impl BootClock {
    /// A clock that stands still until it is set.
    #[must_use]
    pub fn simulated() -> Self {
        Self(Some(Arc::default()))
    }

    /// Sets a simulated clock; the machine's goes on as it does. Unit: milliseconds.
    pub fn set(&self, millis: u64) {
        if let Some(time) = &self.0 {
            time.store(millis, Ordering::Release);
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> BootTime {
        self.0.as_ref().map_or_else(BootTime::now, |time| BootTime(time.load(Ordering::Acquire)))
    }
}

/// A term's right to act as the master. Clones share it.
#[derive(Clone, Debug)]
pub struct Mandate {
    known: watch::Receiver<Known>,
    lease: Arc<AtomicU64>,
    clock: BootClock,
    /// What keeps a mandate that nobody takes away.
    _keeper: Option<Arc<MandateKeeper>>,
}

/// The other end of a [`Mandate`]; when it is dropped, the mandate is lost.
#[derive(Debug)]
pub struct MandateKeeper {
    known: watch::Sender<Known>,
    lease: Arc<AtomicU64>,
}

/// What is told of a lock.
#[derive(Debug)]
struct Known {
    footing: Footing,
    /// How often it came into doubt.
    doubts: u64,
}

/// Stands for a lease without an end.
const NO_END: u64 = u64::MAX;

impl Mandate {
    /// Of a lock that can't be lost while the process lives.
    #[must_use]
    pub fn permanent() -> Self {
        let (keeper, mandate) = Self::until(BootTime(NO_END));
        Self { _keeper: Some(Arc::new(keeper)), ..mandate }
    }

    /// Of a lock that was proven, and may be relied on until `end`.
    #[must_use]
    pub fn until(end: BootTime) -> (MandateKeeper, Self) {
        Self::until_by(BootClock::default(), end)
    }

    /// The same by this clock.
    #[must_use]
    pub fn until_by(clock: BootClock, end: BootTime) -> (MandateKeeper, Self) {
        let (told, known) = watch::channel(Known { footing: Footing::Firm, doubts: 0 });
        let lease = Arc::new(AtomicU64::new(end.0));
        let mandate = Self { known, lease: Arc::clone(&lease), clock, _keeper: None };
        (MandateKeeper { known: told, lease }, mandate)
    }

    /// What is known of the lock now.
    #[must_use]
    pub fn footing(&self) -> Footing {
        self.known.borrow().footing.clone()
    }

    /// How often it came into doubt: whoever has to do something after a doubt must not miss one that was short.
    #[must_use]
    pub fn doubts(&self) -> u64 {
        self.known.borrow().doubts
    }

    /// Waits until something else is known of the lock. Cancel safe.
    pub async fn changed(&mut self) {
        if self.known.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the lease has not run out: what may leave for clients leaves only then.
    #[must_use]
    pub fn holds(&self) -> bool {
        let end = self.lease.load(Ordering::Acquire);
        end == NO_END || self.clock.now().0 < end
    }

    /// Waits until the lease holds.
    ///
    /// # Errors
    /// [`BatonLost`]: it never will again.
    pub async fn until_it_holds(&self) -> Result<(), BatonLost> {
        while !self.holds() {
            if let Footing::Lost(why) = &self.known.borrow().footing {
                return Err(BatonLost(Arc::clone(why)));
            }
            sleep(LEASE_LOOK).await;
        }
        Ok(())
    }
}

impl MandateKeeper {
    /// The lock was proven to be held; that may be relied on until `end`.
    pub fn prove(&self, end: BootTime) {
        if !matches!(self.known.borrow().footing, Footing::Lost(_)) {
            self.lease.store(end.0, Ordering::Release);
        }
        self.tell(Footing::Firm);
    }

    /// The lock may be gone. What was proven before still counts until its end.
    pub fn doubt(&self) {
        self.tell(Footing::Doubtful);
    }

    /// The lock is gone, for good.
    pub fn lose(&self, why: &str) {
        self.lease.store(0, Ordering::Release);
        self.tell(Footing::Lost(why.into()));
    }

    fn tell(&self, footing: Footing) {
        self.known.send_if_modified(|known| {
            let is_over = matches!(known.footing, Footing::Lost(_));
            let changes = !is_over && known.footing != footing;
            if changes {
                known.doubts += u64::from(footing == Footing::Doubtful);
                known.footing = footing;
            }
            changes
        });
    }
}

impl Drop for MandateKeeper {
    fn drop(&mut self) {
        self.lose("nobody keeps its lock any more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r24_a_mandate_holds_as_long_as_it_was_proven() {
        let (keeper, mandate) = Mandate::until(BootTime::now().after(Duration::from_secs(60)));
        assert!(mandate.holds());
        keeper.prove(BootTime::now());
        assert!(!mandate.holds(), "the end is not within it");
        assert_eq!(mandate.footing(), Footing::Firm, "nobody doubts it yet");
        keeper.doubt();
        keeper.prove(BootTime::now().after(Duration::from_secs(60)));
        assert!(mandate.holds());
        assert_eq!(mandate.footing(), Footing::Firm);
    }

    #[tokio::test]
    async fn r24_what_is_lost_stays_lost() {
        let (keeper, mut mandate) = Mandate::until(BootTime::now().after(Duration::from_secs(60)));
        keeper.lose("somebody took over");
        mandate.changed().await;
        keeper.prove(BootTime::now().after(Duration::from_secs(60)));
        assert_eq!(mandate.footing(), Footing::Lost("somebody took over".into()));
        assert!(!mandate.holds());
        drop(keeper);
        assert_eq!(mandate.footing(), Footing::Lost("somebody took over".into()));
    }

    #[tokio::test]
    async fn a_mandate_that_nobody_keeps_is_lost() {
        let (keeper, mut mandate) = Mandate::until(BootTime::now().after(Duration::from_secs(60)));
        drop(keeper);
        mandate.changed().await;
        assert!(matches!(mandate.footing(), Footing::Lost(_)));
        assert!(!mandate.holds());
        assert!(mandate.until_it_holds().await.is_err());
        assert!(Mandate::permanent().holds());
    }
}
