//! A term as master: from the store's state to the last goodbye.
//!
//! Owns everything that exists while this broker is the master: engine, store, doors, sessions. Always true: the doors
//! open after the store was recovered and raised; nothing of a term is left when it has ended.
//! On failure: a term that can't be opened leaves nothing open; one that is over drops its clients at once, because
//! somebody else may serve by now.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{NodeError, Signals, standing::Standing};
use crate::{
    broker::CoreOptions,
    config::{Config, write_duration},
    console::TermView,
    election::Baton,
    engine::{self, EngineError, EngineHandle, Stores},
    persistence::{PersistenceAdapter, SpoolAdapter, StoreError, TimedAdapter},
    server::{Doors, OpenDoors, PublishedAddresses, Service},
    tasks::Tasks,
    telemetry::Traffic,
    types::{Broken, Catalog, Clock, Footing, Mandate, Meter, Tenure, TermContext, with_causes},
};

/// Which part of the stop timeout sessions may use up for their goodbyes; the rest is the engine's.
const GOODBYE_SHARE: u32 = 2;

/// How long what was dropped may take to be gone.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// How a term ended that did not fail.
pub(super) enum Ended {
    /// It was asked to, and everything is written, unless the term was over meanwhile: then why. What clients have
    /// still to read is on its way, in these tasks.
    Stopped(Result<(), String>, Tasks),
    /// The baton is somebody else's, or may be.
    Over(String),
}

/// What exists while this broker is the master and its doors are open.
pub(super) struct Term {
    config: Arc<Config>,
    tenure: Tenure,
    mandate: Mandate,
    /// Kept while sessions come and go: an engine that nobody can reach any more ends by itself.
    engine: EngineHandle,
    /// How the engine ended.
    ended: oneshot::Receiver<Result<(), EngineError>>,
    failed: Failed,
    tasks: Tasks,
    listeners: Tasks,
    sessions: Tasks,
    farewells: Tasks,
    traffic: Arc<Traffic>,
    /// Each connector's name and URI.
    addresses: Vec<(String, String)>,
    published: PublishedAddresses,
}

/// The first essential task that ended with an error.
type Failed = Arc<OnceLock<&'static str>>;

impl Term {
    /// Recovers the store and opens the doors. `None`: asked to stop meanwhile.
    pub(super) async fn open<A: PersistenceAdapter>(
        adapter: A,
        baton: &Baton,
        config: &Arc<Config>,
        doors: &Doors,
        signals: &mut Signals,
        standing: &Standing,
    ) -> Result<Option<Self>, NodeError> {
        let mut adapter = TimedAdapter::new(adapter, standing.commit_histograms());
        let Some(recovered) = signals.unless(recover(&mut adapter, baton)).await else {
            tracing::info!("stopping: asked to while the store was being recovered");
            return Ok(None);
        };
        let (catalog, tenure) = recovered?;
        let spool = SpoolAdapter::open(&config.data, SpoolAdapter::options());
        let open = doors.open().await?;
        let published = publish(config, &open)?; // who connects now waits until it is served
        tracing::info!(term = tenure.term.0, destinations = catalog.destinations.len(), "this broker is the master");
        let context = TermContext {
            clock: Clock::start(),
            mandate: baton.mandate().clone(),
            meter: Meter::new(config.limits.memory_bytes_max),
        };
        let options = core_options(config, &adapter);
        let tasks = standing.tasks().group();
        let stores = Stores { store: adapter, spool };
        let engine = engine::start(stores, options, &catalog, tenure, context.clone(), tasks.stop_token());
        let (tell, ended) = oneshot::channel();
        let run = engine.engine;
        tasks.spawn("engine", async move {
            let _nobody_waits = tell.send(run.await);
        });
        let failed = Failed::default();
        tasks.spawn_essential("store", run_store(engine.store, tasks.stop_token().cancelled_owned(), failed.clone()));
        let (listeners, sessions, farewells) = (tasks.group(), tasks.group(), tasks.group());
        let (traffic, addresses, mandate) = (Arc::<Traffic>::default(), open.addresses(), context.mandate.clone());
        let service = Service::new(engine.handle.clone(), config, context, farewells.clone(), traffic.clone());
        let service = service.inspect_err(|_| tasks.abort())?;
        open.serve(&service, &listeners, &sessions);
        Ok(Some(Self {
            config: Arc::clone(config),
            tenure,
            mandate,
            engine: engine.handle,
            ended,
            failed,
            tasks,
            listeners,
            sessions,
            farewells,
            traffic,
            addresses,
            published,
        }))
    }

    /// Where clients find it: the connectors' URIs.
    pub(super) fn addresses(&self) -> String {
        self.addresses.iter().map(|(_, uri)| uri.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn view(&self) -> TermView {
        TermView { engine: self.engine.clone(), traffic: self.traffic.clone() }
    }

    /// Serves until a signal comes, or the term is over.
    pub(super) async fn run(self, signals: &mut Signals, standing: &Standing) -> Result<Ended, NodeError> {
        standing.serves(self.tenure.term, self.view());
        let ended = self.serve(signals, standing).await;
        standing.has_served();
        ended
    }

    async fn serve(mut self, signals: &mut Signals, standing: &Standing) -> Result<Ended, NodeError> {
        for (name, uri) in &self.addresses {
            tracing::info!("connector {name} listens on {uri}");
        }
        tracing::info!("ready; stop with Ctrl-C or SIGTERM");
        let name = loop {
            tokio::select! {
                biased;
                ended = &mut self.ended => return self.over(ended).await,
                task = self.tasks.broken() => {
                    self.tasks.abort(); // confirm nothing more: what this task did for the others is missing
                    return Err(NodeError::TaskEnded(task));
                }
                name = signals.next() => break name,
                () = self.mandate.changed() => match self.mandate.footing() {
                    Footing::Firm => standing.goes_on(self.tenure.term),
                    Footing::Doubtful | Footing::Lost(_) => standing.pauses(self.tenure.term),
                },
            }
        };
        standing.stops();
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

    /// The engine ended unasked: nothing leaves any more, and every client is dropped.
    async fn over(self, ended: Result<Result<(), EngineError>, oneshot::error::RecvError>) -> Result<Ended, NodeError> {
        self.tasks.abort();
        let Ok(Err(EngineError::TermOver(why))) = ended else { return Err(NodeError::TaskEnded("engine")) };
        withdraw(&self.published);
        // The next term has to find the ports free.
        for group in [&self.listeners, &self.sessions, &self.tasks] {
            if let Err(late) = group.stop(DROP_PATIENCE).await {
                tracing::debug!("what belonged to the term is not all gone: {late}");
            }
        }
        Ok(Ended::Over(why))
    }

    /// No new sockets; sessions say goodbye; the engine commits the rest and closes the store.
    async fn stop(mut self) -> Result<Ended, NodeError> {
        let deadline = Instant::now() + self.config.stop_timeout;
        let remaining = || deadline.saturating_duration_since(Instant::now());
        self.listeners.stop(remaining()).await.map_err(NodeError::StopTimeout)?;
        withdraw(&self.published);
        let open = self.sessions.count();
        if let Err(late) = self.sessions.stop(remaining() / GOODBYE_SHARE).await {
            tracing::info!("closing connections that did not take their goodbye: {late}");
            self.sessions.abort();
        }
        tracing::debug!(open, "connections are closed");
        self.tasks.stop(remaining()).await.map_err(NodeError::StopTimeout)?;
        let engine = match self.ended.try_recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(EngineError::TermOver(why))) => Err(why),
            Err(_) => return Err(NodeError::TaskEnded("engine")),
        };
        drop(self.engine);
        // A task that fails while it stops was asked to end, and so brings nothing down; the process tells all the same.
        match self.failed.get() {
            Some(task) => Err(NodeError::TaskEnded(task)),
            None => Ok(Ended::Stopped(engine, self.farewells)),
        }
    }
}

fn publish(config: &Config, open: &OpenDoors) -> Result<PublishedAddresses, NodeError> {
    let published = PublishedAddresses::publish(&config.data, &open.addresses());
    published.map_err(|source| NodeError::Data { action: "publish addresses in", path: config.data.clone(), source })
}

/// Nothing is open any more.
fn withdraw(published: &PublishedAddresses) {
    if let Err(error) = published.withdraw() {
        tracing::warn!(%error, "cannot remove the file of open addresses");
    }
}

/// What the store holds, once nobody else can write to it, and the tenure in which this broker goes on.
async fn recover(adapter: &mut impl PersistenceAdapter, baton: &Baton) -> Result<(Catalog, Tenure), NodeError> {
    let recovery = async {
        let catalog = adapter.recover().await?;
        let tenure = next_tenure(baton.tenure(), catalog.tenure)?;
        adapter.raise(tenure).await?;
        Ok((catalog, tenure))
    };
    let mut mandate = baton.mandate().clone();
    tokio::select! {
        biased;
        recovered = recovery => recovered,
        why = lost(&mut mandate) => Err(NodeError::BatonLost(why)),
    }
}

/// R17: above all that was seen; in the term of the take-over, if that wrote one.
fn next_tenure(taken: Option<Tenure>, stored: Tenure) -> Result<Tenure, StoreError> {
    match taken {
        None => Ok(Tenure::default().next_above(stored)),
        Some(taken) if taken.term == stored.term => Ok(stored.next_token()),
        Some(_) => Err(StoreError::Deposed),
    }
}

async fn lost(mandate: &mut Mandate) -> String {
    loop {
        if let Footing::Lost(why) = mandate.footing() {
            return why.to_string();
        }
        mandate.changed().await;
    }
}

fn core_options(config: &Config, store: &impl PersistenceAdapter) -> CoreOptions {
    CoreOptions {
        limits: config.limits.clone(),
        redelivery: config.redelivery.iter().cloned().map(Arc::new).collect(),
        message_bytes_max: store.limits().message_bytes_max,
        broken: Broken::default(),
    }
}

/// The store's task ends by itself when the engine has; that is no failure, and the engine's end is told elsewhere. An
/// error is logged where it ends.
async fn run_store(
    store: impl Future<Output = Result<(), StoreError>>,
    stopped: impl Future<Output = ()>,
    failed: Failed,
) {
    if let Err(error) = store.await {
        failed.get_or_init(|| "store");
        tracing::error!("{}", with_causes(&error));
        return;
    }
    stopped.await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{FencingToken, Term as TermNumber};

    #[test]
    fn r17_a_term_goes_on_above_what_its_take_over_wrote() {
        let tenure = |term, token| Tenure { term: TermNumber(term), token: FencingToken(token) };
        assert_eq!(next_tenure(None, tenure(4, 9)).unwrap(), tenure(5, 10));
        assert_eq!(next_tenure(Some(tenure(5, 10)), tenure(5, 10)).unwrap(), tenure(5, 11));
        let other = next_tenure(Some(tenure(5, 10)), tenure(6, 11));
        assert!(matches!(other, Err(StoreError::Deposed)), "somebody else took over meanwhile");
    }
}
