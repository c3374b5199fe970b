//! What idle connections cost: the built broker's RSS with connections that have a subscription each and are quiet,
//! fresh ones and such that have just worked.
//!
//! `cargo bench --bench idle [-- CONNECTIONS ...]`, by default 1,000 and 10,000. Who has worked has sent itself
//! [`WORK_MESSAGES`] messages, taken them and acknowledged them.

#[path = "kit/mod.rs"]
mod kit;

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::Context as _;
use batonmq::server::raise_open_files_limit;
use kit::{Client, Site, in_memory, put_send};

/// What each worker does before it is quiet.
const WORK_MESSAGES: usize = 200;
/// They come in more than one read.
const WORK_BODY_BYTES: usize = 1_024;
/// So long everybody is quiet before it is measured.
const QUIET: Duration = Duration::from_secs(5);
/// How long the broker may take for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    raise_open_files_limit();
    let asked: Vec<u32> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let counts = if asked.is_empty() { vec![1_000, 10_000] } else { asked };
    println!("{:<12}{:>12}{:>12}{:>12}{:>16}", "", "connections", "RSS empty", "RSS", "a connection");
    for (kind, works) in [("fresh", false), ("have worked", true)] {
        for connections in &counts {
            let (empty, full) = measure(*connections, works)?;
            let each = full.saturating_sub(empty) / u64::from(*connections);
            let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
            println!("{kind:<12}{connections:>12}{:>12}{:>12}{each:>14} B", megabytes(empty), megabytes(full));
        }
    }
    Ok(())
}

/// RSS without connections and with so many.
fn measure(connections: u32, works: bool) -> anyhow::Result<(u64, u64)> {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let site = Site::new(home.path(), home.path().join("data"), "", None)?;
    let broker = site.start()?;
    let resident = || in_memory(broker.pid(), "VmRSS").context("the broker is gone");
    let empty = resident()?;
    let workers: Result<Vec<_>, _> = (0..connections).map(|number| Worker::connect(site.address, number)).collect();
    let mut workers = workers?;
    if works {
        workers.iter_mut().try_for_each(Worker::work)?;
    }
    thread::sleep(QUIET);
    Ok((empty, resident()?))
}

/// A connection with a queue of its own.
struct Worker {
    client: Client,
    queue: String,
}

impl Worker {
    fn connect(address: SocketAddr, number: u32) -> anyhow::Result<Self> {
        let (mut client, queue) = (Client::connect(address, None)?, format!("/queue/idle-{number}"));
        client.say("SUBSCRIBE", &format!("id:1\nack:client\ndestination:{queue}\nreceipt:subscribed\n"))?;
        client.expect("RECEIPT", PATIENCE)?;
        Ok(Self { client, queue })
    }

    fn work(&mut self) -> anyhow::Result<()> {
        let Self { client, queue } = self;
        let mut frames = Vec::new();
        for _ in 0..WORK_MESSAGES {
            put_send(&mut frames, queue, "", WORK_BODY_BYTES, |out| out.resize(out.len() + WORK_BODY_BYTES, b'b'));
        }
        client.write(&frames)?;
        let mut last = String::new();
        for _ in 0..WORK_MESSAGES {
            client.expect("MESSAGE", PATIENCE)?.header("ack").clone_into(&mut last);
        }
        client.say("ACK", &format!("id:{last}\nreceipt:acknowledged\n"))?;
        client.expect("RECEIPT", PATIENCE)?;
        Ok(())
    }
}
