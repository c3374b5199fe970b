//! How sessions reach the engine: a bounded inbox, and for each session a link with a budget of bytes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use smallvec::SmallVec;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{Overview, outbox::Outbox};
use crate::{
    broker::Request,
    types::{Charge, ConsumerNo, DeliveryTag, Destination, Meter, SessionId},
};

/// What one session may have sent and the engine not taken. Unit: bytes. One frame that is larger may pass alone.
pub const SESSION_BUDGET_BYTES_MAX: usize = 16 << 20;

/// How many messages from sessions may wait for the engine; a session that finds no room waits.
pub(super) const INBOX_MAX: usize = 4_096;

/// What reaches the engine from sessions.
#[derive(Debug)]
pub(super) enum Inbound {
    /// A session begins.
    Opened { session: SessionId, outbox: Arc<Outbox>, budget: Arc<Budget> },
    /// What one read of the socket brought; it counts until it is taken in (R31).
    Requests { session: SessionId, requests: Vec<Request>, charge: Charge },
    /// What one write of the socket took.
    Written { session: SessionId, written: Written },
    /// Whether the session has something that its next frames may give back.
    HoldsMessages { session: SessionId, answer: oneshot::Sender<bool> },
    /// How things are.
    Overview { answer: oneshot::Sender<Box<Overview>> },
    /// The connection is gone.
    Closed { session: SessionId },
    /// What waits in a queue is to go.
    Purge { destination: Destination, answer: oneshot::Sender<Option<usize>> },
}

/// What one write put into the kernel.
#[derive(Debug, Default)]
pub struct Written {
    /// The last delivery of each consumer that was in it.
    pub last: SmallVec<[(ConsumerNo, DeliveryTag); 2]>,
    /// The sum of `Message::size` over its deliveries. Unit: bytes.
    pub bytes: usize,
}

/// The engine is gone: this term is over.
#[derive(Debug, thiserror::Error)]
#[error("the broker stops")]
pub struct EngineGone;

/// The door to one term's engine. Clones share it.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    inbox: mpsc::Sender<Inbound>,
    next_session: Arc<AtomicU64>,
    meter: Meter,
}

impl EngineHandle {
    pub(super) fn new(inbox: mpsc::Sender<Inbound>, meter: Meter) -> Self {
        Self { inbox, next_session: Arc::new(AtomicU64::new(1)), meter }
    }

    /// Begins a session.
    ///
    /// # Errors
    /// [`EngineGone`] when the term is over: close the connection.
    pub async fn open_session(&self) -> Result<SessionLink, EngineGone> {
        let id = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let (outbox, budget) = (Arc::new(Outbox::default()), Arc::new(Budget::default()));
        let opened = Inbound::Opened { session: id, outbox: outbox.clone(), budget: budget.clone() };
        self.inbox.send(opened).await.map_err(|_| EngineGone)?;
        Ok(SessionLink { id, outbox, budget, inbox: self.inbox.clone(), meter: self.meter.clone() })
    }

    /// Removes what waits in a queue, and answers when that is durable: how many messages it was, without what the store
    /// had at the start of the term and is not counted yet. `None`: there is no such queue.
    ///
    /// # Errors
    /// [`EngineGone`] when the term is over, or the store refused a part of it: it may be done or not.
    pub async fn purge(&self, destination: Destination) -> Result<Option<usize>, EngineGone> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(Inbound::Purge { destination, answer }).await.map_err(|_| EngineGone)?;
        answered.await.map_err(|_| EngineGone)
    }

    /// How things are, after all that has been submitted before. One turn of the engine looks at every destination for
    /// it: ask seldom.
    ///
    /// # Errors
    /// [`EngineGone`] when the term is over.
    pub async fn overview(&self) -> Result<Box<Overview>, EngineGone> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(Inbound::Overview { answer }).await.map_err(|_| EngineGone)?;
        answered.await.map_err(|_| EngineGone)
    }
}

/// One session's way to the engine and back. Its reader and its writer each hold a clone.
#[derive(Clone, Debug)]
pub struct SessionLink {
    id: SessionId,
    outbox: Arc<Outbox>,
    budget: Arc<Budget>,
    inbox: mpsc::Sender<Inbound>,
    meter: Meter,
}

impl SessionLink {
    /// The session's number, unique within the term.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// What the engine has for this session.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Hands over what one read brought, in order; waits while the session's budget, its outbox or the inbox is full.
    ///
    /// # Errors
    /// [`EngineGone`] when the term is over: close the connection.
    pub async fn submit(&self, requests: Vec<Request>) -> Result<(), EngineGone> {
        let bytes = requests.iter().map(|request| request.bytes).sum();
        let charge = self.meter.charge(requests.iter().map(Request::own_bytes).sum());
        if !self.outbox.has_room() || !self.budget.try_spend(bytes) {
            let room = async {
                self.outbox.room().await;
                self.budget.spend(bytes).await;
            };
            tokio::select! {
                () = room => {}
                () = self.inbox.closed() => return Err(EngineGone),
            }
        }
        self.inbox.send(Inbound::Requests { session: self.id, requests, charge }).await.map_err(|_| EngineGone)
    }

    /// Tells what one write put into the kernel.
    ///
    /// # Errors
    /// [`EngineGone`] when the term is over: close the connection.
    pub async fn written(&self, written: Written) -> Result<(), EngineGone> {
        self.inbox.send(Inbound::Written { session: self.id, written }).await.map_err(|_| EngineGone)
    }

    /// Whether the session has deliveries to acknowledge or an open transaction with something in it, after all that it
    /// has submitted: it is read although memory is full (R31).
    ///
    /// # Errors
    /// [`EngineGone`] when the term is over: close the connection.
    pub async fn holds_messages(&self) -> Result<bool, EngineGone> {
        let (answer, answered) = oneshot::channel();
        let asked = Inbound::HoldsMessages { session: self.id, answer };
        self.inbox.send(asked).await.map_err(|_| EngineGone)?;
        answered.await.map_err(|_| EngineGone)
    }

    /// The connection is gone; nothing of it follows. Ignored if the engine went first.
    pub async fn close(&self) {
        if self.inbox.send(Inbound::Closed { session: self.id }).await.is_err() {
            tracing::debug!(session = self.id.0, "the engine ended before the session");
        }
    }
}

/// A session's budget of bytes: the session spends, the engine gives back.
#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: AtomicUsize,
    returned: Notify,
}

impl Budget {
    /// Waits while the budget is used up; what is asked for may exceed it if nothing else is out.
    async fn spend(&self, bytes: usize) {
        while !self.try_spend(bytes) {
            self.returned.notified().await;
        }
    }

    /// Spends if there is room; one session's reader is the only spender.
    fn try_spend(&self, bytes: usize) -> bool {
        let spent = self.spent.load(Ordering::Acquire);
        let fits = spent == 0 || spent.saturating_add(bytes) <= SESSION_BUDGET_BYTES_MAX;
        if fits {
            self.spent.fetch_add(bytes, Ordering::AcqRel);
        }
        fits
    }

    /// What is spent now. Unit: bytes.
    pub(super) fn spent(&self) -> usize {
        self.spent.load(Ordering::Acquire)
    }

    /// Gives bytes back; one spender waits at most.
    pub(super) fn give_back(&self, bytes: usize) {
        self.spent.fetch_sub(bytes, Ordering::AcqRel);
        self.returned.notify_one();
    }
}
