//! A decoded frame: a view of the bytes it came in.

use std::ops::Range;

use bytes::Bytes;

/// A frame's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Client: the first frame.
    Connect,
    /// Client: the first frame, as 1.2 prefers it.
    Stomp,
    /// Client: a message.
    Send,
    /// Client: a new subscription.
    Subscribe,
    /// Client: its end.
    Unsubscribe,
    /// Client: a delivery is settled.
    Ack,
    /// Client: a delivery could not be used.
    Nack,
    /// Client: a transaction begins.
    Begin,
    /// Client: it is applied.
    Commit,
    /// Client: it is forgotten.
    Abort,
    /// Client: goodbye.
    Disconnect,
    /// Broker: the answer to CONNECT.
    Connected,
    /// Broker: a delivery.
    Message,
    /// Broker: a confirmation.
    Receipt,
    /// Broker: a refusal.
    Error,
}

impl Verb {
    /// As it stands on a frame's first line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Stomp => "STOMP",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
            Self::Disconnect => "DISCONNECT",
            Self::Connected => "CONNECTED",
            Self::Message => "MESSAGE",
            Self::Receipt => "RECEIPT",
            Self::Error => "ERROR",
        }
    }

    /// Exact, as the specification asks; ActiveMQ also takes prefixes such as `SUB`.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        Some(match line {
            b"SEND" => Self::Send,
            b"ACK" => Self::Ack,
            b"NACK" => Self::Nack,
            b"BEGIN" => Self::Begin,
            b"COMMIT" => Self::Commit,
            b"ABORT" => Self::Abort,
            b"CONNECT" => Self::Connect,
            b"STOMP" => Self::Stomp,
            b"SUBSCRIBE" => Self::Subscribe,
            b"UNSUBSCRIBE" => Self::Unsubscribe,
            b"DISCONNECT" => Self::Disconnect,
            b"CONNECTED" => Self::Connected,
            b"MESSAGE" => Self::Message,
            b"RECEIPT" => Self::Receipt,
            b"ERROR" => Self::Error,
            _ => return None,
        })
    }

    /// STOMP 1.2, "Body": only these may have one.
    #[must_use]
    pub fn may_have_body(self) -> bool {
        matches!(self, Self::Send | Self::Message | Self::Error)
    }

    /// Whether brokers send it, and clients do not.
    #[must_use]
    pub fn is_brokers(self) -> bool {
        matches!(self, Self::Connected | Self::Message | Self::Receipt | Self::Error)
    }

    /// Whether it opens a connection.
    #[must_use]
    pub fn opens(self) -> bool {
        matches!(self, Self::Connect | Self::Stomp)
    }
}

/// One frame, valid until the decoder is asked for the next one.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Its command.
    pub verb: Verb,
    /// Its headers, unescaped.
    pub headers: Headers<'a>,
    /// Its body; empty if there is none.
    pub body: Body<'a>,
    /// Whether the body's length was stated: ActiveMQ's sign for a message of bytes.
    pub counted: bool,
    /// All of it, as it came. Unit: bytes.
    pub bytes: usize,
}

/// A frame's body.
#[derive(Debug)]
pub enum Body<'a> {
    /// Where it was read; who keeps it copies it, once.
    Read(&'a [u8]),
    /// Read straight into an allocation of exactly its size; who keeps it copies nothing.
    Whole(Bytes),
}

impl Body<'_> {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Whole(bytes) => bytes,
        }
    }
}

/// A frame's headers in the order in which they came.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    pub(super) head: &'a str,
    pub(super) spans: &'a [Span],
}

impl<'a> Headers<'a> {
    /// The first header of this name; repeated ones do not count (STOMP 1.2, "Repeated Header Entries").
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'a str> {
        self.iter().find_map(|(found, value)| (found == name).then_some(value))
    }

    /// All headers in order, repeated ones too.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let head = self.head;
        let part = move |range: &Range<usize>| head.get(range.clone()).unwrap_or_default();
        self.spans.iter().map(move |span| (part(&span.name), part(&span.value)))
    }
}

/// Where a header lies in its frame.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}
