//! What a backlog costs: filling a journal without consumers, starting on it, and draining it.
//!
//! `cargo bench --bench journal [-- [messages [queues [DIRECTORY]]]]`, by default a million messages of 100 bytes in
//! one queue. Messages go round the queues, a thousand a batch. Memory is the process's, so run it by itself.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use batonmq::{
    persistence::{
        MessageReader, PageRange, PersistenceAdapter, Window,
        journal::{JournalAdapter, JournalOptions},
    },
    types::{
        Batch, BatchNumber, DestinationId, Held, Holder, Message, MessageDraft, Op, Priority, Sequence, Stored, Tenure,
        Term,
    },
};
use bytes::Bytes;
use smallvec::smallvec;

const BODY_BYTES: usize = 100;
const BATCH_MESSAGES: u64 = 1_000;
const PAGE: Window = Window { messages: 2_000, bytes: 8 << 20 };

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let messages: u64 = arguments.next().map_or(Ok(1_000_000), |number| number.parse())?;
    let queues: u64 = arguments.next().map_or(Ok(1), |number| number.parse())?;
    let directory = arguments.next().map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let data = tempfile::tempdir_in(directory)?;
    println!("{messages} messages of {BODY_BYTES} bytes in {queues} queues");
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        println!("{:<28}{:>10.0} ms", "start on nothing", millis(start(data.path()).await?.1));
        fill(data.path(), messages, queues).await?;
        let (_, took) = start(data.path()).await?;
        println!("{:<28}{:>10.0} ms, {:.1} MiB resident", "start on the backlog", millis(took), resident()?);
        drain(data.path(), messages, queues).await?;
        println!("{:<28}{:>10.0} ms", "start on what was settled", millis(start(data.path()).await?.1));
        Ok(())
    })
}

async fn start(data: &Path) -> anyhow::Result<(JournalAdapter, Duration)> {
    let began = Instant::now();
    let mut store = JournalAdapter::open(data, JournalOptions::default())?;
    let catalog = store.recover().await?;
    store.raise(Tenure::default().next_above(catalog.tenure)).await?;
    Ok((store, began.elapsed()))
}

async fn fill(data: &Path, messages: u64, queues: u64) -> anyhow::Result<()> {
    let (mut store, _) = start(data).await?;
    let before = resident()?;
    let mut longest = Duration::ZERO;
    let began = Instant::now();
    for number in 0..messages.div_ceil(BATCH_MESSAGES) {
        let counters = number * BATCH_MESSAGES..((number + 1) * BATCH_MESSAGES).min(messages);
        let ops = counters.map(|counter| insert(counter, queues)).collect();
        let batch = Arc::new(Batch { number: BatchNumber(number + 1), ops });
        let begin = Instant::now();
        store.try_commit(&batch).await?;
        longest = longest.max(begin.elapsed());
    }
    report("fill", messages, began.elapsed());
    println!("{:<28}{:>10.1} ms; {:.1} MiB more resident", "longest batch", millis(longest), resident()? - before);
    Ok(())
}

async fn drain(data: &Path, messages: u64, queues: u64) -> anyhow::Result<()> {
    let (mut store, _) = start(data).await?;
    let reader = store.reader();
    let (mut read, mut number, mut reading) = (0, 0, Duration::ZERO);
    let began = Instant::now();
    for queue in 1..=queues {
        let holder = Holder::Queue(DestinationId(queue));
        let mut range = PageRange { after: Sequence::ZERO, upto: Sequence::MAX };
        loop {
            let begin = Instant::now();
            let page = reader.page(holder, Priority::default(), range, PAGE).await?;
            reading += begin.elapsed();
            read += page.messages.len() as u64;
            range.after = page.messages.last().map_or(range.after, |stored| stored.sequence);
            let settle = |stored: &Stored| Op::Settle { sequence: stored.sequence, holder };
            number += 1;
            let ops = page.messages.iter().map(settle).collect();
            store.try_commit(&Arc::new(Batch { number: BatchNumber(number), ops })).await?;
            if page.complete {
                break;
            }
        }
    }
    anyhow::ensure!(read == messages, "{read} messages of {messages} came back");
    report("drain, the reading", messages, reading);
    report("drain, with its settles", messages, began.elapsed());
    Ok(())
}

fn insert(counter: u64, queues: u64) -> Op {
    let queue = DestinationId(1 + counter % queues);
    let id = format!("ID:bench-{counter}");
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let draft = MessageDraft { id: id.as_str().into(), persistent: true, body, ..MessageDraft::default() };
    Op::Insert(Stored {
        sequence: Sequence::new(Term(1), counter + 1),
        destination: queue,
        holders: smallvec![Held::fresh(Holder::Queue(queue))],
        message: Arc::new(Message::new(draft)),
    })
}

fn report(what: &str, messages: u64, took: Duration) {
    println!("{what:<28}{:>10.0} messages/s", messages as f64 / took.as_secs_f64());
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Unit: MiB.
fn resident() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|line| line.split_whitespace().next()).unwrap_or("0").parse()?;
    Ok(kib / 1_024.0)
}
