//! What all parts of a term share.

use super::{Clock, Mandate, Meter};

/// One for each term: what a session calls now, the engine does too, and all that is held counts in one budget.
#[derive(Clone, Debug)]
pub struct TermContext {
    /// The time.
    pub clock: Clock,
    /// Whether this broker is the master, as far as is known.
    pub mandate: Mandate,
    /// What counts the memory that messages and buffers take.
    pub meter: Meter,
}
