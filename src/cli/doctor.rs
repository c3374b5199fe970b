//! `batonmq doctor`: what could go wrong with the store and the election of a configuration, and what to do about it.

use std::io::Write;

use super::{Exit, Failure, start::Sources};
use crate::doctor::{self, Finding, Verdict};

/// What `doctor` takes.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Write a JSON array instead of text
    #[arg(long)]
    json: bool,
}

/// Something has to be mended.
#[derive(Debug, thiserror::Error)]
#[error("what says FAIL has to be mended ({0})")]
struct Unhealthy(usize);

/// Looks, and tells.
pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let config = arguments.sources.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(doctor::examine(&config));
    if arguments.json {
        serde_json::to_writer_pretty(&mut *out, &findings).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        findings.iter().try_for_each(|finding| write_line(finding, out))?;
    }
    match findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        failures => Err(Failure::new(Exit::Unhealthy, &Unhealthy(failures), "")),
    }
}

fn write_line(finding: &Finding, out: &mut impl Write) -> std::io::Result<()> {
    let Finding { verdict, subject, says, fix } = finding;
    let fix = fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
    writeln!(out, "{:<5} {subject:<11} {says}{fix}", verdict.as_str())
}
