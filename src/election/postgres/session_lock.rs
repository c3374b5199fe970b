//! Election by an advisory lock, which a session holds until it ends, however it ends.
//!
//! The server enforces the lease: it ends a session that says nothing for so long, and gives the lock to who waits.
//! Always true: that is set before the session waits for the first time (R22); the lock is taken once in a session,
//! because it would count.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::{LOCK_PURPOSE, Line, PostgresElection, TxError, line_verbs};
use crate::{
    db::lock_key,
    election::{
        HolderId, LockError, Survey,
        database::{BatonRow, LockDatabase, LockSession, Namesake, Purpose},
    },
    types::Tenure,
};

/// So much later than it should an answer to a waiting session may come, before the connection is given up.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// An election by an advisory lock.
#[derive(Debug)]
pub struct SessionLock(pub PostgresElection);

/// A session that holds the lock, or waits for it.
#[derive(Debug)]
pub struct SessionLockSession {
    line: Line,
    key: i64,
    holds: bool,
}

impl LockDatabase for SessionLock {
    type Session = SessionLockSession;

    async fn connect(&self, purpose: Purpose) -> Result<SessionLockSession, LockError> {
        let line = self.0.connect(purpose).await?;
        if purpose == Purpose::Lock {
            let lease = self.0.lease.length().as_millis();
            let set = format!("SET idle_session_timeout = {lease}; SET idle_in_transaction_session_timeout = {lease}");
            line.control("set the lease", &set).await?;
        }
        Ok(SessionLockSession { line, key: lock_key(LOCK_PURPOSE, &self.0.group), holds: false })
    }

    fn what(&self) -> String {
        self.0.what()
    }
}

impl SessionLockSession {
    async fn try_lock(&mut self) -> Result<bool, LockError> {
        if !self.holds {
            self.holds = self.line.scalar("try the lock", "SELECT pg_try_advisory_lock($1)", self.key).await?;
        }
        Ok(self.holds)
    }

    async fn wait_for_lock(&mut self, patience: Duration) -> Result<bool, LockError> {
        self.line.control("wait for the lock", &format!("SET lock_timeout = {}", patience.as_millis().max(1))).await?;
        let action = "wait for the lock";
        let waited = async { self.line.session.execute("SELECT pg_advisory_lock($1)", &[&self.key]).await };
        match timeout(patience + ANSWER_PATIENCE, waited).await {
            Ok(Ok(_)) => {
                self.holds = true;
                Ok(true)
            }
            Ok(Err(error)) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
            Ok(Err(error)) => Err(LockError::Database { action, source: error.into() }),
            Err(late) => Err(LockError::Database { action, source: late.into() }),
        }
    }

    async fn hold(&self, me: &HolderId) -> Result<bool, TxError> {
        Ok(self.line.execute_in_tx(&self.line.texts.hold, &[&&*me.instance]).await? > 0)
    }
}

impl LockSession for SessionLockSession {
    line_verbs!();

    async fn lock(&mut self, patience: Duration) -> Result<bool, LockError> {
        if self.try_lock().await? {
            return Ok(true);
        }
        if patience.is_zero() { Ok(false) } else { self.wait_for_lock(patience).await }
    }

    async fn take_over(&mut self, me: &HolderId, seen: Tenure) -> Result<Option<Tenure>, LockError> {
        self.line.migrate().await?;
        self.line.with_the_row(None, || self.line.raise(me, seen)).await.map(Some)
    }

    /// Writes nothing: that the session answers proves that it holds the lock.
    async fn beat(&mut self, _: Tenure) -> Result<Option<BatonRow>, LockError> {
        self.line.look().await
    }

    async fn reclaim(&mut self, me: &HolderId, tenure: Tenure) -> Result<bool, LockError> {
        if !self.holds {
            self.line.query(&self.line.texts.end_own_lock, &[&&*me.instance]).await?;
        }
        Ok(self.try_lock().await? && self.line.with_the_row(Some(tenure), || self.hold(me)).await?)
    }

    async fn release(&mut self, me: &HolderId, tenure: Tenure, why: &str) -> Result<(), LockError> {
        let text = &self.line.texts.release;
        let release = || async { self.line.execute_in_tx(text, &[&&*me.instance, &why]).await };
        self.line.with_the_row(Some(tenure), release).await?;
        self.line.scalar::<bool>("give the lock back", "SELECT pg_advisory_unlock($1)", self.key).await?;
        self.holds = false;
        Ok(())
    }
}
