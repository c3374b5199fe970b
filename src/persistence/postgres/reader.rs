//! Reads beside the writer: on a few pooled connections, each read with a snapshot of its own on the writer's server
//! (R26).
//!
//! Always true: a read that was given up leaves its connection too, because the server may be at work on it still.

use std::{collections::HashMap, future::Future, ops::Deref, pin::Pin, sync::Arc};

use deadpool_postgres::{
    Connect, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts,
};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, Row, types::ToSql};

use super::{Store, StoreError, errors::failed, stored::stored};
use crate::{
    db::postgres::Postgres,
    persistence::{
        Backlog, DuePage, MessageReader, Page, PageRange, Window,
        sql::{
            Candidate, Counted, DueReads, READ_CONNECTIONS, READ_PATIENCE, Text, UnreadableRow, big, due,
            holder_columns,
        },
    },
    types::{Holder, Priority, Sequence, Stored, Timestamp},
};

/// The connections for reads; clones share them.
#[derive(Clone)]
pub(super) struct ReaderPool(Pool);

impl ReaderPool {
    pub(super) fn new(postgres: &Postgres) -> Result<Self, StoreError> {
        let (config, _) = postgres.pooled("reader");
        let recycling_method = RecyclingMethod::Fast;
        let manager =
            Manager::from_connect(config, BesideTheWriter(postgres.clone()), ManagerConfig { recycling_method });
        let settle_in = Hook::async_fn(|client, _| {
            Box::pin(async move { client.batch_execute(Postgres::settings()).await.map_err(HookError::Backend) })
        });
        let patience = Some(READ_PATIENCE);
        let pool = Pool::builder(manager)
            .max_size(READ_CONNECTIONS)
            .timeouts(Timeouts { wait: patience, create: patience, recycle: patience })
            .post_create(settle_in)
            .runtime(Runtime::Tokio1)
            .build();
        let pool = pool.map_err(|error| StoreError::Database { action: "set up reads", source: error.into() })?;
        Ok(Self(pool))
    }

    pub(super) fn close(&self) {
        self.0.close();
    }

    async fn query(&self, store: &Store, text: &Text, with: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let connection = self.0.get().await;
        let connection =
            connection.map_err(|error| StoreError::Database { action: text.name, source: error.into() })?;
        let connection = Lent(Some(connection));
        let failed = |error| failed(&store.group, text.name, error);
        let statement = connection.prepare_cached(&text.sql).await.map_err(failed)?;
        let rows = connection.query(&statement, with).await.map_err(failed)?;
        connection.give_back();
        Ok(rows)
    }
}

/// Connects to the host of the last session, which is the writer's (R26).
struct BesideTheWriter(Postgres);

impl Connect for BesideTheWriter {
    fn connect(&self, _: &Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        let (config, tls) = self.0.pooled("reader");
        Box::pin(async move {
            let (client, connection) = config.connect(tls).await?;
            #[expect(clippy::disallowed_methods, reason = "the pool wants the handle, and ends it with the connection")]
            let driver = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!("a connection for reads ended: {error}");
                }
            });
            Ok((client, driver))
        })
    }
}

type Connected = Result<(Client, JoinHandle<()>), Error>;

/// A connection that goes back to the pool only when what was asked was answered.
struct Lent(Option<Object>);

impl Lent {
    fn give_back(mut self) {
        self.0 = None;
    }
}

impl Deref for Lent {
    type Target = Object;

    fn deref(&self) -> &Object {
        self.0.as_ref().expect("it is given back by value")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.take().map(Object::take);
    }
}

/// Reads a group's messages.
#[derive(Clone)]
pub struct PostgresReader {
    store: Arc<Store>,
    pool: ReaderPool,
    counted: Counted,
}

impl PostgresReader {
    pub(super) fn new(store: Arc<Store>, pool: ReaderPool, counted: Counted) -> Self {
        Self { store, pool, counted }
    }

    fn stored(&self, row: &Row) -> Result<Option<Stored>, StoreError> {
        stored(row, &self.store.purges).map_err(unreadable)
    }
}

impl DueReads for PostgresReader {
    async fn candidates(&self, (at, after): (i64, Sequence), rows_max: i64) -> Result<Vec<Candidate>, StoreError> {
        let after = big(after.as_u64());
        let rows = self.pool.query(&self.store, &self.store.texts.due, &[&at, &after, &rows_max]).await?;
        let row = |row: &Row| Candidate::of_row((row.get(0), row.get(1), row.get(2), row.get(3)));
        Ok(rows.iter().map(row).collect())
    }

    async fn messages(&self, sequences: Vec<Sequence>) -> Result<HashMap<Sequence, Stored>, StoreError> {
        let sequences: Vec<i64> = sequences.into_iter().map(|sequence| big(sequence.as_u64())).collect();
        let rows = self.pool.query(&self.store, &self.store.texts.messages, &[&sequences]).await?;
        let stored = rows.iter().filter_map(|row| self.stored(row).transpose());
        stored.map(|stored| stored.map(|stored| (stored.sequence, stored))).collect()
    }
}

fn unreadable(error: UnreadableRow) -> StoreError {
    StoreError::Database { action: "read messages", source: error.into() }
}

impl MessageReader for PostgresReader {
    async fn page(
        &self,
        holder: Holder,
        priority: Priority,
        PageRange { after, upto }: PageRange,
        window: Window,
    ) -> Result<Page, StoreError> {
        let (_, id) = holder_columns(holder);
        let text = match holder {
            Holder::Queue(_) => &self.store.texts.page_of_queue,
            Holder::Durable(_) => &self.store.texts.page_of_durable,
        };
        let after = big(after.max(self.store.purges.of(holder)).as_u64());
        let messages = i64::try_from(window.messages.max(1)).unwrap_or(i64::MAX - 1);
        let bytes = i64::try_from(window.bytes).unwrap_or(i64::MAX);
        let level = i16::from(priority.level());
        let parameters: [&(dyn ToSql + Sync); 6] = [&id, &level, &after, &big(upto.as_u64()), &messages, &bytes];
        let rows = self.pool.query(&self.store, text, &parameters).await?;
        let mut page = Page { complete: true, ..Page::default() };
        for row in rows {
            match row
                .try_get::<_, Option<i64>>("sequence")
                .map_err(|error| unreadable(UnreadableRow::Type(error.into())))?
            {
                Some(_) => page.messages.extend(self.stored(&row)?),
                None => page.complete = false,
            }
        }
        Ok(page)
    }

    async fn due(
        &self,
        before: Timestamp,
        after: (Timestamp, Sequence),
        window: Window,
    ) -> Result<DuePage, StoreError> {
        due(self, before, after, window).await
    }

    async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        self.counted.holders().await
    }

    async fn backlog(&self, holder: Holder) -> Result<Backlog, StoreError> {
        self.counted.backlog(holder).await
    }
}
