//! Where messages go: queues, topics, and their temporary kinds.

use std::{fmt, sync::Arc};

/// What a destination does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DestinationKind {
    /// Each message goes to one consumer and is kept until it is settled.
    Queue,
    /// Each message goes to every subscription that exists when it is sent.
    Topic,
    /// A queue that lives as long as the connection that named it, and that only this connection may consume from.
    TemporaryQueue,
    /// A topic of the same kind.
    TemporaryTopic,
}

impl DestinationKind {
    /// Whether messages are kept for one consumer each.
    #[must_use]
    pub fn is_queue(self) -> bool {
        matches!(self, Self::Queue | Self::TemporaryQueue)
    }

    /// Whether it ends with the connection that made it.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::TemporaryQueue | Self::TemporaryTopic)
    }
}

/// A destination's kind and name, without any protocol's prefix. Clones share the name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    kind: DestinationKind,
    name: Arc<str>,
}

impl Destination {
    /// A destination of this kind and name.
    #[must_use]
    pub fn new(kind: DestinationKind, name: &str) -> Self {
        Self { kind, name: name.into() }
    }

    /// The queue of this name.
    #[must_use]
    pub fn queue(name: &str) -> Self {
        Self::new(DestinationKind::Queue, name)
    }

    /// The topic of this name.
    #[must_use]
    pub fn topic(name: &str) -> Self {
        Self::new(DestinationKind::Topic, name)
    }

    /// What it does with messages.
    #[must_use]
    pub fn kind(&self) -> DestinationKind {
        self.kind
    }

    /// Its name, without a prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// As ActiveMQ writes it everywhere but in STOMP: `queue://orders`.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            DestinationKind::Queue => "queue",
            DestinationKind::Topic => "topic",
            DestinationKind::TemporaryQueue => "temp-queue",
            DestinationKind::TemporaryTopic => "temp-topic",
        };
        write!(f, "{scheme}://{}", self.name)
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
