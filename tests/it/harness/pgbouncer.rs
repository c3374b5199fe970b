//! A private PgBouncer in front of a private PostgreSQL.

use std::path::Path;

use tempfile::TempDir;

use super::{
    Settings,
    database::{Server, ServerUser, free_port},
    postgres::PostgresServer,
};

/// Debian's package runs it as this user.
const USER: ServerUser = ServerUser("postgres");

/// A running PgBouncer.
pub(crate) struct PgBouncer {
    _server: Server,
    _directory: TempDir,
    port: u16,
}

impl PgBouncer {
    /// One in front of `server`; `mode` is when a session of the server is lent to the next client.
    pub(crate) fn before(server: &PostgresServer, mode: &str) -> Self {
        let (directory, port) = (USER.directory(), free_port());
        let [config, users] = ["pgbouncer.ini", "users.txt"].map(|file| directory.path().join(file));
        let password = server.password().replace('"', "\"\"");
        std::fs::write(&users, format!("\"{}\" \"{password}\"\n", server.owner())).unwrap();
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\n",
            server.port(),
            users.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = USER.command(Path::new("/usr/sbin/pgbouncer"));
        command.arg(&config);
        let server = Server::start(&command, directory.path(), "TERM", "process up");
        Self { _server: server, _directory: directory, port }
    }

    /// What a broker is told that connects by way of it.
    pub(crate) fn settings(&self, server: &PostgresServer, settings: Settings) -> Settings {
        let url = server.url().replace(&format!(":{}/", server.port()), &format!(":{}/", self.port));
        settings.option("store.url", &format!("{url:?}"))
    }
}
