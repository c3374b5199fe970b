//! Whether a file system has the calls that a journal needs.
//!
//! Tried at each start on files of its own, `*.new`, before anything relies on them: the next rotation would be late to
//! find out. On failure: the start is refused, and says which call is missing where. A full disk is no failure.

use std::{io, path::Path};

use super::{
    super::StoreError,
    disk::{Disk, Open},
    recovery::failed,
    segment::BLOCK,
    spare::is_full,
};

/// Makes, writes, syncs, renames and removes a file in `dir`.
///
/// # Errors
/// [`StoreError::Unfit`] for a call that is not there, [`StoreError::Io`] for one that fails.
pub fn probe(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    match try_calls(disk, dir) {
        Ok(()) => Ok(()),
        Err((_, error)) if is_full(&error) => Ok(()),
        Err((call, error)) => Err(match error.kind() {
            io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput => {
                StoreError::Unfit { call, path: dir.to_owned(), source: error }
            }
            _ => failed(call, dir)(error),
        }),
    }
}

fn try_calls(disk: &dyn Disk, dir: &Path) -> Result<(), (&'static str, io::Error)> {
    let (probe, other) = (dir.join("probe.new"), dir.join("other.new"));
    let tried = |call| move |error| (call, error);
    disk.open(&other, Open::Create).map_err(tried("create files in"))?;
    let file = disk.open(&probe, Open::Create).map_err(tried("create files in"))?;
    let block = vec![0; usize::try_from(BLOCK).expect("a block fits in memory")];
    file.write_at(&block, 0).map_err(tried("write files in"))?;
    file.sync().map_err(tried("sync files in"))?;
    disk.rename(&probe, &other).map_err(tried("replace files by renaming in"))?;
    disk.sync_dir(dir).map_err(tried("sync"))?;
    disk.remove(&other).map_err(tried("remove files in"))
}
