//! The election on PostgreSQL: the connection that waits, holds and tells.
//!
//! `session_lock.rs` elects by an advisory lock, which a session holds as long as it lives; `lease.rs` by a row alone,
//! for where sessions mean nothing. What the two have in common is here.
//! Always true: a take-over and a release are one transaction, and a WARNING at its end is no confirmation (R16).
//! Nothing is ever cancelled: whoever gives up drops the connection.

mod lease;
mod own_sessions;
mod session_lock;
mod statements;

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::timeout;
use tokio_postgres::{
    Error, Row,
    error::SqlState,
    types::{FromSqlOwned, ToSql},
};
use tokio_util::sync::CancellationToken;

use self::statements::{Text, Texts};
use super::{
    BrokerSeen, HolderId, Lease, LockError, Survey, TenureSeen,
    database::{BatonRow, History, Namesake, Purpose},
};
use crate::{
    db::{
        SchemaError, lock_key,
        postgres::{Postgres, Session, schema},
    },
    tasks::Tasks,
    types::{FencingToken, Group, Tenure, Term},
};

pub use lease::{LeaseSession, LeaseTable};
pub use own_sessions::require_own_sessions;
pub use session_lock::{SessionLock, SessionLockSession};

/// How long a take-over waits for what is being written, before it ends the sessions that the row names (R19).
const ROW_PATIENCE: Duration = Duration::from_millis(500);

/// How often it waits so long before it gives up.
const ROW_ATTEMPTS: u32 = 4;

/// A group in a PostgreSQL database. Clones share it.
#[derive(Clone, Debug)]
pub struct PostgresElection {
    postgres: Postgres,
    group: Group,
    lease: Lease,
    texts: Arc<Texts>,
    /// Set when it is known; that does not change while a broker runs.
    own_sessions: Arc<OnceLock<()>>,
}

impl PostgresElection {
    /// The election of `group`; nothing is connected yet.
    #[must_use]
    pub fn new(postgres: Postgres, group: Group, lease: Lease) -> Self {
        let texts = Arc::new(Texts::new(&group));
        Self { postgres, group, lease, texts, own_sessions: Arc::default() }
    }

    async fn require_own_sessions(&self) -> Result<(), LockError> {
        if self.own_sessions.get().is_none() {
            require_own_sessions(&self.postgres).await?;
            self.own_sessions.get_or_init(|| ());
        }
        Ok(())
    }

    fn what(&self) -> String {
        format!("the baton of group {} in {}", self.group, self.postgres.address())
    }

    /// A standby must not find out at its take-over that sessions are not its own: locks and the store's writes are.
    async fn connect(&self, purpose: Purpose) -> Result<Line, LockError> {
        if purpose == Purpose::Lock {
            self.require_own_sessions().await?;
        }
        let (session, driver) = self.postgres.connect(shown(purpose)).await?;
        let (tasks, ended) = (Tasks::new(), CancellationToken::new());
        let end = ended.clone().drop_guard();
        tasks.spawn("lock session", async move {
            driver.run().await;
            drop(end);
        });
        let (group, texts) = (self.group.clone(), Arc::clone(&self.texts));
        Ok(Line { session, group, lease: self.lease, texts, tasks, ended })
    }
}

/// One connection, and what can be asked over it whatever the strategy.
#[derive(Debug)]
struct Line {
    session: Session,
    group: Group,
    lease: Lease,
    texts: Arc<Texts>,
    /// Drives the connection.
    tasks: Tasks,
    ended: CancellationToken,
}

/// The connection ends at once, whatever is under way: that is how a broker in doubt lets go.
impl Drop for Line {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl Line {
    fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.ended.clone().cancelled_owned()
    }

    fn is_closed(&self) -> bool {
        self.ended.is_cancelled()
    }

    async fn look(&self) -> Result<Option<BatonRow>, LockError> {
        let row = self.query_opt(&self.texts.look, &[]).await?;
        Ok(row.as_ref().map(baton_row))
    }

    /// What `attempt` answers, tried again after the sessions that the row names were ended, if it took too long to get
    /// the row (R19); whoever goes on in a term, `within`, ends nobody's that took over.
    async fn with_the_row<T, F>(&self, within: Option<Tenure>, mut attempt: impl FnMut() -> F) -> Result<T, LockError>
    where
        F: Future<Output = Result<T, TxError>>,
    {
        for _ in 0..ROW_ATTEMPTS {
            let begin = format!("BEGIN; SET LOCAL lock_timeout = {}", ROW_PATIENCE.as_millis());
            self.control("begin", &begin).await?;
            self.forget_warnings();
            match attempt().await {
                Ok(answer) => {
                    self.commit().await?;
                    return Ok(answer);
                }
                Err(TxError::RowIsHeld) => {
                    self.control("rollback", "ROLLBACK").await?;
                    let ended =
                        self.query(&self.texts.end_sessions, &[&within.map(|tenure| integer(tenure.term))]).await?;
                    tracing::warn!(ended = ended.len(), "the row of the baton is held; its sessions were told to end");
                }
                Err(TxError::Failed(error)) => {
                    self.control("rollback", "ROLLBACK").await?;
                    return Err(error);
                }
            }
        }
        Err(LockError::Stuck)
    }

    /// Of a session that was to be ended, and had ended: it says nothing about what is asked for next (R16).
    fn forget_warnings(&self) {
        if let Some(warning) = self.session.take_warning() {
            tracing::debug!("the database warned: {warning}");
        }
    }

    async fn commit(&self) -> Result<(), LockError> {
        self.control("commit", "COMMIT").await?;
        match self.session.take_warning() {
            Some(warning) => Err(LockError::Database { action: "commit", source: warning.into() }),
            None => Ok(()),
        }
    }

    /// Within a transaction: the tenure above the row's and `seen`.
    async fn raise(&self, me: &HolderId, seen: Tenure) -> Result<Tenure, TxError> {
        let (term, token) = (integer(seen.term), big(seen.token.0));
        let lease = self.lease_millis();
        let parameters: [&(dyn ToSql + Sync); 5] = [&&*me.broker, &&*me.instance, &term, &token, &lease];
        let text = &self.texts.take_over;
        let answer = self.in_time(text.name, self.session.query_one(&text.sql, &parameters)).await?;
        Ok(tenure(&answer.map_err(|error| self.in_tx(text, error))?))
    }

    /// Within a transaction; how many rows.
    async fn execute_in_tx(&self, text: &Text, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, TxError> {
        let answer = self.in_time(text.name, self.session.execute(&text.sql, parameters)).await?;
        answer.map_err(|error| self.in_tx(text, error))
    }

    /// Makes the tables: only the winner gets here.
    async fn migrate(&self) -> Result<(), LockError> {
        for version in schema::migrate(&self.session, &self.group).await? {
            tracing::info!("the tables of group {} were brought to version {version}", self.group);
        }
        Ok(())
    }

    async fn sign(&self, me: &HolderId, role: &str, addresses: &str) -> Result<Vec<Namesake>, LockError> {
        let sign = &self.texts.sign;
        let parameters: [&(dyn ToSql + Sync); 4] = [&&*me.instance, &&*me.broker, &role, &addresses];
        match self.in_time(sign.name, self.session.execute(&sign.sql, &parameters)).await? {
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            signed => signed.map_err(|error| self.failed(sign, error))?,
        };
        let rows = self.query(&self.texts.namesakes, &[&&*me.broker, &&*me.instance]).await?;
        Ok(rows.iter().map(namesake).collect())
    }

    async fn leave(&self, me: &HolderId) -> Result<(), LockError> {
        self.query(&self.texts.leave, &[&&*me.instance]).await.map(drop)
    }

    async fn survey(&self) -> Result<Option<Survey>, LockError> {
        let key = lock_key(LOCK_PURPOSE, &self.group);
        let Some(baton) = self.query_opt(&self.texts.survey_baton, &[&key]).await? else { return Ok(None) };
        let brokers = self.query(&self.texts.survey_brokers, &[]).await?;
        let tenures = self.query(&self.texts.survey_tenures, &[]).await?;
        let lease_left_ms: Option<i64> = baton.get("lease_left_ms");
        let Tenure { term, token } = tenure(&baton);
        Ok(Some(Survey {
            term: term.0,
            token: token.0,
            holder: baton.get("holder"),
            instance: baton.get("instance"),
            released: baton.get("released"),
            held: baton.get::<_, bool>("is_locked") || lease_left_ms.is_some_and(|left| left > 0),
            held_for_ms: baton.get("held_for_ms"),
            lease_left_ms,
            brokers: brokers.iter().map(broker_seen).collect(),
            tenures: tenures.iter().map(tenure_seen).collect(),
        }))
    }

    /// No row if the tables are missing, too.
    async fn query_opt(&self, text: &Text, parameters: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, LockError> {
        match self.in_time(text.name, self.session.query_opt(&text.sql, parameters)).await? {
            Err(error) if is_missing(&error) => Ok(None),
            answered => answered.map_err(|error| self.failed(text, error)),
        }
    }

    async fn query(&self, text: &Text, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, LockError> {
        let answer = self.in_time(text.name, self.session.query(&text.sql, parameters)).await?;
        answer.map_err(|error| self.failed(text, error))
    }

    async fn scalar<T: FromSqlOwned>(&self, action: &'static str, sql: &str, key: i64) -> Result<T, LockError> {
        let answer = self.in_time(action, self.session.query_one_scalar(sql, &[&key])).await?;
        answer.map_err(|error| LockError::Database { action, source: error.into() })
    }

    async fn control(&self, action: &'static str, statements: &str) -> Result<(), LockError> {
        let answer = self.in_time(action, self.session.batch_execute(statements)).await?;
        answer.map_err(|error| LockError::Database { action, source: error.into() })
    }

    /// Whoever says nothing for a lease is given up, and the connection with it.
    async fn in_time<T>(&self, action: &'static str, answer: impl Future<Output = T>) -> Result<T, LockError> {
        let answer = timeout(self.lease.length(), answer).await;
        answer.map_err(|late| LockError::Database { action, source: late.into() })
    }

    fn lease_millis(&self) -> f64 {
        self.lease.length().as_secs_f64() * 1_000.0
    }

    fn in_tx(&self, text: &Text, error: Error) -> TxError {
        if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return TxError::RowIsHeld;
        }
        TxError::Failed(self.failed(text, error))
    }

    fn failed(&self, text: &Text, error: Error) -> LockError {
        let is_altered =
            error.code().is_some_and(|code| code.code().starts_with("42") || code.code().starts_with("3F"));
        if is_altered {
            let (group, statement) = (self.group.clone(), text.name);
            return SchemaError::Altered { group, statement, source: error.into() }.into();
        }
        LockError::Database { action: text.name, source: error.into() }
    }
}

/// Of the key of a group's lock.
pub const LOCK_PURPOSE: &str = "baton";

/// Why a transaction did not come to its end.
enum TxError {
    /// Somebody holds the row for longer than we wait at a time.
    RowIsHeld,
    Failed(LockError),
}

impl From<LockError> for TxError {
    fn from(error: LockError) -> Self {
        Self::Failed(error)
    }
}

/// Neither the schema nor its tables are there.
fn is_missing(error: &Error) -> bool {
    [Some(&SqlState::UNDEFINED_TABLE), Some(&SqlState::INVALID_SCHEMA_NAME)].contains(&error.code())
}

fn baton_row(row: &Row) -> BatonRow {
    let holder = row.get::<_, Option<&str>>("holder").zip(row.get::<_, Option<&str>>("instance"));
    let holder = holder.map(|(broker, instance)| HolderId { broker: broker.into(), instance: instance.into() });
    let (system, timeline): (&str, &str) = (row.get("system"), row.get("timeline"));
    let identity = format!("system {system}, timeline {timeline}");
    let history = History { identity, position: number(row.get("flushed")) };
    BatonRow { tenure: tenure(row), holder, released: row.get("released"), history }
}

fn tenure(row: &Row) -> Tenure {
    let term = u32::try_from(row.get::<_, i32>("term")).unwrap_or_default();
    Tenure { term: Term(term), token: FencingToken(number(row.get("token"))) }
}

fn namesake(row: &Row) -> Namesake {
    Namesake { instance: row.get("instance"), addresses: row.get("addresses"), seen: row.get("seen") }
}

fn broker_seen(row: &Row) -> BrokerSeen {
    BrokerSeen {
        name: row.get("name"),
        instance: row.get("instance"),
        role: row.get("role"),
        addresses: row.get("addresses"),
        seen_ms_ago: row.get("seen_ms_ago"),
    }
}

fn tenure_seen(row: &Row) -> TenureSeen {
    let Tenure { term, token } = tenure(row);
    TenureSeen {
        term: term.0,
        token: token.0,
        broker: row.get("broker"),
        began: row.get("began"),
        ended: row.get("ended"),
        reason: row.get("reason"),
    }
}

fn integer(term: Term) -> i32 {
    i32::try_from(term.0).unwrap_or(i32::MAX)
}

/// A number that fits SQL's BIGINT.
fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(big: i64) -> u64 {
    u64::try_from(big).unwrap_or_default()
}

/// What both strategies take from [`Line`] as it is.
macro_rules! line_verbs {
    () => {
        async fn look(&mut self) -> Result<Option<BatonRow>, LockError> {
            self.line.look().await
        }

        async fn closed(&self) {
            self.line.closed().await;
        }

        fn is_closed(&self) -> bool {
            self.line.is_closed()
        }

        async fn sign(&mut self, me: &HolderId, role: &str, addresses: &str) -> Result<Vec<Namesake>, LockError> {
            self.line.sign(me, role, addresses).await
        }

        async fn leave(&mut self, me: &HolderId) -> Result<(), LockError> {
            self.line.leave(me).await
        }

        async fn survey(&mut self) -> Result<Option<Survey>, LockError> {
            self.line.survey().await
        }
    };
}
use line_verbs;

/// The purpose, as the database shows it.
fn shown(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Lock => "lock",
        Purpose::Signs => "signs of life",
    }
}
