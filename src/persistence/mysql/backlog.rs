//! How much everybody held when the store was recovered (R28): the snapshot, and what is counted in it.

use std::sync::Arc;

use mysql_async::{Error, prelude::Queryable as _};

use super::{Store, StoreError, errors::failed};
use crate::{
    db::mysql::Session,
    persistence::sql::{Counting, Text, big, holder_columns, number},
    types::{DestinationId, DurableId, Holder, Sequence},
};

/// A session whose transaction sees the store as it was when the snapshot was taken.
pub(super) struct Snapshot {
    store: Arc<Store>,
    session: Session,
}

impl Snapshot {
    /// Takes it.
    pub(super) async fn take(store: Arc<Store>) -> Result<Self, StoreError> {
        let mut session = store.mysql.connect("backlog").await?;
        let snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
                        START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
        session.query_drop(snapshot).await.map_err(|error| failed(&store.group, "snapshot", error))?;
        Ok(Self { store, session })
    }
}

impl Counting for Snapshot {
    type Error = Error;

    async fn holders(&mut self) -> Result<Vec<Holder>, Error> {
        let Self { store, session } = self;
        let queues = ids(session, &store.texts.next_queue).await?;
        let durables = ids(session, &store.texts.next_durable).await?;
        let queues = queues.into_iter().map(|id| Holder::Queue(DestinationId(number(id))));
        let durables = durables.into_iter().map(|id| Holder::Durable(DurableId(number(id))));
        Ok(queues.chain(durables).collect())
    }

    async fn count(&mut self, holder: Holder, purged: Sequence, upto: Sequence) -> Result<Vec<(i16, i64, i64)>, Error> {
        let (_, id) = holder_columns(holder);
        let (purged, upto) = (big(purged.as_u64()), big(upto.as_u64()));
        let text = match holder {
            Holder::Queue(_) => &self.store.texts.backlog_of_queue,
            Holder::Durable(_) => &self.store.texts.backlog_of_durable,
        };
        self.session.exec(text.sql.as_str(), (id, purged, upto)).await
    }
}

/// Goes from one to the next.
async fn ids(session: &mut Session, next: &Text) -> Result<Vec<i64>, Error> {
    let mut ids = Vec::new();
    while let Some(id) = session.exec_first(next.sql.as_str(), (ids.last().copied().unwrap_or(0),)).await? {
        ids.push(id);
    }
    Ok(ids)
}
