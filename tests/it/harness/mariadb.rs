//! A private MariaDB: one for all tests of the process, each with a group of its own in it, or one of a test's own.

use std::{
    fs::Permissions,
    net::Ipv4Addr,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use batonmq::{
    db::mysql::{Mysql, MysqlOptions},
    election::LOCK_PURPOSE,
    types::Group,
};
use tempfile::TempDir;

use super::{
    SmallDisk,
    broker::{CERT_FILE, KEY_FILE, Settings, sign_certificate},
    clock::Clock,
    database::{DatabaseServer, Server, ServerUser, Stop, free_port, run},
};

/// Whom Debian's package made.
const USER: ServerUser = ServerUser("mysql");

/// The server's superuser, and its password.
const OWNER: (&str, &str) = ("owner", "owner's secret");

/// Where groups have their tables.
const DATABASE: &str = "brokers";

const PASSWORD_FILE: &str = "password";

/// A running MariaDB.
pub(crate) struct MariadbServer {
    /// Ends before its directory does.
    server: Option<Server>,
    directory: TempDir,
    port: u16,
    settings: Vec<String>,
    clock: Option<Clock>,
    disk: Option<SmallDisk>,
}

impl MariadbServer {
    /// The one that tests share: they must leave it as it is.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<MariadbServer> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// One of a test's own, with these settings (`name=value`) beside those that all tests use.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let mut server = Self::prepare(settings);
        server.launch();
        server
    }

    /// One of a test's own that speaks TLS, and the file of its certificate. It signed itself.
    pub(crate) fn start_encrypted() -> (Self, PathBuf) {
        let mut server = Self::prepare(&[]);
        let directory = server.directory.path();
        sign_certificate(Ipv4Addr::LOCALHOST, directory);
        let [certificate, key] = [CERT_FILE, KEY_FILE].map(|file| directory.join(file));
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        USER.own(&key);
        let settings = [("ssl_cert", &certificate), ("ssl_key", &key), ("ssl_ca", &certificate)];
        server.settings.extend(settings.map(|(name, path)| format!("{name}={}", path.display())));
        server.launch();
        (server, certificate)
    }

    fn prepare(settings: &[&str]) -> Self {
        let server = Self::empty(settings);
        std::fs::write(server.first_statements(), server.owner()).unwrap();
        let mut install = USER.command(Path::new("mariadb-install-db"));
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", server.data().display())).current_dir("/");
        install.env("TMPDIR", server.directory.path()); // in a common one, each start removes what others have there
        run(&mut install);
        server
    }

    fn empty(settings: &[&str]) -> Self {
        let directory = USER.directory();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let server = Self { directory, port: free_port(), server: None, settings, clock: None, disk: None };
        std::fs::write(server.password_file(), OWNER.1).unwrap();
        std::fs::write(server.first_statements(), "").unwrap();
        server
    }

    /// Another one with the data of this one, which does not run; not started yet.
    pub(super) fn copied(&self, settings: &[&str]) -> Self {
        let copy = Self::empty(settings);
        run(Command::new("cp").arg("-a").args([self.data(), copy.data()]));
        copy
    }

    /// Writes a file into its data directory.
    pub(super) fn write_data(&self, name: &str, text: &str) {
        let file = self.data().join(name);
        std::fs::write(&file, text).unwrap();
        USER.own(&file);
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn owner(&self) -> String {
        let (user, password) = (OWNER.0, OWNER.1.replace('\'', "\'\'"));
        format!(
            "CREATE DATABASE IF NOT EXISTS {DATABASE};\n\
             CREATE USER IF NOT EXISTS '{user}'@'%' IDENTIFIED BY '{password}';\n\
             GRANT ALL ON *.* TO '{user}'@'%' WITH GRANT OPTION;\n"
        )
    }

    pub(super) fn launch(&mut self) {
        let mut command = Clock::command(self.clock.as_ref(), USER, Path::new("/usr/sbin/mariadbd"));
        let directory = self.directory.path().display();
        // In a common directory for temporary tables each start removes what others have there.
        command.arg("--no-defaults").arg(format!("--tmpdir={directory}"));
        for (option, file) in
            [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid"), ("init-file", FIRST_STATEMENTS)]
        {
            command.arg(format!("--{option}={directory}/{file}"));
        }
        command.arg(format!("--port={}", self.port));
        // A killed server loses nothing without fsync; only a machine that stops does.
        for setting in [
            "bind-address=127.0.0.1",
            "skip-name-resolve",
            "max-connections=400",
            "max-allowed-packet=256M",
            "innodb-flush-method=nosync",
        ] {
            command.arg(format!("--{setting}"));
        }
        command.args(self.settings.iter().map(|setting| format!("--{setting}")));
        if let Some(disk) = &self.disk {
            command = disk.shown_to(&command);
        }
        self.server = Some(Server::start(&command, self.directory.path(), "TERM", "mariadbd: ready for connections"));
    }

    /// Where it is, for its owner.
    pub(crate) fn url(&self) -> String {
        self.url_of(OWNER.0, DATABASE)
    }

    /// Where it is, for somebody else and another database.
    pub(crate) fn url_of(&self, user: &str, database: &str) -> String {
        format!("mysql://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn first_statements(&self) -> PathBuf {
        self.directory.path().join(FIRST_STATEMENTS)
    }

    /// Its owner's password.
    pub(crate) fn password(&self) -> &'static str {
        OWNER.1
    }

    /// The database of [`Self::url`].
    pub(crate) fn database(&self) -> &'static str {
        DATABASE
    }

    /// As a broker of this name connects.
    pub(crate) fn connector(&self, broker_name: &str) -> Mysql {
        self.connector_at(self.port, broker_name)
    }

    /// The same by way of a proxy's port.
    pub(crate) fn connector_at(&self, port: u16, broker_name: &str) -> Mysql {
        let url = format!("mysql://{}@127.0.0.1:{port}/{DATABASE}", OWNER.0);
        let password = Some(self.password());
        Mysql::new(&MysqlOptions { url: &url, password, tls_ca_file: None, broker_name }).unwrap()
    }

    /// As a broker connects whose role is not the owner.
    pub(crate) fn connector_of(&self, user: &str, password: &str) -> Mysql {
        let url = self.url_of(user, DATABASE);
        Mysql::new(&MysqlOptions { url: &url, password: Some(password), tls_ca_file: None, broker_name: "one" })
            .unwrap()
    }

    /// What `mariadb` prints of these statements: rows without decoration, columns with a tab between them.
    pub(crate) fn client(&self, statements: &str) -> String {
        let output = run(self.client_command().args(["-e", statements]));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

impl DatabaseServer for MariadbServer {
    const HEARTBEAT: &'static str = "b.batch, b.holder";
    const OPEN_TRANSACTION: &'static str = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
    const COMMIT: &'static str = "\u{3}COMMIT";
    const CONFIG: &'static str = "config/mysql.toml";

    fn shared() -> &'static Self {
        Self::shared()
    }

    fn own() -> Self {
        Self::start(&[])
    }

    fn own_for(clients: u32) -> Self {
        Self::start(&[&format!("max-connections={clients}")])
    }

    fn own_with_tables_on(disk: SmallDisk) -> Self {
        let mut server = Self::prepare(&[]);
        symlink(disk.directory_of(USER.0), server.data().join(DATABASE)).unwrap();
        server.disk = Some(disk);
        server.launch();
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
            Stop::Polite => "TERM",
            Stop::Crash => "KILL",
        };
        self.server.take().expect("it runs").stop(signal);
    }

    fn launch(&mut self) {
        self.launch();
    }

    fn settings(&self, group: &Group) -> Settings {
        Settings::new()
            .option("store.backend", "\"mysql\"")
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
        self.client(&statement.replace("{group}", &Self::prefix(group)))
    }

    fn end_lock_session(&self, group: &Group) {
        let session = self.ask(group, "SELECT lock_session FROM {group}baton");
        self.client(&format!("KILL {session}"));
    }

    fn end_of_sessions(&self, group: &Group) -> String {
        self.ask(group, "SELECT CONCAT('KILL ', lock_session, '; KILL ', writer_session, ';') FROM {group}baton")
    }

    /// One of them may have ended since it was named.
    fn end_sessions(&self, group: &Group) {
        for kill in self.end_of_sessions(group).split_inclusive(';') {
            let output = self.client_command().args(["-e", kill]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() || said.contains("Unknown thread id"), "{kill}: {said}");
        }
    }

    fn lock_statement(&self, group: &Group) -> String {
        format!("SELECT 'held' WHERE GET_LOCK('{}', 0)", self.connector("nobody").lock_name(LOCK_PURPOSE, group))
    }

    fn client_command(&self) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "-nNB", "--default-character-set=utf8mb4", "-h127.0.0.1", "-u", OWNER.0]);
        command.arg(format!("-P{}", self.port)).arg(format!("-p{}", OWNER.1)).args(["-D", DATABASE]);
        command
    }

    fn prefix(group: &Group) -> String {
        format!("{group}_")
    }
}

/// What the server runs when it starts.
const FIRST_STATEMENTS: &str = "first.sql";
