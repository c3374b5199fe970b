//! What clients see of the journal's copying: load C beside what must be copied, and on an empty journal.
//!
//! `cargo bench --bench copying -- --harness STOMPBENCH`, the load generator's binary (see benches/README.md). Before
//! the load, one message of eleven is kept and the others are settled, so that every segment has some that live; as the
//! load writes, these segments leave one after the other. In each run the two brokers take turns.

#[path = "kit/mod.rs"]
mod kit;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use kit::{Load, Site, drain, fill};
use serde_json::Value;

#[derive(Debug, Parser)]
struct Arguments {
    /// The load generator
    #[arg(long)]
    harness: PathBuf,
    /// Measured seconds of each load
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Messages of 1 KiB that stay
    #[arg(long, default_value_t = 100_000)]
    kept: u32,
    /// The disk to work on
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    directory: PathBuf,
    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Messages that are settled for one that is kept.
const SETTLED_FOR_KEPT: u32 = 10;
/// Eight producers with 100 receipts outstanding each, eight consumers, an ACK every ten messages.
const C: &str = "--kind queue --persistent true --confirm receipt --producers 8 --consumers 8 --window 100 --ack client \
                 --ack-every 10 --prefetch 100 --drain-timeout 30";
/// C, and C over a backlog, so that every message is written.
const LOADS: [(&str, &str); 2] = [("C", ""), ("CB", " --backlog 10000")];

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    println!(
        "{:<28}{:>12}{:>14}{:>14}{:>14}{:>16}",
        "", "confirmed/s", "receipt p50", "receipt p99", "delivery p99", "segments left"
    );
    for _ in 0..arguments.runs {
        for kept in [0, arguments.kept] {
            run(&arguments, kept)?;
        }
    }
    Ok(())
}

fn run(arguments: &Arguments, kept: u32) -> anyhow::Result<()> {
    let home = tempfile::tempdir_in(&arguments.directory)?;
    let site = Site::new(home.path(), home.path().join("data"), "", None)?;
    let mut broker = site.start()?;
    let keep = Load::new("kept", 0, 1_024, kept);
    let settle = Load::new("settled", 1, 1_024, kept * SETTLED_FOR_KEPT);
    fill(site.address, &[&keep, &settle])?;
    drain(site.address, &settle)?;
    for (name, extra) in LOADS {
        let before = oldest_segment(&site.data)?;
        let result = load(arguments, &site, &format!("{C}{extra} --destination {name}"))?;
        let left = oldest_segment(&site.data)?.saturating_sub(before);
        let what = format!("{name}, {}", if kept == 0 { "empty journal" } else { "copying" });
        let number = |pointer: &str| result.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let ms = |pointer: &str| number(pointer) / 1e3;
        println!(
            "{what:<28}{:>12.0}{:>11.2} ms{:>11.2} ms{:>11.2} ms{left:>16}",
            number("/confirmed_per_s"),
            ms("/receipt/p50_us"),
            ms("/receipt/p99_us"),
            ms("/deliver/p99_us"),
        );
    }
    drain(site.address, &keep)?;
    keep.ledger.verify()?;
    Ok(broker.kill_9()?)
}

fn load(arguments: &Arguments, site: &Site, options: &str) -> anyhow::Result<Value> {
    let mut command = Command::new(&arguments.harness);
    command.args(["--json", "--warmup", "2", "--seconds", &arguments.seconds.to_string()]);
    command.args(["--url", &site.address.to_string()]).args(options.split_whitespace());
    let output = command.output().context("the load generator can't be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the load generator found something wrong: {said}");
    serde_json::from_slice(&output.stdout).context("the load generator's answer can't be read")
}

/// The number of the oldest segment.
fn oldest_segment(data: &Path) -> io::Result<u64> {
    let mut oldest = u64::MAX;
    for entry in fs::read_dir(data.join("journal"))? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".journal")?.parse().ok());
        oldest = oldest.min(number.unwrap_or(u64::MAX));
    }
    Ok(oldest)
}
