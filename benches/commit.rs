//! How fast batches become durable: the journal and the memory adapter, beside the disk's own fdatasync rate.
//!
//! `cargo bench --bench commit [-- DIRECTORY] [postgres://…]`; the directory decides which disk is measured, by default
//! the one of the target directory. With a URL PostgreSQL is measured too, in a schema `bench`. Each line is two seconds
//! of batches, one under way at a time, as the engine's writer does.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use batonmq::{
    persistence::{
        MemoryAdapter, PersistenceAdapter,
        journal::{Disk, DiskFile, JournalAdapter, JournalOptions, Open},
    },
    types::{
        Batch, BatchNumber, DestinationId, Held, Holder, Message, MessageDraft, Op, Sequence, Stored, Tenure, Term,
    },
};
use bytes::Bytes;
use smallvec::smallvec;

const SPAN: Duration = Duration::from_secs(2);
const BODY_BYTES: usize = 1_024;
const BATCH_MESSAGES: [u64; 4] = [1, 10, 100, 1_000];

fn main() -> anyhow::Result<()> {
    let (urls, others): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.contains("://"));
    let directory = others.into_iter().find(|argument| !argument.starts_with("--"));
    let directory = directory.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let directory = tempfile::tempdir_in(directory)?;
    println!("{:<44}{:>12}{:>12}{:>12}", "", "commits/s", "messages/s", "MB/s");
    for kib in [4, 16, 128, 1_024] {
        let rate = fdatasync_rate(directory.path(), kib << 10)?;
        let what = format!("fdatasync alone, {kib} KiB written before");
        println!("{what:<44}{rate:>12.0}{:>12}{:>12.1}", "", rate * f64::from(kib) * 1_024.0 / 1e6);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for messages in BATCH_MESSAGES {
        let data = tempfile::tempdir_in(directory.path())?;
        let journal = JournalAdapter::open(data.path(), JournalOptions::default())?;
        report("journal", messages, runtime.block_on(commits(journal, messages))?);
    }
    for messages in BATCH_MESSAGES {
        let options = JournalOptions { disk: Arc::new(NoDisk), ..JournalOptions::default() };
        let journal = JournalAdapter::open(Path::new("nowhere"), options)?;
        report("journal without a disk", messages, runtime.block_on(commits(journal, messages))?);
    }
    for messages in BATCH_MESSAGES {
        report("memory", messages, runtime.block_on(commits(MemoryAdapter::new(), messages))?);
    }
    #[cfg(feature = "postgres")]
    for url in urls {
        for messages in BATCH_MESSAGES {
            report("postgres", messages, runtime.block_on(commits(postgres(&url)?, messages))?);
        }
    }
    Ok(())
}

#[cfg(feature = "postgres")]
fn postgres(url: &str) -> anyhow::Result<batonmq::persistence::PostgresAdapter> {
    use batonmq::db::postgres::{Postgres, PostgresOptions};
    let options = PostgresOptions { url, password: None, tls_ca_file: None, broker_name: "bench" };
    let group = batonmq::types::Group::new("bench").expect("it can be a group's name");
    Ok(batonmq::persistence::PostgresAdapter::new(Postgres::new(&options)?, group)?)
}

fn report(store: &str, messages: u64, (commits, took): (u64, Duration)) {
    let rate = commits as f64 / took.as_secs_f64();
    let stored = rate * messages as f64;
    let what = format!("{store}, {messages} messages and settles a batch");
    println!("{what:<44}{rate:>12.0}{stored:>12.0}{:>12.1}", stored * BODY_BYTES as f64 / 1e6);
}

/// What the disk does for one writer that overwrites a file that is there, as the journal does.
#[expect(clippy::disallowed_methods, reason = "this measures the sync itself")]
fn fdatasync_rate(directory: &Path, bytes: u32) -> io::Result<f64> {
    const FILE_BYTES: u64 = 64 << 20;
    let file = File::create(directory.join("raw"))?;
    file.write_all_at(&vec![0; 64 << 20], 0)?;
    file.sync_all()?;
    let block = vec![1; bytes as usize];
    let (begin, mut syncs) = (Instant::now(), 0_u64);
    while begin.elapsed() < SPAN {
        file.write_all_at(&block, (syncs * u64::from(bytes)) % FILE_BYTES)?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(syncs as f64 / begin.elapsed().as_secs_f64())
}

/// Each batch stores some messages and settles those of the batch before.
async fn commits(mut store: impl PersistenceAdapter, messages: u64) -> anyhow::Result<(u64, Duration)> {
    let catalog = store.recover().await?;
    let tenure = Tenure::default().next_above(catalog.tenure);
    store.raise(tenure).await?;
    let (mut number, mut waited) = (0, Duration::ZERO);
    let began = Instant::now();
    while began.elapsed() < SPAN {
        let batch = Arc::new(batch(tenure.term, number, messages));
        let begin = Instant::now();
        store.try_commit(&batch).await?;
        waited += begin.elapsed();
        number += 1;
    }
    store.close().await?;
    Ok((number, waited))
}

/// Takes everything and keeps nothing: what is left is encoding, checksums and the map of what is live.
#[derive(Debug)]
struct NoDisk;

impl Disk for NoDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn open(&self, _: &Path, _: Open) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Self))
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove_tree(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn exchange(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for NoDisk {
    fn bytes(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn batch(term: Term, number: u64, messages: u64) -> Batch {
    let queue = DestinationId(1);
    let first = number * messages;
    let sequence = |counter| Sequence::new(term, counter);
    let insert = |counter| {
        let id = format!("ID:bench-{counter}");
        let body = Bytes::from(vec![b'x'; BODY_BYTES]);
        let draft = MessageDraft { id: id.as_str().into(), persistent: true, body, ..MessageDraft::default() };
        Op::Insert(Stored {
            sequence: sequence(counter),
            destination: queue,
            holders: smallvec![Held::fresh(Holder::Queue(queue))],
            message: Arc::new(Message::new(draft)),
        })
    };
    let settle = |counter| Op::Settle { sequence: sequence(counter), holder: Holder::Queue(queue) };
    let settled = first.saturating_sub(messages)..first;
    Batch {
        number: BatchNumber(number + 1),
        ops: (first..first + messages).map(insert).chain(settled.map(settle)).collect(),
    }
}
