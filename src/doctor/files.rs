//! Questions about the data directory.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::Path};

use rustix::fs::{statfs, statvfs};

use super::Report;
use crate::{
    config::{Backend, Config, write_size},
    election::{LockError, exclusive_lock, lock_note, share_lock},
    persistence::{
        StoreError,
        journal::{RealDisk, probe},
    },
};

/// Segments that a journal needs to begin.
const SEGMENTS_MIN: u64 = 2;

/// Less is soon full. Unit: bytes.
const FREE_BYTES_ADVISED: u64 = 1 << 30;

/// File systems on which no broker was tested, as Linux numbers them.
const UNTESTED: [(u64, &str); 5] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x0102_1994, "tmpfs, which is gone with the machine"),
];

/// Where it is tried out.
const TRIAL: &str = ".batonmq-doctor";

/// Asks everything.
pub(super) fn examine(config: &Config, report: &mut Report) {
    let data = &config.data;
    let here = if data.is_dir() { data } else { existing_above(data) };
    if here == data {
        occupant(data, report);
    } else {
        report.ok("data", format!("{} is not there yet; the first start makes it", data.display()));
    }
    match try_out(here) {
        Ok(true) => report.ok("files", format!("sync, rename and locks work in {}", here.display())),
        Ok(false) => {
            let says = format!("locks do not lock in {}: two brokers could be masters at once", here.display());
            report.fail("files", says, "keep data on a local file system, such as ext4 or XFS");
        }
        Err(error) => report.failed("files", &error, "keep data on a local file system that this user may write to"),
    }
    if let Err(error) = space(config, here, report) {
        report.failed("space", &error, "check the disk and the option data");
    }
}

fn existing_above(data: &Path) -> &Path {
    let above = data.ancestors().skip(1).find(|above| above.is_dir());
    above.unwrap_or_else(|| Path::new("."))
}

fn occupant(data: &Path, report: &mut Report) {
    let told = share_lock(data).and_then(|lock| {
        let note = lock_note(data).map_err(|source| LockError::Io {
            action: "read the lock in",
            path: data.to_owned(),
            source,
        })?;
        Ok((lock.is_none(), note))
    });
    let shown = data.display();
    match told {
        Ok((true, by)) => {
            report.ok("data", format!("{shown} is held by {}", by.unwrap_or_else(|| "a broker".to_owned())));
        }
        Ok((false, _)) => report.ok("data", format!("no broker runs on {shown}")),
        Err(error) => report.failed("data", &error, "run this as the user that runs the broker"),
    }
}

/// Whether locks lock; an error if another call fails. In a directory of its own, which is removed.
fn try_out(here: &Path) -> Result<bool, StoreError> {
    let trial = here.join(TRIAL);
    let failed = |action| {
        let path = trial.clone();
        move |source| StoreError::Io { action, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&trial).map_err(failed("create"))?;
    let tried = probe(&RealDisk, &trial).and_then(|()| locks_lock(&trial).map_err(failed("lock")));
    std::fs::remove_dir_all(&trial).map_err(failed("remove"))?;
    tried
}

fn locks_lock(trial: &Path) -> io::Result<bool> {
    let first = exclusive_lock(trial).map_err(io::Error::other)?;
    let second = share_lock(trial).map_err(io::Error::other)?;
    Ok(first.is_some() && second.is_none())
}

fn space(config: &Config, here: &Path, report: &mut Report) -> io::Result<()> {
    let kind = u64::try_from(statfs(here)?.f_type).unwrap_or_default();
    if let Some((_, name)) = UNTESTED.iter().find(|(number, _)| *number == kind) {
        let says = format!("{} is on {name}; no broker was tested on that", here.display());
        report.warn("files", says, "keep data on a local file system, such as ext4 or XFS");
    }
    let found = statvfs(here)?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let needed = match config.store.backend {
        Backend::Journal if !config.data.join("journal").is_dir() => SEGMENTS_MIN * config.store.segment_bytes as u64,
        _ => 0,
    };
    let shown = write_size(usize::try_from(free >> 20 << 20).unwrap_or(usize::MAX));
    if free < needed {
        let segment = write_size(config.store.segment_bytes);
        let says = format!("{shown} are free, and a new journal needs {SEGMENTS_MIN} segments of {segment}");
        report.fail("space", says, "make room, or lower store.segment_bytes");
    } else if free < FREE_BYTES_ADVISED {
        let says = format!("{shown} are free; while the disk is full, nobody can send");
        report.warn("space", says, "make room");
    } else {
        report.ok("space", format!("{shown} are free"));
    }
    Ok(())
}
