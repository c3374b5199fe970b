//! What a session is told about its broker and its peer.

use std::{net::SocketAddr, sync::Arc};

use super::{Authenticator, Buffers};
use crate::{
    codec::stomp::DecodeLimits,
    config::{Limits, StompOptions},
    tasks::Tasks,
    telemetry::Traffic,
    types::{Clock, Mandate, Meter, Text, Timestamp},
};

/// What all sessions of a term share.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// STOMP's own options.
    pub stomp: StompOptions,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// The broker's name, in message-ids.
    pub broker_name: String,
    /// When this term began: it keeps ids of this term apart from those of all others.
    pub term_started: Timestamp,
    /// The broker's clock.
    pub clock: Clock,
    /// Whether the broker is the master: nothing but heart-beats leaves past its lease (R24).
    pub mandate: Mandate,
    /// The term's memory.
    pub meter: Meter,
    /// What connections at work lend each other.
    pub buffers: Arc<Buffers>,
    /// Where sockets wait for their peers' end while the broker stops.
    pub farewells: Tasks,
    /// Counts them.
    pub traffic: Arc<Traffic>,
    /// Who may connect.
    pub authenticator: Arc<Authenticator>,
}

/// What is known of a connection before its first byte.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The other end.
    pub peer: SocketAddr,
    /// The connector that accepted it, for the log.
    pub connector: Arc<str>,
    /// The connector's `wireFormat.maxFrameSize`: command, headers and body. Unit: bytes.
    pub frame_bytes_max: usize,
    /// The name in the client certificate that TLS verified; it stands for a login if the client sends none.
    pub certificate_name: Option<Text>,
}

impl SessionOptions {
    /// The bounds for the decoder of one connection.
    pub(super) fn decode_limits(&self, info: &ConnectionInfo) -> DecodeLimits {
        DecodeLimits {
            command_bytes_max: self.stomp.command_bytes_max,
            header_bytes_max: self.stomp.header_bytes_max,
            headers_max: self.stomp.headers_max,
            body_bytes_max: self.stomp.body_bytes_max,
            frame_bytes_max: info.frame_bytes_max,
            ..DecodeLimits::default()
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    /// Options with the defaults that the tests rely on; nobody needs to log in.
    pub(in crate::session) fn options() -> SessionOptions {
        SessionOptions {
            stomp: StompOptions {
                lenient: false,
                default_persistent: true,
                text_by_content_type: false,
                connect_timeout: Duration::from_secs(30),
                heart_beat_min: Duration::from_secs(1),
                heart_beat_grace: 2.0,
                command_bytes_max: 1_024,
                header_bytes_max: 10 << 10,
                headers_max: 1_000,
                body_bytes_max: 100 << 20,
                frame_bytes_max: 101 << 20,
            },
            limits: Limits {
                destinations_max: 1_000,
                subscriptions_per_connection_max: 10,
                transactions_per_connection_max: 10,
                transaction_operations_max: 1_000,
                transaction_bytes_max: 1 << 20,
                memory_bytes_max: 256 << 20,
                queue_bytes_max: None,
                topic_backlog_bytes_max: 1 << 20,
                slow_consumer_timeout: Duration::from_secs(60),
            },
            broker_name: "test.broker".into(),
            term_started: Timestamp(1_700_000_000_000),
            clock: Clock::start(),
            mandate: Mandate::permanent(),
            meter: Meter::unlimited(),
            buffers: Arc::default(),
            farewells: Tasks::new(),
            traffic: Arc::default(),
            authenticator: Arc::new(Authenticator::new([]).unwrap()),
        }
    }
}
