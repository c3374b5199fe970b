//! A private PostgreSQL: one for all tests of the process, each with a group of its own in it, or one of a test's own.

use std::{
    fs::{self, Permissions},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use batonmq::{
    db::{
        lock_key,
        postgres::{Postgres, PostgresOptions},
    },
    election::LOCK_PURPOSE,
    types::Group,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    SmallDisk,
    broker::{CERT_FILE, KEY_FILE, Settings, sign_certificate},
    clock::Clock,
    database::{DatabaseServer, Server, ServerUser, Stop, free_port, run},
};

/// Whom Debian's package made.
const USER: ServerUser = ServerUser("postgres");

/// The server's superuser, and its password.
const OWNER: (&str, &str) = ("owner", "owner's secret");

const PASSWORD_FILE: &str = "password";

/// A running PostgreSQL.
pub(crate) struct PostgresServer {
    /// Ends before its directory does.
    server: Option<Server>,
    directory: TempDir,
    programs: PathBuf,
    port: u16,
    settings: Vec<String>,
    clock: Option<Clock>,
    disk: Option<SmallDisk>,
}

impl PostgresServer {
    /// The one that tests share: they must leave it as it is.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// One of a test's own, with these settings (`name=value`) beside those that all tests use.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let mut server = Self::prepare(settings);
        server.launch();
        server
    }

    fn prepare(settings: &[&str]) -> Self {
        let server = Self::empty(settings);
        server.init();
        server
    }

    fn empty(settings: &[&str]) -> Self {
        let programs = newest_programs();
        let directory = USER.directory();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { directory, programs, port: free_port(), server: None, settings, clock: None, disk: None }
    }

    /// A copy of this one that follows it, under the name `standby`; it is read-only until [`Self::promote`].
    pub(crate) fn standby(&self) -> Self {
        let mut standby = Self::empty(&["cluster_name=standby"]);
        let mut copy = USER.command(&self.programs.join("pg_basebackup"));
        copy.args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf", "-d", &self.url(), "-D"]);
        copy.arg(standby.data()).env("PGPASSWORD", OWNER.1).current_dir("/");
        run(&mut copy);
        standby.launch();
        standby
    }

    /// Makes a primary of a standby, and waits until it is one.
    pub(crate) fn promote(&self) {
        run(USER.command(&self.programs.join("pg_ctl")).arg("promote").arg("-D").arg(self.data()).current_dir("/"));
    }

    /// Ends its first process by `SIGKILL`; the others end as soon as they notice.
    pub(crate) fn kill_9(&mut self) {
        self.server.take().expect("it runs").stop("KILL");
    }

    /// Freezes all its processes: nobody is told that anything ended, and nothing is answered any more.
    pub(crate) fn go_dark(&self) -> Dark {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let first: i32 = file.lines().next().unwrap().parse().unwrap();
        let freeze = |pid: i32| {
            let pid = Pid::from_raw(pid).unwrap();
            kill_process(pid, Signal::STOP).unwrap();
            pid
        };
        let mut frozen = vec![freeze(first)]; // it makes no others then
        let others = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        frozen.extend(others.split_whitespace().map(|pid| freeze(pid.parse().unwrap())));
        Dark(frozen)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// One of a test's own that speaks TLS, and the file of its certificate. It signed itself.
    pub(crate) fn start_encrypted() -> (Self, PathBuf) {
        let mut server = Self::prepare(&["ssl=on"]);
        let directory = server.directory.path();
        sign_certificate(Ipv4Addr::LOCALHOST, directory);
        let [certificate, key] = [CERT_FILE, KEY_FILE].map(|file| directory.join(file));
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        USER.own(&key);
        let settings = [("ssl_cert_file", &certificate), ("ssl_key_file", &key)];
        server.settings.extend(settings.map(|(name, path)| format!("{name}={}", path.display())));
        server.launch();
        (server, certificate)
    }

    fn init(&self) {
        let password_file = self.password_file();
        std::fs::write(&password_file, OWNER.1).unwrap();
        let mut initdb = USER.command(&self.programs.join("initdb"));
        initdb.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "-U", OWNER.0]);
        initdb.arg("--pwfile").arg(&password_file).arg("-D").arg(self.data()).current_dir("/");
        run(&mut initdb);
    }

    fn launch(&mut self) {
        let mut command = Clock::command(self.clock.as_ref(), USER, &self.programs.join("postgres"));
        command.arg("-D").arg(self.data());
        let port = format!("port={}", self.port);
        let sockets = format!("unix_socket_directories={}", self.directory.path().display());
        // A killed server loses nothing without fsync; only a machine that stops does.
        let fixed = [&*port, &*sockets, "listen_addresses=127.0.0.1", "max_connections=400", "fsync=off"];
        for setting in fixed.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        if let Some(disk) = &self.disk {
            command = disk.shown_to(&command);
        }
        let ready = "database system is ready to accept"; // connections, or read-only connections
        self.server = Some(Server::start(&command, self.directory.path(), "INT", ready));
    }

    /// Where it is, for its owner.
    pub(crate) fn url(&self) -> String {
        self.url_of(OWNER.0, "postgres")
    }

    /// Where this one or another is, whichever can be written to.
    pub(crate) fn url_with(&self, other: &Self) -> String {
        self.url().replace("@127.0.0.1", &format!("@127.0.0.1:{},127.0.0.1", other.port))
    }

    /// Where it is, for somebody else and another database.
    pub(crate) fn url_of(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its owner's name.
    pub(crate) fn owner(&self) -> &'static str {
        OWNER.0
    }

    /// Its owner's password.
    pub(crate) fn password(&self) -> &'static str {
        OWNER.1
    }

    /// As a broker of this name connects.
    pub(crate) fn connector(&self, broker_name: &str) -> Postgres {
        self.connector_at(self.port, broker_name)
    }

    /// The same by way of a proxy's port.
    pub(crate) fn connector_at(&self, port: u16, broker_name: &str) -> Postgres {
        let url = format!("postgres://{}@127.0.0.1:{port}/postgres", OWNER.0);
        let password = Some(self.password());
        Postgres::new(&PostgresOptions { url: &url, password, tls_ca_file: None, broker_name }).unwrap()
    }

    /// As a broker connects whose role is not the owner.
    pub(crate) fn connector_of(&self, user: &str, password: &str) -> Postgres {
        let url = self.url_of(user, "postgres");
        let options = PostgresOptions { url: &url, password: Some(password), tls_ca_file: None, broker_name: "one" };
        Postgres::new(&options).unwrap()
    }

    /// What `psql` prints of these statements: rows without decoration, columns with `|` between them.
    pub(crate) fn psql(&self, statements: &str) -> String {
        let output = run(self.psql_command().args(["-v", "ON_ERROR_STOP=1", "-c", statements]));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// A `psql` of its owner, for who has more to say to it.
    pub(crate) fn psql_command(&self) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["--no-psqlrc", "-qAt", "-d", &self.url()]).env("PGPASSWORD", OWNER.1);
        command
    }
}

impl DatabaseServer for PostgresServer {
    const HEARTBEAT: &'static str = "pg_control_system";
    const OPEN_TRANSACTION: &'static str =
        "BEGIN ISOLATION LEVEL REPEATABLE READ; CREATE TEMPORARY TABLE own (id integer)";
    const COMMIT: &'static str = "\u{b}COMMIT\0";
    const CONFIG: &'static str = "config/postgres.toml";

    fn shared() -> &'static Self {
        Self::shared()
    }

    fn own() -> Self {
        Self::start(&[])
    }

    fn own_for(clients: u32) -> Self {
        Self::start(&[&format!("max_connections={clients}")])
    }

    fn own_with_tables_on(disk: SmallDisk) -> Self {
        let mut server = Self::prepare(&[]);
        let directory = disk.directory_of(USER.0);
        server.disk = Some(disk);
        server.launch();
        server.psql(&format!("CREATE TABLESPACE small LOCATION '{}'", directory.display()));
        server.psql(&format!("ALTER ROLE {} SET default_tablespace = small", OWNER.0));
        server
    }

    fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("it has one")
    }

    fn own_with_clock() -> Self {
        let mut server = Self::prepare(&[]);
        server.clock = Some(Clock::beside(server.directory.path()));
        server.launch();
        server
    }

    fn clock(&self) -> &Clock {
        self.clock.as_ref().expect("it has one")
    }

    fn directory(&self) -> &Path {
        assert!(self.server.is_none(), "nobody touches the directory of a server that runs");
        self.directory.path()
    }

    fn stop(&mut self, how: Stop) {
        let signal = match how {
            Stop::Polite => "INT",
            Stop::Crash => "QUIT",
        };
        self.server.take().expect("it runs").stop(signal);
    }

    fn launch(&mut self) {
        self.launch();
    }

    fn settings(&self, group: &Group) -> Settings {
        Settings::new()
            .option("store.backend", "\"postgres\"")
            .option("store.url", &format!("{:?}", self.url()))
            .option("store.password_file", &format!("{:?}", self.password_file()))
            .option("store.group", &format!("{:?}", group.as_str()))
    }

    fn url(&self) -> String {
        self.url()
    }

    fn password_file(&self) -> PathBuf {
        self.directory.path().join(PASSWORD_FILE)
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn ask(&self, group: &Group, statement: &str) -> String {
        self.psql(&statement.replace("{group}", &Self::prefix(group)))
    }

    fn end_lock_session(&self, group: &Group) {
        assert_eq!(self.ask(group, "SELECT pg_terminate_backend(lock_pid) FROM {group}baton"), "t");
    }

    fn end_of_sessions(&self, group: &Group) -> String {
        let baton = format!("{}baton", Self::prefix(group));
        format!("SELECT pg_terminate_backend(lock_pid), pg_terminate_backend(writer_pid) FROM {baton};")
    }

    fn lock_statement(&self, group: &Group) -> String {
        format!("SELECT 'held' FROM pg_advisory_lock({})", lock_key(LOCK_PURPOSE, group))
    }

    fn client_command(&self) -> Command {
        self.psql_command()
    }

    fn prefix(group: &Group) -> String {
        format!("{group}.")
    }
}

/// Frozen processes, which end with this value.
pub(crate) struct Dark(Vec<Pid>);

impl Drop for Dark {
    fn drop(&mut self) {
        self.0.iter().for_each(|pid| kill_process(*pid, Signal::KILL).unwrap());
    }
}

/// The newest of Debian's directories of programs.
fn newest_programs() -> PathBuf {
    let base = "/usr/lib/postgresql";
    let versions = fs::read_dir(base).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.filter(|path| number(path).is_some()).max_by_key(number);
    newest.unwrap_or_else(|| panic!("nothing in {base}: tests/run installs what is missing")).join("bin")
}
