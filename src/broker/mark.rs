//! Dispatch marks: what may be delivered so that a crash can't hide that it was (R9).

use crate::types::Sequence;

/// So many sequences a dispatch mark is set ahead, so that marks are seldom written (R9).
const MARK_BLOCK: u64 = 4_096;

/// What may be dispatched without leaving a message that comes back unmarked after a crash (R9).
///
/// A message whose insert is in the mark's batch or a later one survives only together with the mark; for an older one
/// the mark has to be durable first.
#[derive(Debug, Default)]
pub(super) struct DispatchMark {
    durable: Sequence,
    /// What the store had at the start of the term: what lies at or below it may have been delivered before.
    recovered: Sequence,
    requested: Sequence,
    /// The first sequence whose insert is in the requested mark's batch or later.
    requested_from: Sequence,
    /// Whether dispatch stands still until the requested mark is durable.
    pub(super) awaited: bool,
}

/// What a mark says of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marking {
    /// Deliver it.
    Passed,
    /// Deliver it, and write this mark.
    PassedWith(Sequence),
    /// Not before the mark is durable; write this one if it is given.
    Awaits(Option<Sequence>),
}

impl DispatchMark {
    /// The mark as the store has it at the start of a term.
    pub(super) fn recovered(durable: Sequence) -> Self {
        Self { durable, recovered: durable, requested: durable, requested_from: Sequence::ZERO, awaited: false }
    }

    /// Whether a message may have been delivered in an earlier term.
    pub(super) fn was_passed(&self, sequence: Sequence) -> bool {
        sequence <= self.recovered
    }

    /// Decides on the next stored message; `open_from` is the first sequence whose insert is not sealed yet.
    pub(super) fn pass(&mut self, sequence: Sequence, open_from: Sequence) -> Marking {
        let passed = sequence <= self.durable || (sequence <= self.requested && sequence >= self.requested_from);
        if passed {
            return if sequence.ahead(MARK_BLOCK / 2) > self.requested && self.durable == self.requested {
                Marking::PassedWith(self.request(sequence, open_from))
            } else {
                Marking::Passed
            };
        }
        if sequence <= self.requested {
            self.awaited = true;
            return Marking::Awaits(None);
        }
        let upto = self.request(sequence, open_from);
        if sequence >= open_from {
            return Marking::PassedWith(upto);
        }
        self.awaited = true;
        Marking::Awaits(Some(upto))
    }

    fn request(&mut self, sequence: Sequence, open_from: Sequence) -> Sequence {
        self.requested = sequence.ahead(MARK_BLOCK);
        self.requested_from = open_from;
        self.requested
    }

    /// A mark is durable.
    pub(super) fn made_durable(&mut self, upto: Sequence) {
        self.durable = self.durable.max(upto);
        self.awaited &= self.durable < self.requested;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Term;

    #[test]
    fn r9_a_new_message_passes_with_its_mark_and_an_old_one_waits() {
        let at = |counter| Sequence::new(Term(2), counter);
        let mut mark = DispatchMark::recovered(Sequence::new(Term(1), 10));
        assert_eq!(mark.pass(Sequence::new(Term(1), 11), at(1)), Marking::Awaits(Some(Sequence::new(Term(1), 4_107))));
        assert_eq!(mark.pass(Sequence::new(Term(1), 11), at(1)), Marking::Awaits(None));
        mark.made_durable(Sequence::new(Term(1), 4_107));
        assert_eq!(mark.pass(Sequence::new(Term(1), 11), at(1)), Marking::Passed);
        assert_eq!(mark.pass(at(5), at(5)), Marking::PassedWith(at(4_101)));
        assert_eq!(mark.pass(at(6), at(6)), Marking::Passed, "its insert is in the mark's batch or later");
    }
}
