//! What a journal takes on disk: one old message never pins what came after it (R34).

use std::{fs, path::Path};

use batonmq::{
    persistence::{
        PersistenceAdapter,
        journal::{JournalAdapter, JournalOptions},
    },
    types::{Op, Sequence, Term},
};

use super::{Broker, ORDERS, insert, sequences, settle, stored};

const THROUGH_BYTES: u64 = 2 << 30;
const BODY_BYTES: usize = 256 << 10;
const BATCH_MESSAGES: u64 = 16;

fn seq(counter: u64) -> Sequence {
    Sequence::new(Term(1), counter)
}

fn files_in(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.join("journal")).unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

#[tokio::test]
async fn r34_one_old_message_and_2_gb_take_three_segments_and_no_more_copies_than_writes() {
    let data = tempfile::tempdir().unwrap();
    let mut broker = Broker::on(JournalAdapter::open(data.path(), JournalOptions::default()).unwrap()).await;
    let old = stored(seq(1), 1_024);
    broker.commit(vec![Op::Insert(old.clone())]).await;
    let (mut next, mut most) = (2, 0);
    while broker.adapter.usage().written_bytes < THROUGH_BYTES {
        let mut ops: Vec<Op> = (next..next + BATCH_MESSAGES).map(|counter| insert(seq(counter), BODY_BYTES)).collect();
        ops.extend((next.saturating_sub(BATCH_MESSAGES).max(2)..next).map(|counter| settle(seq(counter))));
        next += BATCH_MESSAGES;
        broker.commit(ops).await;
        let is_segment = |name: &&String| name.ends_with(".journal");
        most = most.max(files_in(data.path()).iter().filter(is_segment).count());
    }
    let usage = broker.adapter.usage();
    assert!(most <= 3, "{most} segments");
    assert!(usage.copied_bytes <= usage.written_bytes && usage.copied_bytes > 0, "{usage:?}");
    broker.commit((next - BATCH_MESSAGES..next).map(|counter| settle(seq(counter))).collect()).await;
    assert_eq!(broker.messages(ORDERS).await, std::slice::from_ref(&old));
    drop(broker);
    let broker = Broker::on(JournalAdapter::open(data.path(), JournalOptions::default()).unwrap()).await;
    assert_eq!(sequences(&broker.messages(ORDERS).await), [old.sequence]);
}

/// A backlog that is half garbage everywhere: copying goes on under load and never outruns the writing.
#[tokio::test]
async fn r34_copying_stays_below_writing_and_bounds_the_garbage() {
    const SEGMENT_BYTES: u64 = 256 << 10;
    let data = tempfile::tempdir().unwrap();
    let options = JournalOptions { segment_bytes: SEGMENT_BYTES, ..JournalOptions::default() };
    let mut broker = Broker::on(JournalAdapter::open(data.path(), options).unwrap()).await;
    for round in 0..3_000_u64 {
        let mut ops = vec![insert(seq(3 * round), 1_000), insert(seq(3 * round + 1), 1_000)];
        if round > 0 {
            ops.push(settle(seq(3 * (round - 1)))); // every second message stays
        }
        if round >= 300 && round % 2 == 0 {
            ops.push(settle(seq(3 * (round - 300) + 1))); // and of these every second one for 300 rounds only
        }
        broker.commit(ops).await;
        let usage = broker.adapter.usage();
        assert!(usage.copied_bytes <= usage.written_bytes, "round {round}: {usage:?}");
    }
    let usage = broker.adapter.usage();
    let disk = usage.segments as u64 * SEGMENT_BYTES;
    assert!(disk <= 2 * usage.live_bytes + 4 * SEGMENT_BYTES, "{usage:?}");
    broker.adapter.close().await.unwrap();
}
