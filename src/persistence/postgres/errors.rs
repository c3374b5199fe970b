//! What an error of PostgreSQL means for a batch, and what it means for everything else.

use tokio_postgres::Error;

use super::StoreError;
use crate::{db::SchemaError, persistence::CommitError, types::Group};

/// What became of a batch whose `statement` failed.
///
/// A statement that the server answered with an error wrote nothing; what it did not answer may have been written, or
/// may be still.
pub(super) fn not_committed(group: &Group, statement: &'static str, error: Error) -> CommitError {
    let Some(code) = error.code() else { return CommitError::Unknown { source: error.into() } };
    match meaning(code.code()) {
        Meaning::Altered => altered(group, statement, error).into(),
        Meaning::Again => CommitError::Again { source: error.into() },
        Meaning::Full => CommitError::Full,
        Meaning::Refused => CommitError::Refused { source: error.into() },
        Meaning::Unknown => CommitError::Unknown { source: error.into() },
    }
}

/// What an SQLSTATE means for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Again,
    Full,
    Refused,
    Altered,
    Unknown,
}

fn meaning(code: &str) -> Meaning {
    match code {
        _ if is_altered(code) => Meaning::Altered,
        // serialization_failure, deadlock_detected, lock_not_available, query_canceled
        "40001" | "40P01" | "55P03" | "57014" => Meaning::Again,
        // disk_full, out_of_memory
        "53100" | "53200" => Meaning::Full,
        // The connection, the transaction or the server as a whole is in trouble, whatever the batch.
        _ if ["08", "25", "40", "53", "55", "57", "58", "F0", "XX"].iter().any(|class| code.starts_with(class)) => {
            Meaning::Unknown
        }
        // The data is impossible, or too much; a constraint says no; or a trigger does, with a code of its own.
        _ => Meaning::Refused,
    }
}

/// Why the store can't do something, from an error of `statement`.
pub(super) fn failed(group: &Group, statement: &'static str, error: Error) -> StoreError {
    match error.code() {
        Some(code) if is_altered(code.code()) => altered(group, statement, error).into(),
        _ => StoreError::Database { action: statement, source: error.into() },
    }
}

/// Every batch would fail like this until a human mends it: names or types do not fit, a right is missing, a column was
/// added that we do not fill; or somebody between takes prepared statements away.
fn is_altered(code: &str) -> bool {
    code.starts_with("42") || code.starts_with("3F") || code.starts_with("26") || code == "0A000" || code == "23502"
}

fn altered(group: &Group, statement: &'static str, error: Error) -> SchemaError {
    SchemaError::Altered { group: group.clone(), statement, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r13_an_error_says_what_became_of_a_batch() {
        for (code, expected) in [
            ("40001", Meaning::Again),
            ("57014", Meaning::Again),
            ("53100", Meaning::Full),
            ("22021", Meaning::Refused),
            ("23514", Meaning::Refused),
            ("54001", Meaning::Refused),
            ("P0001", Meaning::Refused),
            ("45000", Meaning::Refused),
            ("U0001", Meaning::Refused),
            ("23502", Meaning::Altered),
            ("42P01", Meaning::Altered),
            ("26000", Meaning::Altered),
            ("08006", Meaning::Unknown),
            ("25006", Meaning::Unknown),
            ("40003", Meaning::Unknown),
            ("53300", Meaning::Unknown),
            ("57P01", Meaning::Unknown),
            ("58030", Meaning::Unknown),
            ("XX000", Meaning::Unknown),
        ] {
            assert_eq!(meaning(code), expected, "{code}");
        }
    }
}
