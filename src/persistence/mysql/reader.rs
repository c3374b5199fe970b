//! Reads beside the writer: on a few connections of their own, each statement with a snapshot of its own on the
//! writer's server (R26).
//!
//! Always true: a read that was given up takes its connection with it, because the server may be at work on it still.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mysql_async::{Params, Row, params, prelude::Queryable as _};
use tokio::{sync::Semaphore, time::timeout};

use super::{Store, StoreError, errors::failed, rows::json, stored::stored};
use crate::{
    db::mysql::{Session, is_lost},
    persistence::{
        Backlog, DuePage, MessageReader, Page, PageRange, Window,
        sql::{
            Candidate, Counted, DueReads, READ_CONNECTIONS, READ_PATIENCE, Text, UnreadableRow, big, due,
            holder_columns, number,
        },
    },
    types::{Holder, Priority, Sequence, Stored, Timestamp},
};

/// The connections for reads; clones share them.
#[derive(Clone)]
pub(super) struct ReaderPool(Arc<Connections>);

struct Connections {
    /// One for each read that may be under way.
    permits: Semaphore,
    idle: Mutex<Vec<Session>>,
}

impl ReaderPool {
    pub(super) fn new() -> Self {
        Self(Arc::new(Connections { permits: Semaphore::new(READ_CONNECTIONS), idle: Mutex::default() }))
    }

    /// Whoever waits for a connection gets an error.
    pub(super) fn close(&self) {
        self.0.permits.close();
        self.idle().clear();
    }

    async fn query(&self, store: &Store, text: &Text, with: impl Into<Params>) -> Result<Vec<Row>, StoreError> {
        let late = |late| StoreError::Database { action: text.name, source: Box::new(late) };
        let permit = timeout(READ_PATIENCE, self.0.permits.acquire()).await.map_err(late)?;
        let _permit = permit.map_err(|_| StoreError::Closed)?;
        let with = with.into();
        loop {
            let idle = self.idle().pop();
            let was_idle = idle.is_some();
            let mut session = match idle {
                Some(session) => session,
                None => store.mysql.connect("reader").await?,
            };
            match session.exec(text.sql.as_str(), with.clone()).await {
                Ok(rows) => {
                    self.give_back(session);
                    return Ok(rows);
                }
                Err(error) if was_idle && is_lost(&error) => {} // it ended while nobody looked; others may have too
                Err(error) => return Err(failed(&store.group, text.name, error)),
            }
        }
    }

    fn give_back(&self, session: Session) {
        if !self.0.permits.is_closed() {
            self.idle().push(session);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a group's messages.
#[derive(Clone)]
pub struct MysqlReader {
    store: Arc<Store>,
    pool: ReaderPool,
    counted: Counted,
}

impl MysqlReader {
    pub(super) fn new(store: Arc<Store>, pool: ReaderPool, counted: Counted) -> Self {
        Self { store, pool, counted }
    }

    /// Where a window of messages lies, and whether it is all there is.
    async fn places(
        &self,
        holder: Holder,
        priority: Priority,
        PageRange { after, upto }: PageRange,
        window: Window,
    ) -> Result<(Vec<Sequence>, bool), StoreError> {
        let (_, id) = holder_columns(holder);
        let text = match holder {
            Holder::Queue(_) => &self.store.texts.page_of_queue,
            Holder::Durable(_) => &self.store.texts.page_of_durable,
        };
        let rows_max = window.messages.max(1).saturating_add(1);
        let (after, upto) = (big(after.as_u64()), big(upto.as_u64()));
        let rows = self.pool.query(&self.store, text, (id, priority.level(), after, upto, rows_max)).await?;
        let (mut places, mut bytes) = (Vec::with_capacity(rows.len()), 0);
        for row in rows {
            let (sequence, size) = columns::<(i64, i32)>(row)?;
            let size = usize::try_from(size).unwrap_or_default();
            if !window.has_room(places.len(), bytes, size) {
                return Ok((places, false));
            }
            places.push(Sequence::from_u64(number(sequence)));
            bytes += size;
        }
        Ok((places, true))
    }
}

fn columns<T: mysql_async::prelude::FromRow>(row: Row) -> Result<T, StoreError> {
    mysql_async::from_row_opt(row).map_err(|error| unreadable(UnreadableRow::Type(error.into())))
}

fn unreadable(error: UnreadableRow) -> StoreError {
    StoreError::Database { action: "read messages", source: error.into() }
}

impl DueReads for MysqlReader {
    async fn candidates(&self, (at, after): (i64, Sequence), rows_max: i64) -> Result<Vec<Candidate>, StoreError> {
        let with = params! { "at" => at, "sequence" => big(after.as_u64()), "rows_max" => rows_max };
        let rows = self.pool.query(&self.store, &self.store.texts.due, with).await?;
        rows.into_iter().map(|row| Ok(Candidate::of_row(columns(row)?))).collect()
    }

    async fn messages(&self, sequences: Vec<Sequence>) -> Result<HashMap<Sequence, Stored>, StoreError> {
        if sequences.is_empty() {
            return Ok(HashMap::new());
        }
        let sequences: Vec<i64> = sequences.into_iter().map(|sequence| big(sequence.as_u64())).collect();
        let rows = self.pool.query(&self.store, &self.store.texts.messages, (json(&sequences),)).await?;
        let stored = rows.into_iter().filter_map(|row| stored(row, &self.store.purges).transpose());
        stored.map(|stored| stored.map(|stored| (stored.sequence, stored)).map_err(unreadable)).collect()
    }
}

impl MessageReader for MysqlReader {
    /// First the places, then the messages: what is settled between is left out, and remembered by the caller (R26).
    async fn page(
        &self,
        holder: Holder,
        priority: Priority,
        mut range: PageRange,
        window: Window,
    ) -> Result<Page, StoreError> {
        range.after = range.after.max(self.store.purges.of(holder));
        loop {
            let (places, complete) = self.places(holder, priority, range, window).await?;
            let mut messages = self.messages(places.clone()).await?;
            let messages: Vec<_> = places.iter().filter_map(|sequence| messages.remove(sequence)).collect();
            match places.last() {
                Some(&last) if messages.is_empty() && !complete => range.after = last,
                _ => return Ok(Page { messages, complete }),
            }
        }
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
