//! A private PostgreSQL for the demonstration, if its programs are installed.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Signal, geteuid};
use tokio::time::timeout;

use super::{PATIENCE, chance, process::Process, write_secret};

/// Where Debian keeps each version: `VERSION/bin`.
const DEBIANS: &str = "/usr/lib/postgresql";

/// The user whom the package makes: a server refuses to be root's.
const USER: &str = "postgres";

/// The server's superuser.
const OWNER: &str = "demo";

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerError {
    #[error("no PostgreSQL is installed in /usr/lib/postgresql")]
    NotInstalled,
    #[error("this is root, whom PostgreSQL refuses, and there is no user {USER}")]
    NoUser,
    #[error("cannot use {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{program} failed: {said}")]
    Failed { program: &'static str, said: String },
}

/// A server that runs, as long as the value lives.
pub(super) struct PrivateServer {
    _process: Process,
    pub(super) url: String,
    pub(super) password_file: PathBuf,
}

impl PrivateServer {
    /// Makes a server in a new `directory`, and starts it.
    pub(super) async fn start(directory: &Path, port: u16) -> Result<Self, ServerError> {
        let installed = Installed::find()?;
        let password_file = directory.join("password");
        installed.init(directory, &password_file)?;
        let mut serve = installed.command("postgres");
        serve.arg("-D").arg(directory.join("data"));
        let sockets = format!("unix_socket_directories={}", directory.display());
        for setting in ["listen_addresses=127.0.0.1", &format!("port={port}"), &sockets] {
            serve.args(["-c", setting]);
        }
        let started = Process::start(&mut serve, Signal::INT);
        let mut process = started.map_err(|source| ServerError::Io { path: installed.programs.clone(), source })?;
        if timeout(PATIENCE, process.says("ready to accept connections")).await != Ok(true) {
            return Err(ServerError::Failed { program: "postgres", said: process.last_words() });
        }
        Ok(Self { _process: process, url: format!("postgres://{OWNER}@127.0.0.1:{port}/postgres"), password_file })
    }
}

/// The programs, and whose they run as: the numbers of user and group, if not our own.
struct Installed {
    programs: PathBuf,
    user: Option<(u32, u32)>,
}

impl Installed {
    fn find() -> Result<Self, ServerError> {
        let programs = newest_programs().ok_or(ServerError::NotInstalled)?;
        let user = if geteuid().is_root() { Some(server_user().ok_or(ServerError::NoUser)?) } else { None };
        Ok(Self { programs, user })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir("/");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn init(&self, directory: &Path, password_file: &Path) -> Result<(), ServerError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ServerError::Io { path, source }
        };
        DirBuilder::new().mode(0o700).create(directory).map_err(failed(directory))?;
        write_secret(password_file, &chance()).map_err(failed(password_file))?;
        for path in [directory, password_file] {
            self.user.map_or(Ok(()), |(uid, gid)| chown(path, Some(uid), Some(gid))).map_err(failed(path))?;
        }
        let mut init = self.command("initdb");
        init.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "-U", OWNER]);
        init.arg("--pwfile").arg(password_file).arg("-D").arg(directory.join("data"));
        let made = init.output().map_err(failed(&self.programs))?;
        if made.status.success() {
            return Ok(());
        }
        Err(ServerError::Failed { program: "initdb", said: String::from_utf8_lossy(&made.stderr).into_owned() })
    }
}

fn newest_programs() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIANS).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let with_server = versions.filter(|version| version.join("bin/postgres").is_file());
    let number = |version: &PathBuf| version.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    Some(with_server.max_by_key(number)?.join("bin"))
}

fn server_user() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = users.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let is_it = fields.next() == Some(USER);
        is_it.then(|| fields.skip(1)) // the password is elsewhere
    })?;
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
