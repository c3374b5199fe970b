//! Questions to PostgreSQL.

mod durability;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio_postgres::Error;

use super::{Report, group, shape};
use crate::{
    config::Config,
    db::{
        SchemaError, lock_key, number,
        postgres::{Postgres, Session, schema},
    },
    election::{LOCK_PURPOSE, LockError, postgres::require_own_sessions},
    node,
    persistence::StoreError,
    tasks::Tasks,
    types::{Clock, Group},
};

const SERVER: &str = include_str!("../../../sql/postgres/doctor/server.sql");
const CLOCK: &str = include_str!("../../../sql/postgres/doctor/clock.sql");
const MAY_MAKE: &str = include_str!("../../../sql/postgres/doctor/may_make.sql");
const RIGHTS: &str = include_str!("../../../sql/postgres/doctor/rights.sql");
const SHAPE: &str = include_str!("../../../sql/postgres/doctor/shape.sql");
const STRANGERS: &str = include_str!("../../../sql/postgres/doctor/strangers.sql");

/// Asks everything.
pub(super) async fn examine(config: &Config, report: &mut Report) {
    let drivers = Tasks::new();
    match Patient::connect(config, &drivers).await {
        Ok(patient) => {
            if let Err(error) = patient.examine(config, report).await {
                report.failed("database", &error, "look into the database's own log");
            }
        }
        Err(error) => report.failed("connection", &error, error.fix()),
    }
    drivers.abort();
}

/// A database that can be asked.
struct Patient {
    postgres: Postgres,
    session: Session,
    group: Group,
}

impl Patient {
    /// First of all whether sessions are one's own: what is set on others stays with strangers.
    async fn connect(config: &Config, drivers: &Tasks) -> Result<Self, LockError> {
        let (postgres, group) = node::postgres(config).map_err(|error| match error {
            StoreError::Connect(error) => LockError::Connect(error),
            other => LockError::Database { action: "connect", source: other.into() },
        })?;
        require_own_sessions(&postgres).await?;
        let (session, driver) = postgres.connect("doctor").await?;
        drivers.spawn("doctor", driver.run());
        Ok(Self { postgres, session, group })
    }

    async fn examine(&self, config: &Config, report: &mut Report) -> Result<(), Error> {
        self.server(report).await?;
        group::clock(&Clock::start(), self.clock().await?, report);
        group::lease(config, self.round_trip().await?, report);
        match schema::version(&self.session, &self.group).await {
            Ok(0) => self.no_tables(report).await,
            Ok(version) => {
                self.tables(version, report).await?;
                self.strangers(report).await?;
                group::brokers(config, report).await;
                Ok(())
            }
            Err(error @ SchemaError::Newer { .. }) => {
                report.failed("tables", &error, error.fix());
                Ok(())
            }
            // Whoever may not read the version lacks more than that.
            Err(_) => self.rights(report).await,
        }
    }

    async fn server(&self, report: &mut Report) -> Result<(), Error> {
        let row = self.session.query_one(SERVER, &[]).await?;
        let (version, role): (&str, &str) = (row.get("version"), row.get("role"));
        let address = self.postgres.address();
        report.ok("connection", format!("PostgreSQL {version} at {address}, as {role}; sessions are the broker's own"));
        durability::examine(&self.session, report).await?;
        group::room(number(row.get("connections_left")), report);
        if !row.get::<_, bool>("may_identify") {
            let fix = format!("GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO {role}");
            report.fail(
                "rights",
                "the database can't be told from a copy of it: pg_control_system() is forbidden",
                fix,
            );
        }
        Ok(())
    }

    async fn clock(&self) -> Result<i64, Error> {
        self.session.query_one_scalar(CLOCK, &[]).await
    }

    /// The longest of a few.
    async fn round_trip(&self) -> Result<Duration, Error> {
        let mut longest = Duration::ZERO;
        for _ in 0..5 {
            let asked = Instant::now();
            self.session.simple_query("SELECT 1").await?;
            longest = longest.max(asked.elapsed());
        }
        Ok(longest)
    }

    async fn no_tables(&self, report: &mut Report) -> Result<(), Error> {
        let group = &self.group;
        if self.session.query_one_scalar(MAY_MAKE, &[&group.as_str()]).await? {
            report.ok("tables", format!("group {group} has none yet; the first master makes them"));
        } else {
            let says = format!("group {group} has none, and this role may not make them");
            report.fail(
                "tables",
                says,
                "run batonmq migrate as a role that may, and grant what docs/databases.md lists",
            );
        }
        Ok(())
    }

    async fn tables(&self, version: u32, report: &mut Report) -> Result<(), Error> {
        self.rights(report).await?;
        if version < schema::SUPPORTED {
            let says = format!("they have version {version}, and this batonmq needs {}", schema::SUPPORTED);
            report.warn("tables", says, "the next master brings them up to date, or batonmq migrate does");
            return Ok(());
        }
        let lines = self.session.query(SHAPE, &[&self.group.as_str()]).await?;
        let found: BTreeSet<String> = lines.iter().map(|line| line.get("line")).collect();
        shape::compare(version, schema::SHAPE, &found, report);
        Ok(())
    }

    async fn rights(&self, report: &mut Report) -> Result<(), Error> {
        let lacking = self.session.query(RIGHTS, &[&self.group.as_str()]).await?;
        if lacking.is_empty() {
            report.ok("rights", "all that a broker needs");
        } else {
            let lacking = lacking.iter().map(|row| row.get("lacking")).collect::<Vec<&str>>().join("; ");
            report.fail("rights", format!("this role lacks {lacking}"), "grant what docs/databases.md lists");
        }
        Ok(())
    }

    /// Who holds the lock of the group and is no broker of it keeps every broker waiting.
    async fn strangers(&self, report: &mut Report) -> Result<(), Error> {
        for row in self.session.query(STRANGERS, &[&lock_key(LOCK_PURPOSE, &self.group)]).await? {
            let (pid, role, application): (i32, &str, &str) = (row.get("pid"), row.get("role"), row.get("application"));
            let says = format!(
                "the lock of group {} is held by a session that is no broker's: process {pid}, role {role}, {application:?}",
                self.group
            );
            report.fail("lock", says, "end it, or choose another store.group");
        }
        Ok(())
    }
}
