//! A hand on what is read of any store, pages and what comes due: it can be held on its way, and what came back into
//! memory is counted.

use std::sync::Arc;

use batonmq::{
    persistence::{
        Backlog, CommitError, DuePage, MessageReader, Page, PageRange, PersistenceAdapter, StoreError, StoreLimits,
        Window,
    },
    types::{Batch, Catalog, Holder, Priority, Sequence, Stored, Tenure, Term, Timestamp},
};
use tokio::{sync::watch, time::timeout};

use super::{
    broker::{Client, ack},
    store::PATIENCE,
};

/// A test's hand on what is read. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Pages(watch::Sender<Reading>);

#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    held: bool,
    /// A read brings so many messages at most, if that is less than it may bring.
    messages_max: Option<usize>,
    /// So many were read and have not arrived.
    under_way: usize,
    /// So many messages came back in the term that they were sent in.
    came_back: usize,
    term: Term,
}

impl Pages {
    /// A store whose pages these are.
    pub(super) fn of<A>(&self, store: A) -> Paged<A> {
        Paged { store, pages: self.clone() }
    }

    /// So that a short backlog takes many reads.
    pub(super) fn bring_at_most(&self, messages: usize) {
        self.0.send_modify(|reading| reading.messages_max = Some(messages));
    }

    /// What is read from now on does not arrive.
    pub(super) fn hold(&self) {
        self.0.send_modify(|reading| reading.held = true);
    }

    /// It arrives, as it was when it was read.
    pub(super) fn let_go(&self) {
        self.0.send_modify(|reading| reading.held = false);
    }

    /// Has a consumer acknowledge what it gets, from number `next` on, until its queue's head runs low and a page was
    /// read and has not arrived; the number that is next then.
    pub(super) async fn one_is_under_way_for(&self, consumer: &mut Client, mut next: usize) -> usize {
        let mut one = std::pin::pin!(self.until("a page to be read", |reading| reading.under_way > 0));
        loop {
            let id = next.to_string();
            let delivery = tokio::select! {
                biased;
                () = &mut one => return next,
                delivery = consumer.gets(&id) => delivery,
            };
            consumer.submit([ack(&delivery)]).await;
            next += 1;
        }
    }

    /// Waits until every page has arrived.
    pub(super) async fn none_is_under_way(&self) {
        self.until("all pages to arrive", |reading| reading.under_way == 0).await;
    }

    /// How many reads have not arrived.
    pub(super) fn under_way(&self) -> usize {
        self.0.borrow().under_way
    }

    /// How many messages left memory and came back in one term.
    pub(super) fn came_back(&self) -> usize {
        self.0.borrow().came_back
    }

    async fn until(&self, what: &str, condition: impl FnMut(&Reading) -> bool) {
        let mut reading = self.0.subscribe();
        let waited = timeout(PATIENCE, reading.wait_for(condition)).await;
        drop(waited.unwrap_or_else(|_| panic!("waited for {what}")));
    }

    fn narrow(&self, window: Window) -> Window {
        let messages_max = self.0.borrow().messages_max.unwrap_or(window.messages);
        Window { messages: window.messages.min(messages_max), ..window }
    }

    async fn carry(&self, messages: impl Iterator<Item = &Stored>) {
        let _under_way = UnderWay::begin(self);
        drop(self.0.subscribe().wait_for(|reading| !reading.held).await);
        self.0.send_modify(|reading| {
            reading.came_back += messages.filter(|stored| stored.sequence.term() == reading.term).count();
        });
    }
}

/// One page on its way, even if nobody waits for it any more before it arrives.
struct UnderWay<'a>(&'a Pages);

impl<'a> UnderWay<'a> {
    fn begin(pages: &'a Pages) -> Self {
        pages.0.send_modify(|reading| reading.under_way += 1);
        Self(pages)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|reading| reading.under_way -= 1);
    }
}

/// A store, or a reader of one.
#[derive(Clone)]
pub(super) struct Paged<A> {
    store: A,
    pages: Pages,
}

impl<A: PersistenceAdapter> PersistenceAdapter for Paged<A> {
    type Reader = Paged<A::Reader>;

    async fn recover(&mut self) -> Result<Catalog, StoreError> {
        self.store.recover().await
    }

    async fn raise(&mut self, to: Tenure) -> Result<(), StoreError> {
        self.pages.0.send_modify(|reading| reading.term = to.term);
        self.store.raise(to).await
    }

    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        self.store.try_commit(batch).await
    }

    fn reader(&self) -> Self::Reader {
        Paged { store: self.store.reader(), pages: self.pages.clone() }
    }

    fn limits(&self) -> StoreLimits {
        self.store.limits()
    }

    async fn close(self) -> Result<(), StoreError> {
        self.store.close().await
    }
}

impl<R: MessageReader> MessageReader for Paged<R> {
    async fn page(
        &self,
        holder: Holder,
        priority: Priority,
        range: PageRange,
        window: Window,
    ) -> Result<Page, StoreError> {
        let page = self.store.page(holder, priority, range, self.pages.narrow(window)).await?;
        self.pages.carry(page.messages.iter()).await;
        Ok(page)
    }

    async fn due(
        &self,
        before: Timestamp,
        after: (Timestamp, Sequence),
        window: Window,
    ) -> Result<DuePage, StoreError> {
        let page = self.store.due(before, after, self.pages.narrow(window)).await?;
        self.pages.carry(page.messages.iter().map(|due| &due.stored)).await;
        Ok(page)
    }

    async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        self.store.holders().await
    }

    async fn backlog(&self, holder: Holder) -> Result<Backlog, StoreError> {
        self.store.backlog(holder).await
    }
}
