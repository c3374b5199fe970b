//! Saves what is good in a damaged journal: writes a new one beside it, and puts it in its place.
//!
//! The new journal is written by the journal's own writer, with the same destinations, ids and sequences, under a
//! higher tenure. Nothing is deleted: the damaged journal stays beside the new one.
//! Always true: `journal` is the damaged journal or the whole new one, whenever the process or the machine dies.
//! `journal.repairing` is a new journal that is not whole; the next repair begins it anew. A journal that is whole gets
//! the name `journal.damaged-<n>` first, and then the two change places in one step of the file system; killed between
//! these, `journal` is damaged as before, and to repair it once more finishes the work.
//! On failure: `journal` is as it was. The caller holds the lock on the data directory (`election::exclusive_lock`).

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    super::{CommitError, StoreError},
    DIRECTORY, JournalOptions, OnPoison,
    disk::Disk,
    record::decode_message,
    recovery::failed,
    sequences::Sequences,
    tally::Tally,
    walk::{Damage, Found, FoundOp, Lost, TornWrite, Walk, Watch},
    writer::Writer,
};
use crate::types::{Batch, BatchNumber, Op, Stored, Tenure};

/// The new journal while it is being written.
const REPAIRING: &str = "journal.repairing";

/// How the directory of a damaged journal is called, with a number behind it.
const DAMAGED: &str = "journal.damaged-";

/// How much is written at a time. Unit: bytes.
const BATCH_BYTES: usize = 4 << 20;

/// Segments that a new journal takes beside its messages: the one that is not full yet, the spare, the reserve.
const SEGMENTS_BESIDE: u64 = 3;

/// Why a journal was not repaired; it is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// It can't be read, or the new one can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new journal would not fit beside the old one.
    #[error("the new journal needs {needed_bytes} bytes beside the old one, and {free_bytes} are free below {data}")]
    NoRoom {
        /// The data directory.
        data: PathBuf,
        /// Unit: bytes.
        needed_bytes: u64,
        /// Unit: bytes.
        free_bytes: u64,
    },
    /// The file system can't let two directories change places in one step.
    #[error(
        "the repaired journal is whole, but cannot change places with {journal}: rename {journal} to something else, and \
         {repaired} to {journal}"
    )]
    Exchange {
        /// The damaged journal.
        journal: PathBuf,
        /// The new one.
        repaired: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What a repair did, or would do.
#[derive(Debug)]
pub struct RepairReport {
    /// Every place that is damaged, in the order of the journal; none if there is nothing to repair.
    pub damage: Vec<Damage>,
    /// A last write that a crash has torn. It is not taken over, as no start would.
    pub torn: Option<TornWrite>,
    /// How many messages are saved.
    pub messages: u64,
    /// What they take, estimated. Unit: bytes.
    pub messages_bytes: u64,
    /// What the new journal needs beside the old one. Unit: bytes.
    pub needed_bytes: u64,
    /// Names that were made up, because the record with the true one is gone.
    pub made_up: Vec<String>,
    /// The tenure of the new journal (R17).
    pub tenure: Tenure,
    /// Where the damaged journal is now; `None`: nothing was changed.
    pub damaged: Option<PathBuf>,
}

/// How to repair.
#[derive(Clone, Debug, Default)]
pub struct RepairOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// How the new journal is written.
    pub journal: JournalOptions,
}

/// Repairs the journal below a data directory, if it is damaged.
///
/// # Errors
/// [`RepairError`]; nothing is changed then.
pub fn repair(data: &Path, options: &RepairOptions, watch: Watch<'_>) -> Result<RepairReport, RepairError> {
    let disk = &options.journal.disk;
    let walk = Walk::open(disk, &data.join(DIRECTORY))?;
    let mut tally = Tally::default();
    let mut follow = |found: &Found<'_>| {
        tally.follow(found);
        Ok(())
    };
    let findings = walk.run("reading", &mut follow, watch)?;
    let is_loss = findings.damage.iter().any(|damage| damage.lost != Lost::Nothing);
    let made_up = if is_loss { tally.allow_for_loss() } else { Vec::new() };
    let messages_bytes = tally.live_bytes();
    let mut report = RepairReport {
        damage: findings.damage,
        torn: findings.torn,
        messages: tally.holdings.live().len(),
        messages_bytes,
        needed_bytes: messages_bytes + SEGMENTS_BESIDE * options.journal.segment_bytes,
        made_up,
        tenure: Tenure::default().next_above(tally.catalog.tenure),
        damaged: None,
    };
    if options.dry_run {
        return Ok(report);
    }
    if report.damage.is_empty() {
        sync(disk.as_ref(), data)?; // what an earlier repair did, and did not live to see durable
        return Ok(report);
    }
    expect_room(disk.as_ref(), data, report.needed_bytes)?;
    let repairing = data.join(REPAIRING);
    write_anew(&walk, tally, &repairing, report.tenure, options, watch)?;
    report.damaged = Some(swap(disk.as_ref(), data, &repairing)?);
    Ok(report)
}

fn expect_room(disk: &dyn Disk, data: &Path, needed_bytes: u64) -> Result<(), RepairError> {
    let free_bytes = disk.free_bytes(data).map_err(failed("ask for the free space below", data))?;
    if free_bytes < needed_bytes {
        return Err(RepairError::NoRoom { data: data.to_owned(), needed_bytes, free_bytes });
    }
    Ok(())
}

/// Writes what is live to a new journal in `dir`, durably.
fn write_anew(
    walk: &Walk,
    tally: Tally,
    dir: &Path,
    tenure: Tenure,
    options: &RepairOptions,
    watch: Watch<'_>,
) -> Result<(), StoreError> {
    clear(options.journal.disk.as_ref(), dir)?;
    // a disk that fails ends the repair, and nothing else
    let journal = JournalOptions { on_poison: OnPoison::new(|_, _, _| ()), ..options.journal.clone() };
    let mut writer = Writer::create(&journal, dir, tally.catalog.clone())?;
    writer.raise(tenure)?;
    let left = tally.holdings.live().clone();
    let mut salvage = Salvage { tally, left, writer, dir, ops: Vec::new(), bytes: 0, number: BatchNumber(0) };
    walk.run("writing", &mut |found| salvage.take(found), watch)?;
    salvage.finish()
}

/// What an earlier repair left unfinished.
fn clear(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(failed("list", dir))?,
    };
    for name in names {
        let path = dir.join(name);
        disk.remove(&path).map_err(failed("remove", &path))?;
    }
    Ok(())
}

/// Takes live messages from the old journal to the new one.
struct Salvage<'a> {
    tally: Tally,
    /// What was not written yet.
    left: Sequences,
    writer: Writer,
    dir: &'a Path,
    ops: Vec<Op>,
    /// What `ops` take. Unit: bytes.
    bytes: usize,
    number: BatchNumber,
}

impl Salvage<'_> {
    fn take(&mut self, found: &Found<'_>) -> Result<(), StoreError> {
        for op in &found.ops {
            let FoundOp::Message { written, op, .. } = op else { continue };
            if !self.left.remove(written.sequence) {
                continue;
            }
            let holders = self.tally.holdings.parts(written.sequence, written.destination);
            if let Some(stored) = decode_message(Bytes::copy_from_slice(op)) {
                self.ops.push(Op::Insert(Stored { holders, ..stored }));
                self.bytes += op.len();
            }
            if self.bytes >= BATCH_BYTES {
                self.commit()?;
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.number.0 += 1;
        self.bytes = 0;
        let batch = Batch { number: self.number, ops: std::mem::take(&mut self.ops) };
        self.writer.commit(&batch).map_err(|error| self.refused(error))?;
        self.writer.tidy();
        Ok(())
    }

    fn refused(&self, error: CommitError) -> StoreError {
        let source = match error {
            CommitError::Full => io::ErrorKind::StorageFull.into(),
            error => io::Error::other(error),
        };
        failed("write the new journal in", self.dir)(source)
    }

    fn finish(mut self) -> Result<(), StoreError> {
        self.commit()?;
        self.writer.close()
    }
}

/// Puts the new journal in place of the damaged one, durably; where that is then.
fn swap(disk: &dyn Disk, data: &Path, repairing: &Path) -> Result<PathBuf, RepairError> {
    let journal = data.join(DIRECTORY);
    let damaged = unused_name(disk, data)?;
    sync(disk, repairing)?; // a file that nobody had to wait for may have failed half-way
    disk.rename(repairing, &damaged).map_err(failed("rename", repairing))?;
    sync(disk, data)?;
    if let Err(source) = disk.exchange(&journal, &damaged) {
        return Err(RepairError::Exchange { journal, repaired: damaged, source });
    }
    sync(disk, data)?;
    Ok(damaged)
}

fn sync(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    disk.sync_dir(dir).map_err(failed("sync", dir))
}

fn unused_name(disk: &dyn Disk, data: &Path) -> Result<PathBuf, StoreError> {
    let names = disk.list(data).map_err(failed("list", data))?;
    let numbers = names.iter().filter_map(|name| name.strip_prefix(DAMAGED)?.parse::<u32>().ok());
    let next = numbers.max().map_or(1, |last| last.saturating_add(1));
    Ok(data.join(format!("{DAMAGED}{next}")))
}
