//! Who holds the baton: one broker of a group is the master, the others wait.
//!
//! `file.rs` elects by a lock on a file, `elector.rs` among brokers on one database: what they do is written once, over
//! what a [`database::LockSession`] can do there; `keeper.rs` keeps the baton for a term, and `presence.rs` tells the
//! others that this process is alive. What stands for the baton there is a session's lock (`session_lock.rs`) or a row
//! (`lease.rs`); both are written once, over what each database is asked on a [`line::Line`].
//! Always true: whoever has a [`Baton`] was the only one when it got it. What happens since, its mandate tells.

pub mod database;
mod elector;
mod file;
mod keeper;
mod lease;
pub mod line;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
mod presence;
mod session_lock;
mod survey;

use std::{error::Error, fmt, future::Future, hash::BuildHasher, path::PathBuf, sync::Arc, time::Duration};

pub use elector::DatabaseLocker;
pub use file::{ExclusiveLock, FileLocker, SharedLock, exclusive_lock, lock_note, share_lock};
pub use lease::{LeaseSession, LeaseTable};
pub use presence::{Presence, Sign};
pub use session_lock::{SessionLock, SessionLockSession};
pub use survey::{BrokerSeen, Survey, TenureSeen};

use self::{file::HeldFile, keeper::Keeping};
use crate::{
    db::{ConnectError, SchemaError},
    types::{Mandate, Tenure},
};

/// Of the name of a group's lock.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub const LOCK_PURPOSE: &str = "baton";

/// Decides which broker of a group may become master.
pub trait Locker: Send + 'static {
    /// Whether a later master is safe from what this process still writes. If not, a term that failed is the end of the
    /// process, and the baton goes with it.
    const FENCES: bool;

    /// One attempt, which waits for up to `patience`, or a few seconds longer where a head start is given (R20).
    /// `None`: another holder still has it. Cancel safe.
    fn acquire(&mut self, patience: Duration) -> impl Future<Output = Result<Option<Baton>, LockError>> + Send;

    /// What there is to hold, for messages: `the data directory ./data`.
    fn what(&self) -> String;
}

/// What a master holds for a term. Dropping it gives it back without a word.
#[derive(Debug)]
pub struct Baton {
    tenure: Option<Tenure>,
    mandate: Mandate,
    held: Held,
}

#[derive(Debug)]
enum Held {
    File(HeldFile),
    Session(Keeping),
}

impl Baton {
    /// What the take-over made of term and token. `None`: the store's own records decide.
    #[must_use]
    pub fn tenure(&self) -> Option<Tenure> {
        self.tenure
    }

    /// What the term stands on.
    #[must_use]
    pub fn mandate(&self) -> &Mandate {
        &self.mandate
    }

    /// Gives the baton back at once, and notes why. Best effort: the end of the process gives it back too.
    ///
    /// # Errors
    /// [`LockError`] if it is not known that it was given back.
    pub async fn release(self, why: &str) -> Result<(), LockError> {
        match self.held {
            Held::File(file) => file.unlock(),
            Held::Session(keeping) => {
                keeping.end(why).await;
                Ok(())
            }
        }
    }
}

/// A broker process, as the others of its group see it. Clones are the same process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderId {
    /// Its `broker_name`.
    pub broker: Arc<str>,
    /// Its own as long as it runs, even if another broker has the same name.
    pub instance: Arc<str>,
}

impl HolderId {
    /// This process, under a name.
    #[must_use]
    pub fn new(broker: &str) -> Self {
        let chance = std::hash::RandomState::new().hash_one(std::process::id());
        Self { broker: broker.into(), instance: format!("{chance:016x}").into() }
    }
}

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.broker, self.instance)
    }
}

/// How long the baton may be held without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease(Duration);

impl Lease {
    /// A lease of this length. Range: 2 s to 5 min; the configuration was checked.
    #[must_use]
    pub const fn new(length: Duration) -> Self {
        Self(length)
    }

    /// All of it, as the database counts.
    #[must_use]
    pub fn length(self) -> Duration {
        self.0
    }

    /// The holder says a word this often. Four may be late or lost in a row.
    #[must_use]
    pub fn heartbeat(self) -> Duration {
        self.0 / 5
    }

    /// For so long after it asked may the holder rely on an answer: the rest is a margin for clocks that run unevenly and
    /// for what is on its way to a socket.
    #[must_use]
    pub fn relied_on(self) -> Duration {
        self.0 - self.0 / 5
    }
}

/// Why it is not known who holds the baton, or why it can't be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// This user may not use the lock file or its directory; a human can mend that.
    #[error("no permission to write {path}; run the broker as the owner of its data directory")]
    Denied {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The lock file can't be used.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no connection to the database.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The tables in the database can't be used.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The database fails.
    #[error("the database fails at {action}")]
    Database {
        /// What was tried: for a statement, the name of its file in `sql/`.
        action: &'static str,
        /// What the database said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Somebody else wrote the same rows, on another server of a cluster: the transaction was undone whole.
    #[error("another broker was faster")]
    Outrun {
        /// What the database said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The lock was won, and the row of the baton can't be had.
    #[error("a session that is no broker's holds the row of the baton")]
    Stuck,
}

impl LockError {
    /// Whether waiting does not help: a human has to change something first.
    #[must_use]
    pub fn needs_a_human(&self) -> bool {
        match self {
            Self::Denied { .. } | Self::Io { .. } => true,
            Self::Connect(error) => error.needs_a_human(),
            Self::Schema(error) => !matches!(error, SchemaError::Failed { .. }),
            Self::Database { .. } | Self::Outrun { .. } | Self::Stuck => false,
        }
    }

    /// What a human can do about it.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Denied { .. } | Self::Io { .. } => "",
            Self::Connect(error) => error.fix(),
            Self::Schema(error) => error.fix(),
            Self::Database { .. } | Self::Outrun { .. } => "look into the database's own log",
            Self::Stuck => "find it (pg_blocking_pids, or information_schema.innodb_trx), and end it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r22_a_lease_is_relied_on_for_less_than_it_lasts() {
        for seconds in [2, 10, 300] {
            let lease = Lease::new(Duration::from_secs(seconds));
            assert!(lease.relied_on() < lease.length());
            assert!(lease.heartbeat() * 3 < lease.relied_on(), "some heartbeats may be lost");
        }
        assert_eq!(Lease::new(Duration::from_secs(10)).relied_on(), Duration::from_secs(8));
    }

    #[test]
    fn two_processes_of_one_name_are_told_apart() {
        let (one, two) = (HolderId::new("orders"), HolderId::new("orders"));
        assert_eq!(one.broker, two.broker);
        assert_ne!(one.instance, two.instance);
        assert_eq!(one.instance.len(), 16);
    }
}
