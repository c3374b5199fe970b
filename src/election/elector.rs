//! The election among brokers on one database, the same for all databases.
//!
//! Owns the session that waits. Always true: who is not the recorded holder gives it a head start after the database
//! came back (R20); the lock is won before the row is touched, and the row is written on the session that won (R23).
//! On failure: the session is dropped, and with it the place in the queue; the next attempt begins with a new one.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, error::Elapsed, sleep, timeout};

use super::{
    Baton, Held, HolderId, Lease, LockError, Locker,
    database::{BatonRow, LockDatabase, LockSession, Purpose, in_time},
    keeper::{Keeper, Keeping},
};
use crate::types::{Mandate, Tenure};

/// Who is not the recorded holder asks no sooner after its session began (R20): a master whose database restarts gets
/// its lock back in a few attempts of 100 ms.
const HEAD_START: Duration = Duration::from_secs(2);

/// How often the row is looked at meanwhile.
const HEAD_START_LOOK: Duration = Duration::from_millis(100);

/// How long a take-over may take; then the connection counts as lost. Longer than it waits for what is being written.
const TAKE_OVER_PATIENCE: Duration = Duration::from_secs(10);

/// Waiting in the database keeps its VACUUM from what became garbage meanwhile, so nobody waits longer at a time.
const SLICE: Duration = Duration::from_secs(3);

/// Elects the master among brokers on one database.
#[derive(Debug)]
pub struct DatabaseLocker<D: LockDatabase> {
    database: Arc<D>,
    me: HolderId,
    lease: Lease,
    waiting: Option<Waiting<D::Session>>,
    /// The highest tenure that was ever seen here (R17): a database may forget.
    seen: Tenure,
}

/// A session that waits for the baton.
#[derive(Debug)]
struct Waiting<S> {
    session: S,
    since: Instant,
}

impl<D: LockDatabase> DatabaseLocker<D> {
    /// A locker of this process; nothing is connected yet.
    #[must_use]
    pub fn new(database: Arc<D>, me: HolderId, lease: Lease) -> Self {
        Self { database, me, lease, waiting: None, seen: Tenure::default() }
    }

    async fn connect(&self) -> Result<Waiting<D::Session>, LockError> {
        let session = in_time(self.lease, "connect", self.database.connect(Purpose::Lock)).await?;
        Ok(Waiting { session, since: Instant::now() })
    }

    /// The lock is won: whatever comes between this and the tenure gives it back.
    async fn take_over(&mut self, mut session: D::Session) -> Result<Option<Baton>, LockError> {
        told_if_long(self.lease, session.migrate()).await?;
        let clock = self.database.boot_clock();
        let asked = clock.now();
        let taking = told_if_long(self.lease, session.take_over(&self.me, self.seen));
        let late = |late: Elapsed| Err(LockError::Database { action: "take_over", source: late.into() });
        let taken = timeout(TAKE_OVER_PATIENCE, taking).await.unwrap_or_else(late)?;
        let Some(tenure) = taken else { return Ok(None) };
        self.saw(tenure);
        let row =
            in_time(self.lease, "look", session.look()).await?.filter(|row| row.holder.as_ref() == Some(&self.me));
        let Some(row) = row else { return Ok(None) };
        let relied_until = asked.after(self.lease.relied_on());
        let (told, mandate) = Mandate::until_by(clock, relied_until);
        let keeper = Keeper {
            database: Arc::clone(&self.database),
            me: self.me.clone(),
            lease: self.lease,
            tenure,
            history: row.history,
            session: Some(session),
            mandate: told,
            relied_until,
        };
        Ok(Some(Baton { tenure: Some(tenure), mandate, held: Held::Session(Keeping::start(keeper)) }))
    }

    fn saw(&mut self, tenure: Tenure) {
        self.seen.term = self.seen.term.max(tenure.term);
        self.seen.token = self.seen.token.max(tenure.token);
    }
}

impl<D: LockDatabase> Locker for DatabaseLocker<D> {
    const FENCES: bool = true;

    async fn acquire(&mut self, patience: Duration) -> Result<Option<Baton>, LockError> {
        let mut until = Instant::now() + patience;
        loop {
            // Whoever stops waiting for this future leaves the queue: what is in the middle of a request is dropped.
            let mut waiting = match self.waiting.take() {
                Some(waiting) if !waiting.session.is_closed() => waiting,
                _ => self.connect().await?,
            };
            let row = in_time(self.lease, "look", waiting.session.look()).await?;
            if let Some(row) = &row {
                self.saw(row.tenure);
            }
            let early = HEAD_START.saturating_sub(waiting.since.elapsed());
            if !early.is_zero() && has_head_start(row.as_ref(), &self.me) {
                let wait = early.min(HEAD_START_LOOK);
                until += wait;
                self.waiting = Some(waiting);
                sleep(wait).await;
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if waiting.session.lock(left.min(SLICE)).await? {
                return self.take_over(waiting.session).await;
            }
            self.waiting = Some(waiting);
            if until <= Instant::now() {
                return Ok(None);
            }
        }
    }

    fn what(&self) -> String {
        self.database.what()
    }
}

/// Whoever looks into the log knows why there is no master.
async fn told_if_long<T>(lease: Lease, taking: impl Future<Output = T>) -> T {
    let mut taking = pin!(taking);
    if let Ok(taken) = timeout(lease.length().min(TAKE_OVER_PATIENCE / 2), &mut taking).await {
        return taken;
    }
    tracing::warn!("the take-over takes long: the database may wait for a synchronous standby that is not there");
    taking.await
}

/// Whether somebody else held the baton last, and did not give it back (R20).
fn has_head_start(row: Option<&BatonRow>, me: &HolderId) -> bool {
    row.is_some_and(|row| !row.released && row.holder.as_ref().is_some_and(|holder| holder != me))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::History;

    #[test]
    fn r20_a_head_start_is_for_a_holder_that_did_not_release() {
        let (me, other) = (HolderId::new("me"), HolderId::new("other"));
        let row = |holder: Option<&HolderId>, released| BatonRow {
            tenure: Tenure::default(),
            holder: holder.cloned(),
            released,
            history: History { identity: String::new(), position: 0 },
        };
        assert!(!has_head_start(None, &me), "no tables, no holder");
        assert!(!has_head_start(Some(&row(None, true)), &me));
        assert!(!has_head_start(Some(&row(Some(&me), false)), &me));
        assert!(!has_head_start(Some(&row(Some(&other), true)), &me));
        assert!(has_head_start(Some(&row(Some(&other), false)), &me));
        let restarted = HolderId::new("other");
        assert!(has_head_start(Some(&row(Some(&other), false)), &restarted), "a process of its own");
    }
}
