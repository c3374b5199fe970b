//! The store in PostgreSQL: a schema for each group, a row for each message.
//!
//! Owns the tables of one group while its token is the row's; `sql/postgres/` has them and every statement.
//! Always true: each write proves the token in its own transaction, so nothing is written that a take-over did not see.
//! Rows of messages are inserted and deleted, and never updated. Reads never wait for writes.
//! On failure: whatever leaves a doubt drops the writing session; what follows is the engine's writer's business.

mod backlog;
mod columns;
mod errors;
mod garbage;
mod reader;
mod statements;
mod stored;
mod vacuum;
mod writer;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use reader::PostgresReader;
use tokio_postgres::Row;

use self::{
    backlog::Snapshot, columns::Columns, errors::failed, reader::ReaderPool, statements::Texts, writer::Writer,
};
use super::{
    CommitError, PersistenceAdapter, StoreError, StoreLimits,
    sql::{ALTERED_ROW, CLOSE_PATIENCE, Census, MESSAGE_BYTES_MAX, Purges, Text, Writing, answered, holder_of, number},
};
use crate::{
    db::postgres::{Postgres, Session, schema},
    tasks::Tasks,
    types::{
        Batch, Catalog, Destination, DestinationId, DestinationKind, Durable, DurableId, Group, History, Holder,
        Sequence, Tenure,
    },
};

/// What the parts of the adapter share.
struct Store {
    postgres: Postgres,
    group: Group,
    texts: Texts,
    purges: Purges,
    /// What is known of the tables since the recovery.
    seen: Mutex<Seen>,
}

/// What is known of the tables since the recovery, by what was found then and was sent or confirmed after it.
#[derive(Debug, Default)]
struct Seen {
    /// The last point of the database's history, on which all that is in memory was made (R21).
    history: Option<History>,
    /// The number of the last transaction that was confirmed: who restores an older copy within a heartbeat is known by
    /// that.
    transaction: i64,
    /// The last message that was ever sent to be written: all behind it are new, whatever became of it.
    tried: i64,
    /// Something may have come back that is not settled.
    any_returned: bool,
    /// How many settles were written: about as many rows were deleted.
    deleted: u64,
    /// A batch found the disk full, so whatever can be given back is wanted now.
    wants_room: bool,
}

/// What is known of what is about to be written.
struct Known {
    /// No message of it was ever sent to be written.
    are_new: bool,
    /// What it settles may have come back before.
    any_returned: bool,
}

impl Store {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction is durable that deleted so many rows.
    fn confirmed(&self, transaction: i64, deleted: usize) {
        let mut seen = self.seen();
        seen.transaction = seen.transaction.max(transaction);
        seen.deleted += deleted as u64;
    }

    /// Remembers what is about to be sent to be written, and tells what is known of it.
    fn note(&self, columns: &Columns<'_>) -> Known {
        let mut seen = self.seen();
        let tried = seen.tried;
        let inserted = columns.inserted();
        seen.tried = inserted.map_or(tried, |(_, last)| tried.max(last));
        seen.any_returned |= columns.has_returns();
        Known { are_new: inserted.is_none_or(|(first, _)| first > tried), any_returned: seen.any_returned }
    }

    /// Why the database that a writer finds `now`, with the number of its `next` transaction, is not the one that was
    /// written to. `None`: it is.
    fn departs(&self, now: History, next: i64) -> Option<String> {
        let mut seen = self.seen();
        if let Some(why) = seen.history.as_ref().and_then(|seen| now.departs_from(seen)) {
            return Some(why);
        }
        if next <= seen.transaction {
            let last = seen.transaction;
            return Some(format!("the database was restored from an older copy: it does not have transaction {last}"));
        }
        seen.history = Some(now);
        None
    }

    /// A session of one's own; `tasks` drives it.
    async fn session(&self, purpose: &'static str, tasks: &Tasks) -> Result<Session, StoreError> {
        let (session, driver) = self.postgres.connect(purpose).await?;
        tasks.spawn(purpose, driver.run());
        Ok(session)
    }
}

/// Keeps a group's messages in PostgreSQL.
pub struct PostgresAdapter {
    store: Arc<Store>,
    tasks: Tasks,
    writing: Writing<Writer>,
    pool: ReaderPool,
    census: Census,
    /// The task that vacuums was started.
    vacuums: bool,
}

impl PostgresAdapter {
    /// An adapter for `group` in a database; nothing is connected yet.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the connections for reads can't be set up.
    pub fn new(postgres: Postgres, group: Group) -> Result<Self, StoreError> {
        let texts = Texts::new(&group);
        let pool = ReaderPool::new(&postgres)?;
        let store = Arc::new(Store { postgres, group, texts, purges: Purges::default(), seen: Mutex::default() });
        let (writing, census) = (Writing::new(store.purges.clone()), Census::default());
        Ok(Self { store, tasks: Tasks::new(), writing, pool, census, vacuums: false })
    }

    /// Makes the tables if they are missing, or brings them up to date, and looks at what was there: only the master
    /// gets here.
    async fn migrate(&self, session: &Session) -> Result<(), StoreError> {
        for version in schema::migrate(session, &self.store.group).await? {
            tracing::info!("the tables of group {} were brought to version {version}", self.store.group);
        }
        Ok(schema::check(session, &self.store.group).await?)
    }
}

impl PersistenceAdapter for PostgresAdapter {
    type Reader = PostgresReader;

    /// Leaves a transaction open that holds the row of the baton until [`Self::raise`]: nothing changes between what is
    /// read here and the first batch of the term.
    async fn recover(&mut self) -> Result<Catalog, StoreError> {
        let session = answered("open a session that writes", self.store.session("writer", &self.tasks)).await?;
        answered("look at the tables", self.migrate(&session)).await?;
        let mut writer =
            answered("open a session that writes", Writer::prepare(Arc::clone(&self.store), session)).await?;
        *self.store.seen() = Seen::default(); // nothing is in memory yet
        let baton = answered("hold the baton", writer.recover_baton()).await?;
        let read = CatalogReads { store: &self.store, session: writer.session() };
        let catalog = Catalog {
            tenure: baton.tenure,
            destinations: read.destinations().await?,
            durables: read.durables().await?,
            marks: read.holders(&self.store.texts.marks).await?,
            last_destination: baton.last_destination,
            last_durable: baton.last_durable,
        };
        self.store.purges.replace(read.holders(&self.store.texts.purged).await?);
        self.store.seen().any_returned = read.any_returned().await?;
        let snapshot = answered("begin to count", Snapshot::take(Arc::clone(&self.store), &self.tasks)).await?;
        self.census.begin(snapshot, &self.store.purges, &self.tasks);
        self.writing.begin(writer, baton.tenure.term);
        Ok(catalog)
    }

    async fn raise(&mut self, to: Tenure) -> Result<(), StoreError> {
        self.census.begin_term(to.term);
        if !std::mem::replace(&mut self.vacuums, true) {
            self.tasks.spawn("vacuum", vacuum::run(Arc::clone(&self.store), self.tasks.stop_token()));
        }
        self.writing.raise(to, Writer::open(Arc::clone(&self.store), &self.tasks)).await
    }

    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        self.writing.try_commit(batch).await?;
        let snapshot = Snapshot::take(Arc::clone(&self.store), &self.tasks);
        self.census.after(batch, snapshot, &self.store.purges, &self.tasks).await;
        Ok(())
    }

    fn reader(&self) -> PostgresReader {
        PostgresReader::new(Arc::clone(&self.store), self.pool.clone(), self.census.counted())
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits { message_bytes_max: MESSAGE_BYTES_MAX }
    }

    async fn close(mut self) -> Result<(), StoreError> {
        self.writing.end();
        self.pool.close();
        self.census.end();
        if let Err(late) = self.tasks.stop(CLOSE_PATIENCE).await {
            tracing::debug!("connections to the database are left to the server: {late}");
        }
        Ok(())
    }
}

/// Whatever is under way is over with the adapter: a broker that was deposed keeps no session.
impl Drop for PostgresAdapter {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

/// Reads what a term starts from, under the lock of the baton.
struct CatalogReads<'a> {
    store: &'a Store,
    session: &'a Session,
}

impl CatalogReads<'_> {
    async fn destinations(&self) -> Result<BTreeMap<DestinationId, Destination>, StoreError> {
        let destination = |row: &Row| {
            let kind = DestinationKind::from_scheme(row.get(1))?;
            Some((DestinationId(number(row.get(0))), Destination::new(kind, row.get(2))))
        };
        self.rows(&self.store.texts.destinations, destination).await
    }

    async fn durables(&self) -> Result<BTreeMap<DurableId, Durable>, StoreError> {
        let text = |text: &str| text.into();
        let durable = |row: &Row| {
            let (client_id, name) = (text(row.get(1)), text(row.get(2)));
            let topic = DestinationId(number(row.get(3)));
            Some((DurableId(number(row.get(0))), Durable { client_id, name, topic }))
        };
        self.rows(&self.store.texts.durables, durable).await
    }

    async fn any_returned(&self) -> Result<bool, StoreError> {
        let text = &self.store.texts.any_returned;
        let row = answered("read what a term begins with", async {
            self.session.query_one(&text.sql, &[]).await.map_err(|error| failed(&self.store.group, text.name, error))
        });
        Ok(row.await?.get(0))
    }

    async fn holders(&self, text: &Text) -> Result<BTreeMap<Holder, Sequence>, StoreError> {
        let mark = |row: &Row| Some((holder_of(row.get(0), row.get(1))?, Sequence::from_u64(number(row.get(2)))));
        self.rows(text, mark).await
    }

    async fn rows<K: Ord, V>(
        &self,
        text: &Text,
        read: impl Fn(&Row) -> Option<(K, V)>,
    ) -> Result<BTreeMap<K, V>, StoreError> {
        let query =
            async { self.session.query(&text.sql, &[]).await.map_err(|e| failed(&self.store.group, text.name, e)) };
        let rows = answered("read what a term begins with", query).await?;
        let unreadable = || StoreError::Database { action: text.name, source: ALTERED_ROW.into() };
        rows.iter().map(|row| read(row).ok_or_else(unreadable)).collect()
    }
}
