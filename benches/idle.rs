//! What idle connections cost: the release binary's RSS with connections that have a subscription each and are quiet,
//! fresh ones and such that have just worked.
//!
//! `cargo bench --bench idle [-- CONNECTIONS ...]`, by default 1,000 and 10,000. A worker has sent itself
//! [`WORK_MESSAGES`] messages and acknowledged them before it became quiet.

mod client;

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context;
use batonmq::server::raise_open_files_limit;
use client::{Client, header, published};
use tempfile::TempDir;

/// What each worker does before it is quiet.
const WORK_MESSAGES: usize = 200;
/// Of 1 KiB: they come in more than one read.
const WORK_BODY_BYTES: usize = 1_024;
/// So long everybody is quiet before it is measured.
const QUIET: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    raise_open_files_limit();
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let counts = if asked.is_empty() { vec![1_000, 10_000] } else { asked };
    println!("{:<12}{:>12}{:>12}{:>12}{:>16}", "", "connections", "RSS empty", "RSS", "a connection");
    for (kind, works) in [("fresh", false), ("have worked", true)] {
        for connections in &counts {
            let (empty, full) = measure(*connections, works)?;
            let each = (full - empty) as f64 / *connections as f64;
            let megabytes = |bytes: usize| format!("{:.1} MB", bytes as f64 / 1e6);
            println!("{kind:<12}{connections:>12}{:>12}{:>12}{each:>14.0} B", megabytes(empty), megabytes(full));
        }
    }
    Ok(())
}

/// RSS without connections and with so many.
fn measure(connections: usize, works: bool) -> anyhow::Result<(usize, usize)> {
    let broker = Broker::start()?;
    let empty = broker.rss()?;
    let workers = (0..connections).map(|number| Worker::connect(&broker.address, number));
    let mut workers: Vec<Worker> = workers.collect::<Result<_, _>>()?;
    if works {
        workers.iter_mut().try_for_each(Worker::work)?;
    }
    thread::sleep(QUIET);
    Ok((empty, broker.rss()?))
}

struct Broker {
    process: Child,
    address: String,
    _data: TempDir,
}

impl Broker {
    fn start() -> anyhow::Result<Self> {
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_batonmq"));
        command.args(["start", "--listen", "stomp://127.0.0.1:0", "--log-level", "warn", "--data"]).arg(data.path());
        let process = command.stdout(Stdio::null()).spawn()?;
        let address = published(data.path())?;
        Ok(Self { process, address, _data: data })
    }

    fn rss(&self) -> anyhow::Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1_024)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the broker did not end: {error}");
        }
    }
}

struct Worker {
    client: Client,
    queue: String,
}

impl Worker {
    fn connect(address: &str, number: usize) -> anyhow::Result<Self> {
        let (mut client, queue) = (Client::connect(address)?, format!("/queue/idle-{number}"));
        client.say(&format!("SUBSCRIBE\nid:1\nack:client\ndestination:{queue}\nreceipt:subscribed\n\n\0"))?;
        let mut reader = client.reader(1)?;
        client.hear_until("receipt-id:subscribed", &mut reader)?;
        Ok(Self { client, queue })
    }

    fn work(&mut self) -> anyhow::Result<()> {
        let Self { client, queue } = self;
        let body = "b".repeat(WORK_BODY_BYTES);
        let mut frames = format!("SEND\ndestination:{queue}\n\n{body}\0").repeat(WORK_MESSAGES - 1);
        frames += &format!("SEND\ndestination:{queue}\nlast:true\n\n{body}\0");
        client.say(&frames)?;
        let mut reader = client.reader(64 << 10)?;
        let last = client.hear_until("last:true", &mut reader)?;
        client.say(&format!("ACK\nid:{}\nreceipt:acked\n\n\0", header(&last, "ack")?))?;
        client.hear_until("receipt-id:acked", &mut reader)?;
        Ok(())
    }
}
