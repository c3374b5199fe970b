//! What can be wrong with a peer's bytes. Each ends the connection: the place of the next frame is unknown.

use super::version::SUPPORTED_VERSIONS;

/// Why bytes are not a frame that this peer may send. The text is the `message` of the ERROR, in ActiveMQ's words
/// where it has some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The command line is longer than its limit.
    #[error("The maximum command length was exceeded: {limit} bytes")]
    CommandTooLong {
        /// The limit. Unit: bytes.
        limit: usize,
    },
    /// A header line is longer than its limit.
    #[error("The maximum header length was exceeded: {limit} bytes")]
    HeaderTooLong {
        /// The limit. Unit: bytes.
        limit: usize,
    },
    /// There are more headers than the limit.
    #[error("The maximum number of headers was exceeded: {limit}")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// The body is longer than its limit.
    #[error("The maximum data length was exceeded: {limit} bytes")]
    BodyTooLong {
        /// The limit. Unit: bytes.
        limit: usize,
    },
    /// Command, headers and body are longer than their limit.
    #[error("The maximum frame size was exceeded: {limit} bytes")]
    FrameTooLong {
        /// The limit. Unit: bytes.
        limit: usize,
    },
    /// The command is none, or none that this peer may send.
    #[error("Unknown STOMP action: {command}")]
    UnknownCommand {
        /// The line, shortened and printable.
        command: String,
    },
    /// The first frame is no CONNECT.
    #[error("Received an unexpected {command} frame before a CONNECT or STOMP frame")]
    BeforeConnect {
        /// The frame's command.
        command: &'static str,
    },
    /// A connection says CONNECT once.
    #[error("Received a duplicate CONNECT or STOMP frame")]
    DuplicateConnect,
    /// A header line has no colon or no name.
    #[error("Unable to parse header line [{line}]")]
    MalformedHeader {
        /// The line, shortened and printable.
        line: String,
    },
    /// NUL stands before the blank line that ends the headers.
    #[error("The frame ended within its headers")]
    EndedWithinHeaders,
    /// An escape that this version does not define.
    #[error("Undefined escape sequence in header [{line}]")]
    UndefinedEscape {
        /// The name or value, shortened and printable.
        line: String,
    },
    /// Command or headers are not UTF-8.
    #[error("The headers are not valid UTF-8")]
    NotUtf8,
    /// `content-length` is no number.
    #[error("Invalid content-length header: [{value}]")]
    InvalidContentLength {
        /// What it says, shortened and printable.
        value: String,
    },
    /// The byte after `content-length` bytes is not NUL.
    #[error("The content-length bytes were read and there was no trailing null byte")]
    MissingNul,
    /// The frame may not have a body.
    #[error("The body of a {command} frame is not empty")]
    BodyNotAllowed {
        /// The frame's command.
        command: &'static str,
    },
}

impl DecodeError {
    /// What a human can do about it: the body of the ERROR.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::CommandTooLong { .. } | Self::UnknownCommand { .. } => format!(
                "A frame begins with a command in capitals on a line of its own. This port speaks STOMP \
                 {SUPPORTED_VERSIONS} without a WebSocket around it; if the client expects TLS, it needs the TLS port."
            ),
            Self::HeaderTooLong { .. } => "Move long values into the body, or raise stomp.header_bytes_max.".into(),
            Self::TooManyHeaders { .. } => "Send fewer headers, or raise stomp.headers_max.".into(),
            Self::BodyTooLong { .. } => "Send smaller messages, or raise stomp.body_bytes_max.".into(),
            Self::FrameTooLong { .. } => {
                "Send smaller messages, or raise the connector's wireFormat.maxFrameSize.".into()
            }
            Self::BeforeConnect { .. } => "The first frame of a connection is CONNECT or STOMP.".into(),
            Self::DuplicateConnect => "Open a second connection for a second CONNECT.".into(),
            Self::MalformedHeader { .. } => "A header line is name, colon, value.".into(),
            Self::EndedWithinHeaders => "A blank line ends the headers, also of a frame without a body.".into(),
            Self::UndefinedEscape { .. } => {
                "Headers know the escapes \\n, \\c and \\\\, from STOMP 1.2 also \\r; a backslash is written as \\\\."
                    .into()
            }
            Self::NotUtf8 => "Command and headers are UTF-8; other bytes belong into the body.".into(),
            Self::InvalidContentLength { .. } => "content-length is the number of bytes of the body.".into(),
            Self::MissingNul => "content-length counts bytes, not characters, and NUL follows the body.".into(),
            Self::BodyNotAllowed { .. } => "Of a client's frames only SEND may have a body.".into(),
        }
    }
}

/// At most this much of a peer's bytes is repeated to it and to the log. Unit: characters.
const QUOTED_CHARS_MAX: usize = 64;

/// A peer's bytes, made fit for a log line.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let head = bytes.get(..bytes.len().min(4 * QUOTED_CHARS_MAX)).unwrap_or_default();
    let text = String::from_utf8_lossy(head);
    let printable = |char: char| if char.is_control() || char == char::REPLACEMENT_CHARACTER { '?' } else { char };
    let mut quoted: String = text.chars().take(QUOTED_CHARS_MAX).map(printable).collect();
    if text.chars().count() > QUOTED_CHARS_MAX {
        quoted.push_str("...");
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_is_short_and_printable() {
        assert_eq!(quoted(b"SEND\x00\x16"), "SEND??");
        assert_eq!(quoted(&[b'x'; 10_000]), format!("{}...", "x".repeat(64)));
        assert!(quoted(&[0xff; 10_000]).is_ascii());
    }
}
