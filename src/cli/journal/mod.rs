//! `batonmq journal inspect | verify | repair`: what the local journal holds, what is wrong with it, and what can be
//! saved.
//!
//! Only while no broker runs on the directory: segments leave and are written over while one runs, which would look
//! like damage here. Brokers that start meanwhile wait. `text.rs` writes for humans, `json.rs` for scripts.

mod json;
mod progress;
mod text;

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

use self::progress::Bar;
use crate::{
    election::{ExclusiveLock, LockError, SharedLock, exclusive_lock, share_lock},
    persistence::{
        StoreError,
        journal::{self, Damage, Disk, RealDisk, RepairError, RepairOptions, RepairReport},
    },
};

/// Why a journal could not be shown or repaired, or that it is damaged.
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
    /// It was read to its end, and the report has all of it.
    #[error("{path} is damaged at byte {offset}: {what} (damaged places in all: {places})")]
    Damaged {
        /// The data directory.
        data: PathBuf,
        /// The first place: its file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
        /// How many there are.
        places: usize,
    },
    /// Somebody else owns the directory: a broker that runs as that user could not open what a repair writes.
    #[error("{data} belongs to user {owner}, and this is user {user}")]
    NotOwner {
        /// The data directory.
        data: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs this.
        user: u32,
    },
    /// It is damaged as before.
    #[error(transparent)]
    Repair(RepairError),
    /// The text can't be written.
    #[error("cannot write the report")]
    Output(#[from] io::Error),
}

impl From<RepairError> for JournalCommandError {
    fn from(error: RepairError) -> Self {
        match error {
            RepairError::Store(error) => Self::Store(error),
            error => Self::Repair(error),
        }
    }
}

/// Writes what the journal below `data` holds. Damage stands in the text, and is no error.
///
/// # Errors
/// [`JournalCommandError`]; a broker that runs on the directory is one.
pub fn inspect(data: &Path, as_json: bool, out: &mut dyn Write) -> Result<(), JournalCommandError> {
    let _lock = lock_to_read(data)?;
    let report = journal::inspect(&disk(), data)?;
    if as_json {
        write_json(&json::inspect(&report), out)?
    } else {
        text::inspect(&report, out)?
    }
    Ok(())
}

/// Reads every record of the journal below `data`, and writes all that is wrong with it, or one line if nothing is.
///
/// # Errors
/// [`JournalCommandError::Damaged`], after the report is written.
pub fn verify(data: &Path, as_json: bool, out: &mut dyn Write) -> Result<(), JournalCommandError> {
    let _lock = lock_to_read(data)?;
    let mut bar = Bar::new();
    let report = journal::verify(&disk(), data, &mut |progress| bar.show(progress))?;
    drop(bar);
    if as_json {
        write_json(&json::verify(&report), out)?
    } else {
        text::verify(&report, out)?
    }
    match report.damage.first() {
        None => Ok(()),
        Some(Damage { path, offset, what, .. }) => {
            let (data, path, places) = (data.to_owned(), path.clone(), report.damage.len());
            Err(JournalCommandError::Damaged { data, path, offset: *offset, what, places })
        }
    }
}

/// Saves what is good in the journal below `data` if it is damaged, and writes what was lost.
///
/// # Errors
/// [`JournalCommandError`]; the journal is as it was then.
pub fn repair(data: &Path, dry_run: bool, as_json: bool, out: &mut dyn Write) -> Result<(), JournalCommandError> {
    let report = if dry_run {
        let _lock = lock_to_read(data)?;
        repaired(data, true)?
    } else {
        expect_owner(data)?;
        let _lock = lock_to_write(data)?;
        repaired(data, false)?
    };
    if as_json {
        write_json(&json::repair(&report), out)?
    } else {
        text::repair(&report, out)?
    }
    Ok(())
}

fn repaired(data: &Path, dry_run: bool) -> Result<RepairReport, RepairError> {
    let mut bar = Bar::new();
    let options = RepairOptions { dry_run, ..RepairOptions::default() };
    journal::repair(data, &options, &mut |progress| bar.show(progress))
}

fn expect_owner(data: &Path) -> Result<(), JournalCommandError> {
    let failed = |source| StoreError::Io { action: "look at", path: data.to_owned(), source };
    let owner = fs::metadata(data).map_err(failed)?.uid();
    let user = rustix::process::geteuid().as_raw();
    if owner == user { Ok(()) } else { Err(JournalCommandError::NotOwner { data: data.to_owned(), owner, user }) }
}

fn lock_to_read(data: &Path) -> Result<SharedLock, JournalCommandError> {
    share_lock(data)?.ok_or_else(|| JournalCommandError::InUse { data: data.to_owned() })
}

fn lock_to_write(data: &Path) -> Result<ExclusiveLock, JournalCommandError> {
    exclusive_lock(data)?.ok_or_else(|| JournalCommandError::InUse { data: data.to_owned() })
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn write_json(report: &Value, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{report}")
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
        inspect(data.path(), false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for expected in ["queue://orders", "term 1, token 1", "the journal is good"] {
            assert!(text.contains(expected), "{text}");
        }
        let mut out = Vec::new();
        verify(data.path(), false, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "the journal is good; segments: 1, good indexes: 0, records: 4, messages: 0\n"
        );
    }

    #[tokio::test]
    async fn a_running_broker_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        journal_with_a_queue(data.path()).await;
        let mut locker = FileLocker::new(data.path());
        let _baton = locker.acquire(std::time::Duration::ZERO).await.unwrap().expect("free");
        let error = inspect(data.path(), false, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, JournalCommandError::InUse { .. }), "{error}");
    }

    #[test]
    fn a_directory_without_a_journal_is_an_error_that_names_it() {
        let data = tempfile::tempdir().unwrap();
        let error = inspect(data.path(), false, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("journal"), "{error}");
    }
}
