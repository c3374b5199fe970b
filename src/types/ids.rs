//! Names for numbers: nothing in the crate passes a bare integer where one of these is meant.

use std::fmt;

/// How many bits of a [`Sequence`] count messages within a term.
const COUNTER_BITS: u32 = 40;

/// A term of mastership: it grows at each take-over and when a counter ends (R17). Range: 23 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u32);

impl Term {
    /// The last term that fits the upper bits of a [`Sequence`].
    pub const MAX: Self = Self((1 << 23) - 1);
}

/// What every write to a store proves: it grows at each take-over and each new writer connection (R11, R17).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub u64);

/// A mastership: whose turn it is, and the token its writes carry. Neither number ever repeats (R17).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenure {
    /// The term; the upper part of every [`Sequence`].
    pub term: Term,
    /// The fencing token.
    pub token: FencingToken,
}

impl Tenure {
    /// The next tenure for a new term, above both this one and `seen` (R17).
    #[must_use]
    pub fn next_above(self, seen: Self) -> Self {
        let term = Term(self.term.max(seen.term).0.saturating_add(1));
        let token = FencingToken(self.token.max(seen.token).0.saturating_add(1));
        Self { term, token }
    }

    /// Whether a store that has seen `seen` may be raised to this: a token that never was, and no earlier term (R17).
    #[must_use]
    pub fn is_above(self, seen: Self) -> bool {
        self.token > seen.token && self.term >= seen.term
    }

    /// The same term with the next token (R11).
    #[must_use]
    pub fn next_token(self) -> Self {
        Self { token: FencingToken(self.token.0.saturating_add(1)), ..self }
    }
}

/// A message's place in the order of acceptance: term in the high 23 bits, counter in the low 40.
///
/// 63 bits, so that it fits SQL's BIGINT. Given when a message enters a queue (R6), never used twice.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// Below every sequence that is ever given.
    pub const ZERO: Self = Self(0);
    /// Above every sequence that is ever given.
    pub const MAX: Self = Self(i64::MAX as u64);
    /// The last counter of a term.
    pub const COUNTER_MAX: u64 = (1 << COUNTER_BITS) - 1;

    /// The sequence with this term and counter; a counter beyond its bits stays at their end.
    #[must_use]
    pub fn new(term: Term, counter: u64) -> Self {
        Self((u64::from(term.0.min(Term::MAX.0)) << COUNTER_BITS) | counter.min(Self::COUNTER_MAX))
    }

    /// The sequence that a store kept as a number.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        Self(number & Self::MAX.0)
    }

    /// As a store keeps it.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The term that gave it.
    #[must_use]
    pub fn term(self) -> Term {
        Term((self.0 >> COUNTER_BITS) as u32)
    }

    /// Its number within the term.
    #[must_use]
    pub fn counter(self) -> u64 {
        self.0 & Self::COUNTER_MAX
    }

    /// The number right below; what lies at or below it lies before this.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The number right above; what lies at or above it lies behind this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// `count` sequences further, within the same term.
    #[must_use]
    pub fn ahead(self, count: u64) -> Self {
        Self::new(self.term(), self.counter().saturating_add(count))
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term().0, self.counter())
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A destination as the store knows it; never used again after the destination is gone (R29).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId(pub u64);

/// A durable topic subscription as the store knows it; never used again after its deletion (R29).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurableId(pub u64);

/// The number of a batch within a term, in the order of writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNumber(pub u64);

/// A client's connection within a term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A subscription within a session, numbered by the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerNo(pub u32);

/// One delivery to a consumer, counted from 1 in the order of dispatch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryTag(pub u64);

/// A message's priority. Range: 0 to 9, higher first; default 4, as in JMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// How many priorities there are.
    pub const COUNT: usize = 10;

    /// The one that is served first.
    pub const HIGHEST: Self = Self(9);

    /// The priority, held within 0 to 9 as JMS brokers do.
    #[must_use]
    pub fn clamped(level: u8) -> Self {
        Self(level.min(9))
    }

    /// 0 to 9.
    #[must_use]
    pub fn level(self) -> u8 {
        self.0
    }

    /// As an index into ten lanes.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r17_sequences_of_a_higher_term_are_higher() {
        let last = Sequence::new(Term(7), Sequence::COUNTER_MAX);
        let first = Sequence::new(Term(8), 0);
        assert!(first > last);
        assert_eq!((last.term(), last.counter()), (Term(7), Sequence::COUNTER_MAX));
        assert!(i64::try_from(Sequence::new(Term::MAX, Sequence::COUNTER_MAX).as_u64()).is_ok());
    }

    #[test]
    fn r17_a_tenure_is_above_all_that_was_seen() {
        let seen = Tenure { term: Term(4), token: FencingToken(19) };
        let next = Tenure::default().next_above(seen);
        assert_eq!(next, Tenure { term: Term(5), token: FencingToken(20) });
        assert_eq!(next.next_token(), Tenure { term: Term(5), token: FencingToken(21) });
        assert!(next.is_above(seen) && next.next_token().is_above(next));
        assert!(!seen.is_above(seen) && !seen.is_above(next));
    }

    #[test]
    fn a_sequence_ahead_stays_in_its_term() {
        let near_the_end = Sequence::new(Term(3), Sequence::COUNTER_MAX - 1);
        assert_eq!(near_the_end.ahead(100), Sequence::new(Term(3), Sequence::COUNTER_MAX));
    }
}
