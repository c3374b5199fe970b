//! The journal is crashed at every call to its disk, and every call is made to fail, one at a time. Whatever happens:
//! what was confirmed is there, what was settled and confirmed is not, and a batch in doubt is there whole or not at
//! all.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use batonmq::{
    persistence::{
        CommitError, PersistenceAdapter,
        journal::{JournalAdapter, JournalOptions, OnPoison},
    },
    types::Tenure,
};

use super::{
    Broker,
    faulty_disk::{Fault, FaultyDisk},
    insert,
    script::{Model, Script},
    seed::Rng,
};

/// Small, so that a short script fills, copies and frees many.
const SEGMENT_BYTES: u64 = 24 << 10;
const BATCHES: usize = 60;

/// An adapter on `disk`, and whether its process has ended.
fn open(disk: &FaultyDisk) -> (JournalAdapter, Arc<AtomicBool>) {
    let poisoned = Arc::new(AtomicBool::new(false));
    let (flag, stopped) = (Arc::clone(&poisoned), disk.clone());
    let on_poison = OnPoison::new(move |_, _, _| {
        stopped.stop(); // what a process that ends does to its disk: nothing any more
        flag.store(true, Ordering::SeqCst);
    });
    let options = JournalOptions {
        disk: Arc::new(disk.clone()),
        segment_bytes: SEGMENT_BYTES,
        fill_in_background: false,
        on_poison,
        first_incarnation: Some(7 << 40),
    };
    (JournalAdapter::open(Path::new("/data"), options).unwrap(), poisoned)
}

/// What a run promised.
struct Promised {
    /// After what was confirmed.
    model: Model,
    /// After the batch in doubt, if there is one.
    or: Option<Model>,
    /// The highest tenure that was confirmed.
    tenure: Tenure,
}

impl Promised {
    fn nothing() -> Self {
        Self { model: Model::default(), or: None, tenure: Tenure::default() }
    }

    fn is_kept_by(&self, found: &Model) -> bool {
        found.same_but_for_the_tenure(&self.model)
            || self.or.as_ref().is_some_and(|or| found.same_but_for_the_tenure(or))
    }
}

/// Runs the script on `disk` until its end or the end of the process.
async fn run(disk: &FaultyDisk, seed: u64) -> Promised {
    let mut promised = Promised::nothing();
    let mut script = Script::new(Rng::new(seed), 3_000);
    let (mut adapter, _) = open(disk);
    let tenure = Tenure::default().next_above(Tenure::default());
    if adapter.recover().await.is_err() || adapter.raise(tenure).await.is_err() {
        return promised;
    }
    promised.tenure = tenure;
    let mut broker = Broker { catalog: promised.model.catalog.clone(), adapter, tenure, number: 0 };
    for round in 0..BATCHES {
        let ops = if round == 0 { Script::first_batch() } else { script.next_batch(&promised.model) };
        let mut after = promised.model.clone();
        after.apply(&ops);
        match broker.try_commit(ops).await {
            Ok(()) => promised.model = after,
            Err(CommitError::Full | CommitError::Again { .. }) => {} // certainly not done
            Err(CommitError::Unknown { .. }) => {
                promised.or = Some(after);
                return promised;
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
        if round == 0 && promised.model.catalog.destinations.is_empty() {
            return promised; // the script needs its queues
        }
    }
    broker.adapter.close().await.unwrap_or_default();
    promised
}

/// Recovers what lies on `disk` and reads all of it.
async fn recover(disk: &FaultyDisk, what: &str) -> (Broker<JournalAdapter>, Model) {
    let (mut adapter, _) = open(disk);
    let catalog = adapter.recover().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let tenure = catalog.tenure;
    let broker = Broker { adapter, catalog, tenure, number: 0 };
    let found = Model::read(&broker).await;
    (broker, found)
}

async fn assert_promises_kept(promised: &Promised, disk: &FaultyDisk, what: &str) -> Model {
    let (mut broker, found) = recover(disk, what).await;
    assert!(promised.is_kept_by(&found), "{what}: {}", difference(promised, &found));
    assert!(found.catalog.tenure >= promised.tenure, "{what}: the tenure survives");
    // and the journal goes on
    broker.tenure = Tenure::default().next_above(found.catalog.tenure);
    broker.adapter.raise(broker.tenure).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut after = found.clone();
    after.catalog.tenure = broker.tenure;
    for counter in 1..4 {
        let sequence = batonmq::types::Sequence::new(broker.tenure.term, counter);
        let mut ops = vec![insert(sequence, 5_000)];
        if counter == 1 {
            ops.extend(Script::first_batch());
        }
        after.apply(&ops);
        broker.commit(ops).await;
    }
    drop(broker);
    let (_, again) = recover(&disk.after_power_loss(1), what).await;
    assert!(again == after, "{what}: what was committed after the recovery is there");
    found
}

fn difference(promised: &Promised, found: &Model) -> String {
    let expected = &promised.model;
    let missing: Vec<_> = expected.messages.keys().filter(|key| !found.messages.contains_key(key)).collect();
    let back: Vec<_> = found.messages.keys().filter(|key| !expected.messages.contains_key(key)).collect();
    format!(
        "missing {missing:?}, too many {back:?}, {} in doubt",
        if promised.or.is_some() { "one batch" } else { "none" }
    )
}

#[tokio::test]
async fn promises_survive_a_crash_at_every_call() {
    let seed = Rng::from_env().seed();
    let whole = FaultyDisk::new(Fault::Never, seed);
    run(&whole, seed).await;
    let calls = whole.calls();
    assert!(calls > 2 * BATCHES as u64 && calls < 2_000, "{calls} calls");
    for call in 0..calls {
        let disk = FaultyDisk::new(Fault::CrashAt(call), seed ^ call);
        let promised = run(&disk, seed).await;
        let what = |how: &str| format!("seed {seed}, {how} at call {call} of {calls}");
        assert_promises_kept(&promised, &disk.after_kill(), &what("kill")).await;
        for power in 0..3 {
            let lost = disk.after_power_loss(seed ^ power);
            assert_promises_kept(&promised, &lost, &what(&format!("power loss {power}"))).await;
        }
    }
}

#[tokio::test]
async fn promises_survive_a_crash_in_the_recovery_after_a_crash() {
    let mut rng = Rng::from_env();
    let seed = rng.seed();
    let whole = FaultyDisk::new(Fault::Never, seed);
    run(&whole, seed).await;
    for _ in 0..12 {
        let call = rng.next() % whole.calls();
        let crashed = FaultyDisk::new(Fault::CrashAt(call), seed ^ call);
        let promised = run(&crashed, seed).await;
        for second in 0.. {
            let disk = if rng.one_in(2) { crashed.after_kill() } else { crashed.after_power_loss(rng.next()) };
            let disk = disk.with_fault(Fault::CrashAt(second));
            let recovered = open(&disk).0.recover().await.is_ok();
            let what = format!("seed {seed}, crash at call {call}, then at call {second} of the recovery");
            assert_promises_kept(&promised, &disk.after_power_loss(rng.next()), &what).await;
            if recovered {
                break;
            }
        }
    }
}

#[tokio::test]
async fn promises_survive_a_failure_of_every_call() {
    let seed = Rng::from_env().seed();
    let whole = FaultyDisk::new(Fault::Never, seed);
    run(&whole, seed).await;
    for call in 0..whole.calls() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            let disk = FaultyDisk::new(Fault::FailAt(call, kind), seed ^ call);
            let promised = run(&disk, seed).await;
            disk.stop();
            let what = |how: &str| format!("seed {seed}, {kind:?} at call {call}, {how}");
            assert_promises_kept(&promised, &disk.after_kill(), &what("kill")).await;
            assert_promises_kept(&promised, &disk.after_power_loss(seed), &what("power loss")).await;
        }
    }
}

/// R33: killed at each call, the successor reads from the page cache what may not be on the disk; then the power fails.
#[tokio::test]
async fn r33_recovery_makes_durable_what_it_accepts() {
    let seed = Rng::from_env().seed();
    let whole = FaultyDisk::new(Fault::Never, seed);
    run(&whole, seed).await;
    let mut accepted_in_doubt = 0;
    for call in 0..whole.calls() {
        for fault in [Fault::CrashAt(call), Fault::FailAt(call, io::ErrorKind::Other)] {
            let disk = FaultyDisk::new(fault, seed ^ call);
            let promised = run(&disk, seed).await;
            disk.stop();
            let successor = disk.after_kill();
            let what = format!("seed {seed}, {fault:?}");
            let (broker, accepted) = recover(&successor, &what).await;
            accepted_in_doubt += u32::from(promised.or.is_some() && !accepted.same_but_for_the_tenure(&promised.model));
            let (_, left) = recover(&successor.after_power_loss(seed ^ call), &what).await;
            assert!(left == accepted, "{what}: what was accepted was made durable");
            drop(broker);
        }
    }
    assert!(accepted_in_doubt > 0, "some crash falls between write and sync");
}

#[tokio::test]
async fn a_failed_sync_ends_the_process_and_confirms_nothing() {
    let disk = FaultyDisk::new(Fault::Never, 1);
    let (adapter, poisoned) = open(&disk);
    let mut broker = Broker::on(adapter).await;
    broker.commit(Script::first_batch()).await;
    let disk = disk.with_fault(Fault::FailAt(1, io::ErrorKind::Other)); // write, then sync
    let sequence = batonmq::types::Sequence::new(broker.tenure.term, 1);
    let error = broker.try_commit(vec![insert(sequence, 10)]).await.unwrap_err();
    assert!(matches!(error, CommitError::Unknown { .. }), "{error}");
    assert!(poisoned.load(Ordering::SeqCst));
    let error = broker.try_commit(vec![insert(sequence, 10)]).await.unwrap_err();
    assert!(matches!(error, CommitError::Unknown { .. }), "{error}");
    assert_eq!(disk.calls(), 2, "the disk is not touched again");
}

#[tokio::test]
async fn r14_a_full_disk_is_certainly_undone() {
    for seed in 0..100 {
        let disk = FaultyDisk::new(Fault::Never, seed);
        let mut broker = Broker::on(open(&disk).0).await;
        broker.commit(Script::first_batch()).await;
        let disk = disk.with_fault(Fault::FailAt(0, io::ErrorKind::StorageFull));
        let sequence = |counter| batonmq::types::Sequence::new(broker.tenure.term, counter);
        let (refused, taken) = (sequence(1), sequence(2));
        assert!(matches!(broker.try_commit(vec![insert(refused, 9_000)]).await.unwrap_err(), CommitError::Full));
        for image in [disk.after_kill(), disk.after_power_loss(seed)] {
            let (_, found) = recover(&image, "full").await;
            assert!(found.messages.is_empty(), "seed {seed}: neither in the cache nor on the disk");
        }
        broker.commit(vec![insert(taken, 10)]).await;
        drop(broker);
        let (_, found) = recover(&disk.after_power_loss(seed), "full").await;
        assert_eq!(found.messages.into_keys().collect::<Vec<_>>(), [taken]);
    }
}

/// Where a record ends just before, at and behind the end of its segment.
#[tokio::test]
async fn records_of_every_length_around_a_segments_end_come_back() {
    for size in SEGMENT_BYTES as usize - 4_096 - 400..SEGMENT_BYTES as usize - 4_096 + 20 {
        let disk = FaultyDisk::new(Fault::Never, size as u64);
        let mut broker = Broker::on(open(&disk).0).await;
        let mut model = Model::default();
        let sequence = |counter| batonmq::types::Sequence::new(broker.tenure.term, counter);
        for ops in [Script::first_batch(), vec![insert(sequence(1), size)], vec![insert(sequence(2), 10)]] {
            model.apply(&ops);
            broker.commit(ops).await;
        }
        drop(broker);
        let (_, found) = recover(&disk.after_power_loss(1), &format!("{size} bytes")).await;
        assert!(found.same_but_for_the_tenure(&model), "{size} bytes");
    }
}

#[tokio::test]
async fn r34_the_script_copies_and_frees_segments() {
    let disk = FaultyDisk::new(Fault::Never, 1);
    let mut script = Script::new(Rng::new(1), 3_000);
    let mut model = Model::default();
    let mut broker = Broker::on(open(&disk).0).await;
    model.apply(&Script::first_batch());
    broker.commit(Script::first_batch()).await;
    for _ in 0..4 * BATCHES {
        let ops = script.next_batch(&model);
        model.apply(&ops);
        broker.commit(ops).await;
    }
    let usage = broker.adapter.usage();
    assert!(usage.copied_bytes > 0 && usage.copied_bytes <= usage.written_bytes, "{usage:?}");
    assert!(usage.written_bytes > usage.segments as u64 * SEGMENT_BYTES, "segments left: {usage:?}");
}

#[tokio::test]
async fn r34_segments_leave_oldest_first_at_every_moment() {
    let seed = Rng::from_env().seed();
    let whole = FaultyDisk::new(Fault::Never, seed);
    run(&whole, seed).await;
    for call in 0..whole.calls() {
        let disk = FaultyDisk::new(Fault::CrashAt(call), seed);
        run(&disk, seed).await;
        for image in [disk.after_kill(), disk.after_power_loss(seed)] {
            let names = image.names();
            let segments: Vec<u32> =
                names.iter().filter_map(|name| name.strip_suffix(".journal")?.parse().ok()).collect();
            assert!(segments.windows(2).all(|pair| pair[0] + 1 == pair[1]), "seed {seed}, call {call}: {names:?}");
        }
    }
}
