//! The files that will become segments: the spare, which is the next one, and the reserve, which is the last.
//!
//! Owns the files `spare`, `reserve` and `*.new`. Always true: at most one of each; what has one of these names has a
//! segment's full size. The spare was filled with zeros or left by the oldest segment, and all of it is durable, so
//! that no commit into it has to make metadata durable (an extent that was only allocated does at its first write). The
//! reserve need only be allocated: it is taken when the disk is full, and never by what adds messages (R35).
//! On failure: an unfinished file is removed, now or by the next recovery. What found no room is not tried again at
//! once: where nothing can be allocated, each attempt writes zeros until the disk is full.

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
    super::StoreError,
    disk::{Disk, DiskFile, Open},
    recovery::{Scan, failed},
    segment::{HEADER_BYTES, Header, RESERVE, SPARE},
};

/// How much is filled at a time, so that a close need not wait for all of it. Unit: bytes.
const FILL_BYTES: usize = 1 << 20;

/// How often a file is asked for in vain after the disk was found full, before it is looked at again; a full store is
/// asked four times a second.
const ASKED_IN_VAIN_MAX: u32 = 8;

#[derive(Debug)]
pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// How large a segment is. Unit: bytes.
    bytes: u64,
    /// Whether a thread of its own fills; else the caller does, when it takes one.
    in_background: bool,
    spare: Spare,
    reserve: Option<Arc<dyn DiskFile>>,
    /// How often still a file is asked for in vain.
    in_vain: u32,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Spare {
    None,
    Filling(JoinHandle<io::Result<Arc<dyn DiskFile>>>),
    Ready(Arc<dyn DiskFile>),
}

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Spare,
    Reserve,
}

impl Slot {
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Spare => SPARE,
            Self::Reserve => RESERVE,
        }
    }
}

/// What the next segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Messages come.
    Add,
    /// They go, or nothing changes: this may take the reserve.
    Free,
}

impl Spares {
    /// With the files that a scan found.
    pub(super) fn recover(
        scan: &Scan,
        disk: &Arc<dyn Disk>,
        dir: &Path,
        bytes: u64,
        in_background: bool,
    ) -> Result<Self, StoreError> {
        let mut spares = Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            bytes,
            in_background,
            spare: Spare::None,
            reserve: None,
            in_vain: 0,
            stop: Arc::default(),
        };
        if scan.reserve {
            spares.reserve = spares.open(Slot::Reserve, scan)?;
        }
        if scan.spare {
            spares.spare = spares.open(Slot::Spare, scan)?.map_or(Spare::None, Spare::Ready);
        }
        Ok(spares)
    }

    /// A file that lies there, if it can be a segment. After a power loss a segment may have this name too, by a rename
    /// that reached the disk by half.
    fn open(&self, slot: Slot, scan: &Scan) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        let path = self.path(slot);
        let file = self.disk.open(&path, Open::Write).map_err(failed("open", &path))?;
        let mut header = vec![0; HEADER_BYTES];
        if file.bytes().map_err(failed("read", &path))? == self.bytes {
            file.read_at(&mut header, 0).map_err(failed("read", &path))?;
            let header = Header::decode(&header, &path).ok();
            if !scan.segments.iter().any(|segment| Some(segment.header) == header) {
                return Ok(Some(file));
            }
        }
        self.disk.remove(&path).map_err(failed("remove", &path))?;
        Ok(None)
    }

    /// Begins to fill the spare, if there is none. The last room is the reserve's.
    pub(super) fn prepare(&mut self) {
        if !self.in_background || self.has_spare() || !self.has_reserve() || self.in_vain > 0 {
            return;
        }
        let (disk, dir, bytes, stop) = (Arc::clone(&self.disk), self.dir.clone(), self.bytes, Arc::clone(&self.stop));
        let thread = std::thread::Builder::new().name("journal-fill".to_owned());
        match thread.spawn(move || make(Slot::Spare, disk.as_ref(), &dir, bytes, &stop)) {
            Ok(thread) => self.spare = Spare::Filling(thread),
            Err(error) => tracing::warn!(%error, "cannot start a thread; the next segment is filled when it is needed"),
        }
    }

    /// Sees to it that there is a reserve.
    pub(super) fn ensure_reserve(&mut self) -> io::Result<()> {
        if self.reserve.is_none() {
            self.reserve = Some(self.make(Slot::Reserve)?);
        }
        Ok(())
    }

    pub(super) fn has_reserve(&self) -> bool {
        self.reserve.is_some()
    }

    /// A file to be used now, and which: waits for the spare or fills it; if there is no room, the reserve may serve.
    pub(super) fn take(&mut self, purpose: Purpose) -> io::Result<(Arc<dyn DiskFile>, Slot)> {
        match (self.take_spare(), purpose) {
            (Ok(file), _) => Ok((file, Slot::Spare)),
            (Err(error), Purpose::Free) if is_full(&error) => {
                self.reserve.take().map(|file| (file, Slot::Reserve)).ok_or(error)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn take_spare(&mut self) -> io::Result<Arc<dyn DiskFile>> {
        match std::mem::replace(&mut self.spare, Spare::None) {
            Spare::Ready(file) => Ok(file),
            Spare::Filling(thread) => {
                let filled = thread.join().unwrap_or_else(|_| Err(io::Error::other("the filling thread died")));
                self.note(filled)
            }
            Spare::None => self.make(Slot::Spare),
        }
    }

    fn make(&mut self, slot: Slot) -> io::Result<Arc<dyn DiskFile>> {
        if self.in_vain > 0 {
            self.in_vain -= 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let made = make(slot, self.disk.as_ref(), &self.dir, self.bytes, &self.stop);
        self.note(made)
    }

    fn note<T>(&mut self, made: io::Result<T>) -> io::Result<T> {
        if made.as_ref().is_err_and(is_full) {
            self.in_vain = ASKED_IN_VAIN_MAX;
        }
        made
    }

    /// Which file an old segment of the right size can become.
    pub(super) fn vacancy(&self) -> Option<Slot> {
        match (&self.reserve, &self.spare) {
            (None, _) => Some(Slot::Reserve),
            (_, Spare::None) => Some(Slot::Spare),
            _ => None,
        }
    }

    /// A file of the right size that has this name by now, and durably so.
    pub(super) fn keep(&mut self, file: Arc<dyn DiskFile>, slot: Slot) {
        match slot {
            Slot::Spare => {
                debug_assert!(!self.has_spare(), "at most one spare");
                self.spare = Spare::Ready(file);
            }
            Slot::Reserve => {
                debug_assert!(!self.has_reserve(), "at most one reserve");
                self.reserve = Some(file);
            }
        }
    }

    /// A segment was removed.
    pub(super) fn there_is_room(&mut self) {
        self.in_vain = 0;
    }

    /// Whether there is a spare, or will be.
    pub(super) fn has_spare(&self) -> bool {
        !matches!(self.spare, Spare::None)
    }

    fn path(&self, slot: Slot) -> PathBuf {
        self.dir.join(slot.file_name())
    }
}

impl Drop for Spares {
    /// Nothing of this journal may touch the directory after its end: a new one may be recovering there.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Spare::Filling(thread) = std::mem::replace(&mut self.spare, Spare::None)
            && thread.join().is_err()
        {
            tracing::warn!("the thread that fills segments died");
        }
    }
}

/// Whether an operation found no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn make(slot: Slot, disk: &dyn Disk, dir: &Path, bytes: u64, stop: &AtomicBool) -> io::Result<Arc<dyn DiskFile>> {
    let unfinished = dir.join(format!("{}.new", slot.file_name()));
    let made = fill(slot, disk, &unfinished, bytes, stop).and_then(|file| {
        disk.rename(&unfinished, &dir.join(slot.file_name()))?; // durable when the segment's own name is
        Ok(file)
    });
    if made.is_err()
        && let Err(error) = disk.remove(&unfinished)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %unfinished.display(), "cannot remove an unfinished segment");
    }
    made
}

/// Allocated first, so that a disk without room says so before anything is written.
fn fill(slot: Slot, disk: &dyn Disk, path: &Path, bytes: u64, stop: &AtomicBool) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.open(path, Open::Create)?;
    let allocated = match file.allocate(bytes) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => false,
        Err(error) => return Err(error),
    };
    if slot == Slot::Spare || !allocated {
        write_zeros(file.as_ref(), bytes, stop)?;
    }
    file.sync()?;
    Ok(file)
}

fn write_zeros(file: &dyn DiskFile, bytes: u64, stop: &AtomicBool) -> io::Result<()> {
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
    Ok(())
}
