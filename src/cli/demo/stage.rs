//! What the demonstration needs: a directory, a database, three brokers. All of it is gone at the end.
//!
//! Always true: the tables belong to a group that no other broker has, so nothing of anybody else is touched.
//! On failure: what was made is taken back; what that takes is said.

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use tokio::time::timeout;

use super::{Arguments, DemoError, PATIENCE, chance, process::Process, server::PrivateServer, write_secret};
use crate::{
    config::{Backend, Config, Sources},
    db,
    node::{self, NodeError},
    persistence::StoreError,
};

/// One master, and two that wait.
pub(super) const BROKERS: usize = 3;

/// What the demonstration needs. In the order in which it ends.
pub(super) struct Stage {
    brokers: Vec<Broker>,
    server: Option<PrivateServer>,
    database: Database,
    directory: Directory,
}

/// Where the brokers' messages are.
struct Database {
    backend: Backend,
    url: String,
    password_file: Option<PathBuf>,
    group: String,
}

/// A broker, which may run.
struct Broker {
    config: PathBuf,
    address: SocketAddr,
    process: Option<Process>,
}

impl Stage {
    /// Everything but the brokers.
    pub(super) async fn set_up(arguments: &Arguments) -> Result<Self, DemoError> {
        let directory = Directory::make()?;
        let mut server = None;
        let (url, password_file) = match &arguments.url {
            Some(url) => (url.clone(), arguments.password_file.clone()),
            None => {
                let started = PrivateServer::start(&directory.0.join("server"), free_port()?).await?;
                let there = (started.url.clone(), Some(started.password_file.clone()));
                server = Some(started);
                there
            }
        };
        let backend = backend_of(&url)?;
        let database = Database { backend, url, password_file, group: format!("demo_{}", chance()) };
        Ok(Self { brokers: Vec::new(), server, database, directory })
    }

    /// Whether the database is the demonstration's own.
    pub(super) fn is_private(&self) -> bool {
        self.server.is_some()
    }

    /// What the brokers share.
    pub(super) fn group(&self) -> &str {
        &self.database.group
    }

    /// Starts all brokers; the first one serves, the others wait.
    pub(super) async fn start_brokers(&mut self) -> Result<(), DemoError> {
        for number in 0..BROKERS {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
            let config = self.directory.0.join(format!("{}.toml", name(number)));
            write_secret(&config, &self.options(number, address))?;
            self.brokers.push(Broker { config, address, process: None });
            self.start(number, if number == 0 { "ready" } else { "standby" }).await?;
        }
        Ok(())
    }

    /// Where clients find them.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.brokers.iter().map(|broker| broker.address).collect()
    }

    /// Ends a broker by SIGKILL.
    pub(super) fn kill(&mut self, number: usize) {
        if let Some(broker) = self.brokers.get_mut(number) {
            broker.process = None;
        }
    }

    /// Starts a broker that was ended, and waits until it waits.
    pub(super) async fn bring_back(&mut self, number: usize) -> Result<(), DemoError> {
        self.start(number, "standby").await
    }

    async fn start(&mut self, number: usize, until: &str) -> Result<(), DemoError> {
        let Some(broker) = self.brokers.get_mut(number) else { return Ok(()) };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("start").arg("--config").arg(&broker.config).current_dir(&self.directory.0);
        let process = broker.process.insert(Process::start(&mut command, Signal::KILL)?);
        match timeout(PATIENCE, process.says(until)).await {
            Ok(true) => Ok(()),
            _ => Err(DemoError::Broker { name: name(number), said: process.last_words() }),
        }
    }

    fn options(&self, number: usize, address: SocketAddr) -> String {
        let Database { backend, url, password_file, group } = &self.database;
        let data = self.directory.0.join(format!("data-{number}"));
        let mut text = format!("broker_name = {:?}\ndata = {data:?}\nconsole.listen = \"\"\n", name(number));
        text += &format!("[store]\nbackend = {:?}\nurl = {url:?}\ngroup = {group:?}\n", backend.as_str());
        if let Some(file) = password_file {
            writeln!(text, "password_file = {file:?}").expect("writing to a text does not fail");
        }
        text + &format!("[[connectors]]\nname = \"stomp\"\nuri = \"stomp://{address}\"\n")
    }

    /// Takes everything back, the tables too if the database is somebody else's.
    pub(super) async fn tear_down(mut self) -> Result<(), DemoError> {
        let config = self.brokers.first().map(|broker| broker.config.clone());
        self.brokers.clear();
        match config {
            Some(config) if !self.is_private() => drop_tables(&config).await,
            _ => Ok(()),
        }
    }
}

/// As people know it.
pub(super) fn name(number: usize) -> String {
    format!("broker-{}", number + 1)
}

fn backend_of(url: &str) -> Result<Backend, DemoError> {
    match url.split_once("://") {
        Some(("postgres" | "postgresql", _)) => Ok(Backend::Postgres),
        Some(("mysql", _)) => Ok(Backend::Mysql),
        _ => Err(DemoError::Url),
    }
}

async fn drop_tables(config: &Path) -> Result<(), DemoError> {
    let config = Config::load(&Sources { file: Some(config.to_owned()), ..Sources::default() })?;
    let dropped = match config.store.backend {
        #[cfg(feature = "postgres")]
        Backend::Postgres => drop_postgres_tables(&config).await,
        #[cfg(feature = "mysql")]
        Backend::Mysql => drop_mysql_tables(&config).await,
        _ => Ok(()),
    };
    Ok(dropped.map_err(NodeError::from)?)
}

#[cfg(feature = "postgres")]
async fn drop_postgres_tables(config: &Config) -> Result<(), StoreError> {
    let (postgres, group) = node::postgres(config)?;
    let (session, driver) = postgres.connect("demo").await?;
    tokio::select! {
        dropped = db::postgres::schema::remove(&session, &group) => Ok(dropped?),
        () = driver.run() => Err(StoreError::Closed),
    }
}

#[cfg(feature = "mysql")]
async fn drop_mysql_tables(config: &Config) -> Result<(), StoreError> {
    let (mysql, group) = node::mysql(config)?;
    let mut session = mysql.connect("demo").await?;
    Ok(db::mysql::schema::remove(&mut session, &group).await?)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A directory that is gone with the value.
struct Directory(PathBuf);

impl Directory {
    /// Others may pass, and see nothing: a database server of another user has a directory of its own in it.
    fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("batonmq-demo-{}", chance()));
        DirBuilder::new().mode(0o711).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("batonmq: {} stays: {error}", self.0.display());
        }
    }
}
