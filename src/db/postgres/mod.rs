//! Connections to PostgreSQL: where it is, who we are, TLS, and what every session relies on.
//!
//! Owns what is said before the first statement. Always true: the settings of a session are ours, whatever the server,
//! the database or the role say by default; a WARNING is never lost, because on a commit it means "not confirmed"
//! (R16).
//! Nothing is ever cancelled: who is in doubt drops the [`Session`], and a future that is dropped cancels nothing.
//! On failure: a [`ConnectError`], which names the database and what to do, and never a password.

mod hosts;
pub mod schema;

use std::{
    error::Error,
    fmt,
    future::poll_fn,
    ops::Deref,
    path::Path,
    str::FromStr as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, Row, Socket,
    config::{Host, SslMode, TargetSessionAttrs},
    error::{DbError, Severity, SqlState},
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::hosts::each_host;
use super::{ConnectError, for_group, hosts::Hosts, number, roots};
use crate::types::{Group, History, with_causes};

/// What every session relies on.
const SETTINGS: &str = include_str!("../../../sql/postgres/session.sql");

/// The oldest version that knows all of [`SETTINGS`]. Unit: major versions.
const VERSION_MIN: u32 = 14;

/// The same as the server's side sets in [`SETTINGS`].
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(5), Duration::from_secs(2), 3);

/// See [`KEEPALIVE`].
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(8);

/// The longest application name that PostgreSQL keeps. Unit: bytes.
const APPLICATION_NAME_BYTES_MAX: usize = 63;

/// What an operator says of a database.
#[derive(Clone, Copy)]
pub struct PostgresOptions<'a> {
    /// Where it is, and its parameters: `postgres://user@host:port/database?…`.
    pub url: &'a str,
    /// Counts more than one in the URL.
    pub password: Option<&'a str>,
    /// Who may sign the certificate that the database shows. `None`: the connection is not encrypted.
    pub tls_ca_file: Option<&'a Path>,
    /// Shown in the database's list of sessions.
    pub broker_name: &'a str,
}

/// A database that can be connected to. Clones share what was read from files.
#[derive(Clone)]
pub struct Postgres {
    hosts: Arc<Hosts<Config>>,
    tls: MakeRustlsConnect,
    broker_name: Arc<str>,
    address: Arc<str>,
}

impl Postgres {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// [`ConnectError::Url`] and [`ConnectError::Certificates`].
    pub fn new(options: &PostgresOptions<'_>) -> Result<Self, ConnectError> {
        let mut config = Config::from_str(options.url)
            .map_err(|error| ConnectError::Url { problem: with_causes(&error).trim_end().to_owned() })?;
        if let Some(password) = options.password {
            config.password(password);
        }
        let asks_tls = config.get_ssl_mode() == SslMode::Require;
        if asks_tls && options.tls_ca_file.is_none() {
            let problem = "it asks for TLS, and store.tls_ca_file does not say whose certificates are good";
            return Err(ConnectError::Url { problem: problem.to_owned() });
        }
        // An encrypted connection to nobody knows whom is worth nothing, so there is nothing in between.
        config.ssl_mode(if options.tls_ca_file.is_some() { SslMode::Require } else { SslMode::Disable });
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        let (idle, interval, retries) = KEEPALIVE;
        config.keepalives_idle(idle).keepalives_interval(interval).keepalives_retries(retries);
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
        let hosts = each_host(&config).map_err(|problem| ConnectError::Url { problem: problem.to_owned() })?;
        let (hosts, address) = (Arc::new(Hosts::new(hosts)), address(&config).into());
        Ok(Self { hosts, tls: tls(options.tls_ca_file)?, broker_name: options.broker_name.into(), address })
    }

    /// Hosts, ports and name of the database, for messages.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Opens a session on the host that takes writes, which shows it as `batonmq NAME PURPOSE`. It answers while its
    /// driver is run.
    ///
    /// # Errors
    /// [`ConnectError::Failed`] and [`ConnectError::Unfit`], of the host that failed last.
    pub async fn connect(&self, purpose: &str) -> Result<(Session, Driver), ConnectError> {
        self.hosts.connect(&self.address, |host| self.try_connect(self.config_for(host, purpose))).await
    }

    /// The same without our settings, for who must leave no trace in a session that may not be its own.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_bare(&self, purpose: &str) -> Result<(Session, Driver), ConnectError> {
        self.hosts.connect(&self.address, |host| self.open(self.config_for(host, purpose))).await
    }

    async fn try_connect(&self, config: Config) -> Result<(Session, Driver), ConnectError> {
        let (session, mut driver) = self.open(config).await?;
        tokio::select! {
            set = session.batch_execute(SETTINGS) => {
                set.map_err(|error| self.failed("a pooler between may forbid it: connect directly", error.into()))?;
            }
            () = driver.drive() => {
                return Err(self.failed("look into the database's own log", "the connection was closed".into()));
            }
        }
        Ok((session, driver))
    }

    async fn open(&self, config: Config) -> Result<(Session, Driver), ConnectError> {
        let (client, connection) = config.connect(self.tls.clone()).await.map_err(|error| self.not_connected(error))?;
        self.require_version(connection.parameter("server_version").unwrap_or_default())?;
        self.require_unicode(connection.parameter("server_encoding").unwrap_or_default())?;
        let warnings = Warnings::default();
        let session = Session { client, warnings: warnings.clone() };
        Ok((session, Driver { connection, warnings }))
    }

    /// What a connection of a pool for `purpose` is made of, on the host of the last session; it has to be given
    /// [`Self::settings`] first.
    #[must_use]
    pub fn pooled(&self, purpose: &str) -> (Config, MakeRustlsConnect) {
        (self.config_for(self.hosts.last_good(), purpose), self.tls.clone())
    }

    /// What every session is told first.
    #[must_use]
    pub fn settings() -> &'static str {
        SETTINGS
    }

    fn config_for(&self, host: &Config, purpose: &str) -> Config {
        let mut name = format!("batonmq {} {purpose}", self.broker_name);
        name.truncate(APPLICATION_NAME_BYTES_MAX); // all of it is ASCII
        let mut config = host.clone();
        config.application_name(name);
        config
    }

    fn require_version(&self, version: &str) -> Result<(), ConnectError> {
        let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse::<u32>().ok());
        match major {
            Some(major) if major >= VERSION_MIN => Ok(()),
            _ => {
                let problem = format!("it is PostgreSQL {version}, and {VERSION_MIN} or newer is needed");
                Err(self.unfit(problem, "use a newer one"))
            }
        }
    }

    fn require_unicode(&self, encoding: &str) -> Result<(), ConnectError> {
        match encoding {
            "UTF8" => Ok(()),
            other => {
                let problem = format!("its encoding is {other}, and UTF8 is needed");
                Err(self.unfit(problem, "create one with ENCODING 'UTF8', and name it in store.url"))
            }
        }
    }

    fn not_connected(&self, error: tokio_postgres::Error) -> ConnectError {
        let fix = fix_of(&error);
        if is_refusal(&error) {
            return ConnectError::Refused { address: self.address.to_string(), fix, source: error.into() };
        }
        self.failed(fix, error.into())
    }

    fn failed(&self, fix: &'static str, source: Box<dyn Error + Send + Sync>) -> ConnectError {
        ConnectError::Failed { address: self.address.to_string(), fix, source }
    }

    fn unfit(&self, problem: String, fix: &'static str) -> ConnectError {
        ConnectError::Unfit { address: self.address.to_string(), problem, fix }
    }
}

/// The password never shows.
impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A connection of one's own. Dropping it ends the session once the server has answered what was asked.
#[derive(Debug)]
pub struct Session {
    client: Client,
    warnings: Warnings,
}

impl Session {
    /// The last WARNING since this was asked last. What was answered before it is asked has been seen.
    #[must_use]
    pub fn take_warning(&self) -> Option<String> {
        self.warnings.lock().take()
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Where the driver leaves a WARNING for the session.
#[derive(Clone, Debug, Default)]
struct Warnings(Arc<Mutex<Option<String>>>);

impl Warnings {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries a session's requests and answers; to be run as a task, until the session is dropped or the connection ends.
pub struct Driver {
    connection: Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>,
    warnings: Warnings,
}

impl Driver {
    /// Runs until the end of the connection. Whoever waits for an answer then gets an error.
    pub async fn run(mut self) {
        self.drive().await;
    }

    async fn drive(&mut self) {
        while let Some(message) = poll_fn(|cx| self.connection.poll_message(cx)).await {
            match message {
                // It is noted before what comes behind it is answered.
                Ok(AsyncMessage::Notice(notice)) => self.note(&notice),
                Ok(_) => {}
                Err(error) => return tracing::debug!("a connection to the database ended: {}", with_causes(&error)),
            }
        }
    }

    fn note(&self, notice: &DbError) {
        if notice.parsed_severity() == Some(Severity::Warning) {
            *self.warnings.lock() = Some(notice.message().to_owned());
        }
    }
}

/// Where the database is in its history: the columns `system`, `timeline` and `flushed` of `look.sql` and
/// `hold_baton.sql` (R21).
#[must_use]
pub fn history(row: &Row) -> History {
    let (system, timeline): (&str, &str) = (row.get("system"), row.get("timeline"));
    let identity = format!("system {system}, timeline {timeline}");
    History { identity, position: number(row.get("flushed")) }
}

/// The text of a statement for `group`, which is a schema in PostgreSQL.
#[must_use]
pub fn statement(text: &str, group: &Group) -> String {
    for_group(text, &format!("\"{group}\""))
}

fn address(config: &Config) -> String {
    let port = |at: usize| match config.get_ports() {
        [] => 5432,
        [one] => *one,
        many => many.get(at).copied().unwrap_or(5432),
    };
    let host = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    };
    let names: Vec<String> = match config.get_hosts() {
        [] => config.get_hostaddrs().iter().map(ToString::to_string).collect(),
        hosts => hosts.iter().map(host).collect(),
    };
    let hosts = names.iter().enumerate().map(|(at, name)| format!("{name}:{}", port(at))).collect::<Vec<_>>();
    format!("{}/{}", hosts.join(","), config.get_dbname().or(config.get_user()).unwrap_or_default())
}

fn tls(ca_file: Option<&Path>) -> Result<MakeRustlsConnect, ConnectError> {
    let roots = ca_file.map_or_else(|| Ok(RootCertStore::empty()), roots)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Url { problem: error.to_string() })?;
    Ok(MakeRustlsConnect::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// What to do when a connection fails like this.
fn fix_of(error: &tokio_postgres::Error) -> &'static str {
    match error.code() {
        Some(code) if *code == SqlState::INVALID_PASSWORD => "check the user in store.url, and store.password_file",
        Some(code) if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "check the user in store.url, and pg_hba.conf"
        }
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => "create it, or correct store.url",
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => "grant the role CONNECT on it",
        Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => "raise its max_connections, or the role's limit",
        Some(code) if *code == SqlState::CANNOT_CONNECT_NOW => "wait until it has started",
        Some(_) => "look into the database's own log",
        None => {
            let said = with_causes(error);
            match () {
                () if said.contains("password missing") => {
                    "write the password to a file that store.password_file names"
                }
                () if said.contains("TLS") => "check store.tls_ca_file, and the server's ssl settings",
                () if said.contains("does not allow writes") => {
                    "it is a standby, or read-only: name the primary in store.url"
                }
                () => "check store.url, and that the database runs",
            }
        }
    }
}

/// Whether it fails like this until somebody changes something.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ]
        .contains(code),
        None => with_causes(error).contains("password missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> PostgresOptions<'_> {
        PostgresOptions { url, password: Some("s3cret"), tls_ca_file: None, broker_name: "one" }
    }

    #[test]
    fn a_database_is_named_by_hosts_ports_and_name_and_shows_no_password() {
        for (url, address) in [
            ("postgres://me:hidden@db1:6432,db2/orders", "db1:6432,db2:5432/orders"),
            ("postgres://me@db/orders", "db:5432/orders"),
            ("host=/run/postgresql user=me", "/run/postgresql:5432/me"),
        ] {
            let postgres = Postgres::new(&options(url)).unwrap();
            assert_eq!(postgres.address(), address);
            let shown = format!("{postgres:?}");
            assert!(!shown.contains("hidden") && !shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        for (url, says) in [
            ("postgres://me@db:port/orders", "port"),
            ("user=me", "no host"),
            ("postgres://me@db/orders?colour=blue", "colour"),
            ("postgres://me@db/orders?sslmode=require", "store.tls_ca_file"),
        ] {
            let error = Postgres::new(&options(url)).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_session_is_named_after_its_broker_and_what_it_is_for() {
        let postgres = Postgres::new(&options("postgres://me@db/orders")).unwrap();
        assert_eq!(postgres.pooled("writer").0.get_application_name(), Some("batonmq one writer"));
        let long = "x".repeat(64);
        let postgres = Postgres::new(&PostgresOptions { broker_name: &long, ..options("postgres://me@db/o") }).unwrap();
        assert_eq!(postgres.pooled("writer").0.get_application_name().unwrap().len(), 63);
    }
}
