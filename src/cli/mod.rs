//! The command line: one file a subcommand, each thin.
//!
//! Always true: a command that fails says why in one sentence on standard error, with what to do about it, and ends
//! with the exit code of that reason.

mod check_config;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod demo;
mod doctor;
mod exit;
pub mod journal;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod migrate;
mod passwd;
mod start;
mod status;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

pub use exit::{EXIT_CODES, Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  batonmq                                        start with the defaults: STOMP on 127.0.0.1:61613, data in ./data
  batonmq start --config /etc/batonmq.toml       start with the options of a file
  batonmq start --data /var/lib/batonmq --listen stomp://0.0.0.0:61613
  batonmq check-config --config batonmq.toml     say what is wrong with a file, without starting anything
  batonmq migrate --config batonmq.toml          make the tables that the store of this file needs
  batonmq status --config batonmq.toml           say who is the master of this file's group
  batonmq demo                                   show what happens when the master of three brokers is killed
  batonmq doctor --config batonmq.toml           look for what could go wrong with its store, and say what to do
  batonmq passwd                                 ask for a password, print its hash for [[users]]
  batonmq journal inspect ./data                 show what a stopped broker's journal holds
  batonmq journal verify ./data                  read all of it, say what is damaged
  batonmq journal repair --dry-run ./data        say what could be saved of a damaged journal

Every option of the file can be a variable: stomp.lenient is BATONMQ_STOMP__LENIENT.";

#[derive(Debug, Parser)]
#[command(name = "batonmq", version, about, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a broker (this is what batonmq does without a command)
    Start(start::Arguments),
    /// Check the options without starting a broker
    CheckConfig(start::Sources),
    /// Make a group's tables in the database, or bring them up to date
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    Migrate(migrate::Arguments),
    /// Say which broker is the master, and which others are alive
    Status(status::Arguments),
    /// Show what happens when the master of three brokers on one database is killed
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    Demo(demo::Arguments),
    /// Look for what could go wrong with the store and the election, and say what to do about it
    Doctor(doctor::Arguments),
    /// Make the hash of a password, for [[users]] in the configuration
    Passwd,
    /// Look into the local journal of a broker that does not run
    #[command(subcommand)]
    Journal(JournalCommand),
}

#[derive(Debug, Subcommand)]
enum JournalCommand {
    /// Show its segments, and how many messages each destination holds
    Inspect(JournalArguments),
    /// Read every record, and say all that is damaged
    Verify(JournalArguments),
    /// Save what is good in a damaged journal; the damaged one is kept beside it
    Repair(RepairArguments),
}

#[derive(Debug, clap::Args)]
struct JournalArguments {
    /// The broker's data directory, which holds the folder journal
    #[arg(default_value = "./data")]
    data: PathBuf,
    /// Write one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct RepairArguments {
    #[command(flatten)]
    journal: JournalArguments,
    /// Only say what would be saved and what is lost
    #[arg(long)]
    dry_run: bool,
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse(); // ends the process with 2 if they make no sense
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn run(command: Option<Command>) -> Result<(), Failure> {
    match command {
        None => start::run(start::Arguments::default()),
        Some(Command::Start(arguments)) => start::run(arguments),
        Some(Command::CheckConfig(sources)) => check_config::run(sources),
        #[cfg(any(feature = "postgres", feature = "mysql"))]
        Some(Command::Migrate(arguments)) => migrate::run(&arguments, &mut io::stdout()),
        Some(Command::Status(arguments)) => status::run(&arguments, &mut io::stdout()),
        #[cfg(any(feature = "postgres", feature = "mysql"))]
        Some(Command::Demo(arguments)) => demo::run(&arguments, &mut io::stdout()),
        Some(Command::Doctor(arguments)) => doctor::run(&arguments, &mut io::stdout()),
        Some(Command::Passwd) => passwd::run(),
        Some(Command::Journal(command)) => run_journal(command),
    }
}

fn run_journal(command: JournalCommand) -> Result<(), Failure> {
    let out = &mut io::stdout();
    match command {
        JournalCommand::Inspect(of) => journal::inspect(&of.data, of.json, out)?,
        JournalCommand::Verify(of) => journal::verify(&of.data, of.json, out)?,
        JournalCommand::Repair(RepairArguments { journal: of, dry_run }) => {
            journal::repair(&of.data, dry_run, of.json, out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
