//! What a connection needs of the engine; the tests put a scripted one in its place.

use std::future::Future;

use crate::{
    broker::{Outgoing, Request},
    engine::{EngineGone, EngineHandle, SessionLink, Written},
    types::SessionId,
};

/// Where sessions begin.
pub(super) trait Door: Send + Sync {
    type Link: Link;

    fn open(&self) -> impl Future<Output = Result<Self::Link, EngineGone>> + Send;
}

/// One session's way to the engine and back.
pub(super) trait Link: Clone + Send + Sync {
    fn id(&self) -> SessionId;
    /// Waits while the engine has enough to do.
    fn submit(&self, requests: Vec<Request>) -> impl Future<Output = Result<(), EngineGone>> + Send;
    fn written(&self, written: Written) -> impl Future<Output = Result<(), EngineGone>> + Send;
    /// Waits until there is something. Cancel safe.
    fn take(&self, into: &mut Vec<Outgoing>) -> impl Future<Output = ()> + Send;
    /// Whether the session has deliveries to acknowledge, or an open transaction with something in it.
    fn holds_messages(&self) -> impl Future<Output = Result<bool, EngineGone>> + Send;
    fn close(&self) -> impl Future<Output = ()> + Send;
}

impl Door for EngineHandle {
    type Link = SessionLink;

    fn open(&self) -> impl Future<Output = Result<SessionLink, EngineGone>> + Send {
        self.open_session()
    }
}

impl Link for SessionLink {
    fn id(&self) -> SessionId {
        self.id()
    }

    fn submit(&self, requests: Vec<Request>) -> impl Future<Output = Result<(), EngineGone>> + Send {
        self.submit(requests)
    }

    fn written(&self, written: Written) -> impl Future<Output = Result<(), EngineGone>> + Send {
        self.written(written)
    }

    fn take(&self, into: &mut Vec<Outgoing>) -> impl Future<Output = ()> + Send {
        self.outbox().take(into)
    }

    fn holds_messages(&self) -> impl Future<Output = Result<bool, EngineGone>> + Send {
        self.holds_messages()
    }

    fn close(&self) -> impl Future<Output = ()> + Send {
        self.close()
    }
}
