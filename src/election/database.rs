//! What a database does for an election: the verbs that `elector.rs` and `keeper.rs` are written in.
//!
//! An implementation only tries. It waits where it is told to, never longer, and never repeats anything by itself.

use std::{future::Future, time::Duration};

use tokio::time::{error::Elapsed, timeout};

use super::{HolderId, Lease, LockError, Survey};
use crate::types::{BootClock, History, Tenure};

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To wait for the baton and to hold it. The database ends the session, and takes back what it holds, when it hears
    /// nothing for a lease; that is so before the session waits for the first time (R22).
    Lock,
    /// To tell and to read signs of life.
    Signs,
}

impl Purpose {
    /// As the database shows it.
    #[must_use]
    pub fn shown(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Signs => "signs of life",
        }
    }
}

/// A database in which brokers of one group elect their master.
pub trait LockDatabase: Send + Sync + 'static {
    /// What is done over one connection.
    type Session: LockSession;

    /// A session of one's own, never from a pool.
    fn connect(&self, purpose: Purpose) -> impl Future<Output = Result<Self::Session, LockError>> + Send;

    /// What there is to hold, for messages: `group orders in db:5432/shop`.
    fn what(&self) -> String;

    /// By which a broker measures how long it may rely on an answer.
    fn boot_clock(&self) -> BootClock {
        BootClock::default()
    }
}

/// What is answered within a lease. Whoever says nothing for longer is given up, and the connection with it.
pub(super) async fn in_time<T>(
    lease: Lease,
    action: &'static str,
    answer: impl Future<Output = Result<T, LockError>>,
) -> Result<T, LockError> {
    let late = |late: Elapsed| Err(LockError::Database { action, source: late.into() });
    timeout(lease.length(), answer).await.unwrap_or_else(late)
}

/// What one connection can do. Dropping it gives back what it holds, and voids what it waits for. A future that is
/// dropped leaves the session fit for its next request.
pub trait LockSession: Send + Sync + 'static {
    /// What the baton's row says. `None`: nobody has made the tables yet.
    fn look(&mut self) -> impl Future<Output = Result<Option<BatonRow>, LockError>> + Send;

    /// Waits for the lock, for up to `patience`. `false`: somebody else has it.
    fn lock(&mut self, patience: Duration) -> impl Future<Output = Result<bool, LockError>> + Send;

    /// With the lock won: makes the tables if they are missing, or brings them up to date. That may take long.
    fn migrate(&mut self) -> impl Future<Output = Result<(), LockError>> + Send;

    /// With the lock won, and the tables there: waits for what is being written, and writes a tenure above both the
    /// row's and `seen` (R17), durably; closes the records of earlier tenures. After half a second it ends the sessions
    /// that the row names, and nobody else's (R19). `None`: somebody else was faster after all.
    fn take_over(
        &mut self,
        me: &HolderId,
        seen: Tenure,
    ) -> impl Future<Output = Result<Option<Tenure>, LockError>> + Send;

    /// Says a word: proves that the lock is held still, and extends it by a lease. `None`: it is not held.
    fn beat(&mut self, tenure: Tenure) -> impl Future<Output = Result<Option<BatonRow>, LockError>> + Send;

    /// On a new session: ends this process's earlier one, takes the lock if it is free, and notes this session as its
    /// holder's (R18). It raises nothing. `false`: not now.
    fn reclaim(&mut self, me: &HolderId, tenure: Tenure) -> impl Future<Output = Result<bool, LockError>> + Send;

    /// Marks the row as released, closes the tenure's record, and gives the lock back.
    fn release(
        &mut self,
        me: &HolderId,
        tenure: Tenure,
        why: &str,
    ) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Waits for the end of the connection, as far as this side hears of it. Cancel safe.
    fn closed(&self) -> impl Future<Output = ()> + Send;

    /// Whether [`Self::closed`] would not wait.
    fn is_closed(&self) -> bool;

    /// Tells that this process is alive; the other processes of the same name. Nothing happens while there are no tables.
    fn sign(
        &mut self,
        me: &HolderId,
        role: &str,
        addresses: &str,
    ) -> impl Future<Output = Result<Vec<Namesake>, LockError>> + Send;

    /// Takes the sign of life back: this process ends.
    fn leave(&mut self, me: &HolderId) -> impl Future<Output = Result<(), LockError>> + Send;

    /// All there is to know of the group. `None`: nobody has made the tables yet.
    fn survey(&mut self) -> impl Future<Output = Result<Option<Survey>, LockError>> + Send;
}

/// What the baton's row says, and where in the database's history it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatonRow {
    /// The last tenure.
    pub tenure: Tenure,
    /// Who took over last.
    pub holder: Option<HolderId>,
    /// It gave the baton back.
    pub released: bool,
    /// When it was read.
    pub history: History,
}

/// Another process with this one's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namesake {
    /// Which.
    pub instance: String,
    /// Where its clients connect.
    pub addresses: String,
    /// When it told its last sign of life: a number that grows with each.
    pub seen: i64,
}
