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

    /// As it stands in front of `://`.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Topic => "topic",
            Self::TemporaryQueue => "temp-queue",
            Self::TemporaryTopic => "temp-topic",
        }
    }

    /// The kind of this scheme.
    #[must_use]
    pub fn from_scheme(scheme: &str) -> Option<Self> {
        [Self::Queue, Self::Topic, Self::TemporaryQueue, Self::TemporaryTopic]
            .into_iter()
            .find(|kind| kind.scheme() == scheme)
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

    /// What [`fmt::Display`] wrote.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        let (scheme, name) = uri.split_once("://")?;
        DestinationKind::from_scheme(scheme).map(|kind| Self::new(kind, name))
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
        write!(f, "{}://{}", self.kind.scheme(), self.name)
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_read_as_it_is_written() {
        for uri in ["queue://orders", "topic://", "temp-queue://a://b", "temp-topic://größe"] {
            assert_eq!(Destination::from_uri(uri).unwrap().to_string(), uri);
        }
        for other in ["orders", "stream://orders", ""] {
            assert_eq!(Destination::from_uri(other), None);
        }
    }
}
