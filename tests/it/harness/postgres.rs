//! A private PostgreSQL: one for all tests of the process, each with a group of its own in it, or one of a test's own.

use std::{
    path::PathBuf,
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use batonmq::{
    db::postgres::{Postgres, PostgresOptions},
    types::Group,
};
use tempfile::TempDir;

use super::database::{Server, ServerUser, free_port, newest_programs, run};

/// Whom Debian's package made.
const USER: ServerUser = ServerUser("postgres");

/// The server's superuser, and its password.
const OWNER: (&str, &str) = ("owner", "owner's secret");

/// A running PostgreSQL.
pub(crate) struct PostgresServer {
    directory: TempDir,
    programs: PathBuf,
    port: u16,
    server: Option<Server>,
    settings: Vec<String>,
}

impl PostgresServer {
    /// The one that tests share: they must leave it as it is.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// One of a test's own, with these settings (`name=value`) beside those that all tests use.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let programs = newest_programs("/usr/lib/postgresql");
        let directory = USER.directory();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { directory, programs, port: free_port(), server: None, settings };
        server.init();
        server.launch();
        server
    }

    fn init(&self) {
        let password_file = self.directory.path().join("password");
        std::fs::write(&password_file, OWNER.1).unwrap();
        let mut initdb = USER.command(&self.programs.join("initdb"));
        initdb.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "-U", OWNER.0]);
        initdb.arg("--pwfile").arg(&password_file).arg("-D").arg(self.directory.path().join("data")).current_dir("/");
        run(&mut initdb);
    }

    fn launch(&mut self) {
        let mut command = USER.command(&self.programs.join("postgres"));
        command.arg("-D").arg(self.directory.path().join("data"));
        let port = format!("port={}", self.port);
        let sockets = format!("unix_socket_directories={}", self.directory.path().display());
        // A killed server loses nothing without fsync; only a machine that stops does.
        let fixed = [&*port, &*sockets, "listen_addresses=127.0.0.1", "max_connections=400", "fsync=off"];
        for setting in fixed.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let ready = "database system is ready to accept connections";
        self.server = Some(Server::start(&command, self.directory.path(), "INT", ready));
    }

    /// Where it is, for its owner.
    pub(crate) fn url(&self) -> String {
        self.url_of(OWNER.0, "postgres")
    }

    /// Where it is, for somebody else and another database.
    pub(crate) fn url_of(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// Its owner's password.
    pub(crate) fn password(&self) -> &'static str {
        OWNER.1
    }

    /// As a broker of this name connects.
    pub(crate) fn connector(&self, broker_name: &str) -> Postgres {
        let password = Some(self.password());
        let options = PostgresOptions { url: &self.url(), password, tls_ca_file: None, broker_name };
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

/// A group that no other test uses.
pub(crate) fn own_group() -> Group {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    Group::new(&format!("group_{}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
}
