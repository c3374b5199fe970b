//! What a journal takes on disk: one old message never pins what came after it (R34).

use std::{fs, path::Path};

use batonmq::{
    persistence::{
        PersistenceAdapter,
        journal::{JournalAdapter, JournalOptions},
    },
    types::{Op, Sequence, Stored, Term},
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
    let (mut next, mut wishes, mut most) = (2, Vec::new(), 0);
    while broker.adapter.usage().written_bytes < THROUGH_BYTES {
        let mut ops: Vec<Op> = (next..next + BATCH_MESSAGES).map(|counter| insert(seq(counter), BODY_BYTES)).collect();
        ops.extend((next.saturating_sub(BATCH_MESSAGES).max(2)..next).map(|counter| settle(seq(counter))));
        ops.extend(wishes.drain(..).filter(|wish: &Stored| wish.sequence == old.sequence).map(Op::Copy));
        next += BATCH_MESSAGES;
        wishes = broker.commit(ops).await.copies_asked;
        most = most.max(files_in(data.path()).len());
    }
    let usage = broker.adapter.usage();
    assert!(most <= 3, "{most} files");
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
    let mut wishes = Vec::new();
    for round in 0..3_000_u64 {
        let mut ops = vec![insert(seq(3 * round), 1_000), insert(seq(3 * round + 1), 1_000)];
        if round > 0 {
            ops.push(settle(seq(3 * (round - 1)))); // every second message stays
        }
        if round >= 300 && round % 2 == 0 {
            ops.push(settle(seq(3 * (round - 300) + 1))); // and of these every second one for 300 rounds only
        }
        let stays = |wish: &Stored| {
            let (kept, at) = (wish.sequence.counter() % 3 == 1, wish.sequence.counter() / 3);
            kept && (at % 2 == 1 || at + 300 > round) || !kept && at == round
        };
        ops.extend(wishes.drain(..).filter(stays).map(Op::Copy));
        wishes = broker.commit(ops).await.copies_asked;
        let usage = broker.adapter.usage();
        assert!(usage.copied_bytes <= usage.written_bytes, "round {round}: {usage:?}");
    }
    let usage = broker.adapter.usage();
    let disk = usage.segments as u64 * SEGMENT_BYTES;
    assert!(disk <= 2 * usage.live_bytes + 4 * SEGMENT_BYTES, "{usage:?}");
    broker.adapter.close().await.unwrap();
}

/// The bound on copies is the journal's own promise, whatever it is sent.
#[tokio::test]
async fn r34_a_core_that_copies_too_much_is_held_to_the_bound() {
    let data = tempfile::tempdir().unwrap();
    let options = JournalOptions { segment_bytes: 64 << 10, ..JournalOptions::default() };
    let mut broker = Broker::on(JournalAdapter::open(data.path(), options).unwrap()).await;
    broker.commit((1..=40).map(|counter| insert(seq(counter), 1_000)).collect()).await;
    for round in 0..200 {
        let mut ops: Vec<Op> = (1..=40).map(|counter| Op::Copy(stored(seq(counter), 1_000))).collect();
        ops.push(insert(seq(100 + round), 4_000));
        ops.push(settle(seq(99 + round)));
        broker.commit(ops).await;
        let usage = broker.adapter.usage();
        assert!(usage.copied_bytes <= usage.written_bytes, "round {round}: {usage:?}");
    }
    let usage = broker.adapter.usage();
    assert!(usage.copied_bytes > usage.written_bytes / 2, "the bound is what holds it back: {usage:?}");
    assert!(usage.written_bytes < 1 << 20, "copies count as copies: {usage:?}");
    assert_eq!(broker.messages(ORDERS).await.len(), 41);
}
