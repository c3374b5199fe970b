//! How often the broker allocates for a message: steady C (a persistent queue, 8 producers with windows of 100
//! receipts, 8 consumers with a cumulative ACK for every 10 messages, bodies of 1 KiB), on the journal.
//!
//! `cargo bench --bench allocations [-- FILE]` runs the broker in this process, where every allocation is counted, and
//! the clients in another one. With FILE it writes where the allocations come from, for DHAT's viewer.

#[path = "kit/mod.rs"]
mod kit;

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use batonmq::{
    config::{Config, Setting, Sources},
    node::{self, RUNTIME_WORKERS, Standby},
    server::LISTENERS_FILE,
};
use kit::{Client, put_send};

const PRODUCERS: usize = 8;
const CONSUMERS: usize = 8;
const WINDOW: usize = 100;
const ACK_EVERY: usize = 10;
const QUEUE: &str = "/queue/c";
const BODY_BYTES: usize = 1_024;
/// How long the broker may take for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages of each producer before counting: buffers find their size.
const WARM_UP: usize = 5_000;
/// Messages of each producer while counting.
const COUNTED: usize = 25_000;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["clients", address] => clients(address.parse()?),
        [file] => measure(dhat::Profiler::builder().file_name(file)),
        [] => measure(dhat::Profiler::builder().testing()),
        _ => bail!("what is asked for is unclear: {arguments:?}"),
    }
}

/// The broker's side.
fn measure(profiler: dhat::ProfilerBuilder) -> anyhow::Result<()> {
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let flags = vec![
        Setting::flag("data", "data", data.path().to_string_lossy().as_ref()),
        Setting::connectors("listen", &["stomp://127.0.0.1:0".to_owned()]),
        Setting::flag("console", "console.listen", "127.0.0.1:0"),
    ];
    let config = Config::load(&Sources { flags, ..Sources::default() })?;
    let profiler = profiler.build();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_WORKERS).enable_all().build()?;
    thread::spawn(move || {
        if let Err(error) = runtime.block_on(node::run(config, Standby::Exit)) {
            eprintln!("the broker ended: {error}");
        }
    });
    let mut clients = Clients::start(&address(data.path())?)?;
    clients.run(WARM_UP)?;
    let (before, since) = (dhat::HeapStats::get(), Instant::now());
    clients.run(COUNTED)?;
    let (after, took) = (dhat::HeapStats::get(), since.elapsed());
    clients.end()?;
    let messages = (PRODUCERS * COUNTED) as f64;
    println!("messages                {messages:>12.0}, {:.0} a second while counted", messages / took.as_secs_f64());
    println!("allocations a message   {:>12.2}", (after.total_blocks - before.total_blocks) as f64 / messages);
    println!("allocated a message     {:>12.0} bytes", (after.total_bytes - before.total_bytes) as f64 / messages);
    drop(profiler);
    std::process::exit(0); // the broker would go on
}

/// The broker's address, once it is published.
fn address(data: &Path) -> anyhow::Result<String> {
    let began = Instant::now();
    loop {
        let listeners = fs::read_to_string(data.join(LISTENERS_FILE)).unwrap_or_default();
        if let Some((_, address)) = listeners.trim().split_once("://") {
            return Ok(address.to_owned());
        }
        ensure!(began.elapsed() < PATIENCE, "the broker opens no port");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The process of the clients, as the broker's side sees it.
struct Clients {
    process: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
}

impl Clients {
    fn start(address: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let command = command.args(["clients", address]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let orders = process.stdin.take().context("it is piped")?;
        let reports = BufReader::new(process.stdout.take().context("it is piped")?);
        Ok(Self { process, orders, reports })
    }

    /// Has each producer send so many messages; returns when all are consumed.
    fn run(&mut self, messages: usize) -> anyhow::Result<()> {
        writeln!(self.orders, "{messages}")?;
        let mut report = String::new();
        self.reports.read_line(&mut report)?;
        if report == "done\n" { Ok(()) } else { bail!("the clients failed") }
    }

    fn end(mut self) -> anyhow::Result<()> {
        drop(self.orders);
        self.process.wait()?;
        Ok(())
    }
}

/// The clients' side: one run for each line.
fn clients(address: SocketAddr) -> anyhow::Result<()> {
    for line in io::stdin().lines() {
        let messages: usize = line?.parse()?;
        thread::scope(|scope| {
            let consumers = (0..CONSUMERS).map(|_| scope.spawn(|| consume(address, messages * PRODUCERS / CONSUMERS)));
            let producers = (0..PRODUCERS).map(|_| scope.spawn(|| produce(address, messages)));
            let all: Vec<_> = consumers.chain(producers).collect();
            all.into_iter().try_for_each(|client| client.join().expect("no client panics"))
        })?;
        println!("done");
    }
    Ok(())
}

/// Sends with [`WINDOW`] receipts outstanding at most.
fn produce(address: SocketAddr, messages: usize) -> io::Result<()> {
    let mut client = Client::connect(address, None)?;
    let (mut frames, mut sent) = (Vec::new(), 0);
    for confirmed in 0..messages {
        if sent <= confirmed + WINDOW / 2 {
            frames.clear();
            while sent < messages.min(confirmed + WINDOW) {
                let headers = format!("persistent:true\nreceipt:{sent}\n");
                put_send(&mut frames, QUEUE, &headers, BODY_BYTES, |out| out.resize(out.len() + BODY_BYTES, b'b'));
                sent += 1;
            }
            client.write(&frames)?;
        }
        client.expect("RECEIPT", PATIENCE)?;
    }
    Ok(())
}

/// Takes so many messages.
fn consume(address: SocketAddr, messages: usize) -> io::Result<()> {
    let mut client = Client::connect(address, None)?;
    client.say("SUBSCRIBE", &format!("id:1\nack:client\ndestination:{QUEUE}\n"))?;
    for number in 1..=messages {
        let ack = client.expect("MESSAGE", PATIENCE)?.header("ack").to_owned();
        if number % ACK_EVERY == 0 || number == messages {
            client.say("ACK", &format!("id:{ack}\n"))?;
        }
    }
    Ok(())
}
