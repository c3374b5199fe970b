//! Reads all of a journal, whatever state it is in: every good record in order, and every place that is damaged.
//!
//! A start stops at the first damage, and does not look into sealed segments (`recovery.rs`). A walk goes on behind it,
//! for `verify.rs` and `repair.rs`: a record is found again by the incarnation that all records of its segment begin
//! with, and the number of the next good one says how many are gone. Nothing is changed.
//! Always true: one segment at a time is in memory; damage is told in the order of the journal.
//! On failure: a file that can't be read at all, or that a newer version wrote, ends the walk.

use std::{
    collections::BTreeMap,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use memchr::memmem;

use super::{
    super::StoreError,
    disk::{Disk, Open},
    record::{RecordHead, Slice, decode_op, leads},
    recovery::{ANY_SEGMENT, EMPTIED, MISSING, failed, read_header, was_emptied},
    segment::{FRAME_HEAD, Frame, Header, Next, RECORDS_AT, SegmentNumber, frame_at, record_at},
    skim::{Record, Skimmed, Written, skim_op},
};
use crate::types::{Catalog, Held, Holder, Op, Sequence};

/// How far a walk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, for a human.
    pub step: &'static str,
    /// Unit: bytes.
    pub done_bytes: u64,
    /// What there is to read in this step. Unit: bytes.
    pub total_bytes: u64,
}

/// Is told of every [`Progress`].
pub type Watch<'a> = &'a mut dyn FnMut(Progress);

/// A place in a journal where bytes are bad, or missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where the bad bytes begin.
    pub offset: u64,
    /// How many they are. Unit: bytes. 0 if the file or its end is missing.
    pub bytes: u64,
    /// What is wrong there.
    pub what: &'static str,
    /// What is gone by it.
    pub lost: Lost,
}

/// Which records are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// None: all of them were found.
    Nothing,
    /// These; places of damage between the same two good records share them.
    Records(RangeInclusive<u64>),
    /// Nobody can tell: no record before or behind the damage says how many there were.
    Unknown,
}

/// How many records are gone in all. `None`: nobody can tell.
#[must_use]
pub fn lost_records(damage: &[Damage]) -> Option<u64> {
    let mut lost: Vec<&Lost> = damage.iter().map(|damage| &damage.lost).collect();
    lost.dedup(); // places between the same two good records
    let count = |lost: &Lost| match lost {
        Lost::Nothing => Some(0),
        Lost::Records(records) => Some(records.end() - records.start() + 1),
        Lost::Unknown => None,
    };
    lost.into_iter().map(count).sum()
}

/// A last write that a crash has torn; nobody was told of it, and it is no damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornWrite {
    /// The file.
    pub path: PathBuf,
    /// Where it begins.
    pub offset: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

/// What a walk came upon, beside records.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) damage: Vec<Damage>,
    pub(super) torn: Option<TornWrite>,
    pub(super) segments: Vec<Walked>,
    /// The number of the last good record.
    pub(super) last: Option<u64>,
    /// The oldest segment that has to be there, as good records say.
    oldest: SegmentNumber,
}

/// A segment that was read.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) path: PathBuf,
    /// Of the file. Unit: bytes.
    pub(super) capacity: u64,
    pub(super) records: u64,
    /// Where the next record would begin.
    pub(super) next: u64,
}

/// A good record.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) header: Header,
    /// Where it begins and ends in its segment, and where the next one would begin.
    pub(super) places: (u64, u64, u64),
    pub(super) head: RecordHead,
    pub(super) catalog: Option<Catalog>,
    pub(super) ops: Vec<FoundOp<'a>>,
}

/// An operation of a good record.
#[derive(Debug)]
pub(super) enum FoundOp<'a> {
    /// It holds a message; a copy is one that is written again (R34).
    Message {
        written: Written<'a>,
        is_copy: bool,
        op: &'a [u8],
        slice: Slice,
    },
    Settle {
        sequence: Sequence,
        holder: Holder,
    },
    Return {
        sequence: Sequence,
        held: Held,
    },
    /// It changes the catalog.
    Other(Op),
}

/// Is given every good record, in the order of their numbers.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&Found<'_>) -> Result<(), StoreError>;

/// A journal that can be read, as often as need be.
#[derive(Debug)]
pub(super) struct Walk {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    files: Vec<SegmentFile>,
    /// The incarnation of this journal's segment 0, if any header tells: each segment has the next one.
    base: Option<u64>,
    /// There is no segment, and there was one.
    is_emptied: bool,
}

#[derive(Debug)]
struct SegmentFile {
    number: SegmentNumber,
    path: PathBuf,
    bytes: u64,
    /// `Err`: what is wrong with it.
    header: Result<Header, &'static str>,
    /// The next one was durable.
    is_sealed: bool,
}

impl Walk {
    /// Looks at the headers of the segments in `dir`.
    ///
    /// # Errors
    /// [`StoreError::Io`]; [`StoreError::NewerFormat`] if any segment has one.
    pub(super) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, StoreError> {
        let names = disk.list(dir).map_err(failed("list", dir))?;
        let mut numbers: Vec<SegmentNumber> = names.iter().filter_map(|name| SegmentNumber::of_file(name)).collect();
        numbers.sort_unstable();
        let open = |number| SegmentFile::open(disk.as_ref(), dir, number);
        let files: Vec<SegmentFile> = numbers.into_iter().map(open).collect::<Result<_, _>>()?;
        let (base, is_emptied) = (base_of(&files), files.is_empty() && was_emptied(&names));
        Ok(Self { disk: Arc::clone(disk), dir: dir.to_owned(), files, base, is_emptied })
    }

    /// Reads everything.
    ///
    /// # Errors
    /// [`StoreError::Io`], and those of `visit`.
    pub(super) fn run(&self, step: &'static str, visit: Visit<'_>, watch: Watch<'_>) -> Result<Findings, StoreError> {
        let total_bytes = self.files.iter().map(|file| file.bytes).sum();
        let mut done_bytes = 0;
        let mut run = Run { walk: self, visit, findings: Findings::default(), pending: 0, before: None };
        let mut buffer = Vec::new();
        let newest = self.files.iter().rev().find(|file| self.strangeness(file).is_none()).map(|file| file.number);
        for file in &self.files {
            watch(Progress { step, done_bytes, total_bytes });
            run.read_segment(file, Some(file.number) == newest, &mut buffer)?;
            done_bytes += file.bytes;
        }
        run.expect_ends(newest);
        watch(Progress { step, done_bytes, total_bytes });
        Ok(run.findings)
    }

    /// Why nothing in a file is to be believed.
    fn strangeness(&self, file: &SegmentFile) -> Option<&'static str> {
        let header = file.header.as_ref().ok()?;
        if header.segment != file.number {
            return Some("the header is that of another segment");
        }
        (file.base() != self.base)
            .then_some("it does not follow the segment before it: files of two journals are mixed here")
    }

    /// The incarnation of a segment of this journal.
    fn incarnation_of(&self, number: SegmentNumber) -> Option<u64> {
        Some(self.base?.wrapping_add(u64::from(number.0)))
    }
}

impl SegmentFile {
    fn open(disk: &dyn Disk, dir: &Path, number: SegmentNumber) -> Result<Self, StoreError> {
        let path = dir.join(number.file_name());
        let file = disk.open(&path, Open::Read).map_err(failed("open", &path))?;
        let bytes = file.bytes().map_err(failed("read", &path))?;
        let (header, is_sealed) = read_header(file.as_ref(), bytes, &path)?;
        let header = match header {
            Ok(header) => Ok(header),
            Err(StoreError::Damaged { what, .. }) => Err(what),
            Err(error) => return Err(error),
        };
        Ok(Self { number, path, bytes, header, is_sealed })
    }

    fn is_cut(&self) -> bool {
        self.header.is_ok_and(|header| self.bytes < header.bytes)
    }

    fn base(&self) -> Option<u64> {
        let header = self.header.as_ref().ok().filter(|header| header.segment == self.number)?;
        Some(header.incarnation.wrapping_sub(u64::from(self.number.0)))
    }
}

/// If the segments of several journals lie in one directory, it is the one of most of them; of as many, the newest.
fn base_of(files: &[SegmentFile]) -> Option<u64> {
    let mut votes: BTreeMap<u64, (usize, SegmentNumber)> = BTreeMap::new();
    for file in files {
        if let Some(base) = file.base() {
            let (count, newest) = votes.entry(base).or_default();
            (*count, *newest) = (*count + 1, file.number);
        }
    }
    votes.into_iter().max_by_key(|(_, vote)| *vote).map(|(base, _)| base)
}

/// One reading of a walk.
struct Run<'a, 'v> {
    walk: &'a Walk,
    visit: Visit<'v>,
    findings: Findings,
    /// Damage from here on lies behind the last good record: the next one says what was lost by it.
    pending: usize,
    /// The number of the last segment of this journal.
    before: Option<SegmentNumber>,
}

impl Run<'_, '_> {
    fn read_segment(&mut self, file: &SegmentFile, newest: bool, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        if let Some(what) = self.walk.strangeness(file) {
            self.damaged(&file.path, 0..file.bytes, what);
            return Ok(());
        }
        self.expect_neighbour(file);
        self.read_whole(file, buffer)?;
        if let Err(what) = file.header {
            self.damaged(&file.path, 0..RECORDS_AT.min(file.bytes), what);
        }
        let (path, capacity) = (file.path.clone(), file.bytes);
        self.findings.segments.push(Walked { path, capacity, records: 0, next: RECORDS_AT });
        let incarnation = self.walk.incarnation_of(file.number).or_else(|| incarnation_within(buffer));
        match incarnation {
            Some(incarnation) => {
                let header = Header { segment: file.number, incarnation, bytes: file.bytes };
                self.read_records(file, header, newest, buffer)
            }
            None => {
                self.damaged(&file.path, RECORDS_AT.min(file.bytes)..file.bytes, FIRST_MISSING);
                Ok(())
            }
        }
    }

    /// Segments leave strictly oldest first (R34), so none is missing between two.
    fn expect_neighbour(&mut self, file: &SegmentFile) {
        self.expect_all_of(self.before.map_or(0..0, |before| before.0 + 1..file.number.0));
        self.before = Some(file.number);
    }

    fn expect_all_of(&mut self, numbers: Range<u32>) {
        let has_file = |number: &u32| self.walk.files.iter().any(|file| file.number.0 == *number); // a strange one
        for number in numbers.filter(|number| !has_file(number)) {
            let path = self.walk.dir.join(SegmentNumber(number).file_name());
            self.damaged(&path, 0..0, MISSING);
        }
    }

    /// What is missing before the first segment and behind the last; only those who were there tell.
    fn expect_ends(&mut self, newest: Option<SegmentNumber>) {
        if self.walk.is_emptied {
            self.damaged(&self.walk.dir.join(ANY_SEGMENT), 0..0, EMPTIED);
        }
        let within = std::mem::take(&mut self.findings.damage);
        let first = self.walk.files.iter().find(|file| self.walk.strangeness(file).is_none());
        if let Some(first) = first.filter(|_| self.findings.oldest != SegmentNumber::default()) {
            self.expect_all_of(self.findings.oldest.0..first.number.0);
        }
        self.findings.damage.extend(within);
        if let Some(sealed) = self.walk.files.iter().find(|file| Some(file.number) == newest && file.is_sealed) {
            self.expect_all_of(sealed.number.0 + 1..sealed.number.0 + 2);
        }
    }

    fn read_whole(&self, file: &SegmentFile, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let bytes = usize::try_from(file.bytes).map_err(|_| std::io::ErrorKind::FileTooLarge.into());
        buffer.resize(bytes.map_err(failed("read", &file.path))?, 0);
        let open = self.walk.disk.open(&file.path, Open::Read).map_err(failed("open", &file.path))?;
        open.read_at(buffer, 0).map_err(failed("read", &file.path))
    }

    fn read_records(
        &mut self,
        file: &SegmentFile,
        header: Header,
        newest: bool,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let lead = leads(header.incarnation);
        let mut at = usize::try_from(RECORDS_AT).unwrap_or(usize::MAX);
        loop {
            match record_at(bytes, at, &lead) {
                Next::Record { record, ends, next } => {
                    self.take(file, header, (at as u64, ends as u64, next as u64), record)?;
                    at = next;
                }
                Next::End(why) => match find_record(bytes, at, &lead) {
                    Some(found) => {
                        let what = why.unwrap_or("a record is missing that later ones rely on");
                        self.damaged(&file.path, at as u64..found as u64, or_first_missing(at as u64, what));
                        at = found;
                    }
                    None => {
                        self.end(file, newest, at as u64, why);
                        return Ok(());
                    }
                },
            }
        }
    }

    /// No record lies behind `at`.
    fn end(&mut self, file: &SegmentFile, newest: bool, at: u64, why: Option<&'static str>) {
        match why {
            _ if file.is_cut() => self.damaged(&file.path, file.bytes..file.bytes, "the file was cut short"),
            _ if at == RECORDS_AT => self.damaged(&file.path, at.min(file.bytes)..file.bytes, FIRST_MISSING),
            Some(what) if newest => {
                self.findings.torn = Some(TornWrite { path: file.path.clone(), offset: at, what });
            }
            Some(what) => self.damaged(&file.path, at..file.bytes, what),
            None => {}
        }
    }

    /// A record whose checksum is right.
    fn take(
        &mut self,
        file: &SegmentFile,
        header: Header,
        places: (u64, u64, u64),
        record: &[u8],
    ) -> Result<(), StoreError> {
        let at = places.0..places.2;
        let found = match found(header, places, record) {
            Ok(found) => found,
            Err(what) => {
                self.damaged(&file.path, at, what);
                return Ok(());
            }
        };
        if self.findings.last.is_some_and(|last| found.head.number <= last) {
            self.damaged(&file.path, at, OUT_OF_TURN);
            return Ok(());
        }
        let is_first = at.start == RECORDS_AT;
        self.expect_next(file, &at, found.head.number);
        if is_first != found.catalog.is_some() {
            self.damaged(&file.path, at.clone(), "the catalog stands in the first record of a segment, and only there");
        }
        self.findings.last = Some(found.head.number);
        self.findings.oldest = self.findings.oldest.max(found.head.oldest);
        if let Some(walked) = self.findings.segments.last_mut() {
            walked.records += 1;
            walked.next = at.end;
        }
        (self.visit)(&found)
    }

    /// A record with this number shows what is gone by the damage before it.
    fn expect_next(&mut self, file: &SegmentFile, at: &Range<u64>, number: u64) {
        let is_first = at.start == RECORDS_AT;
        let lost = match self.findings.last {
            Some(last) if last + 1 < number => Lost::Records(last + 1..=number - 1),
            None if !is_first => Lost::Unknown,
            _ => Lost::Nothing,
        };
        if lost != Lost::Nothing && self.pending == self.findings.damage.len() {
            self.damaged_in_silence(file, at, is_first);
        }
        for damage in self.findings.damage.iter_mut().skip(self.pending) {
            damage.lost = lost.clone();
        }
        self.pending = self.findings.damage.len();
    }

    /// Records are gone, and nothing that is there is bad.
    fn damaged_in_silence(&mut self, file: &SegmentFile, at: &Range<u64>, is_first: bool) {
        let before = self.findings.segments.iter().rev().find(|before| before.path != file.path);
        match before.filter(|_| is_first).map(|before| (before.path.clone(), before.next..before.capacity)) {
            Some((path, range)) => self.damaged(&path, range, "records are missing at the segment's end"),
            None => self.damaged(&file.path, at.start..at.start, OUT_OF_TURN),
        }
    }

    fn damaged(&mut self, path: &Path, range: Range<u64>, what: &'static str) {
        let bytes = range.end.saturating_sub(range.start);
        let path = path.to_owned();
        self.findings.damage.push(Damage { path, offset: range.start, bytes, what, lost: Lost::Unknown });
    }
}

const FIRST_MISSING: &str = "the segment's first record is missing";
const OUT_OF_TURN: &str = "the record's number is not the next one";

/// What a start calls it if the first record is bad.
fn or_first_missing(at: u64, what: &'static str) -> &'static str {
    if at == RECORDS_AT { FIRST_MISSING } else { what }
}

/// Where the first whole record behind `at` lies.
fn find_record(bytes: &[u8], at: usize, lead: &[u8]) -> Option<usize> {
    let candidates = memmem::find_iter(bytes.get(at..)?, lead).filter_map(|found| (at + found).checked_sub(FRAME_HEAD));
    let mut frames = candidates.filter(|frame| *frame > at && frame % 8 == 0);
    frames.find(|frame| matches!(frame_at(bytes, *frame), Frame::Whole { .. }))
}

/// The incarnation of a segment, from its records alone: the highest, because older ones were left by the file's
/// earlier life.
fn incarnation_within(bytes: &[u8]) -> Option<u64> {
    let begin = usize::try_from(RECORDS_AT).ok()?;
    let lead = leads(1);
    let places = (begin..bytes.len()).step_by(8).filter(|at| bytes.get(at + FRAME_HEAD) == lead.first());
    let records = places.filter_map(|at| match frame_at(bytes, at) {
        Frame::Whole { record, .. } => Record::skim(bytes.get(record)?).ok(),
        Frame::End | Frame::Bad(_) => None,
    });
    records.map(|record| record.head.incarnation).max()
}

fn found(header: Header, places: (u64, u64, u64), record: &[u8]) -> Result<Found<'_>, &'static str> {
    let record = Record::skim(record)?;
    let ops = record.ops().map(|(slice, op)| found_op(slice, op)).collect::<Result<_, _>>()?;
    Ok(Found { header, places, head: record.head, catalog: record.catalog, ops })
}

fn found_op(slice: Option<Slice>, op: &[u8]) -> Result<FoundOp<'_>, &'static str> {
    let slice = slice.ok_or("the segment is too long")?;
    Ok(match skim_op(op)? {
        Skimmed::Insert(written) => FoundOp::Message { written, is_copy: false, op, slice },
        Skimmed::Copy(written) => FoundOp::Message { written, is_copy: true, op, slice },
        Skimmed::Settle { sequence, holder } => FoundOp::Settle { sequence, holder },
        Skimmed::Return { sequence, held } => FoundOp::Return { sequence, held },
        Skimmed::Other => FoundOp::Other(decode_op(Bytes::copy_from_slice(op))?),
    })
}
