//! `batonmq start`: options from everywhere, then the broker's life.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{Exit, Failure};
use crate::{
    config::{Config, DEFAULT_FILE, LogFormat, Setting, Sources as ConfigSources},
    node::{self, RUNTIME_WORKERS, Standby},
    telemetry,
};

/// How long threads that the runtime started may take after everything has stopped.
const RUNTIME_STOP_TIMEOUT: Duration = Duration::from_millis(200);

/// What `start` takes.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Exit (with code 8) if another broker holds the data directory, instead of waiting for its end
    #[arg(long)]
    no_wait: bool,
}

/// Where options come from, beside the environment.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Sources {
    /// The configuration file [default: ./batonmq.toml if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory; the option `data` [default: ./data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where messages are kept; the option `store.backend` [default: journal]
    #[arg(long, value_enum)]
    store: Option<Store>,
    /// A connector, such as stomp://0.0.0.0:61613; can be repeated, and replaces all `connectors` of the file
    #[arg(long, value_name = "URI")]
    listen: Vec<String>,
    /// The least urgent level that is logged; the option `log.level` [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Store {
    Journal,
    Memory,
    Postgres,
    Mysql,
}

impl Sources {
    /// Reads and checks all options.
    pub(super) fn load(&self) -> Result<Config, Failure> {
        let sources = ConfigSources { file: self.file(), environment: environment(), flags: self.flags() };
        Ok(Config::load(&sources)?)
    }

    /// The file that is read, if any.
    pub(super) fn file(&self) -> Option<PathBuf> {
        let default = PathBuf::from(DEFAULT_FILE);
        self.config.clone().or_else(|| default.exists().then_some(default))
    }

    fn flags(&self) -> Vec<Setting> {
        let mut flags = Vec::new();
        if let Some(data) = &self.data {
            flags.push(Setting::flag("--data", "data", data.to_string_lossy().as_ref()));
        }
        if let Some(store) = self.store {
            let name = match store {
                Store::Journal => "journal",
                Store::Memory => "memory",
                Store::Postgres => "postgres",
                Store::Mysql => "mysql",
            };
            flags.push(Setting::flag("--store", "store.backend", name));
        }
        if !self.listen.is_empty() {
            flags.push(Setting::connectors("--listen", &self.listen));
        }
        if let Some(level) = &self.log_level {
            flags.push(Setting::flag("--log-level", "log.level", level.as_str()));
        }
        flags
    }
}

/// All variables that are text; one that is not can't be an option of ours.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Runs a broker until it is asked to stop.
pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.sources.load()?;
    let format = match config.log.format {
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    telemetry::start(config.log.level.as_str(), format).map_err(|error| Failure::new(Exit::Other, &error, ""))?;
    let options = arguments.sources.file().map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    tracing::info!("BatonMQ {} starts, with options from {options}", env!("CARGO_PKG_VERSION"));
    let standby = if arguments.no_wait { Standby::Exit } else { Standby::Wait };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_WORKERS).enable_all().build()?;
    let ended = runtime.block_on(node::run(config, standby));
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    Ok(ended?)
}
