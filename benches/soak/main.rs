//! An hour in the life of a broker: mixed load, clients that come and go, `kill -9`, and a full disk.
//!
//! `cargo bench --bench soak [-- --minutes 60 --svg benches/soak.svg]`; ten minutes if nothing is said. Needs root or
//! user namespaces, for a small file system of its own.
//!
//! The script has six rounds of equal length. In each there is steady load, then consumers stay away and a backlog
//! grows, then the disk is full too, then the consumers come back and drain what they can, then there is room again. In
//! the first and the last round the broker is killed in the midst of the load, of the backlog, and of the full disk.
//! The four rounds between are one life of it: that nothing grows is judged by the medians of the second and the last
//! of them.
//!
//! At the end everything must have come: nothing confirmed is lost, nothing comes again whose ACK was confirmed, what
//! comes twice says so, and each producer's messages come in its order. The exit code tells.

mod disk;
#[path = "../kit/mod.rs"]
mod kit;
mod lanes;
mod picture;
mod record;
mod script;
mod stage;
mod workers;

use std::{fs, path::PathBuf, process::ExitCode, thread};

use clap::Parser;
use disk::SmallDisk;
use kit::{Ledger, Site, Tally};
use lanes::{Kept, Lanes};
use record::{Growth, MEASURES, Record};
use script::Script;
use stage::Stage;

#[derive(Debug, Parser)]
struct Arguments {
    /// How long the script takes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// The size of the disk
    #[arg(long, default_value_t = 1_024)]
    disk_mib: u64,
    /// Where to draw the run
    #[arg(long)]
    svg: Option<PathBuf>,
    /// What the clients choose by
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    disk::enter_own_mounts()?;
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let disk = SmallDisk::mount(home.path().join("disk"), arguments.disk_mib)?;
    let site = Site::new(home.path(), disk.data(), lanes::OPTIONS, None)?.with_console();
    let (stage, lanes) = (Stage::new(site.address), Lanes::new());
    let script = Script::new(arguments.minutes * 60.0);

    let record = thread::scope(|scope| {
        let sampler = scope.spawn(|| record::sample(&stage, &site, &lanes));
        let run = script.run(&site, &disk, &stage, &lanes, || lanes::spawn(scope, &stage, &lanes, arguments.seed));
        // Whatever happened, the clients must end.
        stage.end_producers();
        stage.end_consumers();
        let samples = sampler.join().expect("the sampler does not panic");
        run.map(|run| Record { samples, ..run })
    })?;
    let is_right = report_messages(&lanes) & report_growth(&record, &script);
    report_told(&stage);
    if let Some(path) = &arguments.svg {
        fs::write(path, picture::draw(&record, &script))?;
    }
    println!("{}", if is_right { "all is right" } else { "NOT RIGHT" });
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether every message came as it must.
fn report_messages(lanes: &Lanes) -> bool {
    println!();
    row("messages", ["sent", "confirmed", "settled", "in doubt", "missing", "wrong"].map(str::to_owned));
    let right = lanes.ledgers().map(|(ledger, kept)| report_ledger(ledger, kept));
    right.iter().all(|right| *right)
}

fn report_ledger(ledger: &Ledger, kept: Kept) -> bool {
    let (Tally { sent, confirmed, settled, in_doubt, missing }, (wrong, first)) = (ledger.tally(), ledger.wrongs());
    let is_judged = kept != Kept::WhileSubscribed;
    let missing_or_none = if is_judged { missing.to_string() } else { "-".to_owned() };
    let [sent, confirmed, settled, in_doubt] = [sent, confirmed, settled, in_doubt].map(|count| count.to_string());
    row(ledger.name, [sent, confirmed, settled, in_doubt, missing_or_none, wrong.to_string()]);
    for what in first {
        println!("    {what}");
    }
    wrong == 0 && (missing == 0 || !is_judged)
}

fn row(name: &str, [sent, confirmed, settled, in_doubt, missing, wrong]: [String; 6]) {
    println!("{name:<36}{sent:>10}{confirmed:>11}{settled:>10}{in_doubt:>10}{missing:>9}{wrong:>7}");
}

/// Whether nothing grew.
fn report_growth(record: &Record, script: &Script) -> bool {
    println!("\n{:<36}{:>12}{:>12}{:>12}", "median of", "round 3", "round 5", "allowed");
    let mut right = true;
    for measure in &MEASURES {
        let Some(growth) = Growth::of(measure, record, script.judged()) else { continue };
        let Growth { earlier, later, allowed } = growth;
        let verdict = if growth.is_none() { "" } else { "  GROWS" };
        println!("{:<36}{earlier:>12.1}{later:>12.1}{allowed:>12.1}{verdict}", measure.name);
        right &= growth.is_none();
    }
    right
}

/// What clients were told while the broker was away or its disk full: to be read, not judged.
fn report_told(stage: &Stage) {
    println!("\nconnections that ended early");
    for (what, times) in stage.told().iter() {
        println!("{times:>8} × {what}");
    }
}
