//! Why connections end, and how loudly the log says so.

use std::{fmt, time::Duration};

use tracing::{debug, info, warn};

use super::ConnectionInfo;
use crate::{broker::CloseReason, types::Text};

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The engine said so.
    Closed(CloseReason),
    /// An ERROR with this message was sent.
    Refused(String),
    /// The client closed its end without a DISCONNECT.
    PeerGone,
    /// The socket failed.
    Lost(String),
    /// The client promised heart-beats and sent nothing for this long.
    Silent(Duration),
    /// No CONNECT came for this long.
    NoConnect(Duration),
}

impl End {
    /// The broker stops, or this term is over.
    pub(super) const STOPPING: Self = Self::Closed(CloseReason::Stopping);

    /// Whether the peer can still read what was written, and should be given the time to.
    pub(super) fn is_orderly(&self) -> bool {
        match self {
            Self::PeerGone | Self::Lost(_) | Self::Silent(_) => false,
            Self::Closed(_) | Self::Refused(_) | Self::NoConnect(_) => true,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(reason) => reason.fmt(f),
            Self::Refused(message) => write!(f, "refused: {message}"),
            Self::PeerGone => f.write_str("the client closed the connection without DISCONNECT"),
            Self::Lost(error) => write!(f, "the connection failed: {error}"),
            Self::Silent(limit) => write!(f, "no heart-beat for {limit:?}"),
            Self::NoConnect(limit) => write!(f, "no CONNECT frame within {limit:?}"),
        }
    }
}

/// Who a connection turned out to be.
#[derive(Debug, Default)]
pub(super) struct Identity {
    pub(super) user: Option<Text>,
    pub(super) client_id: Option<Text>,
}

/// The one line that a connection leaves in the log.
pub(super) fn log(info: &ConnectionInfo, who: &Identity, end: &End) {
    let (peer, connector) = (info.peer, &*info.connector);
    let user = who.user.as_ref().map_or("-", Text::as_str);
    let client_id = who.client_id.as_ref().map_or("-", Text::as_str);
    match end {
        End::Closed(CloseReason::SlowConsumer(_)) => {
            warn!(%peer, connector, user, client_id, reason = %end, "connection closed");
        }
        End::Closed(CloseReason::Disconnected | CloseReason::Stopping) | End::PeerGone => {
            debug!(%peer, connector, user, client_id, reason = %end, "connection closed");
        }
        _ => info!(%peer, connector, user, client_id, reason = %end, "connection closed"),
    }
}
