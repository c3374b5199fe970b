//! Connections: what a client's frames ask of the engine, and what the engine's answers look like on the wire.
//!
//! Owns a connection from its first byte to its end. A session knows its protocol, its client's names for things, and
//! nothing of queues.
//! Always true: frames reach the engine in the order in which they came, one batch for each read; what the session
//! itself declines travels the same way, so that an ERROR keeps its place among the receipts (R4).
//! On failure: a connection ends alone, with one line in the log that says why.

mod authentication;
mod buffers;
mod connection;
mod end;
mod link;
mod options;
mod output;
mod socket;
mod stomp;

pub use authentication::{Authenticator, UserError};
pub use buffers::Buffers;
pub use connection::serve;
pub use end::End;
pub use options::{ConnectionInfo, SessionOptions};
