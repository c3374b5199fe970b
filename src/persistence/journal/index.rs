//! The index of a sealed segment: its summary, and where its messages lie.
//!
//! A file beside the segment: a header, the summary, then three tables: the lanes in order; the places, by lane and
//! sequence; what expires, by time. All of it is derived from the segment: an index that is missing, damaged, of the
//! file's earlier life or of a newer format is written anew, and is never an error. It goes before its segment does.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Buf, BufMut};

use super::{
    disk::{Disk, DiskFile, Open},
    places::{Expiry, Lane, Place, Places},
    segment::{Header, SegmentNumber},
    summary::Summary,
    table::{Item, TABLE_BLOCK, Table, write_table},
};
use crate::types::{Sequence, Timestamp};

/// The format that this version writes and reads.
const FORMAT: u32 = 2; // 2: with purges, and chunks of what lies scattered

const MAGIC: [u8; 8] = *b"BATONMQI";

/// The header is as long as this: magic, format, segment, incarnation, how many items each table has, the summary's
/// length and checksum, then its own.
const HEADER_BYTES: usize = 64;

/// A summary is no longer than this; a header that says otherwise is damaged. Unit: bytes.
const SUMMARY_BYTES_MAX: u64 = 1 << 32;

/// How much is written at a time. Unit: bytes.
const WRITE_BYTES: usize = 256 << 10;

/// So few places are read at once, and nothing is looked for among them first: they lie in two blocks at most.
const PLACES_READ_MIN: u64 = 200;

/// The name of a segment's index.
pub(super) fn file_name(segment: SegmentNumber) -> String {
    format!("{:010}.index", segment.0)
}

/// The segment whose index has this name.
pub(super) fn segment_of_file(name: &str) -> Option<SegmentNumber> {
    let number = name.strip_suffix(".index").filter(|digits| digits.len() == 10)?;
    number.parse().ok().map(SegmentNumber)
}

/// An index that lies on disk.
#[derive(Debug)]
pub(super) struct IndexFile {
    file: Arc<dyn DiskFile>,
    lanes: Table<LaneItem>,
    places: Table<Place>,
    expiring: Table<Expiry>,
}

/// Where the places of a lane begin and how many there are.
#[derive(Clone, Copy, Debug)]
struct LaneItem {
    lane: Lane,
    first: u64,
    places: u64,
}

impl IndexFile {
    /// Opens the index of a sealed segment, and reads its summary.
    ///
    /// # Errors
    /// Why it has to be written anew.
    pub(super) fn open(disk: &dyn Disk, dir: &Path, header: Header) -> Result<(Self, Summary), String> {
        let file = disk.open(&dir.join(file_name(header.segment)), Open::Read).map_err(|error| error.to_string())?;
        let mut bytes = [0; HEADER_BYTES];
        file.read_at(&mut bytes, 0).map_err(|error| error.to_string())?;
        let (index, summary) = Self::read_header(file, &bytes, header)?;
        let summary = Summary::decode(&summary).ok_or("its summary can't be read")?;
        Ok((index, summary))
    }

    fn read_header(file: Arc<dyn DiskFile>, mut bytes: &[u8], header: Header) -> Result<(Self, Vec<u8>), String> {
        let checked = bytes.get(..HEADER_BYTES - 4).map(crc32c::crc32c);
        let magic = bytes.get(..8).is_some_and(|magic| magic == MAGIC);
        if !magic || checked != bytes.get(HEADER_BYTES - 4..).map(|mut checksum| checksum.get_u32_le()) {
            return Err("its header is damaged".to_owned());
        }
        bytes.advance(8);
        let (format, segment, incarnation) = (bytes.get_u32_le(), bytes.get_u32_le(), bytes.get_u64_le());
        if format != FORMAT {
            return Err(format!("it has format {format}, and this version reads {FORMAT}"));
        }
        if (segment, incarnation) != (header.segment.0, header.incarnation) {
            return Err("it is that of another segment".to_owned());
        }
        let [lanes, places, expiring, summary_bytes] = [(); 4].map(|()| bytes.get_u64_le());
        let checksum = bytes.get_u32_le();
        let length = usize::try_from(summary_bytes.min(SUMMARY_BYTES_MAX)).map_err(|error| error.to_string())?;
        let mut summary = vec![0; length];
        file.read_at(&mut summary, HEADER_BYTES as u64).map_err(|error| error.to_string())?;
        if crc32c::crc32c(&summary) != checksum {
            return Err("its summary is damaged".to_owned());
        }
        Ok((Self::at(file, summary_bytes, [lanes, places, expiring]), summary))
    }

    /// The tables behind a summary of so many bytes.
    fn at(file: Arc<dyn DiskFile>, summary_bytes: u64, [lanes, places, expiring]: [u64; 3]) -> Self {
        let lanes = Table::new(tables_at(summary_bytes), lanes);
        let places = Table::new(lanes.end(), places);
        let expiring = Table::new(places.end(), expiring);
        Self { file, lanes, places, expiring }
    }

    /// Where these messages of a lane lie, in their order; those that do not lie here are left out.
    pub(super) fn find(&self, lane: Lane, sequences: &[Sequence]) -> io::Result<Vec<Place>> {
        let file = self.file.as_ref();
        let at = self.lanes.partition_point(file, 0..self.lanes.len(), |item| item.lane < lane)?;
        let item = self.lanes.read(file, at..at + 1)?.first().copied().filter(|item| item.lane == lane);
        let Some(item) = item else { return Ok(Vec::new()) };
        let mut found = Vec::with_capacity(sequences.len());
        let (mut at, end) = (item.first, item.first + item.places);
        let mut read: Vec<Place> = Vec::new();
        for sequence in sequences {
            if read.last().is_none_or(|last| last.sequence < *sequence) {
                let mut wanted = (sequences.len() - found.len()) as u64;
                if end - at > PLACES_READ_MIN {
                    at = self.places.partition_point(file, at..end, |place| place.sequence < *sequence)?;
                } else {
                    wanted = end - at;
                }
                read = self.places.read(file, at..(at + wanted).min(end))?;
                at += read.len() as u64;
            }
            let index = read.binary_search_by_key(sequence, |place| place.sequence);
            found.extend(index.ok().and_then(|index| read.get(index)));
        }
        Ok(found)
    }

    /// Every place that is wanted, in no order.
    pub(super) fn places(&self, wanted: impl Fn(Sequence) -> bool) -> io::Result<Vec<Place>> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.places.len() {
            let read = self.places.read(self.file.as_ref(), at..self.places.len())?;
            at += read.len() as u64;
            found.extend(read.into_iter().filter(|place| wanted(place.sequence)));
        }
        Ok(found)
    }

    /// What expires behind a time and sequence, in order: the first `most` that are wanted.
    pub(super) fn expiring_after(
        &self,
        after: (Timestamp, Sequence),
        most: usize,
        wanted: impl Fn(Sequence) -> bool,
    ) -> io::Result<Vec<Expiry>> {
        let (file, items) = (self.file.as_ref(), self.expiring.len());
        let mut at = self.expiring.partition_point(file, 0..items, |expiry| (expiry.at, expiry.sequence) <= after)?;
        let mut found = Vec::new();
        while at < items && found.len() < most {
            let read = self.expiring.read(file, at..at + most as u64)?;
            at += read.len() as u64;
            found.extend(read.into_iter().filter(|expiry| wanted(expiry.sequence)));
        }
        Ok(found)
    }
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) header: Header,
    pub(super) summary: Arc<Summary>,
    pub(super) places: Arc<Places>,
}

impl Unwritten {
    /// Writes the index, and gives it its name when all of it is durable.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path, stop: &AtomicBool) -> io::Result<IndexFile> {
        let path = dir.join(file_name(self.header.segment));
        let unfinished = path.with_extension("index.new");
        let written = self.write_unfinished(disk, &unfinished, stop).and_then(|index| {
            disk.rename(&unfinished, &path)?;
            Ok(index)
        });
        if written.is_err() {
            remove_if_there(disk, &unfinished)?;
        }
        written
    }

    fn write_unfinished(&self, disk: &dyn Disk, path: &Path, stop: &AtomicBool) -> io::Result<IndexFile> {
        let file = disk.open(path, Open::Create)?;
        let summary = self.summary.encode();
        let lanes = self.places.by_lane();
        let places = lanes.values().map(|places| places.len() as u64).sum();
        let counts = [lanes.len() as u64, places, self.places.expiring().len() as u64];
        let mut out = Output { file: file.as_ref(), at: 0, buffer: self.header_block(&summary, counts), stop };
        out.put(&summary)?;
        out.pad()?;
        let mut first = 0;
        let items = lanes.iter().map(|(lane, places)| {
            let item = LaneItem { lane: *lane, first, places: places.len() as u64 };
            first += item.places;
            item
        });
        write_table(items, |block| out.put(block))?;
        write_table(lanes.values().copied().flatten().copied(), |block| out.put(block))?;
        write_table(self.places.expiring().iter().copied(), |block| out.put(block))?;
        out.flush()?;
        file.sync()?;
        Ok(IndexFile::at(file, summary.len() as u64, counts))
    }

    fn header_block(&self, summary: &[u8], counts: [u64; 3]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(WRITE_BYTES + TABLE_BLOCK);
        bytes.extend_from_slice(&MAGIC);
        bytes.put_u32_le(FORMAT);
        bytes.put_u32_le(self.header.segment.0);
        bytes.put_u64_le(self.header.incarnation);
        counts.into_iter().for_each(|count| bytes.put_u64_le(count));
        bytes.put_u64_le(summary.len() as u64);
        bytes.put_u32_le(crc32c::crc32c(summary));
        let checksum = crc32c::crc32c(&bytes);
        bytes.put_u32_le(checksum);
        debug_assert_eq!(bytes.len(), HEADER_BYTES);
        bytes
    }
}

/// Removes a file that need not be there.
pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where the tables begin.
fn tables_at(summary_bytes: u64) -> u64 {
    (HEADER_BYTES as u64).saturating_add(summary_bytes).next_multiple_of(TABLE_BLOCK as u64)
}

/// Writes in large pieces, until it is to stop.
struct Output<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    buffer: Vec<u8>,
    stop: &'a AtomicBool,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Up to the next block.
    fn pad(&mut self) -> io::Result<()> {
        let end = self.at + self.buffer.len() as u64;
        let zeros = end.next_multiple_of(TABLE_BLOCK as u64) - end;
        self.buffer.resize(self.buffer.len() + usize::try_from(zeros).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the journal is being closed"));
        }
        self.file.write_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Item for LaneItem {
    const BYTES: usize = Lane::BYTES + 16;

    fn put(&self, out: &mut Vec<u8>) {
        self.lane.put(out);
        out.put_u64_le(self.first);
        out.put_u64_le(self.places);
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        let lane = Lane::get(bytes)?;
        Some(Self { lane, first: bytes.try_get_u64_le().ok()?, places: bytes.try_get_u64_le().ok()? })
    }
}
