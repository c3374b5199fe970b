//! How much everybody held when the store was recovered (R28): counted once a term, told to whoever asks.
//!
//! Counted in one snapshot that was taken while the row of the baton was held: no batch of the term is in it, however
//! long the counting takes. It holds back the database's clean-up meanwhile.
//! On failure: what is not counted by then stays unknown in this term, and limits by count do not apply to it; a second
//! snapshot would show batches of the term.

use std::{collections::BTreeMap, error::Error, future::Future};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Purges, number};
use crate::{
    persistence::{Backlog, StoreError},
    tasks::Tasks,
    types::{Holder, Sequence},
};

/// What was counted so far.
#[derive(Debug, Default)]
struct Counts {
    /// Everybody who holds something, in order.
    holders: Option<Vec<Holder>>,
    backlogs: BTreeMap<Holder, Backlog>,
    /// Why no more is counted.
    failed: Option<String>,
}

/// Counts in a snapshot that it has taken already.
pub(in crate::persistence) trait Counting: Send + 'static {
    type Error: Error + Send;

    /// Everybody who may hold something.
    fn holders(&mut self) -> impl Future<Output = Result<Vec<Holder>, Self::Error>> + Send;

    /// How many messages of each priority a holder has behind `purged`, and their bytes.
    fn count(
        &mut self,
        holder: Holder,
        purged: Sequence,
    ) -> impl Future<Output = Result<Vec<(i16, i64, i64)>, Self::Error>> + Send;
}

/// The counting of one recovery.
#[derive(Debug)]
pub(in crate::persistence) struct Census {
    counts: watch::Sender<Counts>,
    end: CancellationToken,
}

impl Default for Census {
    fn default() -> Self {
        Self { counts: watch::Sender::new(Counts::default()), end: CancellationToken::new() }
    }
}

impl Census {
    /// Counts in a task. What is purged by now is not counted.
    pub(in crate::persistence) fn begin(&self, counting: impl Counting, purges: &Purges, tasks: &Tasks) {
        let (counts, end, purges) = (self.counts.clone(), self.end.clone(), purges.all());
        tasks.spawn("counting", async move {
            let counted = end.run_until_cancelled(count(counting, &purges, &counts)).await;
            if let Some(Err(error)) = counted {
                tracing::warn!("what was stored before can't be counted, so limits by count do not hold: {error}");
                counts.send_modify(|counts| counts.failed = Some(error.to_string()));
            }
        });
    }

    /// What is known, and will be.
    pub(in crate::persistence) fn counted(&self) -> Counted {
        Counted(self.counts.subscribe())
    }

    /// Nobody wants to know any more.
    pub(in crate::persistence) fn end(&self) {
        self.end.cancel();
    }
}

async fn count<C: Counting>(
    mut counting: C,
    purges: &BTreeMap<Holder, Sequence>,
    counts: &watch::Sender<Counts>,
) -> Result<(), C::Error> {
    let mut holders = Vec::new();
    for holder in counting.holders().await? {
        // All that is left of it may be purged already.
        let holds = match purges.get(&holder) {
            Some(purged) => !counting.count(holder, *purged).await?.is_empty(),
            None => true,
        };
        holders.extend(holds.then_some(holder));
    }
    holders.sort();
    counts.send_modify(|counts| counts.holders = Some(holders.clone()));
    for holder in holders {
        let purged = purges.get(&holder).copied().unwrap_or_default();
        let backlog = counting.count(holder, purged).await?.into_iter().fold(Backlog::default(), add);
        counts.send_modify(|counts| counts.backlogs.extend([(holder, backlog)]));
    }
    Ok(())
}

fn add(mut backlog: Backlog, (priority, messages, bytes): (i16, i64, i64)) -> Backlog {
    let index = usize::try_from(priority).unwrap_or_default();
    if let Some(of_priority) = backlog.messages.get_mut(index) {
        *of_priority += number(messages);
    }
    backlog.bytes += number(bytes);
    backlog
}

/// Waits for what is counted. Clones wait on their own.
#[derive(Clone)]
pub(in crate::persistence) struct Counted(watch::Receiver<Counts>);

impl Counted {
    /// Everybody who held something, in order.
    pub(in crate::persistence) async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        self.known(|counts| counts.holders.clone()).await
    }

    /// What a holder held.
    pub(in crate::persistence) async fn backlog(&self, holder: Holder) -> Result<Backlog, StoreError> {
        let known = |counts: &Counts| {
            let holds = counts.holders.as_ref()?.binary_search(&holder).is_ok();
            if holds { counts.backlogs.get(&holder).copied() } else { Some(Backlog::default()) }
        };
        self.known(known).await
    }

    /// Waits until something is known, or never will be.
    async fn known<T>(&self, known: impl Fn(&Counts) -> Option<T>) -> Result<T, StoreError> {
        let mut counts = self.0.clone();
        let counts = counts.wait_for(|counts| counts.failed.is_some() || known(counts).is_some()).await;
        let counts = counts.map_err(|_| StoreError::Closed)?;
        known(&counts).ok_or_else(|| StoreError::Database {
            action: "count",
            source: counts.failed.clone().unwrap_or_default().into(),
        })
    }
}
