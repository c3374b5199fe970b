//! How many connections there are and were, counted where they begin and end.
//!
//! Always true: what is open is the number of guards that live. Nothing here is touched for a message.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// A protocol's name and version, as labels say it.
pub type Protocol = (&'static str, &'static str);

/// What the doors of a term count.
#[derive(Debug, Default)]
pub struct Traffic {
    connectors: Mutex<Vec<Arc<ConnectorTraffic>>>,
    sessions: Mutex<BTreeMap<Protocol, u64>>,
}

impl Traffic {
    /// The counts of one more connector.
    pub fn connector(&self, name: &str) -> Arc<ConnectorTraffic> {
        let connector = Arc::new(ConnectorTraffic { name: name.to_owned(), ..ConnectorTraffic::default() });
        lock(&self.connectors).push(Arc::clone(&connector));
        connector
    }

    /// All connectors.
    pub fn connectors(&self) -> Vec<Arc<ConnectorTraffic>> {
        lock(&self.connectors).clone()
    }

    /// A client said hello in this protocol; counted until the guard is dropped.
    #[must_use]
    pub fn session(self: &Arc<Self>, protocol: Protocol) -> OpenSession {
        *lock(&self.sessions).entry(protocol).or_default() += 1;
        OpenSession { traffic: Arc::clone(self), protocol }
    }

    /// Open sessions of every protocol that was spoken.
    pub fn sessions(&self) -> BTreeMap<Protocol, u64> {
        lock(&self.sessions).clone()
    }
}

/// What one connector counts.
#[derive(Debug, Default)]
pub struct ConnectorTraffic {
    name: String,
    accepted: AtomicU64,
    refused: AtomicU64,
    open: AtomicU64,
}

impl ConnectorTraffic {
    /// A connection was accepted; it is open until the guard is dropped.
    #[must_use]
    pub fn accept(self: &Arc<Self>) -> OpenConnection {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(self))
    }

    /// A connection got no place.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The connector's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connections so far that got a place.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections so far that got none.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }
}

/// A connection that is open as long as this lives.
#[derive(Debug)]
pub struct OpenConnection(Arc<ConnectorTraffic>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session that is open as long as this lives.
#[derive(Debug)]
pub struct OpenSession {
    traffic: Arc<Traffic>,
    protocol: Protocol,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        if let Some(open) = lock(&self.traffic.sessions).get_mut(&self.protocol) {
            *open -= 1;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_counted_while_its_guard_lives() {
        let traffic = Arc::new(Traffic::default());
        let connector = traffic.connector("stomp");
        let (connection, session) = (connector.accept(), traffic.session(("stomp", "1.2")));
        connector.refuse();
        assert_eq!((connector.open(), connector.accepted(), connector.refused()), (1, 1, 1));
        assert_eq!(traffic.sessions()[&("stomp", "1.2")], 1);
        drop((connection, session));
        assert_eq!((connector.open(), connector.accepted()), (0, 1));
        assert_eq!(traffic.sessions()[&("stomp", "1.2")], 0);
        assert_eq!(traffic.connectors()[0].name(), "stomp");
    }
}
