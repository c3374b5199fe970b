//! Reads messages from the segment files, beside the journal's thread.
//!
//! What is to be read is listed in a short look at what is live; places and bodies are read outside of it. Settled
//! meanwhile or copied forward, a message may not be where it was (R26): then all of the page is listed again. An index
//! that turns out to be damaged is made anew from its segment, and the reading goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    super::{Backlog, DueMessage, DuePage, DueReason, MessageReader, Page, PageRange, StoreError, Window},
    disk::DiskFile,
    index::IndexFile,
    live::{Index, Live, Segment, SharedLive},
    places::{Expiry, Lane, Place},
    rebuild::rebuild_places,
    record::decode_message,
    segment::Header,
};
use crate::types::{Held, Holder, Priority, Sequence, Stored, Timestamp};

/// Messages that lie near each other are read together, up to so much. Unit: bytes.
const READ_BYTES_MAX: u64 = 1 << 20;

/// What lies between two messages that are read together at most: a record's head, and room for what is not wanted.
/// Unit: bytes.
const GAP_BYTES_MAX: u64 = 4 << 10;

/// Reads messages from the segment files, beside the journal's thread.
#[derive(Clone, Debug)]
pub struct JournalReader {
    dir: Arc<Path>,
    /// `None` before the journal is recovered.
    recovered: Arc<Mutex<Option<Recovered>>>,
}

#[derive(Clone, Debug)]
struct Recovered {
    live: SharedLive,
    /// What everybody held then (R28).
    backlogs: Arc<BTreeMap<Holder, Backlog>>,
}

impl MessageReader for JournalReader {
    async fn page(
        &self,
        holder: Holder,
        priority: Priority,
        range: PageRange,
        window: Window,
    ) -> Result<Page, StoreError> {
        let live = self.recovered()?.live;
        let first = live.with(|live| live.holdings.list(holder, priority, range, 1));
        if first.is_none_or(|(_, listed)| listed.sequences.is_empty()) {
            return Ok(Page { messages: Vec::new(), complete: true }); // not worth a thread
        }
        let reader = self.clone();
        let page = move || reader.read(&live, |live| list_page(live, holder, priority, range, window));
        let (messages, complete) = tokio::task::spawn_blocking(page).await.map_err(|_| StoreError::Closed)??;
        Ok(cut_page(messages, complete, window))
    }

    async fn due(
        &self,
        before: Timestamp,
        after: (Timestamp, Sequence),
        window: Window,
    ) -> Result<DuePage, StoreError> {
        let reader = self.clone();
        let page = move || reader.read_due(before, after, window);
        tokio::task::spawn_blocking(page).await.map_err(|_| StoreError::Closed)?
    }

    async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        Ok(self.recovered()?.backlogs.keys().copied().collect())
    }

    async fn backlog(&self, holder: Holder) -> Result<Backlog, StoreError> {
        Ok(self.recovered()?.backlogs.get(&holder).copied().unwrap_or_default())
    }
}

/// When a message comes due, why, and where it lies.
type Due = (Timestamp, Sequence, DueReason, Lane);

/// A message that is to be read, and who held it when it was listed.
#[derive(Clone, Debug)]
struct Wanted {
    sequence: Sequence,
    lane: Lane,
    holders: SmallVec<[Held; 1]>,
}

/// Messages that are to be read of one segment, and how they are found there.
#[derive(Debug)]
struct Shelf {
    header: Header,
    file: Arc<dyn DiskFile>,
    /// `None`: the places are in memory.
    index: Option<Arc<IndexFile>>,
    wanted: Vec<Wanted>,
}

/// What was listed in one look.
#[derive(Debug)]
struct List {
    shelves: Vec<Shelf>,
    /// Whether it is all that was asked for.
    complete: bool,
    /// No more than so much is read of it, but one message at least. Unit: bytes.
    bytes_max: usize,
}

/// Why something could not be read where it was said to lie.
#[derive(Debug)]
struct Unreadable {
    header: Header,
    offset: u32,
    error: io::Error,
}

/// So many messages that are due are read before anybody looks whether there is room for more.
const DUE_READ_AT_ONCE: usize = 32;

impl JournalReader {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.into(), recovered: Arc::default() }
    }

    /// The journal is recovered, and can be read.
    pub(super) fn begin(&self, live: SharedLive) {
        let backlogs = Arc::new(live.with(|live| live.holdings.backlogs()));
        *self.recovered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Recovered { live, backlogs });
    }

    fn recovered(&self) -> Result<Recovered, StoreError> {
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StoreError::Closed)
    }

    /// What `list` lists, in the order of sequences; and whether it is all of it.
    fn read(
        &self,
        live: &SharedLive,
        list: impl Fn(&mut Live) -> Option<List>,
    ) -> Result<(Vec<Stored>, bool), StoreError> {
        loop {
            let Some(listed) = live.with(&list) else { return Ok((Vec::new(), true)) };
            let complete = listed.complete;
            match listed.read(live) {
                Ok((messages, all)) => return Ok((messages, complete && all)),
                Err(unreadable) if !is_in_use(live, unreadable.header) => {} // it left meanwhile
                Err(unreadable) => return Err(self.unreadable(unreadable)),
            }
        }
    }

    fn unreadable(&self, Unreadable { header, offset, error }: Unreadable) -> StoreError {
        let path = self.dir.join(header.segment.file_name());
        match error.kind() {
            io::ErrorKind::InvalidData => {
                StoreError::Damaged { path, offset: offset.into(), what: "a message can't be read" }
            }
            _ => StoreError::Io { action: "read", path, source: error },
        }
    }

    fn read_due(&self, before: Timestamp, after: (Timestamp, Sequence), window: Window) -> Result<DuePage, StoreError> {
        let live = self.recovered()?.live;
        let keys = window.messages.max(1) + 1;
        let due = self.list_due(&live, after, keys)?;
        let is_all = due.chunk_by(|one, two| (one.0, one.1) == (two.0, two.1)).count() < keys;
        let (now, later) = due.split_at(due.partition_point(|(at, ..)| *at <= before));
        let mut page = DuePage { messages: Vec::new(), next: later.first().map(|due| due.0) };
        let (mut bytes, mut last) = (0, after);
        for some in now.chunks(DUE_READ_AT_ONCE) {
            let read = self.read_due_messages(&live, some)?;
            for (at, sequence, reason, _) in some {
                let Some(stored) = read.get(sequence) else { continue }; // settled meanwhile
                let size = stored.message.size();
                if (*at, *sequence) != last && !window.has_room(page.messages.len(), bytes, size) {
                    return Ok(DuePage { next: Some(*at), ..page });
                }
                bytes += size;
                last = (*at, *sequence);
                page.messages.push(DueMessage { at: *at, reason: *reason, stored: stored.clone() });
            }
        }
        if page.next.is_none() && !is_all {
            page.next = now.last().map(|due| due.0); // what lies behind was not looked at
        }
        Ok(page)
    }

    fn read_due_messages(&self, live: &SharedLive, due: &[Due]) -> Result<BTreeMap<Sequence, Stored>, StoreError> {
        let wanted: BTreeMap<Sequence, Lane> = due.iter().map(|due| (due.1, due.3)).collect();
        let (messages, _) = self.read(live, |live| {
            let wanted = wanted.iter().filter_map(|(sequence, lane)| want(live, *sequence, *lane)).collect();
            Some(shelve(live, wanted, true, usize::MAX))
        })?;
        Ok(messages.into_iter().map(|stored| (stored.sequence, stored)).collect())
    }

    /// What comes due behind `after`, in order, at the first so many times and sequences.
    fn list_due(&self, live: &SharedLive, after: (Timestamp, Sequence), keys: usize) -> Result<Vec<Due>, StoreError> {
        let (mut due, on_disk) = live.with(|live| (due_in_memory(live, after, keys), on_disk(live)));
        for (header, index) in on_disk {
            let is_live = |sequence| live.with(|live| live.holdings.live().contains(sequence));
            match index.expiring_after(after, keys, is_live) {
                Ok(found) => due.extend(found.into_iter().map(expires)),
                Err(_) => {
                    self.make_index_anew(live, header)?;
                    return self.list_due(live, after, keys);
                }
            }
        }
        due.sort_unstable();
        due.dedup(); // a message that was copied expires in two segments
        let kept = due.chunk_by(|one, two| (one.0, one.1) == (two.0, two.1)).take(keys).map(<[Due]>::len).sum();
        due.truncate(kept);
        Ok(due)
    }

    /// An index that can't be read serves from memory from now on.
    fn make_index_anew(&self, live: &SharedLive, header: Header) -> Result<(), StoreError> {
        let file = live.with(|live| live.segment(header.segment).map(|segment| Arc::clone(&segment.file)));
        let Some(file) = file else { return Ok(()) };
        replace_index(live, header, file.as_ref())
            .map_err(|error| self.unreadable(Unreadable { header, offset: 0, error }))
    }
}

impl List {
    /// The messages, in the order of sequences; and whether all of them were read.
    fn read(self, live: &SharedLive) -> Result<(Vec<Stored>, bool), Unreadable> {
        let mut found = Vec::new();
        for (number, shelf) in self.shelves.iter().enumerate() {
            let places = shelf.find(live)?;
            found.extend(places.into_iter().map(|(place, wanted)| (number, place, wanted)));
        }
        found.sort_unstable_by_key(|(_, place, _)| place.sequence);
        let mut bytes = 0_usize;
        let fits = found.iter().take_while(|(_, place, _)| {
            bytes = bytes.saturating_add(place.length as usize);
            bytes <= self.bytes_max
        });
        let fits = fits.count();
        let all = fits == found.len();
        found.truncate(fits.max(1));
        let mut messages = Vec::with_capacity(found.len());
        for (number, shelf) in self.shelves.iter().enumerate() {
            let here: Vec<_> = found.iter().filter(|(on, ..)| *on == number).collect();
            let mut places: Vec<Place> = here.iter().map(|(_, place, _)| *place).collect();
            let holders: BTreeMap<Sequence, &Wanted> = here.iter().map(|(_, place, w)| (place.sequence, *w)).collect();
            places.sort_unstable_by_key(|place| place.offset);
            read_places(shelf.file.as_ref(), &places, |place, bytes| {
                let stored = decode_message(bytes).filter(|stored| stored.sequence == place.sequence);
                let stored = stored.ok_or(io::ErrorKind::InvalidData)?;
                let holders = holders.get(&place.sequence).map(|wanted| wanted.holders.clone()).unwrap_or_default();
                messages.push(Stored { holders, ..stored });
                Ok(())
            })
            .map_err(|(offset, error)| Unreadable { header: shelf.header, offset, error })?;
        }
        messages.sort_unstable_by_key(|stored| stored.sequence);
        Ok((messages, all))
    }
}

impl Shelf {
    /// Where the messages lie. All of them do.
    fn find(&self, live: &SharedLive) -> Result<Vec<(Place, &Wanted)>, Unreadable> {
        let unreadable = |error| Unreadable { header: self.header, offset: 0, error };
        match self.look_up(live, self.index.as_deref()) {
            Ok(found) if found.len() == self.wanted.len() => return Ok(found),
            _ if !is_in_use(live, self.header) => return Err(unreadable(io::ErrorKind::NotFound.into())),
            _ => {}
        }
        replace_index(live, self.header, self.file.as_ref()).map_err(unreadable)?;
        let found = self.look_up(live, None).map_err(unreadable)?;
        match found.len() == self.wanted.len() {
            true => Ok(found),
            false => Err(unreadable(io::ErrorKind::InvalidData.into())),
        }
    }

    fn look_up(&self, live: &SharedLive, index: Option<&IndexFile>) -> io::Result<Vec<(Place, &Wanted)>> {
        let mut found = Vec::with_capacity(self.wanted.len());
        for of_lane in self.wanted.chunk_by(|one, two| one.lane == two.lane) {
            let Some(lane) = of_lane.first().map(|wanted| wanted.lane) else { continue };
            let sequences: Vec<Sequence> = of_lane.iter().map(|wanted| wanted.sequence).collect();
            let places = match index {
                Some(index) => index.find(lane, &sequences)?,
                None => live.with(|live| find_in_memory(live, self.header, lane, &sequences)),
            };
            let mut wanted = of_lane.iter();
            for place in places {
                found.extend(wanted.find(|wanted| wanted.sequence == place.sequence).map(|wanted| (place, wanted)));
            }
        }
        Ok(found)
    }
}

fn find_in_memory(live: &Live, header: Header, lane: Lane, sequences: &[Sequence]) -> Vec<Place> {
    match live.segment(header.segment).map(|segment| &segment.index) {
        Some(Index::InMemory { places, .. }) => {
            sequences.iter().filter_map(|sequence| places.find(lane, *sequence)).collect()
        }
        _ => Vec::new(),
    }
}

fn is_in_use(live: &SharedLive, header: Header) -> bool {
    live.with(|live| live.segment(header.segment).is_some_and(|segment| segment.header == header))
}

fn replace_index(live: &SharedLive, header: Header, file: &dyn DiskFile) -> io::Result<()> {
    tracing::warn!(segment = %header.segment.file_name(), "the segment's index can't be used; reading all of the segment");
    let places = Arc::new(rebuild_places(file, header)?);
    drop(live.with(|live| live.set_index(header, Index::InMemory { places, summary: None })));
    Ok(())
}

/// `None`: there is nothing to read.
fn list_page(live: &mut Live, holder: Holder, priority: Priority, range: PageRange, window: Window) -> Option<List> {
    let (destination, listed) = live.holdings.list(holder, priority, range, window.messages.max(1))?;
    if listed.sequences.is_empty() {
        return None;
    }
    let lane = Lane { destination, priority };
    let wanted = listed.sequences.into_iter().filter_map(|sequence| want(live, sequence, lane)).collect();
    Some(shelve(live, wanted, listed.complete, window.bytes))
}

fn want(live: &Live, sequence: Sequence, lane: Lane) -> Option<Wanted> {
    let holders = live.parts(sequence, lane.destination);
    (!holders.is_empty()).then_some(Wanted { sequence, lane, holders })
}

/// Each message to the newest segment where it lies.
fn shelve(live: &Live, mut wanted: Vec<Wanted>, complete: bool, bytes_max: usize) -> List {
    let mut shelves = Vec::new();
    for segment in live.segments().rev() {
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { break };
        let Some(placed) = live.placed(segment.header.segment) else { continue };
        if !placed.meets(first.sequence..=last.sequence) {
            continue;
        }
        let (here, elsewhere) = wanted.into_iter().partition(|wanted| placed.contains(wanted.sequence));
        wanted = elsewhere;
        shelves.extend(shelf(segment, here));
    }
    debug_assert!(wanted.is_empty(), "every live message lies in a segment in use");
    List { shelves, complete, bytes_max }
}

fn shelf(segment: &Segment, mut wanted: Vec<Wanted>) -> Option<Shelf> {
    wanted.sort_by_key(|wanted| wanted.lane); // and by sequence within
    let index = match &segment.index {
        Index::OnDisk(index) => Some(Arc::clone(index)),
        Index::InMemory { .. } => None,
    };
    let (header, file) = (segment.header, Arc::clone(&segment.file));
    (!wanted.is_empty()).then_some(Shelf { header, file, index, wanted })
}

fn cut_page(mut messages: Vec<Stored>, mut complete: bool, window: Window) -> Page {
    let (mut bytes, mut count) = (0, 0);
    for stored in &messages {
        let size = stored.message.size();
        if !window.has_room(count, bytes, size) {
            complete = false;
            break;
        }
        (bytes, count) = (bytes + size, count + 1);
    }
    messages.truncate(count);
    Page { messages, complete }
}

fn due_in_memory(live: &Live, after: (Timestamp, Sequence), keys: usize) -> Vec<Due> {
    let mut due = Vec::new();
    let mut seen = BTreeSet::new();
    for (at, sequence, holder) in live.holdings.due_after(after) {
        seen.insert((at, sequence));
        if seen.len() > keys {
            break;
        }
        let lane = live.holdings.lane(holder, sequence);
        due.extend(
            lane.map(|(destination, priority)| {
                (at, sequence, DueReason::Returns(holder), Lane { destination, priority })
            }),
        );
    }
    for segment in live.segments() {
        let Index::InMemory { places, .. } = &segment.index else { continue };
        let expiring = places.expiring_after(after).filter(|expiry| live.holdings.live().contains(expiry.sequence));
        due.extend(expiring.take(keys).map(expires));
    }
    due
}

fn expires(Expiry { at, sequence, lane }: Expiry) -> Due {
    (at, sequence, DueReason::Expires, lane)
}

fn on_disk(live: &Live) -> Vec<(Header, Arc<IndexFile>)> {
    let on_disk = live.segments().filter_map(|segment| match &segment.index {
        Index::OnDisk(index) => Some((segment.header, Arc::clone(index))),
        Index::InMemory { .. } => None,
    });
    on_disk.collect()
}

/// Reads what lies at these places, which are in the order of their offsets; what lies near each other at once. Tells
/// which place was the one that could not be read; one whose checksum is wrong is `InvalidData`.
pub(super) fn read_places(
    file: &dyn DiskFile,
    places: &[Place],
    mut take: impl FnMut(&Place, Bytes) -> io::Result<()>,
) -> Result<(), (u32, io::Error)> {
    let mut rest = places;
    while let Some(first) = rest.first() {
        let begin = u64::from(first.offset);
        let mut end = begin;
        let near = rest.iter().take_while(|place| {
            let (begins, ends) = (u64::from(place.offset), u64::from(place.offset) + u64::from(place.length));
            let is_near = begins <= end + GAP_BYTES_MAX && (end == begin || ends - begin <= READ_BYTES_MAX);
            if is_near {
                end = end.max(ends);
            }
            is_near
        });
        let (together, others) = rest.split_at(near.count());
        rest = others;
        let failed = |error| (first.offset, error);
        let length = usize::try_from(end - begin).map_err(|error| failed(io::Error::other(error)))?;
        let mut bytes = vec![0; length];
        file.read_at(&mut bytes, begin).map_err(failed)?;
        let bytes = Bytes::from(bytes);
        for place in together {
            let at = (place.offset - first.offset) as usize;
            let lying = bytes.slice(at..at + place.length as usize);
            let checked = match crc32c::crc32c(&lying) == place.checksum {
                true if together.len() == 1 => take(place, lying),
                true => take(place, Bytes::copy_from_slice(&lying)), // a slice would keep its neighbours in memory
                false => Err(io::ErrorKind::InvalidData.into()),
            };
            checked.map_err(|error| (place.offset, error))?;
        }
    }
    Ok(())
}
