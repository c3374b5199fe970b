//! Who holds the baton: one broker of a group is master, the others wait.

// mod file;

use std::{future::Future, path::PathBuf, time::Duration};

// pub use file::FileLocker;

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
