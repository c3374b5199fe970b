//! What the kernel says of a process and a directory, and a broker of itself.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

/// How long a console may take for its page.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);

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

/// A metric without labels, from a broker's console.
pub(crate) fn metric(console: SocketAddr, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(console).ok()?;
    stream.set_read_timeout(Some(PAGE_PATIENCE)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
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
