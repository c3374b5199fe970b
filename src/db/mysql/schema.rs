//! The tables of a group, whose names begin with the group's: their version, and how they come to be.
//!
//! Only the master brings them up to date (in `recover`), or a human (`batonmq migrate`); a broker that waits never
//! touches them. Always true: one at a time does it. The database commits after each statement that makes a table, so
//! every statement of a migration changes nothing the second time, and its version is noted last.

use std::time::Duration;

use mysql_async::{Error, Row, consts::ColumnFlags, prelude::Queryable as _};

use super::{Mysql, Session, cause, is_altered, statement};
use crate::{
    db::{
        SchemaError,
        columns::{self, Column},
    },
    types::Group,
};

/// The version that this program needs.
pub const SUPPORTED: u32 = 1;

/// What leads from each version to the next, beginning with none.
const MIGRATIONS: [&str; SUPPORTED as usize] = [include_str!("../../../sql/mysql/migrations/0001_group.sql")];

/// What the tables look like that they make: a line for each thing that a broker relies on.
pub const SHAPE: &str = include_str!("../../../sql/mysql/shape.txt");

const VERSION: &str = include_str!("../../../sql/mysql/version.sql");

const ENGINES: &str = include_str!("../../../sql/mysql/engines.sql");

/// How long one waits for somebody else who makes the tables.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// The migrations as one text for the `mariadb` or `mysql` client. It changes nothing the second time.
#[must_use]
pub fn script(group: &Group) -> String {
    let mut script = String::new();
    for (version, migration) in (1..).zip(MIGRATIONS) {
        script.push_str(&statement(&with_version(version, migration), group));
    }
    script
}

fn with_version(version: u32, migration: &str) -> String {
    let migration = migration.trim_end();
    format!(
        "{migration};\n\n\
         INSERT INTO {{group}}_schema_version (version, applied) VALUES ({version}, UTC_TIMESTAMP(3))\n\
         ON DUPLICATE KEY UPDATE version = VALUES(version);\n"
    )
}

/// The version of the group's tables; 0: there are none.
///
/// # Errors
/// [`SchemaError::Newer`] if this program is too old for them, [`SchemaError::Failed`] if they can't be looked at.
pub async fn version(session: &mut Session, group: &Group) -> Result<u32, SchemaError> {
    let failed = |source| failed(group, "look at", source);
    let exists = "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
    let table = format!("{group}_schema_version");
    if session.exec_first::<i64, _, _>(exists, (table,)).await.map_err(failed)?.is_none() {
        return Ok(0);
    }
    let version = session.query_first::<Option<u32>, _>(statement(VERSION, group)).await.map_err(failed)?;
    let found = version.flatten().unwrap_or_default();
    match found {
        0..=SUPPORTED => Ok(found),
        _ => Err(SchemaError::Newer { group: group.clone(), found, supported: SUPPORTED }),
    }
}

/// Brings the group's tables up to date; the versions that were missing.
///
/// # Errors
/// [`SchemaError::Denied`] if this role may not do it.
pub async fn migrate(mysql: &Mysql, session: &mut Session, group: &Group) -> Result<Vec<u32>, SchemaError> {
    if version(session, group).await? == SUPPORTED {
        return Ok(Vec::new());
    }
    let lock = mysql.lock_name("migrate", group);
    let failed = |source| failed(group, "make", source);
    let got = session.exec_first("SELECT GET_LOCK(?, ?)", (&lock, LOCK_PATIENCE.as_secs())).await.map_err(failed)?;
    if got.flatten() != Some(1) {
        let source = "somebody else is at it for too long".into();
        return Err(SchemaError::Failed { group: group.clone(), action: "make", source });
    }
    let migrated = migrate_locked(session, group).await;
    session.exec_drop("DO RELEASE_LOCK(?)", (&lock,)).await.map_err(failed)?;
    migrated
}

/// Whether the server works for somebody who is in the middle of [`migrate`].
///
/// # Errors
/// [`SchemaError::Failed`] if the server can't be asked.
pub async fn is_migrating(mysql: &Mysql, session: &mut Session, group: &Group) -> Result<bool, SchemaError> {
    let works = "SELECT 1 FROM information_schema.processlist WHERE id = IS_USED_LOCK(?) AND command <> 'Sleep'";
    let found = session.exec_first::<i64, _, _>(works, (mysql.lock_name("migrate", group),)).await;
    found.map(|found| found.is_some()).map_err(|source| failed(group, "look at", source))
}

/// Checks that the group's tables, which are up to date, have transactions, and that nobody altered their columns.
///
/// # Errors
/// [`SchemaError::Altered`], which names the table and what is wrong with it.
pub async fn check(session: &mut Session, group: &Group) -> Result<(), SchemaError> {
    require_transactions(session, group).await?;
    let columns = columns(session, group).await.map_err(|error| match &error {
        Error::Server(said) if is_altered(said) => {
            SchemaError::Altered { group: group.clone(), statement: "columns", source: cause(error) }
        }
        _ => failed(group, "look at", error),
    })?;
    columns::check(group, SHAPE, &columns)
}

/// Removes the group's tables and views, with all that is in them.
///
/// # Errors
/// [`SchemaError::Denied`] if this user may not do it.
pub async fn remove(session: &mut Session, group: &Group) -> Result<(), SchemaError> {
    let failed = |source| failed(group, "remove", source);
    let all = "SELECT table_name, table_type FROM information_schema.tables \
               WHERE table_schema = DATABASE() AND LEFT(table_name, CHAR_LENGTH(?) + 1) = CONCAT(?, '_')";
    let named = (group.as_str(), group.as_str());
    for (name, kind) in session.exec::<(String, String), _, _>(all, named).await.map_err(failed)? {
        let kind = if kind == "VIEW" { "VIEW" } else { "TABLE" };
        session.query_drop(format!("DROP {kind} IF EXISTS `{name}`")).await.map_err(failed)?;
    }
    Ok(())
}

async fn migrate_locked(session: &mut Session, group: &Group) -> Result<Vec<u32>, SchemaError> {
    let failed = |source| failed(group, "make", source);
    let found = version(session, group).await?; // somebody else may have been faster
    let mut missing = Vec::new();
    for (version, migration) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        session.query_drop(statement(&with_version(version, migration), group)).await.map_err(failed)?;
        missing.push(version);
    }
    Ok(missing)
}

/// A server may be told to take another engine than the one that was asked for, or somebody changed it.
async fn require_transactions(session: &mut Session, group: &Group) -> Result<(), SchemaError> {
    let tables = session.exec::<(String, String), _, _>(ENGINES, (group.as_str(),)).await;
    let tables = tables.map_err(|source| failed(group, "look at", source))?;
    let Some((table, engine)) = tables.first() else { return Ok(()) };
    let source = format!("table {table} is kept by the engine {engine}, which is not InnoDB").into();
    Err(SchemaError::Altered { group: group.clone(), statement: "engines", source })
}

/// What comes with the answer to a question for no rows: the server's lists of columns take the longer, the more tables
/// others have beside ours.
async fn columns(session: &mut Session, group: &Group) -> Result<Vec<Column>, Error> {
    let tables = columns::tables(SHAPE);
    let questions: String = tables.iter().map(|table| format!("SELECT * FROM {group}_{table} LIMIT 0;")).collect();
    let mut answers = session.query_iter(questions).await?;
    let mut columns = Vec::new();
    for table in tables {
        columns.extend(answers.columns_ref().iter().map(|column| Column {
            table: table.to_owned(),
            name: column.name_str().into_owned(),
            must_be_filled: column.flags().contains(ColumnFlags::NO_DEFAULT_VALUE_FLAG),
        }));
        answers.collect::<Row>().await?; // there are none, but the next answer follows
    }
    Ok(columns)
}

fn failed(group: &Group, action: &'static str, source: Error) -> SchemaError {
    let group = group.clone();
    match &source {
        // access to the database, to a table, to a column, or to a privilege that it takes is denied
        Error::Server(error) if matches!(error.code, 1044 | 1142 | 1143 | 1227) => {
            SchemaError::Denied { group, source: cause(source) }
        }
        _ => SchemaError::Failed { group, action, source: cause(source) },
    }
}
