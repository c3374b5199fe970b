//! What an error of MySQL or MariaDB means for a batch, and what it means for everything else (R15).

use mysql_async::{Error, ServerError};

use super::StoreError;
use crate::{
    db::{
        SchemaError,
        mysql::{cause, is_altered},
    },
    persistence::CommitError,
    types::Group,
};

/// What became of a batch whose `statement`, before the COMMIT, failed. It is certain only once the transaction was
/// rolled back.
pub(super) fn not_written(group: &Group, statement: &'static str, error: Error) -> CommitError {
    let Error::Server(said) = &error else { return CommitError::Unknown { source: cause(error) } };
    match said.code {
        // lock wait timeout, deadlock; a statement that somebody killed, or that took too long
        1205 | 1213 | 1317 | 1969 | 3024 => CommitError::Again { source: cause(error) },
        // a table, the disk, or memory is full
        1021 | 1037 | 1038 | 1041 | 1114 => CommitError::Full,
        // an error of the disk (28: it is full), or of the operating system at writing a file
        1026 | 1030 if said.message.contains("28") => CommitError::Full,
        // too much for a packet, a row, the log, or the locks
        1118 | 1153 | 1197 | 1206 | 1301 | 1534 => CommitError::Refused { source: cause(error) },
        // a trigger or a constraint that somebody added says no
        1644 | 3819 | 4025 => CommitError::Refused { source: cause(error) },
        _ if is_altered(said) => altered(group, statement, error).into(),
        _ if said.state.starts_with("22") || said.state.starts_with("23") => {
            CommitError::Refused { source: cause(error) }
        }
        // 1047 (a node without its cluster), shutdown, read-only, killed, …
        _ => CommitError::Unknown { source: cause(error) },
    }
}

/// What became of a batch whose COMMIT failed: a deadlock is a cluster's way to refuse it whole; anything else may mean
/// that it is durable.
pub(super) fn not_committed(error: Error) -> CommitError {
    match &error {
        Error::Server(ServerError { code: 1205 | 1213, .. }) => CommitError::Again { source: cause(error) },
        _ => CommitError::Unknown { source: cause(error) },
    }
}

/// Why the store can't do something, from an error of `statement`.
pub(super) fn failed(group: &Group, statement: &'static str, error: Error) -> StoreError {
    match &error {
        Error::Server(said) if is_altered(said) => altered(group, statement, error).into(),
        _ => StoreError::Database { action: statement, source: cause(error) },
    }
}

fn altered(group: &Group, statement: &'static str, error: Error) -> SchemaError {
    SchemaError::Altered { group: group.clone(), statement, source: cause(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, state: &str, message: &str) -> Error {
        ServerError { code, state: state.to_owned(), message: message.to_owned() }.into()
    }

    #[test]
    fn r15_an_error_says_what_became_of_a_batch() {
        let group = Group::default();
        let kind = |code, state, message| match not_written(&group, "insert", error(code, state, message)) {
            CommitError::Deposed => "deposed",
            CommitError::Refused { .. } => "refused",
            CommitError::Full => "full",
            CommitError::Again { .. } => "again",
            CommitError::Unusable(_) => "unusable",
            CommitError::Unknown { .. } => "unknown",
        };
        for (code, state, expected) in [
            (1213, "40001", "again"),
            (1205, "HY000", "again"),
            (1317, "70100", "again"),
            (1114, "HY000", "full"),
            (1021, "HY000", "full"),
            (1047, "08S01", "unknown"),
            (1053, "08S01", "unknown"),
            (1290, "HY000", "unknown"),
            (1153, "08S01", "refused"),
            (1406, "22001", "refused"),
            (1062, "23000", "refused"),
            (4025, "23000", "refused"),
            (1644, "45000", "refused"),
            (1048, "23000", "unusable"),
            (1142, "42000", "unusable"),
            (1146, "42S02", "unusable"),
            (1054, "42S22", "unusable"),
        ] {
            assert_eq!(kind(code, state, ""), expected, "{code}");
        }
        assert_eq!(kind(1030, "HY000", "Got error 28 \"No space left on device\" from storage engine InnoDB"), "full");
        assert_eq!(kind(1030, "HY000", "Got error 168"), "unknown");
        let lost = not_written(&group, "insert", std::io::Error::other("gone").into());
        assert!(matches!(lost, CommitError::Unknown { .. }));
    }

    #[test]
    fn r15_at_the_commit_only_a_deadlock_means_that_nothing_was_written() {
        for code in [1213, 1205] {
            assert!(matches!(not_committed(error(code, "40001", "")), CommitError::Again { .. }));
        }
        for code in [1047, 1180, 1317, 1114, 1053] {
            assert!(matches!(not_committed(error(code, "HY000", "")), CommitError::Unknown { .. }), "{code}");
        }
    }
}
