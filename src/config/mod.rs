//! What an operator decides. `config/batonmq.toml` documents every option; a test holds it against this module.
//!
//! Owns the layering (defaults, then the file, then `BATONMQ_…` variables, then flags) and the meaning of each option.
//! Always true: a [`Config`] has been checked, so nobody below asks again; a secret is never printed.
//! On failure: a [`ConfigError`] names the option, where it was written, and what to write instead.

mod check;
mod connector;
mod secret;
mod sources;
mod units;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use connector::{Connector, ConnectorOptions, ConnectorUri, Scheme};
pub use secret::Secret;
pub use sources::{ConfigError, Setting, Sources};
pub use units::{parse_duration, parse_size, write_duration, write_size};

use crate::types::Group;

/// The file that is read if it is there and no other is named.
pub const DEFAULT_FILE: &str = "batonmq.toml";

/// All options, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The broker's name, in logs and message-ids.
    pub broker_name: String,
    /// Where data lives.
    pub data: PathBuf,
    /// How long a polite stop may take.
    pub stop_timeout: Duration,
    /// How messages are kept.
    pub store: StoreOptions,
    /// How brokers on one database elect their master.
    pub election: ElectionOptions,
    /// What the log tells, and how.
    pub log: LogOptions,
    /// Where health and metrics are told.
    pub console: ConsoleOptions,
    /// Where clients connect; never empty.
    pub connectors: Vec<Connector>,
    /// STOMP's own options.
    pub stomp: StompOptions,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// Redelivery policies; the first whose pattern matches counts.
    pub redelivery: Vec<RedeliveryPolicy>,
    /// Who may connect; empty: anybody, anonymously.
    pub users: Vec<User>,
    /// What `stomp+ssl` connectors show and ask for; there if one of them exists.
    pub tls: Option<TlsOptions>,
    /// What an operator should know although it works; one sentence each.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads and checks all options.
    ///
    /// # Errors
    /// A [`ConfigError`] for the first option that is unknown or wrong.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let (options, figment) = sources.read()?;
        check::check(options, &figment)
    }

    /// For how many connections there is memory, if a connector lets in any number; else that was checked.
    #[must_use]
    pub fn unbounded_connections_that_fit(&self) -> Option<usize> {
        let is_unbounded = self.connectors.iter().any(|connector| connector.uri.options.connections_max.is_none());
        is_unbounded.then(|| check::connections_that_fit(self.limits.memory_bytes_max))
    }
}

impl Default for Config {
    fn default() -> Self {
        check::check(Options::default(), &figment::Figment::new()).expect("a test checks the defaults")
    }
}

/// All options as they are written; each field is one key of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    broker_name: String,
    data: PathBuf,
    #[serde(with = "units::duration")]
    stop_timeout: Duration,
    store: StoreText,
    election: ElectionOptions,
    log: LogOptions,
    console: ConsoleOptions,
    connectors: Vec<Connector>,
    stomp: StompOptions,
    limits: Limits,
    redelivery: Vec<RedeliveryPolicy>,
    users: Vec<UserText>,
    tls: TlsText,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            broker_name: "batonmq".to_owned(),
            data: PathBuf::from("./data"),
            stop_timeout: Duration::from_secs(10),
            store: StoreText::default(),
            election: ElectionOptions::default(),
            log: LogOptions::default(),
            console: ConsoleOptions::default(),
            connectors: Vec::new(),
            stomp: StompOptions::default(),
            limits: Limits::default(),
            redelivery: Vec::new(),
            users: Vec::new(),
            tls: TlsText::default(),
        }
    }
}

/// How messages are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Which store.
    pub backend: Backend,
    /// The size of the journal's segment files. Unit: bytes.
    pub segment_bytes: usize,
    /// Where the database is; there if the store is one.
    pub database: Option<DatabaseOptions>,
}

/// Where the database is, and which part of it is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseOptions {
    /// Host, database, user and parameters. It may hold a password.
    pub url: Secret,
    /// The password, if it was in a file.
    pub password: Option<Secret>,
    /// Who may sign the database's certificate. PEM; `None`: no TLS.
    pub tls_ca_file: Option<PathBuf>,
    /// Brokers of one group share messages; several groups may share a database.
    pub group: Group,
}

/// The store as written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreText {
    backend: Backend,
    #[serde(with = "units::size")]
    segment_bytes: usize,
    url: Option<String>,
    password_file: Option<PathBuf>,
    tls_ca_file: Option<PathBuf>,
    group: String,
}

impl Default for StoreText {
    fn default() -> Self {
        let group = Group::default().to_string();
        let (url, password_file, tls_ca_file) = (None, None, None);
        Self { backend: Backend::Journal, segment_bytes: 64 << 20, url, password_file, tls_ca_file, group }
    }
}

/// Hides the URL: it may hold a password.
impl std::fmt::Debug for StoreText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreText").field("backend", &self.backend).field("group", &self.group).finish_non_exhaustive()
    }
}

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Files under the data directory; survives kill -9.
    Journal,
    /// Nothing survives the process.
    Memory,
    /// Tables of a PostgreSQL database.
    Postgres,
    /// Tables of a MySQL or MariaDB database.
    Mysql,
}

impl Backend {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Memory => "memory",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
        }
    }

    /// Whether it is a database, in which brokers elect their master; otherwise the lock on the data directory decides.
    #[must_use]
    pub fn is_database(self) -> bool {
        matches!(self, Self::Postgres | Self::Mysql)
    }
}

/// How brokers on one database elect their master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ElectionOptions {
    /// What is held.
    pub strategy: Strategy,
    /// How long it may be held without a word.
    #[serde(with = "units::duration")]
    pub lease: Duration,
}

impl Default for ElectionOptions {
    fn default() -> Self {
        Self { strategy: Strategy::Auto, lease: Duration::from_secs(10) }
    }
}

/// What the master holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// What fits the store.
    Auto,
    /// A lock of a session in the database.
    SessionLock,
    /// A row of a table.
    Lease,
}

/// What the log tells, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// The least urgent level that is told.
    pub level: LogLevel,
    /// For people or for programs.
    pub format: LogFormat,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

/// How urgent a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Wants a human.
    Error,
    /// Unexpected, but survived.
    Warn,
    /// A change of state.
    Info,
    /// Each frame.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The shape of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where health and metrics are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsoleOptions {
    /// Host and port; empty: nowhere.
    pub listen: String,
    /// Whether that was written, and not only the default: then it has to be had.
    #[serde(skip)]
    pub is_wanted: bool,
}

/// ActiveMQ's port, and since 5.16 its address too: whoever reaches it needs no password.
impl Default for ConsoleOptions {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8161".to_owned(), is_wanted: false }
    }
}

/// STOMP's own options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StompOptions {
    /// Refusals that are not fatal leave the connection open, as ActiveMQ does; false: the specification's way.
    pub lenient: bool,
    /// Whether a SEND to a queue without `persistent` is persistent.
    pub default_persistent: bool,
    /// Whether a body with `content-length` and a `content-type` of `text/…` is text.
    pub text_by_content_type: bool,
    /// How long a connection may take until its CONNECT.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// The shortest heart-beat interval that the broker promises or asks for.
    #[serde(with = "units::duration")]
    pub heart_beat_min: Duration,
    /// A client is silent after this many of its promised intervals, and a second.
    pub heart_beat_grace: f64,
    /// Bound on a frame's command line. Unit: bytes.
    #[serde(with = "units::size")]
    pub command_bytes_max: usize,
    /// Bound on one header line. Unit: bytes.
    #[serde(with = "units::size")]
    pub header_bytes_max: usize,
    /// Bound on a frame's headers.
    pub headers_max: usize,
    /// Bound on a frame's body. Unit: bytes.
    #[serde(with = "units::size")]
    pub body_bytes_max: usize,
    /// Bound on a whole frame: command, headers and body. Unit: bytes.
    #[serde(with = "units::size")]
    pub frame_bytes_max: usize,
}

/// The four bounds on parts of a frame are ActiveMQ's; the whole frame's leaves room for all of them together.
impl Default for StompOptions {
    fn default() -> Self {
        Self {
            lenient: false,
            default_persistent: true,
            text_by_content_type: false,
            connect_timeout: Duration::from_secs(30),
            heart_beat_min: Duration::from_millis(500),
            heart_beat_grace: 2.0,
            command_bytes_max: 1 << 10,
            header_bytes_max: 10 << 10,
            headers_max: 1_000,
            body_bytes_max: 100 << 20,
            frame_bytes_max: 128 << 20,
        }
    }
}

/// Bounds on what clients may use; see `config/batonmq.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Destinations, temporary ones and durable subscriptions included.
    pub destinations_max: usize,
    /// Subscriptions of one connection.
    pub subscriptions_per_connection_max: usize,
    /// Open transactions of one connection.
    pub transactions_per_connection_max: usize,
    /// Sends and acks of one transaction.
    pub transaction_operations_max: usize,
    /// Bytes of one transaction's messages.
    #[serde(with = "units::size")]
    pub transaction_bytes_max: usize,
    /// What messages and buffers may take in memory.
    #[serde(with = "units::size")]
    pub memory_bytes_max: usize,
    /// Bytes of messages that one queue (or durable subscription) may hold; beyond it SENDs wait, then get ERROR.
    /// `None`: no bound but the store's.
    #[serde(with = "units::optional_size")]
    pub queue_bytes_max: Option<usize>,
    /// Bytes that a topic subscription may be behind before its topic's producers are held back.
    #[serde(with = "units::size")]
    pub topic_backlog_bytes_max: usize,
    /// How long a consumer may leave its socket unread while something waits for it, and a topic subscription that is
    /// all of `topic_backlog_bytes_max` behind may settle nothing.
    #[serde(with = "units::duration")]
    pub slow_consumer_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            destinations_max: 100_000,
            subscriptions_per_connection_max: 10_000,
            transactions_per_connection_max: 1_000,
            transaction_operations_max: 100_000,
            transaction_bytes_max: 256 << 20,
            memory_bytes_max: 256 << 20,
            queue_bytes_max: None,
            topic_backlog_bytes_max: 64 << 20,
            slow_consumer_timeout: Duration::from_secs(30),
        }
    }
}

/// What happens to messages that come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedeliveryPolicy {
    /// Destinations it is for, as ActiveMQ writes patterns: `orders.*`, `orders.>`, `>`.
    pub destination: String,
    /// How often a message is redelivered before it is dead-lettered.
    pub attempts: u32,
    /// Before the first redelivery.
    #[serde(with = "units::duration")]
    pub delay: Duration,
    /// What each further delay is multiplied by; 1: always the same.
    pub backoff_multiplier: f64,
    /// No delay is longer.
    #[serde(with = "units::duration")]
    pub delay_max: Duration,
    /// Whether a consumer that goes away without an answer counts as an attempt.
    pub count_lost_consumers: bool,
}

/// Attempts and delay are those of ActiveMQ's clients.
impl Default for RedeliveryPolicy {
    fn default() -> Self {
        Self {
            destination: ">".to_owned(),
            attempts: 6,
            delay: Duration::from_secs(1),
            backoff_multiplier: 1.0,
            delay_max: Duration::from_secs(60),
            count_lost_consumers: false,
        }
    }
}

/// Somebody who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What the client sends as `login`.
    pub name: String,
    /// An argon2id hash in PHC format, as `batonmq passwd` prints it.
    pub password_hash: Secret,
}

/// A user as written.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UserText {
    name: String,
    password_hash: Option<String>,
    password_hash_file: Option<PathBuf>,
}

/// Hides the hash: whoever has it can try passwords at leisure.
impl std::fmt::Debug for UserText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserText").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What `stomp+ssl` connectors show and ask for. The files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// The broker's certificate and those between it and its root.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// Whose client certificates are trusted.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub client_cert: TlsClientCert,
}

/// TLS as written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TlsText {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_ca_file: Option<PathBuf>,
    client_cert: TlsClientCert,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsClientCert {
    /// They are not asked.
    #[default]
    None,
    /// They are asked, and one that they show must be good.
    Want,
    /// Without a good one there is no connection.
    Need,
}

#[cfg(test)]
mod tests;
