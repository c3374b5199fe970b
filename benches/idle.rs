//! What idle connections cost: the release binary's RSS with connections that have a subscription each and are quiet,
//! fresh ones and such that have just worked.
//!
//! `cargo bench --bench idle [-- CONNECTIONS ...]`, by default 1,000 and 10,000. A worker has sent itself
//! [`WORK_MESSAGES`] messages and acknowledged them before it became quiet.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use batonmq::server::raise_open_files_limit;
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
    let clients: Vec<Client> = (0..connections).map(|number| broker.connect(number)).collect::<Result<_, _>>()?;
    if works {
        clients.iter().try_for_each(Client::work)?;
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
        let address = published(data.path()).context("the broker opened no port")?;
        Ok(Self { process, address, _data: data })
    }

    fn rss(&self) -> anyhow::Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1_024)
    }

    fn connect(&self, number: usize) -> anyhow::Result<Client> {
        let client = Client { socket: TcpStream::connect(&self.address)?, queue: format!("/queue/idle-{number}") };
        let queue = &client.queue;
        client.say(&format!(
            "CONNECT\naccept-version:1.2\nhost:x\nheart-beat:0,0\n\n\0\
             SUBSCRIBE\nid:1\nack:client\ndestination:{queue}\nreceipt:subscribed\n\n\0"
        ))?;
        client.hear_until("receipt-id:subscribed")?;
        Ok(client)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the broker did not end: {error}");
        }
    }
}

/// The address of the one open port, once it is published.
fn published(data: &Path) -> Option<String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let listeners = fs::read_to_string(data.join(batonmq::server::LISTENERS_FILE)).unwrap_or_default();
        if let Some((_, address)) = listeners.trim().split_once("://") {
            return Some(address.to_owned());
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}

struct Client {
    socket: TcpStream,
    queue: String,
}

impl Client {
    fn say(&self, frames: &str) -> io::Result<()> {
        (&self.socket).write_all(frames.as_bytes())
    }

    /// Reads up to the frame that holds `text`.
    fn hear_until(&self, text: &str) -> anyhow::Result<()> {
        let mut frame = Vec::new();
        let mut reader = BufReader::with_capacity(1, (&self.socket).take(1 << 30));
        loop {
            frame.clear();
            ensure!(reader.read_until(0, &mut frame)? > 0, "the broker closed the connection");
            if String::from_utf8_lossy(&frame).contains(text) {
                return Ok(());
            }
        }
    }

    fn work(&self) -> anyhow::Result<()> {
        let body = "b".repeat(WORK_BODY_BYTES);
        let queue = &self.queue;
        let mut frames = format!("SEND\ndestination:{queue}\n\n{body}\0").repeat(WORK_MESSAGES - 1);
        frames.push_str(&format!("SEND\ndestination:{queue}\nlast:true\n\n{body}\0"));
        self.say(&frames)?;
        let mut last = String::new();
        let mut reader = BufReader::new(&self.socket);
        while !last.contains("last:true") {
            let mut frame = Vec::new();
            ensure!(reader.read_until(0, &mut frame)? > 0, "the broker closed the connection");
            last = String::from_utf8_lossy(&frame).into_owned();
        }
        let ack = last.lines().find_map(|line| line.strip_prefix("ack:")).context("a MESSAGE without ack")?;
        self.say(&format!("ACK\nid:{ack}\nreceipt:acked\n\n\0"))?;
        self.hear_until("receipt-id:acked")
    }
}
