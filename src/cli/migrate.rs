//! `batonmq migrate`: the tables of a group, made or brought up to date by a role that may; or their text, to do it by
//! hand.

use std::{future::Future, io::Write};

use super::{Exit, Failure, start::Sources};
#[cfg(feature = "mysql")]
use crate::db::mysql;
#[cfg(feature = "postgres")]
use crate::db::postgres;
use crate::{
    config::{Backend, Config},
    node,
    persistence::StoreError,
    types::Group,
};

/// What `migrate` takes.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Print the statements instead, for psql or mariadb; nothing is connected to
    #[arg(long)]
    print: bool,
}

/// Why there is nothing to migrate.
#[derive(Debug, thiserror::Error)]
#[error("store.backend is {0:?}, which has no tables")]
struct NoTables(&'static str);

/// Makes the tables, or prints how.
pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let config = arguments.sources.load()?;
    let text = match config.store.backend {
        #[cfg(feature = "postgres")]
        Backend::Postgres => migrate_postgres(&config, arguments.print)?,
        #[cfg(feature = "mysql")]
        Backend::Mysql => migrate_mysql(&config, arguments.print)?,
        other => {
            let error = NoTables(other.as_str());
            return Err(Failure::new(Exit::Config, &error, "name the file with the database's options with --config"));
        }
    };
    Ok(out.write_all(text.as_bytes())?)
}

#[cfg(feature = "postgres")]
fn migrate_postgres(config: &Config, print: bool) -> Result<String, Failure> {
    use postgres::schema;
    let (postgres, group) = node::postgres(config).map_err(of_store)?;
    if print {
        return Ok(schema::script(&group));
    }
    let versions = wait_for(async {
        let (session, driver) = postgres.connect("migrate").await?;
        tokio::select! {
            migrated = schema::migrate(&session, &group) => Ok(migrated?),
            () = driver.run() => Err(StoreError::Closed),
        }
    })?;
    Ok(report(&group, &versions, schema::SUPPORTED))
}

#[cfg(feature = "mysql")]
fn migrate_mysql(config: &Config, print: bool) -> Result<String, Failure> {
    use mysql::schema;
    let (mysql, group) = node::mysql(config).map_err(of_store)?;
    if print {
        return Ok(schema::script(&group));
    }
    let versions = wait_for(async {
        let mut session = mysql.connect("migrate").await?;
        Ok(schema::migrate(&mysql, &mut session, &group).await?)
    })?;
    Ok(report(&group, &versions, schema::SUPPORTED))
}

fn wait_for(migration: impl Future<Output = Result<Vec<u32>, StoreError>>) -> Result<Vec<u32>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(migration).map_err(of_store)
}

fn report(group: &Group, made: &[u32], supported: u32) -> String {
    match made.last() {
        None => format!("the tables of group {group} have version {supported}; nothing to do\n"),
        Some(version) => format!("the tables of group {group} were brought to version {version}\n"),
    }
}

fn of_store(error: StoreError) -> Failure {
    node::NodeError::from(error).into()
}
