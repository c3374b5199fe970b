//! `batonmq migrate`: the tables of a group, made or brought up to date by a role that may; or their text, to do it by
//! hand.

use std::io::Write;

use super::{Exit, Failure, start::Sources};
use crate::{config::Backend, db::postgres::schema, node, persistence::StoreError};

/// What `migrate` takes.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Print the statements instead, for psql; nothing is connected to
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
    if config.store.backend != Backend::Postgres {
        let error = NoTables(config.store.backend.as_str());
        return Err(Failure::new(Exit::Config, &error, "name the file with the database's options with --config"));
    }
    let (postgres, group) = node::postgres(&config).map_err(of_store)?;
    if arguments.print {
        return write(out, &schema::script(&group));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let versions = runtime.block_on(async {
        let (session, driver) = postgres.connect("migrate").await?;
        tokio::select! {
            migrated = schema::migrate(&session, &group) => Ok(migrated?),
            () = driver.run() => Err(StoreError::Closed),
        }
    });
    let text = match versions.map_err(of_store)?.as_slice() {
        [] => format!("the tables of group {group} have version {}; nothing to do\n", schema::SUPPORTED),
        made => format!("the tables of group {group} were brought to version {}\n", made.last().unwrap_or(&0)),
    };
    write(out, &text)
}

fn of_store(error: StoreError) -> Failure {
    node::NodeError::from(error).into()
}

fn write(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    Ok(out.write_all(text.as_bytes())?)
}
