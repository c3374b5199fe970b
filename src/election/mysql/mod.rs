//! The election on MySQL and MariaDB: what can be asked over a connection to it.
//!
//! Always true: a take-over and a release are one transaction. The server ends each of these sessions when it hears nothing
//! for a lease, in a transaction too; while one may hold the lock it is pinged often, so that its end is noticed: the
//! protocol tells nobody.
//! Nothing is ever cancelled: whoever gives up drops the connection.

mod statements;

use std::{sync::Arc, time::Duration};

use mysql_async::{Error, Params, Row, prelude::FromRow};

use self::statements::Texts;
use super::{
    BrokerSeen, HolderId, LOCK_PURPOSE, Lease, LockError, Survey, TenureSeen,
    database::{BatonRow, Namesake, Purpose},
    line::{Election, LeaseRow, Line},
};
use crate::{
    db::{
        ConnectError, SchemaError, Text, big,
        mysql::{Answer, Mysql, QueuedSession, cause, is_altered, is_missing, schema},
        number,
    },
    tasks::Tasks,
    types::{FencingToken, Group, History, Tenure, Term},
};

/// A holder whose session was ended hears of it after this; it tries to get the lock back as often.
const LISTEN_EVERY: Duration = Duration::from_millis(100);

/// Somebody held a row for too long.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// Two waited for each other, or wrote the same on two servers of a cluster (at the COMMIT, too); the transaction is
/// rolled back.
const DEADLOCK: u16 = 1213;

/// There is no such session: it ended by itself.
const NO_SUCH_SESSION: u16 = 1094;

/// A hundred years: nothing of ours is older.
const UPTIME_SECONDS_MAX: u64 = 100 * 366 * 24 * 60 * 60;

/// A group in a MySQL or MariaDB database. Clones share it.
#[derive(Clone, Debug)]
pub struct MysqlElection {
    mysql: Mysql,
    group: Group,
    lease: Lease,
    lock: Arc<str>,
    texts: Arc<Texts>,
}

impl MysqlElection {
    /// The election of `group`; nothing is connected yet.
    #[must_use]
    pub fn new(mysql: Mysql, group: Group, lease: Lease) -> Self {
        let (lock, texts) = (mysql.lock_name(LOCK_PURPOSE, &group).into(), Arc::new(Texts::new(&group)));
        Self { mysql, group, lease, lock, texts }
    }

    async fn open(&self, shown: &str, listens: Option<Duration>) -> Result<MysqlLine, LockError> {
        let session = self.mysql.connect(shown).await?;
        let is_clustered = session.server().is_clustered();
        let (session, driver) = session.queued(listens);
        let tasks = Tasks::new();
        tasks.spawn("lock session", driver.run());
        let line = MysqlLine { election: self.clone(), session, tasks, is_clustered, mark: None };
        let seconds = self.lease.length().as_secs_f64().ceil();
        // MariaDB has a limit of its own for a session within a transaction; see sql/mysql/session.sql for the comment.
        let set = format!("SET SESSION wait_timeout = {seconds} /*M! , idle_transaction_timeout = {seconds} */");
        line.control("set the lease", &set).await?;
        Ok(line)
    }

    fn lease_millis(&self) -> u64 {
        u64::try_from(self.lease.length().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Election for MysqlElection {
    type Line = MysqlLine;

    async fn connect(&self, purpose: Purpose) -> Result<MysqlLine, LockError> {
        self.open(purpose.shown(), (purpose == Purpose::Lock).then_some(LISTEN_EVERY)).await
    }

    fn lease(&self) -> Lease {
        self.lease
    }

    fn what(&self) -> String {
        format!("the baton of group {} in {}", self.group, self.mysql.address())
    }
}

/// A connection.
#[derive(Debug)]
pub struct MysqlLine {
    election: MysqlElection,
    session: QueuedSession,
    /// Drives the connection.
    tasks: Tasks,
    is_clustered: bool,
    /// The name of a lock that this session holds, and no other ever will: so it is known again (R19).
    mark: Option<String>,
}

impl Drop for MysqlLine {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl Line for MysqlLine {
    async fn closed(&self) {
        self.session.closed().await;
    }

    fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    async fn look(&self) -> Result<Option<BatonRow>, LockError> {
        Ok(self.row_if_there(&self.texts().look, ()).await?.map(baton_row))
    }

    async fn migrate(&self) -> Result<(), LockError> {
        let MysqlElection { mysql, group, .. } = &self.election;
        let mut session = mysql.connect("migrate").await?;
        for version in schema::migrate(mysql, &mut session, group).await? {
            tracing::info!("the tables of group {group} were brought to version {version}");
        }
        Ok(())
    }

    async fn is_migrating(&self) -> Result<bool, LockError> {
        let MysqlElection { mysql, group, .. } = &self.election;
        Ok(schema::is_migrating(mysql, &mut mysql.connect("take-over").await?, group).await?)
    }

    async fn prepare_to_hold(&mut self) -> Result<(), LockError> {
        if self.is_clustered {
            return Err(self.without_locks().into());
        }
        let action = "mark the session";
        let mark = self.row(action, "SELECT CONCAT('batonmq lock ', UUID())", ()).await?;
        let (mark,): (String,) = mark.ok_or_else(|| nothing(action))?;
        self.row::<(Option<i64>,)>(action, "SELECT GET_LOCK(?, 0)", (&mark,)).await?;
        self.mark = Some(mark);
        Ok(())
    }

    /// MySQL waits for full seconds only.
    async fn lock(&self, patience: Duration) -> Result<bool, LockError> {
        let with = (&*self.election.lock, patience.as_secs_f64().ceil());
        let got: Option<(Option<i64>,)> = self.row("wait for the lock", "SELECT GET_LOCK(?, ?)", with).await?;
        Ok(matches!(got, Some((Some(1),))))
    }

    async fn unlock(&self) -> Result<(), LockError> {
        let unlock = self.session.ask("DO RELEASE_LOCK(?)", (&*self.election.lock,)).await;
        unlock.map(drop).map_err(|error| database("give the lock back", error))
    }

    async fn end_own_lock(&self, me: &HolderId) -> Result<(), LockError> {
        let own = self.rows(&self.texts().own_lock, (&*me.instance,)).await?;
        self.end(own).await.map(drop)
    }

    async fn end_sessions(&self, within: Option<Term>) -> Result<usize, LockError> {
        let line = self.election.open("take-over", None).await?;
        let term = within.map_or(u32::MAX, |term| term.0);
        let sessions = line.rows(&line.texts().sessions, (term, term)).await?;
        line.end(sessions).await
    }

    async fn look_at_lease(&self) -> Result<Option<LeaseRow>, LockError> {
        let row = self.row_if_there(&self.texts().lease, ()).await?;
        Ok(row.map(|(is_over, beat)| LeaseRow { is_over, beat }))
    }

    async fn renew_lease(&self, tenure: Tenure) -> Result<bool, LockError> {
        let with = (self.election.lease_millis(), big(tenure.token.0));
        Ok(self.execute(&self.texts().renew_lease, with).await? > 0)
    }

    async fn begin(&self) -> Result<(), LockError> {
        self.control("begin", "START TRANSACTION").await
    }

    async fn commit(&self) -> Result<(), LockError> {
        self.control("commit", "COMMIT").await
    }

    async fn rollback(&self) -> Result<(), LockError> {
        self.control("rollback", "ROLLBACK").await
    }

    /// Waits until it is given up: the server's own limit is told by a clock that may be set meanwhile.
    async fn hold_row(&self) -> Result<(), LockError> {
        let hold = &self.texts().hold_baton;
        loop {
            match self.session.ask(&hold.sql, ()).await {
                Err(Error::Server(error)) if error.code == LOCK_WAIT_TIMEOUT => {}
                held => return held.map(drop).map_err(|error| self.failed(hold, error)),
            }
        }
    }

    async fn take_lease(&self, unchanged: Option<i64>) -> Result<bool, LockError> {
        let take = &self.texts().take_lease;
        match self.session.ask(&take.sql, (self.election.lease_millis(), unchanged)).await {
            // Somebody else is taking it; how long one waits for that is told by a clock that may be set meanwhile.
            Err(Error::Server(error)) if [LOCK_WAIT_TIMEOUT, DEADLOCK].contains(&error.code) => Ok(false),
            taken => Ok(taken.map_err(|error| self.failed(take, error))?.affected > 0),
        }
    }

    async fn end_lease(&self, tenure: Tenure) -> Result<(), LockError> {
        self.execute(&self.texts().end_lease, (big(tenure.token.0),)).await.map(drop)
    }

    async fn raise(&self, me: &HolderId, seen: Tenure) -> Result<Tenure, LockError> {
        let (texts, uptime) = (self.texts(), self.uptime_seconds().await?);
        let with = (seen.term.0, big(seen.token.0), &*me.broker, &*me.instance, self.mark.as_deref());
        self.execute(&texts.take_over, with).await?;
        let taken = self.rows(&texts.taken, ()).await?.pop();
        let (term, token) = taken.ok_or_else(|| nothing(texts.taken.name))?;
        self.execute(&texts.own_lease, ()).await?;
        let with = (&*me.instance, uptime, uptime, self.election.lease_millis());
        self.execute(&texts.close_tenures, with).await?;
        self.execute(&texts.begin_tenure, ()).await?;
        Ok(tenure(term, token))
    }

    async fn hold(&self, me: &HolderId) -> Result<bool, LockError> {
        Ok(self.execute(&self.texts().hold_lock, (self.mark.as_deref(), &*me.instance)).await? > 0)
    }

    async fn release(&self, me: &HolderId, why: &str) -> Result<(), LockError> {
        if self.execute(&self.texts().release, (&*me.instance,)).await? > 0 {
            self.execute(&self.texts().end_tenure, (why, &*me.instance)).await?;
        }
        Ok(())
    }

    async fn sign(&self, me: &HolderId, role: &str, addresses: &str) -> Result<Vec<Namesake>, LockError> {
        let (sign, me) = (&self.texts().sign, (&*me.instance, &*me.broker));
        match self.session.ask(&sign.sql, (me.0, me.1, role, addresses)).await {
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            signed => signed.map_err(|error| self.failed(sign, error))?,
        };
        self.execute(&self.texts().forget, me).await?;
        let others = self.rows(&self.texts().namesakes, (me.1, me.0)).await?;
        let namesake = |(instance, addresses, seen)| Namesake { instance, addresses, seen };
        Ok(others.into_iter().map(namesake).collect())
    }

    async fn leave(&self, me: &HolderId) -> Result<(), LockError> {
        self.execute(&self.texts().leave, (&*me.instance,)).await.map(drop)
    }

    async fn survey(&self) -> Result<Option<Survey>, LockError> {
        let texts = self.texts();
        let baton: Option<SurveyRow> = self.row_if_there(&texts.survey_baton, (&*self.election.lock,)).await?;
        let Some((term, token, holder, instance, released, is_locked, held_for_ms, lease_left_ms)) = baton else {
            return Ok(None);
        };
        let brokers = self.rows(&texts.survey_brokers, ()).await?;
        let tenures = self.rows(&texts.survey_tenures, ()).await?;
        Ok(Some(Survey {
            term,
            token: number(token),
            holder,
            instance,
            released,
            held: is_locked || lease_left_ms.is_some_and(|left| left > 0),
            held_for_ms,
            lease_left_ms,
            brokers: brokers.into_iter().map(broker_seen).collect(),
            tenures: tenures.into_iter().map(tenure_seen).collect(),
        }))
    }
}

impl MysqlLine {
    fn texts(&self) -> &Texts {
        &self.election.texts
    }

    /// Each server of a cluster has session locks of its own, so that each would have a master.
    fn without_locks(&self) -> ConnectError {
        let problem = "it is a Galera cluster, and a session lock is known to one of its nodes only".to_owned();
        let fix = "set election.strategy to \"lease\"";
        ConnectError::Unfit { address: self.election.mysql.address().to_owned(), problem, fix }
    }

    /// For how long the server runs, by its clock; no SELECT tells it on both databases. If that was set back to before
    /// the start, the server shows what is below zero as a number beyond all dates.
    async fn uptime_seconds(&self) -> Result<u64, LockError> {
        let action = "ask for the uptime";
        let uptime: Option<(String, u64)> = self.row(action, "SHOW GLOBAL STATUS LIKE 'Uptime'", ()).await?;
        uptime.map(|(_, seconds)| seconds.min(UPTIME_SECONDS_MAX)).ok_or_else(|| nothing(action))
    }

    /// Ends sessions of this user; how many there were.
    async fn end(&self, sessions: Vec<(i64,)>) -> Result<usize, LockError> {
        for (session,) in &sessions {
            match self.session.ask(&format!("KILL {session}"), ()).await {
                Err(Error::Server(error)) if error.code == NO_SUCH_SESSION => {}
                killed => killed.map(drop).map_err(|error| database("end a session", error))?,
            }
        }
        Ok(sessions.len())
    }

    /// The row of a statement that answers one. None if the tables are missing, too.
    async fn row_if_there<R: FromRow>(&self, text: &Text, with: impl Into<Params>) -> Result<Option<R>, LockError> {
        match self.session.ask(&text.sql, with).await {
            Err(error) if is_missing(&error) => Ok(None),
            answered => first(text.name, answered.map_err(|error| self.failed(text, error))?),
        }
    }

    async fn rows<R: FromRow>(&self, text: &Text, with: impl Into<Params>) -> Result<Vec<R>, LockError> {
        let answer = self.session.ask(&text.sql, with).await.map_err(|error| self.failed(text, error))?;
        answer.rows.into_iter().map(|row| read(text.name, row)).collect()
    }

    /// How many rows it found to change.
    async fn execute(&self, text: &Text, with: impl Into<Params>) -> Result<u64, LockError> {
        let answer = self.session.ask(&text.sql, with).await.map_err(|error| self.failed(text, error))?;
        Ok(answer.affected)
    }

    /// The row that a statement answers which needs no table.
    async fn row<R: FromRow>(
        &self,
        action: &'static str,
        sql: &str,
        with: impl Into<Params>,
    ) -> Result<Option<R>, LockError> {
        first(action, self.session.ask(sql, with).await.map_err(|error| database(action, error))?)
    }

    async fn control(&self, action: &'static str, statement: &str) -> Result<(), LockError> {
        self.session.ask(statement, ()).await.map(drop).map_err(|error| database(action, error))
    }

    fn failed(&self, text: &Text, error: Error) -> LockError {
        match &error {
            Error::Server(said) if is_altered(said) => {
                let (group, statement) = (self.election.group.clone(), text.name);
                SchemaError::Altered { group, statement, source: cause(error) }.into()
            }
            _ => database(text.name, error),
        }
    }
}

/// The columns of `look.sql`.
type LookRow = (u32, i64, i64, Option<String>, Option<String>, bool);

/// The columns of `survey_baton.sql`.
type SurveyRow = (u32, i64, Option<String>, Option<String>, bool, bool, Option<i64>, Option<i64>);

/// The columns of `survey_tenures.sql`.
type TenureRow = (u32, i64, String, String, Option<String>, Option<String>);

/// The number of the last transaction that wrote is all there is to tell one history from another; the store knows better
/// still, because it knows which numbers were confirmed (R21).
fn baton_row((term, token, batch, holder, instance, released): LookRow) -> BatonRow {
    let holder = holder.zip(instance);
    let holder = holder.map(|(broker, instance)| HolderId { broker: broker.into(), instance: instance.into() });
    let history = History { identity: String::new(), position: number(batch) };
    BatonRow { tenure: tenure(term, token), holder, released, history }
}

fn tenure(term: u32, token: i64) -> Tenure {
    Tenure { term: Term(term), token: FencingToken(number(token)) }
}

fn broker_seen((name, instance, role, addresses, seen_ms_ago): (String, String, String, String, i64)) -> BrokerSeen {
    BrokerSeen { name, instance, role, addresses, seen_ms_ago }
}

fn tenure_seen((term, token, broker, began, ended, reason): TenureRow) -> TenureSeen {
    TenureSeen { term, token: number(token), broker, began, ended, reason }
}

fn first<R: FromRow>(action: &'static str, answer: Answer) -> Result<Option<R>, LockError> {
    answer.rows.into_iter().next().map(|row| read(action, row)).transpose()
}

fn read<R: FromRow>(action: &'static str, row: Row) -> Result<R, LockError> {
    let unreadable = |_| LockError::Database { action, source: "the answer has other columns than it should".into() };
    R::from_row_opt(row).map_err(unreadable)
}

fn database(action: &'static str, error: Error) -> LockError {
    match &error {
        Error::Server(said) if said.code == DEADLOCK => LockError::Outrun { source: cause(error) },
        _ => LockError::Database { action, source: cause(error) },
    }
}

fn nothing(action: &'static str) -> LockError {
    LockError::Database { action, source: "there is no answer".into() }
}
