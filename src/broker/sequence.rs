//! Where sequences come from: the term's own counter (R6, R17).

use crate::types::{Sequence, Term};

/// So many sequences before the counter's end a new term is asked for, while there is still room to go on.
const TERM_WANTED_BEFORE: u64 = 1 << 20;

/// Gives each sequence once, in rising order, over the terms that one mastership raises.
#[derive(Debug)]
pub(super) struct SequenceSource {
    term: Term,
    next: u64,
}

impl SequenceSource {
    /// The first sequence will be number 1 of `term`.
    pub(super) fn new(term: Term) -> Self {
        Self { term, next: 1 }
    }

    /// The next sequence; `None` at the counter's end, until [`Self::enter`]. The last one is never given, so that
    /// [`Self::peek`] is above all that were.
    pub(super) fn take(&mut self) -> Option<Sequence> {
        self.has(1).then(|| {
            let sequence = Sequence::new(self.term, self.next);
            self.next += 1;
            sequence
        })
    }

    /// The sequence that comes next.
    pub(super) fn peek(&self) -> Sequence {
        Sequence::new(self.term, self.next)
    }

    /// Whether `count` more sequences are left.
    pub(super) fn has(&self, count: usize) -> bool {
        Sequence::COUNTER_MAX.saturating_sub(self.next) >= count as u64
    }

    /// Whether it is time to raise the term.
    pub(super) fn term_wanted(&self) -> bool {
        self.next > Sequence::COUNTER_MAX - TERM_WANTED_BEFORE
    }

    /// Goes on in a higher term.
    pub(super) fn enter(&mut self, term: Term) {
        debug_assert!(term > self.term, "terms only rise");
        (self.term, self.next) = (term, 1);
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, counter: u64) {
        self.next = counter;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r17_a_counter_at_its_end_goes_on_in_a_higher_term() {
        let mut source = SequenceSource::new(Term(3));
        assert!(!source.term_wanted());
        source.skip_to(Sequence::COUNTER_MAX - 1);
        assert!(source.term_wanted());
        let last = source.take().unwrap();
        assert_eq!(source.take(), None);
        source.enter(Term(4));
        assert!(source.take().unwrap() > last);
    }
}
