//! A backlog that no consumer takes: what it costs in memory, and how soon a broker serves again after `kill -9`.
//!
//! `cargo bench --bench backlog [-- --messages 10000000 --settled 20000000 --memory-mib 400 --directory DIR]`
//!
//! First story: four producers send messages of 100 bytes to one queue, and a hundredth as many of 64 KiB to another,
//! without any consumer. The broker is killed in the middle and at the end, and again for each measured start; then
//! four consumers drain both queues. Second story: messages are sent and settled in rounds, one in each round stays,
//! and again starts are measured. Beside each start stands that of an empty broker, which has been killed before too.
//!
//! The broker runs in a control group of that memory where one can be made (as root); its peak resident size is printed
//! either way. Every message is verified: none confirmed is missing, none torn, none twice, none marked as redelivered,
//! each producer's in order. A goal that is missed is told, and ends the bench with an error when all is done.

mod goals;
#[path = "../kit/mod.rs"]
mod kit;
mod limit;
mod starts;

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Parser;
use goals::Goals;
use kit::{Load, Rate, Site, disk_used, drain, fill, fill_until_killed};
use limit::MemoryGroup;
use starts::{Starts, can_drop_page_cache};

#[derive(Debug, Parser)]
struct Arguments {
    /// Messages of 100 bytes in the backlog; a hundredth as many of 64 KiB come with them. 0 leaves this story out
    #[arg(long, default_value_t = 10_000_000)]
    messages: u32,
    /// Messages that are settled before the starts of the second story. 0 leaves it out
    #[arg(long, default_value_t = 20_000_000)]
    settled: u32,
    /// What the broker may take of the machine's memory
    #[arg(long, default_value_t = 400)]
    memory_mib: u64,
    /// The disk to work on
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    directory: PathBuf,
    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Messages of 100 bytes for one of 64 KiB.
const SMALL_FOR_LARGE: u32 = 100;
/// Messages of one round of the second story.
const ROUND: u32 = 1_000_000;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let home = tempfile::tempdir_in(&arguments.directory)?;
    let group = MemoryGroup::new(arguments.memory_mib << 20);
    match &group {
        Ok(_) => println!("the broker's control group has {} MiB of memory", arguments.memory_mib),
        Err(error) => println!("no control group ({error}): memory is watched, not limited"),
    }
    if !can_drop_page_cache() {
        println!("not root: starts are measured with a warm page cache");
    }
    let group = group.as_ref().ok().map(MemoryGroup::directory);
    let empty = site(home.path(), "empty", group)?;
    let mut goals = Goals::default();
    if arguments.messages > 0 {
        waiting(&site(home.path(), "waiting", group)?, &empty, arguments.messages, &mut goals)?;
    }
    if arguments.settled > 0 {
        settled(&site(home.path(), "settled", group)?, &empty, arguments.settled, &mut goals)?;
    }
    goals.all_reached()
}

fn site(home: &Path, name: &str, group: Option<&Path>) -> anyhow::Result<Site> {
    let home = home.join(name);
    Ok(Site::new(&home, home.join("data"), "", group)?)
}

/// The first story.
fn waiting(site: &Site, empty: &Site, messages: u32, goals: &mut Goals) -> anyhow::Result<()> {
    let small = Load::new("small", 0, 100, messages);
    let large = Load::new("large", 1, 64 << 10, messages / SMALL_FOR_LARGE);
    let loads = [&small, &large];
    println!("\n{messages} messages of 100 bytes and {} of 64 KiB, no consumer", large.messages);

    let half = (u64::from(small.messages) + u64::from(large.messages)) / 2;
    let rate = fill_until_killed(site.address, &loads, site.start()?, half, |broker| goals.memory(broker))?;
    print_rate("sent to the middle, then killed", rate);
    let mut broker = site.start()?;
    println!("{:<44}{:>12.0} ms", "  ready again after", broker.ready_after.as_secs_f64() * 1e3);
    let filled = fill(site.address, &loads);
    broker.ensure_alive(site)?;
    print_rate("sent to the end, then killed", filled?);
    goals.memory(&broker);
    broker.kill_9()?;
    println!("{:<44}{:>12.1} GB", "  on disk", disk_used(&site.data)? as f64 / 1e9);
    goals.starts(&Starts::measure(site, empty)?, goals::WAITING_READY_MAX);

    let mut broker = site.start()?;
    for load in loads {
        let drained = drain(site.address, load);
        broker.ensure_alive(site)?;
        print_rate(&format!("drained by four consumers, {}", load.ledger.name), drained?);
        load.ledger.verify_first_deliveries()?;
    }
    goals.memory(&broker);
    broker.kill_9()?;
    Ok(fs::remove_dir_all(&site.data)?)
}

/// The second story.
fn settled(site: &Site, empty: &Site, messages: u32, goals: &mut Goals) -> anyhow::Result<()> {
    println!("\n{messages} messages settled, one of each million stays");
    let mut broker = site.start()?;
    let kept = Load::new("kept", 2, 100, 0);
    let mut to_send = messages;
    while to_send > 0 {
        let load = Load::new("settled", 3, 100, to_send.min(ROUND));
        kept.send_one(site.address)?;
        fill(site.address, &[&load])?;
        drain(site.address, &load)?;
        load.ledger.verify_first_deliveries()?;
        to_send -= load.messages;
    }
    goals.memory(&broker);
    broker.kill_9()?;
    println!("{:<44}{:>12.1} GB", "  on disk", disk_used(&site.data)? as f64 / 1e9);
    goals.starts(&Starts::measure(site, empty)?, goals::SETTLED_READY_MAX);
    let mut broker = site.start()?;
    drain(site.address, &kept)?;
    kept.ledger.verify_first_deliveries()?;
    broker.kill_9()?;
    Ok(fs::remove_dir_all(&site.data)?)
}

fn print_rate(what: &str, rate: Rate) {
    let seconds = rate.took.as_secs_f64();
    println!("{what:<44}{:>12.0} messages/s{:>10.1} s", rate.messages as f64 / seconds, seconds);
}
