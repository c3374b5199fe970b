//! What this process is, and everybody who is told: the console, the service manager, the log's readers.
//!
//! Owns the role and the console. Always true: nobody else decides a role, and it is told in the order of events; `master`
//! only while doors are open.

use std::{io, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    config::Config,
    console::{Console, ConsoleError, TermView, Terms, View},
    persistence::CommitHistograms,
    tasks::Tasks,
    telemetry::Supervisor,
    types::{Clock, Role, Term},
};

/// How long what belongs to the process may take to end, when all that matters has ended.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// This process's standing, as others see it.
pub(super) struct Standing {
    role: watch::Sender<Role>,
    terms: watch::Sender<Terms>,
    clock: Clock,
    supervisor: Option<Arc<Supervisor>>,
    commits: CommitHistograms,
    tasks: Tasks,
}

impl Standing {
    /// Begins to tell: opens the console, and finds out who else wants to know.
    pub(super) fn begin(config: &Config) -> Result<Self, ConsoleError> {
        let console = open_console(config)?;
        let tasks = Tasks::new();
        let standing = Self {
            role: watch::Sender::new(Role::Starting),
            terms: watch::Sender::default(),
            clock: Clock::start(),
            supervisor: supervisor().map(Arc::new),
            commits: console.as_ref().map_or_else(CommitHistograms::unread, Console::commit_histograms),
            tasks,
        };
        if let Some(console) = console {
            let address = console.address();
            let failed = |source| ConsoleError { address: address.to_string(), source };
            console.start(standing.view(config), &standing.tasks).map_err(failed)?;
            tracing::info!("the console listens on http://{address}");
        }
        if let Some(supervisor) = &standing.supervisor {
            let alive = Arc::clone(supervisor).keep_alive(standing.tasks.stop_token());
            standing.tasks.spawn_essential("watchdog", alive);
        }
        Ok(standing)
    }

    fn view(&self, config: &Config) -> View {
        let (role, terms) = (self.role.subscribe(), self.terms.subscribe());
        View { role, terms, data: config.data.clone(), clock: self.clock }
    }

    /// The tasks of the process; a term's belong to the same family.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Where a store's commits are recorded.
    pub(super) fn commit_histograms(&self) -> CommitHistograms {
        self.commits.clone()
    }

    /// It has the baton, and reads its store.
    pub(super) fn starts(&self) {
        self.tell(Role::Starting);
    }

    /// Another broker is the master.
    pub(super) fn stands_by(&self) {
        self.tell(Role::Standby);
    }

    /// Its doors are open.
    pub(super) fn serves(&self, term: Term, view: TermView) {
        self.terms.send_modify(|terms| {
            terms.begun += 1;
            terms.current = Some(view);
        });
        self.goes_on(term);
    }

    /// It is in doubt that it has the baton (R24).
    pub(super) fn pauses(&self, term: Term) {
        self.tell(Role::Paused { term, since: self.clock.now() });
    }

    /// It has the baton, and its doors are open.
    pub(super) fn goes_on(&self, term: Term) {
        self.tell(Role::Master { term, since: self.clock.now() });
    }

    /// It goes, from whatever it was.
    pub(super) fn stops(&self) {
        self.tell(Role::Stopping);
    }

    /// The term is over.
    pub(super) fn has_served(&self) {
        self.terms.send_modify(|terms| terms.current = None);
    }

    /// Nothing follows.
    pub(super) async fn end(self) {
        self.stops();
        if let Err(late) = self.tasks.stop(STOP_PATIENCE).await {
            tracing::debug!("ending without waiting any longer: {late}");
        }
    }

    fn tell(&self, role: Role) {
        if self.role.send_replace(role) != role
            && let Some(supervisor) = &self.supervisor
        {
            supervisor.tell(role);
        }
    }
}

/// A port that was asked for has to be had. The default one is given up, so that a second broker on a machine starts.
fn open_console(config: &Config) -> Result<Option<Console>, ConsoleError> {
    match Console::open(&config.console) {
        Err(error) if !config.console.is_wanted => {
            let ConsoleError { address, source } = error;
            tracing::warn!(
                %source,
                "no console: {address} can't be had, perhaps because another broker has it; choose an address with \
                 console.listen, or \"\" for none"
            );
            Ok(None)
        }
        opened => opened,
    }
}

fn supervisor() -> Option<Supervisor> {
    Supervisor::from_environment().unwrap_or_else(|error: io::Error| {
        tracing::warn!(%error, "NOTIFY_SOCKET names no socket; no service manager is told");
        None
    })
}
