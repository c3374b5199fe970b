//! What is read at a start, and beside a journal that goes on: summaries, and what a page needs (R26, R36).

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use batonmq::{
    persistence::{
        MessageReader, PageRange, PersistenceAdapter, Window,
        journal::{Disk, DiskFile, IndexReport, IndexState, JournalAdapter, JournalOptions, Open, RealDisk, verify},
    },
    types::{DestinationId, DurableId, Held, Holder, Op, Priority, Sequence, Stored, Term},
};
use smallvec::smallvec;
use tokio::time::{sleep, timeout};

use super::{Broker, EVERYTHING, LARGE, ORDERS, insert, read_line, sequences, settle, stored};

const SEGMENT_BYTES: u64 = 256 << 10;

fn seq(counter: u64) -> Sequence {
    Sequence::new(Term(1), counter)
}

/// Real files, and how much was read of each.
#[derive(Clone, Debug, Default)]
struct CountingDisk(Arc<Mutex<BTreeMap<String, u64>>>);

impl CountingDisk {
    /// By file, since the last time.
    fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Disk for CountingDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        Ok(Arc::new(CountedFile { file: RealDisk.open(path, how)?, name, read: self.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        RealDisk.remove_tree(dir)
    }
    fn exchange(&self, one: &Path, two: &Path) -> io::Result<()> {
        RealDisk.exchange(one, two)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

#[derive(Debug)]
struct CountedFile {
    file: Arc<dyn DiskFile>,
    name: String,
    read: CountingDisk,
}

impl DiskFile for CountedFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        *self.read.0.lock().unwrap().entry(self.name.clone()).or_default() += buffer.len() as u64;
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

async fn start(data: &Path, disk: &CountingDisk) -> Broker<JournalAdapter> {
    let options = JournalOptions {
        disk: Arc::new(disk.clone()),
        segment_bytes: SEGMENT_BYTES,
        fill_in_background: false,
        ..JournalOptions::default()
    };
    Broker::on(JournalAdapter::open(data, options).unwrap()).await
}

/// What a start read, and of how many segments.
fn read_of(disk: &CountingDisk, kind: &str) -> Vec<u64> {
    disk.0.lock().unwrap().iter().filter(|(name, _)| name.ends_with(kind)).map(|(_, bytes)| *bytes).collect()
}

/// The newest segment is read whole, and one whose index was not due yet; of the others the header, and whether it is
/// sealed.
fn assert_summaries_were_read(disk: &CountingDisk) {
    let records = read_of(disk, ".journal");
    let whole = records.iter().filter(|bytes| **bytes > 65).count();
    assert!(whole <= 2, "{records:?}");
}

#[tokio::test]
async fn r36_a_start_reads_one_summary_a_segment() {
    const MESSAGES: u64 = 200_000;
    let (data, disk) = (tempfile::tempdir().unwrap(), CountingDisk::default());
    let mut broker = start(data.path(), &disk).await;
    for first in (1..=MESSAGES).step_by(1_000) {
        broker.commit((first..first + 1_000).map(|counter| insert(seq(counter), 100)).collect()).await;
    }
    let segments = broker.adapter.usage().segments;
    assert!(segments > 100, "{segments} segments");
    drop(broker);

    disk.take();
    let mut broker = start(data.path(), &disk).await;
    let indexes = read_of(&disk, ".index");
    assert_summaries_were_read(&disk);
    assert!(indexes.iter().all(|bytes| *bytes < 300) && indexes.len() >= segments - 2, "{indexes:?}");
    let backlog = broker.adapter.reader().backlog(Holder::Queue(ORDERS)).await.unwrap();
    assert_eq!(backlog.messages.iter().sum::<u64>(), MESSAGES);

    disk.take();
    let range = PageRange { after: seq(MESSAGES / 2), upto: Sequence::MAX };
    let reader = broker.adapter.reader();
    let page = reader.page(Holder::Queue(ORDERS), Priority::default(), range, LARGE).await.unwrap();
    let expected: Vec<Sequence> = (MESSAGES / 2 + 1..=MESSAGES / 2 + 1_000).map(seq).collect();
    assert_eq!(sequences(&page.messages), expected);
    let read = disk.take();
    assert!(read.len() <= 4, "a page reads the segments where it lies, and their indexes: {read:?}");
    assert!(read.values().sum::<u64>() < 600_000, "and of them not much more than the page: {read:?}");

    for first in (1..=MESSAGES).step_by(1_000) {
        broker.commit((first..first + 1_000).map(|counter| settle(seq(counter))).collect()).await;
    }
    for _ in 0..segments {
        broker.commit(vec![]).await; // they leave, a few at a time
    }
    drop(broker);
    disk.take();
    let broker = start(data.path(), &disk).await;
    assert_eq!(broker.adapter.usage().live_messages, 0);
    let read: u64 = disk.take().values().sum();
    assert!(read <= 4 * SEGMENT_BYTES, "what was settled costs nothing: {read} bytes");
}

/// Messages of six hundred queues in turn: what each holds lies scattered, and is found again after every start.
#[tokio::test]
async fn r36_what_mixed_queues_hold_survives_starts() {
    const QUEUES: u64 = 600;
    const MESSAGES: u64 = 200 * QUEUES;
    let queue_of = |counter: u64| DestinationId(1 + counter % QUEUES);
    let settle_of = |counter: u64| Op::Settle { sequence: seq(counter), holder: Holder::Queue(queue_of(counter)) };
    let (data, disk) = (tempfile::tempdir().unwrap(), CountingDisk::default());
    let mut broker = start(data.path(), &disk).await;
    for first in (1..=MESSAGES).step_by(1_000) {
        let in_queue = |counter| {
            let queue = queue_of(counter);
            let holders = smallvec![Held::fresh(Holder::Queue(queue))];
            Op::Insert(Stored { destination: queue, holders, ..stored(seq(counter), 20) })
        };
        broker.commit((first..first + 1_000).map(in_queue).collect()).await;
    }
    let mut stays: Box<dyn Fn(u64) -> bool> = Box::new(|_| true);
    for life in 0..4_u64 {
        // one queue is drained, of all others every seventh goes
        let goes = move |counter: u64| queue_of(counter).0 == 7 + life || (counter / QUEUES + counter) % 7 == life;
        let gone: Vec<u64> = (1..=MESSAGES).filter(|counter| stays(*counter) && goes(*counter)).collect();
        for some in gone.chunks(1_000) {
            broker.commit(some.iter().copied().map(settle_of).collect()).await;
        }
        stays = Box::new(move |counter| stays(counter) && !goes(counter));
        drop(broker);

        disk.take();
        broker = start(data.path(), &disk).await;
        assert_summaries_were_read(&disk);
        let reader = broker.adapter.reader();
        for queue in [1, 7, 8, 9, 10, 300, QUEUES].map(DestinationId) {
            let expected: Vec<Sequence> =
                (1..=MESSAGES).filter(|counter| queue_of(*counter) == queue && stays(*counter)).map(seq).collect();
            let holder = Holder::Queue(queue);
            assert_eq!(
                reader.backlog(holder).await.unwrap().messages[Priority::default().index()],
                expected.len() as u64,
                "{queue:?}"
            );
            assert_eq!(sequences(&read_line(&reader, holder, Priority::default()).await), expected, "{queue:?}");
        }
        let live = (1..=MESSAGES).filter(|counter| stays(*counter)).count();
        assert_eq!(broker.adapter.usage().live_messages, live as u64);
    }
}

#[tokio::test]
async fn r29_purge_and_deletion_of_many_are_one_short_record_each() {
    const MESSAGES: u64 = 50_000;
    let (data, disk) = (tempfile::tempdir().unwrap(), CountingDisk::default());
    let mut broker = start(data.path(), &disk).await;
    let (queue, durable) = (Holder::Queue(ORDERS), DurableId(1));
    let both = [queue, Holder::Durable(durable)].map(Held::fresh);
    let message = |counter| Op::Insert(Stored { holders: both.into_iter().collect(), ..stored(seq(counter), 10) });
    for first in (1..=MESSAGES).step_by(1_000) {
        broker.commit((first..first + 1_000).map(message).collect()).await;
    }
    for op in [Op::Purge { holder: queue, upto: seq(MESSAGES - 10) }, Op::DeleteDurable { id: durable }] {
        let before = broker.adapter.usage().written_bytes;
        broker.commit(vec![op]).await;
        let written = broker.adapter.usage().written_bytes - before;
        assert!(written < 200, "{written} bytes");
    }
    assert_eq!(broker.adapter.usage().live_messages, 10);
    let leaves = async {
        while broker.adapter.usage().segments > 4 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), leaves).await.expect("what held nothing else leaves, though no batch follows");
    drop(broker);
    let left: Vec<Sequence> = (MESSAGES - 9..=MESSAGES).map(seq).collect();
    assert_eq!(sequences(&start(data.path(), &disk).await.messages(ORDERS).await), left);
}

/// R36: the segment with the purge was sealed, and so were those of what it purged.
#[tokio::test]
async fn r29_a_start_from_summaries_knows_what_was_purged() {
    let (data, disk) = (tempfile::tempdir().unwrap(), CountingDisk::default());
    let mut broker = start(data.path(), &disk).await;
    let stays = Holder::Durable(DurableId(2)); // so that no segment leaves
    let both = [Holder::Queue(ORDERS), stays].map(Held::fresh);
    let message = |counter| Op::Insert(Stored { holders: both.into_iter().collect(), ..stored(seq(counter), 1_000) });
    for first in (1..=2_000).step_by(20) {
        if first == 1_001 {
            broker.commit(vec![Op::Purge { holder: Holder::Queue(ORDERS), upto: seq(990) }]).await;
        }
        broker.commit((first..first + 20).map(message).collect()).await;
    }
    drop(broker);
    disk.take();
    let broker = start(data.path(), &disk).await;
    assert_summaries_were_read(&disk);
    let left: Vec<Sequence> = (991..=2_000).map(seq).collect();
    assert_eq!(sequences(&broker.messages(ORDERS).await), left);
    let page = broker.adapter.reader().page(stays, Priority::default(), EVERYTHING, LARGE).await.unwrap();
    assert_eq!(sequences(&page.messages), (1..=1_000).map(seq).collect::<Vec<_>>());
    drop(broker);
    let report = verify(&(Arc::new(RealDisk) as Arc<_>), data.path(), &mut |_| ()).unwrap();
    let is_wrong = |index: &&IndexReport| matches!(index.state, IndexState::Wrong(_));
    assert_eq!((report.damage, report.indexes.iter().find(is_wrong)), (vec![], None));
    assert_eq!(report.messages, 2_000);
}

#[tokio::test]
async fn r31_a_page_reads_no_more_than_its_window() {
    let (data, disk) = (tempfile::tempdir().unwrap(), CountingDisk::default());
    let mut broker = start(data.path(), &disk).await;
    for first in (1..=1_000).step_by(20) {
        broker.commit((first..first + 20).map(|counter| insert(seq(counter), 10_000)).collect()).await;
    }
    disk.take();
    let (reader, window) = (broker.adapter.reader(), Window { bytes: 100_000, ..LARGE });
    let page = reader.page(Holder::Queue(ORDERS), Priority::default(), EVERYTHING, window).await.unwrap();
    assert!(!page.complete && !page.messages.is_empty());
    let read = read_of(&disk, ".journal");
    assert!(read.iter().sum::<u64>() < 110_000, "{read:?}");
}

/// R35: nothing is written but what the journal writes for itself.
#[tokio::test]
async fn r35_a_journal_of_almost_empty_segments_shrinks_without_traffic() {
    let (data, disk) = (tempfile::tempdir().unwrap(), CountingDisk::default());
    let mut broker = start(data.path(), &disk).await;
    for counter in 1..=2_000 {
        broker.commit(vec![insert(seq(counter), 10_000)]).await;
    }
    let before = broker.adapter.usage().segments;
    let stays = |counter: &u64| counter % 40 == 7;
    broker.commit((1..=2_000).filter(|counter| !stays(counter)).map(|counter| settle(seq(counter))).collect()).await;
    let mut rounds = 0;
    while broker.adapter.usage().segments > 7 {
        broker.commit(vec![]).await;
        rounds += 1;
        assert!(rounds < 1_000, "{:?}", broker.adapter.usage());
    }
    assert!(before > 70, "{before} segments");
    let expected: Vec<Sequence> = (1..=2_000).filter(stays).map(seq).collect();
    assert_eq!(sequences(&broker.messages(ORDERS).await), expected);
    drop(broker);
    assert_eq!(sequences(&start(data.path(), &disk).await.messages(ORDERS).await), expected);
}

/// R26: segments leave and are used again under the eyes of a reader; what it reads is always right.
#[tokio::test]
async fn r26_pages_are_right_while_segments_leave() {
    let (data, disk) = (tempfile::tempdir().unwrap(), CountingDisk::default());
    let mut broker = start(data.path(), &disk).await;
    broker.commit((1..=50).map(|counter| insert(seq(counter), 1_000)).collect()).await;
    let (reader, over, mut pages) = (broker.adapter.reader(), Cell::new(false), 0);
    let reading = async {
        while !over.get() {
            let page = reader.page(Holder::Queue(ORDERS), Priority::default(), EVERYTHING, LARGE).await.unwrap();
            assert_eq!(sequences(&page.messages[..50]), (1..=50).map(seq).collect::<Vec<_>>());
            for message in page.messages {
                let size = if message.sequence <= seq(50) { 1_000 } else { 3_000 };
                assert_eq!(message, stored(message.sequence, size));
            }
            pages += 1;
        }
    };
    let writing = async {
        for round in 0..400 {
            let first = 100 + 20 * round;
            let mut ops: Vec<Op> = (first..first + 20).map(|counter| insert(seq(counter), 3_000)).collect();
            ops.extend((first - 20..first).filter(|_| round > 0).map(|counter| settle(seq(counter))));
            broker.commit(ops).await;
        }
        over.set(true);
    };
    tokio::join!(reading, writing); // the journal writes and reads on threads of its own
    assert!(pages > 0);
    let usage = broker.adapter.usage();
    assert!(usage.copied_bytes > 0 && usage.segments < 5, "the old ones moved: {usage:?}");
}
