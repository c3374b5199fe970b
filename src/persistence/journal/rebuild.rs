//! Finds out from a sealed segment where its messages lie, when its index is of no use.

use std::io;

use super::{
    disk::DiskFile,
    places::{Lane, Place, Places},
    record::leads,
    recovery::read_all,
    segment::{Header, Next, RECORDS_AT, record_at},
    skim::{Record, Skimmed, skim_op},
};

/// Reads all of a segment.
///
/// # Errors
/// What the disk says; `InvalidData` for a record that can't be read.
pub(super) fn rebuild_places(file: &dyn DiskFile, header: Header) -> io::Result<Places> {
    let bytes = read_all(file)?;
    let lead = leads(header.incarnation);
    let malformed = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut places = Places::default();
    let mut at = usize::try_from(RECORDS_AT).map_err(io::Error::other)?;
    while let Next::Record { record, next, .. } = record_at(&bytes, at, &lead) {
        for (slice, op) in Record::skim(record).map_err(malformed)?.ops() {
            let written = match skim_op(op).map_err(malformed)? {
                Skimmed::Insert(written) | Skimmed::Copy(written) => written,
                _ => continue,
            };
            let place = slice.and_then(|slice| Place::new(written.sequence, at as u64, slice));
            let place = place.ok_or_else(|| malformed("the segment is too long"))?;
            let lane = Lane { destination: written.destination, priority: written.priority };
            places.insert(lane, written.expires, place);
        }
        at = next;
    }
    Ok(places)
}
