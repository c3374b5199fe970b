//! What an error of PostgreSQL means for a batch, and what it means for everything else.

use tokio_postgres::{Error, error::SqlState};

use super::StoreError;
use crate::{db::SchemaError, persistence::CommitError, types::Group};

/// What became of a batch whose `statement` failed.
///
/// A statement that the server answered with an error wrote nothing; what it did not answer may have been written, or
/// may be still.
pub(super) fn not_committed(group: &Group, statement: &'static str, error: Error) -> CommitError {
    let Some(code) = error.code() else { return CommitError::Unknown { source: error.into() } };
    if is_altered(code) {
        return altered(group, statement, error).into();
    }
    match code.code() {
        // serialization_failure, deadlock_detected, lock_not_available, query_canceled
        "40001" | "40P01" | "55P03" | "57014" => CommitError::Again { source: error.into() },
        // disk_full, out_of_memory
        "53100" | "53200" => CommitError::Full,
        // A trigger or a constraint that somebody added says no; or the data itself is impossible, or too much.
        "P0001" | "54000" => CommitError::Refused { source: error.into() },
        code if code.starts_with("22") || code.starts_with("23") => CommitError::Refused { source: error.into() },
        _ => CommitError::Unknown { source: error.into() },
    }
}

/// Why the store can't do something, from an error of `statement`.
pub(super) fn failed(group: &Group, statement: &'static str, error: Error) -> StoreError {
    match error.code() {
        Some(code) if is_altered(code) => altered(group, statement, error).into(),
        _ => StoreError::Database { action: statement, source: error.into() },
    }
}

/// Every batch would fail like this until a human mends it: names or types do not fit, a right is missing, a column was
/// added that we do not fill; or somebody between takes prepared statements away.
fn is_altered(code: &SqlState) -> bool {
    let code = code.code();
    code.starts_with("42") || code.starts_with("3F") || code.starts_with("26") || code == "0A000" || code == "23502"
}

fn altered(group: &Group, statement: &'static str, error: Error) -> SchemaError {
    SchemaError::Altered { group: group.clone(), statement, source: error.into() }
}
