//! Reads beside the writer: on a few pooled connections, each read with a snapshot of its own on the writer's server
//! (R26).
//!
//! Always true: a read that was given up leaves its connection too, because the server may be at work on it still.

use std::{collections::HashMap, ops::Deref, sync::Arc, time::Duration};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio::sync::watch;
use tokio_postgres::{Row, types::ToSql};

use super::{
    Store, StoreError,
    backlog::Counts,
    errors::failed,
    statements::Text,
    stored::{UnreadableRow, stored},
};
use crate::{
    db::postgres::Postgres,
    persistence::{
        Backlog, DueMessage, DuePage, DueReason, MessageReader, Page, PageRange, Window,
        sql::{big, holder_columns, millis, number},
    },
    types::{DurableId, Holder, Priority, Sequence, Stored, Timestamp},
};

/// So many reads are under way at once; the engine asks for no more.
const CONNECTIONS: usize = 4;

/// How long a read waits for a connection.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(5);

/// Stands in `due.sql` for a message that expires, where else is written to whom it returns.
const EXPIRES: i64 = -1;

/// The connections for reads; clones share them.
#[derive(Clone)]
pub(super) struct ReaderPool(Pool);

impl ReaderPool {
    pub(super) fn new(postgres: &Postgres) -> Result<Self, StoreError> {
        let (config, tls) = postgres.pooled("reader");
        let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let settle_in = Hook::async_fn(|client, _| {
            Box::pin(async move { client.batch_execute(Postgres::settings()).await.map_err(HookError::Backend) })
        });
        let patience = Some(CONNECTION_PATIENCE);
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
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
    counts: watch::Receiver<Counts>,
}

impl PostgresReader {
    pub(super) fn new(store: Arc<Store>, pool: ReaderPool, counts: watch::Receiver<Counts>) -> Self {
        Self { store, pool, counts }
    }

    /// Waits until something is known, or never will be.
    async fn counted<T>(&self, known: impl Fn(&Counts) -> Option<T>) -> Result<T, StoreError> {
        let mut counts = self.counts.clone();
        let counts = counts.wait_for(|counts| counts.failed.is_some() || known(counts).is_some()).await;
        let counts = counts.map_err(|_| StoreError::Closed)?;
        known(&counts).ok_or_else(|| StoreError::Database {
            action: "count",
            source: counts.failed.clone().unwrap_or_default().into(),
        })
    }

    fn stored(&self, row: &Row) -> Result<Option<Stored>, StoreError> {
        stored(row, &self.store.purges).map_err(unreadable)
    }

    /// What comes due behind `after`, without the messages themselves.
    async fn candidates(&self, after: (Timestamp, Sequence), rows_max: i64) -> Result<Vec<Candidate>, StoreError> {
        let (at, sequence) = (millis(after.0), big(after.1.as_u64()));
        let rows = self.pool.query(&self.store, &self.store.texts.due, &[&at, &sequence, &rows_max]).await?;
        let candidate = |row: &Row| Candidate {
            at: Timestamp(number(row.get(0))),
            sequence: Sequence::from_u64(number(row.get(1))),
            durable: row.get(2),
            size: usize::try_from(row.get::<_, i32>(3)).unwrap_or_default(),
        };
        Ok(rows.iter().map(candidate).collect())
    }

    async fn messages(&self, candidates: &[Candidate]) -> Result<HashMap<Sequence, Stored>, StoreError> {
        let mut sequences: Vec<i64> = candidates.iter().map(|due| big(due.sequence.as_u64())).collect();
        sequences.sort_unstable();
        sequences.dedup();
        let rows = self.pool.query(&self.store, &self.store.texts.messages, &[&sequences]).await?;
        let stored = rows.iter().filter_map(|row| self.stored(row).transpose());
        stored.map(|stored| stored.map(|stored| (stored.sequence, stored))).collect()
    }
}

/// Something that comes due.
struct Candidate {
    at: Timestamp,
    sequence: Sequence,
    /// [`EXPIRES`], 0 for a queue, or the id of a durable subscription.
    durable: i64,
    size: usize,
}

impl Candidate {
    /// As a page brings it; `None` if it is no more what it was: it was settled, or came back again.
    fn due(&self, messages: &HashMap<Sequence, Stored>) -> Option<DueMessage> {
        let stored = messages.get(&self.sequence)?;
        let reason = match self.durable {
            EXPIRES => DueReason::Expires,
            0 => DueReason::Returns(stored.holders.iter().map(|held| held.holder).find(is_queue)?),
            id => DueReason::Returns(Holder::Durable(DurableId(number(id)))),
        };
        let stands = match reason {
            DueReason::Expires => true,
            DueReason::Returns(holder) => {
                stored.holders.iter().any(|held| held.holder == holder && held.due == Some(self.at))
            }
        };
        stands.then(|| DueMessage { at: self.at, reason, stored: stored.clone() })
    }
}

fn is_queue(holder: &Holder) -> bool {
    matches!(holder, Holder::Queue(_))
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
            match row.try_get::<_, Option<i64>>("sequence").map_err(|error| unreadable(error.into()))? {
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
        let rows_max = i64::try_from(window.messages.max(1)).unwrap_or(i64::MAX).saturating_add(2);
        let mut after = after;
        loop {
            let mut candidates = self.candidates(after, rows_max).await?;
            let (taken, next) = take_window(&candidates, before, window);
            candidates.truncate(taken);
            let messages = self.messages(&candidates).await?;
            let messages: Vec<_> = candidates.iter().filter_map(|candidate| candidate.due(&messages)).collect();
            match candidates.last() {
                // All of it is purged or settled: a page says what comes due.
                Some(last) if messages.is_empty() && next.is_some() => after = (last.at, last.sequence),
                _ => return Ok(DuePage { messages, next }),
            }
        }
    }

    async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        self.counted(|counts| counts.holders.clone()).await
    }

    async fn backlog(&self, holder: Holder) -> Result<Backlog, StoreError> {
        let known = |counts: &Counts| {
            let holds = counts.holders.as_ref()?.binary_search(&holder).is_ok();
            if holds { counts.backlogs.get(&holder).copied() } else { Some(Backlog::default()) }
        };
        self.counted(known).await
    }
}

/// How many of the candidates a page brings, and when the next one comes due.
fn take_window(candidates: &[Candidate], before: Timestamp, window: Window) -> (usize, Option<Timestamp>) {
    let (mut bytes, mut last) = (0, None);
    for (taken, candidate) in candidates.iter().enumerate() {
        let belongs_to_the_last = last == Some((candidate.at, candidate.sequence));
        let fits = belongs_to_the_last || window.has_room(taken, bytes, candidate.size);
        if candidate.at > before || !fits {
            return (taken, Some(candidate.at));
        }
        bytes += candidate.size;
        last = Some((candidate.at, candidate.sequence));
    }
    (candidates.len(), None)
}
