//! The console port: health checks for load balancers, metrics for Prometheus, over HTTP/1.
//!
//! Owns one listening socket and one thread with a small runtime of its own, for as long as the process lives, as a standby
//! too: a slow scrape delays no message, and a runtime that hangs can still be told apart from a process that is gone.
//! Always true: it changes nothing. A bounded number of connections, one request each, each over within seconds.
//! On failure: an address that can't be had is a [`ConsoleError`]; a connection that misbehaves is closed.

mod answer;
mod http;
mod metrics;
mod pulse;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    thread,
};

use tokio::sync::{Mutex, oneshot, watch};

pub use self::metrics::{METRICS, Metric, MetricKind};
use self::{answer::Answerer, metrics::Histories, pulse::Pulse};
use crate::{
    config::ConsoleOptions,
    engine::EngineHandle,
    persistence::CommitHistograms,
    tasks::Tasks,
    telemetry::Traffic,
    types::{Clock, Role},
};

/// Why the console can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for the console (console.listen)")]
pub struct ConsoleError {
    /// Where it was to listen.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

/// What the console may look at.
#[derive(Clone, Debug)]
pub struct View {
    /// What this process is.
    pub role: watch::Receiver<Role>,
    /// The terms that it serves.
    pub terms: watch::Receiver<Terms>,
    /// The data directory.
    pub data: PathBuf,
    /// Began with the process.
    pub clock: Clock,
}

/// The terms that a process has served and serves.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// How many were begun so far.
    pub begun: u64,
    /// The one that it serves now.
    pub current: Option<TermView>,
}

/// What can be seen of a term.
#[derive(Clone, Debug)]
pub struct TermView {
    /// Its engine.
    pub engine: EngineHandle,
    /// Its connections.
    pub traffic: Arc<Traffic>,
}

/// The console with its port open; requests wait in the kernel until [`Console::start`].
pub struct Console {
    listener: TcpListener,
    address: SocketAddr,
    histories: Histories,
}

impl Console {
    /// Opens the port; `None`: there is to be none.
    ///
    /// # Errors
    /// [`ConsoleError`] when the address can't be had.
    pub fn open(options: &ConsoleOptions) -> Result<Option<Self>, ConsoleError> {
        if options.listen.is_empty() {
            return Ok(None);
        }
        let failed = |source| ConsoleError { address: options.listen.clone(), source };
        let listener = TcpListener::bind(&options.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Some(Self { listener, address, histories: Histories::new() }))
    }

    /// The address that it really has.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where commits are recorded for `/metrics`.
    #[must_use]
    pub fn commit_histograms(&self) -> CommitHistograms {
        self.histories.commits()
    }

    /// Serves on a thread of its own until `tasks` stop. The tasks of the runtime that this is called on are watched over.
    ///
    /// # Errors
    /// When the system has no room for the thread.
    pub fn start(self, view: View, tasks: &Tasks) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answerer = Answerer { pulse: Pulse::start(tasks), histories: Mutex::new(self.histories), view };
        let (stop, listener) = (tasks.stop_token(), self.listener);
        let (ended, has_ended) = oneshot::channel::<()>();
        thread::Builder::new().name("console".to_owned()).spawn(move || {
            let _ended = ended; // dropped however the thread ends
            if let Err(error) = runtime.block_on(http::serve(listener, answerer, stop)) {
                tracing::error!(%error, "the console can't accept connections");
            }
        })?;
        tasks.spawn_essential("console", async {
            let _dropped = has_ended.await;
        });
        Ok(())
    }
}
