//! Election by a lock that a session holds until it ends, however it ends.
//!
//! The database enforces the lease: it ends a session that says nothing for so long, and gives the lock to who waits.
//! Always true: that is set before the session waits for the first time (R22); the lock is taken once in a session,
//! because it would count.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    HolderId, LockError, Survey,
    database::{BatonRow, LockDatabase, LockSession, Namesake, Purpose},
    line::{Election, Line, hold_the_row, line_verbs},
};
use crate::types::{BootClock, Tenure};

/// So much later than it should an answer to a waiting session may come, before the connection is given up.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// An election by a session lock.
#[derive(Debug)]
pub struct SessionLock<E>(pub E);

/// A session that holds the lock, or waits for it.
#[derive(Debug)]
pub struct SessionLockSession<L> {
    line: L,
    holds: bool,
}

impl<E: Election> LockDatabase for SessionLock<E> {
    type Session = SessionLockSession<E::Line>;

    async fn connect(&self, purpose: Purpose) -> Result<Self::Session, LockError> {
        let mut line = self.0.connect(purpose).await?;
        if purpose == Purpose::Lock {
            line.prepare_to_hold().await?;
        }
        Ok(SessionLockSession { line, holds: false })
    }

    fn what(&self) -> String {
        self.0.what()
    }

    fn boot_clock(&self) -> BootClock {
        self.0.boot_clock()
    }
}

impl<L: Line> LockSession for SessionLockSession<L> {
    line_verbs!();

    async fn lock(&mut self, patience: Duration) -> Result<bool, LockError> {
        if !self.holds {
            let late = |late| Err(LockError::Database { action: "wait for the lock", source: Box::new(late) });
            self.holds = timeout(patience + ANSWER_PATIENCE, self.line.lock(patience)).await.unwrap_or_else(late)?;
        }
        Ok(self.holds)
    }

    async fn take_over(&mut self, me: &HolderId, seen: Tenure) -> Result<Option<Tenure>, LockError> {
        let line = &self.line;
        line.begin().await?;
        hold_the_row(line, None).await?;
        let tenure = line.raise(me, seen).await?;
        line.commit().await?;
        Ok(Some(tenure))
    }

    /// Writes nothing: that the session answers proves that it holds the lock.
    async fn beat(&mut self, _: Tenure) -> Result<Option<BatonRow>, LockError> {
        self.line.look().await
    }

    async fn reclaim(&mut self, me: &HolderId, tenure: Tenure) -> Result<bool, LockError> {
        if !self.holds {
            self.line.end_own_lock(me).await?;
        }
        if !self.lock(Duration::ZERO).await? {
            return Ok(false);
        }
        let line = &self.line;
        line.begin().await?;
        hold_the_row(line, Some(tenure.term)).await?;
        let is_mine = line.hold(me).await?;
        line.commit().await?;
        Ok(is_mine)
    }

    async fn release(&mut self, me: &HolderId, _: Tenure, why: &str) -> Result<(), LockError> {
        let line = &self.line;
        line.begin().await?;
        line.release(me, why).await?;
        line.commit().await?;
        line.unlock().await?;
        self.holds = false;
        Ok(())
    }
}
