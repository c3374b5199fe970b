//! What an applied command brings about: changes for the store, and words for sessions.
//!
//! The core only appends; the engine empties the buffer after each command and uses it again.

use smallvec::SmallVec;

use super::{Outgoing, Read, committing::UnitId};
use crate::types::{DurableId, Held, Holder, Op, Sequence, SessionId};

/// A buffer for what the core brings about.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the store, in order.
    pub changes: Vec<Change>,
    /// For sessions, in order.
    pub outgoing: Vec<(SessionId, Outgoing)>,
    /// For the spool, in order (R32).
    pub spool: Vec<Op>,
    /// What is to be read beside the writer.
    pub reads: Vec<Read>,
    /// Whether a new term is wanted, because the counter of this one ends (R17).
    pub term_wanted: bool,
}

/// One change to the store. A unit is never cut: all of it is durable, or nothing (R5).
#[derive(Debug)]
pub enum Change {
    /// A message that was sent outside a transaction, or any other single operation that may stand alone.
    One {
        /// Whose frame asked for it and waits for it; `None`: nobody's.
        origin: Option<SessionId>,
        /// What to write.
        op: Op,
    },
    /// A final positive acknowledgement outside a transaction: cancels with an insert that is not sealed yet (R1), and
    /// then neither needs the disk (R2).
    Settle {
        /// Whose consumer settled it.
        by: SessionId,
        /// Whether a frame of that session asked for it (an ACK), or the kernel took an automatic delivery (R3).
        asked: bool,
        /// The message.
        sequence: Sequence,
        /// Who is done with it.
        holder: Holder,
    },
    /// A message came back; merged into its insert if that is not sealed yet.
    Return {
        /// Whose frame asked for it (a NACK); `None`: nobody's.
        origin: Option<SessionId>,
        /// The message.
        sequence: Sequence,
        /// The holder's part from now on.
        held: Held,
    },
    /// What lies at or below `upto` may be delivered from now on (R9); [`super::Core::marked`] when it is durable.
    Mark {
        /// Whose mark.
        holder: Holder,
        /// The mark.
        upto: Sequence,
        /// Whether dispatch waits for it.
        awaited: bool,
    },
    /// Everything is gone that a holder holds at or below `upto`. Nothing about it follows but settles of what was out.
    Purge {
        /// Whose messages.
        holder: Holder,
        /// The last that goes.
        upto: Sequence,
    },
    /// What a purge's mark does not cover is gone too. What is not sealed yet cancels, the rest is a unit.
    SettleAll {
        /// Whose messages.
        holder: Holder,
        /// Which ones.
        sequences: Vec<Sequence>,
        /// The unit's; for [`super::Purged::behind`].
        id: UnitId,
    },
    /// A frame relies on a durable subscription that an earlier one made: it waits as long as that is not durable.
    Rely {
        /// Whose frame.
        origin: SessionId,
        /// On which.
        durable: DurableId,
    },
    /// Operations that stand or fall together.
    Unit {
        /// Whose frame asked for it and waits for it; `None`: nobody's.
        origin: Option<SessionId>,
        /// What to write.
        ops: SmallVec<[Op; 1]>,
        /// For [`super::Core::committed`] or [`super::Core::commit_refused`].
        id: UnitId,
        /// Whether a client waits for it, and is told when a full store can't have it in time: a transaction (R8). A dead
        /// letter goes along with others, and waits for as long as it has to.
        awaited: bool,
    },
}
