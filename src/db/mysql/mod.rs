//! Connections to MySQL and MariaDB: where it is, who we are, TLS, and what every session relies on.
//!
//! Owns what is said before the first statement. Always true: the settings of a session are ours, whatever the server
//! or the role say by default; a server that can't keep what we promise is refused before anything is written.
//! Who is in doubt, or gave up waiting, drops the [`Session`]: what it asked may still be done, and its answer would be
//! taken for the next one's.
//! On failure: a [`ConnectError`], which names the database and what to do, and never a password.

mod errors;
mod queued;
pub mod schema;

use std::{
    error::Error,
    fmt,
    ops::{Deref, DerefMut},
    path::Path,
    sync::Arc,
    time::Duration,
};

use mysql_async::{Conn, Opts, OptsBuilder, SslOpts, prelude::Queryable as _};

use self::errors::{fix_of, is_refusal};
pub use self::{
    errors::{cause, is_altered, is_lost, is_missing},
    queued::{Answer, Driver, QueuedSession},
};
use super::{CONNECT_PATIENCE, ConnectError, for_group, roots};
use crate::types::Group;

/// What every session relies on.
const SETTINGS: &str = include_str!("../../../sql/mysql/session.sql");

/// What a server is like, of which some is no good.
const SERVER: &str = include_str!("../../../sql/mysql/server.sql");

/// The oldest versions that know all that is in `sql/mysql/`.
const MARIADB_MIN: (u32, u32) = (10, 6);

/// See [`MARIADB_MIN`].
const MYSQL_MIN: (u32, u32) = (8, 0);

/// Less is no good for messages. Unit: bytes.
const PACKET_BYTES_MIN: usize = 1 << 20;

/// So much should fit in a packet: it is what MySQL comes with. Unit: bytes.
const PACKET_BYTES_ADVISED: usize = 64 << 20;

/// A silent connection is asked for a sign of life after this.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Statements that a session keeps prepared: all there are, and those of pages.
const STATEMENTS_MAX: usize = 64;

/// What an operator says of a database.
#[derive(Clone, Copy)]
pub struct MysqlOptions<'a> {
    /// Where it is, and its parameters: `mysql://user@host:port/database?…`.
    pub url: &'a str,
    /// Counts more than one in the URL.
    pub password: Option<&'a str>,
    /// Who may sign the certificate that the database shows. `None`: the connection is not encrypted.
    pub tls_ca_file: Option<&'a Path>,
    /// Told to the database with each session.
    pub broker_name: &'a str,
}

/// A database that can be connected to. Clones share what was read from files.
#[derive(Clone)]
pub struct Mysql {
    opts: Opts,
    broker_name: Arc<str>,
    address: Arc<str>,
}

impl Mysql {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// [`ConnectError::Url`] and [`ConnectError::Certificates`].
    pub fn new(options: &MysqlOptions<'_>) -> Result<Self, ConnectError> {
        let unusable = |problem: &str| ConnectError::Url { problem: problem.to_owned() };
        let opts = Opts::from_url(options.url).map_err(|error| unusable(&error.to_string()))?;
        let database = opts.db_name().filter(|name| !name.is_empty());
        let database = database.ok_or_else(|| unusable("it names no database"))?;
        if opts.ssl_opts().is_some() && options.tls_ca_file.is_none() {
            return Err(unusable("it asks for TLS, and store.tls_ca_file does not say whose certificates are good"));
        }
        let address = format!("{}:{}/{database}", opts.ip_or_hostname(), opts.tcp_port()).into();
        // An encrypted connection to nobody knows whom is worth nothing, so there is nothing in between.
        let tls = options.tls_ca_file.map(tls).transpose()?;
        let mut builder = OptsBuilder::from_opts(opts.clone())
            .ssl_opts(tls)
            .prefer_socket(false)
            .client_found_rows(true)
            .stmt_cache_size(STATEMENTS_MAX)
            .tcp_keepalive(Some(KEEPALIVE));
        if let Some(password) = options.password {
            builder = builder.pass(Some(password));
        }
        Ok(Self { opts: builder.into(), broker_name: options.broker_name.into(), address })
    }

    /// Host, port and name of the database, for messages.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A name for a lock of this group that serves `purpose`, the same on every broker. Such locks are the server's,
    /// not the database's.
    #[must_use]
    pub fn lock_name(&self, purpose: &str, group: &Group) -> String {
        let database = self.opts.db_name().unwrap_or_default();
        let key = super::lock_key(&format!("{purpose}/{database}"), group);
        format!("batonmq {purpose} {key:016x}")
    }

    /// Opens a session, which tells the database that it is the program `batonmq NAME PURPOSE`.
    ///
    /// # Errors
    /// [`ConnectError::Refused`], [`ConnectError::Failed`] and [`ConnectError::Unfit`].
    pub async fn connect(&self, purpose: &str) -> Result<Session, ConnectError> {
        match tokio::time::timeout(CONNECT_PATIENCE, self.try_connect(purpose)).await {
            Ok(connected) => connected,
            Err(late) => Err(self.failed("check that it is there, and not overloaded", late.into())),
        }
    }

    async fn try_connect(&self, purpose: &str) -> Result<Session, ConnectError> {
        let program = format!("batonmq {} {purpose}", self.broker_name);
        let opts = OptsBuilder::from_opts(self.opts.clone()).connect_attribute("program_name", program);
        let mut conn = Conn::new(opts).await.map_err(|error| self.not_connected(error))?;
        let log = "look into the database's own log";
        let row = conn.query_first(SERVER).await.map_err(|error| self.failed(log, cause(error)))?;
        let server = Server::of(row.unwrap_or_default());
        server.problem().map_or(Ok(()), |(problem, fix)| Err(self.unfit(problem, fix)))?;
        let set = conn.query_drop(SETTINGS).await;
        set.map_err(|error| self.failed("a proxy between may forbid it: connect directly", cause(error)))?;
        Ok(Session { conn, server })
    }

    fn not_connected(&self, error: mysql_async::Error) -> ConnectError {
        let fix = fix_of(&error);
        if is_refusal(&error) {
            return ConnectError::Refused { address: self.address.to_string(), fix, source: cause(error) };
        }
        self.failed(fix, cause(error))
    }

    fn failed(&self, fix: &'static str, source: Box<dyn Error + Send + Sync>) -> ConnectError {
        ConnectError::Failed { address: self.address.to_string(), fix, source }
    }

    fn unfit(&self, problem: String, fix: &'static str) -> ConnectError {
        ConnectError::Unfit { address: self.address.to_string(), problem, fix }
    }
}

/// The password never shows.
impl fmt::Debug for Mysql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mysql").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A connection of one's own. Dropping it ends the session once the server has answered what was asked; whoever drops a
/// request before its answer has to drop the session too.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    server: Server,
}

impl Session {
    /// What the server is like.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }
}

impl Deref for Session {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// What a server is like: the columns of `server.sql`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    version: String,
    read_only: bool,
    packet_bytes_max: usize,
    binlog_format: Option<String>,
    flush_at_commit: i64,
    sync_binlog: i64,
}

/// [`Server`], as it is read.
type ServerRow = (String, bool, u64, Option<String>, i64, i64);

impl Server {
    fn of((version, read_only, packet_bytes_max, binlog_format, flush_at_commit, sync_binlog): ServerRow) -> Self {
        let packet_bytes_max = usize::try_from(packet_bytes_max).unwrap_or(usize::MAX);
        Self { version, read_only, packet_bytes_max, binlog_format, flush_at_commit, sync_binlog }
    }

    /// As it tells it, such as `10.11.6-MariaDB`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The largest request and the largest row (`max_allowed_packet`). Unit: bytes.
    #[must_use]
    pub fn packet_bytes_max(&self) -> usize {
        self.packet_bytes_max
    }

    /// Why no store can be kept in it.
    fn problem(&self) -> Option<(String, &'static str)> {
        let is_mariadb = self.version.contains("MariaDB");
        let (name, least) = if is_mariadb { ("MariaDB", MARIADB_MIN) } else { ("MySQL", MYSQL_MIN) };
        if self.number() < least {
            let version = &self.version;
            let problem = format!("it is {name} {version}, and {}.{} or newer is needed", least.0, least.1);
            return Some((problem, "use a newer one"));
        }
        if self.read_only {
            let problem = "it is read-only: it is a replica, or somebody set read_only".to_owned();
            return Some((problem, "name the primary in store.url, or set read_only to OFF"));
        }
        if self.packet_bytes_max < PACKET_BYTES_MIN {
            let bytes = self.packet_bytes_max;
            let problem = format!("its max_allowed_packet is {bytes}, and {PACKET_BYTES_MIN} is needed at least");
            return Some((problem, "raise it in the server's configuration"));
        }
        if self.binlog_format.as_deref() == Some("STATEMENT") {
            let problem = "its binlog_format is STATEMENT, and MIXED or ROW is needed".to_owned();
            return Some((problem, "set it to ROW in the server's configuration"));
        }
        None
    }

    fn number(&self) -> (u32, u32) {
        let mut numbers = self.version.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// What an operator should know: a server that keeps less than it says, or takes less than usual.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.flush_at_commit != 1 {
            warnings.push(format!(
                "innodb_flush_log_at_trx_commit is {}: when the database's machine fails, the last second of what was \
                 confirmed is lost; set it to 1",
                self.flush_at_commit
            ));
        }
        if self.binlog_format.is_some() && self.sync_binlog != 1 {
            warnings.push(format!(
                "sync_binlog is {}: when the database's machine fails, its replicas and what is restored from its \
                 binary log may lack what was confirmed; set it to 1",
                self.sync_binlog
            ));
        }
        if self.packet_bytes_max < PACKET_BYTES_ADVISED {
            warnings.push(format!(
                "max_allowed_packet is {}, so larger messages are refused; {PACKET_BYTES_ADVISED} is usual",
                self.packet_bytes_max
            ));
        }
        warnings
    }
}

/// The text of a statement for `group`, which is how the names of its tables begin.
#[must_use]
pub fn statement(text: &str, group: &Group) -> String {
    for_group(text, group.as_str())
}

fn tls(ca_file: &Path) -> Result<SslOpts, ConnectError> {
    roots(ca_file)?; // the driver reads it with each connection; here it is known to be good, once
    let ca_file = ca_file.to_owned();
    Ok(SslOpts::default().with_root_certs(vec![ca_file.into()]).with_disable_built_in_roots(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> MysqlOptions<'_> {
        MysqlOptions { url, password: Some("s3cret"), tls_ca_file: None, broker_name: "one" }
    }

    fn server() -> Server {
        Server::of(("10.11.19-MariaDB-0+deb12u1".to_owned(), false, 64 << 20, None, 1, 0))
    }

    #[test]
    fn a_database_is_named_by_host_port_and_name_and_shows_no_password() {
        for (url, address) in
            [("mysql://me:hidden@db1:3307/orders", "db1:3307/orders"), ("mysql://me@db/orders", "db:3306/orders")]
        {
            let mysql = Mysql::new(&options(url)).unwrap();
            assert_eq!(mysql.address(), address);
            let shown = format!("{mysql:?}");
            assert!(!shown.contains("hidden") && !shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        for (url, says) in [
            ("mysql://me@db:port/orders", "port"),
            ("postgres://me@db/orders", "postgres"),
            ("mysql://me@db", "no database"),
            ("mysql://me@db/orders?colour=blue", "colour"),
            ("mysql://me@db/orders?require_ssl=true", "store.tls_ca_file"),
        ] {
            let error = Mysql::new(&options(url)).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_server_that_will_not_do_is_refused_and_says_why() {
        assert_eq!(server().problem(), None);
        assert_eq!(Server { version: "8.0.36".to_owned(), ..server() }.problem(), None);
        for (unfit, says) in [
            (Server { version: "10.5.29-MariaDB".to_owned(), ..server() }, "MariaDB 10.5.29"),
            (Server { version: "5.7.44-log".to_owned(), ..server() }, "8.0 or newer"),
            (Server { read_only: true, ..server() }, "replica"),
            (Server { packet_bytes_max: 1 << 16, ..server() }, "max_allowed_packet"),
            (Server { binlog_format: Some("STATEMENT".to_owned()), ..server() }, "ROW"),
        ] {
            let (problem, _) = unfit.problem().unwrap();
            assert!(problem.contains(says), "{problem}");
        }
    }

    #[test]
    fn a_server_that_keeps_less_than_it_says_is_warned_of() {
        assert_eq!(server().warnings(), [""; 0]);
        let binlog_format = Some("MIXED".to_owned());
        let lax = Server { flush_at_commit: 2, binlog_format, packet_bytes_max: 16 << 20, ..server() };
        let warnings = lax.warnings();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        for (warning, says) in
            warnings.iter().zip(["innodb_flush_log_at_trx_commit", "sync_binlog", "max_allowed_packet"])
        {
            assert!(warning.starts_with(says), "{warning}");
        }
    }

    #[test]
    fn the_name_of_a_lock_is_that_of_a_group_in_a_database() {
        let name = |url, group| Mysql::new(&options(url)).unwrap().lock_name("migrate", &Group::new(group).unwrap());
        let one = name("mysql://me@db/orders", "a");
        assert!(one.starts_with("batonmq migrate ") && one.len() <= 64, "{one}");
        assert_eq!(one, name("mysql://you@other/orders", "a"));
        assert_ne!(one, name("mysql://me@db/orders", "b"));
        assert_ne!(one, name("mysql://me@db/stock", "a"));
    }
}
