//! The life of a broker process: stand by until the baton is free, serve a term as master, stop.
//!
//! Owns the order of things. Start: lock, store, recovery, engine, doors; stop: the same backwards.
//! Always true: client ports are closed until this broker is the master and its store has been recovered. Nothing in
//! memory outlives the term that made it, and a term is a value: nothing global stands in the way of a second one.
//! On failure: a [`NodeError`], which ends the process. `kill -9` is an ordinary event: what was confirmed is safe.

use std::{
    error::Error,
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    broker::CoreOptions,
    config::{Backend, Config, write_duration, write_size},
    election::{FileLocker, LockError, Locker},
    engine::{self, EngineHandle, Stores},
    persistence::{
        MemoryAdapter, PersistenceAdapter, SpoolAdapter, StoreError,
        journal::{JournalAdapter, JournalOptions},
    },
    server::{Doors, OpenDoors, PublishedAddresses, ServerError, Service, raise_open_files_limit},
    session::UserError,
    tasks::{StillRunning, Tasks},
    types::{Clock, Mandate, Meter, Tenure, TermContext},
};
#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::{config::Secret, types::Group};
#[cfg(feature = "mysql")]
use crate::{
    db::mysql::{Mysql, MysqlOptions},
    persistence::MysqlAdapter,
};
#[cfg(feature = "postgres")]
use crate::{
    db::postgres::{Postgres, PostgresOptions},
    persistence::PostgresAdapter,
};

/// How many threads run the sessions and the engine. One: a hop between two costs more than it brings at the rates
/// that were measured; see benches/README.md.
pub const RUNTIME_WORKERS: usize = 1;

/// How long a standby waits at a time before it asks again.
const STANDBY_PATIENCE: Duration = Duration::from_secs(5);

/// Which part of the stop timeout sessions may use up for their goodbyes; the rest is the engine's.
const GOODBYE_SHARE: u32 = 2;

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
    #[error("another broker holds the data directory {}", .0.display())]
    Locked(PathBuf),
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

/// Runs a broker until it is asked to stop.
///
/// # Errors
/// A [`NodeError`] for everything that ends the process otherwise.
pub async fn run(config: Config, standby: Standby) -> Result<(), NodeError> {
    let mut signals = Signals::new().map_err(NodeError::Signals)?;
    greet(&config);
    let doors = Doors::prepare(&config)?;
    prepare_data(&config.data)?;
    let store = StoreChoice::prepare(&config)?;
    let mut locker = FileLocker::new(&config.data);
    if !become_master(&mut locker, &config, standby, &mut signals).await? {
        return Ok(());
    }
    let config = Arc::new(config);
    if let Err(error) = serve_term(config.clone(), store, doors, &mut signals).await {
        // The journal's thread may still write. The lock goes with the process, and not before.
        std::mem::forget(locker);
        return Err(error);
    }
    locker.release().await?;
    tracing::info!(broker = config.broker_name, "stopped");
    Ok(())
}

/// Which store there is, with all of it checked that can be before this broker is the master.
enum StoreChoice {
    Journal,
    Memory,
    #[cfg(feature = "postgres")]
    Postgres(Box<Postgres>, Group),
    #[cfg(feature = "mysql")]
    Mysql(Mysql, Group),
}

impl StoreChoice {
    /// Checks URLs and reads certificates: a standby must not find out at its take-over that they are no good.
    fn prepare(config: &Config) -> Result<Self, StoreError> {
        match config.store.backend {
            Backend::Journal => Ok(Self::Journal),
            Backend::Memory => Ok(Self::Memory),
            #[cfg(feature = "postgres")]
            Backend::Postgres => postgres(config).map(|(postgres, group)| Self::Postgres(Box::new(postgres), group)),
            #[cfg(feature = "mysql")]
            Backend::Mysql => mysql(config).map(|(mysql, group)| Self::Mysql(mysql, group)),
            #[cfg(not(all(feature = "postgres", feature = "mysql")))]
            _ => unreachable!("the configuration was checked"),
        }
    }
}

/// The database of a configuration whose store is PostgreSQL, and the group.
///
/// # Errors
/// [`StoreError::Connect`] if the URL or the certificates can't be used.
#[cfg(feature = "postgres")]
pub fn postgres(config: &Config) -> Result<(Postgres, Group), StoreError> {
    let database = config.store.database.as_ref().expect("the configuration was checked");
    let options = PostgresOptions {
        url: database.url.reveal(),
        password: database.password.as_ref().map(Secret::reveal),
        tls_ca_file: database.tls_ca_file.as_deref(),
        broker_name: &config.broker_name,
    };
    Ok((Postgres::new(&options)?, database.group.clone()))
}

/// The database of a configuration whose store is MySQL or MariaDB, and the group.
///
/// # Errors
/// [`StoreError::Connect`] if the URL or the certificates can't be used.
#[cfg(feature = "mysql")]
pub fn mysql(config: &Config) -> Result<(Mysql, Group), StoreError> {
    let database = config.store.database.as_ref().expect("the configuration was checked");
    let options = MysqlOptions {
        url: database.url.reveal(),
        password: database.password.as_ref().map(Secret::reveal),
        tls_ca_file: database.tls_ca_file.as_deref(),
        broker_name: &config.broker_name,
    };
    Ok((Mysql::new(&options)?, database.group.clone()))
}

/// Where the adapter's type ends.
async fn serve_term(
    config: Arc<Config>,
    store: StoreChoice,
    doors: Doors,
    signals: &mut Signals,
) -> Result<(), NodeError> {
    match store {
        StoreChoice::Journal => {
            let adapter = JournalAdapter::open(&config.data, journal_options(&config))?;
            run_term(adapter, config, doors, signals).await
        }
        StoreChoice::Memory => run_term(MemoryAdapter::default(), config, doors, signals).await,
        #[cfg(feature = "postgres")]
        StoreChoice::Postgres(postgres, group) => {
            run_term(PostgresAdapter::new(*postgres, group)?, config, doors, signals).await
        }
        #[cfg(feature = "mysql")]
        StoreChoice::Mysql(mysql, group) => run_term(MysqlAdapter::new(mysql, group), config, doors, signals).await,
    }
}

fn journal_options(config: &Config) -> JournalOptions {
    JournalOptions { segment_bytes: config.store.segment_bytes as u64, ..JournalOptions::default() }
}

/// A term as master: from the store's state to the last goodbye.
async fn run_term<A: PersistenceAdapter>(
    mut adapter: A,
    config: Arc<Config>,
    doors: Doors,
    signals: &mut Signals,
) -> Result<(), NodeError> {
    let recovery = async {
        let catalog = adapter.recover().await?;
        let tenure = Tenure::default().next_above(catalog.tenure);
        adapter.raise(tenure).await?;
        Ok::<_, StoreError>((catalog, tenure))
    };
    let Some((catalog, tenure)) = signals.unless(recovery).await.transpose()? else {
        tracing::info!("stopping: asked to while the store was being recovered");
        return Ok(());
    };
    tracing::info!(term = tenure.term.0, destinations = catalog.destinations.len(), "this broker is the master");
    let tasks = Tasks::new();
    let failed = Failed::default();
    let context = TermContext {
        clock: Clock::start(),
        mandate: Mandate::permanent(), // the file lock is lost with the process
        meter: Meter::new(config.limits.memory_bytes_max),
    };
    let stores = Stores { store: adapter, spool: SpoolAdapter::open(&config.data, SpoolAdapter::options()) };
    let options = core_options(&config, &stores.store);
    let stop = tasks.stop_token();
    let engine = engine::start(stores, options, &catalog, tenure, context.clone(), stop);
    tasks.spawn_essential("engine", log_error("engine", failed.clone(), engine.engine));
    tasks.spawn_essential("store", log_error("store", failed.clone(), engine.store));
    let open = match doors.open().await {
        Ok(open) => open,
        Err(error) => {
            tasks.stop(config.stop_timeout).await.map_err(NodeError::StopTimeout)?;
            return Err(error.into());
        }
    };
    Term::begin(config, engine.handle, tasks, open, context)?.run(signals).await?;
    // A task that fails while it stops has been asked to end, and so brings nothing down; the process tells all the
    // same.
    failed.get().map_or(Ok(()), |task| Err(NodeError::TaskEnded(task)))
}

/// The first essential task that ended with an error.
type Failed = Arc<OnceLock<&'static str>>;

fn core_options(config: &Config, store: &impl PersistenceAdapter) -> CoreOptions {
    CoreOptions {
        limits: config.limits.clone(),
        redelivery: config.redelivery.iter().cloned().map(Arc::new).collect(),
        message_bytes_max: store.limits().message_bytes_max,
    }
}

/// An essential task's error is logged where it ends.
async fn log_error<E: Error>(name: &'static str, failed: Failed, task: impl Future<Output = Result<(), E>>) {
    if let Err(error) = task.await {
        failed.get_or_init(|| name);
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        let causes: String = causes.map(|cause| format!(": {cause}")).collect();
        tracing::error!("{error}{causes}");
    }
}

/// What exists while this broker is the master and its doors are open.
struct Term {
    config: Arc<Config>,
    /// Kept while sessions come and go: an engine that nobody can reach any more ends by itself.
    engine: EngineHandle,
    tasks: Tasks,
    listeners: Tasks,
    sessions: Tasks,
    published: PublishedAddresses,
}

impl Term {
    fn begin(
        config: Arc<Config>,
        engine: EngineHandle,
        tasks: Tasks,
        open: OpenDoors,
        context: TermContext,
    ) -> Result<Self, NodeError> {
        let (listeners, sessions) = (tasks.group(), tasks.group());
        let addresses = open.addresses();
        let published = PublishedAddresses::publish(&config.data, &addresses).map_err(|source| NodeError::Data {
            action: "publish addresses in",
            path: config.data.clone(),
            source,
        })?;
        open.serve(&Service::new(engine.clone(), &config, context)?, &listeners, &sessions);
        for (name, uri) in addresses {
            tracing::info!("connector {name} listens on {uri}");
        }
        tracing::info!("ready; stop with Ctrl-C or SIGTERM");
        Ok(Self { config, engine, tasks, listeners, sessions, published })
    }

    async fn run(self, signals: &mut Signals) -> Result<(), NodeError> {
        let name = tokio::select! {
            name = signals.next() => name,
            task = self.tasks.broken() => {
                self.tasks.abort(); // confirm nothing more: what this task did for the others is missing
                return Err(NodeError::TaskEnded(task));
            }
        };
        let within = write_duration(self.config.stop_timeout);
        tracing::info!("stopping on {name}, within {within}; a second signal stops at once");
        let tasks = self.tasks.clone();
        tokio::select! {
            stopped = self.stop() => stopped,
            task = tasks.broken() => {
                tasks.abort();
                Err(NodeError::TaskEnded(task))
            }
            _ = signals.next() => {
                tasks.abort();
                Err(NodeError::StoppedAtOnce)
            }
        }
    }

    /// No new sockets; sessions say goodbye; the engine commits the rest and closes the store.
    async fn stop(self) -> Result<(), NodeError> {
        let deadline = Instant::now() + self.config.stop_timeout;
        let remaining = || deadline.saturating_duration_since(Instant::now());
        self.listeners.stop(remaining()).await.map_err(NodeError::StopTimeout)?;
        if let Err(error) = self.published.withdraw() {
            tracing::warn!(%error, "cannot remove the file of open addresses");
        }
        let open = self.sessions.count();
        if let Err(late) = self.sessions.stop(remaining() / GOODBYE_SHARE).await {
            tracing::info!("closing connections that did not take their goodbye: {late}");
            self.sessions.abort();
        }
        tracing::debug!(open, "connections are closed");
        let stopped = self.tasks.stop(remaining()).await.map_err(NodeError::StopTimeout);
        drop(self.engine);
        stopped
    }
}

/// Takes the baton, or waits for it. `false`: asked to stop meanwhile.
async fn become_master(
    locker: &mut impl Locker,
    config: &Config,
    standby: Standby,
    signals: &mut Signals,
) -> Result<bool, NodeError> {
    let mut has_it = locker.acquire(Duration::ZERO).await?;
    if !has_it && standby == Standby::Exit {
        return Err(NodeError::Locked(config.data.clone()));
    }
    if !has_it {
        let data = config.data.display();
        tracing::info!("standby: another broker holds {data}; waiting for its end with client ports closed");
    }
    while !has_it {
        match signals.unless(locker.acquire(STANDBY_PATIENCE)).await {
            Some(acquired) => has_it = acquired?,
            None => {
                tracing::info!("stopped; this broker was a standby");
                return Ok(false);
            }
        }
    }
    PublishedAddresses::withdraw_stale(&config.data).map_err(|source| NodeError::Data {
        action: "remove old addresses from",
        path: config.data.clone(),
        source,
    })?;
    Ok(true)
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
            tracing::info!("messages are kept in {name}, group {group}; the lock is in {}", data.display());
        }
    }
    let memory = write_size(config.limits.memory_bytes_max);
    tracing::info!("messages and buffers may take {memory} of memory (limits.memory_bytes_max)");
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

/// SIGTERM and SIGINT, which ask for a polite stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// What `work` brings; `None` if a signal came first, and then `work` is dropped.
    async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let work = pin!(work);
        tokio::select! {
            biased;
            _ = self.next() => None,
            done = work => Some(done),
        }
    }
}
