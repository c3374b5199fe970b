//! The engine: the one task that owns a core and drives it. See ARCHITECTURE.md, "A turn of the engine".

mod handle;
mod outbox;

pub use handle::{EngineGone, EngineHandle, SESSION_BUDGET_BYTES_MAX, SessionLink, Written};
pub use outbox::Outbox;
