//! What `verify` says of a damaged journal, and what `repair` saves of it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use batonmq::{
    persistence::{
        PersistenceAdapter, StoreError,
        journal::{
            Damage, Disk, DiskFile, IndexState, JournalOptions, Lost, Open, RealDisk, RepairError, RepairOptions,
            RepairReport, repair,
        },
    },
    types::{DestinationId, DurableId, Held, Holder, Op, Stored},
};
use smallvec::smallvec;

use super::{
    NEWS, ORDERS,
    files::{Files, RECORDS_AT, SEGMENT_BYTES, name, seq},
    insert,
    script::Script,
    sequences, settle, stored,
};
use crate::harness::Rng;

impl Files {
    fn repair_on(&self, disk: Arc<dyn Disk>, dry_run: bool) -> Result<RepairReport, RepairError> {
        let journal = JournalOptions { disk, ..Self::options() };
        repair(self.0.path(), &RepairOptions { dry_run, journal }, &mut |_| ())
    }

    fn repaired(&self) -> RepairReport {
        let report = self.repair_on(Arc::new(RealDisk), false).unwrap();
        assert!(report.damaged.is_some(), "{report:?}");
        report
    }

    /// What `verify` finds, without the directory.
    fn damage(&self) -> Vec<(String, u64, Lost)> {
        let damage = self.verified().unwrap().damage;
        let file = |damage: &Damage| damage.path.file_name().unwrap().to_str().unwrap().to_owned();
        damage.iter().map(|damage| (file(damage), damage.offset, damage.lost.clone())).collect()
    }

    /// `journal` holds what it is said to hold, and nothing else has to be mended.
    async fn assert_repaired(&self, expected: impl IntoIterator<Item = u64>) {
        assert_eq!(self.damage(), []);
        self.assert_holds(expected).await;
        assert_eq!(self.damage(), []);
    }

    fn data(&self) -> &Path {
        self.0.path()
    }

    fn names_beside(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.data()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn one(number: u64) -> Lost {
    Lost::Records(number..=number)
}

/// Records 1 to 3 are the catalog, the tenure and the first batch; segment 1 ends with record 9 (message 6), and record
/// 10 is the catalog of segment 2.
#[tokio::test]
async fn every_place_of_damage_is_told_with_the_records_that_are_gone() {
    let files = Files::with(20).await;
    let (first, third) = (files.records(1), files.records(3));
    files.flip(1, first[4] + 20);
    files.flip(1, first[7] + 20);
    files.flip(3, third[2] + 5_000);
    let expected = [(name(1), first[4], one(5)), (name(1), first[7], one(8)), (name(3), third[2], one(19))];
    assert_eq!(files.damage(), expected);
    assert_eq!(files.verified().unwrap().messages, 17);
}

#[tokio::test]
async fn what_is_good_around_a_damaged_record_is_saved_in_order() {
    let files = Files::with(20).await;
    files.flip(1, files.records(1)[4] + 20);
    files.flip(3, files.records(3)[2] + 5_000);
    let before = files.contents();
    let report = files.repaired();
    assert_eq!((report.messages, report.damage.len()), (18, 2));
    let kept = fs::read_dir(files.data().join("journal.damaged-1")).unwrap();
    let kept: BTreeSet<_> = kept.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert_eq!(kept, before.into_iter().map(|(_, bytes)| bytes).collect(), "the damaged journal is kept as it was");
    files.assert_repaired((1..=20).filter(|number| ![2, 14].contains(number))).await;
}

#[tokio::test]
async fn a_missing_segment_costs_what_was_in_it() {
    let files = Files::with(20).await;
    fs::remove_file(files.path(&name(2))).unwrap();
    let found = files.damage();
    assert_eq!((found.len(), &found[0].0, &found[0].2), (1, &name(2), &Lost::Records(10..=16)), "{found:?}");
    files.repaired();
    files.assert_repaired((1..=6).chain(13..=20)).await;
}

#[tokio::test]
async fn a_segment_that_was_cut_short_costs_its_end() {
    let files = Files::with(8).await;
    files.cut(1, files.records(1)[6] + 100);
    assert_eq!(files.damage(), [(name(1), files.records(1)[6] + 100, Lost::Records(7..=9))]);
    files.repaired();
    files.assert_repaired([1, 2, 3, 7, 8]).await;

    let files = Files::with(8).await;
    files.cut(1, files.records(1)[6]); // where a record ends
    assert_eq!(files.damage(), [(name(1), files.records(1)[6], Lost::Records(7..=9))]);
    files.repaired();
    files.assert_repaired([1, 2, 3, 7, 8]).await;
}

#[tokio::test]
async fn a_bad_header_costs_nothing() {
    for messages in [2, 8] {
        let files = Files::with(messages).await; // in the second round other headers tell the incarnation
        files.flip(1, 17);
        assert_eq!(files.damage(), [(name(1), 0, Lost::Nothing)]);
        let report = files.repaired();
        assert!(report.made_up.is_empty(), "{report:?}");
        files.assert_repaired(1..=messages).await;
    }
}

#[tokio::test]
async fn a_segment_without_its_first_block_costs_what_was_there() {
    let files = Files::with(8).await;
    files.write(1, &vec![0x55; RECORDS_AT as usize + 1_000], 0);
    let found = files.damage();
    assert_eq!(found[0], (name(1), 0, Lost::Unknown));
    files.repaired();
    files.assert_repaired(2..=8).await; // the next segment's catalog names the queue
}

#[tokio::test]
async fn a_segment_of_another_journal_is_left_out() {
    let files = Files::with(20).await;
    let other = Files::with(20).await;
    fs::copy(other.path(&name(2)), files.path(&name(2))).unwrap();
    let found = files.verified().unwrap().damage;
    assert_eq!(
        (found.len(), found[0].what),
        (1, "it does not follow the segment before it: files of two journals are mixed here")
    );
    assert_eq!(found[0].lost, Lost::Records(10..=16));
    files.repaired();
    files.assert_repaired((1..=6).chain(13..=20)).await;
}

#[tokio::test]
async fn a_segment_under_another_name_is_left_out() {
    let files = Files::with(8).await;
    fs::copy(files.path(&name(1)), files.path(&name(3))).unwrap();
    assert_eq!(files.damage(), [(name(3), 0, Lost::Unknown)]);
    files.repaired();
    files.assert_repaired(1..=8).await;
}

#[tokio::test]
async fn a_message_whose_settle_is_gone_comes_back() {
    let files = Files::with(3).await;
    let mut broker = files.start().await;
    broker.commit(vec![settle(seq(1))]).await; // record 8: the second start's tenure is record 7
    broker.commit(vec![settle(seq(2))]).await;
    broker.adapter.close().await.unwrap();
    files.flip(1, files.records(1)[7] + 10);
    assert_eq!(files.damage(), [(name(1), files.records(1)[7], one(8))]);
    files.repaired();
    files.assert_repaired([1, 3]).await;
}

#[tokio::test]
async fn r9_r17_the_new_journal_is_no_younger_than_the_old_one() {
    let files = Files::with(8).await;
    let mut broker = files.start().await;
    let held = Held { deliveries: 3, ..Held::fresh(Holder::Queue(ORDERS)) };
    let shared = Stored {
        destination: NEWS,
        holders: smallvec![Held::fresh(Holder::Durable(DurableId(1))), Held::fresh(Holder::Durable(DurableId(2)))],
        ..stored(seq(9), 100)
    };
    broker
        .commit(vec![
            Op::Return { sequence: seq(8), held },
            Op::Insert(shared),
            Op::Settle { sequence: seq(9), holder: Holder::Durable(DurableId(2)) },
            Op::DeleteDurable { id: DurableId(2) },
            Op::Mark { holder: Holder::Queue(ORDERS), upto: seq(4) },
            Op::Purge { holder: Holder::Queue(ORDERS), upto: seq(2) },
        ])
        .await;
    let tenure = broker.tenure;
    broker.adapter.close().await.unwrap();
    files.flip(1, files.records(1)[4] + 20);
    files.repaired();
    let broker = files.start().await;
    assert!(broker.tenure.is_above(tenure.next_above(tenure)), "{:?}", broker.tenure);
    let mut orders = broker.messages(ORDERS).await;
    assert!(orders.iter().all(|stored| stored.sequence > seq(2)), "what was purged does not come back");
    let returned = orders.pop().unwrap();
    assert_eq!((returned.sequence, returned.holders.as_slice()), (seq(8), [held].as_slice()));
    let catalog = &broker.catalog;
    assert_eq!(catalog.durables.keys().collect::<Vec<_>>(), [&DurableId(1)]);
    assert_eq!(catalog.last_durable, DurableId(2), "a durable subscription's id is never used again (R29)");
    assert_eq!(catalog.marks[&Holder::Queue(ORDERS)], seq(9), "a mark may be gone: all may have been delivered");
}

/// The record that names them is gone, and no segment follows whose catalog would.
#[tokio::test]
async fn what_lost_its_name_is_kept_under_a_made_up_one() {
    let files = Files::with(0).await;
    let mut broker = files.start().await;
    let (queue, durable) = (DestinationId(7), DurableId(9));
    broker
        .commit(vec![
            Op::CreateDestination { id: queue, destination: batonmq::types::Destination::queue("lost") },
            Op::CreateDurable {
                id: durable,
                durable: batonmq::types::Durable { client_id: "c".into(), name: "lost".into(), topic: NEWS },
            },
        ])
        .await;
    let held = |holder| smallvec![Held::fresh(holder)];
    let in_queue = Stored { destination: queue, holders: held(Holder::Queue(queue)), ..stored(seq(1), 10) };
    let of_durable = Stored { destination: NEWS, holders: held(Holder::Durable(durable)), ..stored(seq(2), 10) };
    broker.commit(vec![Op::Insert(in_queue), Op::Insert(of_durable)]).await;
    broker.adapter.close().await.unwrap();
    files.flip(1, files.records(1)[4] + 20);
    let report = files.repaired();
    assert_eq!(report.made_up, ["queue://batonmq.repaired.7", "durable subscription batonmq.repaired/9"]);
    let broker = files.start().await;
    assert_eq!(sequences(&broker.messages(queue).await), [seq(1)]);
    assert_eq!(broker.catalog.durables[&durable].topic, NEWS);
    assert_eq!((broker.catalog.last_destination, broker.catalog.last_durable), (queue, durable));
}

#[tokio::test]
async fn a_good_journal_is_left_alone_and_so_is_a_torn_last_write() {
    let files = Files::with(4).await;
    let records = files.records(1);
    let untouched = |files: &Files| {
        let before = files.contents();
        let report = files.repair_on(Arc::new(RealDisk), false).unwrap();
        assert!(report.damage.is_empty() && report.damaged.is_none(), "{report:?}");
        assert!(files.contents() == before);
        report
    };
    assert_eq!(untouched(&files).torn, None);
    files.flip(1, records[records.len() - 2] + 20);
    assert!(untouched(&files).torn.is_some());
    files.assert_holds(1..=3).await;
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let files = Files::with(8).await;
    files.flip(1, files.records(1)[4] + 20);
    let (before, beside) = (files.contents(), files.names_beside());
    let report = files.repair_on(Arc::new(RealDisk), true).unwrap();
    assert_eq!((report.messages, report.damage.len(), report.damaged), (7, 1, None));
    assert!(files.contents() == before && files.names_beside() == beside);
}

#[tokio::test]
async fn a_newer_format_is_not_repaired() {
    let files = Files::with(8).await;
    let mut header = files.read(2)[..60].to_vec();
    header[8] = 9;
    let checksum = crc32c::crc32c(&header);
    files.write(2, &[header, checksum.to_le_bytes().to_vec()].concat(), 0);
    files.flip(1, files.records(1)[4] + 20);
    let error = files.repair_on(Arc::new(RealDisk), false).unwrap_err();
    assert!(matches!(error, RepairError::Store(StoreError::NewerFormat { found: 9, .. })), "{error}");
}

#[tokio::test]
async fn a_repaired_journal_can_be_repaired_again() {
    let files = Files::with(4).await;
    files.flip(1, files.records(1)[4] + 20);
    files.repaired();
    let mut broker = files.start().await;
    broker.commit(vec![insert(seq(11), 10)]).await;
    broker.commit(vec![insert(seq(12), 10)]).await;
    broker.adapter.close().await.unwrap();
    let records = files.records(1);
    files.flip(1, records[records.len() - 4] + 20); // then come message 12, the mark of the end, and the end
    let report = files.repaired();
    assert_eq!(report.damaged.unwrap(), files.data().join("journal.damaged-2"));
    files.assert_repaired([1, 3, 4, 12]).await;
}

/// A random journal, damaged at random: what no lost record says otherwise is there.
#[tokio::test]
async fn whatever_is_damaged_all_else_is_saved() {
    let mut rng = Rng::from_env();
    for _ in 0..20 {
        let files = Files::empty();
        let mut broker = files.start().await;
        broker.commit(Script::first_batch()).await;
        let mut batches = Vec::new();
        for counter in 1..=30 {
            let settled = rng.one_in(3).then(|| 1 + rng.below(30) as u64).filter(|settled| *settled < counter);
            let mut ops = vec![insert(seq(counter), rng.below(12_000))];
            ops.extend(settled.map(|settled| settle(seq(settled))));
            broker.commit(ops).await;
            batches.push((counter, settled));
        }
        broker.adapter.close().await.unwrap();
        let numbers = numbers_of_batches(&files);
        let segments: Vec<u32> = (1..=20).filter(|number| files.path(&name(*number)).exists()).collect();
        for _ in 0..1 + rng.below(4) {
            let segment = rng.pick(&segments);
            let at = rng.below(SEGMENT_BYTES as usize - 6_000) as u64;
            files.write(segment, &vec![0xa5; 1 + rng.below(6_000)], at);
        }
        let verified = files.verified().unwrap();
        let Some(lost) = lost_numbers(&verified.damage).filter(|_| verified.torn.is_none()) else {
            continue; // something is gone at the end of the journal
        };
        let is_lost = |batch: usize| lost.contains(&numbers[batch + 1]);
        let mut expected = BTreeSet::new();
        for (_, (inserted, settled)) in batches.iter().enumerate().filter(|(batch, _)| !is_lost(*batch)) {
            expected.insert(*inserted);
            settled.iter().for_each(|settled| _ = expected.remove(settled));
        }
        let report = files.repair_on(Arc::new(RealDisk), false).unwrap();
        assert_eq!(report.messages, expected.len() as u64, "seed {}: {:?}", rng.seed(), report.damage);
        files.assert_repaired(expected).await;
    }
}

/// The numbers of the records with a batch, in order; the first is that of the first batch.
fn numbers_of_batches(files: &Files) -> Vec<u64> {
    let mut number = 0;
    let mut batches = Vec::new();
    for segment in 1..=20 {
        if !files.path(&name(segment)).exists() {
            break;
        }
        for (index, _) in files.records(segment).iter().rev().skip(1).enumerate() {
            number += 1;
            let is_note = segment == 1 && index == 1;
            if index > 0 && !is_note {
                batches.push(number);
            }
        }
    }
    batches
}

/// `None` if it is unknown.
fn lost_numbers(damage: &[Damage]) -> Option<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for damage in damage {
        match &damage.lost {
            Lost::Nothing => {}
            Lost::Records(records) => numbers.extend(records.clone()),
            Lost::Unknown => return None,
        }
    }
    Some(numbers)
}

#[tokio::test]
async fn r36_an_index_is_held_against_its_segment() {
    let files = Files::with(20).await;
    let mut broker = files.start().await;
    for counter in 3..=12 {
        broker.commit(vec![settle(seq(counter)), insert(seq(20 + counter), 10_000)]).await;
    }
    broker.adapter.close().await.unwrap();
    let states = |files: &Files| -> Vec<IndexState> {
        files.verified().unwrap().indexes.into_iter().map(|index| index.state).collect()
    };
    let before = states(&files);
    assert!(
        before.contains(&IndexState::Good) && before.iter().all(|s| !matches!(s, IndexState::Wrong(_))),
        "{before:?}"
    );
    let index = fs::read_dir(files.path(".")).unwrap().map(|entry| entry.unwrap().path());
    let index = index.filter(|path| path.extension().is_some_and(|ending| ending == "index")).min().unwrap();
    let whole = fs::read(&index).unwrap();
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&index, &bytes).unwrap();
        let report = files.verified().unwrap();
        assert!(report.damage.is_empty(), "an index is no damage");
        let is_wrong = report.indexes.iter().any(|index| matches!(index.state, IndexState::Wrong(_)));
        assert!(is_wrong || is_filling(&whole, at), "byte {at} of {}", whole.len());
    }
    fs::write(&index, &whole).unwrap();
    assert_eq!(states(&files), before);
}

/// Zeros that no checksum covers: between the summary and the first table.
fn is_filling(whole: &[u8], at: usize) -> bool {
    at < 4_096 && whole[at..4_096].iter().all(|byte| *byte == 0)
}

/// The operating system's files, until the process is gone: at a call that is given.
#[derive(Debug)]
struct KilledDisk {
    left: Arc<AtomicI64>,
    free_bytes: u64,
}

impl KilledDisk {
    fn at(call: i64) -> Self {
        Self { left: Arc::new(AtomicI64::new(call)), free_bytes: u64::MAX }
    }
}

fn is_alive(left: &AtomicI64) -> io::Result<()> {
    if left.fetch_sub(1, Ordering::Relaxed) > 0 { Ok(()) } else { Err(io::Error::other("killed")) }
}

impl Disk for KilledDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        is_alive(&self.left).and_then(|()| RealDisk.create_dir(dir))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        is_alive(&self.left).and_then(|()| RealDisk.list(dir))
    }
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        is_alive(&self.left)?;
        Ok(Arc::new(KilledFile { file: RealDisk.open(path, how)?, left: Arc::clone(&self.left) }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        is_alive(&self.left).and_then(|()| RealDisk.rename(from, to))
    }
    fn exchange(&self, one: &Path, two: &Path) -> io::Result<()> {
        is_alive(&self.left).and_then(|()| RealDisk.exchange(one, two))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        is_alive(&self.left).and_then(|()| RealDisk.remove(path))
    }
    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        is_alive(&self.left).and_then(|()| RealDisk.remove_tree(dir))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        is_alive(&self.left).and_then(|()| RealDisk.sync_dir(dir))
    }
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.free_bytes)
    }
}

#[derive(Debug)]
struct KilledFile {
    file: Arc<dyn DiskFile>,
    left: Arc<AtomicI64>,
}

impl DiskFile for KilledFile {
    fn bytes(&self) -> io::Result<u64> {
        is_alive(&self.left).and_then(|()| self.file.bytes())
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        is_alive(&self.left).and_then(|()| self.file.read_at(buffer, offset))
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = is_alive(&self.left) {
            if self.left.load(Ordering::Relaxed) == -1 {
                self.file.write_at(&bytes[..bytes.len() / 2], offset)?; // halfway
            }
            return Err(error);
        }
        self.file.write_at(bytes, offset)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        is_alive(&self.left).and_then(|()| self.file.allocate(bytes))
    }
    fn sync(&self) -> io::Result<()> {
        is_alive(&self.left).and_then(|()| self.file.sync())
    }
}

#[tokio::test]
async fn a_repair_that_is_killed_at_any_call_leaves_the_old_journal_or_the_new_one() {
    let damaged = Files::with(8).await;
    damaged.flip(1, damaged.records(1)[4] + 20);
    let expected = || (1..=8).filter(|number| *number != 2);
    for call in 0.. {
        let files = Files::empty();
        fs::create_dir(files.data().join("journal")).unwrap();
        damaged.contents().into_iter().for_each(|(name, bytes)| fs::write(files.path(&name), bytes).unwrap());
        let outcome = files.repair_on(Arc::new(KilledDisk::at(call)), false);
        if files.damage().is_empty() {
            files.assert_repaired(expected()).await;
        } else {
            assert!(files.contents() == damaged.contents(), "call {call}: the old journal is as it was");
            files.repaired();
            files.assert_repaired(expected()).await;
        }
        if outcome.is_ok() {
            assert!(call > 30, "{call} calls are few");
            return;
        }
    }
}

#[tokio::test]
async fn a_disk_without_room_is_told_before_anything_is_written() {
    let files = Files::with(20).await;
    files.flip(1, files.records(1)[4] + 20);
    let beside = files.names_beside();
    let disk = KilledDisk { left: Arc::new(AtomicI64::new(i64::MAX)), free_bytes: 300_000 };
    match files.repair_on(Arc::new(disk), false).unwrap_err() {
        RepairError::NoRoom { needed_bytes, free_bytes: 300_000, .. } => {
            assert!((380_000..450_000).contains(&needed_bytes), "{needed_bytes}"); // 19 messages and three segments
        }
        error => panic!("{error}"),
    }
    assert_eq!(files.names_beside(), beside);
}
