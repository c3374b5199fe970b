//! The file that will become the next segment: filled with zeros, or left by the oldest segment, ahead of its use.
//!
//! Owns the files `spare` and `*.new`. Always true: at most one spare; what is called `spare` has a segment's full size
//! and all of it is durable, so that no commit into it has to make metadata durable (`fallocate` alone leaves extents
//! whose first write does). On failure: an unfinished file is removed, now or by the next recovery, and the next
//! segment is filled when it is needed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use super::{
    disk::{Disk, DiskFile, Open},
    segment::{SPARE, SPARE_UNFINISHED},
};

/// How much is filled at a time, so that a close need not wait for all of it. Unit: bytes.
const FILL_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// How large a spare is. Unit: bytes.
    bytes: u64,
    /// Whether a thread of its own fills; else the caller does, when it takes one.
    in_background: bool,
    state: State,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
enum State {
    None,
    Filling(JoinHandle<io::Result<Arc<dyn DiskFile>>>),
    Ready(Arc<dyn DiskFile>),
}

impl Spares {
    pub(super) fn new(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        bytes: u64,
        in_background: bool,
        ready: Option<Arc<dyn DiskFile>>,
    ) -> Self {
        let state = ready.map_or(State::None, State::Ready);
        let stop = Arc::default();
        Self { disk: Arc::clone(disk), dir: dir.to_owned(), bytes, in_background, state, stop }
    }

    /// Begins to fill one, if there is none.
    pub(super) fn prepare(&mut self) {
        if !self.in_background || self.exists() {
            return;
        }
        let (disk, dir, bytes, stop) = (Arc::clone(&self.disk), self.dir.clone(), self.bytes, Arc::clone(&self.stop));
        let thread = std::thread::Builder::new().name("journal-fill".to_owned());
        match thread.spawn(move || fill(disk.as_ref(), &dir, bytes, &stop)) {
            Ok(thread) => self.state = State::Filling(thread),
            Err(error) => tracing::warn!(%error, "cannot start a thread; the next segment is filled when it is needed"),
        }
    }

    /// The spare, to be used now: waits for it or fills it.
    pub(super) fn take(&mut self) -> io::Result<Arc<dyn DiskFile>> {
        match std::mem::replace(&mut self.state, State::None) {
            State::Ready(file) => Ok(file),
            State::Filling(thread) => {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("the filling thread died")))
            }
            State::None => fill(self.disk.as_ref(), &self.dir, self.bytes, &self.stop),
        }
    }

    /// A file of the right size that is called `spare` by now, and durably so.
    pub(super) fn keep(&mut self, file: Arc<dyn DiskFile>) {
        debug_assert!(!self.exists(), "at most one spare");
        self.state = State::Ready(file);
    }

    /// Whether there is one, or will be.
    pub(super) fn exists(&self) -> bool {
        !matches!(self.state, State::None)
    }
}

impl Drop for Spares {
    /// Nothing of this journal may touch the directory after its end: a new one may be recovering there.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let State::Filling(thread) = std::mem::replace(&mut self.state, State::None)
            && thread.join().is_err()
        {
            tracing::warn!("the thread that fills segments died");
        }
    }
}

fn fill(disk: &dyn Disk, dir: &Path, bytes: u64, stop: &AtomicBool) -> io::Result<Arc<dyn DiskFile>> {
    let unfinished = dir.join(SPARE_UNFINISHED);
    let filled = write_zeros(disk, &unfinished, bytes, stop).and_then(|file| {
        disk.rename(&unfinished, &dir.join(SPARE))?; // durable when the segment's own name is
        Ok(file)
    });
    if filled.is_err()
        && let Err(error) = disk.remove(&unfinished)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %unfinished.display(), "cannot remove an unfinished segment");
    }
    filled
}

fn write_zeros(disk: &dyn Disk, path: &Path, bytes: u64, stop: &AtomicBool) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.open(path, Open::Create)?;
    let zeros = vec![0; FILL_BYTES];
    let mut at = 0;
    while at < bytes {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the journal is being closed"));
        }
        let left = usize::try_from(bytes - at).unwrap_or(FILL_BYTES).min(FILL_BYTES);
        file.write_at(zeros.get(..left).unwrap_or(&zeros), at)?;
        at += left as u64;
    }
    file.sync()?;
    Ok(file)
}
