//! The life of a broker process: stand by until the baton is free, serve a term as master, stand by again.
//!
//! Owns the order of things (`life.rs`, and `term.rs` for a term). Start: lock, store, recovery, engine, doors; stop: the
//! same backwards.
//! Always true: client ports are closed until this broker is the master and its store has been recovered. Nothing in
//! memory outlives the term that made it, and a term is a value: nothing global stands in the way of a second one.
//! On failure: a [`NodeError`], which ends the process. `kill -9` is an ordinary event: what was confirmed is safe.

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod database;
mod life;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
mod signals;
mod standing;
mod term;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::watch;

#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use self::database::survey;
#[cfg(feature = "mysql")]
pub use self::mysql::mysql;
#[cfg(feature = "postgres")]
pub use self::postgres::postgres;
use self::{life::Life, signals::Signals, standing::Standing};
use crate::{
    config::{Backend, Config, write_size},
    console::ConsoleError,
    election::{FileLocker, LockError, Sign},
    persistence::{
        MemoryAdapter, PersistenceAdapter, StoreError,
        journal::{JournalAdapter, JournalOptions},
    },
    server::{Doors, ServerError, raise_open_files_limit},
    session::UserError,
    tasks::StillRunning,
};

/// How many threads run the sessions and the engine. One: a hop between two costs more than it brings at the rates
/// that were measured; see benches/README.md.
pub const RUNTIME_WORKERS: usize = 1;

/// What to do while another broker is the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standby {
    /// Wait until it is gone.
    Wait,
    /// End with [`NodeError::Locked`].
    Exit,
}

/// Why a broker process ends other than politely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The data directory can't be made or used.
    #[error("cannot {action} {path}")]
    Data {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another broker is the master, and this one was not to wait.
    #[error("another broker holds {0}")]
    Locked(String),
    /// It was the master, and is not any more.
    #[error("the baton is lost: {0}")]
    BatonLost(String),
    /// It is not known who the master is.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store can't be opened or recovered.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A user can't be known.
    #[error(transparent)]
    User(#[from] UserError),
    /// A port can't be opened.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The console's port can't be opened.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// A task without which the broker is worth nothing has ended; it has logged why.
    #[error("the task {0} ended unasked")]
    TaskEnded(&'static str),
    /// The polite stop took too long.
    #[error("the stop took longer than stop_timeout")]
    StopTimeout(#[source] StillRunning),
    /// A second signal cut the polite stop short.
    #[error("stopped at once by a second signal")]
    StoppedAtOnce,
    /// Signals can't be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

impl NodeError {
    /// What a human can do about a term that can't begin.
    fn fix(&self) -> &'static str {
        match self {
            Self::Lock(error) => error.fix(),
            Self::Store(error) => error.fix(),
            Self::Server(error) => error.fix(),
            _ => "the log says more",
        }
    }
}

/// Runs a broker until it is asked to stop.
///
/// # Errors
/// A [`NodeError`] for everything that ends the process otherwise.
pub async fn run(config: Config, standby: Standby) -> Result<(), NodeError> {
    let mut signals = Signals::new().map_err(NodeError::Signals)?;
    greet(&config);
    let doors = Doors::prepare(&config)?;
    prepare_data(&config.data)?;
    let standing = Standing::begin(&config)?;
    let node = Node { config: Arc::new(config), doors, standby, standing: &standing };
    let lived = node.live(&mut signals).await;
    standing.end().await;
    lived
}

/// What is ready before any election.
struct Node<'a> {
    config: Arc<Config>,
    doors: Doors,
    standby: Standby,
    standing: &'a Standing,
}

impl Node<'_> {
    /// Where the types of lockers and stores end.
    async fn live(self, signals: &mut Signals) -> Result<(), NodeError> {
        match self.config.store.backend {
            Backend::Journal => {
                let (data, options) = (self.config.data.clone(), journal_options(&self.config));
                self.live_on_files(move || JournalAdapter::open(&data, options.clone()), signals).await
            }
            Backend::Memory => self.live_on_files(|| Ok(MemoryAdapter::default()), signals).await,
            #[cfg(feature = "postgres")]
            Backend::Postgres => self.live_on_postgres(signals).await,
            #[cfg(feature = "mysql")]
            Backend::Mysql => self.live_on_mysql(signals).await,
            #[cfg(not(all(feature = "postgres", feature = "mysql")))]
            _ => unreachable!("the configuration was checked"),
        }
    }

    /// With the lock on the data directory.
    async fn live_on_files<A: PersistenceAdapter>(
        self,
        open_store: impl FnMut() -> Result<A, StoreError>,
        signals: &mut Signals,
    ) -> Result<(), NodeError> {
        let Self { config, doors, standby, standing } = self;
        let locker = FileLocker::new(&config.data);
        let (sign, _nobody_reads) = watch::channel(Sign::default());
        Life { standing, config, doors, locker, open_store, standby, sign }.live(signals).await
    }
}

fn journal_options(config: &Config) -> JournalOptions {
    JournalOptions { segment_bytes: config.store.segment_bytes as u64, ..JournalOptions::default() }
}

/// What an operator wants to know of a start, in plain sentences.
fn greet(config: &Config) {
    tracing::info!("the broker's name is {}", config.broker_name);
    let data = std::path::absolute(&config.data).unwrap_or_else(|_| config.data.clone());
    match config.store.backend {
        Backend::Journal => tracing::info!("messages are kept in a journal under {}", data.display()),
        Backend::Memory => tracing::info!(
            "messages are kept in memory and are gone when this process ends; its lock is in {}",
            data.display()
        ),
        Backend::Postgres | Backend::Mysql => {
            let name = if config.store.backend == Backend::Postgres { "PostgreSQL" } else { "MySQL or MariaDB" };
            let group = config.store.database.as_ref().map(|database| database.group.as_str()).unwrap_or_default();
            tracing::info!("messages are kept in {name}, group {group}; what overflows is in {}", data.display());
        }
    }
    let memory = write_size(config.limits.memory_bytes_max);
    tracing::info!("messages and buffers may take {memory} of memory (limits.memory_bytes_max)");
    if let Some(connections) = config.unbounded_connections_that_fit() {
        tracing::info!(
            "that is room for {connections} connections; for more raise it, or bound them with maximumConnections"
        );
    }
    match raise_open_files_limit() {
        Some(limit) => tracing::info!("up to {limit} files and connections may be open"),
        None => tracing::info!("any number of files and connections may be open"),
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

/// Messages are nobody else's business: a directory that is made here is for its owner only.
fn prepare_data(data: &Path) -> Result<(), NodeError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.map_err(|source| NodeError::Data { action: "make the data directory", path: data.to_owned(), source })
}
