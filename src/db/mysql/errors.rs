//! What an error of MySQL, MariaDB or their driver means, whatever was asked.

use mysql_async::{DriverError, Error, IoError, ServerError};

/// What the server or the system said, without the driver's words around it: those repeat it.
#[must_use]
pub fn cause(error: Error) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        Error::Server(error) => error.into(),
        Error::Io(IoError::Io(error)) => error.into(),
        Error::Driver(error) => error.into(),
        Error::Other(error) => error,
        other => other.into(),
    }
}

/// Whether a session that was idle is gone: the server ended it, or was ended.
#[must_use]
pub fn is_lost(error: &Error) -> bool {
    match error {
        // shutdown, killed, idle for too long
        Error::Server(said) => matches!(said.code, 1053 | 1927 | 4031),
        _ => true,
    }
}

/// Whether every statement of its kind would fail like this until a human mends it: names or types do not fit, a right is
/// missing, a column was added that we do not fill.
#[must_use]
pub fn is_altered(said: &ServerError) -> bool {
    // a column that must not be NULL; one without a default; rights to the database, a table, a column, a view's parts
    matches!(said.code, 1044 | 1048 | 1142 | 1143 | 1356 | 1364)
        || ["42S02", "42S22", "21S01"].contains(&said.state.as_str())
}

/// Whether a table is not there.
#[must_use]
pub fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Server(ServerError { code: 1146, .. }))
}

/// Whether it fails like this until somebody changes something: the user, its password, its rights, the database.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Server(error) if matches!(error.code, 1044 | 1045 | 1049 | 1698))
}

/// What to do when a connection fails like this.
pub(super) fn fix_of(error: &Error) -> &'static str {
    match error {
        Error::Server(error) => match error.code {
            1045 | 1698 => "check the user in store.url, and store.password_file",
            1044 => "grant the role its rights on it",
            1049 => "create it, or correct store.url",
            1040 | 1203 | 1226 => "raise its max_connections, or the role's limit",
            1053 => "wait until it has started",
            _ => "look into the database's own log",
        },
        Error::Io(IoError::Tls(_)) | Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            "check store.tls_ca_file, and the server's ssl settings"
        }
        Error::Io(IoError::Io(error)) if error.get_ref().is_some_and(|error| error.is::<rustls::Error>()) => {
            "check store.tls_ca_file, and the server's ssl settings"
        }
        Error::Io(_) => "check store.url, and that the database runs",
        _ => "look into the database's own log",
    }
}
