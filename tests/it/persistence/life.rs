//! A journal on a faulty disk: what it promised, and whether a later start keeps it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use batonmq::{
    persistence::{
        MessageReader, PersistenceAdapter,
        journal::{JournalAdapter, JournalOptions, OnPoison},
    },
    types::{Broken, Op, Priority, Sequence, Tenure},
};

use super::{Broker, insert, read_due, read_line, script::Script};
use crate::harness::{FaultyDisk, Rows};

/// Small, so that a short script fills, copies and frees many.
pub(super) const SEGMENT_BYTES: u64 = 24 << 10;

/// An adapter on `disk`, and whether its process has ended.
pub(super) fn open(disk: &FaultyDisk) -> (JournalAdapter, Arc<AtomicBool>) {
    open_with(disk, Threads::None)
}

/// Whether the journal has its threads that fill, copy and index, or does at once what they would do: so that its calls
/// come in the same order each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    None,
    Some,
}

pub(super) fn open_with(disk: &FaultyDisk, threads: Threads) -> (JournalAdapter, Arc<AtomicBool>) {
    open_broken(disk, threads, Broken::default())
}

/// One that keeps a rule less.
pub(super) fn open_broken(disk: &FaultyDisk, threads: Threads, broken: Broken) -> (JournalAdapter, Arc<AtomicBool>) {
    let poisoned = Arc::new(AtomicBool::new(false));
    let (flag, stopped) = (Arc::clone(&poisoned), disk.clone());
    let on_poison = OnPoison::new(move |_, _, _| {
        stopped.stop(); // what a process that ends does to its disk: nothing any more
        flag.store(true, Ordering::SeqCst);
    });
    let options = JournalOptions {
        disk: Arc::new(disk.clone()),
        segment_bytes: SEGMENT_BYTES,
        fill_in_background: threads == Threads::Some,
        on_poison,
        first_incarnation: Some(7 << 40),
        broken,
    };
    (JournalAdapter::open(Path::new("/data"), options).unwrap(), poisoned)
}

/// What a later start has to find.
#[derive(Clone, Debug, Default)]
pub(super) struct Promised {
    /// After what was confirmed.
    pub(super) model: Rows,
    /// After the batch in doubt, if there is one.
    pub(super) or: Option<Rows>,
    /// The highest tenure that was confirmed.
    pub(super) tenure: Tenure,
    /// What was copied on the way there.
    pub(super) copied_bytes: u64,
}

impl Promised {
    pub(super) fn is_kept_by(&self, found: &Rows) -> bool {
        found.catalog.tenure >= self.tenure
            && (found.same_but_for_the_tenure(&self.model)
                || self.or.as_ref().is_some_and(|or| found.same_but_for_the_tenure(or)))
    }

    /// Starts on `disk` and compares.
    pub(super) async fn assert_kept(&self, disk: &FaultyDisk, what: &str) -> (Broker<JournalAdapter>, Rows) {
        let (broker, found) = recover(disk, what).await;
        assert!(self.is_kept_by(&found), "{what}: {}", self.difference(&found));
        (broker, found)
    }

    fn difference(&self, found: &Rows) -> String {
        let expected = &self.model;
        let missing: Vec<_> = expected.messages.keys().filter(|key| !found.messages.contains_key(key)).collect();
        let back: Vec<_> = found.messages.keys().filter(|key| !expected.messages.contains_key(key)).collect();
        let other = |key: &&Sequence| found.messages.get(*key).is_some_and(|stored| stored != &expected.messages[*key]);
        let others: Vec<_> = expected.messages.keys().filter(other).collect();
        let in_doubt = if self.or.is_some() { "one batch" } else { "none" };
        let (catalog, tenure) = (&expected.catalog, self.tenure);
        format!(
            "missing {missing:?}, too many {back:?}, different {others:?}, {in_doubt} in doubt; found {:?} instead of {catalog:?}, \
             {tenure:?}",
            found.catalog
        )
    }
}

/// Recovers what lies on `disk` and reads all of it.
pub(super) async fn recover(disk: &FaultyDisk, what: &str) -> (Broker<JournalAdapter>, Rows) {
    let (mut adapter, _) = open(disk);
    let catalog = adapter.recover().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let tenure = catalog.tenure;
    let broker = Broker { adapter, catalog, tenure, number: 0 };
    let found = read(&broker, what).await;
    assert_eq!(read_due(&broker).await, found.all_due(), "{what}");
    (broker, found)
}

/// What was there when the adapter recovered, read where it says that something is.
async fn read(broker: &Broker<JournalAdapter>, what: &str) -> Rows {
    let reader = broker.adapter.reader();
    let holders = reader.holders().await.unwrap();
    let mut found = Rows { catalog: broker.catalog.clone(), ..Rows::default() };
    for &holder in &holders {
        let backlog = reader.backlog(holder).await.unwrap();
        for level in (0..10).filter(|level| backlog.messages[usize::from(*level)] > 0) {
            let line = read_line(&reader, holder, Priority::clamped(level)).await;
            found.messages.extend(line.into_iter().map(|stored| (stored.sequence, stored)));
        }
        assert_eq!(backlog.messages, found.backlog(holder).messages, "{what}: {holder:?}");
    }
    assert_eq!(holders, found.holders(), "{what}");
    found
}

/// A start on `disk` finds what was promised, makes it durable (R33), and what is committed then is kept too.
pub(super) async fn assert_promises_kept(promised: &Promised, disk: &FaultyDisk, what: &str) -> Rows {
    let (mut broker, found) = promised.assert_kept(disk, what).await;
    let (_, left) = recover(&disk.after_power_loss(2), what).await;
    assert!(left == found, "{what}: what was accepted was made durable");
    broker.tenure = Tenure::default().next_above(found.catalog.tenure);
    broker.adapter.raise(broker.tenure).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut after = found.clone();
    after.catalog.tenure = broker.tenure;
    for counter in 1..4 {
        let mut ops: Vec<Op> = vec![insert(Sequence::new(broker.tenure.term, counter), 5_000)];
        if counter == 1 {
            ops.extend(Script::first_batch());
        }
        after.apply_all(&ops);
        broker.commit(ops).await;
    }
    drop(broker);
    let (_, again) = recover(&disk.after_power_loss(1), what).await;
    assert!(again == after, "{what}: what was committed after the recovery is there");
    found
}
