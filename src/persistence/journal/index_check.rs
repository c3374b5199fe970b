//! Holds the index of a sealed segment against the records of the segment.
//!
//! An index may say more settles than changed anything by what is left of the journal: what they settled has left
//! since. It may say none that no record says, and lack none that changes what is held.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{
    disk::Disk,
    index::{self, IndexFile},
    places::{Lane, Place, Places},
    scattered::Scattered,
    segment::Header,
    summary::Summary,
    tally::Tally,
    walk::{Found, FoundOp},
};
use crate::types::{Holder, Op, Sequence, Timestamp};

/// How it stands with the index of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// It says what the segment says.
    Good,
    /// It is not there: it was not written yet. The next start reads the segment instead.
    Missing,
    /// It can't be used, or says something else. The first is no damage; a start reads the segment instead.
    Wrong(String),
}

/// The index of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexReport {
    /// The file.
    pub path: PathBuf,
    /// How it stands with it.
    pub state: IndexState,
}

/// What the index of a segment has to say.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) header: Header,
    summary: Summary,
    places: Places,
    /// Every settle in the segment, whether or not it changed anything.
    settles: BTreeMap<Holder, Scattered>,
}

impl Expected {
    pub(super) fn new(header: Header) -> Self {
        Self { header, summary: Summary::default(), places: Places::default(), settles: BTreeMap::new() }
    }

    /// Follows the next record, and lets `tally` follow it.
    pub(super) fn follow(&mut self, found: &Found<'_>, tally: &mut Tally) {
        tally.begin(found);
        for op in &found.ops {
            let changes = tally.apply(found.header.segment, op);
            self.apply(found, op, changes);
        }
        self.summary.wrote(found.head, !found.ops.is_empty(), found.places);
    }

    fn apply(&mut self, found: &Found<'_>, op: &FoundOp<'_>, changes: bool) {
        match op {
            FoundOp::Settle { sequence, holder } => {
                self.settles.entry(*holder).or_default().insert(*sequence);
                if changes {
                    self.summary.settle(*sequence, *holder);
                }
            }
            FoundOp::Message { written, slice, .. } if changes => {
                let (destination, priority) = (written.destination, written.priority);
                self.summary.place(written.sequence, destination, priority, &written.holders, slice.length);
                if let Some(place) = Place::new(written.sequence, found.places.0, *slice) {
                    self.places.insert(Lane { destination, priority }, written.expires, place);
                }
            }
            FoundOp::Other(Op::Purge { holder, upto }) => self.summary.purge(*holder, *upto),
            _ => {}
        }
    }

    /// How it stands with the index in `dir`.
    pub(super) fn check(&self, disk: &dyn Disk, dir: &Path) -> IndexReport {
        let name = index::file_name(self.header.segment);
        let path = dir.join(&name);
        let exists = disk.list(dir).is_ok_and(|names| names.contains(&name));
        let state = match IndexFile::open(disk, dir, self.header) {
            _ if !exists => IndexState::Missing,
            Err(why) => IndexState::Wrong(why),
            Ok((index, summary)) => {
                self.compare(&index, &summary).map_or_else(IndexState::Wrong, |()| IndexState::Good)
            }
        };
        IndexReport { path, state }
    }

    fn compare(&self, index: &IndexFile, summary: &Summary) -> Result<(), String> {
        self.compare_records(summary)?;
        self.compare_settles(summary)?;
        let failed = |error: io::Error| format!("its tables can't be read: {error}");
        if !self.has_same_places(index).map_err(failed)? {
            return Err("it says that messages lie elsewhere than they do".to_owned());
        }
        let expiring: Vec<_> = self.places.expiring().iter().copied().collect();
        let before_all = (Timestamp(0), Sequence::ZERO);
        if index.expiring_after(before_all, expiring.len() + 1, |_| true).map_err(failed)? != expiring {
            return Err("it says that messages expire at other times than they do".to_owned());
        }
        Ok(())
    }

    fn compare_records(&self, summary: &Summary) -> Result<(), String> {
        let records = |summary: &Summary| (summary.first, summary.last, summary.records, summary.batches, summary.next);
        if records(summary) != records(&self.summary) || summary.tenure != self.summary.tenure {
            return Err("it says that other records are in the segment".to_owned());
        }
        let is_same = summary.placed == self.summary.placed && summary.placed_bytes == self.summary.placed_bytes;
        if is_same { Ok(()) } else { Err("it says that other messages are in the segment".to_owned()) }
    }

    fn compare_settles(&self, summary: &Summary) -> Result<(), String> {
        let none = Scattered::default();
        let is_within = |inner: &Scattered, outer: Option<&Scattered>| {
            let mut left = inner.clone();
            left.remove_all(outer.unwrap_or(&none));
            left.is_empty()
        };
        for (holder, settled) in &summary.settled {
            if !is_within(settled, self.settles.get(holder)) {
                return Err("it says that messages were settled that were not".to_owned());
            }
        }
        for (holder, settled) in &self.summary.settled {
            let is_deleted = matches!(holder, Holder::Durable(id) if summary.deleted.contains(id));
            if !is_deleted && !is_within(settled, summary.settled.get(holder)) {
                return Err("it lacks messages that were settled".to_owned());
            }
        }
        if summary.purged != self.summary.purged {
            return Err("it says that other messages were purged".to_owned());
        }
        Ok(())
    }

    /// Table and directory of the places, the latter by looking for the ends of each lane.
    fn has_same_places(&self, index: &IndexFile) -> io::Result<bool> {
        let lanes = self.places.by_lane();
        let expected: Vec<Place> = lanes.values().copied().flatten().copied().collect();
        let mut is_same = index.places(|_| true)? == expected;
        for (lane, places) in lanes {
            let ends: Vec<Place> = places.first().into_iter().chain(places.iter().skip(1).last()).copied().collect();
            let sequences: Vec<Sequence> = ends.iter().map(|place| place.sequence).collect();
            is_same &= index.find(lane, &sequences)? == ends;
        }
        Ok(is_same)
    }
}
