//! What is written again so that old segments can leave (R34).
//!
//! When more than half of what is on disk beside one segment is garbage, what is left of the oldest segment is copied
//! beside the batches that are written, a slice each: never more bytes than were written otherwise, so that nobody
//! waits for it. A batch without operations asks for a slice by itself, and is not held to that.
//! Always true: only what is live after a batch's own settles is copied beside it, for those who hold it then.
//! On failure: what can't be read stays where it is, and its segment with it.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    background::Background,
    disk::DiskFile,
    live::{Index, Live, SharedLive},
    places::Place,
    read::read_places,
    record::Copy,
    segment::SegmentNumber,
    sequences::Sequences,
    skim::{Skimmed, skim_op},
};
use crate::types::{Batch, Broken, Held, Holder, Op, Rule, Sequence};

/// How much is copied beside one batch at most. Unit: bytes.
const SLICE_BYTES_MAX: u64 = 1 << 20;

/// How much may be copied beside the smallest batch. Unit: bytes.
const SLICE_BYTES_MIN: u64 = 64 << 10;

/// By how much a message may grow that is copied: its key, its lengths, and who holds it. Unit: bytes.
const GROWS_BYTES: u64 = 64;

#[derive(Debug)]
pub(super) struct Copying {
    /// How much may be copied: what was written and is not made up for. Unit: bytes.
    credit: u64,
    /// How many messages were settled since the garbage was estimated, and how many make it worth while again.
    settled: u64,
    settled_max: u64,
    source: Option<Source>,
    in_background: bool,
    /// For simulations.
    broken: Broken,
}

/// The oldest segment, as far as it is not copied.
#[derive(Debug)]
struct Source {
    segment: SegmentNumber,
    file: Arc<dyn DiskFile>,
    list: List,
}

#[derive(Debug)]
enum List {
    /// The places of what was live, in the order in which they lie.
    BeingMade(Background<Vec<Place>>),
    Ready {
        places: Vec<Place>,
        /// What comes before this is copied, or need not be.
        next: usize,
    },
    /// Something in it can't be read.
    Unreadable,
}

/// What is copied beside one batch.
#[derive(Debug, Default)]
pub(super) struct Slice {
    pub(super) copies: Vec<Copy>,
    /// Where the list goes on once they are written.
    next: usize,
}

impl Copying {
    /// Bytes that an earlier term wrote count for nothing; so there is credit for one segment to begin with.
    pub(super) fn new(segment_bytes: u64, in_background: bool, broken: Broken) -> Self {
        Self { credit: segment_bytes, settled: 0, settled_max: 0, source: None, in_background, broken }
    }

    /// What is to be copied beside `batch`, of which so many bytes are to be written. With a `last_room`, nothing
    /// unless all that is left of the oldest segment fits into it: half of a segment that is moved there makes no room.
    pub(super) fn slice(
        &mut self,
        live: &SharedLive,
        batch: &Batch,
        bytes: u64,
        segment_bytes: u64,
        last_room: Option<u64>,
    ) -> Slice {
        let slice_bytes = match batch.ops.is_empty() {
            true => SLICE_BYTES_MAX,
            false => (2 * bytes).clamp(SLICE_BYTES_MIN, SLICE_BYTES_MAX).min(self.credit),
        };
        self.settled += batch.ops.len() as u64;
        let settles_many = |op: &Op| matches!(op, Op::Purge { .. } | Op::DeleteDurable { .. });
        if batch.ops.is_empty() || self.settled > self.settled_max || batch.ops.iter().any(settles_many) {
            self.estimate(live);
        }
        if !live.with(|live| is_worth_while(live, segment_bytes)) {
            return Slice::default();
        }
        self.list(live);
        let Some(Source { segment, file, list }) = &mut self.source else { return Slice::default() };
        let List::Ready { places, next } = list else { return Slice::default() };
        if last_room.is_some_and(|room| live.with(|live| left_bytes(live, places, *next)) > room) {
            return Slice::default();
        }
        let (taken, next) = live.with(|live| take(live, places, *next, slice_bytes, self.credit, batch.ops.is_empty()));
        if taken.is_empty() {
            return Slice { copies: Vec::new(), next };
        }
        let ops = if self.broken.is(Rule::CopiesWhatIsSettled) { &[] } else { batch.ops.as_slice() };
        let changes = Changes::of(ops);
        let mut copies = Vec::with_capacity(taken.len());
        let read = read_places(file.as_ref(), &taken, |_, bytes| {
            copies.extend(live.with(|live| copy_of(live, &bytes, &changes)));
            Ok(())
        });
        if let Err((offset, error)) = read {
            let segment = segment.file_name();
            tracing::error!(%error, segment, offset, "a live message can't be read to be copied; its segment stays");
            *list = List::Unreadable;
            return Slice::default();
        }
        Slice { copies, next }
    }

    /// Finds out how much of the journal is garbage; the more is live, the less often.
    pub(super) fn estimate(&mut self, live: &SharedLive) {
        let messages = live.with(|live| {
            live.estimate();
            live.holdings.live().len()
        });
        (self.settled, self.settled_max) = (0, (messages / 8).max(1_000));
    }

    /// A batch was written, with a slice beside it or without.
    pub(super) fn wrote(&mut self, slice: Option<&Slice>, written: u64, copied: u64) {
        if let (Some(slice), Some(Source { list: List::Ready { next, .. }, .. })) = (slice, &mut self.source) {
            *next = slice.next.max(*next);
        }
        self.credit = (self.credit + written).saturating_sub(copied);
    }

    /// Sees to it that the source is the oldest segment, and that its list is made.
    fn list(&mut self, live: &SharedLive) {
        let oldest = live.with(|live| live.oldest().map(|(segment, _)| segment.header.segment));
        self.source.take_if(|source| Some(source.segment) != oldest || source.is_through());
        if self.source.is_none() {
            self.source = live.with(|live| Source::of_oldest(live, self.in_background));
        }
        if let Some(Source { list, segment, .. }) = &mut self.source
            && let List::BeingMade(making) = list
        {
            match making.poll() {
                None => {}
                Some(Ok(places)) => *list = List::Ready { places, next: 0 },
                Some(Err(error)) => {
                    tracing::warn!(%error, segment = segment.file_name(), "cannot list what is live; the segment stays");
                    *list = List::Unreadable;
                }
            }
        }
    }
}

impl Source {
    fn of_oldest(live: &Live, in_background: bool) -> Option<Self> {
        let (segment, left) = live.oldest()?;
        let (index, left) = (segment.index.clone(), left.clone());
        let make = move |_: &_| {
            let mut places: Vec<Place> = match index {
                Index::InMemory { places, .. } => places.all().filter(|place| left.contains(place.sequence)).collect(),
                Index::OnDisk(index) => index.places(|sequence| left.contains(sequence))?,
            };
            places.sort_unstable_by_key(|place| place.offset);
            Ok(places)
        };
        let list = List::BeingMade(Background::start("journal-list", in_background, make));
        Some(Self { segment: segment.header.segment, file: Arc::clone(&segment.file), list })
    }

    fn is_through(&self) -> bool {
        matches!(&self.list, List::Ready { places, next } if *next >= places.len())
    }
}

/// What a batch does to messages that may be copied beside it.
struct Changes {
    /// `None`: settled.
    parts: HashMap<(Sequence, Holder), Option<Held>, foldhash::fast::RandomState>,
    deleted: SmallVec<[Holder; 1]>,
    purged: SmallVec<[(Holder, Sequence); 1]>,
}

impl Changes {
    fn of(ops: &[Op]) -> Self {
        let parts = ops.iter().filter_map(|op| match op {
            Op::Settle { sequence, holder } => Some(((*sequence, *holder), None)),
            Op::Return { sequence, held } => Some(((*sequence, held.holder), Some(*held))),
            _ => None,
        });
        let deleted = ops.iter().filter_map(|op| match op {
            Op::DeleteDurable { id } => Some(Holder::Durable(*id)),
            _ => None,
        });
        let purged = ops.iter().filter_map(|op| match op {
            Op::Purge { holder, upto } => Some((*holder, *upto)),
            _ => None,
        });
        Self { parts: parts.collect(), deleted: deleted.collect(), purged: purged.collect() }
    }

    /// A part as it is after the batch.
    fn apply(&self, sequence: Sequence, held: Held) -> Option<Held> {
        let part = self.parts.get(&(sequence, held.holder)).copied().unwrap_or(Some(held));
        let is_purged = |held: &Held| self.purged.iter().any(|(by, upto)| *by == held.holder && sequence <= *upto);
        part.filter(|held| !self.deleted.contains(&held.holder) && !is_purged(held))
    }
}

/// Whether more than half of what is on disk beside one segment is garbage, and there is something to be copied.
fn is_worth_while(live: &Live, segment_bytes: u64) -> bool {
    let is_left = live.oldest().is_some_and(|(_, left)| !left.is_empty());
    is_left && live.segment_count() > 1 && live.capacity() > 2 * live.bytes() + segment_bytes
}

/// The next places whose messages are live, in the order in which they lie; and where the list goes on behind them.
fn take(
    live: &Live,
    places: &[Place],
    begin: usize,
    slice_bytes: u64,
    credit: u64,
    for_nobody: bool,
) -> (Vec<Place>, usize) {
    let none = Sequences::default();
    let left = live.oldest().map_or(&none, |(_, left)| left);
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for (index, place) in places.iter().enumerate().skip(begin) {
        if !left.contains(place.sequence) {
            continue;
        }
        let length = u64::from(place.length) + GROWS_BYTES;
        let fits = bytes + length <= slice_bytes || (taken.is_empty() && (for_nobody || length <= credit));
        if !fits {
            return (taken, index);
        }
        bytes += length;
        taken.push(*place);
    }
    (taken, places.len())
}

/// What the live ones of these places take when they are copied. Unit: bytes.
fn left_bytes(live: &Live, places: &[Place], begin: usize) -> u64 {
    let left = live.oldest().map(|(_, left)| left);
    let is_left = |place: &&Place| left.is_some_and(|left| left.contains(place.sequence));
    places.iter().skip(begin).filter(is_left).map(|place| u64::from(place.length) + GROWS_BYTES).sum()
}

/// The copy that makes sense after the batch; none of what nobody holds any more.
fn copy_of(live: &Live, op: &Bytes, changes: &Changes) -> Option<Copy> {
    let (Skimmed::Insert(written) | Skimmed::Copy(written)) = skim_op(op).ok()? else { return None };
    let holding = live.parts(written.sequence, written.destination).into_iter();
    let holders: SmallVec<[Held; 1]> = holding.filter_map(|held| changes.apply(written.sequence, held)).collect();
    (!holders.is_empty()).then(|| Copy {
        sequence: written.sequence,
        destination: written.destination,
        holders,
        priority: written.priority,
        expires: written.expires,
        message: op.slice_ref(written.message),
    })
}
