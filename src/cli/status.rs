//! `batonmq status`: who is the master, as whoever decides it says: the database, or the lock on the data directory.

use std::{io::Write, path::Path};

use serde::Serialize;

use super::{Failure, start::Sources};
use crate::{
    config::Config,
    election::{Survey, lock_note, share_lock},
    node::NodeError,
};

/// What `status` takes.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Write one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Looks, and tells.
pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let config = arguments.sources.load()?;
    let status = Status::of(&config)?;
    if arguments.json {
        serde_json::to_writer_pretty(&mut *out, &status).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    match &status {
        Status::Files(lock) => write_lock(lock, out)?,
        Status::Database { group, survey: None, .. } => {
            writeln!(out, "group {group} has no tables yet: no broker ran")?
        }
        Status::Database { group, lease_seconds, survey: Some(survey) } => {
            write_survey(group, *lease_seconds, survey, out)?;
        }
    }
    Ok(())
}

/// What there is to tell.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Status {
    Files(Lock),
    #[cfg_attr(
        not(any(feature = "postgres", feature = "mysql")),
        expect(dead_code, reason = "no database is built in")
    )]
    Database {
        group: String,
        /// As this configuration says; the group's brokers should say the same.
        lease_seconds: u64,
        survey: Option<Survey>,
    },
}

/// The lock on a data directory.
#[derive(Debug, Serialize)]
struct Lock {
    data: String,
    held: bool,
    /// The process that holds it, or held it last.
    by: Option<String>,
}

impl Status {
    fn of(config: &Config) -> Result<Self, Failure> {
        if !config.store.backend.is_database() {
            return lock_of(&config.data).map(Self::Files);
        }
        #[cfg(any(feature = "postgres", feature = "mysql"))]
        {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let survey = runtime.block_on(crate::node::survey(config)).map_err(NodeError::from)?;
            let database = config.store.database.as_ref();
            let group = database.map(|database| database.group.to_string()).unwrap_or_default();
            Ok(Self::Database { group, lease_seconds: config.election.lease.as_secs(), survey })
        }
        #[cfg(not(any(feature = "postgres", feature = "mysql")))]
        unreachable!("the configuration was checked")
    }
}

fn lock_of(data: &Path) -> Result<Lock, Failure> {
    let held = share_lock(data).map_err(NodeError::from)?.is_none();
    Ok(Lock { data: data.display().to_string(), held, by: lock_note(data)? })
}

fn write_lock(lock: &Lock, out: &mut impl Write) -> std::io::Result<()> {
    let data = &lock.data;
    match (lock.held, &lock.by) {
        (true, Some(by)) => writeln!(out, "{by} holds {data}"),
        (true, None) => writeln!(out, "a broker holds {data}"),
        (false, Some(by)) => writeln!(out, "no broker holds {data}; the last one was {by}"),
        (false, None) => writeln!(out, "no broker holds {data}"),
    }
}

fn write_survey(group: &str, lease_seconds: u64, survey: &Survey, out: &mut impl Write) -> std::io::Result<()> {
    let Survey { term, token, .. } = survey;
    match (survey.master(), survey.held_for_ms) {
        (Some(master), Some(since)) => {
            writeln!(out, "group {group}: {master} is the master, for {}; term {term}, token {token}", age(since))?;
        }
        _ => writeln!(out, "group {group}: there is no master at the moment; last term {term}, token {token}")?,
    }
    match survey.lease_left_ms {
        Some(left @ 1..) => writeln!(out, "lease: {lease_seconds} s, of which {left} ms are left")?,
        _ => writeln!(out, "lease: {lease_seconds} s without a word of the master")?,
    }
    writeln!(out, "\nbroker               role       last sign of life   addresses")?;
    for broker in &survey.brokers {
        let seen = format!("{} ago", age(broker.seen_ms_ago));
        writeln!(out, "{:<20} {:<10} {seen:<19} {}", broker.name, broker.role, broker.addresses)?;
    }
    writeln!(out, "\nterm   token  broker               from … to, and why it ended")?;
    for tenure in &survey.tenures {
        let (ended, reason) = (tenure.ended.as_deref().unwrap_or("now"), tenure.reason.as_deref().unwrap_or_default());
        let (term, token, broker, began) = (tenure.term, tenure.token, &tenure.broker, &tenure.began);
        writeln!(out, "{term:<6} {token:<6} {broker:<20} {began} … {ended} {reason}")?;
    }
    Ok(())
}

/// An age as people say it.
fn age(millis: i64) -> String {
    match millis {
        ..10_000 => format!("{millis} ms"),
        10_000..600_000 => format!("{} s", millis / 1_000),
        600_000..36_000_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}
