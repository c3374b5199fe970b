//! A store in the simulated database: as those for PostgreSQL and MySQL, it only tries.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use batonmq::{
    persistence::{
        Backlog, CommitError, DuePage, MessageReader, Page, PageRange, PersistenceAdapter, StoreError, StoreLimits,
        Window,
    },
    types::{Batch, Catalog, FencingToken, History, Holder, Op, Priority, Sequence, Tenure, Term, Timestamp},
};
use tokio::time::timeout;

use super::database::{Connection, Database, Mode, Progress, Server, SessionNo, Wait, Weakness};
use crate::harness::Rows;

/// How long the database may take to answer; then the connection counts as lost.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);

/// How long a raise waits for what is being written, before it ends the last writer's session (R19). Unit: milliseconds.
const ROW_PATIENCE: u64 = 500;

/// How often it waits so long.
const ROW_ATTEMPTS: usize = 4;

/// One process's store.
pub(super) struct SimulatedAdapter {
    place: Place,
    session: Option<Connection>,
    /// As in the SQL adapters: the term that the row had when it was proven last, the token of the last raise, and the
    /// raises of which it is not known what became of them.
    base: Option<Term>,
    /// The history that it was proven on (R21).
    history: Option<History>,
    token: Option<FencingToken>,
    asked: Vec<(Tenure, SessionNo)>,
    /// What everybody held at the recovery (R28).
    backlogs: Arc<BTreeMap<Holder, Backlog>>,
}

/// Where a process finds the database.
#[derive(Clone)]
struct Place {
    database: Database,
    process: usize,
    /// A read brings so many messages at most.
    page_max: usize,
}

impl SimulatedAdapter {
    pub(super) fn new(database: Database, process: usize, page_max: usize) -> Self {
        let place = Place { database, process, page_max };
        Self {
            place,
            session: None,
            base: None,
            history: None,
            token: None,
            asked: Vec::new(),
            backlogs: Arc::default(),
        }
    }
}

impl Place {
    async fn connect(&self) -> Result<Connection, StoreError> {
        answered("connect", self.database.connect(self.process, None)).await
    }
}

async fn answered<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    action: &'static str,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError> {
    let failed = |source| StoreError::Database { action, source };
    match timeout(ANSWER_PATIENCE, answer).await {
        Ok(answered) => answered.map_err(|error| failed(error.into())),
        Err(late) => Err(failed(late.into())),
    }
}

/// Holds the row of the baton in a transaction; whoever holds it for too long is ended, if it is the last writer (R19).
async fn hold_row(session: &Connection, within: Option<Term>) -> Result<(), StoreError> {
    for _ in 0..ROW_ATTEMPTS {
        let mut until = None;
        let hold = move |server: &mut Server, me| {
            let until = *until.get_or_insert(server.now + ROW_PATIENCE);
            server.begin(me);
            match server.try_lock_row(me, Mode::Exclusive) {
                true => Progress::Done(true),
                false if server.now >= until => Progress::Done(false),
                false => Progress::Waits,
            }
        };
        if answered("hold the baton", session.ask(hold)).await? {
            return Ok(());
        }
        let end_writer = move |server: &mut Server, me| {
            server.end_transaction(me);
            if within.is_none_or(|within| server.tenure().term <= within) {
                let writer = server.baton.writer_session.filter(|session| *session != me);
                writer.into_iter().for_each(|session| server.end_session(session));
            }
            Progress::Done(())
        };
        answered("end the writer", session.ask(end_writer)).await?;
    }
    Err(StoreError::Database { action: "hold the baton", source: "somebody holds it".into() })
}

/// `false`: somebody else took over.
async fn raise(
    session: &Connection,
    to: Tenure,
    (base, seen): (Term, History),
    asked: Vec<(Tenure, SessionNo)>,
) -> Result<bool, StoreError> {
    let update = move |server: &mut Server, me| {
        if let Some(why) = server.history().departs_from(&seen) {
            return Progress::Done(Err(why)); // R21
        }
        let row = server.tenure();
        let writer = server.baton.writer_session;
        let is_asked = asked.iter().any(|(tenure, session)| *tenure == row && Some(*session) == writer);
        let is_mine = row.term == base || (row.term == to.term && is_asked);
        let raises = is_mine && row.term <= to.term && row.token < to.token;
        if raises {
            server.write(me, move |server| {
                server.rows.catalog.tenure = to;
                server.baton.writer_session = Some(me);
            });
        }
        Progress::Done(Ok(raises))
    };
    let raised = answered("raise", session.ask(update)).await?.unwrap_or(false);
    let commit = |server: &mut Server, me| server.try_commit(me);
    answered("raise", session.ask(commit)).await?;
    Ok(raised)
}

/// The steps of a batch in the database, one statement that is one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Arrives,
    Fence,
    Settle,
    Insert,
    Commit,
}

fn commit(
    batch: Arc<Batch>,
    token: FencingToken,
) -> impl FnMut(&mut Server, SessionNo) -> Progress<Result<(), CommitError>> + Send {
    let (mut step, mut snapshot, mut token_then) = (Step::Arrives, 0, token);
    let inserts = batch.ops.iter().any(|op| matches!(op, Op::Insert(_)));
    move |server, me| {
        step = match step {
            Step::Arrives => {
                (snapshot, token_then) = (server.version, server.tenure().token);
                Step::Fence
            }
            Step::Fence => {
                let known = match server.weakness {
                    Some(Weakness::FenceNotChecked) => token,
                    Some(Weakness::FenceWithoutLock) => token_then,
                    _ => match server.try_lock_row(me, Mode::Shared) {
                        true => server.tenure().token,
                        false => return Progress::Waits,
                    },
                };
                let refused = if known != token {
                    Some(CommitError::Deposed)
                } else if server.again > 0 {
                    server.again -= 1;
                    Some(CommitError::Again { source: "deadlock".into() })
                } else {
                    (server.is_full && inserts).then_some(CommitError::Full)
                };
                if let Some(error) = refused {
                    server.end_transaction(me);
                    return Progress::Done(Err(error));
                }
                Step::Settle
            }
            Step::Settle => Step::Insert,
            Step::Insert => Step::Commit,
            Step::Commit => {
                let wait = server.wait_for_standby();
                if wait == Wait::GoesOn {
                    return Progress::Waits;
                }
                server.commit_batch(&batch, snapshot);
                server.end_transaction(me);
                let is_proven = wait == Wait::Over || server.weakness == Some(Weakness::WarningConfirms);
                let warned = || CommitError::Unknown { source: "the wait for the standby was cancelled".into() };
                return Progress::Done(is_proven.then_some(()).ok_or_else(warned)); // R16
            }
        };
        Progress::GoesOn
    }
}

impl PersistenceAdapter for SimulatedAdapter {
    type Reader = SimulatedReader;

    async fn recover(&mut self) -> Result<Catalog, StoreError> {
        let session = self.place.connect().await?;
        hold_row(&session, None).await?;
        let read = |server: &mut Server, _| {
            let rows = &server.rows;
            let backlogs = rows.holders().into_iter().map(|holder| (holder, rows.backlog(holder)));
            Progress::Done((rows.catalog.clone(), backlogs.collect::<BTreeMap<_, _>>(), server.history()))
        };
        let (catalog, backlogs, history) = answered("recover", session.ask(read)).await?;
        self.backlogs = Arc::new(backlogs);
        (self.session, self.base, self.history) = (Some(session), Some(catalog.tenure.term), Some(history));
        Ok(catalog)
    }

    async fn raise(&mut self, to: Tenure) -> Result<(), StoreError> {
        let (Some(base), Some(seen)) = (self.base, self.history.clone()) else { return Err(StoreError::Deposed) };
        let session = match self.session.take() {
            Some(session) if self.token.is_none() => session, // that of the recovery, which holds the row
            _ => {
                let session = self.place.connect().await?;
                hold_row(&session, Some(base)).await?;
                session
            }
        };
        self.asked.push((to, session.no));
        let raised = raise(&session, to, (base, seen), self.asked.clone()).await?;
        self.session = Some(session);
        self.asked.clear();
        if !raised {
            return Err(StoreError::Deposed);
        }
        (self.base, self.token) = (Some(to.term), Some(to.token));
        Ok(())
    }

    /// On a new session if the last one left a doubt: whether the token is to be raised first is not its business (R10).
    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        let Some(token) = self.token else { return Err(CommitError::Deposed) };
        let is_again = self.place.database.server().weakness == Some(Weakness::UnknownIsAgain);
        let unknown = |error: StoreError| match is_again {
            false => CommitError::Unknown { source: error.into() }, // R15
            true => CommitError::Again { source: error.into() },
        };
        let session = match self.session.take() {
            Some(session) => session,
            None => self.place.connect().await.map_err(unknown)?,
        };
        let done = answered("commit", session.ask(commit(Arc::clone(batch), token))).await.map_err(unknown)?;
        self.session = Some(session);
        done
    }

    fn reader(&self) -> SimulatedReader {
        SimulatedReader { place: self.place.clone(), idle: Arc::default(), backlogs: Arc::clone(&self.backlogs) }
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits { message_bytes_max: 64 << 20 }
    }

    async fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Reads on sessions of its own; each read sees what is committed when it arrives.
#[derive(Clone)]
pub(super) struct SimulatedReader {
    place: Place,
    idle: Arc<Mutex<Vec<Connection>>>,
    backlogs: Arc<BTreeMap<Holder, Backlog>>,
}

impl SimulatedReader {
    async fn read<T: Send + 'static>(
        &self,
        mut read: impl FnMut(&Rows) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap().pop();
        let session = match idle {
            Some(session) => session,
            None => self.place.connect().await?,
        };
        let read = move |server: &mut Server, _| {
            server.pages += 1;
            Progress::Done(read(server.readable()))
        };
        let answer = session.ask(read).await;
        let answer = answer.map_err(|gone| StoreError::Database { action: "read", source: gone.into() })?;
        self.idle.lock().unwrap().push(session);
        Ok(answer)
    }

    fn narrow(&self, window: Window) -> Window {
        Window { messages: window.messages.min(self.place.page_max), ..window }
    }
}

impl MessageReader for SimulatedReader {
    async fn page(
        &self,
        holder: Holder,
        priority: Priority,
        range: PageRange,
        window: Window,
    ) -> Result<Page, StoreError> {
        let window = self.narrow(window);
        self.read(move |rows| rows.page(holder, priority, range, window)).await
    }

    async fn due(
        &self,
        before: Timestamp,
        after: (Timestamp, Sequence),
        window: Window,
    ) -> Result<DuePage, StoreError> {
        let window = self.narrow(window);
        self.read(move |rows| rows.due(before, after, window)).await
    }

    async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        Ok(self.backlogs.keys().copied().collect())
    }

    async fn backlog(&self, holder: Holder) -> Result<Backlog, StoreError> {
        Ok(self.backlogs.get(&holder).copied().unwrap_or_default())
    }
}
