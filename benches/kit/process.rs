//! What the kernel says of a process and a directory.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

/// Bytes of memory, by their name in `/proc/PID/status`: `VmRSS` is what is resident now, `VmHWM` the most that ever
/// was.
pub(crate) fn in_memory(pid: u32, what: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// How many entries a directory of `/proc/PID` has: `task` for threads, `fd` for open files.
pub(crate) fn count_of(pid: u32, what: &str) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/{what}")).ok()?.count() as u64)
}

/// Bytes that the files below a directory take on the disk.
pub(crate) fn disk_used(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        bytes += match fs::symlink_metadata(&path) {
            Ok(file) if file.is_dir() => disk_used(&path)?,
            Ok(file) => file.blocks() * 512, // the unit of st_blocks, whatever the file system's own is
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}
