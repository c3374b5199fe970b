//! How much everybody held when the store was recovered (R28): the snapshot, and what is counted in it.

use std::sync::Arc;

use tokio_postgres::{Error, Row};

use super::{Store, StoreError, errors::failed};
use crate::{
    db::postgres::Session,
    persistence::sql::{Counting, big, holder_columns, holder_of},
    tasks::Tasks,
    types::{Holder, Sequence},
};

/// A session whose transaction sees the store as it was when the snapshot was taken.
pub(super) struct Snapshot {
    store: Arc<Store>,
    session: Session,
}

impl Snapshot {
    /// Takes it.
    pub(super) async fn take(store: Arc<Store>, tasks: &Tasks) -> Result<Self, StoreError> {
        let session = store.session("backlog", tasks).await?;
        let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_current_snapshot()";
        session.batch_execute(snapshot).await.map_err(|error| failed(&store.group, "snapshot", error))?;
        Ok(Self { store, session })
    }
}

impl Counting for Snapshot {
    type Error = Error;

    async fn holders(&mut self) -> Result<Vec<Holder>, Error> {
        let rows = self.session.query(&self.store.texts.holders.sql, &[]).await?;
        Ok(rows.iter().filter_map(|row| holder_of(row.get(0), row.get(1))).collect())
    }

    async fn count(&mut self, holder: Holder, purged: Sequence, upto: Sequence) -> Result<Vec<(i16, i64, i64)>, Error> {
        let (_, id) = holder_columns(holder);
        let (purged, upto) = (big(purged.as_u64()), big(upto.as_u64()));
        let text = match holder {
            Holder::Queue(_) => &self.store.texts.backlog_of_queue,
            Holder::Durable(_) => &self.store.texts.backlog_of_durable,
        };
        let rows = self.session.query(&text.sql, &[&id, &purged, &upto]).await?;
        Ok(rows.iter().map(|row: &Row| (row.get(0), row.get(1), row.get(2))).collect())
    }
}
