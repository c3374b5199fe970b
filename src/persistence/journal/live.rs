//! What is live in the journal, and in which segment it lies.
//!
//! Owns what is known in memory of every segment in use. Written by the journal's thread after a record became durable,
//! read by readers; both through [`SharedLive`], nobody for longer than a look. A message may lie in several segments;
//! its newest place counts.
//! Always true: every live message lies in a segment in use; `Oldest::left` is what would be lost if the oldest segment
//! left; see `Live::check`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use smallvec::SmallVec;

use super::{
    disk::DiskFile,
    holdings::Holdings,
    index::{IndexFile, Unwritten},
    places::{Lane, Place, Places},
    record::RecordHead,
    segment::{Header, SegmentNumber},
    sequences::Sequences,
    summary::Summary,
};
use crate::types::{DestinationId, DurableId, Held, Holder, Priority, Sequence, Timestamp};

/// What is live, shared by the journal's thread and its readers.
#[derive(Clone, Debug)]
pub(super) struct SharedLive(Arc<Mutex<Live>>);

impl SharedLive {
    pub(super) fn new(live: Live) -> Self {
        Self(Arc::new(Mutex::new(live)))
    }

    /// A look at it, or a change to it.
    pub(super) fn with<R>(&self, look: impl FnOnce(&mut Live) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Everything that is known of what the journal holds.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) holdings: Holdings,
    segments: BTreeMap<SegmentNumber, Segment>,
    /// Of the newest segment, as far as it is written.
    summary: Summary,
    oldest: Oldest,
    /// Of all segments in use. Unit: bytes.
    capacity: u64,
    /// What is live, as of the last estimate, and all that was written since. Unit: bytes.
    live_bytes: u64,
}

/// What is live of the oldest segment and lies nowhere else.
#[derive(Debug, Default)]
struct Oldest {
    number: SegmentNumber,
    left: Sequences,
}

/// A segment in use.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: Header,
    pub(super) file: Arc<dyn DiskFile>,
    /// Of the file. Unit: bytes.
    pub(super) capacity: u64,
    /// Which messages lie in it, and what they take.
    pub(super) placed: Sequences,
    placed_bytes: u64,
    pub(super) index: Index,
}

/// Where the places of a segment are to be found.
#[derive(Clone, Debug)]
pub(super) enum Index {
    /// The summary is missing while the segment is written to.
    InMemory {
        places: Arc<Places>,
        summary: Option<Arc<Summary>>,
    },
    OnDisk(Arc<IndexFile>),
}

/// A message that was written, as much of it as has to be known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) destination: DestinationId,
    pub(super) priority: Priority,
    pub(super) expires: Option<Timestamp>,
    pub(super) holders: &'a [Held],
}

impl Live {
    /// A segment is written to from now on; the ones before it are sealed.
    pub(super) fn add_segment(&mut self, header: Header, file: Arc<dyn DiskFile>, capacity: u64) {
        self.seal();
        let index = Index::InMemory { places: Arc::default(), summary: None };
        self.add(Segment { header, file, capacity, placed: Sequences::default(), placed_bytes: 0, index });
        if self.segments.len() == 1 {
            self.find_oldest();
        }
    }

    /// A sealed segment is in use, and this is what its index says. `find_oldest` is due when all are there.
    pub(super) fn add_sealed(
        &mut self,
        header: Header,
        file: Arc<dyn DiskFile>,
        capacity: u64,
        index: IndexFile,
        summary: Summary,
    ) {
        self.seal();
        self.holdings.hold_live(&summary.held());
        for (holder, line) in summary.inserted {
            self.holdings.hold_all(holder, line);
        }
        for (holder, sequences) in summary.settled {
            self.holdings.settle_all(holder, sequences);
        }
        for id in &summary.deleted {
            self.holdings.delete_durable(*id);
        }
        for (holder, upto) in &summary.purged {
            self.holdings.purge(*holder, *upto);
        }
        for ((_, sequence), held) in &summary.returned {
            self.holdings.give_back(*sequence, *held);
        }
        let Summary { mut placed, placed_bytes, .. } = summary;
        placed.compact();
        let index = Index::OnDisk(Arc::new(index));
        self.add(Segment { header, file, capacity, placed, placed_bytes, index });
    }

    fn add(&mut self, segment: Segment) {
        self.capacity += segment.capacity;
        self.segments.insert(segment.header.segment, segment);
    }

    fn seal(&mut self) {
        let summary = std::mem::take(&mut self.summary);
        let Some((_, newest)) = self.segments.iter_mut().next_back() else { return };
        if let Index::InMemory { summary: missing @ None, .. } = &mut newest.index {
            newest.placed = summary.placed.clone();
            newest.placed.compact();
            newest.placed_bytes = summary.placed_bytes;
            *missing = Some(Arc::new(summary));
        }
    }

    /// A record was written to the newest segment, between these places; the next would begin at the last of them.
    pub(super) fn wrote(&mut self, head: RecordHead, holds_batch: bool, places: (u64, u64, u64)) {
        self.summary.wrote(head, holds_batch, places);
    }

    /// A new message lies at `place` in the newest segment. One that is live already stays as it is.
    pub(super) fn insert(&mut self, message: Message<'_>, place: Place) {
        if !self.holdings.live().contains(place.sequence) {
            self.place(message, place);
        }
    }

    /// A message lies at `place` in the newest segment, too, and what is said there of its holders is what they hold.
    pub(super) fn copy(&mut self, message: Message<'_>, place: Place) {
        self.place(message, place);
        self.oldest.left.remove(place.sequence);
    }

    fn place(&mut self, Message { destination, priority, expires, holders }: Message<'_>, place: Place) {
        let Some((number, newest)) = self.segments.iter_mut().next_back() else {
            debug_assert!(false, "a record is written to a segment");
            return;
        };
        for held in holders {
            self.holdings.hold(place.sequence, destination, priority, *held, place.length);
        }
        self.summary.place(place.sequence, destination, priority, holders, place.length);
        self.live_bytes += u64::from(place.length);
        if let Index::InMemory { places, .. } = &mut newest.index {
            Arc::make_mut(places).insert(Lane { destination, priority }, expires, place); // nobody else has it yet
        }
        if *number == self.oldest.number {
            self.oldest.left.insert(place.sequence);
        }
    }

    /// A holder is done with a message.
    pub(super) fn settle(&mut self, sequence: Sequence, holder: Holder) {
        if self.holdings.settle(sequence, holder) {
            self.summary.settle(sequence, holder);
            if !self.holdings.live().contains(sequence) {
                self.oldest.left.remove(sequence);
            }
        }
    }

    /// A message came back to its holder.
    pub(super) fn give_back(&mut self, sequence: Sequence, held: Held) {
        if self.holdings.give_back(sequence, held) {
            self.summary.give_back(sequence, held);
        }
    }

    /// A durable subscription is gone.
    pub(super) fn delete_durable(&mut self, id: DurableId) {
        self.holdings.delete_durable(id);
        self.summary.delete_durable(id);
        self.oldest.left = self.oldest.left.intersection(self.holdings.live());
    }

    /// Everything up to `upto` is gone that a holder held.
    pub(super) fn purge(&mut self, holder: Holder, upto: Sequence) {
        self.holdings.purge(holder, upto);
        self.summary.purge(holder, upto);
        self.oldest.left = self.oldest.left.intersection(self.holdings.live());
    }

    /// The segments in use, oldest first.
    pub(super) fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.segments.values()
    }

    pub(super) fn segment(&self, number: SegmentNumber) -> Option<&Segment> {
        self.segments.get(&number)
    }

    /// Which messages lie in a segment.
    pub(super) fn placed(&self, number: SegmentNumber) -> Option<&Sequences> {
        let is_newest = self.newest() == Some(number);
        if is_newest { Some(&self.summary.placed) } else { self.segments.get(&number).map(|segment| &segment.placed) }
    }

    fn newest(&self) -> Option<SegmentNumber> {
        self.segments.last_key_value().map(|(number, _)| *number)
    }

    pub(super) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The oldest segment, and what is live of it and lies nowhere else.
    pub(super) fn oldest(&self) -> Option<(&Segment, &Sequences)> {
        Some((self.segments.first_key_value()?.1, &self.oldest.left))
    }

    /// The oldest segment leaves. Its file, to be used again.
    pub(super) fn remove_oldest(&mut self) -> Option<Arc<dyn DiskFile>> {
        debug_assert!(self.oldest.left.is_empty(), "a segment leaves when nothing is lost with it");
        let (_, segment) = self.segments.pop_first()?;
        self.capacity -= segment.capacity;
        self.find_oldest();
        Some(segment.file)
    }

    /// Finds out what is live of the oldest segment and lies nowhere else.
    pub(super) fn find_oldest(&mut self) {
        self.oldest = Oldest::default();
        let Some((number, segment)) = self.segments.first_key_value() else { return };
        self.oldest.number = *number;
        let placed = if self.segments.len() == 1 { &self.summary.placed } else { &segment.placed };
        self.oldest.left = placed.intersection(self.holdings.live());
        for later in self.segments.values().skip(1) {
            self.oldest.left.remove_all(&later.placed);
        }
        if self.segments.len() > 1 {
            self.oldest.left.remove_all(&self.summary.placed);
        }
    }

    /// The oldest of the sealed segments whose index is not written.
    pub(super) fn unwritten(&self) -> Option<Unwritten> {
        self.segments.values().find_map(|segment| match &segment.index {
            Index::InMemory { places, summary: Some(summary) } => {
                Some(Unwritten { header: segment.header, summary: Arc::clone(summary), places: Arc::clone(places) })
            }
            _ => None,
        })
    }

    /// The index of a sealed segment is to be found elsewhere from now on. What it was, to be dropped out of the way.
    pub(super) fn set_index(&mut self, header: Header, index: Index) -> Option<Index> {
        let segment = self.segments.get_mut(&header.segment).filter(|segment| segment.header == header)?;
        Some(std::mem::replace(&mut segment.index, index))
    }

    /// Estimates what all live messages take, by the average of the messages of each segment.
    pub(super) fn estimate(&mut self) {
        let live = self.holdings.live();
        let of_sealed = self.segments.values().map(|segment| {
            let number = segment.header.segment;
            let count = if number == self.oldest.number { self.oldest.left.len() } else { segment.placed.common(live) };
            segment.placed_bytes * count / segment.placed.len().max(1)
        });
        let Summary { placed, placed_bytes, .. } = &self.summary;
        self.live_bytes = of_sealed.sum::<u64>() + placed_bytes * placed.common(live) / placed.len().max(1);
    }

    /// What all segments in use take on disk. Unit: bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What all live messages take, about. Unit: bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Who holds a message, if anybody does.
    pub(super) fn parts(&self, sequence: Sequence, destination: DestinationId) -> SmallVec<[Held; 1]> {
        self.holdings.parts(sequence, destination)
    }

    /// What this module promises; for tests and debug builds.
    pub(super) fn check(&self) -> bool {
        self.holdings.check();
        let mut left = self.holdings.live().clone();
        for segment in self.segments.values().skip(1) {
            left.remove_all(&segment.placed);
        }
        if self.segments.len() > 1 {
            left.remove_all(&self.summary.placed);
        }
        assert_eq!(left, self.oldest.left, "what lies in no later segment lies in the oldest");
        let first = self.segments.first_key_value();
        assert!(first.is_none_or(|(number, _)| *number == self.oldest.number), "the oldest is the first");
        true
    }
}
