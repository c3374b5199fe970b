//! A blocking STOMP 1.2 client, no more of it than the benches need.
//!
//! An ERROR is an `io::Error`: whoever gets one connects again. Headers are compared and handed back as they came,
//! never unescaped.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    str,
    time::Duration,
};

use memchr::{memchr, memmem};

/// How long the broker may take for what must come, and for reading what was sent.
const PATIENCE: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 256 << 10;

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What of `buffer` was read and not handed out yet.
    start: usize,
    end: usize,
}

/// A frame of the broker.
pub(crate) struct Frame<'a> {
    pub(crate) command: &'a str,
    headers: &'a str,
    pub(crate) body: &'a [u8],
}

impl Frame<'_> {
    /// The value of a header, empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = |line| str::strip_prefix(line, name)?.strip_prefix(':');
        self.headers.lines().find_map(value).unwrap_or_default()
    }

    /// Whether a MESSAGE says that it may have been delivered before.
    pub(crate) fn is_redelivered(&self) -> bool {
        self.header("redelivered") == "true"
    }
}

impl Client {
    /// Connects; with a client-id, durable subscriptions can be had.
    pub(crate) fn connect(address: SocketAddr, client_id: Option<&str>) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = Self { stream, buffer: vec![0; READ_BYTES], start: 0, end: 0 };
        let client_id = client_id.map(|id| format!("client-id:{id}\n")).unwrap_or_default();
        client.write(format!("CONNECT\naccept-version:1.2\nhost:bench\n{client_id}\n\0").as_bytes())?;
        client.expect("CONNECTED", PATIENCE)?;
        Ok(client)
    }

    /// Sends these bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a frame without a body.
    pub(crate) fn say(&mut self, command: &str, headers: &str) -> io::Result<()> {
        self.write(format!("{command}\n{headers}\n\0").as_bytes())
    }

    /// The next frame, which has this command.
    pub(crate) fn expect(&mut self, command: &str, patience: Duration) -> io::Result<Frame<'_>> {
        match self.frame(patience)? {
            Some(frame) if frame.command == command => Ok(frame),
            Some(frame) => Err(io::Error::other(format!("{} instead of {command}", frame.command))),
            None => Err(ErrorKind::TimedOut.into()),
        }
    }

    /// The next frame; none if nothing came for so long.
    pub(crate) fn frame(&mut self, patience: Duration) -> io::Result<Option<Frame<'_>>> {
        self.stream.set_read_timeout(Some(patience))?;
        let layout = loop {
            self.skip_line_ends();
            if let Some(layout) = self.unread().and_then(Layout::of) {
                break layout;
            }
            match self.fill() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        let begin = self.start;
        self.start += layout.frame;
        let whole = self.buffer.get(begin..begin + layout.frame).unwrap_or_default();
        let frame = layout.cut(whole).ok_or(ErrorKind::InvalidData)?;
        if frame.command == "ERROR" {
            return Err(io::Error::other(frame.header("message").to_owned()));
        }
        Ok(Some(frame))
    }

    fn unread(&self) -> Option<&[u8]> {
        self.buffer.get(self.start..self.end)
    }

    /// Between frames there may be heart-beats.
    fn skip_line_ends(&mut self) {
        let ends = self.unread().map_or(0, |unread| unread.iter().take_while(|byte| **byte == b'\n').count());
        self.start += ends;
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.end, 0);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        match self.stream.read(room)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            bytes => {
                self.end += bytes;
                Ok(())
            }
        }
    }
}

/// Where the parts of a frame end.
struct Layout {
    head: usize,
    body: usize,
    frame: usize,
}

impl Layout {
    /// Of the frame at the front of these bytes, if all of it is there.
    fn of(bytes: &[u8]) -> Option<Self> {
        let head = memmem::find(bytes, b"\n\n")? + 2;
        let length = bytes.get(..head).and_then(content_length);
        let body = match length {
            Some(length) => head + length,
            None => head + memchr(0, bytes.get(head..)?)?,
        };
        let frame = body + 1;
        (bytes.len() >= frame).then_some(Self { head, body, frame })
    }

    fn cut<'a>(&self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        let (command, headers) = str::from_utf8(bytes.get(..self.head)?).ok()?.split_once('\n')?;
        Some(Frame { command, headers, body: bytes.get(self.head..self.body)? })
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"\ncontent-length:";
    let value = head.get(memmem::find(head, NAME)? + NAME.len()..)?;
    let digits = value.get(..memchr(b'\n', value)?)?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Appends a SEND; `put_body` appends its body, which has this size.
pub(crate) fn put_send(
    out: &mut Vec<u8>,
    destination: &str,
    headers: &str,
    body_bytes: usize,
    put_body: impl FnOnce(&mut Vec<u8>),
) {
    let head = format!("SEND\ndestination:{destination}\n{headers}content-length:{body_bytes}\n\n");
    out.extend_from_slice(head.as_bytes());
    put_body(out);
    out.push(0);
}
