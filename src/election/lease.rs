//! Election by a row alone, for where the end of a session comes late or a lock of one means nothing.
//!
//! Always true: lease and tenure are taken in one transaction (R23); whether a lease ran out is judged by the database's
//! clock, or by a row that did not change for a whole lease on our own clock, whichever is first: a clock that was set
//! back keeps nobody waiting for long.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    HolderId, Lease, LockError, Survey,
    database::{BatonRow, LockDatabase, LockSession, Namesake, Purpose},
    line::{Election, LeaseRow, Line, hold_the_row, line_verbs},
};
use crate::types::Tenure;

/// How often a broker that waits looks at the lease.
const POLL: Duration = Duration::from_millis(100);

/// An election by a lease in a table.
#[derive(Debug)]
pub struct LeaseTable<E>(pub E);

/// A connection to it.
#[derive(Debug)]
pub struct LeaseSession<L> {
    line: L,
    lease: Lease,
    watched: Option<Watched>,
}

/// The lease, as it was for a while.
#[derive(Clone, Copy, Debug)]
struct Watched {
    beat: i64,
    since: Instant,
}

impl<E: Election> LockDatabase for LeaseTable<E> {
    type Session = LeaseSession<E::Line>;

    async fn connect(&self, purpose: Purpose) -> Result<Self::Session, LockError> {
        Ok(LeaseSession { line: self.0.connect(purpose).await?, lease: self.0.lease(), watched: None })
    }

    fn what(&self) -> String {
        self.0.what()
    }
}

impl<L: Line> LeaseSession<L> {
    /// Whether the lease may be taken.
    async fn is_free(&mut self) -> Result<bool, LockError> {
        let asked = Instant::now();
        let Some(LeaseRow { is_over, beat }) = self.line.look_at_lease().await? else { return Ok(true) };
        let since = match self.watched {
            Some(watched) if watched.beat == beat => watched.since,
            _ => Instant::now(), // it may have changed until it was answered
        };
        self.watched = Some(Watched { beat, since });
        Ok(is_over || asked.saturating_duration_since(since) > self.lease.length())
    }

    /// Within a transaction, which it ends if it comes to a tenure. The lease comes first: who does not get it waits for
    /// nobody's writes, and ends nobody's session.
    async fn take(&self, me: &HolderId, seen: Tenure) -> Result<Option<Tenure>, LockError> {
        let line = &self.line;
        if !line.take_lease(self.unchanged()).await? {
            return Ok(None);
        }
        hold_the_row(line, None).await?;
        let tenure = line.raise(me, seen).await?;
        line.commit().await?;
        Ok(Some(tenure))
    }

    /// The lease that may be taken although it did not run out by the database's clock.
    fn unchanged(&self) -> Option<i64> {
        self.watched.filter(|watched| watched.since.elapsed() > self.lease.length()).map(|watched| watched.beat)
    }
}

impl<L: Line> LockSession for LeaseSession<L> {
    line_verbs!();

    async fn lock(&mut self, patience: Duration) -> Result<bool, LockError> {
        let until = Instant::now() + patience;
        loop {
            if self.is_free().await? {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            sleep(POLL.min(left)).await;
        }
    }

    async fn take_over(&mut self, me: &HolderId, seen: Tenure) -> Result<Option<Tenure>, LockError> {
        self.line.migrate().await?;
        self.line.begin().await?;
        match self.take(me, seen).await {
            Ok(Some(tenure)) => Ok(Some(tenure)),
            Ok(None) | Err(LockError::Outrun { .. }) => self.line.rollback().await.map(|()| None),
            Err(error) => Err(error),
        }
    }

    async fn beat(&mut self, tenure: Tenure) -> Result<Option<BatonRow>, LockError> {
        if self.line.renew_lease(tenure).await? { self.line.look().await } else { Ok(None) }
    }

    async fn reclaim(&mut self, _: &HolderId, tenure: Tenure) -> Result<bool, LockError> {
        self.line.renew_lease(tenure).await
    }

    async fn release(&mut self, me: &HolderId, tenure: Tenure, why: &str) -> Result<(), LockError> {
        let line = &self.line;
        line.begin().await?;
        line.end_lease(tenure).await?;
        line.release(me, why).await?;
        line.commit().await
    }
}
