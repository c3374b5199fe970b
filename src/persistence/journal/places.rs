//! Where messages lie in their segment, and which of them expire: what an index file holds, while it is in memory.
//!
//! Always true: the places of a lane are in the order of their sequences, each once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
};

use bytes::{Buf, BufMut};

use super::{record::Slice, table::Item};
use crate::types::{DestinationId, Priority, Sequence, Timestamp};

/// The messages of one destination and priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lane {
    pub(super) destination: DestinationId,
    pub(super) priority: Priority,
}

/// Where the bytes of a message's operation lie in their segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sequence: Sequence,
    /// In the file.
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) checksum: u32,
}

impl Place {
    /// The place of a slice whose frame begins at `frame`. `None`: beyond what an offset can name.
    pub(super) fn new(sequence: Sequence, frame: u64, slice: Slice) -> Option<Self> {
        let offset = u32::try_from(frame + u64::from(slice.offset)).ok()?;
        Some(Self { sequence, offset, length: slice.length, checksum: slice.checksum })
    }
}

/// A message that expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Expiry {
    pub(super) at: Timestamp,
    pub(super) sequence: Sequence,
    pub(super) lane: Lane,
}

/// The places of one segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    lanes: HashMap<Lane, Vec<Place>, foldhash::fast::RandomState>,
    expiring: BTreeSet<Expiry>,
}

impl Places {
    /// A message lies there from now on; nearly always behind all others of its lane.
    pub(super) fn insert(&mut self, lane: Lane, expires: Option<Timestamp>, place: Place) {
        let places = self.lanes.entry(lane).or_default();
        match places.last() {
            Some(last) if last.sequence >= place.sequence => {
                match places.binary_search_by_key(&place.sequence, |other| other.sequence) {
                    Ok(index) => places.get_mut(index).into_iter().for_each(|there| *there = place),
                    Err(index) => places.insert(index, place),
                }
            }
            _ => places.push(place),
        }
        self.expiring.extend(expires.map(|at| Expiry { at, sequence: place.sequence, lane }));
    }

    pub(super) fn find(&self, lane: Lane, sequence: Sequence) -> Option<Place> {
        let places = self.lanes.get(&lane)?;
        let index = places.binary_search_by_key(&sequence, |place| place.sequence).ok()?;
        places.get(index).copied()
    }

    /// Every place, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = Place> {
        self.lanes.values().flatten().copied()
    }

    /// By lane, in the order of an index.
    pub(super) fn by_lane(&self) -> BTreeMap<Lane, &[Place]> {
        self.lanes.iter().map(|(lane, places)| (*lane, places.as_slice())).collect()
    }

    pub(super) fn expiring(&self) -> &BTreeSet<Expiry> {
        &self.expiring
    }

    /// What expires behind a time and sequence, in order.
    pub(super) fn expiring_after(&self, (at, sequence): (Timestamp, Sequence)) -> impl Iterator<Item = Expiry> {
        let last = Lane { destination: DestinationId(u64::MAX), priority: Priority::clamped(u8::MAX) };
        self.expiring.range((Bound::Excluded(Expiry { at, sequence, lane: last }), Bound::Unbounded)).copied()
    }
}

impl Item for Place {
    const BYTES: usize = 20;

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.sequence.as_u64());
        out.put_u32_le(self.offset);
        out.put_u32_le(self.length);
        out.put_u32_le(self.checksum);
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            sequence: Sequence::from_u64(bytes.try_get_u64_le().ok()?),
            offset: bytes.try_get_u32_le().ok()?,
            length: bytes.try_get_u32_le().ok()?,
            checksum: bytes.try_get_u32_le().ok()?,
        })
    }
}

impl Item for Expiry {
    const BYTES: usize = 16 + Lane::BYTES;

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.at.0);
        out.put_u64_le(self.sequence.as_u64());
        self.lane.put(out);
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        let at = Timestamp(bytes.try_get_u64_le().ok()?);
        let sequence = Sequence::from_u64(bytes.try_get_u64_le().ok()?);
        Some(Self { at, sequence, lane: Lane::get(bytes)? })
    }
}

impl Item for Lane {
    const BYTES: usize = 9;

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.destination.0);
        out.put_u8(self.priority.level());
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        let destination = DestinationId(bytes.try_get_u64_le().ok()?);
        Some(Self { destination, priority: Priority::clamped(bytes.try_get_u8().ok()?) })
    }
}
