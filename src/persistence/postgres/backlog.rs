//! How much everybody held when the store was recovered (R28).
//!
//! Counted on a session of its own, in one snapshot that was taken while the row of the baton was held: no batch of the
//! term is in it, however long the counting takes. It holds back the database's clean-up meanwhile, once a term.
//! On failure: what is not counted by then stays unknown in this term, and limits by count do not apply to it; a second
//! snapshot would show batches of the term.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;
use tokio_postgres::{Error, Row};
use tokio_util::sync::CancellationToken;

use super::{Store, StoreError, errors::failed};
use crate::{
    db::postgres::Session,
    persistence::{
        Backlog,
        sql::{big, holder_columns, holder_of, number},
    },
    tasks::Tasks,
    types::{Holder, Sequence},
};

/// What was counted so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Everybody who holds something, in order.
    pub(super) holders: Option<Vec<Holder>>,
    pub(super) backlogs: BTreeMap<Holder, Backlog>,
    /// Why no more is counted.
    pub(super) failed: Option<String>,
}

/// The counting of one recovery.
#[derive(Debug)]
pub(super) struct Census {
    counts: watch::Sender<Counts>,
    end: CancellationToken,
}

impl Default for Census {
    fn default() -> Self {
        Self { counts: watch::Sender::new(Counts::default()), end: CancellationToken::new() }
    }
}

impl Census {
    /// Takes the snapshot, then counts in a task.
    pub(super) async fn begin(
        &self,
        store: Arc<Store>,
        purges: BTreeMap<Holder, Sequence>,
        tasks: &Tasks,
    ) -> Result<(), StoreError> {
        let session = store.session("backlog", tasks).await?;
        let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_current_snapshot()";
        session.batch_execute(snapshot).await.map_err(|error| failed(&store.group, "snapshot", error))?;
        let (counts, end) = (self.counts.clone(), self.end.clone());
        tasks.spawn("counting", async move {
            let counting = Counting { store: &store, session: &session, purges };
            let counted = end.run_until_cancelled(counting.run(&counts)).await;
            if let Some(Err(error)) = counted {
                tracing::warn!("what was stored before can't be counted, so limits by count do not hold: {error}");
                counts.send_modify(|counts| counts.failed = Some(error.to_string()));
            }
        });
        Ok(())
    }

    /// What is known, and will be.
    pub(super) fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    /// Nobody wants to know any more.
    pub(super) fn end(&self) {
        self.end.cancel();
    }
}

/// What the counting needs, as of the recovery.
struct Counting<'a> {
    store: &'a Store,
    session: &'a Session,
    purges: BTreeMap<Holder, Sequence>,
}

impl Counting<'_> {
    async fn run(&self, counts: &watch::Sender<Counts>) -> Result<(), Error> {
        let rows = self.session.query(&self.store.texts.holders.sql, &[]).await?;
        let mut holders = Vec::with_capacity(rows.len());
        for holder in rows.iter().filter_map(|row| holder_of(row.get(0), row.get(1))) {
            // All that is left of it may be purged already.
            if !self.purges.contains_key(&holder) || self.count(holder).await? != Backlog::default() {
                holders.push(holder);
            }
        }
        holders.sort();
        counts.send_modify(|counts| counts.holders = Some(holders.clone()));
        for holder in holders {
            let backlog = self.count(holder).await?;
            counts.send_modify(|counts| counts.backlogs.extend([(holder, backlog)]));
        }
        self.session.batch_execute("COMMIT").await
    }

    async fn count(&self, holder: Holder) -> Result<Backlog, Error> {
        let (_, id) = holder_columns(holder);
        let purged = self.purges.get(&holder).copied().unwrap_or_default();
        let text = match holder {
            Holder::Queue(_) => &self.store.texts.backlog_of_queue,
            Holder::Durable(_) => &self.store.texts.backlog_of_durable,
        };
        let rows = self.session.query(&text.sql, &[&id, &big(purged.as_u64())]).await?;
        Ok(rows.iter().fold(Backlog::default(), add))
    }
}

fn add(mut backlog: Backlog, row: &Row) -> Backlog {
    let index = usize::try_from(row.get::<_, i16>(0)).unwrap_or_default();
    if let Some(messages) = backlog.messages.get_mut(index) {
        *messages += number(row.get(1));
    }
    backlog.bytes += number(row.get(2));
    backlog
}
