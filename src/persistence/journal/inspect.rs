//! What a journal holds, for humans and for scripts: a look that changes nothing.
//!
//! It reads what a start reads (R36): the newest segment, and of each sealed one the summary in its index. So it is as
//! fast as a start, and finds damage where a start does; `verify.rs` reads everything.
//!
//! The caller sees to it that no broker writes meanwhile (`election::share_lock`): a segment that leaves while it is
//! read would look like damage. On failure: what was read before it stands in the report beside the error.

use std::{path::Path, sync::Arc};

use super::{
    super::StoreError,
    DIRECTORY,
    disk::{Disk, Open},
    live::Index,
    recovery::{Scan, ScannedSegment},
    segment::SegmentNumber,
};
use crate::types::{Destination, Durable, DurableId, Holder, Tenure, Text};

/// What lies in a journal.
#[derive(Debug)]
pub struct JournalReport {
    /// Its segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Whether a spare file waits to be the next segment.
    pub spare: bool,
    /// Whether there is a reserve, which only what frees space may use.
    pub reserve: bool,
    /// The highest tenure seen (R17).
    pub tenure: Tenure,
    /// The number of the last record; 0 if there is none.
    pub last_record: u64,
    /// How many messages somebody still holds, by destination, in the order of names; destinations without any too.
    pub messages: Vec<(Destination, u64)>,
    /// Every durable subscription, in the order of client-ids and names.
    pub durables: Vec<DurableReport>,
    /// What all messages take that somebody still holds, estimated by the average of each segment. Unit: bytes.
    pub live_bytes: u64,
    /// How it stands.
    pub health: Health,
}

impl JournalReport {
    /// How many messages somebody still holds.
    #[must_use]
    pub fn live_messages(&self) -> u64 {
        self.messages.iter().map(|(_, count)| count).sum()
    }
}

/// One durable subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableReport {
    /// Whose it is.
    pub client_id: Text,
    /// Its name.
    pub name: Text,
    /// Its topic; `None`: the journal does not name it.
    pub topic: Option<Destination>,
    /// How many messages it still holds.
    pub messages: u64,
}

/// One segment of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its number.
    pub number: SegmentNumber,
    /// Its size on disk. Unit: bytes.
    pub bytes: u64,
    /// How far it is written. Unit: bytes.
    pub written: u64,
    /// How many records it holds.
    pub records: u64,
    /// How many of them hold a batch; the others are catalogs, tenures and the marks of a polite end.
    pub batches: u64,
    /// How many messages lie in it that somebody still holds.
    pub live_messages: u64,
    /// Whether a start can use its index; `None`: it is the newest, which has none.
    pub indexed: Option<bool>,
}

/// How a journal stands.
#[derive(Debug)]
pub enum Health {
    /// Every record is good, up to the end.
    Good,
    /// The last write was torn by a crash. Nobody was told of it; the next start cuts it.
    Torn {
        /// Which segment.
        segment: SegmentNumber,
        /// Where the torn write begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A broker would not start on it.
    Refused(StoreError),
}

/// Looks at the journal below a data directory.
///
/// # Errors
/// [`StoreError::Io`] if the directory can't be read. Damage is no error here: it stands in the report.
pub fn inspect(disk: &Arc<dyn Disk>, data: &Path) -> Result<JournalReport, StoreError> {
    let dir = data.join(DIRECTORY);
    let mut scan = Scan::new(disk, &dir, Open::Read);
    let refused = match scan.run() {
        Err(error @ StoreError::Io { .. }) => return Err(error),
        outcome => outcome.err(),
    };
    Ok(report(scan, refused))
}

fn report(mut scan: Scan, refused: Option<StoreError>) -> JournalReport {
    scan.live.estimate();
    let counts = scan.live.holdings.by_destination();
    let count_of = |id| counts.get(id).copied().unwrap_or_default();
    let mut messages: Vec<(Destination, u64)> =
        scan.catalog.destinations.iter().map(|(id, destination)| (destination.clone(), count_of(id))).collect();
    messages.sort();
    let newest = scan.segments.last().map(|segment| segment.header.segment);
    let health = match (refused, &scan.torn, newest) {
        (Some(error), _, _) => Health::Refused(error),
        (None, Some(torn), Some(segment)) => Health::Torn { segment, offset: torn.offset, what: torn.what },
        _ => Health::Good,
    };
    JournalReport {
        segments: segment_reports(&scan),
        spare: scan.spare,
        reserve: scan.reserve,
        tenure: scan.catalog.tenure,
        last_record: scan.last.unwrap_or_default(),
        messages,
        durables: durable_reports(&scan),
        live_bytes: scan.live.bytes(),
        health,
    }
}

/// A message counts where it lies last.
fn segment_reports(scan: &Scan) -> Vec<SegmentReport> {
    let mut live = scan.live.holdings.live().clone();
    let report = |segment: &ScannedSegment| {
        let placed = scan.live.placed(segment.header.segment);
        let live_messages = placed.map_or(0, |placed| placed.common(&live));
        placed.into_iter().for_each(|placed| live.remove_all(placed));
        SegmentReport {
            number: segment.header.segment,
            bytes: segment.capacity,
            written: segment.next,
            records: segment.records,
            batches: segment.batches,
            live_messages,
            indexed: is_indexed(scan, segment.header.segment),
        }
    };
    let mut reports: Vec<SegmentReport> = scan.segments.iter().rev().map(report).collect();
    reports.reverse();
    reports
}

fn is_indexed(scan: &Scan, number: SegmentNumber) -> Option<bool> {
    match &scan.live.segment(number)?.index {
        Index::OnDisk(_) => Some(true),
        Index::InMemory { summary: Some(_), .. } => Some(false),
        Index::InMemory { summary: None, .. } => None,
    }
}

fn durable_reports(scan: &Scan) -> Vec<DurableReport> {
    let backlogs = scan.live.holdings.backlogs();
    let report = |(id, durable): (&DurableId, &Durable)| DurableReport {
        client_id: durable.client_id.clone(),
        name: durable.name.clone(),
        topic: scan.catalog.destinations.get(&durable.topic).cloned(),
        messages: backlogs.get(&Holder::Durable(*id)).map_or(0, |backlog| backlog.messages.iter().sum()),
    };
    let mut reports: Vec<DurableReport> = scan.catalog.durables.iter().map(report).collect();
    reports.sort_by(|one, other| (&one.client_id, &one.name).cmp(&(&other.client_id, &other.name)));
    reports
}
