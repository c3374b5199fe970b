//! The store in MySQL or MariaDB: tables whose names begin with the group's, a row for each message.
//!
//! Owns the tables of one group while its token is the row's; `sql/mysql/` has them and every statement.
//! Always true: each transaction proves the token first and holds its row to the end, so nothing is written that a
//! take-over did not see. Rows of messages are inserted and deleted, and never updated. Reads never wait for writes.
//! On failure: whatever leaves a doubt drops the writing session; what follows is the engine's writer's business.

mod backlog;
mod errors;
mod history;
mod reader;
mod rows;
mod statements;
mod stored;
mod writer;

use std::{collections::BTreeMap, sync::Arc};

use mysql_async::prelude::{FromRow, Queryable as _};
pub use reader::MysqlReader;

use self::{
    backlog::Snapshot,
    errors::failed,
    history::History,
    reader::ReaderPool,
    statements::{Inserts, Texts},
    writer::Writer,
};
use super::{
    CommitError, PersistenceAdapter, StoreError, StoreLimits,
    sql::{ALTERED_ROW, CLOSE_PATIENCE, Census, MESSAGE_BYTES_MAX, Purges, Text, Writing, answered, holder_of, number},
};
use crate::{
    db::mysql::{Mysql, Server, Session, schema},
    tasks::Tasks,
    types::{
        Batch, Catalog, Destination, DestinationId, DestinationKind, Durable, DurableId, Group, Holder, Sequence,
        Tenure, Term,
    },
};

/// The part of a packet that a message can't have: what stands around it, and what JSON makes of its headers.
const PACKET_MARGIN: usize = 16;

/// What the parts of the adapter share.
struct Store {
    mysql: Mysql,
    group: Group,
    texts: Texts,
    inserts: Inserts,
    purges: Purges,
    history: History,
}

impl Store {
    /// Ends the session that the row names as its writer, if there is still that one and it is not `own`; whoever goes on
    /// in a term, `within`, not that of a broker that took over.
    async fn end_last_writer(&self, own: i64, within: Option<Term>) -> Result<(), StoreError> {
        let text = &self.texts.last_writer;
        let failed = |error| failed(&self.group, text.name, error);
        let mut session = self.mysql.connect("raise").await?;
        let term = within.map_or(u32::MAX, |term| term.0);
        let writer = session.exec_first::<Option<i64>, _, _>(text.sql.as_str(), (term,)).await.map_err(failed)?;
        let Some(writer) = writer.flatten().filter(|writer| *writer != own) else { return Ok(()) };
        tracing::warn!("the last writer still held the baton; its session is told to end");
        match session.query_drop(format!("KILL {writer}")).await {
            Err(mysql_async::Error::Server(error)) if error.code == 1094 => Ok(()), // it ended by itself
            killed => killed.map_err(failed),
        }
    }
}

/// Keeps a group's messages in MySQL or MariaDB.
pub struct MysqlAdapter {
    store: Arc<Store>,
    tasks: Tasks,
    writing: Writing<Writer>,
    pool: ReaderPool,
    census: Census,
    /// What the server takes, once it is known. Unit: bytes.
    message_bytes_max: usize,
}

impl MysqlAdapter {
    /// An adapter for `group` in a database; nothing is connected yet.
    #[must_use]
    pub fn new(mysql: Mysql, group: Group) -> Self {
        let texts = Texts::new(&group);
        let (inserts, purges) = (Inserts::new(&texts.insert), Purges::default());
        let store = Arc::new(Store { mysql, group, texts, inserts, purges, history: History::default() });
        let (writing, census) = (Writing::new(store.purges.clone()), Census::default());
        let (pool, message_bytes_max) = (ReaderPool::new(), MESSAGE_BYTES_MAX);
        Self { store, tasks: Tasks::new(), writing, pool, census, message_bytes_max }
    }

    /// Makes the tables if they are missing, or brings them up to date, and looks at what was there: only the master
    /// gets here.
    async fn migrate(&self, session: &mut Session) -> Result<(), StoreError> {
        for version in schema::migrate(&self.store.mysql, session, &self.store.group).await? {
            tracing::info!("the tables of group {} were brought to version {version}", self.store.group);
        }
        Ok(schema::check(session, &self.store.group).await?)
    }

    fn heed(&mut self, server: &Server) {
        for warning in server.warnings() {
            tracing::warn!("{warning}");
        }
        let packet = server.packet_bytes_max();
        self.message_bytes_max = MESSAGE_BYTES_MAX.min(packet - packet / PACKET_MARGIN);
    }
}

impl PersistenceAdapter for MysqlAdapter {
    type Reader = MysqlReader;

    /// Leaves a transaction open that holds the row of the baton until [`Self::raise`]: nothing changes between what is
    /// read here and the first batch of the term.
    async fn recover(&mut self) -> Result<Catalog, StoreError> {
        let connecting = async { Ok(self.store.mysql.connect("writer").await?) };
        let mut session = answered("open a session that writes", connecting).await?;
        self.heed(session.server());
        answered("look at the tables", self.migrate(&mut session)).await?;
        let mut writer =
            answered("open a session that writes", Writer::prepare(Arc::clone(&self.store), session)).await?;
        let baton = answered("hold the baton", writer.recover_baton()).await?;
        let mut read = CatalogReads { store: &self.store, session: writer.session() };
        let catalog = Catalog {
            tenure: baton.tenure,
            destinations: read.destinations().await?,
            durables: read.durables().await?,
            marks: read.holders(&self.store.texts.marks).await?,
            last_destination: baton.last_destination,
            last_durable: baton.last_durable,
        };
        self.store.purges.replace(read.holders(&self.store.texts.purged).await?);
        let snapshot = answered("begin to count", Snapshot::take(Arc::clone(&self.store))).await?;
        self.census.begin(snapshot, &self.store.purges, &self.tasks);
        self.writing.begin(writer, baton.tenure.term);
        Ok(catalog)
    }

    async fn raise(&mut self, to: Tenure) -> Result<(), StoreError> {
        self.census.begin_term(to.term);
        self.writing.raise(to, Writer::open(Arc::clone(&self.store))).await
    }

    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        self.writing.try_commit(batch).await?;
        let snapshot = Snapshot::take(Arc::clone(&self.store));
        self.census.after(batch, snapshot, &self.store.purges, &self.tasks).await;
        Ok(())
    }

    fn reader(&self) -> MysqlReader {
        MysqlReader::new(Arc::clone(&self.store), self.pool.clone(), self.census.counted())
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits { message_bytes_max: self.message_bytes_max }
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
impl Drop for MysqlAdapter {
    fn drop(&mut self) {
        self.tasks.abort();
        self.pool.close();
    }
}

/// Reads what a term starts from, under the lock of the baton.
struct CatalogReads<'a> {
    store: &'a Store,
    session: &'a mut Session,
}

impl CatalogReads<'_> {
    async fn destinations(&mut self) -> Result<BTreeMap<DestinationId, Destination>, StoreError> {
        let destination = |(id, kind, name): (i64, String, String)| {
            let kind = DestinationKind::from_scheme(&kind)?;
            Some((DestinationId(number(id)), Destination::new(kind, &name)))
        };
        self.rows(&self.store.texts.destinations, destination).await
    }

    async fn durables(&mut self) -> Result<BTreeMap<DurableId, Durable>, StoreError> {
        let durable = |(id, client_id, name, topic): (i64, String, String, i64)| {
            let (client_id, name) = (client_id.as_str().into(), name.as_str().into());
            Some((DurableId(number(id)), Durable { client_id, name, topic: DestinationId(number(topic)) }))
        };
        self.rows(&self.store.texts.durables, durable).await
    }

    async fn holders(&mut self, text: &Text) -> Result<BTreeMap<Holder, Sequence>, StoreError> {
        let mark = |(kind, holder, upto): (String, i64, i64)| {
            Some((holder_of(&kind, holder)?, Sequence::from_u64(number(upto))))
        };
        self.rows(text, mark).await
    }

    async fn rows<R: FromRow + Send + 'static, K: Ord, V>(
        &mut self,
        text: &Text,
        read: impl Fn(R) -> Option<(K, V)>,
    ) -> Result<BTreeMap<K, V>, StoreError> {
        let failed = |error| failed(&self.store.group, text.name, error);
        let query = async { self.session.query(text.sql.as_str()).await.map_err(failed) };
        let rows = answered("read what a term begins with", query).await?;
        let unreadable = || StoreError::Database { action: text.name, source: ALTERED_ROW.into() };
        rows.into_iter().map(|row| read(row).ok_or_else(unreadable)).collect()
    }
}
