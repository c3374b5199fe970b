//! The store in PostgreSQL: a schema for each group, a row for each message.
//!
//! Owns the tables of one group while its token is the row's; `sql/postgres/` has them and every statement.
//! Always true: each write proves the token in its own transaction, so nothing is written that a take-over did not see.
//! Rows of messages are inserted and deleted, and never updated. Reads never wait for writes.
//! On failure: whatever leaves a doubt drops the writing session; what follows is the engine's writer's business.

mod backlog;
mod columns;
mod errors;
mod purges;
mod reader;
mod statements;
mod stored;
mod writer;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use reader::PostgresReader;
use tokio_postgres::Row;

use self::{
    backlog::Census,
    columns::Statements,
    errors::failed,
    purges::Purges,
    reader::ReaderPool,
    statements::{Text, Texts},
    writer::{Asked, Writer},
};
use super::{
    CommitError, PersistenceAdapter, StoreError, StoreLimits,
    sql::{holder_of, number},
};
use crate::{
    db::postgres::{Postgres, Session, schema},
    tasks::Tasks,
    types::{
        Batch, Catalog, Destination, DestinationId, DestinationKind, Durable, DurableId, FencingToken, Group, Holder,
        Op, Sequence, Tenure, Term,
    },
};

/// How long the end of the connections may take; the server ends what is left.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// What the parts of the adapter share.
struct Store {
    postgres: Postgres,
    group: Group,
    texts: Texts,
    purges: Purges,
}

impl Store {
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
    /// `None`: the last one left a doubt, or there was none yet.
    writer: Option<Writer>,
    /// The term that the row had when this adapter proved it last; while it has it, nobody took over (R17).
    base: Option<Term>,
    /// Of the last `raise`; nothing may be committed before.
    token: Option<FencingToken>,
    /// The raises of which it is not known what became of them (R11).
    asked: Vec<Asked>,
    pool: ReaderPool,
    census: Census,
}

impl PostgresAdapter {
    /// A row is in the server's memory several times while it is written. Unit: bytes.
    const MESSAGE_BYTES_MAX: usize = 256 << 20;

    /// An adapter for `group` in a database; nothing is connected yet.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the connections for reads can't be set up.
    pub fn new(postgres: Postgres, group: Group) -> Result<Self, StoreError> {
        let texts = Texts::new(&group);
        let pool = ReaderPool::new(&postgres)?;
        let store = Arc::new(Store { postgres, group, texts, purges: Purges::default() });
        let (tasks, census) = (Tasks::new(), Census::default());
        Ok(Self { store, tasks, writer: None, base: None, token: None, asked: Vec::new(), pool, census })
    }

    /// Makes the tables if they are missing, or brings them up to date: only the master gets here.
    async fn migrate(&self, session: &Session) -> Result<(), StoreError> {
        for version in schema::migrate(session, &self.store.group).await? {
            tracing::info!("the tables of group {} were brought to version {version}", self.store.group);
        }
        Ok(())
    }

    async fn try_raise(&mut self, to: Tenure) -> Result<bool, StoreError> {
        let Some(base) = self.base else {
            return Err(StoreError::Deposed); // nobody raises what was not recovered
        };
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None if self.token.is_none() => return Err(StoreError::Closed), // the row was let go between
            None => Writer::open(Arc::clone(&self.store), &self.tasks).await?,
        };
        self.asked.push(writer.asking(to));
        let raised = writer.raise(to, base, &self.asked).await?;
        // Answered, so there is no doubt, and the session is good.
        self.writer = Some(writer);
        self.asked.clear();
        Ok(raised)
    }

    async fn write(&mut self, token: FencingToken, batch: &Batch) -> Result<(), CommitError> {
        let mut statements = Statements::of(batch).map_err(|error| CommitError::Refused { source: error.into() })?;
        let Some(writer) = &self.writer else {
            return Err(CommitError::Unknown { source: "the connection was lost before".into() });
        };
        let rest = self.rest_of_a_purge(writer, token).await?;
        statements.settle_too(&rest);
        if batch.ops.is_empty() && rest.is_empty() {
            return Ok(());
        }
        writer.commit(token, &statements).await
    }

    /// What goes along with a batch, and is looked for before it: an error here means that the batch was not written.
    async fn rest_of_a_purge(
        &self,
        writer: &Writer,
        token: FencingToken,
    ) -> Result<Vec<(Sequence, Holder)>, CommitError> {
        let Some((holder, upto)) = self.store.purges.first() else { return Ok(Vec::new()) };
        let rest = writer.rest_of(holder, upto).await?;
        if rest.is_empty() {
            writer.purge_is_done(token, holder, upto).await?;
            self.store.purges.remove(holder, upto);
        }
        Ok(rest)
    }

    /// What reads have to know of a batch that is durable.
    fn note(&self, batch: &Batch) {
        for op in &batch.ops {
            match op {
                Op::DeleteDurable { id } => self.store.purges.add(Holder::Durable(*id), Sequence::MAX),
                Op::Purge { holder, upto } => self.store.purges.add(*holder, *upto),
                _ => {}
            }
        }
    }
}

impl PersistenceAdapter for PostgresAdapter {
    type Reader = PostgresReader;

    /// Leaves a transaction open that holds the row of the baton until [`Self::raise`]: nothing changes between what is
    /// read here and the first batch of the term.
    async fn recover(&mut self) -> Result<Catalog, StoreError> {
        let session = self.store.session("writer", &self.tasks).await?;
        self.migrate(&session).await?;
        let mut writer = Writer::prepare(Arc::clone(&self.store), session).await?;
        let baton = writer.hold_baton().await?;
        let read = CatalogReads { store: &self.store, session: writer.session() };
        let catalog = Catalog {
            tenure: baton.tenure,
            destinations: read.destinations().await?,
            durables: read.durables().await?,
            marks: read.holders(&self.store.texts.marks).await?,
            last_destination: baton.last_destination,
            last_durable: baton.last_durable,
        };
        let purges = read.holders(&self.store.texts.purged).await?;
        self.store.purges.replace(purges.clone());
        self.census.begin(Arc::clone(&self.store), purges, &self.tasks).await?;
        self.base = Some(baton.tenure.term);
        self.writer = Some(writer);
        Ok(catalog)
    }

    async fn raise(&mut self, to: Tenure) -> Result<(), StoreError> {
        if !self.try_raise(to).await? {
            return Err(StoreError::Deposed);
        }
        self.base = Some(to.term);
        self.token = Some(to.token);
        Ok(())
    }

    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        let Some(token) = self.token else { return Err(CommitError::Deposed) };
        let written = self.write(token, batch).await;
        match &written {
            Ok(()) => self.note(batch),
            Err(CommitError::Unknown { .. }) => self.writer = None, // R11: a new session raises the token first
            Err(_) => {}
        }
        written
    }

    fn reader(&self) -> PostgresReader {
        PostgresReader::new(Arc::clone(&self.store), self.pool.clone(), self.census.counts())
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits { message_bytes_max: Self::MESSAGE_BYTES_MAX }
    }

    async fn close(mut self) -> Result<(), StoreError> {
        self.writer = None;
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

    async fn holders(&self, text: &Text) -> Result<BTreeMap<Holder, Sequence>, StoreError> {
        let mark = |row: &Row| Some((holder_of(row.get(0), row.get(1))?, Sequence::from_u64(number(row.get(2)))));
        self.rows(text, mark).await
    }

    async fn rows<K: Ord, V>(
        &self,
        text: &Text,
        read: impl Fn(&Row) -> Option<(K, V)>,
    ) -> Result<BTreeMap<K, V>, StoreError> {
        let rows = self.session.query(&text.sql, &[]).await.map_err(|e| failed(&self.store.group, text.name, e))?;
        let unreadable = || StoreError::Database {
            action: text.name,
            source: "a row has a kind that is none; somebody changed it by hand".into(),
        };
        rows.iter().map(|row| read(row).ok_or_else(unreadable)).collect()
    }
}
