//! What the files of a journal mean at the start of a term.
//!
//! A scan only reads; `make_durable` makes durable what the scan accepted (R33) and cuts what it did not. A start reads
//! the newest segment whole, and of each sealed one its header and its index's summary (R36): damage inside a sealed
//! segment is found when the bytes are read, by a page, a copy, or a scan of everything (`verify`). The rules, a test
//! each in `tests/it/persistence/recovery.rs`:
//!
//! | found | meaning |
//! |---|---|
//! | no directory, or no segment in it | a new journal: its first segment is made |
//! | no segment, but a reserve or an index | damage: the first segment was durable before them |
//! | `*.new` | a file whose filling was cut short: removed |
//! | `spare` or `reserve` of a segment's size | kept; of another size, or a second name of a segment: the name is removed |
//! | a header of a newer format | refused: [`StoreError::NewerFormat`] |
//! | a header that is short, flipped, or of another segment | damage: a file gets its name after its header is durable |
//! | a segment that does not follow the one before it | damage: files of two journals are mixed |
//! | a segment that is shorter than it was made | damage: somebody cut it short |
//! | a segment without its first record, the catalog | damage, for the same reason |
//! | a number missing between two segments | damage: segments leave strictly oldest first (R34) |
//! | a mark in the newest segment that the next one is durable | damage: the next one is missing |
//! | an oldest segment above the one that the last records need | damage: what lies between is missing |
//! | a segment that ends below the next one's first record | damage: it was whole before the next one was made |
//! | a sealed segment that is shorter than its index says | damage, for the same reason |
//! | an index that is missing, damaged, of an earlier life or of another format | the segment is read whole |
//! | an index without a sealed segment | removed |
//! | a bad record in a sealed segment that is read whole | damage: it was whole before the next one was made |
//! | a bad record, or zeros, and behind it a record that proves it durable | damage |
//! | a record whose checksum is right and whose content is not | damage: a fault of ours, never a torn write |
//! | a bad record at the end of the newest segment | a torn write that nobody was told of: cut, and reported |
//! | a record of the file's earlier life there | cut likewise: what should end the journal there was lost |
//! | zeros at the end of the newest segment | the end |
//!
//! Damage names the file and the byte, and nothing is changed. One case can't be told from a torn write: a flipped bit
//! in the very last record, if the journal was not closed politely (closing proves it durable).

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use memchr::memmem;

use super::{
    super::StoreError,
    disk::{Disk, DiskFile, Open},
    index::{self, IndexFile},
    live::{Live, Message},
    places::Place,
    record::{decode_op, leads},
    segment::{
        Frame, HEADER_BYTES, Header, Next, RECORDS_AT, RESERVE, SEALED, SEALED_AT, SPARE, SegmentNumber, frame_at,
        padded, record_at,
    },
    skim::{Record, Skimmed, Written, skim_op},
    summary::Summary,
};
use crate::types::{BatchNumber, Catalog, Op, Term};

/// What reading the segments brought.
#[derive(Debug)]
pub(super) struct Scan {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    how: Open,
    pub(super) catalog: Catalog,
    pub(super) live: Live,
    /// The number of the last record.
    pub(super) last: Option<u64>,
    /// The oldest segment that has to be there.
    pub(super) oldest: SegmentNumber,
    /// The last record that held a batch.
    pub(super) last_batch: Option<(Term, BatchNumber)>,
    pub(super) segments: Vec<ScannedSegment>,
    pub(super) spare: bool,
    pub(super) reserve: bool,
    /// Files that are of no use any more.
    pub(super) useless: Vec<String>,
    pub(super) torn: Option<Torn>,
}

/// One segment that was read.
#[derive(Debug)]
pub(super) struct ScannedSegment {
    pub(super) header: Header,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// Of the file. Unit: bytes.
    pub(super) capacity: u64,
    pub(super) records: u64,
    pub(super) batches: u64,
    /// Where its last record begins and ends, and where the next one would begin.
    pub(super) last_begins: u64,
    pub(super) last_ends: u64,
    pub(super) next: u64,
}

/// Bytes behind the last record that are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Torn {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) what: &'static str,
}

impl Scan {
    /// Reads what lies in `dir`; what was read before an error stays in the scan.
    pub(super) fn new(disk: &Arc<dyn Disk>, dir: &Path, how: Open) -> Self {
        Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            how,
            catalog: Catalog::default(),
            live: Live::default(),
            last: None,
            oldest: SegmentNumber::default(),
            last_batch: None,
            segments: Vec::new(),
            spare: false,
            reserve: false,
            useless: Vec::new(),
            torn: None,
        }
    }

    pub(super) fn run(&mut self) -> Result<(), StoreError> {
        let names = self.disk.list(&self.dir).map_err(failed("list", &self.dir))?;
        self.spare = names.iter().any(|name| name == SPARE);
        self.reserve = names.iter().any(|name| name == RESERVE);
        let mut numbers: Vec<SegmentNumber> = names.iter().filter_map(|name| SegmentNumber::of_file(name)).collect();
        numbers.sort_unstable();
        if numbers.is_empty() && was_emptied(&names) {
            return Err(StoreError::Damaged { path: self.dir.join(ANY_SEGMENT), offset: 0, what: EMPTIED });
        }
        self.expect_no_gap(&numbers)?;
        let newest = numbers.last().copied();
        let is_sealed = |number: &SegmentNumber| Some(*number) != newest && numbers.binary_search(number).is_ok();
        let is_useless = |name: &String| {
            name.ends_with(".new") || index::segment_of_file(name).is_some_and(|number| !is_sealed(&number))
        };
        self.useless = names.into_iter().filter(is_useless).collect();
        for number in &numbers {
            self.read_segment(*number, Some(*number) == newest)?;
        }
        if numbers.first().is_some_and(|first| *first > self.oldest) && self.oldest != SegmentNumber::default() {
            return Err(self.missing(self.oldest));
        }
        self.live.holdings.loosen();
        self.live.find_oldest();
        Ok(())
    }

    fn expect_no_gap(&self, numbers: &[SegmentNumber]) -> Result<(), StoreError> {
        for (one, two) in numbers.iter().zip(numbers.iter().skip(1)) {
            if one.next() != *two {
                return Err(self.missing(one.next()));
            }
        }
        Ok(())
    }

    fn missing(&self, number: SegmentNumber) -> StoreError {
        StoreError::Damaged { path: self.dir.join(number.file_name()), offset: 0, what: MISSING }
    }

    fn read_segment(&mut self, number: SegmentNumber, newest: bool) -> Result<(), StoreError> {
        let path = self.dir.join(number.file_name());
        let file = self.disk.open(&path, self.how).map_err(failed("open", &path))?;
        let capacity = file.bytes().map_err(failed("read", &path))?;
        let (header, is_sealed) = read_header(file.as_ref(), capacity, &path)?;
        let header = header?;
        let damaged = |offset, what| StoreError::Damaged { path: path.clone(), offset, what };
        if header.segment != number {
            return Err(damaged(0, "the header is that of another segment"));
        }
        if self.segments.last().is_some_and(|before| before.header.incarnation + 1 != header.incarnation) {
            return Err(damaged(0, "it does not follow the segment before it: files of two journals are mixed here"));
        }
        if capacity < header.bytes {
            return Err(damaged(capacity, "the file was cut short"));
        }
        if newest && is_sealed {
            return Err(self.missing(number.next()));
        }
        let segment = ScannedSegment {
            header,
            path,
            file,
            capacity,
            records: 0,
            batches: 0,
            last_begins: RECORDS_AT,
            last_ends: RECORDS_AT,
            next: RECORDS_AT,
        };
        if !newest {
            match IndexFile::open(self.disk.as_ref(), &self.dir, header) {
                Ok((index, summary)) => return self.take_in(segment, index, summary),
                Err(why) => {
                    let segment = number.file_name();
                    tracing::info!(segment, why, "the segment's index can't be used; reading all of the segment");
                }
            }
        }
        self.read_whole(segment, newest)
    }

    /// Believes the index of a sealed segment.
    fn take_in(&mut self, segment: ScannedSegment, index: IndexFile, summary: Summary) -> Result<(), StoreError> {
        if segment.capacity < summary.last_ends {
            let what = "the segment is shorter than what was written to it";
            return Err(StoreError::Damaged { path: segment.path, offset: segment.capacity, what });
        }
        self.expect_number(summary.first, RECORDS_AT, &segment.path)?;
        self.catalog.tenure = self.catalog.tenure.max(summary.tenure);
        self.last = Some(summary.last);
        self.last_batch = summary.last_batch.or(self.last_batch);
        let Summary { records, batches, last_begins, last_ends, next, .. } = summary;
        let (header, file, capacity) = (segment.header, Arc::clone(&segment.file), segment.capacity);
        self.live.add_sealed(header, file, capacity, index, summary);
        self.segments.push(ScannedSegment { records, batches, last_begins, last_ends, next, ..segment });
        Ok(())
    }

    fn read_whole(&mut self, segment: ScannedSegment, newest: bool) -> Result<(), StoreError> {
        let (header, path) = (segment.header, segment.path.clone());
        let bytes = read_all(segment.file.as_ref()).map_err(failed("read", &path))?;
        self.live.add_segment(header, Arc::clone(&segment.file), segment.capacity);
        self.segments.push(segment);
        let (end, why) = self.read_records(&bytes, header, &path)?;
        let offset = end as u64;
        let damaged = |what| StoreError::Damaged { path: path.clone(), offset, what };
        if offset == RECORDS_AT {
            return Err(damaged("the segment's first record is missing"));
        }
        if newest && self.is_proven_durable(&bytes, end, header.incarnation) {
            return Err(damaged(why.unwrap_or("a record is missing that later ones rely on")));
        }
        match why {
            Some(what) if newest => self.torn = Some(Torn { path, offset, what }),
            Some(what) => return Err(damaged(what)),
            None => {}
        }
        Ok(())
    }

    /// Takes in all good records of a segment. Where they end, and what is wrong there, if anything is.
    fn read_records(
        &mut self,
        bytes: &Bytes,
        header: Header,
        path: &Path,
    ) -> Result<(usize, Option<&'static str>), StoreError> {
        let lead = leads(header.incarnation);
        let mut at = usize::try_from(RECORDS_AT).unwrap_or(usize::MAX);
        loop {
            match record_at(bytes, at, &lead) {
                Next::End(why) => return Ok((at, why)),
                Next::Record { record, ends, next } => {
                    let begins = at as u64;
                    let damaged = |what| StoreError::Damaged { path: path.to_owned(), offset: begins, what };
                    let record = Record::skim(record).map_err(damaged)?;
                    self.expect_next(&record, begins, path)?;
                    self.accept(record, (begins, ends as u64, next as u64)).map_err(damaged)?;
                    at = next;
                }
            }
        }
    }

    fn expect_next(&self, record: &Record<'_>, offset: u64, path: &Path) -> Result<(), StoreError> {
        if (offset == RECORDS_AT) != record.catalog.is_some() {
            let what = "the catalog stands in the first record of a segment, and only there";
            return Err(StoreError::Damaged { path: path.to_owned(), offset, what });
        }
        self.expect_number(record.head.number, offset, path)
    }

    fn expect_number(&self, number: u64, offset: u64, path: &Path) -> Result<(), StoreError> {
        match self.last.map(|last| last + 1) {
            Some(expected) if number > expected && offset == RECORDS_AT => {
                let before = self.segments.iter().rev().find(|before| before.path != path);
                let (path, offset) = before.map_or((path, offset), |before| (&before.path, before.next));
                let what = "records are missing at the segment's end";
                Err(StoreError::Damaged { path: path.to_owned(), offset, what })
            }
            Some(expected) if number != expected => {
                let what = "the record's number is not the next one";
                Err(StoreError::Damaged { path: path.to_owned(), offset, what })
            }
            _ => Ok(()),
        }
    }

    fn accept(&mut self, record: Record<'_>, places: (u64, u64, u64)) -> Result<(), &'static str> {
        let tenure = self.catalog.tenure.max(record.head.tenure);
        self.oldest = self.oldest.max(record.head.oldest);
        let holds_batch = record.ops().len() > 0;
        for (slice, op) in record.ops() {
            let slice = slice.ok_or("the segment is too long")?;
            let place =
                |written: &Written<'_>| Place::new(written.sequence, places.0, slice).ok_or("the segment is too long");
            match skim_op(op)? {
                Skimmed::Insert(written) => self.live.insert(message_of(&written), place(&written)?),
                Skimmed::Copy(written) => self.live.copy(message_of(&written), place(&written)?),
                Skimmed::Settle { sequence, holder } => self.live.settle(sequence, holder),
                Skimmed::Return { sequence, held } => self.live.give_back(sequence, held),
                Skimmed::Other => {
                    let op = decode_op(Bytes::copy_from_slice(op))?;
                    match op {
                        Op::DeleteDurable { id } => self.live.delete_durable(id),
                        Op::Purge { holder, upto } => self.live.purge(holder, upto),
                        _ => {}
                    }
                    self.catalog.apply(&op);
                }
            }
        }
        let head = record.head;
        if let Some(catalog) = record.catalog {
            self.catalog = catalog;
        }
        self.catalog.tenure = tenure;
        self.live.wrote(head, holds_batch, places);
        if holds_batch {
            self.last_batch = Some((head.tenure.term, head.batch));
        }
        self.last = Some(head.number);
        if let Some(scanned) = self.segments.last_mut() {
            scanned.records += 1;
            scanned.batches += u64::from(holds_batch);
            (scanned.last_begins, scanned.last_ends, scanned.next) = places;
        }
        Ok(())
    }

    /// Whether a record behind `end` was written when what should stand at `end` was known durable.
    fn is_proven_durable(&self, bytes: &Bytes, end: usize, incarnation: u64) -> bool {
        let lead = leads(incarnation);
        let behind = bytes.slice(end.min(bytes.len())..);
        let candidates = memmem::find_iter(&behind, &lead);
        let frames = candidates.filter_map(|found| found.checked_sub(super::segment::FRAME_HEAD));
        let mut heads = frames.filter(|at| at % 8 == 0).filter_map(|at| match frame_at(&behind, at) {
            Frame::Whole { record, .. } => Record::skim(behind.get(record)?).ok().map(|record| record.head),
            Frame::End | Frame::Bad(_) => None,
        });
        heads.any(|head| Some(head.durable) > self.last)
    }
}

/// What is wrong with a segment that is gone.
pub(super) const MISSING: &str = "the file is missing";

/// What is wrong with a journal without segments.
pub(super) const EMPTIED: &str = "all segments are missing";

/// Nobody knows their numbers.
pub(super) const ANY_SEGMENT: &str = "*.journal";

/// Whether a journal without segments had some: a reserve is made, and an index written, behind the first.
pub(super) fn was_emptied(names: &[String]) -> bool {
    names.iter().any(|name| name == RESERVE || index::segment_of_file(name).is_some())
}

/// A segment's header, if it is good, and whether the next segment was durable.
pub(super) fn read_header(
    file: &dyn DiskFile,
    capacity: u64,
    path: &Path,
) -> Result<(Result<Header, StoreError>, bool), StoreError> {
    let mut bytes = vec![0; usize::try_from(capacity.min(SEALED_AT + 1)).unwrap_or_default()];
    file.read_at(&mut bytes, 0).map_err(failed("read", path))?;
    Ok((Header::decode(&bytes, path), bytes.get(HEADER_BYTES) == Some(&SEALED)))
}

/// Makes durable what the scan accepted, and clears away what it did not (R33).
pub(super) fn make_durable(scan: &Scan) -> Result<(), StoreError> {
    for name in &scan.useless {
        let path = scan.dir.join(name);
        scan.disk.remove(&path).map_err(failed("remove", &path))?;
    }
    if let Some(newest) = scan.segments.last() {
        if let Some(torn) = &scan.torn {
            cut(newest, torn)?;
        }
        write_last_record_anew(newest)?;
    }
    scan.disk.sync_dir(&scan.dir).map_err(failed("sync", &scan.dir))
}

/// Everything from the torn record to the end of the file becomes zeros, so that nothing of it is ever looked at again.
fn cut(newest: &ScannedSegment, torn: &Torn) -> Result<(), StoreError> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    tracing::warn!(
        path = %torn.path.display(),
        offset = torn.offset,
        bytes = newest.capacity - torn.offset,
        "the last write before the crash was torn ({}); nobody was told of it, and it is cut",
        torn.what,
    );
    let mut at = torn.offset;
    while at < newest.capacity {
        let left = usize::try_from(newest.capacity - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
        newest.file.write_at(ZEROS.get(..left).unwrap_or(&ZEROS), at).map_err(failed("write", &newest.path))?;
        at += left as u64;
    }
    Ok(())
}

/// Only the last record can be unknown: each is written after the one before is durable. It may lie in the page cache
/// alone, even marked as clean if a sync failed, so it is written again and not only synced; and the header with it if
/// it is the first.
fn write_last_record_anew(newest: &ScannedSegment) -> Result<(), StoreError> {
    let begin = if newest.last_begins == RECORDS_AT { 0 } else { newest.last_begins };
    let end = padded(newest.last_ends).min(newest.capacity);
    let mut bytes = vec![0; usize::try_from(end - begin).unwrap_or(usize::MAX)];
    let kept = usize::try_from(newest.last_ends - begin).unwrap_or(usize::MAX);
    let kept = bytes.get_mut(..kept).unwrap_or_default();
    newest.file.read_at(kept, begin).map_err(failed("read", &newest.path))?;
    newest.file.write_at(&bytes, begin).map_err(failed("write", &newest.path))?;
    newest.file.sync().map_err(failed("sync", &newest.path))
}

fn message_of<'a>(written: &'a Written<'_>) -> Message<'a> {
    let Written { destination, priority, expires, .. } = *written;
    Message { destination, priority, expires, holders: &written.holders }
}

pub(super) fn read_all(file: &dyn DiskFile) -> io::Result<Bytes> {
    let length = usize::try_from(file.bytes()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; length];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes.into())
}

/// An I/O error with what was tried.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}
