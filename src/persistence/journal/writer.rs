//! The journal's own thread: append, sync, rotate, and let old segments leave.
//!
//! Owns every file of the journal while it runs. Always true: what was answered is durable; `settled <= durable <=
//! written`; a record is written only after the one before it is durable; segments leave strictly oldest first, each
//! durably gone before the next (R34); no more bytes were copied than written otherwise.
//! On failure: a failed write is undone, durably, before it is answered; after a failed sync, or a failed undoing, the
//! journal is poisoned and the process ends, because nobody can know what reached the disk.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{CommitError, StoreError},
    JournalOptions, Usage,
    disk::{Disk, DiskFile, Open},
    live::{Live, Place, SharedLive},
    record::{Encoder, RecordHead, Slice},
    recovery::{Scan, failed, make_durable},
    segment::{BLOCK, FRAME_HEAD, HEADER_BYTES, Header, RECORDS_AT, SPARE, SegmentNumber, aligned, padded},
    spare::Spares,
};
use crate::types::{Batch, BatchNumber, Catalog, Op, Sequence, Stored, Tenure, Term};

/// A batch of a larger record is refused; far below what a record's length and an operation's offset can say.
/// Unit: bytes.
const RECORD_BYTES_MAX: usize = 2 << 30;

/// By how much a record may grow that is encoded anew with the next number. Unit: bytes.
const NUMBERS_GROW_BYTES: u64 = 16;

/// How much is copied beside one batch. Unit: bytes.
const COPIED_BYTES_MAX: u64 = 1 << 20;

/// Up to how many live messages a debug build checks the whole map after each batch.
const CHECKED_MESSAGES_MAX: usize = 200;

#[derive(Debug)]
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: JournalOptions,
    live: SharedLive,
    catalog: Catalog,
    /// Of the last `raise`; nothing is committed before.
    tenure: Option<Tenure>,
    active: Active,
    /// The number of the last record; it is durable.
    last: u64,
    last_batch: Option<(Term, BatchNumber)>,
    encoder: Encoder,
    planned: Vec<(Slice, Planned)>,
    spares: Spares,
    next_copy: NextCopy,
    written_bytes: u64,
    copied_bytes: u64,
    /// A segment that could not leave; not tried again before the next rotation.
    stuck: bool,
    poisoned: bool,
}

/// The segment that is written to.
#[derive(Debug)]
struct Active {
    header: Header,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    capacity: u64,
    position: u64,
}

/// An operation that is in the record being written.
#[derive(Debug)]
enum Planned {
    /// As it stands in the batch.
    Given(usize),
    /// A copy, for those who hold the message.
    Copy(Box<Stored>),
}

/// How far the oldest segment's messages were copied.
#[derive(Debug, Default)]
struct NextCopy {
    segment: SegmentNumber,
    index: usize,
}

/// Why something was not written.
#[derive(Debug)]
enum Failure {
    /// Certainly undone.
    Full,
    /// Certainly undone.
    Undone(io::Error),
    /// Unknown; the process is ending.
    Poisoned(io::Error),
}

impl Failure {
    fn of_write(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Undone(error),
        }
    }

    fn for_commit(self) -> CommitError {
        match self {
            Self::Full => CommitError::Full,
            Self::Undone(error) => CommitError::Again { source: Box::new(error) },
            Self::Poisoned(error) => CommitError::Unknown { source: Box::new(error) },
        }
    }

    fn for_store(self, path: &Path) -> StoreError {
        let source = match self {
            Self::Full => io::ErrorKind::StorageFull.into(),
            Self::Undone(error) | Self::Poisoned(error) => error,
        };
        failed("write", path)(source)
    }
}

impl Writer {
    /// Recovers what lies in `dir` (R33).
    pub(super) fn recover(options: &JournalOptions, dir: &Path) -> Result<Self, StoreError> {
        let disk = &options.disk;
        create_dir(disk.as_ref(), dir)?;
        let mut scan = Scan::new(disk, dir, Open::Write);
        scan.run()?;
        make_durable(&scan)?;
        Self::after(options, dir, scan)
    }

    /// A new journal in a directory without one, which begins with what `catalog` says.
    pub(super) fn create(options: &JournalOptions, dir: &Path, catalog: Catalog) -> Result<Self, StoreError> {
        let disk = &options.disk;
        create_dir(disk.as_ref(), dir)?;
        let mut scan = Scan::new(disk, dir, Open::Write);
        scan.catalog = catalog;
        Self::after(options, dir, scan)
    }

    /// Goes on where a scan came to the end.
    fn after(options: &JournalOptions, dir: &Path, mut scan: Scan) -> Result<Self, StoreError> {
        let disk = &options.disk;
        let ready = open_spare(&scan, disk.as_ref(), dir, options.segment_bytes)?;
        let spares = Spares::new(disk, dir, options.segment_bytes, options.fill_in_background, ready);
        let active = scan.segments.pop().map(|newest| Active {
            header: newest.header,
            path: newest.path,
            file: newest.file,
            capacity: newest.capacity,
            position: newest.next,
        });
        let is_new = active.is_none();
        let mut writer = Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            options: options.clone(),
            live: SharedLive::new(scan.live),
            catalog: scan.catalog,
            tenure: None,
            active: active.unwrap_or_else(|| Active::before_the_first(options, dir)),
            last: scan.last.unwrap_or(0),
            last_batch: scan.last_batch,
            encoder: Encoder::default(),
            planned: Vec::new(),
            spares,
            next_copy: NextCopy::default(),
            written_bytes: 0,
            copied_bytes: 0,
            stuck: false,
            poisoned: false,
        };
        if is_new {
            writer.rotate(0).map_err(|failure| failure.for_store(dir))?;
        }
        writer.tidy();
        Ok(writer)
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(super) fn live(&self) -> &SharedLive {
        &self.live
    }

    /// Writes the new tenure, durably (R17).
    pub(super) fn raise(&mut self, to: Tenure) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Closed);
        }
        if !to.is_above(self.catalog.tenure) {
            return Err(StoreError::Deposed);
        }
        self.append_note(to).map_err(|failure| failure.for_store(&self.active.path))?;
        self.catalog.tenure = to;
        self.tenure = Some(to);
        Ok(())
    }

    /// Makes a batch durable, whole or not at all. `tidy` is due afterwards.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        if self.poisoned {
            return Err(CommitError::Unknown { source: "the journal's disk failed".into() });
        }
        let tenure = self.tenure.ok_or(CommitError::Deposed)?;
        let this = (tenure.term, batch.number);
        if self.last_batch == Some(this) {
            return Ok(()); // it is repeated, and it is there
        }
        let copies = self.copies_beside(batch);
        let copied = self.encode(batch, tenure, &copies)?;
        if !self.planned.is_empty() {
            if self.make_room().map_err(Failure::for_commit)? {
                // with the new segment's incarnation, and the same copies: room was made for these
                self.encode(batch, tenure, &copies)?;
            }
            let (frame, bytes) = (self.active.position, self.encoder.bytes() as u64);
            self.append().map_err(Failure::for_commit)?;
            self.follow(batch, frame);
            self.copied_bytes += copied;
            self.written_bytes += bytes - copied;
        }
        self.last_batch = Some(this);
        Ok(())
    }

    /// What need not be done before a batch is answered: old segments leave, the next one is prepared.
    pub(super) fn tidy(&mut self) {
        while !self.stuck && !self.poisoned && self.let_oldest_leave() {}
        if self.active.position > self.active.capacity / 2 && !self.poisoned {
            self.spares.prepare();
        }
    }

    /// Ends politely: what was written last is proven durable, so that damage to it can be told from a torn write.
    pub(super) fn close(mut self) -> Result<(), StoreError> {
        let Some(tenure) = self.tenure.filter(|_| !self.poisoned) else { return Ok(()) };
        self.append_note(tenure).map_err(|failure| failure.for_store(&self.active.path))
    }

    pub(super) fn usage(&self) -> Usage {
        self.live.with(|live| Usage {
            segments: live.segments().count(),
            spare: self.spares.exists(),
            live_messages: live.len(),
            live_bytes: live.bytes(),
            written_bytes: self.written_bytes,
            copied_bytes: self.copied_bytes,
        })
    }

    /// What this module promises; for tests and debug builds.
    fn check(&self) -> bool {
        let active = &self.active;
        assert!(active.position.is_multiple_of(FRAME_HEAD as u64), "frames are aligned");
        assert!(active.position <= active.capacity, "what is written lies in the segment");
        assert!(self.copied_bytes <= self.written_bytes, "no more is copied than written");
        assert_eq!(self.catalog.tenure, self.tenure.unwrap_or(self.catalog.tenure), "the highest tenure is ours");
        self.live.with(|live| {
            let newest = live.segments().next_back().map(|share| share.number);
            assert_eq!(newest, Some(active.header.segment), "the newest segment is written to");
            live.len() > CHECKED_MESSAGES_MAX || live.check()
        })
    }

    fn head(&self, tenure: Tenure, batch: BatchNumber) -> RecordHead {
        let incarnation = self.active.header.incarnation;
        RecordHead { incarnation, number: self.last + 1, durable: self.last, tenure, batch }
    }

    /// Encodes a batch and the copies beside it, and plans what follows from them; answers how many bytes are copies.
    fn encode(&mut self, batch: &Batch, tenure: Tenure, copies: &[Stored]) -> Result<u64, CommitError> {
        let refused = || CommitError::Refused { source: "the batch is larger than a record may be".into() };
        self.encoder.begin(self.head(tenure, batch.number));
        self.planned.clear();
        for (index, op) in batch.ops.iter().enumerate() {
            let slice = self.encoder.push(op).ok_or_else(refused)?;
            self.planned.push((slice, Planned::Given(index)));
        }
        let given = self.encoder.bytes();
        for copy in copies {
            let slice = self.encoder.push_copy(copy).ok_or_else(refused)?;
            self.planned.push((slice, Planned::Copy(Box::new(copy.clone()))));
        }
        if self.encoder.bytes() > RECORD_BYTES_MAX {
            return Err(refused());
        }
        let copied = (self.encoder.bytes() - given) as u64;
        self.encoder.seal().ok_or_else(refused)?;
        Ok(copied)
    }

    /// A record without operations.
    fn append_note(&mut self, tenure: Tenure) -> Result<(), Failure> {
        self.encode_note(tenure)?;
        if self.make_room()? {
            self.encode_note(tenure)?;
        }
        self.append()
    }

    fn encode_note(&mut self, tenure: Tenure) -> Result<(), Failure> {
        self.encoder.begin(self.head(tenure, BatchNumber::default()));
        self.encoder.seal().ok_or_else(|| Failure::Undone(io::ErrorKind::FileTooLarge.into()))
    }

    /// Writes the encoded record and makes it durable.
    fn append(&mut self) -> Result<(), Failure> {
        let begin = self.active.position;
        let end = begin + self.encoder.bytes() as u64;
        let padded_bytes = padded(end).min(self.active.capacity) - begin;
        let bytes = self.encoder.padded(usize::try_from(padded_bytes).expect("a record fits in memory"));
        if let Err(error) = self.active.file.write_at(bytes, begin) {
            return Err(self.undo(begin, error));
        }
        if let Err(error) = self.active.file.sync() {
            return Err(self.poison("sync", error));
        }
        self.active.position = aligned(end);
        self.last += 1;
        Ok(())
    }

    /// Makes sure that a record of which any part may be written is none, before anybody is told so.
    fn undo(&mut self, begin: u64, error: io::Error) -> Failure {
        let undone = self.active.file.write_at(&[0; FRAME_HEAD], begin).and_then(|()| self.active.file.sync());
        match undone {
            Ok(()) => Failure::of_write(error),
            Err(undoing) => self.poison("undo a failed write to", undoing),
        }
    }

    fn poison(&mut self, action: &'static str, error: io::Error) -> Failure {
        self.poisoned = true;
        self.options.on_poison.call(action, &self.active.path, &error);
        Failure::Poisoned(error)
    }

    /// Brings what is durable now into the maps.
    fn follow(&mut self, batch: &Batch, frame: u64) {
        let segment = self.active.header.segment;
        self.live.with(|live| {
            for (slice, planned) in &self.planned {
                let Some(place) = Place::new(segment, frame, *slice) else { continue };
                match planned {
                    Planned::Copy(copy) => live.copy(copy, place),
                    Planned::Given(index) => {
                        if let Some(op) = batch.ops.get(*index) {
                            live.apply(op, place);
                            self.catalog.apply(op);
                        }
                    }
                }
            }
        });
        self.planned.clear();
        debug_assert!(self.check());
    }

    /// Goes on in a new segment if the encoded record does not fit into this one; whether it did, and the record has
    /// to be encoded again.
    fn make_room(&mut self) -> Result<bool, Failure> {
        let needed = self.encoder.bytes() as u64;
        let rotates = self.active.room() < needed;
        if rotates {
            self.rotate(needed + NUMBERS_GROW_BYTES)?;
        }
        Ok(rotates)
    }

    /// Goes on in a new segment with room for a frame of `needed` bytes. Header and catalog are durable before the file
    /// gets its name, and its name before anything else is written to it.
    fn rotate(&mut self, needed: u64) -> Result<(), Failure> {
        let header =
            Header { segment: self.active.header.segment.next(), incarnation: self.active.header.incarnation + 1 };
        let path = self.dir.join(header.segment.file_name());
        let (bytes, end) = self.encode_first_block(header)?;
        let capacity = padded(aligned(end) + needed).max(self.options.segment_bytes);
        let (file, old_path) = self.new_file(capacity).map_err(Failure::of_write)?;
        let named = file.write_at(&bytes, 0).map_err(Failure::of_write).and_then(|()| {
            file.sync().map_err(|error| self.poison("sync", error))?;
            self.disk.rename(&old_path, &path).map_err(Failure::of_write)
        });
        if let Err(failure) = named {
            self.put_back(file, capacity, &old_path);
            return Err(failure);
        }
        if let Err(error) = self.disk.sync_dir(&self.dir) {
            return Err(self.poison("sync the directory of", error));
        }
        self.live.with(|live| live.add_segment(header.segment, Arc::clone(&file), capacity));
        self.active = Active { header, path, file, capacity, position: aligned(end) };
        self.last += 1;
        self.stuck = false;
        Ok(())
    }

    /// How a segment begins: its header in a block of its own, then the catalog, then zeros. And where the catalog's
    /// frame ends.
    fn encode_first_block(&mut self, header: Header) -> Result<(Vec<u8>, u64), Failure> {
        let head = self.head(self.catalog.tenure, BatchNumber::default());
        self.encoder.begin(RecordHead { incarnation: header.incarnation, ..head });
        self.encoder.push_catalog(&self.catalog);
        self.encoder.seal().ok_or_else(|| Failure::Undone(io::ErrorKind::FileTooLarge.into()))?;
        let end = RECORDS_AT + self.encoder.bytes() as u64;
        let mut bytes = header.encode();
        bytes.resize(usize::try_from(BLOCK).expect("a block fits in memory"), 0);
        let frame_bytes = usize::try_from(padded(end) - RECORDS_AT).expect("a record fits in memory");
        bytes.extend_from_slice(self.encoder.padded(frame_bytes));
        Ok((bytes, end))
    }

    /// A file that is no segment yet; one of more than the usual size is not filled with zeros, it serves one record.
    fn new_file(&mut self, capacity: u64) -> io::Result<(Arc<dyn DiskFile>, PathBuf)> {
        if capacity == self.options.segment_bytes {
            return Ok((self.spares.take()?, self.dir.join(SPARE)));
        }
        let path = self.dir.join("large.new");
        Ok((self.disk.open(&path, Open::Create)?, path))
    }

    /// What `new_file` gave and nobody used.
    fn put_back(&mut self, file: Arc<dyn DiskFile>, capacity: u64, path: &Path) {
        if self.poisoned {
            return;
        }
        if capacity == self.options.segment_bytes {
            self.spares.keep(file);
        } else if let Err(error) = self.disk.remove(path) {
            tracing::warn!(%error, path = %path.display(), "cannot remove an unfinished segment");
        }
    }

    /// The oldest segment leaves if nothing lies in it any more: as the spare, or for good. Durably, before anything
    /// else leaves (R34). Whether one left.
    fn let_oldest_leave(&mut self) -> bool {
        let Some(oldest) = self.live.with(|live| live.segments().next()) else { return false };
        if oldest.messages > 0 || oldest.number == self.active.header.segment {
            return false;
        }
        let path = self.dir.join(oldest.number.file_name());
        let recycled = oldest.capacity == self.options.segment_bytes && !self.spares.exists();
        let left = if recycled { self.disk.rename(&path, &self.dir.join(SPARE)) } else { self.disk.remove(&path) };
        if let Err(error) = left {
            tracing::warn!(%error, path = %path.display(), "an old segment can't leave; its space stays in use");
            self.stuck = true;
            return false;
        }
        if let Err(error) = self.disk.sync_dir(&self.dir) {
            self.poison("sync the directory of", error);
            return false;
        }
        let file = self.live.with(|live| live.remove_segment(oldest.number));
        if let (true, Some(file)) = (recycled, file) {
            self.spares.keep(file);
        }
        true
    }

    /// The messages that are written again beside a batch, less those that it changes itself (R34).
    fn copies_beside(&mut self, batch: &Batch) -> Vec<Stored> {
        if batch.ops.iter().any(|op| matches!(op, Op::DeleteDurable { .. })) {
            return Vec::new();
        }
        let changed: HashSet<Sequence> = batch.ops.iter().filter_map(changed).collect();
        let sequences = self.copies_to_make();
        let unchanged = sequences.into_iter().filter(|sequence| !changed.contains(sequence));
        unchanged.filter_map(|sequence| self.read_live(sequence)).collect()
    }

    /// What can't be read stays where it is, and its segment with it.
    fn read_live(&self, sequence: Sequence) -> Option<Stored> {
        let found = self.live.with(|live| live.find(sequence))?;
        match super::read_message(&found) {
            Ok(stored) => Some(Stored { holders: found.holders, ..stored }),
            Err(_) => {
                tracing::error!(segment = %found.place.segment.file_name(), "a live message can't be read to be copied");
                None
            }
        }
    }

    /// Which messages of the oldest segment should be written again, if more than half of what is on disk beside one
    /// segment is garbage; never more bytes than were written otherwise (R34).
    fn copies_to_make(&mut self) -> Vec<Sequence> {
        let active = self.active.header.segment;
        let credit = self.written_bytes.saturating_sub(self.copied_bytes);
        let segment_bytes = self.options.segment_bytes;
        let next = &mut self.next_copy;
        self.live.with(|live| {
            let Some(oldest) = live.segments().next().filter(|oldest| oldest.number < active) else {
                return Vec::new();
            };
            if live.capacity() <= 2 * live.bytes() + segment_bytes {
                return Vec::new();
            }
            if next.segment != oldest.number {
                *next = NextCopy { segment: oldest.number, index: 0 };
            }
            next.take(live, credit.min(COPIED_BYTES_MAX))
        })
    }
}

fn changed(op: &Op) -> Option<Sequence> {
    match op {
        Op::Settle { sequence, .. } | Op::Return { sequence, .. } => Some(*sequence),
        _ => None,
    }
}

impl NextCopy {
    fn take(&mut self, live: &Live, bytes_max: u64) -> Vec<Sequence> {
        let mut list = Vec::new();
        let mut bytes = 0;
        loop {
            match live.written(self.segment, self.index) {
                Some(Some((sequence, length))) => {
                    bytes += length + 6; // with its key and length in the record
                    if bytes > bytes_max {
                        return list;
                    }
                    list.push(sequence);
                }
                Some(None) => {}
                None => {
                    self.index = 0;
                    return list;
                }
            }
            self.index += 1;
        }
    }
}

impl Active {
    /// What a new journal rotates away from.
    fn before_the_first(options: &JournalOptions, dir: &Path) -> Self {
        #[derive(Debug)]
        struct NoFile;
        impl DiskFile for NoFile {
            fn bytes(&self) -> io::Result<u64> {
                Ok(0)
            }
            fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
                Err(io::ErrorKind::Unsupported.into())
            }
            fn sync(&self) -> io::Result<()> {
                Ok(())
            }
        }
        let header = Header { segment: SegmentNumber(0), incarnation: options.first_incarnation() };
        Self { header, path: dir.to_owned(), file: Arc::new(NoFile), capacity: 0, position: 0 }
    }

    /// How long a frame may be that is written now. Unit: bytes.
    fn room(&self) -> u64 {
        (self.capacity - self.position).saturating_sub(FRAME_HEAD as u64) // the zeros behind it
    }
}

/// The directory, and durably so: one that a first start made would be gone after a power loss, with all in it. A
/// directory above that may not be opened was not made here.
fn create_dir(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    disk.create_dir(dir).map_err(failed("create", dir))?;
    for parent in dir.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match disk.sync_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && Some(parent) != dir.parent() => {
                tracing::debug!(path = %parent.display(), "cannot sync a directory above the journal");
            }
            synced => synced.map_err(failed("sync", parent))?,
        }
    }
    Ok(())
}

/// The spare that lies there, if it can be the next segment. After a power loss a segment may be called `spare` too, by
/// a change of its name that reached the disk by half.
fn open_spare(
    scan: &Scan,
    disk: &dyn Disk,
    dir: &Path,
    segment_bytes: u64,
) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
    if !scan.spare {
        return Ok(None);
    }
    let path = dir.join(SPARE);
    let file = disk.open(&path, Open::Write).map_err(failed("open", &path))?;
    let mut header = vec![0; HEADER_BYTES];
    if file.bytes().map_err(failed("read", &path))? == segment_bytes {
        file.read_at(&mut header, 0).map_err(failed("read", &path))?;
        let header = Header::decode(&header, &path).ok();
        if !scan.segments.iter().any(|segment| Some(segment.header) == header) {
            return Ok(Some(file));
        }
    }
    disk.remove(&path).map_err(failed("remove", &path))?;
    Ok(None)
}
