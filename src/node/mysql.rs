//! A broker on MySQL or MariaDB: how its parts are put together.

use super::{Node, NodeError, Signals};
use crate::{
    config::{Config, Secret},
    db::mysql::{Mysql, MysqlOptions},
    election::{Lease, mysql::MysqlElection},
    persistence::{MysqlAdapter, StoreError},
    types::Group,
};

impl Node<'_> {
    /// Checks URLs and reads certificates first: a standby must not find out at its take-over that they are no good.
    pub(super) async fn live_on_mysql(self, signals: &mut Signals) -> Result<(), NodeError> {
        let (mysql, group) = mysql(&self.config)?;
        let lease = Lease::new(self.config.election.lease);
        let election = MysqlElection::new(mysql.clone(), group.clone(), lease);
        self.live_by(election, move || Ok(MysqlAdapter::new(mysql.clone(), group.clone())), signals).await
    }
}

/// The database of a configuration whose store is MySQL or MariaDB, and the group.
///
/// # Errors
/// [`StoreError::Connect`] if the URL or the certificates can't be used.
pub fn mysql(config: &Config) -> Result<(Mysql, Group), StoreError> {
    let database = config.store.database.as_ref().expect("the configuration was checked");
    let options = MysqlOptions {
        url: database.url.reveal(),
        password: database.password.as_ref().map(Secret::reveal),
        tls_ca_file: database.tls_ca_file.as_deref(),
        broker_name: &config.broker_name,
    };
    Ok((Mysql::new(&options)?, database.group.clone()))
}
