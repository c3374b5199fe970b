//! The spool: what a term keeps on the local disk for want of memory, and what no later term wants (R32).
//!
//! A journal whose syncs do nothing, in a directory of its own: it survives nothing and need not. Made when the first
//! batch comes, because most terms never spool; what an earlier process left is removed at the start of a term.
//! On failure: what could not be written stays in memory, and is tried again (`engine/spool.rs`); a spool that could
//! not be made is begun anew then; one that can't undo a failed write takes nothing more in this term, and can be read.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use super::{
    CommitError, MessageReader, PersistenceAdapter, StoreError, StoreLimits,
    journal::{JournalAdapter, JournalOptions, JournalReader, OnPoison, UnsyncedDisk},
};
use crate::types::{
    Backlog, Batch, Catalog, DuePage, FencingToken, Holder, Page, PageRange, Priority, Sequence, Tenure, Term,
    Timestamp, Window,
};

/// The directory below the data directory.
pub(super) const DIRECTORY: &str = "spool";

/// Small, so that it gives back soon what it needs no more. Unit: bytes.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Keeps messages for as long as a term lasts.
#[derive(Debug)]
pub struct SpoolAdapter {
    dir: PathBuf,
    options: JournalOptions,
    journal: Option<JournalAdapter>,
    reader: SpoolReader,
}

impl SpoolAdapter {
    /// How a broker spools.
    #[must_use]
    pub fn options() -> JournalOptions {
        JournalOptions { segment_bytes: SEGMENT_BYTES, ..JournalOptions::default() }
    }

    /// A spool in `<data>/spool`, which holds nothing. The disk of the options is not asked to sync anything.
    #[must_use]
    pub fn open(data: &Path, options: JournalOptions) -> Self {
        let spool = Self {
            dir: data.join(DIRECTORY),
            options: JournalOptions {
                on_poison: OnPoison::new(|action, path, error| {
                    tracing::error!(%error, "cannot {action} {}: nothing is spooled any more", path.display());
                }),
                disk: Arc::new(UnsyncedDisk(options.disk)),
                ..options
            },
            journal: None,
            reader: SpoolReader::default(),
        };
        match spool.clear() {
            Ok(false) => {}
            Ok(true) => tracing::info!(
                path = %spool.dir.display(),
                "removed what an earlier process had spooled: nobody wants it any more"
            ),
            Err(error) => tracing::warn!(
                source = &error as &dyn Error,
                "what an earlier process had spooled stays; nothing is spooled before it can be removed"
            ),
        }
        spool
    }

    /// Removes what lies there; whether anything did.
    fn clear(&self) -> Result<bool, StoreError> {
        match self.options.disk.remove_tree(&self.dir) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(StoreError::Io { action: "remove", path: self.dir.clone(), source }),
        }
    }

    /// Makes the journal, anew: what lies there is that of an earlier process, or of an attempt that failed.
    async fn begin(&self) -> Result<JournalAdapter, StoreError> {
        self.clear()?;
        let mut journal = JournalAdapter::open(&self.dir, self.options.clone())?;
        journal.recover().await?;
        journal.raise(Tenure { term: Term(1), token: FencingToken(1) }).await?;
        let path = self.dir.display();
        tracing::info!(%path, "memory is scarce: what is not persistent and nobody takes is spooled");
        Ok(journal)
    }
}

impl PersistenceAdapter for SpoolAdapter {
    type Reader = SpoolReader;

    async fn recover(&mut self) -> Result<Catalog, StoreError> {
        Ok(Catalog::default())
    }

    async fn raise(&mut self, _: Tenure) -> Result<(), StoreError> {
        Ok(())
    }

    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        if self.journal.is_none() {
            let journal = self.begin().await.map_err(|error| CommitError::Again { source: Box::new(error) })?;
            self.reader.0.get_or_init(|| journal.reader());
            self.journal = Some(journal);
        }
        match &mut self.journal {
            Some(journal) => journal.try_commit(batch).await,
            None => Err(CommitError::Again { source: "the spool could not be made".into() }),
        }
    }

    fn reader(&self) -> SpoolReader {
        self.reader.clone()
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits { message_bytes_max: usize::MAX }
    }

    async fn close(mut self) -> Result<(), StoreError> {
        drop(self.journal.take()); // before its files go
        if let Err(error) = self.clear() {
            tracing::warn!(source = &error as &dyn Error, "the spool stays; the next start removes it");
        }
        Ok(())
    }
}

/// Reads what was spooled; nothing before the first batch.
#[derive(Clone, Debug, Default)]
pub struct SpoolReader(Arc<OnceLock<JournalReader>>);

impl MessageReader for SpoolReader {
    async fn page(
        &self,
        holder: Holder,
        priority: Priority,
        range: PageRange,
        window: Window,
    ) -> Result<Page, StoreError> {
        match self.0.get() {
            Some(journal) => journal.page(holder, priority, range, window).await,
            None => Ok(Page { messages: Vec::new(), complete: true }),
        }
    }

    async fn due(&self, _: Timestamp, _: (Timestamp, Sequence), _: Window) -> Result<DuePage, StoreError> {
        Ok(DuePage::default()) // what is spooled and expires is dropped when it is read
    }

    async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        Ok(Vec::new())
    }

    async fn backlog(&self, _: Holder) -> Result<Backlog, StoreError> {
        Ok(Backlog::default())
    }
}
