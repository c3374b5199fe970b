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
mod server;
mod url;

use std::{
    error::Error,
    fmt,
    ops::{Deref, DerefMut},
    path::Path,
    sync::Arc,
    time::Duration,
};

use mysql_async::{Conn, Opts, OptsBuilder, SslOpts, prelude::Queryable as _};

pub use self::{
    errors::{cause, is_altered, is_lost, is_missing},
    queued::{Answer, Driver, QueuedSession},
    server::Server,
};
use self::{
    errors::{fix_of, is_refusal},
    url::each_host,
};
use super::{ConnectError, for_group, hosts::Hosts, roots};
use crate::types::Group;

/// What every session relies on.
const SETTINGS: &str = include_str!("../../../sql/mysql/session.sql");

/// What every session on a node of a cluster relies on besides (R15).
const CLUSTER_SETTINGS: &str = include_str!("../../../sql/mysql/cluster.sql");

/// What a server is like, of which some is no good.
const SERVER: &str = include_str!("../../../sql/mysql/server.sql");

/// A silent connection is asked for a sign of life after this.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// What the driver takes of an answer, which is the most that the protocol has room for: a server sends rows that it would
/// not take itself by now. What is asked is measured against the server's own limit before it leaves. Unit: bytes.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Statements that a session keeps prepared: all there are, and those of pages.
const STATEMENTS_MAX: usize = 64;

/// What an operator says of a database.
#[derive(Clone, Copy)]
pub struct MysqlOptions<'a> {
    /// Where it is, and its parameters: `mysql://user@host:port,…/database?…`.
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
    hosts: Arc<Hosts<Opts>>,
    database: Arc<str>,
    broker_name: Arc<str>,
    address: Arc<str>,
}

impl Mysql {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// [`ConnectError::Url`] and [`ConnectError::Certificates`].
    pub fn new(options: &MysqlOptions<'_>) -> Result<Self, ConnectError> {
        let urls = each_host(options.url);
        let hosts = urls.iter().map(|url| opts_of(url, options)).collect::<Result<Vec<_>, _>>()?;
        let first = hosts.first().expect("a URL has one host at least, if an empty one");
        let database: Arc<str> = first.db_name().unwrap_or_default().into();
        let names = hosts.iter().map(|host| format!("{}:{}", host.ip_or_hostname(), host.tcp_port()));
        let address = format!("{}/{database}", names.collect::<Vec<_>>().join(",")).into();
        Ok(Self { hosts: Arc::new(Hosts::new(hosts)), database, broker_name: options.broker_name.into(), address })
    }

    /// Hosts, ports and name of the database, for messages.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A name for a lock of this group that serves `purpose`, the same on every broker. Such locks are the server's,
    /// not the database's.
    #[must_use]
    pub fn lock_name(&self, purpose: &str, group: &Group) -> String {
        let key = super::lock_key(&format!("{purpose}/{}", self.database), group);
        format!("batonmq {purpose} {key:016x}")
    }

    /// Opens a session on the first host that serves, which is told that it is the program `batonmq NAME PURPOSE`.
    ///
    /// # Errors
    /// [`ConnectError::Refused`], [`ConnectError::Failed`] and [`ConnectError::Unfit`], of the host that failed last.
    pub async fn connect(&self, purpose: &str) -> Result<Session, ConnectError> {
        self.hosts.connect(&self.address, |host| self.try_connect(host.clone(), purpose)).await
    }

    async fn try_connect(&self, host: Opts, purpose: &str) -> Result<Session, ConnectError> {
        let program = format!("batonmq {} {purpose}", self.broker_name);
        let opts = OptsBuilder::from_opts(host).connect_attribute("program_name", program);
        let mut conn = Conn::new(opts).await.map_err(|error| self.not_connected(error))?;
        let log = "look into the database's own log";
        let row = conn.query_first(SERVER).await.map_err(|error| self.failed(log, cause(error)))?;
        let server = Server::of(row.unwrap_or_default());
        server.problem().map_or(Ok(()), |(problem, fix)| Err(self.unfit(problem, fix)))?;
        if !server.is_ready() {
            let fix = "bring its cluster together, and name all nodes in store.url";
            return Err(self.failed(fix, "it is a node without the majority of its cluster".into()));
        }
        let settings = if server.is_clustered() { &[SETTINGS, CLUSTER_SETTINGS][..] } else { &[SETTINGS] };
        for settings in settings {
            let set = conn.query_drop(*settings).await;
            set.map_err(|error| self.failed("a proxy between may forbid it: connect directly", cause(error)))?;
        }
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

/// The text of a statement for `group`, which is how the names of its tables begin.
#[must_use]
pub fn statement(text: &str, group: &Group) -> String {
    for_group(text, group.as_str())
}

/// What the driver is told of the one host of a URL.
fn opts_of(url: &str, options: &MysqlOptions<'_>) -> Result<Opts, ConnectError> {
    let unusable = |problem: &str| ConnectError::Url { problem: problem.to_owned() };
    let opts = Opts::from_url(url).map_err(|error| unusable(&error.to_string()))?;
    if opts.db_name().is_none_or(str::is_empty) {
        return Err(unusable("it names no database"));
    }
    if opts.ssl_opts().is_some() && options.tls_ca_file.is_none() {
        return Err(unusable("it asks for TLS, and store.tls_ca_file does not say whose certificates are good"));
    }
    // An encrypted connection to nobody knows whom is worth nothing, so there is nothing in between.
    let tls = options.tls_ca_file.map(tls).transpose()?;
    let mut builder = OptsBuilder::from_opts(opts)
        .ssl_opts(tls)
        .prefer_socket(false)
        .client_found_rows(true)
        .stmt_cache_size(STATEMENTS_MAX)
        .max_allowed_packet(Some(ANSWER_BYTES_MAX))
        .tcp_keepalive(Some(KEEPALIVE));
    if let Some(password) = options.password {
        builder = builder.pass(Some(password));
    }
    Ok(builder.into())
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

    #[test]
    fn a_database_is_named_by_hosts_ports_and_name_and_shows_no_password() {
        for (url, address) in [
            ("mysql://me:hidden@db1:3307/orders", "db1:3307/orders"),
            ("mysql://me@db/orders", "db:3306/orders"),
            ("mysql://me:hidden@a:3307,b,[::1]:3308/orders", "a:3307,b:3306,[::1]:3308/orders"),
        ] {
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
            ("mysql://me@a,:3307/orders", "host"),
            ("mysql://me@db/orders?colour=blue", "colour"),
            ("mysql://me@db/orders?require_ssl=true", "store.tls_ca_file"),
        ] {
            let error = Mysql::new(&options(url)).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("s3cret"), "{error}");
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
