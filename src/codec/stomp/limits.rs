//! Bounds on what a peer may send in one frame.

/// Checked as bytes arrive, before memory is taken for them. The defaults are ActiveMQ's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The command line. Unit: bytes.
    pub command_bytes_max: usize,
    /// One header line, name, colon and value as sent. Unit: bytes.
    pub header_bytes_max: usize,
    /// Header lines of one frame.
    pub headers_max: usize,
    /// The body. Unit: bytes.
    pub body_bytes_max: usize,
    /// Command, headers and body together; ActiveMQ's `wireFormat.maxFrameSize`. Unit: bytes.
    pub frame_bytes_max: usize,
    /// The CONNECT frame, of which nobody knows yet who sends it. Unit: bytes.
    pub connect_bytes_max: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            command_bytes_max: 1_024,
            header_bytes_max: 10 << 10,
            headers_max: 1_000,
            body_bytes_max: 100 << 20,
            frame_bytes_max: usize::MAX,
            connect_bytes_max: 64 << 10,
        }
    }
}
