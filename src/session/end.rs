//! Why connections end, and how loudly the log says so.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

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

/// One line, whatever the peer wrote: a refusal repeats the peer's own words.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = OneLine(f);
        match self {
            Self::Closed(reason) => write!(line, "{reason}"),
            Self::Refused(message) => write!(line, "refused: {message}"),
            Self::PeerGone => line.write_str("the client closed the connection without DISCONNECT"),
            Self::Lost(error) => write!(line, "the connection failed: {error}"),
            Self::Silent(limit) => write!(line, "no heart-beat for {limit:?}"),
            Self::NoConnect(limit) => write!(line, "no CONNECT frame within {limit:?}"),
        }
    }
}

/// Writes control characters as their escapes, so that nobody forges lines of the log or steers a terminal.
struct OneLine<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| match char {
            '\u{2028}' | '\u{2029}' => write!(self.0, "{}", char.escape_unicode()), // these end a line too
            char if char.is_control() => write!(self.0, "{}", char.escape_debug()),
            char => self.0.write_char(char),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_writes_stays_on_one_line() {
        let message =
            "Illegal destination name: [/queue/a\n2026-11-23 INFO \u{1b}[31mall is \u{85}well\r\u{2028}] größe \\n";
        let shown =
            r"Illegal destination name: [/queue/a\n2026-11-23 INFO \u{1b}[31mall is \u{85}well\r\u{2028}] größe \n";
        assert_eq!(End::Refused(message.into()).to_string(), format!("refused: {shown}"));
        assert!(!End::Lost("a\nb".into()).to_string().contains('\n'));
        assert!(!End::Closed(CloseReason::SlowConsumer("a\nb".into())).to_string().contains('\n'));
    }
}
