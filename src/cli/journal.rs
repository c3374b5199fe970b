//! `batonmq journal inspect | verify`: what the local journal holds, as text for humans.
//!
//! Both read only, and only while no broker runs on the directory: segments leave and are written over while a broker
//! runs, which would look like damage here. They keep brokers from starting until they are done.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    election::{LockError, SharedLock, share_lock},
    persistence::{
        StoreError,
        journal::{self, Disk, Health, JournalReport, RealDisk},
    },
};

/// Why a journal could not be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalCommandError {
    /// A broker writes to it.
    #[error("a broker is running on {data}; stop it first, or look at a copy of the directory")]
    InUse {
        /// The data directory.
        data: PathBuf,
    },
    /// The lock file can't be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A broker would not start on it, or it can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The text can't be written.
    #[error("cannot write the report")]
    Output(#[from] io::Error),
}

/// Writes what the journal below `data` holds. Damage stands in the text, and is no error.
///
/// # Errors
/// [`JournalCommandError`]; a broker that runs on the directory is one.
pub fn inspect(data: &Path, out: &mut dyn Write) -> Result<(), JournalCommandError> {
    let _lock = lock(data)?;
    let report = journal::inspect(&disk(), data)?;
    write_segments(&report, out)?;
    write_messages(&report, out)?;
    writeln!(out, "term {}, token {}", report.tenure.term.0, report.tenure.token.0)?;
    writeln!(out, "{}", health_text(&report.health))?;
    Ok(())
}

/// Reads every record of the journal below `data`, and writes one line if a broker would start on it.
///
/// # Errors
/// [`JournalCommandError::Store`] names the file and the byte that a broker would refuse to start on.
pub fn verify(data: &Path, out: &mut dyn Write) -> Result<(), JournalCommandError> {
    let _lock = lock(data)?;
    let report = journal::verify(&disk(), data)?;
    let records: u64 = report.segments.iter().map(|segment| segment.records).sum();
    let (segments, messages) = (report.segments.len(), report.live_messages());
    writeln!(out, "{}; segments: {segments}, records: {records}, messages: {messages}", health_text(&report.health))?;
    Ok(())
}

fn lock(data: &Path) -> Result<SharedLock, JournalCommandError> {
    share_lock(data)?.ok_or_else(|| JournalCommandError::InUse { data: data.to_owned() })
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn write_segments(report: &JournalReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>10}  {:>12}  {:>12}  {:>9}  {:>9}  {:>9}",
        "segment", "bytes", "written", "records", "batches", "messages"
    )?;
    for segment in &report.segments {
        writeln!(
            out,
            "{:>10}  {:>12}  {:>12}  {:>9}  {:>9}  {:>9}",
            segment.number.0, segment.bytes, segment.written, segment.records, segment.batches, segment.live_messages
        )?;
    }
    let is_there = |file| if file { "yes" } else { "no" };
    writeln!(out, "spare file: {}, reserve: {}\n", is_there(report.spare), is_there(report.reserve))
}

fn write_messages(report: &JournalReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:>10}  destination", "messages")?;
    for (destination, count) in &report.messages {
        writeln!(out, "{count:>10}  {destination}")?;
    }
    writeln!(out, "{:>10}  in all, {} bytes\n", report.live_messages(), report.live_bytes)
}

fn health_text(health: &Health) -> String {
    match health {
        Health::Good => "the journal is good".to_owned(),
        Health::Torn { segment, offset, what } => format!(
            "the journal is good; its last write was torn (segment {}, byte {offset}: {what}), nobody was told of it, \
             and the next start cuts it",
            segment.0
        ),
        Health::Refused(error) => format!("a broker would not start: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        election::{FileLocker, Locker},
        persistence::{
            PersistenceAdapter,
            journal::{JournalAdapter, JournalOptions},
        },
        types::{Batch, BatchNumber, Destination, DestinationId, Op, Tenure},
    };

    async fn journal_with_a_queue(data: &Path) {
        let options = JournalOptions { segment_bytes: 1 << 16, ..JournalOptions::default() };
        let mut journal = JournalAdapter::open(data, options).unwrap();
        let catalog = journal.recover().await.unwrap();
        journal.raise(Tenure::default().next_above(catalog.tenure)).await.unwrap();
        let create = Op::CreateDestination { id: DestinationId(1), destination: Destination::queue("orders") };
        journal.try_commit(&Arc::new(Batch { number: BatchNumber(1), ops: vec![create] })).await.unwrap();
        journal.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_journal_is_shown() {
        let data = tempfile::tempdir().unwrap();
        journal_with_a_queue(data.path()).await;
        let mut out = Vec::new();
        inspect(data.path(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for expected in ["queue://orders", "term 1, token 1", "the journal is good"] {
            assert!(text.contains(expected), "{text}");
        }
        let mut out = Vec::new();
        verify(data.path(), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "the journal is good; segments: 1, records: 4, messages: 0\n");
    }

    #[tokio::test]
    async fn a_running_broker_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        journal_with_a_queue(data.path()).await;
        let mut locker = FileLocker::new(data.path());
        assert!(locker.acquire(std::time::Duration::ZERO).await.unwrap());
        let error = inspect(data.path(), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, JournalCommandError::InUse { .. }), "{error}");
    }

    #[test]
    fn a_directory_without_a_journal_is_an_error_that_names_it() {
        let data = tempfile::tempdir().unwrap();
        let error = inspect(data.path(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("journal"), "{error}");
    }
}
