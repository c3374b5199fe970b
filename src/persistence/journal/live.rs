//! What is live in the journal, and where it lies.
//!
//! Owns the map from each live message to its place on disk, and each segment's share in it. Written by the journal's
//! thread after a record became durable, read by readers; both through [`SharedLive`], nobody for longer than a look.
//! Always true: each live message has one place, in a segment that is in use, and stands in exactly one lane; a
//! segment's counts are those of the messages whose place is in it; see `Live::check`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

use smallvec::{SmallVec, smallvec};

use super::{
    super::{Backlog, PageRange},
    disk::DiskFile,
    record::Slice,
    segment::SegmentNumber,
};
use crate::types::{DestinationId, DurableId, Held, Holder, Op, Priority, Sequence, Stored};

/// Where the bytes of a message's operation lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: SegmentNumber,
    /// In the file.
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) checksum: u32,
}

impl Place {
    /// The place of a slice whose frame begins at `frame`. `None`: beyond what an offset can name.
    pub(super) fn new(segment: SegmentNumber, frame: u64, slice: Slice) -> Option<Self> {
        let offset = u32::try_from(frame + u64::from(slice.offset)).ok()?;
        Some(Self { segment, offset, length: slice.length, checksum: slice.checksum })
    }
}

/// What a reader needs to read one message.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) sequence: Sequence,
    pub(super) place: Place,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) holders: SmallVec<[Held; 1]>,
}

/// Every live message. About a hundred bytes of memory each, whatever its body is.
#[derive(Debug, Default)]
pub(super) struct Live {
    messages: HashMap<Sequence, Entry, foldhash::fast::RandomState>,
    lanes: Vec<Lane>,
    lane_of: HashMap<(DestinationId, Priority), u32>,
    segments: BTreeMap<SegmentNumber, Share>,
    /// Of all live messages.
    bytes: u64,
    /// Of all segments in use.
    capacity: u64,
}

/// The map, shared by the journal's thread and its readers.
#[derive(Clone, Debug)]
pub(super) struct SharedLive(Arc<Mutex<Live>>);

impl SharedLive {
    pub(super) fn new(live: Live) -> Self {
        Self(Arc::new(Mutex::new(live)))
    }

    /// A look at the map, or a change to it.
    pub(super) fn with<R>(&self, look: impl FnOnce(&mut Live) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct Entry {
    place: Place,
    lane: u32,
    /// `None`: its own queue, and nothing has ever returned; nearly every message.
    holders: Option<Box<SmallVec<[Held; 1]>>>,
}

#[derive(Debug)]
struct Lane {
    destination: DestinationId,
    priority: Priority,
    messages: BTreeSet<Sequence>,
}

/// One segment in use.
#[derive(Debug)]
struct Share {
    file: Arc<dyn DiskFile>,
    /// Of the file. Unit: bytes.
    capacity: u64,
    messages: usize,
    bytes: u64,
    /// What was written to it, oldest first; once it is sealed, only what was live then.
    written: Vec<Sequence>,
}

impl Live {
    /// A segment is in use from now on; the ones before it are sealed.
    pub(super) fn add_segment(&mut self, number: SegmentNumber, file: Arc<dyn DiskFile>, capacity: u64) {
        if let Some((&sealed, share)) = self.segments.iter_mut().next_back() {
            let lies_here =
                |sequence: &Sequence| self.messages.get(sequence).is_some_and(|e| e.place.segment == sealed);
            share.written.retain(lies_here);
            share.written.shrink_to_fit();
        }
        self.capacity += capacity;
        self.segments.insert(number, Share { file, capacity, messages: 0, bytes: 0, written: Vec::new() });
    }

    /// Follows a durable operation; one that holds a message lies at `place`.
    pub(super) fn apply(&mut self, op: &Op, place: Place) {
        match op {
            Op::Insert(stored) if !self.messages.contains_key(&stored.sequence) => self.insert(stored, place),
            Op::Settle { sequence, holder } => self.settle(*sequence, *holder),
            Op::Return { sequence, held } => self.replace(*sequence, *held),
            Op::DeleteDurable { id } => self.delete_durable(*id),
            Op::Insert(_) | Op::Mark { .. } | Op::CreateDestination { .. } | Op::CreateDurable { .. } => {}
        }
    }

    /// A message lies at `place` from now on.
    pub(super) fn copy(&mut self, stored: &Stored, place: Place) {
        self.remove(stored.sequence);
        self.insert(stored, place);
    }

    fn insert(&mut self, stored: &Stored, place: Place) {
        let Some(share) = self.segments.get_mut(&place.segment) else {
            debug_assert!(false, "a record is written to a segment that is in use");
            return;
        };
        share.messages += 1;
        share.bytes += u64::from(place.length);
        share.written.push(stored.sequence);
        self.bytes += u64::from(place.length);
        let lane = self.lane(stored.destination, stored.message.priority);
        let own_queue = Held::fresh(Holder::Queue(stored.destination));
        let plain = matches!(stored.holders.as_slice(), [only] if *only == own_queue);
        let holders = (!plain).then(|| Box::new(stored.holders.clone()));
        self.messages.insert(stored.sequence, Entry { place, lane, holders });
        if let Some(lane) = lane_mut(&mut self.lanes, lane) {
            lane.messages.insert(stored.sequence);
        }
    }

    fn settle(&mut self, sequence: Sequence, holder: Holder) {
        let Some(entry) = self.messages.get_mut(&sequence) else { return };
        let gone = match &mut entry.holders {
            None => {
                let lane = lane_mut(&mut self.lanes, entry.lane);
                lane.is_some_and(|lane| holder == Holder::Queue(lane.destination))
            }
            Some(holders) => {
                holders.retain(|held| held.holder != holder);
                holders.is_empty()
            }
        };
        if gone {
            self.remove(sequence);
        }
    }

    fn replace(&mut self, sequence: Sequence, held: Held) {
        let Some(mut holders) = self.holders(sequence) else { return };
        let Some(part) = holders.iter_mut().find(|part| part.holder == held.holder) else { return };
        *part = held;
        if let Some(entry) = self.messages.get_mut(&sequence) {
            entry.holders = Some(Box::new(holders));
        }
    }

    fn delete_durable(&mut self, id: DurableId) {
        let holder = Holder::Durable(id);
        let held_by_it = |entry: &Entry| {
            entry.holders.as_ref().is_some_and(|holders| holders.iter().any(|held| held.holder == holder))
        };
        let held = self.messages.iter().filter(|(_, entry)| held_by_it(entry));
        let held: Vec<Sequence> = held.map(|(sequence, _)| *sequence).collect();
        for sequence in held {
            self.settle(sequence, holder);
        }
    }

    fn remove(&mut self, sequence: Sequence) {
        let Some(entry) = self.messages.remove(&sequence) else { return };
        if let Some(lane) = lane_mut(&mut self.lanes, entry.lane) {
            lane.messages.remove(&sequence);
        }
        self.bytes -= u64::from(entry.place.length);
        if let Some(share) = self.segments.get_mut(&entry.place.segment) {
            share.messages -= 1;
            share.bytes -= u64::from(entry.place.length);
        }
    }

    fn lane(&mut self, destination: DestinationId, priority: Priority) -> u32 {
        *self.lane_of.entry((destination, priority)).or_insert_with(|| {
            let number = u32::try_from(self.lanes.len()).expect("each lane took far more than a byte of memory");
            self.lanes.push(Lane { destination, priority, messages: BTreeSet::new() });
            number
        })
    }

    /// Who holds a message, as of the last durable record. `None`: it is not live.
    pub(super) fn holders(&self, sequence: Sequence) -> Option<SmallVec<[Held; 1]>> {
        let entry = self.messages.get(&sequence)?;
        Some(match &entry.holders {
            Some(holders) => holders.as_ref().clone(),
            None => smallvec![Held::fresh(Holder::Queue(self.lanes.get(lane_index(entry.lane))?.destination))],
        })
    }

    /// Where a message lies, if it is live.
    pub(super) fn find(&self, sequence: Sequence) -> Option<Found> {
        let entry = self.messages.get(&sequence)?;
        let file = Arc::clone(&self.segments.get(&entry.place.segment)?.file);
        Some(Found { sequence, place: entry.place, file, holders: self.holders(sequence)? })
    }

    /// The messages of one page, oldest first, and the one behind them if there are more.
    pub(super) fn page(&self, holder: Holder, priority: Priority, range: PageRange, messages: usize) -> Vec<Found> {
        if range.after >= range.upto {
            return Vec::new();
        }
        let in_lane = |lane: &&Lane| match holder {
            Holder::Queue(destination) => lane.priority == priority && lane.destination == destination,
            Holder::Durable(_) => lane.priority == priority,
        };
        let range = (Bound::Excluded(range.after), Bound::Included(range.upto));
        let found = self.lanes.iter().filter(in_lane).flat_map(|lane| lane.messages.range(range));
        let found = found.filter_map(|sequence| self.find(*sequence));
        let held = found.filter(|found| found.holders.iter().any(|held| held.holder == holder));
        held.take(messages.max(1) + 1).collect()
    }

    /// Everything.
    pub(super) fn all(&self) -> Vec<Found> {
        self.messages.keys().filter_map(|sequence| self.find(*sequence)).collect()
    }

    /// What each holder holds, by priority, and what it takes.
    pub(super) fn backlogs(&self) -> BTreeMap<Holder, Backlog> {
        let mut backlogs: BTreeMap<Holder, Backlog> = BTreeMap::new();
        for lane in &self.lanes {
            for found in lane.messages.iter().filter_map(|sequence| self.find(*sequence)) {
                for held in &found.holders {
                    let backlog = backlogs.entry(held.holder).or_default();
                    backlog.messages.get_mut(lane.priority.index()).into_iter().for_each(|messages| *messages += 1);
                    backlog.bytes += u64::from(found.place.length);
                }
            }
        }
        backlogs
    }

    /// The segments in use, oldest first, with what is live in each.
    pub(super) fn segments(&self) -> impl DoubleEndedIterator<Item = SegmentShare> {
        let shares = self.segments.iter();
        shares.map(|(&number, share)| SegmentShare { number, messages: share.messages, capacity: share.capacity })
    }

    /// The oldest segment leaves. Its file, to be used again.
    pub(super) fn remove_segment(&mut self, number: SegmentNumber) -> Option<Arc<dyn DiskFile>> {
        let share = self.segments.remove(&number)?;
        self.capacity -= share.capacity;
        debug_assert_eq!(share.messages, 0, "a segment leaves when nothing lies in it any more");
        Some(share.file)
    }

    /// The `index`th message that was written to a sealed segment, with its length, or `None` in it if it does not lie
    /// there any more. `None`: there are no more.
    pub(super) fn written(&self, segment: SegmentNumber, index: usize) -> Option<Option<(Sequence, u64)>> {
        let sequence = *self.segments.get(&segment)?.written.get(index)?;
        let place = self.messages.get(&sequence).map(|entry| entry.place).filter(|place| place.segment == segment);
        Some(place.map(|place| (sequence, u64::from(place.length))))
    }

    /// What all segments in use take on disk. Unit: bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What all live messages take. Unit: bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many messages are live.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// How many messages are live, by destination.
    pub(super) fn by_destination(&self) -> BTreeMap<DestinationId, usize> {
        let mut counts = BTreeMap::new();
        for lane in self.lanes.iter().filter(|lane| !lane.messages.is_empty()) {
            *counts.entry(lane.destination).or_default() += lane.messages.len();
        }
        counts
    }

    /// What this module promises; for tests and debug builds.
    pub(super) fn check(&self) -> bool {
        let standing: usize = self.lanes.iter().map(|lane| lane.messages.len()).sum();
        assert_eq!(standing, self.messages.len(), "each message stands in exactly one lane");
        let mut counted: BTreeMap<SegmentNumber, (usize, u64)> = BTreeMap::new();
        for (sequence, entry) in &self.messages {
            let lane = self.lanes.get(lane_index(entry.lane));
            assert!(lane.is_some_and(|lane| lane.messages.contains(sequence)), "{sequence} stands in its lane");
            assert!(entry.holders.as_ref().is_none_or(|holders| !holders.is_empty()), "{sequence} has a holder");
            let count = counted.entry(entry.place.segment).or_default();
            *count = (count.0 + 1, count.1 + u64::from(entry.place.length));
        }
        for (number, share) in &self.segments {
            let expected = counted.remove(number).unwrap_or_default();
            assert_eq!((share.messages, share.bytes), expected, "segment {} counts what lies in it", number.0);
        }
        assert!(counted.is_empty(), "every place is in a segment in use");
        assert!(self.lanes.iter().all(|lane| self.lane_of.contains_key(&(lane.destination, lane.priority))));
        true
    }
}

/// One segment, as the writer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentShare {
    pub(super) number: SegmentNumber,
    /// How many live messages lie in it.
    pub(super) messages: usize,
    pub(super) capacity: u64,
}

fn lane_index(lane: u32) -> usize {
    lane as usize
}

fn lane_mut(lanes: &mut [Lane], lane: u32) -> Option<&mut Lane> {
    lanes.get_mut(lane_index(lane))
}
