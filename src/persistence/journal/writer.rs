//! The journal's own thread: append, sync, rotate, and let old segments leave.
//!
//! Owns every file of the journal while it runs. Always true: what was answered is durable; `settled <= durable <=
//! written`; a record is written only after the one before it is durable; segments leave strictly oldest first, each
//! durably gone before the next (R34); no more bytes were copied than written otherwise.
//! On failure: a failed write is undone, durably, before it is answered; after a failed sync, or a failed undoing, the
//! journal is poisoned and the process ends, because nobody can know what reached the disk.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{CommitError, StoreError},
    JournalOptions, Usage,
    background::Background,
    copying::Copying,
    disk::{Disk, DiskFile, Open},
    index::{self, IndexFile},
    live::{Index, Live, Message, SharedLive},
    places::Place,
    probe::probe,
    record::{Copy, Encoder, RecordHead, Slice},
    recovery::{Scan, failed, make_durable},
    segment::{BLOCK, FRAME_HEAD, Header, RECORDS_AT, SEALED, SEALED_AT, SegmentNumber, aligned, padded},
    spare::{Purpose, Slot, Spares, is_full},
};
use crate::types::{Batch, BatchNumber, Catalog, Op, Rule, Tenure, Term};

/// A batch of a larger record is refused; far below what a record's length and an operation's offset can say.
/// Unit: bytes.
const RECORD_BYTES_MAX: usize = 2 << 30;

/// By how much a record may grow that is encoded anew with the next number. Unit: bytes.
const NUMBERS_GROW_BYTES: u64 = 16;

/// What is kept free behind a record, so that a full disk has room to say that the oldest segment leaves: it is longer
/// than a record without operations. Unit: bytes.
const NOTE_BYTES: u64 = 96;

/// How many segments leave after a batch at most, so that the next one need not wait for more.
const LEAVE_AT_ONCE_MAX: usize = 2;

/// Up to how many live messages a debug build checks the whole map after each batch.
const CHECKED_MESSAGES_MAX: u64 = 200;

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
    /// What the last record said: the oldest segment that has to be there.
    oldest: SegmentNumber,
    last_batch: Option<(Term, BatchNumber)>,
    encoder: Encoder,
    /// Where the operations of the encoded record lie.
    slices: Vec<Slice>,
    spares: Spares,
    copying: Copying,
    /// The index that is being written.
    indexing: Option<(Header, Background<IndexFile>)>,
    /// An index could not be written; not tried again before the next rotation.
    index_failed: bool,
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

/// A file that is to become a segment, under the name that it has before.
struct NewFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// `None`: it is made for one large record.
    slot: Option<Slot>,
}

/// Where a record lies: where it begins and ends, and where the next one would begin.
type Span = (u64, u64, u64);

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
        if is_full(&error) { Self::Full } else { Self::Undone(error) }
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
        make_dir(disk.as_ref(), dir)?;
        let mut scan = Scan::new(disk, dir, Open::Write);
        scan.run()?;
        if !options.broken.is(Rule::BelievesTheCache) {
            make_durable(&scan)?;
        }
        Self::after(options, dir, scan)
    }

    /// A new journal in a directory without one, which begins with what `catalog` says.
    pub(super) fn create(options: &JournalOptions, dir: &Path, catalog: Catalog) -> Result<Self, StoreError> {
        let disk = &options.disk;
        make_dir(disk.as_ref(), dir)?;
        let mut scan = Scan::new(disk, dir, Open::Write);
        scan.catalog = catalog;
        Self::after(options, dir, scan)
    }

    /// Goes on where a scan came to the end.
    fn after(options: &JournalOptions, dir: &Path, mut scan: Scan) -> Result<Self, StoreError> {
        let disk = &options.disk;
        let spares = Spares::recover(&scan, disk, dir, options.segment_bytes, options.fill_in_background)?;
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
            oldest: scan.oldest,
            last_batch: scan.last_batch,
            encoder: Encoder::default(),
            slices: Vec::new(),
            spares,
            copying: Copying::new(options.segment_bytes, options.fill_in_background, options.broken),
            indexing: None,
            index_failed: false,
            written_bytes: 0,
            copied_bytes: 0,
            stuck: false,
            poisoned: false,
        };
        if is_new {
            writer.rotate(0, Purpose::Add).map_err(|failure| failure.for_store(dir))?;
        }
        writer.begin_with_a_reserve()?;
        writer.copying.estimate(&writer.live);
        writer.tidy();
        Ok(writer)
    }

    /// A start on a full disk goes on without one: its consumers make room.
    fn begin_with_a_reserve(&mut self) -> Result<(), StoreError> {
        match self.spares.ensure_reserve() {
            Err(error) if is_full(&error) => {
                tracing::warn!(
                    "there is no room for the journal's reserve: persistent SENDs wait until {} MiB are free below {}",
                    self.options.segment_bytes.div_ceil(1 << 20),
                    self.dir.display(),
                );
                Ok(())
            }
            made => made.map_err(failed("allocate a reserve in", &self.dir)),
        }
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
        let purpose = purpose_of(batch);
        if purpose == Purpose::Add {
            self.spares.ensure_reserve().map_err(|error| Failure::of_write(error).for_commit())?;
        }
        self.commit_beside_copies(batch, tenure, purpose)?;
        self.last_batch = Some(this);
        Ok(())
    }

    fn commit_beside_copies(&mut self, batch: &Batch, tenure: Tenure, purpose: Purpose) -> Result<(), CommitError> {
        let own = self.encode(batch, tenure);
        let own =
            own.ok_or_else(|| CommitError::Refused { source: "the batch is larger than a record may be".into() })?;
        // Without a reserve the better half of what is left is for settles.
        let last_room = (!self.spares.has_reserve()).then(|| self.active.room() / 2);
        let slice = self.copying.slice(&self.live, batch, own, self.options.segment_bytes, last_room);
        if batch.ops.is_empty() && slice.copies.is_empty() {
            self.copying.wrote(Some(&slice), 0, 0);
            return Ok(());
        }
        match self.write_batch(batch, &slice.copies, tenure, purpose) {
            Ok(bytes) => {
                let copied = bytes.saturating_sub(own);
                self.copying.wrote(Some(&slice), own, if batch.ops.is_empty() { 0 } else { copied });
                self.copied_bytes += copied;
            }
            Err(Failure::Full) if !slice.copies.is_empty() && !batch.ops.is_empty() => {
                self.encode(batch, tenure); // what makes room must not be in the way of what is to be kept
                self.write_batch(batch, &[], tenure, purpose).map_err(Failure::for_commit)?;
                self.copying.wrote(None, own, 0);
            }
            Err(failure) => return Err(failure.for_commit()),
        }
        self.written_bytes += own;
        Ok(())
    }

    /// Writes the batch that is encoded and copies beside it, in a new segment if need be. How long the record is.
    /// Unit: bytes.
    fn write_batch(
        &mut self,
        batch: &Batch,
        copies: &[Copy],
        tenure: Tenure,
        purpose: Purpose,
    ) -> Result<u64, Failure> {
        self.seal_beside(copies)?;
        if self.make_room(purpose, NOTE_BYTES)? {
            self.encode(batch, tenure); // with the new segment's incarnation
            self.seal_beside(copies)?;
        }
        let bytes = self.encoder.bytes() as u64;
        let head = self.head(tenure, batch.number);
        let span = self.append()?;
        self.follow(batch, copies, head, span);
        Ok(bytes)
    }

    /// What need not be done before a batch is answered: old segments leave, the next one is prepared. Whether there may
    /// be more of it.
    pub(super) fn tidy(&mut self) -> bool {
        let leaves = |writer: &mut Self| !writer.stuck && !writer.poisoned && writer.let_oldest_leave();
        let is_untidy = (0..LEAVE_AT_ONCE_MAX).all(|_| leaves(self));
        self.write_indexes();
        if self.active.position > self.active.capacity / 2 && !self.poisoned {
            self.spares.prepare();
        }
        is_untidy
    }

    /// Ends politely: what was written last is proven durable, so that damage to it can be told from a torn write.
    pub(super) fn close(mut self) -> Result<(), StoreError> {
        let Some(tenure) = self.tenure.filter(|_| !self.poisoned) else { return Ok(()) };
        self.append_note(tenure).map_err(|failure| failure.for_store(&self.active.path))
    }

    pub(super) fn usage(&self) -> Usage {
        self.live.with(|live| Usage {
            segments: live.segment_count(),
            spare: self.spares.has_spare(),
            reserve: self.spares.has_reserve(),
            live_messages: live.holdings.live().len(),
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
        assert_eq!(self.catalog.tenure, self.tenure.unwrap_or(self.catalog.tenure), "the highest tenure is ours");
        self.live.with(|live| {
            let newest = live.segments().next_back().map(|segment| segment.header);
            assert_eq!(newest, Some(active.header), "the newest segment is written to");
            live.holdings.live().len() > CHECKED_MESSAGES_MAX || live.check()
        })
    }

    fn head(&self, tenure: Tenure, batch: BatchNumber) -> RecordHead {
        let incarnation = self.active.header.incarnation;
        RecordHead { incarnation, number: self.last + 1, durable: self.last, tenure, batch, oldest: self.needed() }
    }

    /// The oldest segment that something would be lost with.
    fn needed(&self) -> SegmentNumber {
        let active = self.active.header.segment;
        self.live.with(|live| match live.oldest() {
            Some((oldest, left)) if left.is_empty() && oldest.header.segment < active => oldest.header.segment.next(),
            Some((oldest, _)) => oldest.header.segment,
            None => active.next(), // the first is being made
        })
    }

    /// Begins a record with a batch. How long it is; `None`: too long. Unit: bytes.
    fn encode(&mut self, batch: &Batch, tenure: Tenure) -> Option<u64> {
        self.encoder.begin(self.head(tenure, batch.number));
        self.slices.clear();
        for op in &batch.ops {
            self.slices.push(self.encoder.push(op)?);
        }
        (self.encoder.bytes() <= RECORD_BYTES_MAX).then_some(self.encoder.bytes() as u64)
    }

    /// Completes it with copies.
    fn seal_beside(&mut self, copies: &[Copy]) -> Result<(), Failure> {
        let too_large = || Failure::Undone(io::ErrorKind::FileTooLarge.into());
        for copy in copies {
            self.slices.push(self.encoder.push_copy(copy).ok_or_else(too_large)?);
        }
        self.encoder.seal().ok_or_else(too_large)
    }

    /// A record without operations.
    fn append_note(&mut self, tenure: Tenure) -> Result<(), Failure> {
        self.encode_note(tenure)?;
        if self.make_room(Purpose::Free, NOTE_BYTES)? {
            self.encode_note(tenure)?;
        }
        self.write_note(tenure)
    }

    fn write_note(&mut self, tenure: Tenure) -> Result<(), Failure> {
        let head = self.head(tenure, BatchNumber::default());
        let span = self.append()?;
        self.live.with(|live| live.wrote(head, false, span));
        Ok(())
    }

    /// Says durably that the oldest segment is not needed any more: one that leaves before would be missed.
    fn say_what_is_needed(&mut self) -> Result<(), Failure> {
        let tenure = self.catalog.tenure;
        self.encode_note(tenure)?;
        if self.make_room(Purpose::Free, 0)? {
            self.encode_note(tenure)?;
        }
        self.write_note(tenure)
    }

    fn encode_note(&mut self, tenure: Tenure) -> Result<(), Failure> {
        self.encoder.begin(self.head(tenure, BatchNumber::default()));
        self.encoder.seal().ok_or_else(|| Failure::Undone(io::ErrorKind::FileTooLarge.into()))
    }

    /// Writes the encoded record and makes it durable.
    fn append(&mut self) -> Result<Span, Failure> {
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
        self.oldest = self.needed();
        Ok((begin, end, aligned(end)))
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

    /// Brings what is durable now into what is known of it.
    fn follow(&mut self, batch: &Batch, copies: &[Copy], head: RecordHead, span: Span) {
        let (given, copied) = self.slices.split_at_checked(batch.ops.len()).unwrap_or_default();
        self.live.with(|live| {
            for (op, slice) in batch.ops.iter().zip(given) {
                follow_op(live, op, span.0, *slice);
                self.catalog.apply(op);
            }
            for (copy, slice) in copies.iter().zip(copied) {
                let Copy { sequence, destination, priority, expires, ref holders, .. } = *copy;
                if let Some(place) = Place::new(sequence, span.0, *slice) {
                    live.copy(Message { destination, priority, expires, holders }, place);
                }
            }
            live.wrote(head, true, span);
        });
        debug_assert!(self.check());
    }

    /// Goes on in a new segment if the encoded record does not fit into this one, with so much behind it; whether it
    /// did, and the record has to be encoded again.
    fn make_room(&mut self, purpose: Purpose, behind: u64) -> Result<bool, Failure> {
        let needed = self.encoder.bytes() as u64 + behind;
        let rotates = self.active.room() < needed;
        if rotates {
            self.rotate(needed + NUMBERS_GROW_BYTES, purpose)?;
        }
        Ok(rotates)
    }

    /// Goes on in a new segment with room for a frame of `needed` bytes. Header and catalog are durable before the file
    /// gets its name, and its name before anything else is written to it.
    fn rotate(&mut self, needed: u64, purpose: Purpose) -> Result<(), Failure> {
        let before = self.active.header;
        let mut header = Header { segment: before.segment.next(), incarnation: before.incarnation + 1, bytes: 0 };
        let end = self.encode_catalog(header.incarnation)?;
        let capacity = padded(aligned(end) + needed).max(self.options.segment_bytes);
        header.bytes = capacity;
        let bytes = self.first_block(header, end);
        let path = self.dir.join(header.segment.file_name());
        let NewFile { file, path: old_path, slot } = self.new_file(capacity, purpose).map_err(Failure::of_write)?;
        let named = file.write_at(&bytes, 0).map_err(Failure::of_write).and_then(|()| {
            file.sync().map_err(|error| self.poison("sync", error))?;
            self.disk.rename(&old_path, &path).map_err(Failure::of_write)
        });
        if let Err(failure) = named {
            self.put_back(NewFile { file, path: old_path, slot });
            return Err(failure);
        }
        if let Err(error) = self.disk.sync_dir(&self.dir) {
            return Err(self.poison("sync the directory of", error));
        }
        let head = self.head(self.catalog.tenure, BatchNumber::default());
        self.live.with(|live| {
            live.add_segment(header, Arc::clone(&file), capacity);
            live.wrote(RecordHead { incarnation: header.incarnation, ..head }, false, (RECORDS_AT, end, aligned(end)));
        });
        self.mark_sealed();
        self.active = Active { header, path, file, capacity, position: aligned(end) };
        self.last += 1;
        self.oldest = head.oldest;
        self.stuck = false;
        self.index_failed = false;
        self.copying.estimate(&self.live);
        Ok(())
    }

    /// The next segment is durable: should somebody remove it, it is missed.
    fn mark_sealed(&self) {
        let Active { header, file, path, .. } = &self.active;
        let is_there = header.segment != SegmentNumber::default(); // nothing is before the first
        if is_there && let Err(error) = file.write_at(&[SEALED], SEALED_AT) {
            tracing::warn!(%error, path = %path.display(), "a segment can't be marked as sealed");
        }
    }

    /// Encodes the first record of a segment. Where it ends.
    fn encode_catalog(&mut self, incarnation: u64) -> Result<u64, Failure> {
        let head = self.head(self.catalog.tenure, BatchNumber::default());
        self.encoder.begin(RecordHead { incarnation, ..head });
        self.encoder.push_catalog(&self.catalog);
        self.encoder.seal().ok_or_else(|| Failure::Undone(io::ErrorKind::FileTooLarge.into()))?;
        Ok(RECORDS_AT + self.encoder.bytes() as u64)
    }

    /// How a segment begins: its header in a block of its own, then the encoded record, which ends at `end`, then
    /// zeros.
    fn first_block(&mut self, header: Header, end: u64) -> Vec<u8> {
        let mut bytes = header.encode();
        bytes.resize(usize::try_from(BLOCK).expect("a block fits in memory"), 0);
        let frame_bytes = usize::try_from(padded(end) - RECORDS_AT).expect("a record fits in memory");
        bytes.extend_from_slice(self.encoder.padded(frame_bytes));
        bytes
    }

    /// A file that is no segment yet; one of more than the usual size is not filled with zeros, it serves one record.
    fn new_file(&mut self, capacity: u64, purpose: Purpose) -> io::Result<NewFile> {
        if capacity == self.options.segment_bytes {
            let (file, slot) = self.spares.take(purpose)?;
            return Ok(NewFile { file, path: self.dir.join(slot.file_name()), slot: Some(slot) });
        }
        let path = self.dir.join("large.new");
        let file = self.disk.open(&path, Open::Create)?;
        let made = match file.allocate(capacity) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => file.write_at(&[0], capacity - 1),
            allocated => allocated,
        };
        let new = NewFile { file, path, slot: None };
        match made {
            Ok(()) => Ok(new),
            Err(error) => {
                self.put_back(new);
                Err(error)
            }
        }
    }

    /// What `new_file` gave and nobody used.
    fn put_back(&mut self, NewFile { file, path, slot }: NewFile) {
        if self.poisoned {
            return;
        }
        if let Some(slot) = slot {
            self.spares.keep(file, slot);
        } else if let Err(error) = self.disk.remove(&path) {
            tracing::warn!(%error, path = %path.display(), "cannot remove an unfinished segment");
        }
    }

    /// The oldest segment leaves if nothing lies in it any more: as reserve, as spare, or for good. Durably, before
    /// anything else leaves (R34). Whether one left.
    fn let_oldest_leave(&mut self) -> bool {
        let oldest = self.live.with(|live| {
            let (oldest, left) = live.oldest()?;
            left.is_empty().then_some((oldest.header, oldest.capacity))
        });
        let is_in_use = |header: Header| {
            header == self.active.header || self.indexing.as_ref().is_some_and(|(indexed, _)| *indexed == header)
        };
        let Some((header, capacity)) = oldest.filter(|(header, _)| !is_in_use(*header)) else { return false };
        let path = self.dir.join(header.segment.file_name());
        if self.oldest <= header.segment
            && let Err(failure) = self.say_what_is_needed()
        {
            let error = failure.for_store(&self.active.path);
            let source = &error as &dyn Error;
            tracing::warn!(source, path = %path.display(), "an old segment can't leave; its space stays in use");
            self.stuck = true;
            return false;
        }
        let index = self.dir.join(index::file_name(header.segment));
        let slot = self.spares.vacancy().filter(|_| capacity == self.options.segment_bytes);
        let left = index::remove_if_there(self.disk.as_ref(), &index).and_then(|()| match slot {
            Some(slot) => self.disk.rename(&path, &self.dir.join(slot.file_name())),
            None => self.disk.remove(&path),
        });
        if let Err(error) = left {
            tracing::warn!(%error, path = %path.display(), "an old segment can't leave; its space stays in use");
            self.stuck = true;
            return false;
        }
        if !self.options.broken.is(Rule::ReusesSegmentsAtOnce)
            && let Err(error) = self.disk.sync_dir(&self.dir)
        {
            self.poison("sync the directory of", error);
            return false;
        }
        match (slot, self.live.with(Live::remove_oldest)) {
            (Some(slot), Some(file)) => self.spares.keep(file, slot),
            _ => self.spares.there_is_room(),
        }
        true
    }

    /// Writes the indexes of sealed segments, oldest first, one at a time. Not at once: a segment that leaves soon
    /// needs none.
    fn write_indexes(&mut self) {
        self.take_index();
        if self.indexing.is_some()
            || self.index_failed
            || self.poisoned
            || self.active.position < self.active.capacity / 4
        {
            return;
        }
        let Some(unwritten) = self.live.with(|live| live.unwritten()) else { return };
        let (disk, dir, header) = (Arc::clone(&self.disk), self.dir.clone(), unwritten.header);
        let write = move |stop: &_| unwritten.write(disk.as_ref(), &dir, stop);
        let in_background = self.options.fill_in_background;
        self.indexing = Some((header, Background::start("journal-index", in_background, write)));
        self.take_index();
    }

    /// An index that is written takes the place of what is in memory.
    fn take_index(&mut self) {
        let Some((header, indexing)) = &mut self.indexing else { return };
        let (header, Some(written)) = (*header, indexing.poll()) else { return };
        self.indexing = None;
        match written {
            Ok(index) => drop(self.live.with(|live| live.set_index(header, Index::OnDisk(Arc::new(index))))),
            Err(error) if is_full(&error) => self.index_failed = true, // a full disk was told of, and it can wait
            Err(error) => {
                let segment = header.segment.file_name();
                tracing::warn!(%error, segment, "cannot write the segment's index; it stays in memory for now");
                self.index_failed = true;
            }
        }
    }
}

fn purpose_of(batch: &Batch) -> Purpose {
    let adds = batch.ops.iter().any(|op| matches!(op, Op::Insert(_)));
    if adds { Purpose::Add } else { Purpose::Free }
}

fn follow_op(live: &mut Live, op: &Op, frame: u64, slice: Slice) {
    match op {
        Op::Insert(stored) => {
            let (priority, expires) = (stored.message.priority, stored.message.expires);
            let message = Message { destination: stored.destination, priority, expires, holders: &stored.holders };
            if let Some(place) = Place::new(stored.sequence, frame, slice) {
                live.insert(message, place);
            }
        }
        Op::Settle { sequence, holder } => live.settle(*sequence, *holder),
        Op::Return { sequence, held } => live.give_back(*sequence, *held),
        Op::DeleteDurable { id } => live.delete_durable(*id),
        Op::Purge { holder, upto } => live.purge(*holder, *upto),
        Op::Mark { .. } | Op::CreateDestination { .. } | Op::CreateDurable { .. } => {}
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
            fn allocate(&self, _: u64) -> io::Result<()> {
                Err(io::ErrorKind::Unsupported.into())
            }
            fn sync(&self) -> io::Result<()> {
                Ok(())
            }
        }
        let header = Header { segment: SegmentNumber(0), incarnation: options.first_incarnation(), bytes: 0 };
        Self { header, path: dir.to_owned(), file: Arc::new(NoFile), capacity: 0, position: 0 }
    }

    /// How long a frame may be that is written now. Unit: bytes.
    fn room(&self) -> u64 {
        (self.capacity - self.position).saturating_sub(FRAME_HEAD as u64) // the zeros behind it
    }
}

/// The directory, durably so, on a file system that a journal can live on.
fn make_dir(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    disk.create_dir(dir).map_err(failed("create", dir))?;
    probe(disk, dir)?;
    sync_parents(disk, dir)
}

/// Makes the directory's own name durable, and those above it: what a first start made would be gone after a power
/// loss, with all in it. A directory above that may not be opened was not made here.
fn sync_parents(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
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
