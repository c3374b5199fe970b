//! Sets of sequences that lie scattered among those of others: what one holder holds, or settled.
//!
//! Where ten thousand queues are mixed, ten of a hundred thousand sequences are those of one. Such a stretch lies
//! in chunks, at two to three bytes a sequence; a stretch that has many lies in `Sequences`.
//! Always true: a sequence lies in a chunk or in `dense`, never in both; chunks are in order, and none is empty or above
//! its bound; see `Scattered::check`.

use std::ops::{Bound, RangeBounds};

use prost::encoding::{decode_varint, encode_varint};

use super::{chunk::Chunk, sequences::Sequences};
use crate::types::Sequence;

/// A chunk is full with so many. The more there are, the longer it takes to find one, and the less each costs.
const CHUNK_SEQUENCES_MAX: u64 = 128;

/// A full chunk that has one of so many sequences is dense: a bitmap takes no more, and is changed faster.
const DENSE_ONE_OF: u64 = 512;

/// A set of sequences that lie scattered among others.
#[derive(Clone, Debug, Default)]
pub(super) struct Scattered {
    chunks: Vec<Chunk>,
    dense: Option<Box<Sequences>>,
    /// The last block that was found dense: what comes there need not lie in a chunk first.
    dense_block: u64,
}

impl Scattered {
    /// Whether it was not there.
    pub(super) fn insert(&mut self, sequence: Sequence) -> bool {
        let number = sequence.as_u64();
        let at = self.chunk_upto(number);
        if let Some(chunk) = self.chunks.get_mut(at).filter(|chunk| chunk.first <= number) {
            let is_new = !self.dense.as_ref().is_some_and(|dense| dense.contains(sequence)) && chunk.insert(number);
            self.complete(at);
            return is_new;
        }
        match &mut self.dense {
            Some(dense) if block_of(number) == self.dense_block => dense.insert(sequence),
            Some(dense) if dense.contains(sequence) => false,
            _ => {
                self.insert_between(at, number);
                true
            }
        }
    }

    /// Behind the chunk before `at`, nearly always the last; or before the one at `at`; or between them.
    fn insert_between(&mut self, at: usize, number: u64) {
        let has_room = |at: &usize| self.chunks.get(*at).is_some_and(|chunk| chunk.len() < CHUNK_SEQUENCES_MAX);
        match at.checked_sub(1).filter(has_room).or(Some(at).filter(has_room)) {
            Some(at) => {
                self.chunks.get_mut(at).into_iter().for_each(|chunk| _ = chunk.insert(number));
                self.complete(at);
            }
            None => self.chunks.insert(at, Chunk::from_iter([number])),
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, sequence: Sequence) -> bool {
        let at = self.chunk_upto(sequence.as_u64());
        if let Some(chunk) = self.chunks.get_mut(at)
            && chunk.remove(sequence.as_u64())
        {
            if chunk.is_empty() {
                self.chunks.remove(at);
            }
            return true;
        }
        self.dense.as_mut().is_some_and(|dense| dense.remove(sequence))
    }

    pub(super) fn contains(&self, sequence: Sequence) -> bool {
        let number = sequence.as_u64();
        self.chunks.get(self.chunk_upto(number)).is_some_and(|chunk| chunk.contains(number))
            || self.dense.as_ref().is_some_and(|dense| dense.contains(sequence))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.dense.as_ref().is_none_or(|dense| dense.is_empty())
    }

    pub(super) fn len(&self) -> u64 {
        self.chunks.iter().map(Chunk::len).sum::<u64>() + self.dense.as_ref().map_or(0, |dense| dense.len())
    }

    /// Those in a range, in order.
    pub(super) fn range(&self, range: impl RangeBounds<Sequence> + Clone) -> impl Iterator<Item = Sequence> {
        let from = match range.start_bound() {
            Bound::Included(first) | Bound::Excluded(first) => self.chunk_upto(first.as_u64()),
            Bound::Unbounded => 0,
        };
        let (starts, ends) = (range.clone(), range.clone());
        let chunks = self.chunks.iter().skip(from).flat_map(Chunk::iter).map(Sequence::from_u64);
        let in_chunks = chunks.skip_while(move |sequence| is_before(*sequence, &starts));
        let in_chunks = in_chunks.take_while(move |sequence| ends.contains(sequence));
        merge(in_chunks, self.dense.iter().flat_map(move |dense| dense.range(range.clone())))
    }

    fn iter(&self) -> impl Iterator<Item = Sequence> {
        self.range(..)
    }

    /// Adds all of one that is not needed any more.
    pub(super) fn take_all(&mut self, other: Self) {
        if let Some(dense) = other.dense {
            self.remove_from_chunks(&dense);
            self.dense.get_or_insert_default().take_all(*dense);
        }
        other.chunks.into_iter().for_each(|chunk| self.take_chunk(chunk));
    }

    /// It costs about as much as the smaller of the two is large.
    pub(super) fn remove_all(&mut self, other: &Self) {
        if self.len() < other.chunks.len() as u64 * (CHUNK_SEQUENCES_MAX / 2) {
            return self.remove_what_lies_in(other);
        }
        for sequence in other.chunks.iter().flat_map(Chunk::iter) {
            self.remove(Sequence::from_u64(sequence));
        }
        if let Some(dense) = &other.dense {
            self.remove_from_chunks(dense);
            self.dense.iter_mut().for_each(|own| own.remove_all(dense));
        }
    }

    fn remove_what_lies_in(&mut self, larger: &Self) {
        let gone: Vec<Sequence> = self.iter().filter(|sequence| larger.contains(*sequence)).collect();
        gone.into_iter().for_each(|sequence| _ = self.remove(sequence));
    }

    /// Takes out those up to one.
    pub(super) fn take_upto(&mut self, last: Sequence) -> Self {
        let number = last.as_u64();
        let behind = self.chunks.split_off(self.chunk_upto(number));
        let mut taken = Self { chunks: std::mem::replace(&mut self.chunks, behind), ..Self::default() };
        if let Some(cut) = self.chunks.first_mut().filter(|chunk| chunk.first <= number) {
            taken.chunks.push(cut.iter().take_while(|other| *other <= number).collect());
            cut.retain(|other| other > number);
        }
        self.chunks.retain(|chunk| !chunk.is_empty());
        taken.dense = self.dense.as_mut().map(|dense| Box::new(dense.take_upto(last)));
        taken
    }

    pub(super) fn add_to(&self, sequences: &mut Sequences) {
        self.dense.iter().for_each(|dense| sequences.add_all(dense));
        self.chunks.iter().for_each(|chunk| sequences.add_sorted(chunk.iter()));
    }

    pub(super) fn remove_from(&self, sequences: &mut Sequences) {
        self.dense.iter().for_each(|dense| sequences.remove_all(dense));
        for sequence in self.chunks.iter().flat_map(Chunk::iter) {
            sequences.remove(Sequence::from_u64(sequence));
        }
    }

    /// See [`Sequences::loosen`].
    pub(super) fn loosen(&mut self) {
        self.dense.iter_mut().for_each(|dense| dense.loosen());
    }

    /// Writes it: how many chunks, and each; then the dense ones.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_varint(self.chunks.len() as u64, out);
        let mut end = 0;
        for chunk in &self.chunks {
            chunk.encode(end, out);
            end = chunk.last;
        }
        match &self.dense {
            Some(dense) => dense.encode(out),
            None => Sequences::default().encode(out),
        }
    }

    /// Reads what `encode` wrote. `None`: these bytes are something else.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut set = Self::default();
        let mut end = 0;
        for _ in 0..decode_varint(bytes).ok()? {
            let chunk = Chunk::decode(end, bytes)?;
            end = chunk.last;
            set.take_chunk(chunk);
        }
        let dense = Sequences::decode(bytes)?;
        if !dense.is_empty() {
            set.take_all(Self { dense: Some(Box::new(dense)), ..Self::default() });
        }
        Some(set)
    }

    /// Nearly always it comes behind all that is there.
    fn take_chunk(&mut self, mut chunk: Chunk) {
        let is_last = self.chunks.last().is_none_or(|last| last.last < chunk.first);
        let (first, last) = (Sequence::from_u64(chunk.first), Sequence::from_u64(chunk.last));
        if !is_last || self.dense.as_ref().is_some_and(|dense| dense.meets(first..=last)) {
            chunk.iter().for_each(|number| _ = self.insert(Sequence::from_u64(number)));
            return;
        }
        match self.chunks.last_mut() {
            Some(last) if last.len() + chunk.len() <= CHUNK_SEQUENCES_MAX => last.append(&chunk),
            _ => {
                chunk.shrink();
                self.chunks.push(chunk);
            }
        }
        self.complete(self.chunks.len() - 1);
    }

    /// A chunk has grown: one that is full goes where it is dense, one that is too large is cut.
    fn complete(&mut self, at: usize) {
        let Some(chunk) = self.chunks.get_mut(at).filter(|chunk| chunk.len() >= CHUNK_SEQUENCES_MAX) else { return };
        if chunk.last - chunk.first < chunk.len() * DENSE_ONE_OF {
            self.dense.get_or_insert_default().add_sorted(chunk.iter());
            self.dense_block = block_of(chunk.last);
            self.chunks.remove(at);
        } else if chunk.len() > CHUNK_SEQUENCES_MAX {
            let upper = chunk.split();
            self.chunks.insert(at + 1, upper);
        } else {
            chunk.shrink();
        }
    }

    /// What is in `dense` from now on, or nowhere.
    fn remove_from_chunks(&mut self, dense: &Sequences) {
        for chunk in &mut self.chunks {
            let (first, last) = (Sequence::from_u64(chunk.first), Sequence::from_u64(chunk.last));
            if dense.meets(first..=last) {
                chunk.retain(|number| !dense.contains(Sequence::from_u64(number)));
            }
        }
        self.chunks.retain(|chunk| !chunk.is_empty());
    }

    /// The first chunk that does not end before a sequence.
    fn chunk_upto(&self, number: u64) -> usize {
        self.chunks.partition_point(|chunk| chunk.last < number)
    }

    /// What this module promises; for tests and debug builds.
    pub(super) fn check(&self) -> bool {
        for chunk in &self.chunks {
            chunk.check();
            assert!((1..=CHUNK_SEQUENCES_MAX).contains(&chunk.len()), "a chunk has some, and not too many");
            let is_dense = |number| self.dense.as_ref().is_some_and(|dense| dense.contains(Sequence::from_u64(number)));
            assert!(!chunk.iter().any(is_dense), "what lies in a chunk lies nowhere else");
        }
        assert!(self.chunks.is_sorted_by(|one, two| one.last < two.first), "chunks are in order");
        true
    }
}

impl PartialEq for Scattered {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// What shares a container in a bitmap.
fn block_of(number: u64) -> u64 {
    number >> 16
}

/// Both in order.
fn merge<T: Ord>(one: impl Iterator<Item = T>, other: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(first), Some(second)) if second < first => other.next(),
        (Some(_), _) => one.next(),
        (None, _) => other.next(),
    })
}

fn is_before(sequence: Sequence, range: &impl RangeBounds<Sequence>) -> bool {
    match range.start_bound() {
        Bound::Included(first) => sequence < *first,
        Bound::Excluded(before) => sequence <= *before,
        Bound::Unbounded => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// From a row to one of a hundred thousand, in two terms.
    fn number() -> impl Strategy<Value = u64> {
        let scattered = (0..3_000_u64).prop_map(|number| number * 1_001);
        prop_oneof![0..600_u64, 100_000..100_400_u64, scattered, (1_u64 << 40)..(1 << 40) + 100]
    }

    fn numbers() -> impl Strategy<Value = BTreeSet<u64>> {
        prop_oneof![
            prop::collection::btree_set(number(), 0..1_000),
            (0..100_000_u64, 1..2_000_u64).prop_map(|(first, many)| (first..first + many).collect()),
        ]
    }

    fn set_of(numbers: &BTreeSet<u64>) -> Scattered {
        let mut set = Scattered::default();
        numbers.iter().for_each(|number| assert!(set.insert(Sequence::from_u64(*number))));
        set
    }

    fn assert_same(set: &Scattered, expected: &BTreeSet<u64>) {
        assert!(set.check());
        assert!(set.iter().map(Sequence::as_u64).eq(expected.iter().copied()), "{set:?} instead of {expected:?}");
        assert_eq!((set.len(), set.is_empty()), (expected.len() as u64, expected.is_empty()));
    }

    proptest! {
        #[test]
        fn it_is_a_set(changes in prop::collection::vec((number(), prop::bool::weighted(0.7)), 0..2_000)) {
            let (mut set, mut expected) = (Scattered::default(), BTreeSet::new());
            for (number, adds) in changes {
                let sequence = Sequence::from_u64(number);
                if adds {
                    prop_assert_eq!(set.insert(sequence), expected.insert(number));
                } else {
                    prop_assert_eq!(set.remove(sequence), expected.remove(&number));
                }
                prop_assert_eq!(set.contains(sequence), adds);
            }
            assert_same(&set, &expected);
        }

        #[test]
        fn two_sets_make_a_third(one in numbers(), other in numbers()) {
            let mut all = set_of(&one);
            all.take_all(set_of(&other));
            assert_same(&all, &(&one | &other));
            all.remove_all(&set_of(&other));
            assert_same(&all, &(&one - &other));

            let mut sequences = Sequences::default();
            set_of(&one).add_to(&mut sequences);
            let whole: Sequences = one.iter().map(|number| Sequence::from_u64(*number)).collect();
            prop_assert_eq!(&sequences, &whole);
            set_of(&other).remove_from(&mut sequences);
            let rest: Sequences = (&one - &other).into_iter().map(Sequence::from_u64).collect();
            prop_assert_eq!(&sequences, &rest);
        }

        #[test]
        fn it_is_cut_behind_a_sequence(all in numbers(), upto in number()) {
            let mut set = set_of(&all);
            assert_same(&set.take_upto(Sequence::from_u64(upto)), &all.range(..=upto).copied().collect());
            assert_same(&set, &all.range(upto + 1..).copied().collect());
        }

        #[test]
        fn a_range_has_its_bounds(all in numbers(), after in number(), upto in number()) {
            let (first, last) = (Sequence::from_u64(after), Sequence::from_u64(upto));
            let found = set_of(&all);
            let found = found.range((Bound::Excluded(first), Bound::Included(last))).map(Sequence::as_u64);
            let expected = all.iter().copied().filter(|number| (after + 1..=upto).contains(number));
            prop_assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }

        #[test]
        fn what_was_encoded_is_decoded_the_same(all in numbers()) {
            let mut bytes = Vec::new();
            set_of(&all).encode(&mut bytes);
            assert_same(&Scattered::decode(&mut bytes.as_slice()).unwrap(), &all);
            for cut in 0..bytes.len() {
                prop_assert!(Scattered::decode(&mut bytes.get(..cut).unwrap_or_default()).is_none());
            }
        }
    }
}
