//! The election on PostgreSQL: what can be asked over a connection to it.
//!
//! Always true: a take-over and a release are one transaction, and a WARNING at its end is no confirmation (R16).
//! Nothing is ever cancelled: whoever gives up drops the connection.

mod own_sessions;
mod statements;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio_postgres::{
    Error, Row,
    error::SqlState,
    types::{FromSqlOwned, ToSql},
};
use tokio_util::sync::CancellationToken;

use self::statements::Texts;
use super::{
    BrokerSeen, HolderId, LOCK_PURPOSE, Lease, LockError, Survey, TenureSeen,
    database::{BatonRow, Namesake, Purpose},
    line::{Election, LeaseRow, Line},
};
use crate::{
    db::{
        SchemaError, Text, big, lock_key, number,
        postgres::{Postgres, Session, history, schema},
    },
    tasks::Tasks,
    types::{FencingToken, Group, Tenure, Term},
};

pub use own_sessions::require_own_sessions;

/// A group in a PostgreSQL database. Clones share it.
#[derive(Clone, Debug)]
pub struct PostgresElection {
    postgres: Postgres,
    group: Group,
    lease: Lease,
    key: i64,
    texts: Arc<Texts>,
    /// Set when it is known; that does not change while a broker runs.
    own_sessions: Arc<OnceLock<()>>,
}

impl PostgresElection {
    /// The election of `group`; nothing is connected yet.
    #[must_use]
    pub fn new(postgres: Postgres, group: Group, lease: Lease) -> Self {
        let (key, texts) = (lock_key(LOCK_PURPOSE, &group), Arc::new(Texts::new(&group)));
        Self { postgres, group, lease, key, texts, own_sessions: Arc::default() }
    }

    async fn require_own_sessions(&self) -> Result<(), LockError> {
        if self.own_sessions.get().is_none() {
            require_own_sessions(&self.postgres).await?;
            self.own_sessions.get_or_init(|| ());
        }
        Ok(())
    }

    async fn open(&self, shown: &str) -> Result<PostgresLine, LockError> {
        let (session, driver) = self.postgres.connect(shown).await?;
        let (tasks, ended) = (Tasks::new(), CancellationToken::new());
        let end = ended.clone().drop_guard();
        tasks.spawn("lock session", async move {
            driver.run().await;
            drop(end);
        });
        Ok(PostgresLine { election: self.clone(), session, tasks, ended })
    }

    fn lease_millis(&self) -> f64 {
        self.lease.length().as_secs_f64() * 1_000.0
    }
}

impl Election for PostgresElection {
    type Line = PostgresLine;

    /// A standby must not find out at its take-over that sessions are not its own: locks and the store's writes are.
    async fn connect(&self, purpose: Purpose) -> Result<PostgresLine, LockError> {
        if purpose == Purpose::Lock {
            self.require_own_sessions().await?;
        }
        self.open(purpose.shown()).await
    }

    fn lease(&self) -> Lease {
        self.lease
    }

    fn what(&self) -> String {
        format!("the baton of group {} in {}", self.group, self.postgres.address())
    }
}

/// A connection.
#[derive(Debug)]
pub struct PostgresLine {
    election: PostgresElection,
    session: Session,
    /// Drives the connection.
    tasks: Tasks,
    ended: CancellationToken,
}

impl Drop for PostgresLine {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl Line for PostgresLine {
    async fn closed(&self) {
        self.ended.cancelled().await;
    }

    fn is_closed(&self) -> bool {
        self.ended.is_cancelled()
    }

    async fn look(&self) -> Result<Option<BatonRow>, LockError> {
        let row = self.query_opt(&self.texts().look, &[]).await?;
        Ok(row.as_ref().map(baton_row))
    }

    async fn migrate(&self) -> Result<(), LockError> {
        let group = &self.election.group;
        for version in schema::migrate(&self.session, group).await? {
            tracing::info!("the tables of group {group} were brought to version {version}");
        }
        Ok(())
    }

    async fn is_migrating(&self) -> Result<bool, LockError> {
        let line = self.election.open("take-over").await?;
        Ok(schema::is_migrating(&line.session, &self.election.group).await?)
    }

    async fn prepare_to_hold(&mut self) -> Result<(), LockError> {
        let lease = self.election.lease.length().as_millis();
        let set = format!("SET idle_session_timeout = {lease}; SET idle_in_transaction_session_timeout = {lease}");
        self.control("set the lease", &set).await
    }

    async fn lock(&self, patience: Duration) -> Result<bool, LockError> {
        if self.scalar("try the lock", "SELECT pg_try_advisory_lock($1)").await? {
            return Ok(true);
        }
        if patience.is_zero() { Ok(false) } else { self.wait_for_lock(patience).await }
    }

    async fn unlock(&self) -> Result<(), LockError> {
        self.scalar::<bool>("give the lock back", "SELECT pg_advisory_unlock($1)").await.map(drop)
    }

    async fn end_own_lock(&self, me: &HolderId) -> Result<(), LockError> {
        self.query(&self.texts().end_own_lock, &[&&*me.instance]).await.map(drop)
    }

    async fn end_sessions(&self, within: Option<Term>) -> Result<usize, LockError> {
        let line = self.election.open("take-over").await?;
        Ok(line.query(&line.texts().end_sessions, &[&within.map(integer)]).await?.len())
    }

    async fn look_at_lease(&self) -> Result<Option<LeaseRow>, LockError> {
        let row = self.query_opt(&self.texts().lease, &[]).await?;
        Ok(row.map(|row| LeaseRow { is_over: row.get("is_over"), beat: row.get("beat") }))
    }

    async fn renew_lease(&self, tenure: Tenure) -> Result<bool, LockError> {
        let parameters: [&(dyn ToSql + Sync); 2] = [&big(tenure.token.0), &self.election.lease_millis()];
        Ok(self.execute(&self.texts().renew_lease, &parameters).await? > 0)
    }

    /// However long the last wait for the lock was to be: the transaction waits as long as it takes. An earlier WARNING
    /// says nothing of it.
    async fn begin(&self) -> Result<(), LockError> {
        self.control("begin", "BEGIN; SET LOCAL lock_timeout = 0").await?;
        if let Some(warning) = self.session.take_warning() {
            tracing::debug!("the database warned before: {warning}");
        }
        Ok(())
    }

    async fn commit(&self) -> Result<(), LockError> {
        self.control("commit", "COMMIT").await?;
        match self.session.take_warning() {
            Some(warning) => Err(LockError::Database { action: "commit", source: warning.into() }),
            None => Ok(()),
        }
    }

    async fn rollback(&self) -> Result<(), LockError> {
        self.control("rollback", "ROLLBACK").await
    }

    async fn hold_row(&self) -> Result<(), LockError> {
        self.query(&self.texts().hold_baton, &[]).await.map(drop)
    }

    async fn take_lease(&self, unchanged: Option<i64>) -> Result<bool, LockError> {
        Ok(self.execute(&self.texts().take_lease, &[&self.election.lease_millis(), &unchanged]).await? > 0)
    }

    async fn end_lease(&self, tenure: Tenure) -> Result<(), LockError> {
        self.execute(&self.texts().end_lease, &[&big(tenure.token.0)]).await.map(drop)
    }

    async fn raise(&self, me: &HolderId, seen: Tenure) -> Result<Tenure, LockError> {
        let (term, token) = (integer(seen.term), big(seen.token.0));
        let lease = self.election.lease_millis();
        let parameters: [&(dyn ToSql + Sync); 5] = [&&*me.broker, &&*me.instance, &term, &token, &lease];
        let text = &self.texts().take_over;
        let row = self.query_opt(text, &parameters).await?;
        let row = row.ok_or_else(|| LockError::Database { action: text.name, source: LOST_ROW.into() })?;
        Ok(tenure(&row))
    }

    async fn hold(&self, me: &HolderId) -> Result<bool, LockError> {
        Ok(self.execute(&self.texts().hold, &[&&*me.instance]).await? > 0)
    }

    async fn release(&self, me: &HolderId, why: &str) -> Result<(), LockError> {
        self.execute(&self.texts().release, &[&&*me.instance, &why]).await.map(drop)
    }

    async fn sign(&self, me: &HolderId, role: &str, addresses: &str) -> Result<Vec<Namesake>, LockError> {
        let sign = &self.texts().sign;
        match self.session.execute(&sign.sql, &[&&*me.instance, &&*me.broker, &role, &addresses]).await {
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            signed => signed.map_err(|error| self.failed(sign, error))?,
        };
        let rows = self.query(&self.texts().namesakes, &[&&*me.broker, &&*me.instance]).await?;
        Ok(rows.iter().map(namesake).collect())
    }

    async fn leave(&self, me: &HolderId) -> Result<(), LockError> {
        self.execute(&self.texts().leave, &[&&*me.instance]).await.map(drop)
    }

    async fn survey(&self) -> Result<Option<Survey>, LockError> {
        let texts = self.texts();
        let baton = self.query_opt(&texts.survey_baton, &[&self.election.key]).await?;
        let Some(baton) = baton else { return Ok(None) };
        let brokers = self.query(&texts.survey_brokers, &[]).await?;
        let tenures = self.query(&texts.survey_tenures, &[]).await?;
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
}

impl PostgresLine {
    fn texts(&self) -> &Texts {
        &self.election.texts
    }

    async fn wait_for_lock(&self, patience: Duration) -> Result<bool, LockError> {
        let action = "wait for the lock";
        self.control(action, &format!("SET lock_timeout = {}", patience.as_millis().max(1))).await?;
        match self.session.execute("SELECT pg_advisory_lock($1)", &[&self.election.key]).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
            Err(error) => Err(LockError::Database { action, source: error.into() }),
        }
    }

    /// No row if the tables are missing, too.
    async fn query_opt(&self, text: &Text, parameters: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, LockError> {
        match self.session.query_opt(&text.sql, parameters).await {
            Err(error) if is_missing(&error) => Ok(None),
            answered => answered.map_err(|error| self.failed(text, error)),
        }
    }

    async fn query(&self, text: &Text, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, LockError> {
        self.session.query(&text.sql, parameters).await.map_err(|error| self.failed(text, error))
    }

    async fn execute(&self, text: &Text, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, LockError> {
        self.session.execute(&text.sql, parameters).await.map_err(|error| self.failed(text, error))
    }

    /// What a function of the lock's key says.
    async fn scalar<T: FromSqlOwned>(&self, action: &'static str, sql: &str) -> Result<T, LockError> {
        let answered = self.session.query_one_scalar(sql, &[&self.election.key]).await;
        answered.map_err(|error| LockError::Database { action, source: error.into() })
    }

    async fn control(&self, action: &'static str, statements: &str) -> Result<(), LockError> {
        let done = self.session.batch_execute(statements).await;
        done.map_err(|error| LockError::Database { action, source: error.into() })
    }

    fn failed(&self, text: &Text, error: Error) -> LockError {
        let is_altered =
            error.code().is_some_and(|code| code.code().starts_with("42") || code.code().starts_with("3F"));
        if is_altered {
            let (group, statement) = (self.election.group.clone(), text.name);
            return SchemaError::Altered { group, statement, source: error.into() }.into();
        }
        LockError::Database { action: text.name, source: error.into() }
    }
}

/// Somebody deleted it by hand.
const LOST_ROW: &str = "the baton lost its row";

/// Neither the schema nor its tables are there.
fn is_missing(error: &Error) -> bool {
    [Some(&SqlState::UNDEFINED_TABLE), Some(&SqlState::INVALID_SCHEMA_NAME)].contains(&error.code())
}

fn baton_row(row: &Row) -> BatonRow {
    let holder = row.get::<_, Option<&str>>("holder").zip(row.get::<_, Option<&str>>("instance"));
    let holder = holder.map(|(broker, instance)| HolderId { broker: broker.into(), instance: instance.into() });
    BatonRow { tenure: tenure(row), holder, released: row.get("released"), history: history(row) }
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
