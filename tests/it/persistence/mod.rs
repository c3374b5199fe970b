//! The behaviour suite: what a `PersistenceAdapter` is. Every case runs on every backend; a backend is done when they
//! pass. Then what only the journal promises: what its files mean at the start, crashes at every I/O call, its space.

mod cases;
mod crash;
mod files;
mod full;
mod life;
mod lives;
#[cfg(feature = "mysql")]
mod mysql_rules;
#[cfg(feature = "postgres")]
mod postgres_plans;
#[cfg(feature = "postgres")]
mod postgres_rules;
#[cfg(feature = "postgres")]
mod postgres_vacuum;
mod recovery;
mod refusals;
mod repair;
mod repair_faults;
mod script;
mod space;
mod spool;
mod summaries;
mod unfit;

#[cfg(feature = "mysql")]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{collections::BTreeMap, future::Future, path::Path, sync::Arc};
#[cfg(any(feature = "postgres", feature = "mysql"))]
use std::{pin::pin, time::Duration};

#[cfg(feature = "mysql")]
use batonmq::persistence::MysqlAdapter;
#[cfg(feature = "postgres")]
use batonmq::persistence::PostgresAdapter;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use batonmq::{
    persistence::Backlog,
    types::{Group, Term},
};
use batonmq::{
    persistence::{
        CommitError, DueReason, MemoryAdapter, MemoryStore, MessageReader, PageRange, PersistenceAdapter, StoreError,
        Window,
        journal::{JournalAdapter, JournalOptions},
    },
    types::{
        Batch, BatchNumber, Catalog, DestinationId, DurableId, Held, Holder, Message, MessageDraft, Op, Priority,
        Sequence, Stored, Tenure, Timestamp,
    },
};
use bytes::Bytes;
use smallvec::smallvec;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use tokio::time::timeout;

#[cfg(feature = "postgres")]
use crate::harness::PostgresServer;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::harness::own_group;
#[cfg(feature = "mysql")]
use crate::harness::{Galera, MariadbServer};

/// A store that outlives the adapters that are opened on it, one after the other. Gone with the value.
trait Backend: Send + Sync + 'static {
    type Adapter: PersistenceAdapter;

    fn new() -> impl Future<Output = Self> + Send;

    /// As a broker does that starts on it.
    fn open(&self) -> impl Future<Output = Self::Adapter> + Send;
}

/// The store in memory.
struct Memory(MemoryStore);

impl Backend for Memory {
    type Adapter = MemoryAdapter;

    async fn new() -> Self {
        Self(MemoryStore::default())
    }

    async fn open(&self) -> MemoryAdapter {
        MemoryAdapter::open(&self.0)
    }
}

/// A journal in real files, with segments so small that a test fills many.
struct Journal(tempfile::TempDir);

impl Journal {
    const SEGMENT_BYTES: u64 = 256 << 10;

    fn data(&self) -> &Path {
        self.0.path()
    }
}

impl Backend for Journal {
    type Adapter = JournalAdapter;

    async fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> JournalAdapter {
        let options = JournalOptions { segment_bytes: Self::SEGMENT_BYTES, ..JournalOptions::default() };
        JournalAdapter::open(self.data(), options).unwrap()
    }
}

/// A group of its own in a PostgreSQL that all tests share.
#[cfg(feature = "postgres")]
pub(crate) struct Postgres(Group);

#[cfg(feature = "postgres")]
impl Postgres {
    pub(crate) fn group(&self) -> &Group {
        &self.0
    }
}

#[cfg(feature = "postgres")]
impl Backend for Postgres {
    type Adapter = PostgresAdapter;

    async fn new() -> Self {
        Self(own_group())
    }

    async fn open(&self) -> PostgresAdapter {
        PostgresAdapter::new(PostgresServer::shared().connector("one"), self.0.clone()).unwrap()
    }
}

/// A group of its own in a MariaDB that all tests share.
#[cfg(feature = "mysql")]
pub(crate) struct Mysql(Group);

#[cfg(feature = "mysql")]
impl Mysql {
    pub(crate) fn group(&self) -> &Group {
        &self.0
    }
}

#[cfg(feature = "mysql")]
impl Backend for Mysql {
    type Adapter = MysqlAdapter;

    async fn new() -> Self {
        Self(own_group())
    }

    async fn open(&self) -> MysqlAdapter {
        MysqlAdapter::new(MariadbServer::shared().connector("one"), self.0.clone())
    }
}

/// A group of its own in a Galera cluster that all tests share. Each adapter is on the next node.
#[cfg(feature = "mysql")]
struct Cluster {
    group: Group,
    opened: AtomicUsize,
}

#[cfg(feature = "mysql")]
impl Backend for Cluster {
    type Adapter = MysqlAdapter;

    async fn new() -> Self {
        Self { group: own_group(), opened: AtomicUsize::new(0) }
    }

    async fn open(&self) -> MysqlAdapter {
        let nodes = &Galera::shared().nodes;
        let node = &nodes[self.opened.fetch_add(1, Ordering::Relaxed) % nodes.len()];
        MysqlAdapter::new(node.connector("one"), self.group.clone())
    }
}

/// Lists the cases once, and defines `run_on!`, which makes one module a backend with one test a case.
macro_rules! conformance {
    (($d:tt) $($case:ident)*) => {
        macro_rules! run_on {
            ($d module:ident, $d backend:ty) => {
                mod $d module {
                    use super::*;
                    $(
                        #[tokio::test]
                        async fn $case() {
                            cases::$case(&<$d backend as Backend>::new().await).await;
                        }
                    )*
                }
            };
        }
    };
}

conformance! { ($)
    a_new_store_is_empty
    a_message_comes_back_as_it_was
    a_batch_is_applied_whole
    commit_twice_is_once
    an_insert_of_what_is_there_changes_nothing
    r1_a_settled_message_is_gone
    a_message_stays_until_every_holder_settled
    settling_what_is_not_there_is_nothing
    r9_a_return_keeps_its_absolute_numbers
    r9_a_mark_never_falls
    the_catalog_survives
    r29_ids_are_known_after_what_they_named_is_gone
    a_deleted_durable_takes_its_part_of_every_message
    r29_a_purge_takes_all_that_one_holder_has_up_to_its_mark
    r29_a_purge_beside_inserts_takes_none_of_them
    reads_in_order_of_acceptance_by_priority
    a_page_keeps_to_its_window
    r25_a_page_ends_where_it_is_told_to
    durables_read_one_body_each_at_its_own_place
    r27_what_comes_due_is_found_by_time
    r28_a_backlog_is_that_of_the_recovery
    a_batch_without_operations_changes_nothing
    r17_a_tenure_that_is_not_above_is_deposed
    r17_the_highest_tenure_survives
    r11_a_raised_token_carries_on_in_its_term
    nothing_is_committed_before_a_raise
    a_large_message_and_a_large_batch_come_back
    reopening_keeps_every_promise
}

run_on!(memory, Memory);
run_on!(journal, Journal);
#[cfg(feature = "postgres")]
run_on!(postgres, Postgres);
#[cfg(feature = "mysql")]
run_on!(mysql, Mysql);
#[cfg(feature = "mysql")]
run_on!(galera, Cluster);

/// A broker's side of an adapter: its tenure, and the numbers of its batches.
struct Broker<A> {
    adapter: A,
    catalog: Catalog,
    tenure: Tenure,
    number: u64,
}

impl<A: PersistenceAdapter> Broker<A> {
    /// Takes over what lies in the backend.
    async fn start<B: Backend<Adapter = A>>(backend: &B) -> Self {
        Self::on(backend.open().await).await
    }

    async fn on(mut adapter: A) -> Self {
        let catalog = adapter.recover().await.unwrap();
        let tenure = Tenure::default().next_above(catalog.tenure);
        adapter.raise(tenure).await.unwrap();
        Self { adapter, catalog, tenure, number: 0 }
    }

    /// Commits the next batch.
    async fn try_commit(&mut self, ops: Vec<Op>) -> Result<(), CommitError> {
        self.number += 1;
        self.adapter.try_commit(&Arc::new(Batch { number: BatchNumber(self.number), ops })).await
    }

    async fn commit(&mut self, ops: Vec<Op>) {
        self.try_commit(ops).await.unwrap();
    }

    /// Every message of a destination that one of its holders holds, highest priority first.
    async fn messages(&self, destination: DestinationId) -> Vec<Stored> {
        let mut messages = Vec::new();
        for level in (0..10).rev() {
            let priority = Priority::clamped(level);
            let lane = read_lane(&self.adapter.reader(), &holders_of(destination), priority).await.unwrap();
            messages.extend(lane.into_values());
        }
        messages
    }
}

/// How long one waits for a count before the next batch.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const COUNT_POLL: Duration = Duration::from_millis(20);

/// What `ORDERS` is said to have held at the recovery, when it held `messages` with the counters from 1, and its counting was
/// interrupted; meanwhile batches settle some of them, and insert others.
#[cfg(any(feature = "postgres", feature = "mysql"))]
async fn count_beside_batches(mut broker: Broker<impl PersistenceAdapter>, messages: u64) -> Backlog {
    let reader = broker.adapter.reader();
    let mut counted = pin!(reader.backlog(Holder::Queue(ORDERS)));
    for counter in 1..=messages {
        let (old, new) = (Sequence::new(Term(1), counter), Sequence::new(broker.tenure.term, counter));
        broker.commit(vec![settle(old), insert(new, 10)]).await;
        if let Ok(backlog) = timeout(COUNT_POLL, &mut counted).await {
            return backlog.unwrap();
        }
    }
    panic!("it is not counted again");
}

/// What these holders hold; all of them see the same.
async fn read_lane(
    reader: &impl MessageReader,
    holders: &[Holder],
    priority: Priority,
) -> Result<BTreeMap<Sequence, Stored>, StoreError> {
    let mut messages: BTreeMap<Sequence, Stored> = BTreeMap::new();
    for &holder in holders {
        for stored in try_read_line(reader, holder, priority).await? {
            assert!(stored.holders.iter().any(|held| held.holder == holder), "{holder:?} holds {stored:?}");
            let seen = messages.entry(stored.sequence).or_insert_with(|| stored.clone());
            assert_eq!(*seen, stored);
        }
    }
    Ok(messages)
}

fn holders_of(destination: DestinationId) -> Vec<Holder> {
    match destination {
        NEWS => [1, 2].map(|id| Holder::Durable(DurableId(id))).to_vec(),
        queue => vec![Holder::Queue(queue)],
    }
}

async fn read_line(reader: &impl MessageReader, holder: Holder, priority: Priority) -> Vec<Stored> {
    try_read_line(reader, holder, priority).await.unwrap()
}

async fn try_read_line(
    reader: &impl MessageReader,
    holder: Holder,
    priority: Priority,
) -> Result<Vec<Stored>, StoreError> {
    let window = Window { messages: 8, ..LARGE };
    let mut range = EVERYTHING;
    let mut messages: Vec<Stored> = Vec::new();
    loop {
        let page = reader.page(holder, priority, range, window).await?;
        assert!(page.complete || !page.messages.is_empty(), "a page that is not complete holds something");
        range.after = page.messages.last().map_or(range.after, |stored| stored.sequence);
        messages.extend(page.messages);
        if page.complete {
            assert!(messages.is_sorted_by_key(|stored| stored.sequence));
            return Ok(messages);
        }
    }
}

/// Everything that comes due, in windows of three.
async fn read_due(broker: &Broker<impl PersistenceAdapter>) -> Vec<(Timestamp, Sequence, DueReason)> {
    let reader = broker.adapter.reader();
    let mut after = NOTHING_BEFORE;
    let mut found = Vec::new();
    loop {
        let page = reader.due(Timestamp(u64::MAX), after, Window { messages: 3, ..LARGE }).await.unwrap();
        found.extend(page.messages.iter().map(|due| (due.at, due.stored.sequence, due.reason)));
        if page.next.is_none() {
            return found;
        }
        after = found.last().map(|(at, sequence, _)| (*at, *sequence)).unwrap();
    }
}

const LARGE: Window = Window { messages: 1_000, bytes: usize::MAX };
const EVERYTHING: PageRange = PageRange { after: Sequence::ZERO, upto: Sequence::MAX };
const NOTHING_BEFORE: (Timestamp, Sequence) = (Timestamp(0), Sequence::ZERO);

const ORDERS: DestinationId = DestinationId(1);
const NEWS: DestinationId = DestinationId(2);

/// A message of `size` bytes in `ORDERS`, held by the queue.
fn stored(sequence: Sequence, size: usize) -> Stored {
    let id = format!("ID:test-{sequence}");
    let draft = MessageDraft { id: id.as_str().into(), body: Bytes::from(vec![b'x'; size]), ..MessageDraft::default() };
    let message = Arc::new(Message::new(draft));
    Stored { sequence, destination: ORDERS, holders: smallvec![Held::fresh(Holder::Queue(ORDERS))], message }
}

fn insert(sequence: Sequence, size: usize) -> Op {
    Op::Insert(stored(sequence, size))
}

fn settle(sequence: Sequence) -> Op {
    Op::Settle { sequence, holder: Holder::Queue(ORDERS) }
}

fn sequences(messages: &[Stored]) -> Vec<Sequence> {
    messages.iter().map(|stored| stored.sequence).collect()
}
