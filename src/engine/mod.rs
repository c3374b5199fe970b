//! The engine: the one task that owns a core and drives it. See ARCHITECTURE.md, "A turn of the engine".
//!
//! `task.rs` is the task, with `held.rs` for what has to wait; `batch.rs`, `writer.rs`, `spool.rs` and `receipts.rs`
//! are values without I/O that it drives; `handle.rs` and `outbox.rs` are what sessions hold; `overview.rs` is what
//! operators are told; `committer.rs` carries what is to be written to the adapter, `reader.rs` what is to be read.

mod batch;
mod committer;
mod handle;
mod held;
mod outbox;
mod overview;
mod pause;
mod reader;
mod receipts;
mod spool;
mod start;
mod task;
mod writer;

pub use handle::{EngineGone, EngineHandle, SESSION_BUDGET_BYTES_MAX, SessionLink, Written};
pub use outbox::Outbox;
pub use overview::{Answers, Overview, StoreOverview};
pub use start::{Running, Stores, start};
pub use task::EngineError;
