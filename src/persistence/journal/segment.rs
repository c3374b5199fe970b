//! The outer form of a segment file: its name, its header, and the frames that records lie in.
//!
//! A segment is a header in a block of its own, then frames, each at a multiple of eight bytes: length (u32), CRC32C of
//! length and record (u32), record; all numbers little-endian. The first record holds the catalog. Behind the last
//! frame stand at least eight zeros, which the next one overwrites; what lies behind them was left by the file's
//! earlier life and is never read as a record.

use std::{ops::Range, path::Path};

use super::super::StoreError;

/// What is written at a time is filled with zeros up to a multiple of this, so that no part of a recycled file has to
/// be read before it is overwritten. Unit: bytes.
pub(super) const BLOCK: u64 = 4_096;

/// Where the first record begins.
pub(super) const RECORDS_AT: u64 = BLOCK;

/// Length and checksum. Unit: bytes.
pub(super) const FRAME_HEAD: usize = 8;

/// Frames begin at multiples of this. Unit: bytes.
const ALIGNMENT: u64 = 8;

/// The file that will become the next segment.
pub(super) const SPARE: &str = "spare";

/// The file that only what frees space may make the next segment (R35).
pub(super) const RESERVE: &str = "reserve";

/// The format that this version writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"BATONMQJ";
/// Unit: bytes.
pub(super) const HEADER_BYTES: usize = 64;
const CHECKSUM_AT: usize = HEADER_BYTES - 4;

/// Where a segment is marked when the next one is durable: behind the header, so that one byte is written and nothing
/// can be torn. Nobody waits for it: a power loss may take it, and then it proves nothing.
pub(super) const SEALED_AT: u64 = HEADER_BYTES as u64;

/// The mark.
pub(super) const SEALED: u8 = b'S';

/// A segment's place in the journal; no number is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentNumber(pub u32);

impl SegmentNumber {
    pub(super) fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("2^32 segments of 64 MiB are more than any disk will see"))
    }

    /// The name of its file.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{:010}.journal", self.0)
    }

    pub(in crate::persistence) fn of_file(name: &str) -> Option<Self> {
        let number = name.strip_suffix(".journal").filter(|digits| digits.len() == 10)?;
        number.parse().ok().map(Self)
    }
}

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) segment: SegmentNumber,
    /// Every record repeats it; a file that is used again gets another one. It is one above that of the segment before.
    pub(super) incarnation: u64,
    /// How long the file was made, so that one that somebody cut short is known. Unit: bytes.
    pub(super) bytes: u64,
}

impl Header {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.segment.0.to_le_bytes());
        bytes.extend_from_slice(&self.incarnation.to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.resize(CHECKSUM_AT, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Magic, format and checksum stand at the same places in every format there will ever be, so that a newer format
    /// and damage can be told apart.
    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self, StoreError> {
        let damaged = |what| StoreError::Damaged { path: path.to_owned(), offset: 0, what };
        let header = bytes.get(..HEADER_BYTES).ok_or_else(|| damaged("the file is shorter than its header"))?;
        if !header.starts_with(&MAGIC) {
            return Err(damaged("this is no segment of a journal"));
        }
        let checked = header.get(..CHECKSUM_AT).unwrap_or_default();
        if u32_at(header, CHECKSUM_AT) != Some(crc32c::crc32c(checked)) {
            return Err(damaged("the header's checksum is wrong"));
        }
        let too_short = || damaged("the header is too short");
        let found = u32_at(header, 8).ok_or_else(too_short)?;
        if found > FORMAT {
            return Err(StoreError::NewerFormat { path: path.to_owned(), found, supported: FORMAT });
        }
        let segment = SegmentNumber(u32_at(header, 12).ok_or_else(too_short)?);
        let incarnation = u64_at(header, 16).ok_or_else(too_short)?;
        let bytes = u64_at(header, 24).ok_or_else(too_short)?;
        Ok(Self { segment, incarnation, bytes })
    }
}

/// What stands at a place where a frame could begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Zeros: nothing was written here, or the end of the file.
    End,
    /// No whole frame.
    Bad(&'static str),
    /// A whole frame.
    Whole {
        /// Where its record lies.
        record: Range<usize>,
        /// Where the next frame begins.
        next: usize,
    },
}

/// Looks at the bytes of a segment at `at`.
pub(super) fn frame_at(segment: &[u8], at: usize) -> Frame {
    let (Some(length), Some(checksum)) = (u32_at(segment, at), u32_at(segment, at + 4)) else { return Frame::End };
    if length == 0 && checksum == 0 {
        return Frame::End;
    }
    let begin = at + FRAME_HEAD;
    let record = usize::try_from(length).ok().and_then(|length| Some(begin..begin.checked_add(length)?));
    let Some((range, record)) = record.and_then(|range| Some((range.clone(), segment.get(range)?))) else {
        return Frame::Bad("the record is longer than the segment");
    };
    if frame_checksum(length, record) != checksum {
        return Frame::Bad("the record's checksum is wrong");
    }
    Frame::Whole { next: range.end.next_multiple_of(8), record: range }
}

/// What stands at a place where a record of one incarnation could begin.
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// A record of it, where it ends, and where the next one would begin.
    Record { record: &'a [u8], ends: usize, next: usize },
    /// No more records of it; with what is wrong there, if anything is.
    End(Option<&'static str>),
}

/// Looks for a record that begins with `lead`, as those of one incarnation do.
pub(super) fn record_at<'a>(segment: &'a [u8], at: usize, lead: &[u8]) -> Next<'a> {
    match frame_at(segment, at) {
        Frame::End => Next::End(None),
        Frame::Bad(what) => Next::End(Some(what)),
        Frame::Whole { record, next } => {
            let ends = record.end;
            match segment.get(record).filter(|record| record.starts_with(lead)) {
                Some(record) => Next::Record { record, ends, next },
                None => Next::End(Some("a record of the file's earlier life")),
            }
        }
    }
}

/// Completes a frame that was begun by leaving [`FRAME_HEAD`] bytes free: the record follows them. `None`: its length
/// does not fit.
pub(super) fn seal_frame(frame: &mut [u8]) -> Option<()> {
    let (head, record) = frame.split_at_mut_checked(FRAME_HEAD)?;
    let length = u32::try_from(record.len()).ok()?;
    let (length_bytes, checksum_bytes) = head.split_at_mut(4);
    length_bytes.copy_from_slice(&length.to_le_bytes());
    checksum_bytes.copy_from_slice(&frame_checksum(length, record).to_le_bytes());
    Some(())
}

/// Where the frame behind one that ends at `end` begins.
pub(super) fn aligned(end: u64) -> u64 {
    end.next_multiple_of(ALIGNMENT)
}

/// How far a frame that ends at `end` has to be followed by zeros: they mark the end, and complete the block.
pub(super) fn padded(end: u64) -> u64 {
    (aligned(end) + ALIGNMENT).next_multiple_of(BLOCK)
}

fn frame_checksum(length: u32, record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), record)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { segment: SegmentNumber(7), incarnation: 0x1234_5678_9abc_def0, bytes: 1 << 26 };

    fn frame(record: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEAD];
        frame.extend_from_slice(record);
        seal_frame(&mut frame).unwrap();
        frame
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        assert_eq!(Header::decode(&HEADER.encode(), Path::new("x")).unwrap(), HEADER);
    }

    #[test]
    fn a_flipped_bit_in_a_header_is_damage() {
        let whole = HEADER.encode();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = Header::decode(&bytes, Path::new("x")).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "bit {bit}: {error}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut bytes = HEADER.encode();
        bytes[8] = 2;
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        let error = Header::decode(&bytes, Path::new("x")).unwrap_err();
        assert!(matches!(error, StoreError::NewerFormat { found: 2, supported: 1, .. }), "{error}");
    }

    #[test]
    fn a_frame_cut_or_flipped_anywhere_is_bad() {
        let whole = frame(b"eleven byte");
        assert_eq!(frame_at(&whole, 0), Frame::Whole { record: 8..19, next: 24 });
        for length in 8..whole.len() {
            assert!(matches!(frame_at(&whole[..length], 0), Frame::Bad(_)), "cut at {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(frame_at(&bytes, 0), Frame::Bad(_)), "bit {bit}");
        }
        assert_eq!(frame_at(&[0; 16], 0), Frame::End);
        assert_eq!(frame_at(&whole, 24), Frame::End);
    }

    #[test]
    fn only_our_names_are_segments() {
        assert_eq!(SegmentNumber::of_file(&SegmentNumber(7).file_name()), Some(SegmentNumber(7)));
        for name in ["7.journal", "spare", "spare.new", "00000000a7.journal", "0000000007.journal.bak"] {
            assert_eq!(SegmentNumber::of_file(name), None, "{name}");
        }
    }
}
