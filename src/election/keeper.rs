//! Keeps the baton for a term: a heartbeat every fifth of a lease, and what follows when one is not answered.
//!
//! Owns the session that holds the lock. Always true: the mandate is proven for no longer than a lease less its margin
//! from before the question was sent; it is in doubt as soon as the session is known to have ended, and a second after a
//! question that nobody answers. A lock that is gone is tried for again every 100 ms, for half a minute (R18, R20): if
//! nobody took over meanwhile, and the database is still the one it was (R21), the term goes on.
//! On failure: the mandate is lost, with the reason, and the keeper ends.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use super::{
    HolderId, Lease, LockError,
    database::{BatonRow, LockDatabase, LockSession, Purpose, in_time},
};
use crate::{
    tasks::Tasks,
    types::{BootTime, History, MandateKeeper, OUTAGE_PATIENCE, Tenure, with_causes},
};

/// A heartbeat that is unanswered for so long leaves a doubt.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// How often a lock that is gone is tried for.
const REGAIN_EVERY: Duration = Duration::from_millis(100);

/// How long giving the lock back may take; then the end of the connection does it.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);

/// Keeps a baton.
pub(super) struct Keeper<D: LockDatabase> {
    pub(super) database: Arc<D>,
    pub(super) me: HolderId,
    pub(super) lease: Lease,
    /// As taken over.
    pub(super) tenure: Tenure,
    /// The last point that was seen of the database's history.
    pub(super) history: History,
    /// `None`: the lock is gone.
    pub(super) session: Option<D::Session>,
    pub(super) mandate: MandateKeeper,
    /// Of the last proof.
    pub(super) relied_until: BootTime,
}

/// The running keeper of a baton. Dropping it drops the keeper, and so the lock.
#[derive(Debug)]
pub(super) struct Keeping {
    release: oneshot::Sender<String>,
    tasks: Tasks,
}

impl Keeping {
    pub(super) fn start<D: LockDatabase>(keeper: Keeper<D>) -> Self {
        let tasks = Tasks::new();
        let (release, released) = oneshot::channel();
        tasks.spawn("keeper", keeper.run(released));
        Self { release, tasks }
    }

    /// Gives the lock back, if it is still there.
    pub(super) async fn end(self, why: &str) {
        let Self { release, tasks } = self;
        if release.send(why.to_owned()).is_err() {
            return; // it was lost, and the keeper has ended
        }
        if let Err(late) = tasks.stop(RELEASE_PATIENCE).await {
            tracing::warn!("the lock was not given back in time, and goes with its connection: {late}");
            tasks.abort();
        }
    }
}

/// The baton is gone for good, and why.
#[derive(Debug, PartialEq, Eq)]
struct Lost(String);

/// Why the lock is in doubt, or worse.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    Doubt(String),
    Lost(Lost),
}

impl<D: LockDatabase> Keeper<D> {
    /// Until the baton is lost, or given back with a reason.
    async fn run(mut self, released: oneshot::Receiver<String>) {
        let why = tokio::select! {
            biased;
            why = released => why,
            Lost(why) = self.keep() => return self.mandate.lose(&why),
        };
        // Nobody asks for the lock any more if whoever held the baton is gone; then the session's end is enough.
        if let (Ok(why), Some(mut session)) = (why, self.session.take())
            && let Err(error) = session.release(&self.me, self.tenure, &why).await
        {
            tracing::debug!("the baton goes with its session: {error}");
        }
    }

    async fn keep(&mut self) -> Lost {
        loop {
            let trouble = self.watch().await;
            self.session = None; // whoever is in doubt drops the connection, and cancels nothing
            match trouble {
                Trouble::Lost(lost) => return lost,
                Trouble::Doubt(why) => tracing::warn!("the lock is in doubt: {why}; asking for it again"),
            }
            self.mandate.doubt();
            match timeout(OUTAGE_PATIENCE, self.regain()).await {
                Ok(Ok(())) => tracing::info!("the lock is held again"),
                Ok(Err(lost)) => return lost,
                Err(_) => return Lost("the lock could not be had again for too long".to_owned()),
            }
        }
    }

    /// Says a word every now and then, as long as it is answered.
    async fn watch(&mut self) -> Trouble {
        let Some(session) = &mut self.session else { return Trouble::Doubt("there is no session".to_owned()) };
        loop {
            tokio::select! {
                biased;
                () = session.closed() => return Trouble::Doubt("its session was ended".to_owned()),
                () = sleep(self.lease.heartbeat()) => {}
            }
            let asked = self.database.boot_clock().now();
            let rest = asked.until(self.relied_until);
            let answer = answer_within(rest, &self.mandate, session.beat(self.tenure)).await;
            let row = match answer {
                None => return Trouble::Doubt("its session has not answered for a lease".to_owned()),
                Some(Err(error)) => return Trouble::Doubt(with_causes(&error)),
                Some(Ok(None)) => {
                    return Trouble::Lost(Lost("the lease ran out, and another broker took it".to_owned()));
                }
                Some(Ok(Some(row))) => row,
            };
            if let Err(lost) = require_mine(&row, &self.me) {
                return Trouble::Lost(lost);
            }
            self.history = row.history;
            self.relied_until = asked.after(self.lease.relied_on());
            self.mandate.prove(self.relied_until);
        }
    }

    /// Asks for the lock until it is held, or somebody else's.
    async fn regain(&mut self) -> Result<(), Lost> {
        let mut session = None;
        loop {
            let next = Instant::now() + REGAIN_EVERY;
            match self.try_regain(&mut session).await {
                Ok(Ok(true)) => {
                    self.session = session;
                    return Ok(());
                }
                Ok(Ok(false)) => {}
                Ok(Err(lost)) => return Err(lost),
                Err(error) => {
                    tracing::debug!("the lock can't be had: {}", with_causes(&error));
                    session = None;
                }
            }
            tokio::time::sleep_until(next).await;
        }
    }

    async fn try_regain(&mut self, session: &mut Option<D::Session>) -> Result<Result<bool, Lost>, LockError> {
        if session.is_none() {
            *session = Some(in_time(self.lease, "connect", self.database.connect(Purpose::Lock)).await?);
        }
        let Some(session) = session else { return Ok(Ok(false)) };
        let asked = self.database.boot_clock().now();
        let Some(row) = in_time(self.lease, "look", session.look()).await? else {
            return Ok(Err(Lost("its tables are gone".to_owned())));
        };
        if let Err(lost) = require_mine(&row, &self.me) {
            return Ok(Err(lost));
        }
        if let Some(why) = row.history.departs_from(&self.history) {
            return Ok(Err(Lost(why))); // R21: memory is trusted only on the history that it was made on
        }
        if !in_time(self.lease, "reclaim", session.reclaim(&self.me, self.tenure)).await? {
            return Ok(Ok(false));
        }
        self.history = row.history;
        self.relied_until = asked.after(self.lease.relied_on());
        self.mandate.prove(self.relied_until);
        Ok(Ok(true))
    }
}

/// What is answered within `rest`; after a while without it the mandate is in doubt. An answer after all ends the doubt.
///
/// Whoever was frozen has no rest at all, and may hold the lock still: everybody has a second to answer.
async fn answer_within<T>(rest: Duration, mandate: &MandateKeeper, answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    if let Ok(answer) = timeout(DOUBT_AFTER.min(rest), &mut answer).await {
        return Some(answer);
    }
    mandate.doubt();
    timeout(rest.saturating_sub(DOUBT_AFTER).max(DOUBT_AFTER), answer).await.ok()
}

/// While the row names this process, nobody took over: its own writer raises the token, and the term when a counter ends.
fn require_mine(row: &BatonRow, me: &HolderId) -> Result<(), Lost> {
    match &row.holder {
        Some(holder) if holder == me => Ok(()),
        Some(holder) => Err(Lost(format!("broker {} took over", holder.broker))),
        None => Err(Lost("the database is another one: its baton has no holder".to_owned())),
    }
}

#[cfg(test)]
mod tests;
