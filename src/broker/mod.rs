//! The core: queues, topics, subscriptions, transactions. A plain value without clock, I/O or randomness.
//!
//! `core.rs` holds the value and takes commands; `routing.rs` brings messages in, `dispatch.rs` hands them out,
//! `settling.rs` takes answers, `redelivery.rs` decides what comes back and what is dead, `committing.rs` hides what
//! is not durable yet, `memory.rs` decides what leaves memory (`spooling.rs` what the store does not keep), and
//! `reading.rs` takes it in again. `browsing.rs` shows what lies in a queue, `purging.rs` empties one, `garbage.rs`
//! drops what is left of it, and `statistics.rs` tells about all of it. What those are made of (`queue.rs` and its
//! `lane.rs`, `run.rs`, `mark.rs`, `ready.rs`; `consumer.rs`, `transaction.rs`, `step.rs`, `sequence.rs`, `policy.rs`,
//! `deadlines.rs`) knows nothing of the core.

mod browsing;
mod command;
mod committing;
mod consumer;
mod core;
mod deadlines;
mod dispatch;
mod effects;
mod entry;
mod garbage;
mod lane;
mod mark;
mod memory;
mod policy;
mod purging;
mod queue;
mod reading;
mod ready;
mod receipt;
mod redelivery;
mod refused;
mod routing;
mod run;
mod sequence;
mod session;
mod settling;
mod spooling;
mod statistics;
mod step;
mod transaction;

pub use command::{
    Ack, AckMode, AckTarget, Browse, CloseReason, Command, Connect, Delivery, Outgoing, Refusal, Request, Send,
    Subscribe, TransactionName, Unsubscribe, Verdict,
};
pub use committing::UnitId;
pub use core::{Core, CoreOptions, Full, Hold, NotDone};
pub use effects::{Change, Effects};
pub use entry::Kept;
pub use purging::Purged;
pub use reading::{Pending, Read, ReadNumber};
pub use receipt::Receipt;
pub use statistics::{DestinationStatistics, DurableStatistics, NAMED_MAX, Passed, Statistics, Totals};

slotmap::new_key_type! {
    /// A queue of the core.
    pub struct QueueKey;
    /// A consumer of the core.
    pub(crate) struct ConsumerKey;
    /// A browse of the core that is not over.
    pub struct BrowseKey;
}
