//! The spool on a disk that fails at any call of making, filling, reading, rotating and removing it (R32): what it took
//! it has, whole, until the end of the term; what it did not take it says; and a start begins clean, whatever lies
//! there.
//! `engine/spool.rs` has a broker meet the same.

use std::{io, path::Path, sync::Arc};

use batonmq::{
    persistence::{CommitError, PersistenceAdapter, SpoolAdapter, journal::JournalOptions},
    types::{Broken, Catalog, Sequence, Tenure, Term},
};

use super::{Broker, insert, life::SEGMENT_BYTES, read_all, script::Script, try_read_all};
use crate::harness::{Fault, FaultyDisk, Moment, Rng, Rows};

const BATCHES: usize = 40;

/// What is tried again in vain so often will not pass; a disk that was full is not looked at each time.
const ATTEMPTS: usize = 10;

fn open(disk: &FaultyDisk) -> Broker<SpoolAdapter> {
    let options = JournalOptions {
        disk: Arc::new(disk.clone()),
        segment_bytes: SEGMENT_BYTES,
        fill_in_background: false,
        first_incarnation: Some(7 << 40),
        broken: Broken::default(),
        ..SpoolAdapter::options()
    };
    let adapter = SpoolAdapter::open(Path::new("/data"), options);
    Broker { adapter, catalog: Catalog::default(), tenure: Tenure::default(), number: 0 }
}

/// Spools by a script as far as the disk lets it, and reads all of it. Whether the spool was the same to the end.
async fn fill(broker: &mut Broker<SpoolAdapter>, disk: &FaultyDisk, seed: u64, what: &str) -> bool {
    let mut script = Script::new(Rng::new(seed), 3_000);
    script.new_term(Tenure { term: Term(1), ..Tenure::default() });
    let mut model = Rows::default();
    let mut goes_on = true;
    for round in 0..BATCHES {
        let ops = if round == 0 { Script::first_batch() } else { script.next_batch(&model) };
        let mut attempts = 0;
        let taken = loop {
            match broker.try_commit(ops.clone()).await {
                Ok(()) => break true,
                Err(CommitError::Full | CommitError::Again { .. }) if attempts < ATTEMPTS => attempts += 1,
                Err(error) => {
                    assert!(disk.has_failed(), "{what}: {error}");
                    goes_on = !matches!(error, CommitError::Unknown { .. });
                    break false;
                }
            }
        };
        if !taken {
            break;
        }
        model.apply_all(&ops);
        broker.catalog = model.catalog.clone();
        if round % 4 == 0 {
            assert!(
                try_read_all(broker).await.is_ok_and(|found| found == model) || disk.has_failed(),
                "{what}: what it has is whole"
            );
        }
    }
    disk.clone().with_fault(Fault::Never);
    assert!(read_all(broker).await == model, "{what}: it has what it took, and nothing else");
    goes_on
}

/// A start finds nothing, and spools.
async fn assert_starts_clean(disk: &FaultyDisk, what: &str) {
    let mut broker = open(disk);
    assert!(disk.names().is_empty(), "{what}: {:?}", disk.names());
    let mut model = Rows::default();
    let sequence = Sequence::new(Term(1), 1);
    for ops in [Script::first_batch(), vec![insert(sequence, 5_000)]] {
        model.apply_all(&ops);
        broker.commit(ops).await;
    }
    broker.catalog = model.catalog.clone();
    assert!(read_all(&broker).await == model, "{what}");
    broker.adapter.close().await.unwrap();
    assert!(disk.names().is_empty(), "{what}: {:?}", disk.names());
}

/// The seed of a script that spools more than a little, and how many calls it makes. One in fifty does not.
async fn worth_spooling(mut seeds: Rng) -> (u64, u64) {
    let mut seed = seeds.seed();
    for _ in 0..20 {
        let disk = FaultyDisk::new(Fault::Never, seed);
        let mut broker = open(&disk);
        assert!(fill(&mut broker, &disk, seed, "no fault").await);
        broker.adapter.close().await.unwrap();
        assert!(disk.calls() < 2_000, "seed {seed}: {} calls", disk.calls());
        if disk.calls() > 20 {
            return (seed, disk.calls());
        }
        seed = seeds.next();
    }
    panic!("seed {}: none of twenty scripts spools much", seeds.seed());
}

/// Runs the script once for each of its calls, which meets this fault; how often the spool took nothing more.
async fn assert_spools_through(fault: impl Fn(u64) -> Fault) -> u32 {
    let (seed, calls) = worth_spooling(Rng::from_env()).await;
    let mut ended = 0;
    for call in 0..calls {
        let what = format!("seed {seed}, {:?} of {calls} calls", fault(call));
        let disk = FaultyDisk::new(Fault::Never, seed ^ call);
        left_over(&disk).await;
        let disk = disk.with_fault(fault(call));
        let mut broker = open(&disk);
        let goes_on = fill(&mut broker, &disk, seed, &what).await;
        ended += u32::from(!goes_on);
        let more = broker.try_commit(vec![insert(Sequence::new(Term(1), 1 << 30), 10)]).await;
        assert_eq!(more.is_ok(), goes_on, "{what}: {more:?}");
        broker.adapter.close().await.unwrap();
        assert_starts_clean(&disk, &what).await;
    }
    ended
}

/// A process was killed while it spooled.
async fn left_over(disk: &FaultyDisk) {
    let mut broker = open(disk);
    broker.commit(Script::first_batch()).await;
    broker.commit(vec![insert(Sequence::new(Term(9), 1), 5_000)]).await;
}

#[tokio::test]
async fn r32_the_spool_survives_a_failure_of_every_call() {
    let ended = assert_spools_through(|call| Fault::Fail(call, Moment::Before, io::ErrorKind::Other)).await;
    assert_eq!(ended, 0, "one failure is no end");
}

#[tokio::test]
async fn r32_the_spool_survives_a_short_write_at_every_call() {
    let ended = assert_spools_through(|call| Fault::Fail(call, Moment::Halfway, io::ErrorKind::Other)).await;
    assert_eq!(ended, 0, "one failure is no end");
}

#[tokio::test]
async fn r32_the_spool_survives_a_full_disk_at_every_call() {
    let ended = assert_spools_through(|call| Fault::Fail(call, Moment::Halfway, io::ErrorKind::StorageFull)).await;
    assert_eq!(ended, 0, "one failure is no end");
}

#[tokio::test]
async fn r32_the_spool_keeps_what_it_has_on_a_disk_that_fails_from_any_call_on() {
    let ended = assert_spools_through(Fault::FailFrom).await;
    assert!(ended > 0, "some failure falls into a write, and then into its undoing");
}

#[tokio::test]
async fn r32_a_start_after_a_crash_at_any_call_of_the_spool_begins_clean() {
    let seed = Rng::from_env().seed();
    for call in 0.. {
        let disk = FaultyDisk::new(Fault::Crash(call, Moment::ALL[call as usize % 3]), seed ^ call);
        let mut broker = open(&disk);
        broker.try_commit(Script::first_batch()).await.unwrap_or_default();
        for counter in 1..12 {
            broker.try_commit(vec![insert(Sequence::new(Term(1), counter), 5_000)]).await.unwrap_or_default();
        }
        broker.adapter.close().await.unwrap();
        if !disk.has_failed() {
            break;
        }
        for image in [disk.after_kill(), disk.after_power_loss(seed)] {
            assert_starts_clean(&image, &format!("seed {seed}, crash at call {call}")).await;
        }
    }
}

/// What lies there is no journal, or not ours to remove.
#[tokio::test]
async fn r32_a_start_removes_whatever_lies_where_the_spool_belongs() {
    let data = tempfile::tempdir().unwrap();
    let spool = data.path().join("spool");
    std::fs::create_dir_all(spool.join("journal/deeper")).unwrap();
    std::fs::write(spool.join("journal/0000000001.journal"), "no segment").unwrap();
    std::fs::write(spool.join("journal/deeper/file"), "who knows").unwrap();
    let mut adapter = SpoolAdapter::open(data.path(), SpoolAdapter::options());
    assert!(!spool.exists());
    std::fs::create_dir_all(&spool).unwrap();
    std::fs::write(spool.join("came later"), "").unwrap();
    adapter.recover().await.unwrap();
    let mut broker = Broker { adapter, catalog: Catalog::default(), tenure: Tenure::default(), number: 0 };
    broker.commit(Script::first_batch()).await;
    assert!(!spool.join("came later").exists());
    broker.adapter.close().await.unwrap();
    assert!(!spool.exists());
}
