//! Election by a row alone, for where a session means nothing: behind a pooler, or without session locks.
//!
//! Always true: lease and tenure are taken in one transaction (R23); whether a lease ran out is judged by the database's
//! clock, or by a row that did not change for a whole lease on our own clock, whichever is first: a clock that was set
//! back keeps nobody waiting for long.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Line, PostgresElection, TxError, big, line_verbs};
use crate::{
    election::{
        HolderId, LockError, Survey,
        database::{BatonRow, LockDatabase, LockSession, Namesake, Purpose},
    },
    types::Tenure,
};

/// How often a broker that waits looks at the lease.
const POLL: Duration = Duration::from_millis(100);

/// An election by a lease in a table.
#[derive(Debug)]
pub struct LeaseTable(pub PostgresElection);

/// A connection to it.
#[derive(Debug)]
pub struct LeaseSession {
    line: Line,
    watched: Option<Watched>,
}

/// The lease, as it was for a while.
#[derive(Clone, Copy, Debug)]
struct Watched {
    beat: i64,
    since: Instant,
}

impl LockDatabase for LeaseTable {
    type Session = LeaseSession;

    async fn connect(&self, purpose: Purpose) -> Result<LeaseSession, LockError> {
        Ok(LeaseSession { line: self.0.connect(purpose).await?, watched: None })
    }

    fn what(&self) -> String {
        self.0.what()
    }
}

impl LeaseSession {
    /// Whether the lease may be taken.
    async fn is_free(&mut self) -> Result<bool, LockError> {
        let asked = Instant::now();
        let Some(row) = self.line.query_opt(&self.line.texts.lease, &[]).await? else { return Ok(true) };
        let (is_over, beat) = (row.get("is_over"), row.get("beat"));
        let since = match self.watched {
            Some(watched) if watched.beat == beat => watched.since,
            _ => Instant::now(), // it may have changed until it was answered
        };
        self.watched = Some(Watched { beat, since });
        Ok(is_over || asked.saturating_duration_since(since) > self.line.lease.length())
    }

    /// The lease that may be taken although it did not run out by the database's clock.
    fn unchanged(&self) -> Option<i64> {
        self.watched.filter(|watched| watched.since.elapsed() > self.line.lease.length()).map(|watched| watched.beat)
    }

    async fn take(&self, me: &HolderId, seen: Tenure) -> Result<Option<Tenure>, TxError> {
        let (line, texts) = (&self.line, &self.line.texts);
        if line.execute_in_tx(&texts.take_lease, &[&line.lease_millis(), &self.unchanged()]).await? == 0 {
            return Ok(None);
        }
        let tenure = line.raise(me, seen).await?;
        line.execute_in_tx(&texts.own_lease, &[&big(tenure.token.0)]).await?;
        Ok(Some(tenure))
    }

    async fn renew(&self, tenure: Tenure) -> Result<u64, TxError> {
        let (line, token) = (&self.line, big(tenure.token.0));
        line.execute_in_tx(&line.texts.renew_lease, &[&token, &line.lease_millis()]).await
    }

    async fn give_back(&self, me: &HolderId, tenure: Tenure, why: &str) -> Result<(), TxError> {
        let (line, texts) = (&self.line, &self.line.texts);
        line.execute_in_tx(&texts.release, &[&&*me.instance, &why]).await?;
        line.execute_in_tx(&texts.end_lease, &[&big(tenure.token.0)]).await.map(drop)
    }
}

impl LockSession for LeaseSession {
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
        self.line.with_the_row(None, || self.take(me, seen)).await
    }

    async fn beat(&mut self, tenure: Tenure) -> Result<Option<BatonRow>, LockError> {
        if self.line.with_the_row(Some(tenure), || self.renew(tenure)).await? == 0 {
            return Ok(None);
        }
        self.line.look().await
    }

    async fn reclaim(&mut self, _: &HolderId, tenure: Tenure) -> Result<bool, LockError> {
        Ok(self.line.with_the_row(Some(tenure), || self.renew(tenure)).await? > 0)
    }

    async fn release(&mut self, me: &HolderId, tenure: Tenure, why: &str) -> Result<(), LockError> {
        self.line.with_the_row(Some(tenure), || self.give_back(me, tenure, why)).await
    }
}
