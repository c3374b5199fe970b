//! A few sequences in order: the first, and the distances from one to the next, a byte or two each.
//!
//! Always true: a distance is at least one; the last is the first and all distances; see `Chunk::check`.

use std::ops::Range;

use prost::encoding::{decode_varint, encode_varint};

/// How many bytes a distance takes at most; never more than two are written at a time.
const DISTANCE_BYTES_MAX: usize = 10;

/// A few sequences, or none.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    /// Of one that is empty they mean nothing.
    pub(super) first: u64,
    pub(super) last: u64,
    count: u64,
    distances: Vec<u8>,
}

/// The first sequence at or behind one that is looked for.
struct Spot {
    here: u64,
    before: u64,
    /// Where the distance between the two is written.
    written: Range<usize>,
}

impl Chunk {
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + Clone {
        let (mut next, mut rest) = ((self.count > 0).then_some(self.first), self.distances.as_slice());
        std::iter::from_fn(move || {
            let here = next?;
            next = take_distance(&mut rest).map(|distance| here + distance);
            Some(here)
        })
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        match number <= self.first {
            true => number == self.first && !self.is_empty(),
            false => self.seek(number).is_some_and(|spot| spot.here == number),
        }
    }

    /// What comes behind all others.
    pub(super) fn push(&mut self, number: u64) {
        debug_assert!(number > self.last || self.is_empty(), "it comes behind all others");
        if self.is_empty() {
            self.first = number;
        } else {
            encode_varint(number - self.last, &mut self.distances);
        }
        self.last = number;
        self.count += 1;
    }

    /// The same for all of another one, which is not empty.
    pub(super) fn append(&mut self, other: &Self) {
        self.push(other.first);
        self.distances.extend_from_slice(&other.distances);
        self.last = other.last;
        self.count += other.count - 1;
    }

    /// Whether it was not there.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        if number > self.last || self.is_empty() {
            self.push(number);
            return true;
        }
        if number < self.first {
            self.write(0..0, &[self.first - number]);
            self.first = number;
        } else {
            let spot = self.seek(number).filter(|spot| spot.here != number && number != self.first);
            let Some(Spot { here, before, written }) = spot else { return false };
            self.write(written, &[number - before, here - number]);
        }
        self.count += 1;
        true
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let was_there = match number == self.first {
            true if self.count > 1 => self.remove_first().is_some(),
            true => !self.is_empty(),
            false => self.remove_behind_first(number).is_some(),
        };
        self.count -= u64::from(was_there);
        was_there
    }

    pub(super) fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        *self = self.iter().filter(|number| keep(*number)).collect();
    }

    /// Its upper half, which leaves it.
    pub(super) fn split(&mut self) -> Self {
        let lower = usize::try_from(self.count / 2).unwrap_or_default();
        let upper = self.iter().skip(lower).collect();
        *self = self.iter().take(lower).collect();
        upper
    }

    fn remove_first(&mut self) -> Option<()> {
        let mut rest = self.distances.as_slice();
        self.first += take_distance(&mut rest)?;
        let read = self.distances.len() - rest.len();
        self.distances.drain(..read);
        Some(())
    }

    fn remove_behind_first(&mut self, number: u64) -> Option<()> {
        let Spot { here, before, written } = self.seek(number).filter(|spot| spot.here == number)?;
        let mut rest = self.distances.get(written.end..).unwrap_or_default();
        match take_distance(&mut rest) {
            Some(distance) => {
                let end = self.distances.len() - rest.len();
                self.write(written.start..end, &[here + distance - before]);
            }
            None => {
                self.distances.truncate(written.start);
                self.last = before;
            }
        }
        Some(())
    }

    /// Behind the first. `None`: there is none.
    fn seek(&self, number: u64) -> Option<Spot> {
        if number > self.last {
            return None;
        }
        let (mut before, mut rest) = (self.first, self.distances.as_slice());
        loop {
            let begins = self.distances.len() - rest.len();
            let here = before + take_distance(&mut rest)?;
            if here >= number {
                return Some(Spot { here, before, written: begins..self.distances.len() - rest.len() });
            }
            before = here;
        }
    }

    fn write(&mut self, place: Range<usize>, distances: &[u64]) {
        let mut bytes = [0; 2 * DISTANCE_BYTES_MAX];
        let mut free = bytes.as_mut_slice();
        distances.iter().for_each(|distance| encode_varint(*distance, &mut free));
        let left = free.len();
        self.distances.splice(place, bytes.into_iter().take(bytes.len() - left));
    }

    /// Nothing is added to it any more, nearly always.
    pub(super) fn shrink(&mut self) {
        self.distances.shrink_to_fit();
    }

    /// Writes it: the distance from `end`, which lies before it, to the first, then to the last; how many there are; and
    /// how many bytes their distances take, and these.
    pub(super) fn encode(&self, end: u64, out: &mut Vec<u8>) {
        for number in [self.first - end, self.last - self.first, self.count, self.distances.len() as u64] {
            encode_varint(number, out);
        }
        out.extend_from_slice(&self.distances);
    }

    /// Reads what `encode` wrote. `None`: these bytes are something else.
    pub(super) fn decode(end: u64, bytes: &mut &[u8]) -> Option<Self> {
        let first = end.checked_add(decode_varint(bytes).ok()?)?;
        let last = first.checked_add(decode_varint(bytes).ok()?)?;
        let count = decode_varint(bytes).ok()?;
        let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
        let distances = bytes.split_off(..length)?.to_vec();
        let chunk = Self { first, last, count, distances };
        chunk.is_sound().then_some(chunk)
    }

    /// Whether its distances are as many as they should be, and lead from the first to the last.
    fn is_sound(&self) -> bool {
        let (mut rest, mut here, mut count) = (self.distances.as_slice(), self.first, 1);
        while !rest.is_empty() {
            let next = take_distance(&mut rest).and_then(|distance| here.checked_add(distance));
            match next.filter(|next| *next > here) {
                Some(next) => (here, count) = (next, count + 1),
                None => return false,
            }
        }
        (here, count) == (self.last, self.count)
    }

    /// What this module promises; for tests and debug builds.
    pub(super) fn check(&self) -> bool {
        assert!(self.is_empty() || self.is_sound(), "its distances lead from the first to the last");
        true
    }
}

impl FromIterator<u64> for Chunk {
    /// They come in order.
    fn from_iter<T: IntoIterator<Item = u64>>(numbers: T) -> Self {
        let mut chunk = Self::default();
        numbers.into_iter().for_each(|number| chunk.push(number));
        chunk
    }
}

/// What `encode_varint` wrote; nearly always it is a byte or two.
fn take_distance(bytes: &mut &[u8]) -> Option<u64> {
    match **bytes {
        [one, ref rest @ ..] if one < 0x80 => {
            *bytes = rest;
            Some(one.into())
        }
        [one, two, ref rest @ ..] if two < 0x80 => {
            *bytes = rest;
            Some(u64::from(one & 0x7f) | u64::from(two) << 7)
        }
        _ => decode_varint(bytes).ok(),
    }
}
