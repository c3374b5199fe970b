//! How a command ends: an exit code for each reason that a script would tell apart, and one sentence for a human.

use std::{error::Error, io, path::Path, process::ExitCode};

use super::journal::JournalCommandError;
use crate::{
    config::ConfigError,
    db::{ConnectError, SchemaError},
    election::LockError,
    node::NodeError,
    persistence::{StoreError, journal::RepairError},
    server::ServerError,
    types::with_causes,
};

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done, or stopped politely
  1  anything that is not below
  2  the command line makes no sense
  3  the configuration is wrong
  4  an address to listen on is taken or can't be had
  5  the journal is damaged
  6  the journal or the database's tables are of a newer version
  7  no permission for a file, a directory, a port or the database's tables
  8  a broker holds the data directory (at a start only with --no-wait)
  9  the doctor found something that has to be mended";

/// Why a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Anything that is not below.
    Other = 1,
    /// The configuration is wrong.
    Config = 3,
    /// An address to listen on is taken or can't be had.
    Port = 4,
    /// The journal is damaged.
    Damaged = 5,
    /// The journal or the database's tables are of a newer version.
    Newer = 6,
    /// No permission.
    Permission = 7,
    /// Another broker holds the data directory.
    Locked = 8,
    /// The doctor found something that has to be mended.
    Unhealthy = 9,
}

/// A command that did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    sentence: String,
}

impl Failure {
    /// `error` and its causes, and then what to do.
    #[must_use]
    pub fn new(exit: Exit, error: &(dyn Error + 'static), fix: &str) -> Self {
        let sentence = with_causes(error);
        Self { exit, sentence: if fix.is_empty() { sentence } else { format!("{sentence}; {fix}") } }
    }

    /// Of a journal that no broker starts on.
    fn of_damage(error: &(dyn Error + 'static), data: &Path) -> Self {
        let fix = format!(
            "restore the data directory from a copy, or save what is good in it with: batonmq journal repair {}",
            data.display()
        );
        Self::new(Exit::Damaged, error, &fix)
    }

    /// Says it on standard error.
    #[must_use]
    pub fn tell(&self) -> ExitCode {
        eprintln!("batonmq: {}", self.sentence);
        ExitCode::from(self.exit as u8)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Other, &error, "")
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let (exit, fix) = match &error {
            ConfigError::Unreadable { source, .. } if denied(source) => (Exit::Permission, PERMISSION),
            ConfigError::Unreadable { .. } => (Exit::Config, "name a file that is there"),
            ConfigError::Unknown { .. } => (Exit::Config, "correct its name or remove it"),
            ConfigError::Syntax { .. } | ConfigError::Invalid { .. } => (Exit::Config, ""),
        };
        Self::new(exit, &error, fix)
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        if let NodeError::Store(StoreError::Damaged { path, .. }) = &error {
            return Self::of_damage(&error, data_of(path));
        }
        let (exit, fix) = match &error {
            NodeError::Data { source, .. } => of_io(source),
            NodeError::Lock(error) => of_lock(error),
            NodeError::Store(error) => of_store(error),
            NodeError::Server(error) => of_server(error),
            NodeError::Console(error) => of_console(&error.source),
            NodeError::User(_) => (Exit::Config, ""),
            NodeError::Locked(_) => (Exit::Locked, "stop it, choose another --data, or leave out --no-wait to wait"),
            NodeError::BatonLost(_) => {
                (Exit::Other, "start the broker again; it will wait for the one that is master now")
            }
            NodeError::TaskEnded(_) => (Exit::Other, "the log says why; start the broker again"),
            NodeError::StopTimeout(_) => (Exit::Other, "what was confirmed is safe; raise stop_timeout"),
            NodeError::StoppedAtOnce => (Exit::Other, "what was confirmed is safe"),
            NodeError::Signals(_) => (Exit::Other, "raise the limit of open files"),
        };
        Self::new(exit, &error, fix)
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        NodeError::from(error).into()
    }
}

impl From<JournalCommandError> for Failure {
    fn from(error: JournalCommandError) -> Self {
        let (exit, fix) = match &error {
            JournalCommandError::Damaged { data, .. } => return Self::of_damage(&error, data),
            JournalCommandError::InUse { .. } => (Exit::Locked, ""),
            JournalCommandError::NotOwner { .. } => (Exit::Permission, "repair it as the user that runs the broker"),
            JournalCommandError::Repair(RepairError::NoRoom { .. }) => (Exit::Other, "make room, and repair it again"),
            JournalCommandError::Repair(RepairError::Exchange { .. }) => (Exit::Other, ""), // it says itself what to do
            JournalCommandError::Lock(error) => of_lock(error),
            JournalCommandError::Store(error) | JournalCommandError::Repair(RepairError::Store(error)) => {
                of_store(error)
            }
            JournalCommandError::Output(_) => (Exit::Other, "write it to a place that takes it"),
        };
        Self::new(exit, &error, fix)
    }
}

/// The data directory of a file of its journal.
fn data_of(path: &Path) -> &Path {
    path.ancestors().nth(2).unwrap_or(path)
}

const PERMISSION: &str = "give the user that runs the broker access to it";

fn denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn of_io(error: &io::Error) -> (Exit, &'static str) {
    if denied(error) { (Exit::Permission, PERMISSION) } else { (Exit::Other, "check the disk and the option data") }
}

fn of_lock(error: &LockError) -> (Exit, &'static str) {
    match error {
        LockError::Denied { .. } => (Exit::Permission, ""),
        LockError::Io { source, .. } => of_io(source),
        LockError::Connect(error) => of_connect(error),
        LockError::Schema(error) => of_schema(error),
        LockError::Database { .. } | LockError::Outrun { .. } | LockError::Stuck => (Exit::Other, error.fix()),
    }
}

fn of_connect(error: &ConnectError) -> (Exit, &'static str) {
    let is_written =
        matches!(error, ConnectError::Url { .. } | ConnectError::Certificates { .. } | ConnectError::Pooled { .. });
    (if is_written { Exit::Config } else { Exit::Other }, error.fix())
}

fn of_schema(error: &SchemaError) -> (Exit, &'static str) {
    let exit = match error {
        SchemaError::Newer { .. } => Exit::Newer,
        SchemaError::Denied { .. } => Exit::Permission,
        _ => Exit::Other,
    };
    (exit, error.fix())
}

fn of_store(error: &StoreError) -> (Exit, &'static str) {
    let exit = match error {
        StoreError::Damaged { .. } => Exit::Damaged,
        StoreError::NewerFormat { .. } => Exit::Newer,
        StoreError::Io { source, .. } if denied(source) => Exit::Permission,
        StoreError::Connect(error) => of_connect(error).0,
        StoreError::Schema(error) => of_schema(error).0,
        _ => Exit::Other,
    };
    (exit, error.fix())
}

fn of_server(error: &ServerError) -> (Exit, &'static str) {
    let exit = match error {
        ServerError::Listen { source, .. } if denied(source) => Exit::Permission,
        ServerError::Listen { .. } => Exit::Port,
        ServerError::Tls { source, .. } if source.downcast_ref::<io::Error>().is_some_and(denied) => Exit::Permission,
        ServerError::Tls { .. } => Exit::Config,
    };
    (exit, error.fix())
}

fn of_console(error: &io::Error) -> (Exit, &'static str) {
    match error.kind() {
        io::ErrorKind::PermissionDenied => (Exit::Permission, "choose a port from 1024 in console.listen"),
        io::ErrorKind::AddrInUse => {
            (Exit::Port, "stop the program that has it, or choose another port in console.listen (\"\": no console)")
        }
        _ => (Exit::Port, "choose an address of this machine in console.listen (\"\": no console)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_sentence_with_cause_and_fix() {
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let error = ServerError::Listen { connector: "stomp".into(), address: "127.0.0.1:61613".into(), source };
        let failure = Failure::from(error);
        assert_eq!(failure.exit, Exit::Port);
        assert_eq!(
            failure.sentence,
            "cannot listen on 127.0.0.1:61613 for connector stomp: address in use; \
             stop the program that has it, or choose another port in the connector's uri"
        );
    }

    #[test]
    fn a_file_system_that_is_not_fit_is_named_with_what_to_do() {
        let source = io::Error::from(io::ErrorKind::Unsupported);
        let error = StoreError::Unfit { call: "rename", path: "data".into(), source };
        let failure = Failure::from(NodeError::Store(error));
        assert!(
            failure.sentence.ends_with("; keep data on a local file system, such as ext4 or XFS"),
            "{}",
            failure.sentence
        );
    }

    #[test]
    fn every_reason_has_its_code() {
        let exit = |error: NodeError| Failure::from(error).exit;
        let io = |kind: io::ErrorKind| io::Error::from(kind);
        let path = || std::path::PathBuf::from("data");
        let store = |error: StoreError| exit(NodeError::Store(error));
        assert_eq!(store(StoreError::Damaged { path: path(), offset: 7, what: "checksum" }), Exit::Damaged);
        assert_eq!(store(StoreError::NewerFormat { path: path(), found: 9, supported: 1 }), Exit::Newer);
        let denied = io(io::ErrorKind::PermissionDenied);
        assert_eq!(store(StoreError::Io { action: "open", path: path(), source: denied }), Exit::Permission);
        let denied = io(io::ErrorKind::PermissionDenied);
        assert_eq!(exit(LockError::Io { action: "open", path: path(), source: denied }.into()), Exit::Permission);
        assert_eq!(exit(NodeError::Locked("the data directory data".to_owned())), Exit::Locked);
        let source = io(io::ErrorKind::InvalidInput);
        assert_eq!(store(StoreError::Unfit { call: "sync", path: path(), source }), Exit::Other);
        assert_eq!(exit(NodeError::StoppedAtOnce), Exit::Other);
    }
}
