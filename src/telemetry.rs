//! The log: one subscriber for the process, on standard output, for people or for programs.
//!
//! Standard error is left to the one sentence with which a command that fails says why. Below it: what doors count
//! (`traffic.rs`), and what a service manager is told (`supervisor.rs`).

mod supervisor;
mod traffic;

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, util::TryInitError};

pub use supervisor::Supervisor;
pub use traffic::{ConnectorTraffic, OpenConnection, OpenSession, Protocol, Traffic};

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line of text, in colours on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log. `level` is the least urgent level of this crate that is told; of other crates only warnings are.
///
/// # Errors
/// When the process has a log already.
pub fn start(level: &str, format: Format) -> Result<(), TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let filter = EnvFilter::new(format!("warn,batonmq={level}"));
    let builder = fmt().with_env_filter(filter).with_ansi(io::stdout().is_terminal());
    match format {
        Format::Text => builder.finish().try_init(),
        Format::Json => builder.json().flatten_event(true).finish().try_init(),
    }
}
