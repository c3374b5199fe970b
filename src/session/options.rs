//! What a session is told about its broker and its peer.

use std::{net::SocketAddr, sync::Arc};

use super::Authenticator;
use crate::{
    codec::stomp::DecodeLimits,
    config::{Limits, StompOptions},
    types::{Clock, Text, Timestamp},
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
