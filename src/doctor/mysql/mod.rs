//! Questions to MySQL and MariaDB.

mod cluster;
mod durability;
mod facts;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use mysql_async::{Error, prelude::Queryable as _};
use tokio::time::sleep;

use self::facts::Facts;
use super::{Report, group, shape};
use crate::{
    config::{Config, Strategy},
    db::mysql::{Mysql, Session, cause, is_altered, schema, statement},
    election::LOCK_PURPOSE,
    node,
    persistence::StoreError,
    types::{Clock, Group},
};

const CLOCK: &str = include_str!("../../../sql/mysql/doctor/clock.sql");
const MAY_MAKE: &str = include_str!("../../../sql/mysql/doctor/may_make.sql");
const SHAPE: &str = include_str!("../../../sql/mysql/doctor/shape.sql");
const STRANGERS: &str = include_str!("../../../sql/mysql/doctor/strangers.sql");

/// The tables of a group, each with one of its columns.
const TABLES: [(&str, &str); 12] = [
    ("baton", "id"),
    ("broker", "instance"),
    ("destination", "id"),
    ("dispatch_mark", "holder"),
    ("durable", "id"),
    ("held", "sequence"),
    ("lease", "id"),
    ("message", "sequence"),
    ("purged", "holder"),
    ("returned", "sequence"),
    ("schema_version", "version"),
    ("tenure", "token"),
];

/// The rights that a broker needs on each table, and what asks for one without doing anything.
const RIGHTS: [(&str, &str); 4] = [
    ("SELECT", "SELECT 1 FROM {table} WHERE FALSE"),
    ("INSERT", "INSERT INTO {table} SELECT * FROM {table} WHERE FALSE"),
    ("UPDATE", "UPDATE {table} SET {column} = {column} WHERE FALSE"),
    ("DELETE", "DELETE FROM {table} WHERE FALSE"),
];

/// Until then a broker that has won the lock has written itself into the row.
const TAKE_OVER: Duration = Duration::from_secs(3);

/// Asks everything.
pub(super) async fn examine(config: &Config, report: &mut Report) {
    match Patient::connect(config).await {
        Ok(mut patient) => {
            if let Err(error) = patient.examine(config, report).await {
                report.failed("database", &*cause(error), "look into the database's own log");
            }
        }
        Err(StoreError::Connect(error)) => report.failed("connection", &error, error.fix()),
        Err(error) => report.failed("connection", &error, "look into the database's own log"),
    }
}

/// A database that can be asked.
struct Patient {
    mysql: Mysql,
    session: Session,
    group: Group,
}

impl Patient {
    async fn connect(config: &Config) -> Result<Self, StoreError> {
        let (mysql, group) = node::mysql(config)?;
        let session = mysql.connect("doctor").await?;
        Ok(Self { mysql, session, group })
    }

    async fn examine(&mut self, config: &Config, report: &mut Report) -> Result<(), Error> {
        self.server(config, report).await?;
        let theirs = self.session.query_first::<i64, _>(CLOCK).await?;
        group::clock(&Clock::start(), theirs.unwrap_or_default(), report);
        group::lease(config, self.round_trip().await?, report);
        match schema::version(&mut self.session, &self.group).await {
            Ok(0) => self.no_tables(report).await,
            Ok(version) => self.tables(config, version, report).await,
            Err(error) => {
                report.failed("tables", &error, error.fix());
                Ok(())
            }
        }
    }

    /// A server that is no good was refused already.
    async fn server(&mut self, config: &Config, report: &mut Report) -> Result<(), Error> {
        let facts = Facts::of(&mut self.session).await?;
        let server = self.session.server();
        report.ok("connection", format!("{} at {}", server.version(), self.mysql.address()));
        durability::examine(server, &facts, report);
        if server.is_clustered() {
            cluster::examine(config, &facts, report);
        }
        let [most, taken] = ["max_connections", "threads_connected"].map(|name| facts.number(name).unwrap_or_default());
        group::room(most.saturating_sub(taken), report);
        Ok(())
    }

    /// The longest of a few.
    async fn round_trip(&mut self) -> Result<Duration, Error> {
        let mut longest = Duration::ZERO;
        for _ in 0..5 {
            let asked = Instant::now();
            self.session.ping().await?;
            longest = longest.max(asked.elapsed());
        }
        Ok(longest)
    }

    async fn no_tables(&mut self, report: &mut Report) -> Result<(), Error> {
        let group = &self.group;
        if self.session.query_first(MAY_MAKE).await? == Some(true) {
            report.ok("tables", format!("group {group} has none yet; the first master makes them"));
        } else {
            let says = format!("group {group} has none that this user may see, and it may make none");
            report.fail(
                "tables",
                says,
                "run batonmq migrate as a user that may, and grant what docs/databases.md lists",
            );
        }
        Ok(())
    }

    async fn tables(&mut self, config: &Config, version: u32, report: &mut Report) -> Result<(), Error> {
        self.rights(report).await?;
        if version < schema::SUPPORTED {
            let says = format!("they have version {version}, and this batonmq needs {}", schema::SUPPORTED);
            report.warn("tables", says, "the next master brings them up to date, or batonmq migrate does");
            return Ok(());
        }
        let found: Vec<String> = self.session.exec(SHAPE, (self.group.as_str(),)).await?;
        shape::compare(version, schema::SHAPE, &BTreeSet::from_iter(found), report);
        if config.election.strategy != Strategy::Lease {
            self.strangers(report).await?;
        }
        group::brokers(config, report).await;
        Ok(())
    }

    /// Who holds the lock of the group and is not its master keeps every broker waiting. The server does not say what
    /// program that is; a broker that takes over is the master a moment later.
    async fn strangers(&mut self, report: &mut Report) -> Result<(), Error> {
        let Some(first) = self.stranger().await? else { return Ok(()) };
        sleep(TAKE_OVER).await;
        if self.stranger().await? == Some(first) {
            let says =
                format!("the lock of group {} is held by session {first}, which is not the master's", self.group);
            report.fail("lock", says, format!("end it (KILL {first}), or choose another store.group"));
        }
        Ok(())
    }

    async fn stranger(&mut self) -> Result<Option<u64>, Error> {
        let lock = self.mysql.lock_name(LOCK_PURPOSE, &self.group);
        self.session.exec_first(statement(STRANGERS, &self.group), (lock,)).await
    }

    async fn rights(&mut self, report: &mut Report) -> Result<(), Error> {
        let mut lacking = Vec::new();
        for (table, column) in TABLES {
            let name = format!("{}_{table}", self.group);
            for (right, statement) in RIGHTS {
                let statement = statement.replace("{table}", &name).replace("{column}", column);
                match self.session.query_drop(statement).await {
                    Err(Error::Server(error)) if matches!(error.code, 1142 | 1143) => {
                        lacking.push(format!("{right} on {name}"));
                    }
                    Err(Error::Server(error)) if is_altered(&error) => {} // it is told of the tables, below
                    answered => answered?,
                }
            }
        }
        if lacking.is_empty() {
            report.ok("rights", "all that a broker needs");
        } else {
            let says = format!("this user lacks {}", lacking.join("; "));
            report.fail("rights", says, "grant what docs/databases.md lists");
        }
        Ok(())
    }
}
