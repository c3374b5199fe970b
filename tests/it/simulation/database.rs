//! A database as brokers see it: sessions whose statements run a step at a time, whoever has gone meanwhile.
//!
//! Nothing happens here by itself: the world tells the time and says whose statement goes a step further. A statement is
//! on its way, runs, and its answer is on its way back; a connection that is cut carries nothing. The row of the baton
//! has locks, a transaction changes nothing before its COMMIT, and a batch sees what was committed when it arrived.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use batonmq::{
    election::HolderId,
    types::{Batch, FencingToken, History, Op, Sequence, Tenure},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::harness::Rows;

/// A session that nobody says anything on, in a transaction, is ended after this. Unit: milliseconds.
const IDLE_IN_TRANSACTION_MAX: u64 = 10_000;

/// Who has left a statement that waits is noticed after this. Unit: milliseconds.
const LEFT_NOTICED_AFTER: u64 = 2_000;

/// A connection that is cut is noticed after this. Unit: milliseconds.
const CUT_NOTICED_AFTER: u64 = 9_000;

/// A copy that lags behind is brought up to date with each commit whose number this divides.
const REPLICA_LAG: u64 = 4;

/// What is wrong with a database, or with what it is asked: the fence does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weakness {
    /// A batch does not ask for the token.
    FenceNotChecked,
    /// A batch reads the token as it was when it arrived, and holds nothing.
    FenceWithoutLock,
    /// A connection that is lost at a COMMIT counts as if nothing was done (R15).
    UnknownIsAgain,
    /// A wait for the standby that is cancelled counts as over (R16).
    WarningConfirms,
    /// Who takes over stays in the term of the last one (R17).
    TermStays,
    /// An older copy that was put back is not noticed (R21).
    HistoryIgnored,
    /// Pages are read from a copy that lags behind (R26).
    ReadsFromReplica,
}

/// A COMMIT waits for a synchronous standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The standby has it, and what was before.
    Over,
    GoesOn,
    /// The COMMIT is done here, and nobody knows of the standby.
    Cancelled,
}

/// Number of a session.
pub(super) type SessionNo = u64;

/// The connection is gone, and whether what was asked for is done is unknown.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection is gone")]
pub(super) struct Gone;

/// How far a statement came in one step.
pub(super) enum Progress<T> {
    /// It waits for somebody else's lock.
    Waits,
    GoesOn,
    Done(T),
}

/// A hand on the database. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Database(Arc<Mutex<Server>>);

/// What lasts, and who is connected.
#[derive(Default)]
pub(super) struct Server {
    /// Unit: milliseconds.
    pub(super) now: u64,
    pub(super) weakness: Option<Weakness>,
    pub(super) rows: Rows,
    pub(super) baton: Baton,
    pub(super) lease: LeaseState,
    /// Batches that insert are not taken.
    pub(super) is_full: bool,
    /// So many batches are to be tried again (a deadlock, a certification that failed).
    pub(super) again: u32,
    /// Nobody can connect.
    pub(super) is_down: bool,
    /// What is committed has to wait for the standby.
    pub(super) standby_is_away: bool,
    /// So many waits for it are cancelled.
    pub(super) cancels: u32,
    /// What the standby has, if it lacks something.
    standby: Option<Box<State>>,
    /// A copy that may be put back.
    backup: Option<Box<State>>,
    /// What a lagging copy has.
    replica: Rows,
    /// Another one for each time that something else than what was here last goes on.
    pub(super) timeline: u64,
    /// How often something was read beside the writer.
    pub(super) pages: u64,
    /// Who can't connect, and hears nothing.
    pub(super) cut_off: BTreeSet<usize>,
    /// The ids of all that was ever committed.
    pub(super) ever: BTreeSet<String>,
    /// Who took over, and when.
    pub(super) take_overs: Vec<TakeOver>,
    /// Grows with each commit.
    pub(super) version: u64,
    /// When each row was inserted.
    born: BTreeMap<Sequence, u64>,
    /// Sessions that were ended because they were silent for too long.
    silent: BTreeSet<SessionNo>,
    locked_by: Option<SessionNo>,
    lease_locked_by: Option<SessionNo>,
    row_locks: BTreeMap<SessionNo, Mode>,
    sessions: BTreeMap<SessionNo, Session>,
    /// A session that goes on for so many steps only.
    halted: Option<(SessionNo, usize)>,
    last_session: SessionNo,
}

/// The row of the baton; its tenure is the catalog's.
#[derive(Clone, Debug, Default)]
pub(super) struct Baton {
    pub(super) holder: Option<HolderId>,
    pub(super) released: bool,
    pub(super) lock_session: Option<SessionNo>,
    pub(super) writer_session: Option<SessionNo>,
}

/// The row of the lease.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeaseState {
    pub(super) until: u64,
    pub(super) beat: i64,
    pub(super) token: FencingToken,
}

/// What lasts, as it was.
#[derive(Clone)]
struct State {
    rows: Rows,
    baton: Baton,
    ever: BTreeSet<String>,
    take_overs: Vec<TakeOver>,
    version: u64,
    born: BTreeMap<Sequence, u64>,
}

/// The end of somebody's tenure.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakeOver {
    /// The new one.
    pub(super) tenure: Tenure,
    /// Whether the last holder gave it back, or was silent for a lease: it can have known.
    pub(super) was_foreseen: bool,
}

/// How a row is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Shared,
    Exclusive,
}

/// A server process.
struct Session {
    process: usize,
    /// It is ended when nothing is heard for so long. Unit: milliseconds.
    idle_max: Option<u64>,
    heard: u64,
    in_transaction: bool,
    /// What its COMMIT will change.
    writes: Vec<Write>,
    statements: VecDeque<Statement>,
    client_left: Option<u64>,
    /// Nothing goes on in it before this.
    stalled_until: u64,
    cut: Option<u64>,
    /// It is no more, and its client has not heard of it.
    is_over: bool,
    over: CancellationToken,
}

type Write = Box<dyn FnOnce(&mut Server) + Send>;

/// What a client asked for.
struct Statement {
    phase: Phase,
    work: Box<dyn Work>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    OnItsWay,
    Running,
    Answered,
}

trait Work: Send {
    /// Whether it went on, and whether it is done.
    fn step(&mut self, server: &mut Server, session: SessionNo) -> (bool, bool);
    fn answer(&mut self);
    /// Nobody will hear of it.
    fn forget(&mut self);
}

struct Asked<T, F> {
    run: F,
    answer: Option<T>,
    to: Option<oneshot::Sender<T>>,
}

impl<T: Send, F: FnMut(&mut Server, SessionNo) -> Progress<T> + Send> Work for Asked<T, F> {
    fn step(&mut self, server: &mut Server, session: SessionNo) -> (bool, bool) {
        match (self.run)(server, session) {
            Progress::Waits => (false, false),
            Progress::GoesOn => (true, false),
            Progress::Done(answer) => {
                self.answer = Some(answer);
                (true, true)
            }
        }
    }

    fn answer(&mut self) {
        if let (Some(to), Some(answer)) = (self.to.take(), self.answer.take()) {
            drop(to.send(answer)); // who asked may have stopped waiting
        }
    }

    fn forget(&mut self) {
        self.to = None;
    }
}

impl Database {
    pub(super) fn server(&self) -> MutexGuard<'_, Server> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session of a process; waits for ever if that is cut off.
    pub(super) async fn connect(&self, process: usize, idle_max: Option<u64>) -> Result<Connection, Gone> {
        if self.server().cut_off.contains(&process) {
            pending::<()>().await;
        }
        let connection = {
            let mut server = self.server();
            if server.is_down {
                return Err(Gone);
            }
            let (no, over) = server.begin_session(process, idle_max);
            Connection { database: self.clone(), no, over }
        };
        connection.ask(|_, _| Progress::Done(())).await?;
        Ok(connection)
    }
}

/// A client's end of a session. Dropping it ends the session, as soon as the server hears of that.
pub(super) struct Connection {
    database: Database,
    pub(super) no: SessionNo,
    over: CancellationToken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.database.server().client_leaves(self.no);
    }
}

impl Connection {
    /// Asks for something; it is done sooner or later even if nobody waits for the answer any more.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut Server, SessionNo) -> Progress<T> + Send + 'static,
    ) -> Result<T, Gone> {
        let (to, answered) = oneshot::channel();
        let work = Box::new(Asked { run, answer: None, to: Some(to) });
        self.database.server().send(self.no, Statement { phase: Phase::OnItsWay, work });
        answered.await.map_err(|_| Gone)
    }

    /// Waits until the client hears of the session's end.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }
}

/// What statements do.
impl Server {
    pub(super) fn tenure(&self) -> Tenure {
        self.rows.catalog.tenure
    }

    /// Whether the session lock is held by it now.
    pub(super) fn try_lock(&mut self, session: SessionNo) -> bool {
        *self.locked_by.get_or_insert(session) == session
    }

    pub(super) fn unlock(&mut self, session: SessionNo) {
        self.locked_by.take_if(|by| *by == session);
    }

    /// Whether the row of the baton is locked by it now.
    pub(super) fn try_lock_row(&mut self, session: SessionNo, mode: Mode) -> bool {
        let conflicts =
            |(by, other): (&SessionNo, &Mode)| *by != session && (mode == Mode::Exclusive || *other == Mode::Exclusive);
        if self.row_locks.iter().any(conflicts) {
            return false;
        }
        let held = self.row_locks.entry(session).or_insert(mode);
        if mode == Mode::Exclusive {
            *held = mode;
        }
        true
    }

    pub(super) fn begin(&mut self, session: SessionNo) {
        self.session(session).in_transaction = true;
    }

    /// Changes something at the COMMIT of the session's transaction.
    pub(super) fn write(&mut self, session: SessionNo, write: impl FnOnce(&mut Self) + Send + 'static) {
        self.session(session).writes.push(Box::new(write));
    }

    /// As soon as the standby has it.
    pub(super) fn try_commit(&mut self, session: SessionNo) -> Progress<()> {
        if self.standby_is_away {
            return Progress::Waits;
        }
        self.commit(session);
        Progress::Done(())
    }

    fn commit(&mut self, session: SessionNo) {
        let writes = std::mem::take(&mut self.session(session).writes);
        self.version += 1;
        writes.into_iter().for_each(|write| write(self));
        self.end_transaction(session);
    }

    pub(super) fn end_transaction(&mut self, session: SessionNo) {
        let state = self.session(session);
        (state.in_transaction, state.writes) = (false, Vec::new());
        self.row_locks.remove(&session);
        self.unlock_lease(session);
    }

    pub(super) fn try_lock_lease(&mut self, session: SessionNo) -> bool {
        *self.lease_locked_by.get_or_insert(session) == session
    }

    pub(super) fn unlock_lease(&mut self, session: SessionNo) {
        self.lease_locked_by.take_if(|by| *by == session);
    }

    pub(super) fn extend_lease(&mut self, millis: u64) {
        self.lease.until = self.now + millis;
        self.lease.beat += 1;
    }

    /// Above the row's and what was `seen` (R17).
    pub(super) fn next_tenure(&self, seen: Tenure) -> Tenure {
        let next = self.tenure().next_above(seen);
        match self.weakness {
            Some(Weakness::TermStays) => Tenure { term: self.tenure().term, ..next },
            _ => next,
        }
    }

    /// Where it is in its history (R21).
    pub(super) fn history(&self) -> History {
        let (timeline, position) = match self.weakness {
            Some(Weakness::HistoryIgnored) => (0, 0),
            _ => (self.timeline, self.version),
        };
        History { identity: timeline.to_string(), position }
    }

    /// What a reader sees.
    pub(super) fn readable(&self) -> &Rows {
        match self.weakness {
            Some(Weakness::ReadsFromReplica) => &self.replica,
            _ => &self.rows,
        }
    }

    /// How far a COMMIT's wait for the standby is.
    pub(super) fn wait_for_standby(&mut self) -> Wait {
        if !self.standby_is_away {
            return Wait::Over;
        }
        let Some(one_less) = self.cancels.checked_sub(1) else { return Wait::GoesOn };
        self.cancels = one_less;
        if self.standby.is_none() {
            self.standby = Some(Box::new(self.state()));
        }
        Wait::Cancelled
    }

    fn state(&self) -> State {
        State {
            rows: self.rows.clone(),
            baton: self.baton.clone(),
            ever: self.ever.clone(),
            take_overs: self.take_overs.clone(),
            version: self.version,
            born: self.born.clone(),
        }
    }

    /// Somebody's tenure begins, over the session that holds the lock.
    pub(super) fn take_over(&mut self, holder: HolderId, tenure: Tenure, session: SessionNo) {
        let last = &self.baton;
        let was_silent = last.lock_session.is_some_and(|session| self.silent.contains(&session));
        self.take_overs.push(TakeOver { tenure, was_foreseen: last.released || was_silent });
        self.baton = Baton { holder: Some(holder), released: false, lock_session: Some(session), writer_session: None };
        self.rows.catalog.tenure = tenure;
        self.lease.token = tenure.token;
    }

    pub(super) fn set_idle_max(&mut self, session: SessionNo, millis: u64) {
        self.session(session).idle_max = Some(millis);
    }

    /// A batch becomes durable. It does not see what was inserted after its snapshot, nor what it inserts itself.
    pub(super) fn commit_batch(&mut self, batch: &Batch, snapshot: u64) {
        self.version += 1;
        for op in &batch.ops {
            match op {
                Op::Settle { sequence, .. } | Op::Return { sequence, .. }
                    if self.born.get(sequence).is_none_or(|born| *born > snapshot) => {}
                Op::Insert(stored) => {
                    self.rows.apply(op);
                    self.born.insert(stored.sequence, self.version);
                    self.ever.insert(stored.message.id.to_string());
                }
                _ => self.rows.apply(op),
            }
        }
        self.rows.check(&batch.ops);
        if self.weakness == Some(Weakness::ReadsFromReplica) && self.version.is_multiple_of(REPLICA_LAG) {
            self.replica = self.rows.clone();
        }
    }

    /// Ends a session; its client will hear of it.
    pub(super) fn end_session(&mut self, no: SessionNo) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        session.is_over = true;
        session.writes.clear();
        if session.client_left.is_some() {
            self.sessions.remove(&no);
        }
        self.row_locks.remove(&no);
        self.unlock(no);
        self.unlock_lease(no);
    }

    fn session(&mut self, no: SessionNo) -> &mut Session {
        self.sessions.get_mut(&no).expect("whoever runs has a session")
    }
}

/// What the world does.
impl Server {
    /// Time has passed.
    pub(super) fn advance(&mut self, now: u64) {
        self.now = now;
        let since = |at: Option<u64>, millis: u64| at.is_some_and(|at| now - at > millis);
        let is_silent = |session: &Session| {
            let runs = session.statements.front().is_some_and(|statement| statement.phase == Phase::Running);
            let idle_in_transaction = session.in_transaction.then_some(IDLE_IN_TRANSACTION_MAX);
            let max = session.idle_max.into_iter().chain(idle_in_transaction).min();
            let is_idle = !runs && max.is_some_and(|max| now - session.heard > max);
            let has_left = runs && session.cut.is_none() && since(session.client_left, LEFT_NOTICED_AFTER);
            !session.is_over && (is_idle || has_left || since(session.cut, CUT_NOTICED_AFTER))
        };
        let silent = self.sessions.iter().filter(|(_, session)| is_silent(session)).map(|(no, _)| *no);
        for no in silent.collect::<Vec<_>>() {
            self.silent.insert(no);
            self.end_session(no);
        }
    }

    /// The sessions in which something can happen.
    pub(super) fn busy(&self) -> Vec<SessionNo> {
        let is_busy = |session: &Session| {
            let runs = session.statements.front().is_some_and(|statement| statement.phase == Phase::Running);
            let has_news = session.is_over || session.client_left.is_some() || !session.statements.is_empty();
            let talks = session.cut.is_none() && has_news && !(session.is_over && session.over.is_cancelled());
            session.stalled_until <= self.now && ((runs && !session.is_over) || talks)
        };
        let is_halted = |no: SessionNo| self.halted == Some((no, 0));
        let busy = self.sessions.iter().filter(|(no, session)| is_busy(session) && !is_halted(**no));
        busy.map(|(no, _)| *no).collect()
    }

    /// The sessions of a process, or of all.
    pub(super) fn sessions_of(&self, process: Option<usize>) -> Vec<SessionNo> {
        let of = |session: &Session| !session.is_over && process.is_none_or(|process| session.process == process);
        self.sessions.iter().filter(|(_, session)| of(session)).map(|(no, _)| *no).collect()
    }

    /// Something happens in a session.
    pub(super) fn step(&mut self, no: SessionNo) {
        let now = self.now;
        if let Some((halted, left)) = &mut self.halted
            && *halted == no
        {
            let Some(one_less) = left.checked_sub(1) else { return };
            *left = one_less;
        }
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if session.is_over {
            session.over.cancel();
            session.statements.clear(); // who waits for an answer hears that there will be none
            return;
        }
        let Some(mut statement) = session.statements.pop_front() else {
            if session.client_left.is_some() {
                self.end_session(no);
            }
            return;
        };
        match statement.phase {
            Phase::OnItsWay => statement.phase = Phase::Running,
            Phase::Running => {
                let (goes_on, is_done) = statement.work.step(self, no);
                if is_done {
                    statement.phase = Phase::Answered;
                }
                if !goes_on {
                    return self.take_back(no, statement);
                }
            }
            Phase::Answered => return statement.work.answer(),
        }
        if let Some(session) = self.sessions.get_mut(&no) {
            session.heard = now;
        }
        self.take_back(no, statement);
    }

    fn take_back(&mut self, no: SessionNo, statement: Statement) {
        if let Some(session) = self.sessions.get_mut(&no) {
            session.statements.push_front(statement);
        }
    }

    /// Lets a session go only so many steps further, until it may go on.
    pub(super) fn halt(&mut self, no: SessionNo, steps: usize) {
        self.halted = Some((no, steps));
    }

    pub(super) fn go_on(&mut self) {
        self.halted = None;
    }

    /// Whether it has been asked for something and nothing was done.
    pub(super) fn is_asked(&self, no: SessionNo) -> bool {
        let statement = self.sessions.get(&no).and_then(|session| session.statements.front());
        statement.is_some_and(|statement| statement.phase == Phase::OnItsWay)
    }

    pub(super) fn process_of(&self, no: SessionNo) -> usize {
        self.sessions[&no].process
    }

    /// The session that the row names as the one with the lock.
    pub(super) fn end_lock_session(&mut self) {
        self.baton.lock_session.into_iter().for_each(|session| self.end_session(session));
    }

    /// A statement takes its time: a disk, a lock of somebody else's, a server that is busy.
    pub(super) fn stall(&mut self, no: SessionNo, millis: u64) {
        if let Some(session) = self.sessions.get_mut(&no) {
            session.stalled_until = self.now + millis;
        }
    }

    /// Nothing passes any more between a session and its client.
    pub(super) fn cut(&mut self, no: SessionNo) {
        if let Some(session) = self.sessions.get_mut(&no) {
            session.cut = Some(self.now);
        }
    }

    /// The client hears that a connection is gone, and the server does not: what was asked for is done, some time.
    pub(super) fn lose(&mut self, no: SessionNo, millis: u64) {
        if let Some(session) = self.sessions.get_mut(&no) {
            session.statements.iter_mut().for_each(|statement| statement.work.forget());
            session.over.cancel();
            session.stalled_until = self.now + millis;
        }
    }

    /// The standby is back, and gets what it lacks.
    pub(super) fn standby_returns(&mut self) {
        (self.standby_is_away, self.standby) = (false, None);
    }

    /// The standby is the database from now on.
    pub(super) fn fail_over(&mut self) {
        if let Some(standby) = self.standby.take() {
            self.turn_back(*standby);
        }
        self.timeline += 1;
        self.standby_returns();
        self.restart();
    }

    /// Somebody takes a copy.
    pub(super) fn back_up(&mut self) {
        self.backup = Some(Box::new(self.state()));
    }

    /// The copy is the database from now on. `false`: there is none.
    pub(super) fn put_back(&mut self) -> bool {
        let Some(backup) = self.backup.take() else { return false };
        self.turn_back(*backup);
        self.timeline += 1;
        self.standby_returns();
        self.restart();
        true
    }

    fn turn_back(&mut self, state: State) {
        let State { rows, baton, ever, take_overs, version, born } = state;
        (self.rows, self.baton, self.ever, self.take_overs) = (rows, baton, ever, take_overs);
        (self.version, self.born) = (version, born);
    }

    /// Every session ends, and what was not committed is gone.
    pub(super) fn restart(&mut self) {
        for no in self.sessions_of(None) {
            self.end_session(no);
        }
    }

    fn begin_session(&mut self, process: usize, idle_max: Option<u64>) -> (SessionNo, CancellationToken) {
        self.last_session += 1;
        let over = CancellationToken::new();
        let session = Session {
            process,
            idle_max,
            heard: self.now,
            in_transaction: false,
            writes: Vec::new(),
            statements: VecDeque::new(),
            client_left: None,
            stalled_until: 0,
            cut: None,
            is_over: false,
            over: over.clone(),
        };
        self.sessions.insert(self.last_session, session);
        (self.last_session, over)
    }

    fn send(&mut self, no: SessionNo, statement: Statement) {
        if let Some(session) = self.sessions.get_mut(&no).filter(|session| !session.over.is_cancelled()) {
            session.statements.push_back(statement);
        }
    }

    fn client_leaves(&mut self, no: SessionNo) {
        if let Some(session) = self.sessions.get_mut(&no) {
            session.client_left = Some(self.now);
            if session.is_over {
                self.sessions.remove(&no);
            }
        }
    }
}
