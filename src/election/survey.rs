//! What the database knows of a group, for people. All ages are by the database's clock.

use serde::Serialize;

/// The baton, and the brokers of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// The last term.
    pub term: u32,
    /// The last token.
    pub token: u64,
    /// Who took over last; `None`: nobody ever did.
    pub holder: Option<String>,
    /// Its process.
    pub instance: Option<String>,
    /// It gave the baton back.
    pub released: bool,
    /// Whether the lock, or the lease, is held at the moment.
    pub held: bool,
    /// How long ago it took over. Unit: milliseconds.
    pub held_for_ms: Option<i64>,
    /// With the strategy `lease`: when it runs out. Unit: milliseconds from now; below zero, it ran out.
    pub lease_left_ms: Option<i64>,
    /// Those of whom something was heard, by name.
    pub brokers: Vec<BrokerSeen>,
    /// The last masterships, newest first.
    pub tenures: Vec<TenureSeen>,
}

impl Survey {
    /// Who serves, if somebody does.
    #[must_use]
    pub fn master(&self) -> Option<&str> {
        self.holder.as_deref().filter(|_| self.held && !self.released)
    }
}

/// A broker, by its last sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BrokerSeen {
    /// Its `broker_name`.
    pub name: String,
    /// Its process.
    pub instance: String,
    /// What it said it was.
    pub role: String,
    /// Where its clients connect, or would.
    pub addresses: String,
    /// How long ago it said so. Unit: milliseconds.
    pub seen_ms_ago: i64,
}

/// A mastership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenureSeen {
    /// Its term when it began.
    pub term: u32,
    /// Its token when it began.
    pub token: u64,
    /// Whose it was.
    pub broker: String,
    /// When it began, as the database writes it.
    pub began: String,
    /// When it ended; `None`: as far as is known it did not.
    pub ended: Option<String>,
    /// Why it ended.
    pub reason: Option<String>,
}
