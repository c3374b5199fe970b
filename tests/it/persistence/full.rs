//! A disk that has no more room: what adds messages waits, what takes them away goes on, and what is written twice so
//! that less is written in all (R35).

use batonmq::{
    persistence::{CommitError, PersistenceAdapter, journal::JournalAdapter},
    types::{Op, Sequence},
};

use super::{
    Broker, ORDERS, insert,
    life::{SEGMENT_BYTES, open, recover},
    script::Script,
    settle,
};
use crate::harness::{Fault, FaultyDisk, Rng, Rows};

/// How many segments' worth of bytes the disk has.
const SEGMENTS: u64 = 8;

/// A broker on a small disk, and what it has to hold.
struct Small {
    disk: FaultyDisk,
    broker: Broker<JournalAdapter>,
    model: Rows,
    counter: u64,
}

impl Small {
    async fn new(seed: u64) -> Self {
        Self::on(FaultyDisk::new(Fault::Never, seed)).await
    }

    async fn on(disk: FaultyDisk) -> Self {
        disk.limit(Some(SEGMENTS * SEGMENT_BYTES));
        let broker = Broker::on(open(&disk).0).await;
        let mut small = Self { disk, broker, model: Rows::default(), counter: 0 };
        small.commit(Script::first_batch()).await.unwrap();
        small
    }

    async fn commit(&mut self, ops: Vec<Op>) -> Result<(), CommitError> {
        let mut after = self.model.clone();
        after.apply_all(&ops);
        self.broker.try_commit(ops).await?;
        self.model = after;
        Ok(())
    }

    /// Adds a message, if there is room.
    async fn add(&mut self, size: usize) -> Result<Sequence, CommitError> {
        self.counter += 1;
        let sequence = Sequence::new(self.broker.tenure.term, self.counter);
        self.commit(vec![insert(sequence, size)]).await.map(|()| sequence)
    }

    /// Adds messages until the disk is full; what was added.
    async fn fill(&mut self, mut size: impl FnMut() -> usize) -> Vec<Sequence> {
        let mut added = Vec::new();
        loop {
            match self.add(size()).await {
                Ok(sequence) => added.push(sequence),
                Err(CommitError::Full) => return added,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The newest, so that no segment leaves.
    async fn settle_the_newest(&mut self) {
        let newest = *self.model.messages.keys().next_back().unwrap();
        self.commit(vec![settle(newest)]).await.unwrap();
    }

    /// Settles until the last segment is written to.
    async fn use_the_reserve(&mut self) {
        while self.broker.adapter.usage().reserve {
            self.settle_the_newest().await;
        }
    }

    /// Gives the journal turns of its own until a message can be added again.
    async fn await_room(&mut self) {
        for _ in 0..1_000 {
            self.commit(Vec::new()).await.unwrap();
            if self.add(100).await.is_ok() {
                return;
            }
        }
        panic!("no room: {:?}", self.broker.adapter.usage());
    }

    /// Kills it, and starts it again.
    async fn restart(mut self) -> Self {
        self.disk.stop();
        drop(self.broker);
        self.disk = self.disk.after_power_loss(7);
        let (mut broker, found) = recover(&self.disk, "full").await;
        assert!(found.same_but_for_the_tenure(&self.model));
        broker.tenure = batonmq::types::Tenure::default().next_above(found.catalog.tenure);
        broker.adapter.raise(broker.tenure).await.unwrap();
        Self { broker, counter: 0, ..self }
    }
}

#[tokio::test]
async fn r35_every_message_of_a_full_disk_can_be_settled() {
    let first = Rng::from_env().seed();
    for seed in first..first + 30 {
        let mut rng = Rng::new(seed);
        let mut small = Small::new(seed).await;
        for _ in 0..3 {
            small.fill(|| 1 + rng.below(3_000)).await;
            let mut left: Vec<Sequence> = small.model.messages.keys().copied().collect();
            while !left.is_empty() {
                let index = if rng.one_in(4) { rng.below(left.len()) } else { 0 };
                let settled = small.commit(vec![settle(left.remove(index))]).await;
                assert!(settled.is_ok(), "seed {seed}, {} left: {settled:?}", left.len());
            }
        }
        small.restart().await.await_room().await;
    }
}

#[tokio::test]
async fn r35_a_disk_full_of_segments_with_one_live_message_each_shrinks() {
    let mut small = Small::new(1).await;
    let added = small.fill(|| 1_000).await;
    let per_segment = added.len() / (SEGMENTS as usize - 1);
    let stay: Vec<Sequence> = added.iter().copied().step_by(per_segment).collect();
    let others = added.into_iter().filter(|sequence| !stay.contains(sequence));
    small.commit(others.map(settle).collect()).await.unwrap();
    small.await_room().await;
    for _ in 0..100 {
        small.commit(Vec::new()).await.unwrap();
    }
    let usage = small.broker.adapter.usage();
    assert!(usage.segments <= 3 && usage.reserve, "{usage:?}");
    let found = small.broker.messages(ORDERS).await;
    assert!(stay.iter().all(|sequence| found.iter().any(|stored| stored.sequence == *sequence)));
    small.restart().await;
}

/// Nothing that adds takes the last room, whatever is left in the segment that is written to.
#[tokio::test]
async fn r35_the_reserve_is_never_given_to_what_adds() {
    let mut small = Small::new(2).await;
    small.fill(|| 100).await;
    assert!(small.broker.adapter.usage().reserve, "adding left it");
    small.use_the_reserve().await;
    assert!(matches!(small.add(1).await, Err(CommitError::Full)), "room is left, for what settles");
    small.settle_the_newest().await;
}

#[tokio::test]
async fn r35_a_start_without_room_for_a_reserve_serves_and_adds_when_there_is_room() {
    let mut small = Small::new(3).await;
    small.fill(|| 100).await;
    small.use_the_reserve().await;
    let mut small = small.restart().await;
    assert!(!small.broker.adapter.usage().reserve);
    assert!(matches!(small.add(1).await, Err(CommitError::Full)));
    small.settle_the_newest().await;
    small.disk.limit(None);
    small.await_room().await;
    assert!(small.broker.adapter.usage().reserve);
}

#[tokio::test]
async fn a_full_disk_is_not_filled_with_zeros_again_and_again() {
    for disk in [FaultyDisk::new(Fault::Never, 4), FaultyDisk::new(Fault::Never, 4).without_allocation()] {
        let mut small = Small::on(disk).await;
        small.fill(|| 2_000).await;
        let before = small.disk.bytes_written();
        for _ in 0..80 {
            assert!(matches!(small.add(2_000).await, Err(CommitError::Full)));
        }
        let written = small.disk.bytes_written() - before;
        assert!(written <= 10 * SEGMENT_BYTES, "{written} bytes were written in vain");
    }
}
