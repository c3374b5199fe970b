//! Time as the core sees it: a number that is handed in.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// A point in time. Unit: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This point in time and `duration`, whole milliseconds, rounded up so that nothing comes due early.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long it is from `earlier` to this; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The wall clock at the start, and the monotonic clock since.
///
/// Always true: `now` never goes back, whatever happens to the machine's clock. A step of the wall clock is followed
/// only at the next start; delays and deadlines are right meanwhile. The monotonic clock is the runtime's, so that
/// tests may pause it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    wall_at_start: Timestamp,
}

impl Clock {
    /// Reads the wall clock once.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX); // rounded down: nothing expires early
        Self::start_at(Timestamp(millis))
    }

    /// Goes on from this time.
    #[must_use]
    pub fn start_at(wall: Timestamp) -> Self {
        Self { started: Instant::now(), wall_at_start: wall }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.wall_at_start.0.saturating_add(elapsed))
    }

    /// How long it has run.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The monotonic instant at which `now` will be `at`.
    #[must_use]
    pub fn instant_of(&self, at: Timestamp) -> Instant {
        self.started + at.since(self.wall_at_start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_rounded_up() {
        assert_eq!(Timestamp(5).after(Duration::from_micros(1)), Timestamp(6));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
    }

    #[test]
    fn the_clock_never_goes_back() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(clock.instant_of(first.after(Duration::from_secs(1))) > Instant::now());
    }
}
