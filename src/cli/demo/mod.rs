//! `batonmq demo`: three brokers, one database, and what happens when the master is killed.
//!
//! Starts everything itself, in a directory of its own, and takes it back at the end, however that comes.

mod client;
mod process;
mod server;
mod stage;
mod traffic;

use std::{
    fs::OpenOptions,
    hash::BuildHasher as _,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, timeout},
};

use self::{
    server::ServerError,
    stage::{Stage, name},
    traffic::{Broken, Progress, Seen, consume, produce},
};
use super::{Exit, Failure};
use crate::{config::ConfigError, node::NodeError};

/// What `demo` takes.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Arguments {
    /// A database to use, such as postgres://me@db/test or mysql://me@db/test [default: a private PostgreSQL, if it is
    /// installed]
    #[arg(long)]
    url: Option<String>,
    /// A file with the password of the URL's user
    #[arg(long, value_name = "FILE", requires = "url")]
    password_file: Option<PathBuf>,
    /// How often the master is killed
    #[arg(long, default_value_t = 5)]
    kills: usize,
}

/// Why there is nothing to see, or nothing good.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("--url is neither postgres://… nor mysql://…")]
    Url,
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("{name} did not start:\n{said}")]
    Broker { name: String, said: String },
    #[error("the demonstration was stopped")]
    Stopped,
    #[error("for {PATIENCE:?} nothing went on")]
    Stuck,
    #[error("{0} confirmed messages are missing")]
    Missing(u64),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("the system fails")]
    Io(#[from] io::Error),
}

/// When something that has to happen is taken for something that will not.
const PATIENCE: Duration = Duration::from_secs(30);

/// So many messages pass before the master is killed.
const MESSAGES_BETWEEN: u64 = 200;

/// Sets up, shows, and takes everything back.
pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(demonstrate(arguments, out)).map_err(failure)
}

async fn demonstrate(arguments: &Arguments, out: &mut impl Write) -> Result<(), DemoError> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut stage = tokio::select! {
        stage = Stage::set_up(arguments) => stage?,
        _ = interrupt.recv() => return Err(DemoError::Stopped),
        _ = terminate.recv() => return Err(DemoError::Stopped),
    };
    let shown = tokio::select! {
        shown = show(&mut stage, arguments.kills, out) => shown,
        _ = interrupt.recv() => Err(DemoError::Stopped),
        _ = terminate.recv() => Err(DemoError::Stopped),
    };
    let torn_down = stage.tear_down().await;
    shown.and(torn_down)
}

/// The story: traffic, kills, and what is left at the end.
async fn show(stage: &mut Stage, kills: usize, out: &mut impl Write) -> Result<(), DemoError> {
    if stage.is_private() {
        writeln!(out, "A private PostgreSQL runs in a directory that is gone at the end.")?;
    }
    stage.start_brokers().await?;
    writeln!(out, "Three brokers share the group {}. {} is the master; the others wait.", stage.group(), name(0))?;
    writeln!(
        out,
        "A producer and a consumer have the list of all three; each awaits a receipt for all that it does.\n"
    )?;
    let (tell, mut progress) = watch::channel(None);
    let (tell_seen, mut seen) = watch::channel(Seen::default());
    let addresses = stage.addresses();
    let mut consumer = std::pin::pin!(consume(addresses.clone(), tell_seen));
    let outages = tokio::select! {
        outages = kill_masters(stage, kills, &mut progress, out) => outages?,
        never = produce(addresses, tell) => match never {},
        broken = &mut consumer => return Err(broken.into()),
    };
    let confirmed = progress.borrow().map_or(0, |progress: Progress| progress.confirmed);
    tokio::select! {
        arrived = timeout(PATIENCE, seen.wait_for(|seen| seen.missing(confirmed) == 0)) => drop(arrived),
        broken = &mut consumer => return Err(broken.into()),
    }
    conclude(confirmed, &seen.borrow(), outages, out)
}

/// Kills whoever serves, again and again; for how long nobody did, each time.
async fn kill_masters(
    stage: &mut Stage,
    kills: usize,
    progress: &mut watch::Receiver<Option<Progress>>,
    out: &mut impl Write,
) -> Result<Vec<Duration>, DemoError> {
    let mut outages = Vec::with_capacity(kills);
    for _ in 0..kills {
        let before = wait_for(progress, |_| true).await?;
        let enough = before.confirmed + MESSAGES_BETWEEN;
        let Progress { broker: master, .. } = wait_for(progress, |now| now.confirmed >= enough).await?;
        let killed = Instant::now();
        stage.kill(master);
        let next = wait_for(progress, |now| now.broker != master).await?;
        let outage = next.since.saturating_duration_since(killed);
        outages.push(outage);
        let (old, new, millis) = (name(master), name(next.broker), outage.as_millis());
        writeln!(out, "kill -9 of {old}: {new} confirmed the next message after {millis} ms.")?;
        stage.bring_back(master).await?;
        writeln!(out, "    {old} was started again, and waits.")?;
    }
    Ok(outages)
}

async fn wait_for(
    progress: &mut watch::Receiver<Option<Progress>>,
    holds: impl Fn(&Progress) -> bool,
) -> Result<Progress, DemoError> {
    let found = timeout(PATIENCE, progress.wait_for(|now| now.as_ref().is_some_and(&holds))).await;
    match found {
        Ok(Ok(progress)) => progress.ok_or(DemoError::Stuck),
        _ => Err(DemoError::Stuck),
    }
}

fn conclude(confirmed: u64, seen: &Seen, mut outages: Vec<Duration>, out: &mut impl Write) -> Result<(), DemoError> {
    match seen.missing(confirmed) {
        0 => writeln!(out, "\n{confirmed} messages were confirmed to the producer. All of them arrived, in order.")?,
        missing => return Err(DemoError::Missing(missing)),
    }
    let (acknowledged, redelivered) = (seen.acknowledged(), seen.redelivered());
    writeln!(
        out,
        "{acknowledged} acknowledgements were confirmed to the consumer. None of these messages came again."
    )?;
    writeln!(out, "{redelivered} came again because a broker died before it confirmed, and said so.")?;
    outages.sort_unstable();
    if let (Some(median), Some(longest)) = (outages.get(outages.len() / 2), outages.last()) {
        let (median, longest) = (median.as_millis(), longest.as_millis());
        writeln!(out, "Nobody served for {median} ms (the median), {longest} ms at the longest.")?;
    }
    Ok(())
}

fn failure(error: DemoError) -> Failure {
    let fix = match error {
        DemoError::Config(error) => return error.into(),
        DemoError::Node(error) => return error.into(),
        DemoError::Server(ServerError::NotInstalled | ServerError::NoUser) => {
            "install it (Debian: apt-get install postgresql), or name a database with --url"
        }
        DemoError::Server(ServerError::Io { .. }) | DemoError::Io(_) => {
            "check the directory for temporary files (TMPDIR), and the limits of this user"
        }
        DemoError::Server(ServerError::Failed { .. }) | DemoError::Broker { .. } => "mend what it names, and try again",
        DemoError::Url => "write where the database is",
        DemoError::Stuck => "see whether the machine or the database is busy, and try again",
        DemoError::Stopped => "", // somebody wanted that
        DemoError::Broken(_) | DemoError::Missing(_) => "that is a fault of BatonMQ: please report it",
    };
    Failure::new(Exit::Other, &error, fix)
}

/// A few letters and digits that nobody else has.
fn chance() -> String {
    format!("{:016x}", std::hash::RandomState::new().hash_one(std::process::id()))
}

/// Writes a file that only its owner can read.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
