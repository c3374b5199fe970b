//! What an operator decides. Owned by `config/batonmq.toml`, which documents every option.

use std::{path::PathBuf, time::Duration};

/// All options, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The broker's name, in logs and message-ids.
    pub broker_name: String,
    /// Where data lives.
    pub data: PathBuf,
    /// STOMP's own options.
    pub stomp: StompOptions,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// Redelivery policies; the first whose pattern matches counts.
    pub redelivery: Vec<RedeliveryPolicy>,
}

/// STOMP's own options.
#[derive(Clone, Debug, PartialEq)]
pub struct StompOptions {
    /// Refusals that are not fatal leave the connection open, as ActiveMQ does; false: the specification's way.
    pub lenient: bool,
    /// Whether a SEND to a queue without `persistent` is persistent.
    pub default_persistent: bool,
    /// How long a connection may take until its CONNECT.
    pub connect_timeout: Duration,
    /// The shortest heart-beat interval that the broker promises or asks for.
    pub heart_beat_min: Duration,
    /// A client is silent after this many of its promised intervals, and a second.
    pub heart_beat_grace: f64,
    /// Bound on a frame's command line. Unit: bytes.
    pub command_bytes_max: usize,
    /// Bound on one header line. Unit: bytes.
    pub header_bytes_max: usize,
    /// Bound on a frame's headers.
    pub headers_max: usize,
    /// Bound on a frame's body. Unit: bytes.
    pub body_bytes_max: usize,
}

/// Bounds on what clients may use; see `config/batonmq.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Destinations, temporary ones included.
    pub destinations_max: usize,
    /// Subscriptions of one connection.
    pub subscriptions_per_connection_max: usize,
    /// Open transactions of one connection.
    pub transactions_per_connection_max: usize,
    /// Sends and acks of one transaction.
    pub transaction_operations_max: usize,
    /// Bytes of one transaction's messages.
    pub transaction_bytes_max: usize,
    /// Bytes of messages that one queue (or durable subscription) may hold; beyond it SENDs wait, then get ERROR.
    pub queue_bytes_max: usize,
    /// Bytes that a topic subscription may be behind before its topic's producers are held back.
    pub topic_backlog_bytes_max: usize,
    /// How long a consumer may leave its socket unread while something waits for it.
    pub slow_consumer_timeout: Duration,
}

/// What happens to messages that come back.
#[derive(Clone, Debug, PartialEq)]
pub struct RedeliveryPolicy {
    /// Destinations it is for, as ActiveMQ writes patterns: `orders.*`, `orders.>`, `>`.
    pub destination: String,
    /// How often a message is redelivered before it is dead-lettered.
    pub attempts: u32,
    /// Before the first redelivery.
    pub delay: Duration,
    /// What each further delay is multiplied by; 1: always the same.
    pub backoff_multiplier: f64,
    /// No delay is longer.
    pub delay_max: Duration,
    /// Whether a consumer that goes away without an answer counts as an attempt.
    pub count_lost_consumers: bool,
}
