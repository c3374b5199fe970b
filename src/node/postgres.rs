//! A broker on PostgreSQL: how its parts are put together.

use super::{Node, NodeError, Signals};
use crate::{
    config::{Config, Secret, Strategy},
    db::postgres::{Postgres, PostgresOptions},
    election::{
        Lease, LockError, Survey,
        database::{LockDatabase as _, LockSession as _, Purpose},
        postgres::{LeaseTable, PostgresElection, SessionLock},
    },
    persistence::{PostgresAdapter, StoreError},
    types::Group,
};

impl Node<'_> {
    /// Checks URLs and reads certificates first: a standby must not find out at its take-over that they are no good.
    pub(super) async fn live_on_postgres(self, signals: &mut Signals) -> Result<(), NodeError> {
        let (postgres, group) = postgres(&self.config)?;
        let election = PostgresElection::new(postgres.clone(), group.clone(), Lease::new(self.config.election.lease));
        let open_store = move || PostgresAdapter::new(postgres.clone(), group.clone());
        match self.config.election.strategy {
            Strategy::Auto | Strategy::SessionLock => self.live_in(SessionLock(election), open_store, signals).await,
            Strategy::Lease => self.live_in(LeaseTable(election), open_store, signals).await,
        }
    }
}

/// The database of a configuration whose store is PostgreSQL, and the group.
///
/// # Errors
/// [`StoreError::Connect`] if the URL or the certificates can't be used.
pub fn postgres(config: &Config) -> Result<(Postgres, Group), StoreError> {
    let database = config.store.database.as_ref().expect("the configuration was checked");
    let options = PostgresOptions {
        url: database.url.reveal(),
        password: database.password.as_ref().map(Secret::reveal),
        tls_ca_file: database.tls_ca_file.as_deref(),
        broker_name: &config.broker_name,
    };
    Ok((Postgres::new(&options)?, database.group.clone()))
}

/// What the database of a configuration knows of its group. `None`: nobody has made the tables yet.
///
/// # Errors
/// [`LockError`] if it can't be asked.
pub async fn survey(config: &Config) -> Result<Option<Survey>, LockError> {
    let (postgres, group) = postgres(config).map_err(|error| match error {
        StoreError::Connect(error) => LockError::Connect(error),
        other => LockError::Database { action: "connect", source: other.into() },
    })?;
    let election = PostgresElection::new(postgres, group, Lease::new(config.election.lease));
    SessionLock(election).connect(Purpose::Signs).await?.survey().await
}
