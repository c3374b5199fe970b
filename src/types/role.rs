//! What a broker process is at the moment.

use super::{Term, Timestamp};

/// What a broker process is at the moment. `node` alone decides it; health checks, the log, metrics and the service
/// manager are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Neither a standby nor serving: the process starts, or it has the baton and reads its store.
    Starting,
    /// Another broker is the master; client ports are closed.
    Standby,
    /// The master, with open doors.
    Master {
        /// Of this tenure.
        term: Term,
        /// When the doors were opened.
        since: Timestamp,
    },
    /// The master, while it is in doubt whether it still is: nothing is handed out or confirmed (R24).
    Paused {
        /// Of this tenure.
        term: Term,
        /// When it paused.
        since: Timestamp,
    },
    /// It was asked to stop, or has to.
    Stopping,
}

impl Role {
    /// Every name that a role may have, in the order of a life.
    pub const NAMES: [&'static str; 5] = ["starting", "standby", "master", "paused", "stopping"];

    /// As it stands in answers and labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Master { .. } => "master",
            Self::Paused { .. } => "paused",
            Self::Stopping => "stopping",
        }
    }

    /// Whether clients are served.
    #[must_use]
    pub fn is_serving(self) -> bool {
        matches!(self, Self::Master { .. })
    }

    /// Whether the process does what it was started for: it serves, or waits for its turn.
    #[must_use]
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Master { .. } | Self::Standby)
    }

    /// The term that this process holds.
    #[must_use]
    pub fn term(self) -> Option<Term> {
        match self {
            Self::Master { term, .. } | Self::Paused { term, .. } => Some(term),
            Self::Starting | Self::Standby | Self::Stopping => None,
        }
    }

    /// Since when it is what it is, where that is told.
    #[must_use]
    pub fn since(self) -> Option<Timestamp> {
        match self {
            Self::Master { since, .. } | Self::Paused { since, .. } => Some(since),
            Self::Starting | Self::Standby | Self::Stopping => None,
        }
    }
}
