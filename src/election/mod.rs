//! Who holds the baton: one broker of a group is master, the others wait.

mod file;

use std::{future::Future, path::PathBuf, time::Duration};

pub use file::{ExclusiveLock, FileLocker, SharedLock, exclusive_lock, share_lock};

/// Decides which broker of a group may become master.
pub trait Locker: Send + 'static {
    /// One attempt, which waits for up to `patience`. `false`: another holder still has it.
    fn acquire(&mut self, patience: Duration) -> impl Future<Output = Result<bool, LockError>> + Send;

    /// Gives the baton back. Best effort: the end of the process gives it back too.
    fn release(&mut self) -> impl Future<Output = Result<(), LockError>> + Send;
}

/// Why it is not known who holds the baton.
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
}
