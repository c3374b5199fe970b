//! Signs of life: every broker of a group, a standby too, tells the others that it is there, and what it is.
//!
//! Owns a session of its own, so that no sign waits for an election and no election for a sign. Nothing depends on signs:
//! they are for people (`batonmq status`), and for finding two brokers of one name.
//! On failure: the next sign is tried on a new session.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    HolderId, Lease, LockError,
    database::{LockDatabase, LockSession, Namesake, Purpose, in_time},
};

/// How often a sign is given; with a short lease as often as a heartbeat, so that a master that was killed can be told
/// from one that was frozen for a lease.
const EVERY: Duration = Duration::from_secs(3);

/// How long taking the last one back may take; a sign that stays is an old one soon.
const LEAVE_PATIENCE: Duration = Duration::from_millis(200);

/// What a broker tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sign {
    /// What it is at the moment: `standby`, `master`.
    pub role: &'static str,
    /// Where its clients connect, or would.
    pub addresses: String,
}

/// Gives a process's signs of life.
#[derive(Debug)]
pub struct Presence<D> {
    database: Arc<D>,
    me: HolderId,
    lease: Lease,
    sign: watch::Receiver<Sign>,
    namesakes: Namesakes,
}

impl<D: LockDatabase> Presence<D> {
    /// Tells whatever `sign` says, as often as is needed.
    #[must_use]
    pub fn new(database: Arc<D>, me: HolderId, lease: Lease, sign: watch::Receiver<Sign>) -> Self {
        Self { database, me, lease, sign, namesakes: Namesakes::default() }
    }

    /// Runs until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut session = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                signed = self.sign(&mut session) => if let Err(error) = signed {
                    tracing::debug!(%error, "no sign of life was given");
                    session = None;
                },
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.sign.changed() => if changed.is_err() {
                    break;
                },
                () = sleep(self.lease.heartbeat().min(EVERY)) => {}
            }
        }
        if let Some(mut session) = session
            && timeout(LEAVE_PATIENCE, session.leave(&self.me)).await.is_err()
        {
            tracing::debug!("the last sign of life stays");
        }
    }

    async fn sign(&mut self, session: &mut Option<D::Session>) -> Result<(), LockError> {
        if session.is_none() {
            *session = Some(self.database.connect(Purpose::Signs).await?);
        }
        let Some(session) = session else { return Ok(()) };
        let sign = self.sign.borrow_and_update().clone();
        let namesakes = in_time(self.lease, "sign", session.sign(&self.me, sign.role, &sign.addresses)).await?;
        for other in self.namesakes.found_alive(namesakes) {
            tracing::warn!(
                "another running broker is called {} too ({}); give each broker of a group a broker_name of its own",
                self.me.broker,
                other.addresses
            );
        }
        Ok(())
    }
}

/// Tells a process that runs from one that was killed a moment ago: only the first gives another sign.
#[derive(Debug, Default)]
struct Namesakes {
    seen: BTreeMap<String, i64>,
    told: BTreeSet<String>,
}

impl Namesakes {
    /// Those that gave a sign since the last time, and were not told of yet.
    fn found_alive(&mut self, others: Vec<Namesake>) -> Vec<Namesake> {
        let mut alive = others;
        alive.retain(|other| {
            let before = self.seen.insert(other.instance.clone(), other.seen);
            before.is_some_and(|before| before < other.seen) && self.told.insert(other.instance.clone())
        });
        alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namesake_that_gives_another_sign_is_alive() {
        let seen = |instance: &str, seen| Namesake { instance: instance.into(), addresses: String::new(), seen };
        let mut namesakes = Namesakes::default();
        assert_eq!(namesakes.found_alive(vec![seen("killed", 1), seen("alive", 1)]), []);
        assert_eq!(namesakes.found_alive(vec![seen("killed", 1), seen("alive", 2)]), [seen("alive", 2)]);
        assert_eq!(namesakes.found_alive(vec![seen("killed", 1), seen("alive", 3)]), [], "it was told of");
    }
}
