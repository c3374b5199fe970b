//! An adapter that tells how long each commit took and how large it was; beside that it is the adapter within.

use std::sync::Arc;

use metrics::Histogram;
use tokio::time::Instant;

use super::{CommitError, PersistenceAdapter, StoreError, StoreLimits};
use crate::types::{Batch, Catalog, Tenure};

/// Where commits are recorded.
#[derive(Clone, Debug)]
pub struct CommitHistograms {
    /// How long the store took, whatever it answered. Unit: seconds.
    pub seconds: Histogram,
    /// How many operations it was given at once.
    pub operations: Histogram,
}

impl CommitHistograms {
    /// Nobody looks at them.
    #[must_use]
    pub fn unread() -> Self {
        Self { seconds: Histogram::noop(), operations: Histogram::noop() }
    }
}

/// An adapter whose commits are recorded.
#[derive(Debug)]
pub struct TimedAdapter<A> {
    adapter: A,
    histograms: CommitHistograms,
}

impl<A: PersistenceAdapter> TimedAdapter<A> {
    /// Records the commits of `adapter`.
    #[must_use]
    pub fn new(adapter: A, histograms: CommitHistograms) -> Self {
        Self { adapter, histograms }
    }
}

impl<A: PersistenceAdapter> PersistenceAdapter for TimedAdapter<A> {
    type Reader = A::Reader;

    async fn recover(&mut self) -> Result<Catalog, StoreError> {
        self.adapter.recover().await
    }

    async fn raise(&mut self, to: Tenure) -> Result<(), StoreError> {
        self.adapter.raise(to).await
    }

    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        let began = Instant::now();
        let answer = self.adapter.try_commit(batch).await;
        if !batch.ops.is_empty() {
            self.histograms.seconds.record(began.elapsed());
            self.histograms.operations.record(u32::try_from(batch.ops.len()).unwrap_or(u32::MAX));
        }
        answer
    }

    fn reader(&self) -> Self::Reader {
        self.adapter.reader()
    }

    fn limits(&self) -> StoreLimits {
        self.adapter.limits()
    }

    async fn close(self) -> Result<(), StoreError> {
        self.adapter.close().await
    }
}
