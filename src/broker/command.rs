//! What sessions ask of the core, and what the core tells sessions. No protocol's words: STOMP, the wire protocol and
//! OpenWire all speak through these.

use std::{fmt, sync::Arc};

use compact_str::CompactString;

use super::Receipt;
use crate::types::{ConsumerNo, DeliveryTag, Destination, Message, Text};

/// A client's name for a transaction, unique within its session.
pub type TransactionName = CompactString;

/// One frame's worth of work for the core.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// To be confirmed when this and everything before it on the session is durable (R4).
    pub receipt: Option<Receipt>,
    /// What it counts against the session's budget. Unit: bytes.
    pub bytes: usize,
}

impl Request {
    /// What it takes in memory, without a message, which counts itself (R31). Unit: bytes.
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        let content = if matches!(self.command, Command::Send(_)) { 0 } else { self.bytes };
        content.max(size_of::<Self>())
    }
}

/// What a session can ask for.
#[derive(Debug)]
pub enum Command {
    /// The first of a session; answered by [`Outgoing::Connected`].
    Connect(Connect),
    /// Makes a temporary destination that this session owns; nothing if it did so before.
    CreateTemporary(Destination),
    /// Takes a message in.
    Send(Send),
    /// Makes a consumer.
    Subscribe(Subscribe),
    /// Shows what lies in a queue.
    Browse(Browse),
    /// Ends a consumer or browser, a durable subscription, or both.
    Unsubscribe(Unsubscribe),
    /// Settles deliveries, or gives them back.
    Ack(Ack),
    /// Opens a transaction.
    Begin(TransactionName),
    /// Applies a transaction whole.
    Commit(TransactionName),
    /// Forgets a transaction.
    Abort(TransactionName),
    /// The session itself declined a frame; the ERROR keeps its place among the receipts (R4).
    Refuse(Refusal),
    /// Nothing but its receipt.
    Confirm,
    /// The client says goodbye: its receipt, then [`Outgoing::Close`].
    Disconnect,
}

/// Who a session is.
#[derive(Debug)]
pub struct Connect {
    /// The authenticated user; `None`: anonymous.
    pub user: Option<Text>,
    /// Names the session's durable subscriptions; a live session of the same client-id and user is closed for it.
    pub client_id: Option<Text>,
    /// Refusals that are not fatal leave the session open, as ActiveMQ does.
    pub lenient: bool,
}

/// A message for a destination.
#[derive(Debug)]
pub struct Send {
    /// Where to.
    pub destination: Destination,
    /// What; a message for a temporary destination is never stored, whatever it says.
    pub message: Arc<Message>,
    /// Not before this transaction commits.
    pub transaction: Option<TransactionName>,
}

/// A new consumer.
#[derive(Debug)]
pub struct Subscribe {
    /// The session's number for it; not in use.
    pub consumer: ConsumerNo,
    /// Of what.
    pub destination: Destination,
    /// How deliveries are settled.
    pub ack: AckMode,
    /// How many deliveries may be unacknowledged. Unit: messages. Range: 1 to 65,535.
    pub prefetch: u32,
    /// Consumers of a higher priority are served first. Range: 0 to 127.
    pub priority: u8,
    /// The name of a durable subscription; the destination is a topic and the session has a client-id.
    pub durable: Option<Text>,
}

/// A new browser: it is told of what lies in a queue at this moment, then of the end.
#[derive(Debug)]
pub struct Browse {
    /// The session's number for it; in use by none of its consumers and browsers.
    pub consumer: ConsumerNo,
    /// The queue to look into.
    pub destination: Destination,
    /// Whether the client may acknowledge what it sees; nothing comes of it either way.
    pub ack: AckMode,
    /// How many messages may be on their way to it at once. Unit: messages. Range: 1 to 65,535.
    pub prefetch: u32,
}

/// How a consumer's deliveries are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// By the broker, when the delivery's bytes are in the kernel (R3).
    Auto,
    /// By the client, each ACK for everything up to its delivery.
    Cumulative,
    /// By the client, one by one.
    Individual,
}

/// The end of a consumer, of a durable subscription, or of both.
#[derive(Debug)]
pub struct Unsubscribe {
    /// The consumer or browser to end; a durable subscription behind it stays.
    pub consumer: Option<ConsumerNo>,
    /// The durable subscription of this session's client-id to delete.
    pub durable: Option<Text>,
}

/// An acknowledgement.
#[derive(Debug)]
pub struct Ack {
    /// What it is about.
    pub target: AckTarget,
    /// Settled, or given back.
    pub verdict: Verdict,
    /// Not before this transaction commits.
    pub transaction: Option<TransactionName>,
}

/// How a client names a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckTarget {
    /// By consumer and delivery tag.
    Tag {
        /// The consumer.
        consumer: ConsumerNo,
        /// Its delivery.
        tag: DeliveryTag,
    },
    /// By message-id; without a consumer all consumers of the session are searched, oldest first.
    MessageId {
        /// The consumer, if the client named one.
        consumer: Option<ConsumerNo>,
        /// The message-id.
        id: Text,
    },
}

/// What a client says of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done with it.
    Accepted,
    /// Could not use it: redelivered by the destination's policy, else a dead letter.
    Rejected,
}

/// Why a legal frame is declined; becomes an ERROR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One short sentence, in ActiveMQ's words where it has some. Never a path or a backtrace.
    pub message: String,
    /// What to do about it, for the body of the ERROR.
    pub advice: String,
    /// Whether the connection ends even for a lenient session.
    pub fatal: bool,
    /// The transaction that a message is missing from now, if the session itself declined it (R5).
    pub transaction: Option<TransactionName>,
}

impl Refusal {
    /// A refusal that a lenient session survives.
    #[must_use]
    pub fn new(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { message: message.into(), advice: advice.into(), fatal: false, transaction: None }
    }

    /// There is no memory for it (R31).
    #[must_use]
    pub fn memory_full() -> Self {
        Self::new(
            "The broker's memory is full.",
            "Try again when consumers have caught up; smaller transactions and messages need less at a time. What the \
             broker may take is limits.memory_bytes_max.",
        )
    }

    /// A refusal that ends every session.
    #[must_use]
    pub fn fatal(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::new(message, advice) }
    }
}

/// What a session is told. It leaves in the order in which it was told.
#[derive(Debug)]
pub enum Outgoing {
    /// The session is known; frames may follow.
    Connected,
    /// A message for a consumer or browser.
    Delivery(Delivery),
    /// This browser has seen everything; it stays until it is ended.
    BrowseEnd(ConsumerNo),
    /// A confirmation.
    Receipt(Receipt),
    /// A refusal, with the receipt that its frame asked for.
    Error {
        /// What went wrong.
        refusal: Refusal,
        /// The receipt of the frame that is refused.
        receipt: Option<Receipt>,
    },
    /// Nothing follows: flush, then end the connection.
    Close(CloseReason),
}

/// One message on its way to one consumer or browser.
#[derive(Debug)]
pub struct Delivery {
    /// To whom.
    pub consumer: ConsumerNo,
    /// Which delivery of that consumer.
    pub tag: DeliveryTag,
    /// The message.
    pub message: Arc<Message>,
    /// Whether an earlier delivery can't be ruled out (R9).
    pub redelivered: bool,
    /// Which delivery of the message this is, counted from 1.
    pub deliveries: u32,
    /// Whether other subscribers get the same message: worth rendering once for all.
    pub shared: bool,
}

/// Why a connection ends; for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client said DISCONNECT.
    Disconnected,
    /// An ERROR was sent.
    Refused,
    /// A new connection with the same client-id and user took its place.
    TakenOver,
    /// A topic subscription's backlog reached its bound, or an outbox did not drain.
    SlowConsumer(String),
    /// The broker stops, or this term is over.
    Stopping,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected => f.write_str("the client disconnected"),
            Self::Refused => f.write_str("a frame was refused"),
            Self::TakenOver => f.write_str("a new connection with the same client-id took its place"),
            Self::SlowConsumer(why) => write!(f, "slow consumer: {why}"),
            Self::Stopping => f.write_str("the broker stops"),
        }
    }
}
