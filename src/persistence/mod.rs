//! The durable state of a broker group, behind one trait.
//!
//! An adapter only tries: what follows an error (raise, repeat, bisect, settles alone, resume: R10 to R14) is the
//! writer's business (`engine/writer.rs`), written once for all adapters. The behaviour suite in `tests/it/` is the
//! definition of the trait; an adapter is done when it passes.

mod footprint;
pub mod journal;
mod memory;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
mod spool;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod sql;
mod timed;

use std::{error::Error, future::Future, io, path::PathBuf, sync::Arc};

pub use footprint::{Footprint, footprint};
pub use memory::{MemoryAdapter, MemoryReader, MemoryStore};
#[cfg(feature = "mysql")]
pub use mysql::{MysqlAdapter, MysqlReader};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresAdapter, PostgresReader};
pub use spool::{SpoolAdapter, SpoolReader};
pub use timed::{CommitHistograms, TimedAdapter};

pub use crate::types::{Backlog, DueMessage, DuePage, DueReason, Page, PageRange, Window};
use crate::{
    db::{ConnectError, SchemaError},
    types::{Batch, Catalog, Holder, Priority, Sequence, Tenure, Timestamp},
};

/// The durable state of one broker group, as seen by the broker that holds the baton.
pub trait PersistenceAdapter: Send + 'static {
    /// What reads beside the writer.
    type Reader: MessageReader;

    /// Everything but messages: destinations, durable subscriptions, marks, the highest tenure seen. What it accepts
    /// is durable before it returns (R33). Called once, before anything else.
    fn recover(&mut self) -> impl Future<Output = Result<Catalog, StoreError>> + Send;

    /// Proves and raises term and token (R11, R17), durably. `Err(Deposed)`: the store has seen a tenure that is not
    /// below this one.
    fn raise(&mut self, to: Tenure) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// All of `batch` or nothing, durable on return, under the token of the last `raise`. A batch without operations
    /// makes nothing durable; it gives the store a turn for its own housekeeping.
    fn try_commit(&mut self, batch: &Arc<Batch>) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// A cheap clone that reads beside the writer.
    fn reader(&self) -> Self::Reader;

    /// What a SEND is checked against at the door.
    fn limits(&self) -> StoreLimits;

    /// Ends the adapter; a polite end saves time at the next start, never data.
    fn close(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Reads messages beside the writer.
///
/// What a batch does that is committed while a read is under way, the read shows or does not: the caller remembers such
/// settles and purges until it has the answer (R26).
pub trait MessageReader: Clone + Send + Sync + 'static {
    /// Up to one `window` of the messages of one priority that `holder` still holds, oldest first. Every insert in the
    /// range is durable already: the caller sees to it (R25).
    fn page(
        &self,
        holder: Holder,
        priority: Priority,
        range: PageRange,
        window: Window,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// Up to one `window` of what comes due by `before`, in the order of time and sequence, beginning behind `after`:
    /// messages that expire, and parts of messages that return after a delay ([`crate::types::Held::due`]). What is due
    /// at one time for one message comes in one page, whatever the window says.
    fn due(
        &self,
        before: Timestamp,
        after: (Timestamp, Sequence),
        window: Window,
    ) -> impl Future<Output = Result<DuePage, StoreError>> + Send;

    /// Everybody who held something when the store was recovered, in order; the catalog need not know them.
    fn holders(&self) -> impl Future<Output = Result<Vec<Holder>, StoreError>> + Send;

    /// What a holder held when the store was recovered; later batches do not change it (R28).
    fn backlog(&self, holder: Holder) -> impl Future<Output = Result<Backlog, StoreError>> + Send;
}

/// What a store can't hold; checked at the door, so that a sender hears of it before anything is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// A message's body, properties, texts and names together. Unit: bytes.
    pub message_bytes_max: usize,
}

/// Why the store can't be opened, read or raised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// This term is over.
    #[error("somebody else holds the baton")]
    Deposed,
    /// Bytes that were durable are bad; no record may be skipped in silence.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the bad bytes begin.
        offset: u64,
        /// What is wrong with them.
        what: &'static str,
    },
    /// Written by a newer version.
    #[error("{path} has format {found}, and this version reads formats up to {supported}")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this version reads.
        supported: u32,
    },
    /// The file system lacks a call.
    #[error("the file system cannot {call} {path}")]
    Unfit {
        /// What it can't do.
        call: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The operating system refuses.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
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
    /// The adapter's own thread or connection is gone.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether it passes by itself as a rule: the database is away, or busy.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::Failed { .. }) | Self::Database { .. })
    }

    /// What a human can do about it.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Damaged { .. } => "restore the data directory from a copy",
            Self::NewerFormat { .. } => "start the newer version of batonmq again",
            Self::Unfit { .. } => "keep data on a local file system, such as ext4 or XFS",
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "make room on the disk; a new journal needs two store.segment_bytes",
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "give the user that runs the broker access to it"
                }
                _ => "check the disk and the option data",
            },
            Self::Connect(error) => error.fix(),
            Self::Schema(error) => error.fix(),
            Self::Database { .. } => "look into the database's own log",
            Self::Deposed => "start the broker again; it will wait for the one that is master now",
            Self::Closed => "the log says why; start the broker again",
        }
    }
}

/// Why a batch is not known to be durable; the writer decides differently on each (R10 to R14).
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// This term is over: confirm nothing.
    #[error("somebody else holds the baton")]
    Deposed,
    /// Bisect: the sender of the part it refuses gets ERROR, the others go on (R13).
    #[error("the store refuses the batch")]
    Refused {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Certainly not written: settles first, inserts wait (R14).
    #[error("the store is full")]
    Full,
    /// Certainly not written (deadlock, certification): the same batch under the same token.
    #[error("the store asks to try again")]
    Again {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No batch can be written until a human has mended the store: this term is over.
    #[error("the store can't be used")]
    Unusable(#[from] SchemaError),
    /// The connection died: raise the token, then repeat (R11).
    #[error("the outcome is unknown")]
    Unknown {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}
