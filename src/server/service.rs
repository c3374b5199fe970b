//! What every session of a connector shares, and the step from a stream to its session.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Connector},
    engine::EngineHandle,
    session::{self, Authenticator, ConnectionInfo, SessionOptions, UserError},
    tasks::Tasks,
    telemetry::Traffic,
    types::{Footing, TermContext, Text},
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
    options: Arc<SessionOptions>,
    frame_bytes_max: usize,
}

impl Service {
    /// For sessions of this term's engine.
    ///
    /// # Errors
    /// [`UserError`] names a user whose password hash makes no sense.
    pub fn new(
        engine: EngineHandle,
        config: &Config,
        context: TermContext,
        farewells: Tasks,
        traffic: Arc<Traffic>,
    ) -> Result<Self, UserError> {
        let users = config.users.iter().map(|user| (user.name.clone(), user.password_hash.reveal().to_owned()));
        let options = SessionOptions {
            stomp: config.stomp.clone(),
            limits: config.limits.clone(),
            broker_name: config.broker_name.clone(),
            term_started: context.clock.now(),
            clock: context.clock,
            mandate: context.mandate,
            meter: context.meter,
            buffers: Arc::default(),
            farewells,
            traffic,
            authenticator: Arc::new(Authenticator::new(users)?),
        };
        Ok(Self { engine, frame_bytes_max: options.stomp.frame_bytes_max, options: Arc::new(options) })
    }

    /// The same, with what the connector's URI says instead of the broker's own options.
    #[must_use]
    pub fn for_connector(&self, connector: &Connector) -> Self {
        let (mut options, given) = (SessionOptions::clone(&self.options), &connector.uri.options);
        let stomp = &mut options.stomp;
        stomp.body_bytes_max = given.body_bytes_max.unwrap_or(stomp.body_bytes_max);
        stomp.connect_timeout = given.connect_timeout.unwrap_or(stomp.connect_timeout);
        let frame_bytes_max = given.frame_bytes_max.unwrap_or(self.frame_bytes_max);
        Self { engine: self.engine.clone(), options: Arc::new(options), frame_bytes_max }
    }

    /// What counts this term's connections.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.options.traffic
    }

    /// Whether it is in doubt that this broker is the master: nobody is let in then (R24).
    pub(super) fn is_paused(&self) -> bool {
        self.options.mandate.footing() != Footing::Firm
    }

    /// How long a connection may take until it is one.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.options.stomp.connect_timeout
    }

    /// Speaks with a peer until one of the two ends it, or `stop` asks for a goodbye.
    pub(super) async fn serve<S>(&self, stream: S, peer: Peer, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let info = ConnectionInfo {
            peer: peer.address,
            connector: peer.connector,
            frame_bytes_max: self.frame_bytes_max,
            certificate_name: peer.certificate.map(Text::from),
        };
        session::serve(stream, info, self.engine.clone(), self.options.clone(), stop).await;
    }
}
