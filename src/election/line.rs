//! What a database is asked over one connection, whatever stands for the baton there: the verbs that `session_lock.rs` and
//! `lease.rs` are written in.
//!
//! An implementation only tries, and never ends a wait by itself. Always true: what fails within a transaction leaves the
//! line unfit; whoever gets the error drops it, and with it the transaction.

use std::{future::Future, pin::pin, time::Duration};

use tokio::time::timeout;

use super::{
    HolderId, Lease, LockError, Survey,
    database::{BatonRow, Namesake, Purpose},
};
use crate::types::{BootClock, Tenure, Term};

/// How long a take-over waits for what is being written, before it ends the sessions that the row names (R19).
const ROW_PATIENCE: Duration = Duration::from_millis(500);

/// How often it waits so long before it gives up.
const ROW_ATTEMPTS: u32 = 4;

/// How often somebody looks whether the database is at the tables still.
const MIGRATION_LOOK: Duration = Duration::from_secs(5);

/// So many looks in a row do not find it there, and its answer counts as lost.
const IDLE_LOOKS_MAX: u32 = 3;

/// The log tells of tables that take long each time after so many looks.
const LOOKS_TOLD: u32 = 12;

/// A group in a database.
pub trait Election: Send + Sync + 'static {
    /// A connection to it.
    type Line: Line;

    /// A connection of one's own.
    fn connect(&self, purpose: Purpose) -> impl Future<Output = Result<Self::Line, LockError>> + Send;

    /// How long the baton may be held without a word.
    fn lease(&self) -> Lease;

    /// What there is to hold, for messages.
    fn what(&self) -> String;

    /// See [`super::database::LockDatabase::boot_clock`].
    fn boot_clock(&self) -> BootClock {
        BootClock::default()
    }
}

/// A connection. Dropping it ends it at once, whatever is under way: that is how a broker in doubt lets go.
pub trait Line: Send + Sync + 'static {
    /// Waits for the end of the connection, as far as this side hears of it. Cancel safe.
    fn closed(&self) -> impl Future<Output = ()> + Send;

    /// Whether [`Self::closed`] would not wait.
    fn is_closed(&self) -> bool;

    /// What the baton's row says. `None`: nobody has made the tables yet.
    fn look(&self) -> impl Future<Output = Result<Option<BatonRow>, LockError>> + Send;

    /// Makes the tables, or brings them up to date.
    fn migrate(&self) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Whether the database works at the tables for whoever migrates them, by way of another connection.
    fn is_migrating(&self) -> impl Future<Output = Result<bool, LockError>> + Send;

    /// Makes the session one that may hold a lock: the database ends it when it hears nothing for a lease (R22), and others
    /// can tell later that it is still that one (R19).
    fn prepare_to_hold(&mut self) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Waits for the session lock, for up to `patience` or the next full second. `false`: somebody else has it. To be
    /// asked only while the session does not have it.
    fn lock(&self, patience: Duration) -> impl Future<Output = Result<bool, LockError>> + Send;

    /// Gives the session lock back.
    fn unlock(&self) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Ends the session on which this process held the lock, if the row still names it.
    fn end_own_lock(&self, me: &HolderId) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Ends the sessions that the row names, and nobody else's, by way of another connection; how many there were. Whoever
    /// goes on in a term, `within`, ends nobody's that took over.
    fn end_sessions(&self, within: Option<Term>) -> impl Future<Output = Result<usize, LockError>> + Send;

    /// What the lease's row says. `None`: nobody has made the tables yet.
    fn look_at_lease(&self) -> impl Future<Output = Result<Option<LeaseRow>, LockError>> + Send;

    /// Extends the lease of a tenure. `false`: somebody else took it.
    fn renew_lease(&self, tenure: Tenure) -> impl Future<Output = Result<bool, LockError>> + Send;

    /// Begins a transaction.
    fn begin(&self) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Ends it; what it changed is durable.
    fn commit(&self) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Ends it; it changed nothing.
    fn rollback(&self) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Within a transaction: holds the row of the baton to its end, as soon as nobody else does.
    fn hold_row(&self) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Within a transaction: takes the lease if it ran out by the database's clock, or if its row is still the one that did
    /// not change for a whole lease, and holds that row to the end.
    fn take_lease(&self, unchanged: Option<i64>) -> impl Future<Output = Result<bool, LockError>> + Send;

    /// Within a transaction: gives the lease of a tenure back.
    fn end_lease(&self, tenure: Tenure) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Within a transaction that holds the row: writes a tenure above both the row's and `seen` (R17), with its holder and
    /// this session, and whose the lease is; closes the records of earlier tenures.
    fn raise(&self, me: &HolderId, seen: Tenure) -> impl Future<Output = Result<Tenure, LockError>> + Send;

    /// Within a transaction that holds the row: notes this session as that of the holder. `false`: that is somebody else.
    fn hold(&self, me: &HolderId) -> impl Future<Output = Result<bool, LockError>> + Send;

    /// Within a transaction: marks the row as released, and closes the tenure's record.
    fn release(&self, me: &HolderId, why: &str) -> impl Future<Output = Result<(), LockError>> + Send;

    /// See [`super::database::LockSession::sign`].
    fn sign(
        &self,
        me: &HolderId,
        role: &str,
        addresses: &str,
    ) -> impl Future<Output = Result<Vec<Namesake>, LockError>> + Send;

    /// See [`super::database::LockSession::leave`].
    fn leave(&self, me: &HolderId) -> impl Future<Output = Result<(), LockError>> + Send;

    /// See [`super::database::LockSession::survey`].
    fn survey(&self) -> impl Future<Output = Result<Option<Survey>, LockError>> + Send;
}

/// What the row of the lease says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// It ran out by the database's clock.
    pub is_over: bool,
    /// Changes with each renewal.
    pub beat: i64,
}

/// Within a transaction: holds the row of the baton. Whoever holds it for longer than a patience is ended, if the row names
/// that session (R19).
pub(super) async fn hold_the_row(line: &impl Line, within: Option<Term>) -> Result<(), LockError> {
    let mut held = pin!(line.hold_row());
    for _ in 0..ROW_ATTEMPTS {
        if let Ok(held) = timeout(ROW_PATIENCE, &mut held).await {
            return held;
        }
        let ended = line.end_sessions(within).await?;
        tracing::warn!(ended, "the row of the baton is held; its sessions were told to end");
    }
    Err(LockError::Stuck)
}

/// Makes the tables, or brings them up to date. Large ones take their time, so the whole has no limit; but the database has
/// to be at it, or a broker whose connection is silent would keep the baton for ever.
pub(super) async fn migrate_tables(line: &impl Line) -> Result<(), LockError> {
    let mut migrating = pin!(line.migrate());
    let (mut looks, mut idle_looks) = (0, 0);
    while idle_looks < IDLE_LOOKS_MAX {
        if let Ok(migrated) = timeout(MIGRATION_LOOK, &mut migrating).await {
            return migrated;
        }
        looks += 1;
        match timeout(MIGRATION_LOOK, line.is_migrating()).await {
            Ok(Ok(true)) => idle_looks = 0,
            _idle_or_not_to_be_asked => idle_looks += 1,
        }
        if looks % LOOKS_TOLD == 0 {
            tracing::warn!("the tables are still being brought up to date, and nobody serves before that is done");
        }
    }
    let source = "the database is not at the tables any more, and does not answer".into();
    Err(LockError::Database { action: "migrate", source })
}

/// What both strategies take from a [`Line`] as it is.
macro_rules! line_verbs {
    () => {
        async fn look(&mut self) -> Result<Option<BatonRow>, LockError> {
            self.line.look().await
        }

        async fn migrate(&mut self) -> Result<(), LockError> {
            crate::election::line::migrate_tables(&self.line).await
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
pub(super) use line_verbs;
