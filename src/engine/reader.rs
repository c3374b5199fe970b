//! Carries the core's reads to the store, beside the writer, and what was read back. Decides nothing.
//!
//! Always true: a bounded number of reads is under way. A read that fails or hangs is tried again, after a while and
//! behind the others; meanwhile the messages that it was to bring wait, and nothing else does.

use std::{
    collections::{BTreeSet, HashMap},
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    broker::{Pending, Read},
    persistence::{MessageReader, StoreError},
    types::{Backlog, DuePage, Holder, Page, PageRange, Priority, Sequence, Window},
};

/// So many reads are under way at once.
const READS_AT_ONCE_MAX: usize = 4;

/// So many more are under way for browsers, so that nobody else waits for their turns.
const BROWSE_READS_AT_ONCE_MAX: usize = 2;

/// So many reads may wait for the reader; the engine keeps the others.
pub(super) const READS_WAITING_MAX: usize = 64;

/// A read that takes longer is void: what it would bring may be too old by then (R26).
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// One failure of a read in so many is told in the log.
const TOLD_EVERY: u64 = 60;

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

/// Where messages are read.
#[derive(Clone, Debug)]
pub(super) struct Readers<R, S> {
    pub(super) store: R,
    pub(super) spool: S,
}

/// Counts what `holders` hold, and serves reads until the engine ends.
pub(super) async fn run<R: MessageReader, S: MessageReader>(
    readers: Readers<R, S>,
    holders: Vec<Holder>,
    mut requests: mpsc::Receiver<ReadRequest>,
    answers: mpsc::Sender<ReadAnswer>,
) {
    let tries = Tries { turns: Arc::new(Semaphore::new(READS_AT_ONCE_MAX)), outage: Outage::default() };
    let browse_tries = Tries { turns: Arc::new(Semaphore::new(BROWSE_READS_AT_ONCE_MAX)), ..tries.clone() };
    let mut reads = JoinSet::new();
    reads.spawn(count(readers.store.clone(), holders, tries.clone(), answers.clone()));
    while let Some(request) = requests.recv().await {
        while reads.try_join_next().is_some() {}
        let tries = if matches!(request.read, Read::Browse { .. }) { &browse_tries } else { &tries };
        reads.spawn(serve(readers.clone(), request, tries.clone(), answers.clone()));
    }
}

/// Those whom the catalog knows, and whoever else holds something.
async fn count<R: MessageReader>(reader: R, known: Vec<Holder>, tries: Tries, answers: mpsc::Sender<ReadAnswer>) {
    let holding: BTreeSet<Holder> =
        tries.until_done("find who holds something", || reader.holders()).await.into_iter().collect();
    for holder in holding.iter().copied().chain(known.into_iter().filter(|holder| !holding.contains(holder))) {
        let backlog = match holding.contains(&holder) {
            true => tries.until_done("count what is stored", || reader.backlog(holder)).await,
            false => Backlog::default(),
        };
        if answers.send(ReadAnswer::Backlog(holder, backlog)).await.is_err() {
            return;
        }
    }
}

async fn serve<R: MessageReader, S: MessageReader>(
    readers: Readers<R, S>,
    request: ReadRequest,
    tries: Tries,
    answers: mpsc::Sender<ReadAnswer>,
) {
    let answer = match request.read {
        Read::Page { stored, spooled, priority, range, window, .. }
        | Read::Browse { stored, spooled, priority, range, window, .. } => {
            let page = tries.until_done("read messages", || async {
                let stored = page(&readers.store, stored, priority, range, window).await?;
                let spooled = page(&readers.spool, spooled, priority, range, window).await?;
                Ok(merge(stored, spooled))
            });
            ReadAnswer::Page(request, page.await)
        }
        Read::Due { before, after, window, .. } => {
            let page =
                tries.until_done("read what comes due", || async { readers.store.due(before, after, window).await });
            ReadAnswer::Due(request.read, page.await)
        }
    };
    if answers.send(answer).await.is_err() {
        tracing::debug!("the engine ended before a read");
    }
}

async fn page<R: MessageReader>(
    reader: &R,
    holder: Option<Holder>,
    priority: Priority,
    range: PageRange,
    window: Window,
) -> Result<Page, StoreError> {
    match holder {
        Some(holder) => reader.page(holder, priority, range, window).await,
        None => Ok(Page { messages: Vec::new(), complete: true }),
    }
}

/// One page of two, as far as both go.
fn merge(stored: Page, spooled: Page) -> Page {
    let end = |page: &Page| page.messages.last().filter(|_| !page.complete).map(|last| last.sequence);
    let upto = end(&stored).into_iter().chain(end(&spooled)).min();
    let complete = upto.is_none();
    let mut messages = stored.messages;
    if !spooled.messages.is_empty() {
        messages.extend(spooled.messages);
        messages.sort_by_key(|stored| stored.sequence);
    }
    messages.retain(|stored| upto.is_none_or(|upto| stored.sequence <= upto));
    Page { messages, complete }
}

/// What reads share.
#[derive(Clone, Debug)]
struct Tries {
    turns: Arc<Semaphore>,
    outage: Outage,
}

impl Tries {
    /// Tries until it succeeds; the engine's end ends the trying.
    async fn until_done<T, F: Future<Output = Result<T, StoreError>>>(&self, what: &str, attempt: impl Fn() -> F) -> T {
        for tries in 0_u64.. {
            let told = tries % TOLD_EVERY == 0;
            let turn = self.turns.acquire().await; // waiting for it makes nothing old
            let answer = timeout(READ_PATIENCE, attempt()).await;
            drop(turn);
            match answer {
                Ok(Ok(done)) => {
                    if self.outage.ends() {
                        tracing::info!("the store can be read again");
                    }
                    return done;
                }
                Ok(Err(_)) | Err(_) if !told => {}
                Ok(Err(error)) if error.is_outage() => {
                    if self.outage.begins() {
                        let error = &error as &dyn Error;
                        tracing::warn!(source = error, "cannot {what}; reads wait until the store can be read again");
                    }
                }
                Ok(Err(error)) => {
                    let error = &error as &dyn Error;
                    tracing::error!(source = error, "cannot {what}: they wait, and it is tried again");
                }
                Err(_) => tracing::warn!("the store takes more than {} s to {what}", READ_PATIENCE.as_secs()),
            }
            sleep(READ_RETRY).await;
        }
        unreachable!("it is tried for ever")
    }
}

/// Whether the store can't be read at the moment: to be told once, however many reads wait for its end. Clones share it.
#[derive(Clone, Debug, Default)]
struct Outage(Arc<AtomicBool>);

impl Outage {
    /// Whether nobody knew of it.
    fn begins(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    /// Whether there was one.
    fn ends(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::{DestinationId, Message, MessageDraft, Stored, Term};

    fn page(counters: &[u64], complete: bool) -> Page {
        let stored = |counter: &u64| Stored {
            sequence: Sequence::new(Term(1), *counter),
            destination: DestinationId(1),
            holders: smallvec::smallvec![],
            message: Arc::new(Message::new(MessageDraft::default())),
        };
        Page { messages: counters.iter().map(stored).collect(), complete }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_one_for_all_reads_and_ends_with_the_first_that_succeeds() {
        let tries = Tries { turns: Arc::new(Semaphore::new(1)), outage: Outage::default() };
        let is_away = AtomicBool::new(true);
        let read = || async {
            match is_away.load(Ordering::Relaxed) {
                true => Err(StoreError::Database { action: "due", source: "gone".into() }),
                false => Ok(()),
            }
        };
        let back = async {
            sleep(READ_RETRY / 2).await;
            assert!(!tries.outage.begins(), "it has begun");
            is_away.store(false, Ordering::Relaxed);
        };
        tokio::join!(tries.until_done("read", read), tries.until_done("read", read), back);
        assert!(!tries.outage.ends() && tries.outage.begins(), "it has ended");
    }

    #[test]
    fn r32_what_store_and_spool_hold_is_merged_as_far_as_both_were_read() {
        for (stored, spooled, expected) in [
            (page(&[1, 4], true), page(&[2, 3], true), page(&[1, 2, 3, 4], true)),
            (page(&[1, 4], false), page(&[2, 6], true), page(&[1, 2, 4], false)),
            (page(&[5, 6], true), page(&[2, 3], false), page(&[2, 3], false)),
            (page(&[], true), page(&[2], false), page(&[2], false)),
        ] {
            assert_eq!(merge(stored, spooled), expected);
        }
    }
}
