//! What an option may say beyond its type, and what options mean together.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use argon2::password_hash::phc::PasswordHash;
use figment::Figment;

use super::{
    Backend, Config, ConfigError, Connector, ConsoleOptions, DatabaseOptions, ElectionOptions, Limits, Options,
    RedeliveryPolicy, Scheme, Secret, StompOptions, StoreOptions, StoreText, Strategy, TlsClientCert, TlsOptions,
    TlsText, User, UserText, sources, units,
};
use crate::types::Group;

/// The smallest and the largest segment; smaller ones are all headers, larger ones free space too late.
const SEGMENT_BYTES: std::ops::RangeInclusive<usize> = (1 << 20)..=(1 << 30);

/// How long the baton may be held without a word.
const LEASE: std::ops::RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(300);

/// What the broker needs to be of use at all.
const MEMORY_BYTES_MIN: usize = 16 << 20;

/// What one connection takes that has worked and is quiet (benches/README.md): its task, and its parts of session, core
/// and engine.
const CONNECTION_BYTES: usize = 26 << 10;

/// Checks everything; `written` says where each option came from.
pub(super) fn check(options: Options, written: &Figment) -> Result<Config, ConfigError> {
    let check = Check { written };
    check.broker_name(&options.broker_name)?;
    check.data(&options.data)?;
    check.duration("stop_timeout", options.stop_timeout)?;
    let store = check.store(options.store)?;
    check.election(&options.election, store.backend)?;
    let console = check.console(options.console)?;
    check.stomp(&options.stomp)?;
    check.limits(&options.limits)?;
    check.redelivery(&options.redelivery)?;
    let users = check.users(options.users)?;
    let (connectors, warnings) = open_connectors(options.connectors, !users.is_empty());
    check.connectors(&connectors)?;
    check.memory(options.limits.memory_bytes_max, &connectors)?;
    let tls = check.tls(options.tls, &connectors)?;
    Ok(Config {
        broker_name: options.broker_name,
        data: options.data,
        stop_timeout: options.stop_timeout,
        store,
        election: options.election,
        log: options.log,
        console,
        connectors,
        stomp: options.stomp,
        limits: options.limits,
        redelivery: options.redelivery,
        users,
        tls,
        warnings,
    })
}

/// The connectors, one by default, and what is to be said of them: without users the default one serves this machine
/// only, and one that was asked for serves whom it was asked to.
fn open_connectors(mut connectors: Vec<Connector>, has_users: bool) -> (Vec<Connector>, Vec<String>) {
    let mut warnings = Vec::new();
    if connectors.is_empty() {
        let host = if has_users { "0.0.0.0" } else { "127.0.0.1" };
        let uri = format!("stomp://{host}:61613").parse().expect("the default connector is a good one");
        connectors.push(Connector { name: "stomp".to_owned(), uri });
        if !has_users {
            warnings.push(
                "no users are configured, so only this machine may connect, and without a password; to open the \
                 broker, add [[users]] (batonmq passwd makes the hash) or write a connector for another address"
                    .to_owned(),
            );
        }
    } else if !has_users {
        warnings.extend(connectors.iter().filter(|connector| !connector.uri.is_loopback()).map(|connector| {
            let (name, address) = (&connector.name, connector.uri.address());
            format!(
                "connector {name} listens on {address} and no users are configured, so whoever reaches it may send \
                 and receive without a password; add [[users]] (batonmq passwd makes the hash)"
            )
        }));
    }
    (connectors, warnings)
}

struct Check<'a> {
    written: &'a Figment,
}

impl Check<'_> {
    fn require(&self, holds: bool, option: &str, problem: impl FnOnce() -> String) -> Result<(), ConfigError> {
        if holds { Ok(()) } else { Err(self.invalid(option, problem())) }
    }

    fn invalid(&self, option: &str, problem: String) -> ConfigError {
        ConfigError::Invalid { option: option.to_owned(), origin: sources::origin(self.written, option), problem }
    }

    /// It is a part of message-ids, which clients echo in headers.
    fn broker_name(&self, name: &str) -> Result<(), ConfigError> {
        let good = !name.is_empty()
            && name.len() <= 64
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        self.require(good, "broker_name", || {
            format!("{name:?} can't be used; write 1 to 64 letters, digits, dots, hyphens or underscores")
        })
    }

    fn data(&self, data: &Path) -> Result<(), ConfigError> {
        self.require(!data.as_os_str().is_empty(), "data", || "must name a directory, such as \"./data\"".to_owned())
    }

    fn duration(&self, option: &str, duration: Duration) -> Result<(), ConfigError> {
        self.require(!duration.is_zero(), option, || "must be above zero, such as \"30s\"".to_owned())
    }

    fn positive(&self, option: &str, number: usize) -> Result<(), ConfigError> {
        self.require(number > 0, option, || "must be above zero".to_owned())
    }

    fn store(&self, store: StoreText) -> Result<StoreOptions, ConfigError> {
        self.require(SEGMENT_BYTES.contains(&store.segment_bytes), "store.segment_bytes", || {
            let (least, most) = (units::write_size(*SEGMENT_BYTES.start()), units::write_size(*SEGMENT_BYTES.end()));
            format!("{} is out of range; write {least} to {most}", units::write_size(store.segment_bytes))
        })?;
        let (backend, segment_bytes) = (store.backend, store.segment_bytes);
        Ok(StoreOptions { backend, segment_bytes, database: self.database(store)? })
    }

    /// The heartbeat and the margin follow from the lease, so that no two settings can contradict each other; a lease is
    /// unsafe only by being too short for both, or too long to be of any help.
    fn election(&self, election: &ElectionOptions, backend: Backend) -> Result<(), ConfigError> {
        let is_for_it = backend.is_database() || election.strategy == Strategy::Auto;
        self.require(is_for_it, "election.strategy", || {
            let backend = backend.as_str();
            format!("is for a database, and store.backend is {backend:?}; choose another, or remove this")
        })?;
        self.require(LEASE.contains(&election.lease), "election.lease", || {
            let [given, least, most] = [election.lease, *LEASE.start(), *LEASE.end()].map(units::write_duration);
            format!(
                "{given} is unsafe; write {least} to {most}: the master says a word every fifth of it, and stops a fifth \
                 before its end, so a shorter one is lost to any hiccup, and a longer one keeps the others waiting for a \
                 master that is frozen"
            )
        })
    }

    fn database(&self, store: StoreText) -> Result<Option<DatabaseOptions>, ConfigError> {
        let backend = store.backend.as_str();
        let StoreText { url, password_file, tls_ca_file, group, .. } = store;
        if !store.backend.is_database() {
            let names_group = group != Group::default().as_str();
            for (name, is_there) in [
                ("store.url", url.is_some()),
                ("store.password_file", password_file.is_some()),
                ("store.tls_ca_file", tls_ca_file.is_some()),
                ("store.group", names_group),
            ] {
                self.require(!is_there, name, || {
                    format!("is for a database, and store.backend is {backend:?}; choose another, or remove this")
                })?;
            }
            return Ok(None);
        }
        let is_built = match store.backend {
            Backend::Postgres => cfg!(feature = "postgres"),
            Backend::Mysql => cfg!(feature = "mysql"),
            Backend::Journal | Backend::Memory => true,
        };
        self.require(is_built, "store.backend", || format!("this program was built without it (feature {backend})"))?;
        let url = url.ok_or_else(|| {
            let problem = format!("is missing; store.backend is {backend:?}, so say where the database is");
            self.invalid("store.url", problem)
        })?;
        let password = password_file.map(|path| self.secret_in("store.password_file", &path)).transpose()?;
        if let Some(path) = &tls_ca_file {
            self.names_a_file("store.tls_ca_file", path)?;
        }
        let group = Group::new(&group).ok_or_else(|| {
            let problem = format!(
                "{group:?} can't be used; write 1 to {} lower-case letters, digits and underscores, a letter first, \
                 and not pg_",
                Group::BYTES_MAX
            );
            self.invalid("store.group", problem)
        })?;
        Ok(Some(DatabaseOptions { url: Secret::new(url), password, tls_ca_file, group }))
    }

    fn console(&self, console: ConsoleOptions) -> Result<ConsoleOptions, ConfigError> {
        let is_address = |listen: &str| {
            listen.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        self.require(console.listen.is_empty() || is_address(&console.listen), "console.listen", || {
            format!("{:?} is no address; write a host, a colon and a port, or \"\" for no console", console.listen)
        })?;
        let is_wanted = self.written.contains("console.listen");
        Ok(ConsoleOptions { is_wanted, ..console })
    }

    fn stomp(&self, stomp: &StompOptions) -> Result<(), ConfigError> {
        self.duration("stomp.connect_timeout", stomp.connect_timeout)?;
        self.duration("stomp.heart_beat_min", stomp.heart_beat_min)?;
        self.require(
            stomp.heart_beat_grace >= 1.0 && stomp.heart_beat_grace <= 100.0,
            "stomp.heart_beat_grace",
            || format!("{} is out of range; write 1.0 to 100.0", stomp.heart_beat_grace),
        )?;
        self.positive("stomp.command_bytes_max", stomp.command_bytes_max)?;
        self.positive("stomp.header_bytes_max", stomp.header_bytes_max)?;
        self.positive("stomp.headers_max", stomp.headers_max)?;
        self.positive("stomp.body_bytes_max", stomp.body_bytes_max)?;
        self.positive("stomp.frame_bytes_max", stomp.frame_bytes_max)
    }

    fn limits(&self, limits: &Limits) -> Result<(), ConfigError> {
        self.positive("limits.destinations_max", limits.destinations_max)?;
        self.positive("limits.subscriptions_per_connection_max", limits.subscriptions_per_connection_max)?;
        self.positive("limits.transactions_per_connection_max", limits.transactions_per_connection_max)?;
        self.positive("limits.transaction_operations_max", limits.transaction_operations_max)?;
        self.positive("limits.transaction_bytes_max", limits.transaction_bytes_max)?;
        limits.queue_bytes_max.map_or(Ok(()), |max| self.positive("limits.queue_bytes_max", max))?;
        self.positive("limits.topic_backlog_bytes_max", limits.topic_backlog_bytes_max)?;
        self.duration("limits.slow_consumer_timeout", limits.slow_consumer_timeout)
    }

    /// Everybody who may connect at a time has to find room to begin. Connectors without a bound ask for nothing here:
    /// the log says how many connections there is room for ([`connections_that_fit`]).
    fn memory(&self, memory_bytes_max: usize, connectors: &[Connector]) -> Result<(), ConfigError> {
        let bounds = connectors.iter().filter_map(|connector| connector.uri.options.connections_max);
        let connections = bounds.fold(0, usize::saturating_add);
        let needed = connections.saturating_mul(CONNECTION_BYTES).saturating_add(MEMORY_BYTES_MIN);
        self.require(memory_bytes_max >= needed, "limits.memory_bytes_max", || {
            let (given, least) = (units::write_size(memory_bytes_max), units::write_size(MEMORY_BYTES_MIN));
            if connections == 0 {
                return format!("{given} is too little; write {least} or more");
            }
            let each = units::write_size(CONNECTION_BYTES);
            let needed = units::write_size(needed.next_multiple_of(1 << 20));
            format!(
                "{given} is too little: the broker needs {least}, and {each} for each of the {connections} connections \
                 that the connectors allow; write {needed} or more, or lower maximumConnections"
            )
        })
    }

    fn redelivery(&self, policies: &[RedeliveryPolicy]) -> Result<(), ConfigError> {
        for (at, policy) in policies.iter().enumerate() {
            let option = |field: &str| format!("redelivery[{at}].{field}");
            self.require(is_pattern(&policy.destination), &option("destination"), || {
                format!(
                    "{:?} is not a pattern; write names with dots, * for one name, > at the end for all below, and \
                     no /queue/ in front",
                    policy.destination
                )
            })?;
            let multiplier = policy.backoff_multiplier;
            self.require((1.0..=1_000.0).contains(&multiplier), &option("backoff_multiplier"), || {
                format!("{multiplier} is out of range; write 1.0 to 1000.0")
            })?;
            self.require(policy.delay <= policy.delay_max, &option("delay_max"), || {
                "must not be shorter than delay".to_owned()
            })?;
        }
        Ok(())
    }

    fn users(&self, users: Vec<UserText>) -> Result<Vec<User>, ConfigError> {
        let mut names = BTreeSet::new();
        let mut checked = Vec::with_capacity(users.len());
        for (at, user) in users.into_iter().enumerate() {
            let option = |field: &str| format!("users[{at}].{field}");
            self.require(!user.name.is_empty(), &option("name"), || "must not be empty".to_owned())?;
            self.require(names.insert(user.name.clone()), &option("name"), || {
                format!("{:?} is there twice; remove one", user.name)
            })?;
            let password_hash = self.password_hash(&user, at)?;
            checked.push(User { name: user.name, password_hash });
        }
        Ok(checked)
    }

    fn password_hash(&self, user: &UserText, at: usize) -> Result<Secret, ConfigError> {
        let option = format!("users[{at}].password_hash");
        let (text, option) = match (&user.password_hash, &user.password_hash_file) {
            (Some(hash), None) => (hash.clone(), option),
            (None, Some(path)) => {
                let option = format!("{option}_file");
                let secret = self.secret_in(&option, path)?;
                (secret.reveal().to_owned(), option)
            }
            _ => {
                let problem =
                    format!("user {:?} needs either password_hash or password_hash_file, and not both", user.name);
                return Err(self.invalid(&option, problem));
            }
        };
        let is_argon2id = PasswordHash::new(&text).is_ok_and(|hash| hash.algorithm.as_str() == "argon2id");
        self.require(is_argon2id, &option, || "is not an argon2id hash; make one with batonmq passwd".to_owned())?;
        Ok(Secret::new(text))
    }

    fn secret_in(&self, option: &str, path: &Path) -> Result<Secret, ConfigError> {
        self.names_a_file(option, path)?;
        let unreadable =
            |source| ConfigError::Unreadable { path: path.to_owned(), named_by: option.to_owned(), source };
        fs::read_to_string(path).map(|text| Secret::new(text.trim())).map_err(unreadable)
    }

    /// A secret that stands where its file should be must not be repeated as the name of a file that is not there.
    fn names_a_file(&self, option: &str, path: &Path) -> Result<(), ConfigError> {
        let text = path.to_string_lossy();
        let is_content = text.contains("-----BEGIN") || text.contains("$argon2") || text.contains('\n');
        self.require(!is_content, option, || "is no file's name; write the content to a file and name that".to_owned())
    }

    fn connectors(&self, connectors: &[Connector]) -> Result<(), ConfigError> {
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for (at, connector) in connectors.iter().enumerate() {
            let option = |field: &str| format!("connectors[{at}].{field}");
            let name = &connector.name;
            self.require(!name.is_empty() && !name.contains(char::is_whitespace), &option("name"), || {
                "must be one word".to_owned()
            })?;
            self.require(names.insert(name), &option("name"), || format!("{name:?} is there twice; rename one"))?;
            let address = connector.uri.address();
            let is_free = connector.uri.port == 0 || addresses.insert(address.clone());
            self.require(is_free, &option("uri"), || format!("{address} is there twice; choose another port"))?;
        }
        Ok(())
    }

    fn tls(&self, tls: TlsText, connectors: &[Connector]) -> Result<Option<TlsOptions>, ConfigError> {
        let asking = connectors.iter().filter(|connector| connector.uri.scheme == Scheme::StompTls).collect::<Vec<_>>();
        let Some(first) = asking.first() else {
            return Ok(None);
        };
        self.require(cfg!(feature = "tls"), "connectors", || {
            format!("connector {} speaks TLS, and this program was built without it (feature tls)", first.name)
        })?;
        let missing = |option: &str| {
            let problem = format!("is missing; connector {} speaks TLS, so name a PEM file here", first.name);
            self.invalid(option, problem)
        };
        let cert_file = tls.cert_file.ok_or_else(|| missing("tls.cert_file"))?;
        let key_file = tls.key_file.ok_or_else(|| missing("tls.key_file"))?;
        self.names_a_file("tls.cert_file", &cert_file)?;
        self.names_a_file("tls.key_file", &key_file)?;
        if let Some(path) = &tls.client_ca_file {
            self.names_a_file("tls.client_ca_file", path)?;
        }
        let asks_clients = asking
            .iter()
            .any(|connector| connector.uri.options.client_cert.unwrap_or(tls.client_cert) != TlsClientCert::None);
        self.require(!asks_clients || tls.client_ca_file.is_some(), "tls.client_ca_file", || {
            "is missing; client certificates are asked for, so name a PEM file of who may sign them".to_owned()
        })?;
        Ok(Some(TlsOptions { cert_file, key_file, client_ca_file: tls.client_ca_file, client_cert: tls.client_cert }))
    }
}

/// For so many connections there is memory, whatever else waits on disk.
pub(super) fn connections_that_fit(memory_bytes_max: usize) -> usize {
    memory_bytes_max.saturating_sub(MEMORY_BYTES_MIN) / CONNECTION_BYTES
}

/// ActiveMQ's patterns: names with dots between them, `*` for one name, `>` at the end for all below.
fn is_pattern(pattern: &str) -> bool {
    let mut names = pattern.split('.').peekable();
    while let Some(name) = names.next() {
        let good = match name {
            ">" => names.peek().is_none(),
            "*" => true,
            name => !name.is_empty() && !name.contains(['*', '>', '/', ',']) && !name.contains(char::is_whitespace),
        };
        if !good {
            return false;
        }
    }
    true
}
