//! What one holder holds: a set of sequences for each priority, and what its messages are on average.

use prost::encoding::{decode_varint, encode_varint};
use smallvec::SmallVec;

use super::{super::Backlog, scattered::Scattered};
use crate::types::{DestinationId, Message, Priority, Sequence};

/// What one holder holds.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) destination: DestinationId,
    /// Of priorities that were seen here; nearly always it is one.
    by_priority: SmallVec<[(Priority, Scattered); 1]>,
    /// What all messages that ever stood here were, for the average. Unit: bytes.
    bytes: u64,
    messages: u64,
}

impl Line {
    pub(super) fn new(destination: DestinationId) -> Self {
        Self { destination, by_priority: SmallVec::new(), bytes: 0, messages: 0 }
    }

    /// A message of `bytes` stands here from now on.
    pub(super) fn insert(&mut self, sequence: Sequence, priority: Priority, bytes: u32) {
        if self.of_mut(priority).is_some_and(|set| set.insert(sequence)) {
            self.messages += 1;
            self.bytes += u64::from(bytes);
        }
    }

    /// Adds all of one that is not needed any more.
    pub(super) fn take_all(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        for (priority, set) in other.by_priority {
            if let Some(own) = self.of_mut(priority) {
                own.take_all(set);
            }
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, sequence: Sequence) -> bool {
        self.by_priority.iter_mut().any(|(_, set)| set.remove(sequence))
    }

    pub(super) fn remove_all(&mut self, sequences: &Scattered) {
        self.by_priority.iter_mut().for_each(|(_, set)| set.remove_all(sequences));
    }

    /// Takes out everything up to `last`.
    pub(super) fn take_upto(&mut self, last: Sequence) -> Vec<Scattered> {
        self.by_priority.iter_mut().map(|(_, set)| set.take_upto(last)).collect()
    }

    /// See [`super::sequences::Sequences::loosen`].
    pub(super) fn loosen(&mut self) {
        self.by_priority.iter_mut().for_each(|(_, set)| set.loosen());
    }

    pub(super) fn holds(&self, sequence: Sequence) -> bool {
        self.sets().any(|set| set.contains(sequence))
    }

    /// The priority of a message that is held.
    pub(super) fn priority(&self, sequence: Sequence) -> Option<Priority> {
        self.by_priority.iter().find_map(|(priority, set)| set.contains(sequence).then_some(*priority))
    }

    pub(super) fn of(&self, priority: Priority) -> Option<&Scattered> {
        self.by_priority.iter().find_map(|(other, set)| (*other == priority).then_some(set))
    }

    /// Made if it is missing.
    fn of_mut(&mut self, priority: Priority) -> Option<&mut Scattered> {
        if !self.by_priority.iter().any(|(other, _)| *other == priority) {
            self.by_priority.push((priority, Scattered::default()));
        }
        self.by_priority.iter_mut().find_map(|(other, set)| (*other == priority).then_some(set))
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = &Scattered> {
        self.by_priority.iter().map(|(_, set)| set)
    }

    pub(super) fn into_sets(self) -> impl Iterator<Item = Scattered> {
        self.by_priority.into_iter().map(|(_, set)| set)
    }

    pub(super) fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        for (priority, set) in &self.by_priority {
            backlog.messages.get_mut(priority.index()).into_iter().for_each(|messages| *messages = set.len());
        }
        let average = self.bytes.checked_div(self.messages).unwrap_or_default() + Message::OVERHEAD as u64;
        backlog.bytes = backlog.messages.iter().sum::<u64>() * average;
        backlog
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.destination.0, self.messages, self.bytes, self.by_priority.len() as u64] {
            encode_varint(number, out);
        }
        for (priority, set) in &self.by_priority {
            out.push(priority.level());
            set.encode(out);
        }
    }

    /// Reads what `encode` wrote. `None`: these bytes are something else.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut line = Self::new(DestinationId(decode_varint(bytes).ok()?));
        line.messages = decode_varint(bytes).ok()?;
        line.bytes = decode_varint(bytes).ok()?;
        for _ in 0..decode_varint(bytes).ok()? {
            let priority = Priority::clamped(*bytes.split_off_first()?);
            line.by_priority.push((priority, Scattered::decode(bytes)?));
        }
        Some(line)
    }

    /// What this module promises; for tests and debug builds.
    pub(super) fn check(&self) -> bool {
        self.sets().all(Scattered::check)
    }
}
