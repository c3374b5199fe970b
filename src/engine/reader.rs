//! Carries the core's reads to the store, beside the writer, and what was read back. Decides nothing.
//!
//! Always true: a bounded number of reads is under way. A read that fails or hangs is tried again, after a while and
//! behind the others; meanwhile the messages that it was to bring wait, and nothing else does.

use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    broker::{Pending, Read},
    persistence::{MessageReader, StoreError},
    types::{Backlog, DuePage, Holder, Page, Sequence},
};

/// So many reads are under way at once.
const READS_AT_ONCE_MAX: usize = 4;

/// So many reads may wait for the reader; the engine keeps the others.
pub(super) const READS_WAITING_MAX: usize = 64;

/// A read that takes longer is void: what it would bring may be too old by then (R26).
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// How long until a read that failed is tried again.
const READ_RETRY: Duration = Duration::from_secs(1);

/// A read as the engine asks for it.
#[derive(Debug)]
pub(super) struct ReadRequest {
    pub(super) read: Read,
    /// What of its messages was settled or came back and is not durable.
    pub(super) pending: HashMap<Sequence, Pending>,
}

/// What was read.
#[derive(Debug)]
pub(super) enum ReadAnswer {
    Page(ReadRequest, Page),
    Due(Read, DuePage),
    /// What a holder held before the term's first batch (R28).
    Backlog(Holder, Backlog),
}

/// Counts what `holders` hold, and serves reads until the engine ends.
pub(super) async fn run<R: MessageReader>(
    reader: R,
    holders: Vec<Holder>,
    mut requests: mpsc::Receiver<ReadRequest>,
    answers: mpsc::Sender<ReadAnswer>,
) {
    let turns = Arc::new(Semaphore::new(READS_AT_ONCE_MAX));
    let mut reads = JoinSet::new();
    reads.spawn(count(reader.clone(), holders, answers.clone()));
    while let Some(request) = requests.recv().await {
        while reads.try_join_next().is_some() {}
        reads.spawn(serve(reader.clone(), request, Arc::clone(&turns), answers.clone()));
    }
}

async fn count<R: MessageReader>(reader: R, holders: Vec<Holder>, answers: mpsc::Sender<ReadAnswer>) {
    for holder in holders {
        let backlog = again_until_done("count what is stored", || reader.backlog(holder)).await;
        if answers.send(ReadAnswer::Backlog(holder, backlog)).await.is_err() {
            return;
        }
    }
}

async fn serve<R: MessageReader>(
    reader: R,
    request: ReadRequest,
    turns: Arc<Semaphore>,
    answers: mpsc::Sender<ReadAnswer>,
) {
    let answer = match request.read {
        Read::Page { holder, priority, range, window, .. } => {
            let page = again_until_done("read messages", || async {
                let _turn = turns.acquire().await;
                reader.page(holder, priority, range, window).await
            });
            ReadAnswer::Page(request, page.await)
        }
        Read::Due { before, after, window, .. } => {
            let page = again_until_done("read what comes due", || async {
                let _turn = turns.acquire().await;
                reader.due(before, after, window).await
            });
            ReadAnswer::Due(request.read, page.await)
        }
    };
    if answers.send(answer).await.is_err() {
        tracing::debug!("the engine ended before a read");
    }
}

/// Tries until it succeeds; the engine's end ends the trying.
async fn again_until_done<T, F: Future<Output = Result<T, StoreError>>>(what: &str, attempt: impl Fn() -> F) -> T {
    loop {
        match timeout(READ_PATIENCE, attempt()).await {
            Ok(Ok(done)) => return done,
            Ok(Err(error)) => {
                tracing::error!(source = &error as &dyn Error, "cannot {what}: they wait, and it is tried again");
            }
            Err(_) => tracing::warn!("the store takes more than {} s to {what}", READ_PATIENCE.as_secs()),
        }
        sleep(READ_RETRY).await;
    }
}
