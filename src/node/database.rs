//! A broker whose group elects its master in the database that keeps the messages: how its parts are put together.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{Node, NodeError, Signals, life::Life};
#[cfg(feature = "mysql")]
use crate::election::mysql::MysqlElection;
#[cfg(feature = "postgres")]
use crate::election::postgres::PostgresElection;
use crate::{
    config::{Backend, Config, Strategy, write_duration},
    election::{
        Baton, DatabaseLocker, FileLocker, HolderId, Lease, LeaseTable, LockError, Locker as _, Presence, SessionLock,
        Sign, Survey,
        database::{LockDatabase, LockSession as _, Purpose},
        line::Election,
    },
    persistence::{PersistenceAdapter, StoreError},
    tasks::Tasks,
};

/// How long taking back the last sign of life may take.
const SIGN_OFF_PATIENCE: Duration = Duration::from_millis(300);

impl Node<'_> {
    /// With the baton of a group in a database, whatever stands for it there.
    pub(super) async fn live_by<E: Election, A: PersistenceAdapter>(
        self,
        election: E,
        open_store: impl FnMut() -> Result<A, StoreError>,
        signals: &mut Signals,
    ) -> Result<(), NodeError> {
        let lease = write_duration(self.config.election.lease);
        match self.config.election.strategy {
            Strategy::Auto | Strategy::SessionLock => {
                tracing::info!("the master is who has a session lock of the database, with a lease of {lease}");
                self.live_in(SessionLock(election), open_store, signals).await
            }
            Strategy::Lease => {
                tracing::info!("the master is who has the lease in the database, for {lease} at a time");
                self.live_in(LeaseTable(election), open_store, signals).await
            }
        }
    }

    async fn live_in<D: LockDatabase, A: PersistenceAdapter>(
        self,
        database: D,
        open_store: impl FnMut() -> Result<A, StoreError>,
        signals: &mut Signals,
    ) -> Result<(), NodeError> {
        let _data = self.own_data().await?;
        let Self { config, doors, standby, standing } = self;
        let (database, me) = (Arc::new(database), HolderId::new(&config.broker_name));
        let lease = Lease::new(config.election.lease);
        let (sign, signs) = watch::channel(Sign { role: "starting", addresses: doors.configured() });
        let presence = Tasks::new();
        let alive = Presence::new(Arc::clone(&database), me.clone(), lease, signs);
        presence.spawn("signs of life", alive.run(presence.stop_token()));
        let locker = DatabaseLocker::new(database, me, lease);
        let lived = Life { standing, config, doors, locker, open_store, standby, sign }.live(signals).await;
        if let Err(late) = presence.stop(SIGN_OFF_PATIENCE).await {
            tracing::debug!("this broker did not sign off: {late}");
        }
        lived
    }

    /// The data directory is this process's alone: its spool lies there.
    async fn own_data(&self) -> Result<Baton, NodeError> {
        let mut locker = FileLocker::new(&self.config.data);
        let held = locker.acquire(Duration::ZERO).await?;
        held.ok_or_else(|| NodeError::Locked(format!("{}; give each broker one of its own", locker.what())))
    }
}

/// What the database of a configuration knows of its group. `None`: nobody has made the tables yet.
///
/// # Errors
/// [`LockError`] if it can't be asked.
pub async fn survey(config: &Config) -> Result<Option<Survey>, LockError> {
    let lease = Lease::new(config.election.lease);
    match config.store.backend {
        #[cfg(feature = "postgres")]
        Backend::Postgres => {
            let (postgres, group) = super::postgres(config).map_err(of_store)?;
            survey_by(PostgresElection::new(postgres, group, lease)).await
        }
        #[cfg(feature = "mysql")]
        Backend::Mysql => {
            let (mysql, group) = super::mysql(config).map_err(of_store)?;
            survey_by(MysqlElection::new(mysql, group, lease)).await
        }
        _ => unreachable!("it is asked of databases, and the configuration was checked"),
    }
}

/// What is asked here does not depend on what stands for the baton.
async fn survey_by(election: impl Election) -> Result<Option<Survey>, LockError> {
    SessionLock(election).connect(Purpose::Signs).await?.survey().await
}

fn of_store(error: StoreError) -> LockError {
    match error {
        StoreError::Connect(error) => LockError::Connect(error),
        other => LockError::Database { action: "connect", source: other.into() },
    }
}
