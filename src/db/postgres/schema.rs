//! The tables of a group, which are a PostgreSQL schema of the group's name: their version, and how they come to be.
//!
//! Only the master brings them up to date (in `recover`), or a human (`batonmq migrate`); a broker that waits never
//! touches them. Always true: all missing migrations are applied in one transaction, by one at a time.

use tokio_postgres::{Row, error::SqlState};

use super::{Session, statement};
use crate::{
    db::{
        SchemaError,
        columns::{self, Column},
        lock_key,
    },
    types::Group,
};

/// The version that this program needs.
pub const SUPPORTED: u32 = 1;

/// What leads from each version to the next, beginning with none.
const MIGRATIONS: [&str; SUPPORTED as usize] = [include_str!("../../../sql/postgres/migrations/0001_group.sql")];

/// What the tables look like that they make: a line for each thing that a broker relies on.
pub const SHAPE: &str = include_str!("../../../sql/postgres/shape.txt");

const COLUMNS: &str = include_str!("../../../sql/postgres/columns.sql");

const VERSION: &str = include_str!("../../../sql/postgres/version.sql");

/// The migrations as one text for `psql`. Each is a transaction of its own, and changes nothing the second time.
#[must_use]
pub fn script(group: &Group) -> String {
    let mut script = statement("CREATE SCHEMA IF NOT EXISTS {group};\n", group);
    for (version, migration) in (1..).zip(MIGRATIONS) {
        script.push_str(&statement(&format!("\nBEGIN;\n\n{}\nCOMMIT;\n", with_version(version, migration)), group));
    }
    script
}

fn with_version(version: u32, migration: &str) -> String {
    format!("{migration}\nINSERT INTO {{group}}.schema_version (version) VALUES ({version});\n")
}

/// The version of the group's tables; 0: there are none.
///
/// # Errors
/// [`SchemaError::Newer`] if this program is too old for them, [`SchemaError::Failed`] if they can't be looked at.
pub async fn version(session: &Session, group: &Group) -> Result<u32, SchemaError> {
    let failed = |source| failed(group, "look at", source);
    let exists = "SELECT 1 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                  WHERE n.nspname = $1 AND c.relname = 'schema_version'";
    if session.query_opt(exists, &[&group.as_str()]).await.map_err(failed)?.is_none() {
        return Ok(0);
    }
    let version = session.query_one_scalar::<Option<i32>, _>(&statement(VERSION, group), &[]).await.map_err(failed)?;
    let found = version.and_then(|version| u32::try_from(version).ok()).unwrap_or_default();
    match found {
        0..=SUPPORTED => Ok(found),
        _ => Err(SchemaError::Newer { group: group.clone(), found, supported: SUPPORTED }),
    }
}

/// Brings the group's tables up to date; the versions that were missing.
///
/// # Errors
/// [`SchemaError::Denied`] if this role may not do it; nothing was changed then, as after every error.
pub async fn migrate(session: &Session, group: &Group) -> Result<Vec<u32>, SchemaError> {
    if version(session, group).await? == SUPPORTED {
        return Ok(Vec::new());
    }
    let failed = |source| failed(group, "make", source);
    session.batch_execute("BEGIN").await.map_err(failed)?;
    let migrated = migrate_in_transaction(session, group).await;
    session.batch_execute(if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.map_err(failed)?;
    migrated
}

/// Whether somebody is in the middle of [`migrate`].
///
/// # Errors
/// [`SchemaError::Failed`] if the database can't be asked.
pub async fn is_migrating(session: &Session, group: &Group) -> Result<bool, SchemaError> {
    let is_free =
        session.query_one_scalar("SELECT pg_try_advisory_xact_lock($1)", &[&lock_key("migrate", group)]).await;
    is_free.map(|is_free: bool| !is_free).map_err(|source| failed(group, "look at", source))
}

/// Checks that nobody altered the columns of the group's tables, which are up to date.
///
/// # Errors
/// [`SchemaError::Altered`], which names table and column.
pub async fn check(session: &Session, group: &Group) -> Result<(), SchemaError> {
    let rows = session.query(COLUMNS, &[&group.as_str()]).await;
    let rows = rows.map_err(|source| failed(group, "look at", source))?;
    let column = |row: &Row| Column {
        table: row.get("table_name"),
        name: row.get("name"),
        must_be_filled: row.get("must_be_filled"),
    };
    columns::check(group, SHAPE, &rows.iter().map(column).collect::<Vec<_>>())
}

/// Removes the group's tables, with all that is in them.
///
/// # Errors
/// [`SchemaError::Denied`] if this role may not do it.
pub async fn remove(session: &Session, group: &Group) -> Result<(), SchemaError> {
    let removed = session.batch_execute(&statement("DROP SCHEMA IF EXISTS {group} CASCADE", group)).await;
    removed.map_err(|source| failed(group, "remove", source))
}

async fn migrate_in_transaction(session: &Session, group: &Group) -> Result<Vec<u32>, SchemaError> {
    let failed = |source| failed(group, "make", source);
    session.execute("SELECT pg_advisory_xact_lock($1)", &[&lock_key("migrate", group)]).await.map_err(failed)?;
    let found = version(session, group).await?; // somebody else may have been faster
    let exists = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1";
    if session.query_opt(exists, &[&group.as_str()]).await.map_err(failed)?.is_none() {
        session.batch_execute(&statement("CREATE SCHEMA {group}", group)).await.map_err(failed)?;
    }
    let mut missing = Vec::new();
    for (version, migration) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        session.batch_execute(&statement(&with_version(version, migration), group)).await.map_err(failed)?;
        missing.push(version);
    }
    Ok(missing)
}

fn failed(group: &Group, action: &'static str, source: tokio_postgres::Error) -> SchemaError {
    let group = group.clone();
    if source.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return SchemaError::Denied { group, source: source.into() };
    }
    SchemaError::Failed { group, action, source: source.into() }
}
