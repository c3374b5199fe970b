//! Sets of sequences: which messages somebody holds, which lie in a segment.
//!
//! The only file that knows `roaring`. A set of ten million sequences in a row takes about a megabyte, whatever the
//! messages are; one of every ten-thousandth sequence about twenty bytes for each: for these there is `scattered.rs`.

use std::ops::{Bound, RangeBounds, RangeInclusive};

use bytes::Buf;
use prost::encoding::{decode_varint, encode_varint};
use roaring::RoaringTreemap;

use crate::types::Sequence;

/// A set of sequences.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sequences(RoaringTreemap);

impl Sequences {
    /// Whether it was not there.
    pub(super) fn insert(&mut self, sequence: Sequence) -> bool {
        self.0.insert(sequence.as_u64())
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, sequence: Sequence) -> bool {
        self.0.remove(sequence.as_u64())
    }

    pub(super) fn contains(&self, sequence: Sequence) -> bool {
        self.0.contains(sequence.as_u64())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }

    /// Those in a range, in order.
    pub(super) fn range(&self, range: impl RangeBounds<Sequence>) -> impl Iterator<Item = Sequence> {
        let mut sequences = self.0.iter();
        match range.start_bound() {
            Bound::Included(first) => sequences.advance_to(first.as_u64()),
            Bound::Excluded(before) => sequences.advance_to(before.as_u64().saturating_add(1)),
            Bound::Unbounded => {}
        }
        sequences.map(Sequence::from_u64).take_while(move |sequence| range.contains(sequence))
    }

    /// Whether it has any in a range.
    pub(super) fn meets(&self, range: RangeInclusive<Sequence>) -> bool {
        self.0.range_cardinality(range.start().as_u64()..=range.end().as_u64()) > 0
    }

    /// How many are in both.
    pub(super) fn common(&self, other: &Self) -> u64 {
        self.0.intersection_len(&other.0)
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self(&self.0 & &other.0)
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        self.0 |= &other.0;
    }

    /// The same for a set that is not needed any more.
    pub(super) fn take_all(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) fn remove_all(&mut self, other: &Self) {
        self.0 -= &other.0;
    }

    /// Takes out those up to one.
    pub(super) fn take_upto(&mut self, last: Sequence) -> Self {
        let mut taken = self.clone();
        taken.0.remove_range((Bound::Excluded(last.as_u64()), Bound::Unbounded));
        self.0.remove_range(..=last.as_u64());
        taken
    }

    /// Makes it as small as it can be; for one that changes no more.
    pub(super) fn compact(&mut self) {
        self.0.optimize();
    }

    /// Makes it ready to be changed often: runs that are cut again and again would grow beyond what they save.
    pub(super) fn loosen(&mut self) {
        const RUN_MIN: u64 = 1 << 16; // what `decode` makes a run of
        if self.len() < RUN_MIN {
            return;
        }
        let bitmaps = std::mem::take(&mut self.0);
        let without_runs = bitmaps.bitmaps().map(|(key, bitmap)| {
            let mut bitmap = bitmap.clone();
            bitmap.remove_run_compression();
            (key, bitmap)
        });
        self.0 = RoaringTreemap::from_bitmaps(without_runs);
    }

    /// Adds numbers in order. What comes behind all that is there is added much faster; nearly always it does.
    pub(super) fn add_sorted(&mut self, numbers: impl Iterator<Item = u64> + Clone) {
        if self.0.append(numbers.clone()).is_err() {
            self.0.extend(numbers);
        }
    }

    /// Writes it: how many runs, then for each the distance from the end of the one before and its length.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let runs = self.runs();
        encode_varint(runs.len() as u64, out);
        let mut end = 0;
        for run in runs {
            encode_varint(run.start() - end, out);
            encode_varint(run.end() - run.start(), out);
            end = *run.end();
        }
    }

    /// Reads what `encode` wrote. `None`: these bytes are something else.
    pub(super) fn decode(bytes: &mut impl Buf) -> Option<Self> {
        let mut set = Self::default();
        let mut end = 0_u64;
        let mut single = Vec::new();
        for _ in 0..decode_varint(bytes).ok()? {
            let first = end.checked_add(decode_varint(bytes).ok()?)?;
            end = first.checked_add(decode_varint(bytes).ok()?)?;
            if first == end {
                single.push(first);
            } else {
                set.add_sorted(single.iter().copied());
                single.clear();
                set.0.insert_range(first..=end);
            }
        }
        set.add_sorted(single.into_iter());
        Some(set)
    }

    fn runs(&self) -> Vec<RangeInclusive<u64>> {
        let mut runs: Vec<RangeInclusive<u64>> = Vec::new();
        for number in &self.0 {
            match runs.last_mut() {
                Some(run) if run.end() + 1 == number => *run = *run.start()..=number,
                _ => runs.push(number..=number),
            }
        }
        runs
    }
}

impl FromIterator<Sequence> for Sequences {
    fn from_iter<T: IntoIterator<Item = Sequence>>(sequences: T) -> Self {
        Self(sequences.into_iter().map(Sequence::as_u64).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_the_same(
            numbers in prop::collection::vec(prop_oneof![0..300_u64, 1_000_000..1_000_020_u64, any::<u64>()], 0..400),
        ) {
            let set: Sequences = numbers.into_iter().map(Sequence::from_u64).collect();
            let mut bytes = Vec::new();
            set.encode(&mut bytes);
            prop_assert_eq!(Sequences::decode(&mut bytes.as_slice()), Some(set));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Sequences::decode(&mut bytes.get(..cut).unwrap_or_default()), None);
            }
        }
    }

    #[test]
    fn a_range_has_its_bounds() {
        let set: Sequences = [1, 4, 5, 9].map(Sequence::from_u64).into_iter().collect();
        let range = |first, last| {
            set.range((Bound::Excluded(Sequence::from_u64(first)), Bound::Included(Sequence::from_u64(last))))
        };
        assert_eq!(range(1, 5).map(Sequence::as_u64).collect::<Vec<_>>(), [4, 5]);
        assert!(set.meets(Sequence::from_u64(6)..=Sequence::from_u64(9)));
        assert!(!set.meets(Sequence::from_u64(6)..=Sequence::from_u64(8)));
    }

    #[test]
    fn a_set_is_cut_behind_a_sequence() {
        let mut set: Sequences = [1, 4, 5, 9].map(Sequence::from_u64).into_iter().collect();
        let numbers = |set: &Sequences| set.range(..).map(Sequence::as_u64).collect::<Vec<_>>();
        assert_eq!(numbers(&set.take_upto(Sequence::ZERO)), [0; 0]);
        assert_eq!((numbers(&set.take_upto(Sequence::from_u64(4))), numbers(&set)), (vec![1, 4], vec![5, 9]));
        assert_eq!((numbers(&set.take_upto(Sequence::MAX)), numbers(&set)), (vec![5, 9], vec![]));
    }
}
