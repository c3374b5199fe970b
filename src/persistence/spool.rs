//! The spool: what a term keeps on the local disk for want of memory, and what no later term wants (R32).
//!
//! A journal whose syncs do nothing, in a directory of its own: it survives nothing and need not. Made when the first
//! batch comes, because most terms never spool; what an earlier process left is removed at the start of a term.

use std::{
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
    journal: Option<JournalAdapter>,
    reader: SpoolReader,
}

impl SpoolAdapter {
    /// A spool in `<data>/spool`, which holds nothing.
    ///
    /// # Errors
    /// [`StoreError::Io`] if what an earlier process left can't be removed.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let dir = data.join(DIRECTORY);
        match std::fs::remove_dir_all(&dir) {
            Ok(()) => {
                tracing::info!(path = %dir.display(), "removed what an earlier process had spooled: nobody wants it any more")
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::Io { action: "remove", path: dir, source }),
        }
        Ok(Self { dir, journal: None, reader: SpoolReader::default() })
    }

    async fn begin(&self) -> Result<JournalAdapter, StoreError> {
        let options = JournalOptions {
            disk: Arc::new(UnsyncedDisk),
            segment_bytes: SEGMENT_BYTES,
            on_poison: OnPoison::new(|action, path, error| {
                tracing::error!(%error, "cannot {action} {}: nothing is spooled any more", path.display());
            }),
            ..JournalOptions::default()
        };
        let mut journal = JournalAdapter::open(&self.dir, options)?;
        journal.recover().await?;
        journal.raise(Tenure { term: Term(1), token: FencingToken(1) }).await?;
        tracing::info!(path = %self.dir.display(), "memory is scarce: what is not persistent and nobody takes is spooled");
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

    async fn close(self) -> Result<(), StoreError> {
        drop(self.journal); // before its files go
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.dir.display(), "cannot remove the spool; the next start does");
            }
            _ => {}
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
