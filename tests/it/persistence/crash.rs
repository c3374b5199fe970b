//! The journal is crashed at every call to its disk, and every call is made to fail, one at a time. Whatever happens:
//! what was confirmed is there, what was settled and confirmed is not, and a batch in doubt is there whole or not at
//! all. `lives.rs` does the same at random, over several lives of a journal.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Command,
    sync::{Arc, atomic::Ordering},
};

use batonmq::{
    persistence::{
        CommitError, PersistenceAdapter,
        journal::{JournalAdapter, JournalOptions},
    },
    types::{Sequence, Tenure},
};

use super::{
    Broker, insert,
    life::{Promised, SEGMENT_BYTES, assert_promises_kept, open, recover},
    script::Script,
};
use crate::harness::{Fault, FaultyDisk, Moment, Rng, Rows};

const BATCHES: usize = 60;

/// Runs the script on `disk` until its end or the end of the process.
async fn run(disk: &FaultyDisk, seed: u64) -> Promised {
    let mut promised = Promised::default();
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
        after.apply_all(&ops);
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
    promised.copied_bytes = broker.adapter.usage().copied_bytes;
    broker.adapter.close().await.unwrap_or_default();
    promised
}

/// The next seed whose script has something copied, and how many calls it makes.
async fn a_script_that_copies() -> (u64, u64) {
    for seed in Rng::from_env().seed().. {
        let whole = FaultyDisk::new(Fault::Never, seed);
        if run(&whole, seed).await.copied_bytes > 0 {
            return (seed, whole.calls());
        }
    }
    unreachable!("most scripts do")
}

/// Runs the script once for each of its calls, which meets this fault, and then looks at what a start finds: after
/// kill -9, after the power failed, and (R33) after the start that followed a kill -9 and a power loss then. How often
/// a start accepted a batch that nobody was told of.
async fn assert_promises_survive(fault: impl Fn(u64) -> Fault) -> u32 {
    let (seed, calls) = a_script_that_copies().await;
    assert!(calls > 2 * BATCHES as u64 && calls < 2_000, "{calls} calls");
    let mut accepted_in_doubt = 0;
    for call in 0..calls {
        let disk = FaultyDisk::new(fault(call), seed ^ call);
        let promised = run(&disk, seed).await;
        disk.stop();
        let what = |how: &str| format!("seed {seed}, {:?} of {calls} calls, {how}", fault(call));
        let found = assert_promises_kept(&promised, &disk.after_kill(), &what("kill")).await;
        accepted_in_doubt += u32::from(promised.or.is_some() && !found.same_but_for_the_tenure(&promised.model));
        assert_promises_kept(&promised, &disk.after_power_loss(seed ^ call), &what("power loss")).await;
    }
    accepted_in_doubt
}

#[tokio::test]
async fn promises_survive_a_crash_before_every_call() {
    assert_promises_survive(|call| Fault::Crash(call, Moment::Before)).await;
}

#[tokio::test]
async fn promises_survive_a_crash_halfway_through_every_call() {
    assert_promises_survive(|call| Fault::Crash(call, Moment::Halfway)).await;
}

/// Killed between write and sync, the successor reads from the page cache what may not be on the disk.
#[tokio::test]
async fn r33_promises_survive_a_crash_after_every_call() {
    let accepted_in_doubt = assert_promises_survive(|call| Fault::Crash(call, Moment::After)).await;
    assert!(accepted_in_doubt > 0, "some crash falls between write and sync");
}

#[tokio::test]
async fn promises_survive_a_failure_of_every_call() {
    assert_promises_survive(|call| Fault::Fail(call, Moment::Before, io::ErrorKind::Other)).await;
}

#[tokio::test]
async fn promises_survive_a_disk_that_fails_from_any_call_on() {
    assert_promises_survive(Fault::FailFrom).await;
}

/// A sync that fails halfway loses pages that the cache still shows.
#[tokio::test]
async fn r33_promises_survive_a_short_write_and_a_half_sync_at_every_call() {
    assert_promises_survive(|call| Fault::Fail(call, Moment::Halfway, io::ErrorKind::Other)).await;
}

#[tokio::test]
async fn promises_survive_a_write_that_says_that_it_failed() {
    assert_promises_survive(|call| Fault::Fail(call, Moment::After, io::ErrorKind::Other)).await;
}

#[tokio::test]
async fn r14_promises_survive_a_full_disk_at_every_call() {
    assert_promises_survive(|call| Fault::Fail(call, Moment::Halfway, io::ErrorKind::StorageFull)).await;
}

#[tokio::test]
async fn promises_survive_a_crash_in_the_recovery_after_a_crash() {
    let mut rng = Rng::from_env();
    let seed = rng.seed();
    let whole = FaultyDisk::new(Fault::Never, seed);
    run(&whole, seed).await;
    for _ in 0..12 {
        let call = rng.next() % whole.calls();
        let crashed = FaultyDisk::new(Fault::Crash(call, rng.pick(&Moment::ALL)), seed ^ call);
        let promised = run(&crashed, seed).await;
        for second in 0.. {
            let disk = if rng.one_in(2) { crashed.after_kill() } else { crashed.after_power_loss(rng.next()) };
            let disk = disk.with_fault(Fault::Crash(second, rng.pick(&Moment::ALL)));
            let recovered = open(&disk).0.recover().await.is_ok();
            let what = format!("seed {seed}, crash at call {call}, then at call {second} of the recovery");
            assert_promises_kept(&promised, &disk.after_kill(), &what).await;
            assert_promises_kept(&promised, &disk.after_power_loss(rng.next()), &what).await;
            if recovered {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_failed_sync_ends_the_process_and_confirms_nothing() {
    let disk = FaultyDisk::new(Fault::Never, 1);
    let (adapter, poisoned) = open(&disk);
    let mut broker = Broker::on(adapter).await;
    broker.commit(Script::first_batch()).await;
    let disk = disk.with_fault(Fault::Fail(1, Moment::Halfway, io::ErrorKind::Other)); // write, then sync
    let sequence = Sequence::new(broker.tenure.term, 1);
    let error = broker.try_commit(vec![insert(sequence, 10)]).await.unwrap_err();
    assert!(matches!(error, CommitError::Unknown { .. }), "{error}");
    assert!(poisoned.load(Ordering::SeqCst));
    let error = broker.try_commit(vec![insert(sequence, 10)]).await.unwrap_err();
    assert!(matches!(error, CommitError::Unknown { .. }), "{error}");
    assert_eq!(disk.calls(), 2, "the disk is not touched again");
}

/// What follows by default, in a process of its own.
#[tokio::test]
async fn r33_a_failed_sync_aborts_the_process() {
    const CHILD: &str = "BATONMQ_TEST_MAY_ABORT";
    if std::env::var_os(CHILD).is_some() {
        let disk = FaultyDisk::new(Fault::Never, 1);
        let options = JournalOptions {
            disk: Arc::new(disk.clone()),
            segment_bytes: SEGMENT_BYTES,
            fill_in_background: false,
            ..JournalOptions::default()
        };
        let mut broker = Broker::on(JournalAdapter::open(Path::new("/data"), options).unwrap()).await;
        disk.with_fault(Fault::Fail(1, Moment::Halfway, io::ErrorKind::Other)); // write, then sync
        println!("alive");
        println!("still alive: {:?}", broker.try_commit(Script::first_batch()).await);
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "persistence::crash::r33_a_failed_sync_aborts_the_process", "--nocapture"]);
    let output = child.env(CHILD, "yes").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("alive") && !said.contains("still alive"), "{said}");
    assert_eq!(output.status.signal(), Some(6), "SIGABRT: {said}");
}

#[tokio::test]
async fn r14_a_full_disk_is_certainly_undone() {
    for seed in 0..100 {
        let disk = FaultyDisk::new(Fault::Never, seed);
        let mut broker = Broker::on(open(&disk).0).await;
        broker.commit(Script::first_batch()).await;
        let disk = disk.with_fault(Fault::Fail(0, Moment::Halfway, io::ErrorKind::StorageFull));
        let sequence = |counter| Sequence::new(broker.tenure.term, counter);
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
        let mut model = Rows::default();
        let sequence = |counter| Sequence::new(broker.tenure.term, counter);
        for ops in [Script::first_batch(), vec![insert(sequence(1), size)], vec![insert(sequence(2), 10)]] {
            model.apply_all(&ops);
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
    let mut model = Rows::default();
    let mut broker = Broker::on(open(&disk).0).await;
    model.apply_all(&Script::first_batch());
    broker.commit(Script::first_batch()).await;
    for _ in 0..4 * BATCHES {
        let ops = script.next_batch(&model);
        model.apply_all(&ops);
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
        let disk = FaultyDisk::new(Fault::Crash(call, Moment::ALL[call as usize % 3]), seed);
        run(&disk, seed).await;
        for image in [disk.after_kill(), disk.after_power_loss(seed)] {
            let names = image.names();
            let segments: Vec<u32> =
                names.iter().filter_map(|name| name.strip_suffix(".journal")?.parse().ok()).collect();
            assert!(segments.windows(2).all(|pair| pair[0] + 1 == pair[1]), "seed {seed}, call {call}: {names:?}");
        }
    }
}
