//! What every session of a connector shares, and the step from a stream to its session.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Connector, StompOptions},
    engine::EngineHandle,
};

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// The connector that it came through.
    pub connector: Arc<str>,
    /// The subject of its certificate, if it showed a good one.
    pub certificate: Option<String>,
}

/// What every session of a connector shares.
#[derive(Clone, Debug)]
pub struct Service {
    engine: EngineHandle,
    config: Arc<Config>,
    stomp: Arc<StompOptions>,
}

impl Service {
    /// For sessions of this term's engine.
    #[must_use]
    pub fn new(engine: EngineHandle, config: Arc<Config>) -> Self {
        let stomp = Arc::new(config.stomp.clone());
        Self { engine, config, stomp }
    }

    /// The same, with what the connector's URI says instead of the broker's own options.
    #[must_use]
    pub fn for_connector(&self, connector: &Connector) -> Self {
        let (mut stomp, options) = (StompOptions::clone(&self.stomp), &connector.uri.options);
        stomp.frame_bytes_max = options.frame_bytes_max.unwrap_or(stomp.frame_bytes_max);
        stomp.body_bytes_max = options.body_bytes_max.unwrap_or(stomp.body_bytes_max);
        stomp.connect_timeout = options.connect_timeout.unwrap_or(stomp.connect_timeout);
        Self { stomp: Arc::new(stomp), ..self.clone() }
    }

    /// How long a connection may take until it is one.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.stomp.connect_timeout
    }

    /// Speaks with a peer until one of the two ends it, or `stop` asks for a goodbye.
    pub(super) async fn serve<S>(&self, stream: S, peer: Peer, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The session's entry point comes with the session layer.
        tracing::debug!(?peer, engine = ?self.engine, broker = self.config.broker_name, "connected");
        stop.cancelled().await;
        drop(stream);
    }
}
