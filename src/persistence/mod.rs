//! The durable state of a broker group, behind one trait.
//!
//! An adapter only tries: what follows an error (raise, repeat, bisect, settles alone, resume: R10 to R14) is the
//! writer's business (`engine/writer.rs`), written once for all adapters. The behaviour suite in `tests/it/` is the
//! definition of the trait; an adapter is done when it passes.

pub mod journal;
mod memory;

use std::{error::Error, future::Future, io, path::PathBuf, sync::Arc};

pub use memory::{MemoryAdapter, MemoryReader, MemoryStore};

use crate::types::{Batch, Catalog, DestinationId, Priority, Sequence, Stored, Tenure};

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

    /// All of `batch` or nothing, durable on return, under the token of the last `raise`.
    fn try_commit(&mut self, batch: &Arc<Batch>) -> impl Future<Output = Result<Committed, CommitError>> + Send;

    /// A cheap clone that reads beside the writer.
    fn reader(&self) -> Self::Reader;

    /// What a SEND is checked against at the door.
    fn limits(&self) -> StoreLimits;

    /// Ends the adapter; a polite end saves time at the next start, never data.
    fn close(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Reads messages beside the writer.
pub trait MessageReader: Clone + Send + Sync + 'static {
    /// Up to one `window` of a destination's messages of one priority after `after`, oldest first. An empty page means
    /// the end.
    fn page(
        &self,
        destination: DestinationId,
        priority: Priority,
        after: Sequence,
        window: Window,
    ) -> impl Future<Output = Result<Vec<Stored>, StoreError>> + Send;
}

/// How much a page may hold: at least one message, then up to both bounds.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Bound in messages.
    pub messages: usize,
    /// Bound in bytes of bodies and properties.
    pub bytes: usize,
}

/// What a durable batch brought beside its durability.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Committed {
    /// Messages that the store asks to have written again (`Op::Copy`), oldest first and as they stand after this
    /// batch, so that it can free what their first copies pin. Bounded; a message that is settled by now is left out.
    pub copies_asked: Vec<Stored>,
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
    /// The adapter's own thread or connection is gone.
    #[error("the store is closed")]
    Closed,
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
    /// The connection died: raise the token, then repeat (R11).
    #[error("the outcome is unknown")]
    Unknown {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}
