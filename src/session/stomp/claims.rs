//! What a session takes for granted before the core has agreed: a new subscription, a temporary destination.
//!
//! A lenient session lives on when the core declines one, and has to forget it then. So such a request carries a
//! receipt of the session's own around the client's; whatever answers it passes the writing side, which takes the
//! wrapper off and notes what was declined for the reading side.
//!
//! Always true: no receipt of a client's looks like one of these, because no header holds a NUL.

use std::fmt::Write as _;

use compact_str::{CompactString, format_compact};

use crate::{broker::Receipt, types::ConsumerNo};

/// Begins a receipt of the session's own, and stands between its own part and the client's.
const MARK: char = '\0';

/// Stands for a temporary destination where a subscription has its number.
const TEMPORARY: &str = "temporary";

/// Something that the core may decline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A consumer of this number.
    Subscription(ConsumerNo),
    /// A temporary destination of the session's own, whichever.
    Temporary,
}

impl Claim {
    /// The receipt to ask for instead of the client's, if it wants one at all.
    pub(super) fn around(self, receipt: Option<&str>) -> CompactString {
        let mut own = match self {
            Self::Subscription(consumer) => format_compact!("{MARK}{}", consumer.0),
            Self::Temporary => format_compact!("{MARK}{TEMPORARY}"),
        };
        if let Some(receipt) = receipt {
            let appended = write!(own, "{MARK}{receipt}");
            debug_assert!(appended.is_ok(), "a string takes everything");
        }
        own
    }

    /// What a receipt was about, if it was the session's own, and what the client gets of it.
    pub(super) fn unwrap(receipt: Receipt) -> (Option<Self>, Option<Receipt>) {
        let Some(own) = receipt.strip_prefix(MARK) else { return (None, Some(receipt)) };
        let (about, clients) = match own.split_once(MARK) {
            Some((about, clients)) => (about, Some(Receipt::from(clients))),
            None => (own, None),
        };
        let claim = match about {
            TEMPORARY => Some(Self::Temporary),
            number => number.parse().ok().map(|number| Self::Subscription(ConsumerNo(number))),
        };
        (claim, clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_comes_out_again() {
        for claim in [Claim::Subscription(ConsumerNo(1)), Claim::Subscription(ConsumerNo(u32::MAX)), Claim::Temporary] {
            for receipt in [None, Some(""), Some("r-1"), Some("temporary"), Some("7")] {
                let wrapped = claim.around(receipt).into();
                assert_eq!(Claim::unwrap(wrapped), (Some(claim), receipt.map(Receipt::from)));
            }
        }
        for receipt in ["", "r-1", "temporary", "7"] {
            assert_eq!(Claim::unwrap(receipt.into()), (None, Some(receipt.into())));
        }
    }
}
