//! `journal verify` and `journal repair` on a bad disk: crashed at every call, or with a call that fails. Whatever
//! happens, to repair once more ends well, with all that one good repair saves, and the damaged journal is kept as it
//! was.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use batonmq::persistence::{
    StoreError,
    journal::{
        Damage, Disk, JournalOptions, Lost, RepairError, RepairOptions, RepairReport, VerifyReport, lost_records,
        repair, verify,
    },
};

use super::{
    Broker,
    life::{SEGMENT_BYTES, open, recover},
    script::Script,
};
use crate::harness::{Fault, FaultyDisk, Moment, Rng, Rows};

const BATCHES: usize = 40;
const DATA: &str = "/data";
const JOURNAL: &str = "/data/journal";

fn repair_on(disk: &FaultyDisk) -> Result<RepairReport, RepairError> {
    let journal = JournalOptions {
        disk: Arc::new(disk.clone()),
        segment_bytes: SEGMENT_BYTES,
        fill_in_background: false,
        ..JournalOptions::default()
    };
    repair(Path::new(DATA), &RepairOptions { dry_run: false, journal }, &mut |_| ())
}

fn verify_on(disk: &FaultyDisk) -> Result<VerifyReport, StoreError> {
    verify(&(Arc::new(disk.clone()) as Arc<dyn Disk>), Path::new(DATA), &mut |_| ())
}

/// A journal with damage.
struct Damaged {
    disk: FaultyDisk,
    before: BTreeMap<String, Vec<u8>>,
    damage: Vec<Damage>,
    /// What a repair saves.
    saved: Rows,
    /// How many calls that makes.
    calls: u64,
    rng: Rng,
}

impl Damaged {
    async fn new() -> Self {
        let mut rng = Rng::of("repair on a bad disk");
        for _ in 0..20 {
            if let Some(damaged) = Self::drawn(&mut rng).await {
                return damaged;
            }
        }
        panic!("seed {}: none of twenty journals is worth a repair", rng.seed());
    }

    /// Nothing if it has no sealed segment, if hardly anything is lost, or if hardly anything can be saved.
    async fn drawn(rng: &mut Rng) -> Option<Self> {
        let disk = written(rng).await;
        let damage = (0..20).find_map(|_| {
            damage(&disk, rng)?;
            let found = verify_on(&disk.after_kill()).unwrap().damage;
            lost_records(&found).is_some_and(|lost| lost >= 2).then_some(found)
        })?;
        let before = disk.contents(Path::new(JOURNAL));
        let repaired = disk.after_kill();
        let messages = repair_on(&repaired).unwrap().messages;
        let (calls, (_, saved)) = (repaired.calls(), recover(&repaired, "repaired").await);
        (messages > 5 && calls > 60).then(|| Self { disk, before, damage, saved, calls, rng: rng.clone() })
    }

    /// The same disk, with something that goes wrong.
    fn with_fault(&self, fault: Fault) -> FaultyDisk {
        self.disk.after_kill().with_fault(fault)
    }

    /// To repair what is on this disk ends well, and what is done then stays.
    async fn is_repaired_by_one_more_run(&mut self, disk: FaultyDisk, what: &str) {
        repair_on(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        let power_failed = disk.after_power_loss(self.rng.next());
        self.is_repaired(&power_failed, what).await;
    }

    /// All is there that a repair saves, and the damaged journal as it was.
    async fn is_repaired(&self, disk: &FaultyDisk, what: &str) {
        assert_eq!(verify_on(disk).unwrap().damage, [], "{what}");
        let kept = disk.list(Path::new(DATA)).unwrap();
        let kept = kept.iter().filter(|name| name.starts_with("journal.damaged-"));
        let is_as_before = |name: &String| disk.contents(&Path::new(DATA).join(name)) == self.before;
        assert_eq!(kept.filter(|name| is_as_before(name)).count(), 1, "{what}: {:?}", disk.list(Path::new(DATA)));
        let (_, found) = recover(disk, what).await;
        assert!(found.same_but_for_the_tenure(&self.saved), "{what}: something is lost");
    }
}

/// A journal of several segments, all of it on the disk.
async fn written(rng: &mut Rng) -> FaultyDisk {
    let disk = FaultyDisk::new(Fault::Never, rng.next());
    let (mut script, mut model) = (Script::new(Rng::new(rng.next()), 3_000), Rows::default());
    let mut broker = Broker::on(open(&disk).0).await;
    for round in 0..BATCHES {
        let ops = if round == 0 { Script::first_batch() } else { script.next_batch(&model) };
        model.apply_all(&ops);
        broker.commit(ops).await;
    }
    drop(broker);
    disk.after_power_loss(rng.next())
}

/// A bit is wrong somewhere, but not in the segment that is written to. Nothing if that is the only one.
fn damage(disk: &FaultyDisk, rng: &mut Rng) -> Option<()> {
    let files = disk.contents(Path::new(JOURNAL));
    let segments: Vec<&String> = files.keys().filter(|name| name.ends_with(".journal")).collect();
    let (_, sealed) = segments.split_last().filter(|(_, sealed)| !sealed.is_empty())?;
    let name = sealed[rng.below(sealed.len())];
    disk.flip(&Path::new(JOURNAL).join(name), rng.below(SEGMENT_BYTES as usize));
    Some(())
}

async fn survives_a_crash(moment: Moment) {
    let mut damaged = Damaged::new().await;
    for call in 0..damaged.calls {
        let disk = damaged.with_fault(Fault::Crash(call, moment));
        repair_on(&disk).unwrap_err();
        let what = format!("seed {}, crashed {moment:?} call {call} of {}", damaged.rng.seed(), damaged.calls);
        let power_failed = disk.after_power_loss(damaged.rng.next());
        damaged.is_repaired_by_one_more_run(disk.after_kill(), &format!("{what}, kill")).await;
        damaged.is_repaired_by_one_more_run(power_failed, &format!("{what}, power loss")).await;
    }
}

#[tokio::test]
async fn a_repair_that_is_crashed_before_any_call_can_be_run_again() {
    survives_a_crash(Moment::Before).await;
}

#[tokio::test]
async fn a_repair_that_is_crashed_halfway_through_any_call_can_be_run_again() {
    survives_a_crash(Moment::Halfway).await;
}

#[tokio::test]
async fn a_repair_that_is_crashed_after_any_call_can_be_run_again() {
    survives_a_crash(Moment::After).await;
}

/// Nothing that fails is taken for damage. What is said to be repaired is, and is durable.
async fn survives_a_failure(fault: impl Fn(u64) -> Fault) {
    let mut damaged = Damaged::new().await;
    for call in 0..damaged.calls {
        let disk = damaged.with_fault(fault(call));
        let outcome = repair_on(&disk);
        disk.stop();
        let what = format!("seed {}, {:?} of {} calls: {outcome:?}", damaged.rng.seed(), fault(call), damaged.calls);
        let power_failed = disk.after_power_loss(damaged.rng.next());
        if outcome.is_ok() {
            damaged.is_repaired(&power_failed, &what).await;
        }
        damaged.is_repaired_by_one_more_run(disk.after_kill(), &what).await;
        damaged.is_repaired_by_one_more_run(power_failed, &what).await;
    }
}

#[tokio::test]
async fn a_repair_survives_a_failure_of_any_call() {
    survives_a_failure(|call| Fault::Fail(call, Moment::Before, io::ErrorKind::Other)).await;
}

#[tokio::test]
async fn a_repair_survives_a_short_write_and_a_half_sync_at_any_call() {
    survives_a_failure(|call| Fault::Fail(call, Moment::Halfway, io::ErrorKind::Other)).await;
}

#[tokio::test]
async fn a_repair_survives_a_full_disk_at_any_call() {
    survives_a_failure(|call| Fault::Fail(call, Moment::Halfway, io::ErrorKind::StorageFull)).await;
}

#[tokio::test]
async fn a_repair_survives_a_disk_that_fails_from_any_call_on() {
    survives_a_failure(Fault::FailFrom).await;
}

/// What can't be read now may be readable tomorrow.
#[tokio::test]
async fn verify_takes_no_call_that_fails_for_damage() {
    let damaged = Damaged::new().await;
    let whole = damaged.with_fault(Fault::Never);
    let records = verify_on(&whole).unwrap().records;
    assert!(damaged.damage.iter().any(|damage| damage.lost != Lost::Nothing));
    for call in 0..whole.calls() {
        let disk = damaged.with_fault(Fault::Fail(call, Moment::Before, io::ErrorKind::Other));
        match verify_on(&disk) {
            Ok(report) => assert_eq!((report.records, &report.damage), (records, &damaged.damage), "call {call}"),
            Err(error) => assert!(matches!(error, StoreError::Io { .. }), "call {call}: {error}"),
        }
        assert!(disk.contents(Path::new(JOURNAL)) == damaged.before, "nothing is changed");
    }
}
