//! How often the broker allocates for a message: steady C (a persistent queue, 8 producers with windows of 100
//! receipts, 8 consumers with a cumulative ACK for every 10 messages, bodies of 1 KiB), on the journal.
//!
//! `cargo bench --bench allocations [-- FILE]` runs the broker in this process, where every allocation is counted, and
//! the clients in another one. With FILE it writes where the allocations come from, for DHAT's viewer.

mod client;

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, bail};
use batonmq::{
    config::{Config, Setting, Sources},
    node::{self, RUNTIME_WORKERS, Standby},
};
use client::{Client, header, published};

const PRODUCERS: usize = 8;
const CONSUMERS: usize = 8;
const WINDOW: usize = 100;
const ACK_EVERY: usize = 10;
const BODY_BYTES: usize = 1_024;
/// Messages of each producer before counting: buffers find their size.
const WARM_UP: usize = 5_000;
/// Messages of each producer while counting.
const COUNTED: usize = 25_000;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["clients", address] => clients(address),
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
    ];
    let config = Config::load(&Sources { flags, ..Sources::default() })?;
    let profiler = profiler.build();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_WORKERS).enable_all().build()?;
    thread::spawn(move || {
        if let Err(error) = runtime.block_on(node::run(config, Standby::Exit)) {
            eprintln!("the broker ended: {error}");
        }
    });
    let mut clients = Clients::start(&published(data.path())?)?;
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
fn clients(address: &str) -> anyhow::Result<()> {
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

/// Sends with [`WINDOW`] receipts outstanding.
fn produce(address: &str, messages: usize) -> anyhow::Result<()> {
    let mut client = Client::connect(address)?;
    let mut reader = client.reader(64 << 10)?;
    let body = "b".repeat(BODY_BYTES);
    let batch = WINDOW / 10;
    let frames = |first: usize| -> String {
        let frame = |number| format!("SEND\ndestination:/queue/c\npersistent:true\nreceipt:{number}\n\n{body}\0");
        (first..first + batch).map(frame).collect()
    };
    let mut sent = 0;
    for confirmed in 0..messages {
        while sent < messages && sent + batch <= confirmed + WINDOW {
            client.say(&frames(sent))?;
            sent += batch;
        }
        client.hear_until("RECEIPT", &mut reader)?;
    }
    Ok(())
}

/// Takes its share of the messages, if it is one of equals.
fn consume(address: &str, messages: usize) -> anyhow::Result<()> {
    let mut client = Client::connect(address)?;
    let mut reader = client.reader(64 << 10)?;
    client.say("SUBSCRIBE\nid:1\nack:client\ndestination:/queue/c\nactivemq.prefetchSize:100\n\n\0")?;
    for number in 1..=messages {
        let frame = client.hear(&mut reader)?;
        if number % ACK_EVERY == 0 || number == messages {
            let ack = format!("ACK\nid:{}\n\n\0", header(frame, "ack")?);
            client.say(&ack)?;
        }
    }
    Ok(())
}
