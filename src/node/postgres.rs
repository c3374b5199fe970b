//! A broker on PostgreSQL: how its parts are put together.

use super::{Node, NodeError, Signals};
use crate::{
    config::{Config, Secret},
    db::postgres::{Postgres, PostgresOptions},
    election::{Lease, postgres::PostgresElection},
    persistence::{PostgresAdapter, StoreError},
    types::Group,
};

impl Node<'_> {
    /// Checks URLs and reads certificates first: a standby must not find out at its take-over that they are no good.
    pub(super) async fn live_on_postgres(self, signals: &mut Signals) -> Result<(), NodeError> {
        let (postgres, group) = postgres(&self.config)?;
        let lease = Lease::new(self.config.election.lease);
        let election = PostgresElection::new(postgres.clone(), group.clone(), lease);
        self.live_by(election, move || PostgresAdapter::new(postgres.clone(), group.clone()), signals).await
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
