//! The incremental decoder: bytes in, frames out, however the bytes are cut.
//!
//! Owns the bytes that were read and not yet given out. The caller reads into [`Decoder::room`] and then asks for
//! [`Decoder::next_frame`] until there is none. Between reads the large buffer may be somebody else's
//! ([`Decoder::return_buffer`], [`Decoder::use_buffer`]).
//! Always true: no byte is looked at twice for the same purpose, so a frame that trickles in costs no more than one
//! that comes whole; a limit is checked before memory is taken for what it bounds; a frame that lies whole in the
//! buffer is given out as a view of it; a larger body is read straight into an allocation of exactly its size.
//! On failure: the decoder is done and gives out nothing more, because the start of the next frame is unknown.

use bytes::{Buf, BufMut, Bytes, BytesMut, buf::Limit};
use memchr::{memchr, memchr2};

use super::{
    Body, DecodeError, DecodeLimits, Frame, Headers, Verb, Version, error::quoted, escaping::unescape, frame::Span,
};

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;
/// A counted body above this that is not all there yet is read into its own allocation. Below it waits in the buffer,
/// and may be moved to the buffer's front with what else is there.
const SEPARATE_BODY_MIN: usize = 4 << 10;
/// So much of a frame is moved out of the buffer, so that the buffer is free while the rest is awaited.
const MOVED_BYTES_MAX: usize = SEPARATE_BODY_MIN;
/// Room for headers that is kept from frame to frame.
const SPANS_KEPT_MAX: usize = 64;

/// Whose frames are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A client's, by a broker.
    Client,
    /// A broker's, by a client (tests, tools).
    Broker,
}

/// See the module.
#[derive(Debug)]
pub struct Decoder {
    limits: DecodeLimits,
    sender: Sender,
    /// `None` until the peer's version is known: nothing is escaped, and CR may stand before LF.
    version: Option<Version>,
    input: BytesMut,
    /// What the frame that was given out last occupies at the front of `input`.
    taken: usize,
    state: State,
    verb: Option<Verb>,
    spans: Vec<Span>,
    /// Whether `input` lies in a buffer of full size.
    has_buffer: bool,
}

/// How far the frame at the front of `input` has come. All numbers count from the front of `input`.
#[derive(Debug)]
enum State {
    /// Between frames.
    Idle,
    /// In the line that begins at `line`; nothing ends it before `scanned`.
    Head { line: usize, scanned: usize },
    /// The headers end at `head`, and `length` bytes of body follow.
    Counted { head: usize, length: usize },
    /// The headers end at `head`, and the body ends at a NUL that is not before `scanned`.
    Terminated { head: usize, scanned: usize },
    /// The headers end at `head` and so does `input`; the body of `length` bytes is read into `body`.
    Separate { head: usize, length: usize, body: BytesMut },
    /// An error was found.
    Failed,
}

/// A frame that is all there.
struct Complete {
    head: usize,
    /// Including NUL.
    bytes: usize,
    body: Whereabouts,
    counted: bool,
}

enum Whereabouts {
    Input { length: usize },
    Own(Bytes),
}

impl Decoder {
    /// A decoder for a connection that begins.
    #[must_use]
    pub fn new(sender: Sender, limits: DecodeLimits) -> Self {
        Self {
            limits,
            sender,
            version: None,
            input: BytesMut::new(),
            taken: 0,
            state: State::Idle,
            verb: None,
            spans: Vec::new(),
            has_buffer: false,
        }
    }

    /// From the next frame on, both sides speak `version`; before that only CONNECT and STOMP (CONNECTED and ERROR
    /// from a broker) are taken.
    pub fn speak(&mut self, version: Version) {
        self.version = Some(version);
    }

    /// Where the next bytes go. Never empty.
    pub fn room(&mut self) -> Limit<&mut BytesMut> {
        self.release();
        if let State::Separate { length, body, .. } = &mut self.state {
            let missing = length.saturating_sub(body.len());
            if missing > 0 {
                return body.limit(missing);
            }
        }
        if self.input.is_empty() && self.input.capacity() > 2 * READ_BYTES {
            self.input = BytesMut::new(); // a long text grew it
        }
        self.input.reserve(READ_BYTES);
        self.has_buffer = true;
        (&mut self.input).limit(READ_BYTES)
    }

    /// The next frame that is all there; `None`: read more.
    ///
    /// # Errors
    /// The bytes are no frame that this peer may send. Nothing follows: tell the peer and end the connection.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, DecodeError> {
        self.release();
        match self.advance() {
            Ok(Some(complete)) => self.hand_out(complete).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// What was read of a frame that is not all there. Unit: bytes.
    #[must_use]
    pub fn unfinished_bytes(&self) -> usize {
        self.input.len() - self.taken + self.body_bytes()
    }

    /// Whether there is a buffer to read into; else the next [`Self::room`] makes one.
    #[must_use]
    pub fn has_buffer(&self) -> bool {
        self.has_buffer
    }

    /// Reads into `buffer` from now on, which is empty.
    pub fn use_buffer(&mut self, mut buffer: BytesMut) {
        buffer.extend_from_slice(&self.input);
        self.input = buffer;
        self.has_buffer = true;
    }

    /// Gives the buffer away until more bytes come, unless it holds much of a frame.
    pub fn return_buffer(&mut self) -> Option<BytesMut> {
        self.release();
        if !self.has_buffer || self.input.len() > MOVED_BYTES_MAX {
            return None;
        }
        self.has_buffer = false;
        let rest = BytesMut::from(self.input.as_ref());
        Some(std::mem::replace(&mut self.input, rest))
    }

    /// The memory that it takes, without a buffer that it can return. Unit: bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let unfinished = self.input.len() - self.taken;
        let input = if unfinished > MOVED_BYTES_MAX { self.input.capacity() } else { unfinished };
        input + self.body_bytes()
    }

    /// Of a body with room of its own; the kernel gives pages only as bytes arrive.
    fn body_bytes(&self) -> usize {
        if let State::Separate { body, .. } = &self.state { body.len() } else { 0 }
    }

    /// Drops all that was read; nothing more is given out.
    pub fn give_up(&mut self) {
        self.state = State::Failed;
        self.taken = 0;
        self.spans.clear();
        self.input = BytesMut::new();
        self.has_buffer = false;
    }

    /// The receipt that the frame which failed asks for, if its headers were read that far.
    #[must_use]
    pub fn receipt_of_failed(&self) -> Option<&str> {
        let named = |span: &&Span| self.input.get(span.name.clone()) == Some(b"receipt");
        let span = self.spans.iter().find(named)?;
        std::str::from_utf8(self.input.get(span.value.clone())?).ok()
    }

    fn fail(&mut self, error: DecodeError) -> DecodeError {
        self.state = State::Failed;
        error
    }

    /// Drops the frame that was given out last.
    fn release(&mut self) {
        if self.taken == 0 {
            return;
        }
        self.input.advance(self.taken);
        self.taken = 0;
        self.verb = None;
        self.spans.clear();
        self.spans.shrink_to(SPANS_KEPT_MAX);
    }

    fn advance(&mut self) -> Result<Option<Complete>, DecodeError> {
        if matches!(self.state, State::Idle) {
            self.skip_line_ends();
            if self.input.is_empty() {
                return Ok(None);
            }
            self.state = State::Head { line: 0, scanned: 0 };
        }
        if let State::Head { line, scanned } = self.state {
            let Some(head) = self.read_head(line, scanned)? else { return Ok(None) };
            self.begin_body(head)?;
            let complete = self.read_body();
            if !matches!(complete, Ok(Some(_))) {
                self.check_utf8(head)?; // now, and not after a large body; a whole frame is checked when it is given out
            }
            return complete;
        }
        self.read_body()
    }

    /// STOMP 1.2, "Heart-beating": line ends between frames mean nothing but that the peer is there.
    fn skip_line_ends(&mut self) {
        let with_cr = self.cr_may_end_lines();
        let is_line_end = |&byte: &u8| byte == b'\n' || (with_cr && byte == b'\r');
        let count = self.input.iter().position(|byte| !is_line_end(byte)).unwrap_or(self.input.len());
        self.input.advance(count);
    }

    /// Goes on with the command and headers; where they end, once they do.
    fn read_head(&mut self, mut line: usize, scanned: usize) -> Result<Option<usize>, DecodeError> {
        let mut from = scanned;
        loop {
            let Some(found) = memchr2(b'\n', 0, self.input.get(from..).unwrap_or_default()) else {
                let seen = self.input.len();
                self.check_head(line, self.without_cr(line, seen))?;
                self.state = State::Head { line, scanned: seen };
                return Ok(None);
            };
            let end = from + found;
            let without_cr = self.without_cr(line, end);
            self.check_head(line, without_cr)?;
            if self.input.get(end) == Some(&0) {
                return Err(self.stray_nul(line, end));
            }
            if self.verb.is_none() {
                self.read_verb(line, without_cr)?;
            } else if without_cr == line {
                self.finish_head()?;
                return Ok(Some(end + 1));
            } else {
                self.read_header(line, without_cr)?;
            }
            line = end + 1;
            from = line;
        }
    }

    fn stray_nul(&self, line: usize, end: usize) -> DecodeError {
        if self.verb.is_some() {
            return DecodeError::EndedWithinHeaders;
        }
        DecodeError::UnknownCommand { command: quoted(self.input.get(line..=end).unwrap_or_default()) }
    }

    /// The line's end without the CR that 1.0 and 1.2 allow there; in 1.1 a CR is part of the value.
    fn without_cr(&self, line: usize, end: usize) -> usize {
        let has_cr = end > line && self.input.get(end - 1) == Some(&b'\r');
        if has_cr && self.cr_may_end_lines() { end - 1 } else { end }
    }

    fn cr_may_end_lines(&self) -> bool {
        self.version != Some(Version::V1_1)
    }

    /// Holds the line from `line` to `end`, and all before it, against their limits. Of two that are exceeded the one
    /// counts that was exceeded first, so that the answer does not depend on how the bytes were cut.
    fn check_head(&self, line: usize, end: usize) -> Result<(), DecodeError> {
        let (limits, frame_max) = (&self.limits, self.frame_bytes_max());
        let line_max = match self.verb {
            None => limits.command_bytes_max,
            Some(_) => limits.header_bytes_max,
        };
        let line_end_max = line.saturating_add(line_max);
        if end <= line_end_max.min(frame_max) {
            return Ok(());
        }
        Err(match self.verb {
            _ if frame_max < line_end_max => DecodeError::FrameTooLong { limit: frame_max },
            None => DecodeError::CommandTooLong { limit: line_max },
            Some(_) => DecodeError::HeaderTooLong { limit: line_max },
        })
    }

    /// Holds a body from `head` to `end` against its limits, as [`Self::check_head`].
    fn check_body(&self, head: usize, end: usize) -> Result<(), DecodeError> {
        let (body_max, frame_max) = (self.limits.body_bytes_max, self.frame_bytes_max());
        let body_end_max = head.saturating_add(body_max);
        if end <= body_end_max.min(frame_max) {
            return Ok(());
        }
        Err(match frame_max < body_end_max {
            true => DecodeError::FrameTooLong { limit: frame_max },
            false => DecodeError::BodyTooLong { limit: body_max },
        })
    }

    fn frame_bytes_max(&self) -> usize {
        let limits = &self.limits;
        match (self.sender, self.version) {
            (Sender::Client, None) => limits.frame_bytes_max.min(limits.connect_bytes_max),
            _ => limits.frame_bytes_max,
        }
    }

    fn read_verb(&mut self, start: usize, end: usize) -> Result<(), DecodeError> {
        let line = self.input.get(start..end).unwrap_or_default();
        let from_broker = self.sender == Sender::Broker;
        match Verb::parse(line) {
            Some(verb) if verb.is_brokers() == from_broker => self.verb = Some(verb),
            _ => return Err(DecodeError::UnknownCommand { command: quoted(line) }),
        }
        Ok(())
    }

    fn read_header(&mut self, start: usize, end: usize) -> Result<(), DecodeError> {
        if self.spans.len() >= self.limits.headers_max {
            return Err(DecodeError::TooManyHeaders { limit: self.limits.headers_max });
        }
        let line = self.input.get(start..end).unwrap_or_default();
        let Some(colon) = memchr(b':', line).filter(|&colon| colon > 0) else {
            return Err(DecodeError::MalformedHeader { line: quoted(line) });
        };
        let (mut name, mut value) = (start..start + colon, start + colon + 1..end);
        if self.version == Some(Version::V1_0) {
            name = self.trimmed(name);
            value = self.trimmed(value);
        }
        self.spans.push(Span { name, value });
        Ok(())
    }

    /// 1.0's own examples write `login: <username>`.
    fn trimmed(&self, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let text = self.input.get(range.clone()).unwrap_or_default();
        let start = range.start + (text.len() - text.trim_ascii_start().len());
        start..start + text.trim_ascii().len()
    }

    /// All headers are there: undoes their escapes, and refuses the frame if its command is out of order.
    fn finish_head(&mut self) -> Result<(), DecodeError> {
        let verb = self.verb.unwrap_or(Verb::Error);
        match (self.sender, self.version) {
            (Sender::Client, None) if !verb.opens() => {
                return Err(DecodeError::BeforeConnect { command: verb.as_str() });
            }
            (Sender::Client, Some(_)) if verb.opens() => return Err(DecodeError::DuplicateConnect),
            _ => {}
        }
        match self.version {
            Some(version @ (Version::V1_1 | Version::V1_2)) => self.unescape_head(version),
            _ => Ok(()),
        }
    }

    fn unescape_head(&mut self, version: Version) -> Result<(), DecodeError> {
        let (Some(first), Some(last)) = (self.spans.first(), self.spans.last()) else { return Ok(()) };
        let headers = self.input.get(first.name.start..last.value.end).unwrap_or_default();
        if memchr(b'\\', headers).is_none() {
            return Ok(());
        }
        for span in &mut self.spans {
            for part in [&mut span.name, &mut span.value] {
                let unescaped = unescape(&mut self.input, part.clone(), version);
                let Some(unescaped) = unescaped else {
                    let line = quoted(self.input.get(part.clone()).unwrap_or_default());
                    return Err(DecodeError::UndefinedEscape { line });
                };
                *part = unescaped;
            }
        }
        Ok(())
    }

    /// Decides how the body that begins at `head` will be read.
    fn begin_body(&mut self, head: usize) -> Result<(), DecodeError> {
        self.check_body(head, head)?; // the headers alone may fill a frame
        let Some(length) = self.content_length()? else {
            self.state = State::Terminated { head, scanned: head };
            return Ok(());
        };
        let verb = self.verb.unwrap_or(Verb::Error);
        if length > 0 && !verb.may_have_body() {
            return Err(DecodeError::BodyNotAllowed { command: verb.as_str() });
        }
        self.check_body(head, head.saturating_add(length))?;
        let here = self.input.len() - head;
        if length <= SEPARATE_BODY_MIN || here > length {
            self.state = State::Counted { head, length };
            return Ok(());
        }
        let mut body = BytesMut::with_capacity(length); // the kernel gives pages only as bytes arrive
        body.put_slice(self.input.get(head..).unwrap_or_default());
        self.input.truncate(head);
        self.state = State::Separate { head, length, body };
        Ok(())
    }

    fn content_length(&self) -> Result<Option<usize>, DecodeError> {
        let named = |span: &&Span| self.input.get(span.name.clone()) == Some(b"content-length");
        let Some(span) = self.spans.iter().find(named) else { return Ok(None) };
        let value = self.input.get(span.value.clone()).unwrap_or_default();
        let digits = std::str::from_utf8(value).unwrap_or_default().trim();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(DecodeError::InvalidContentLength { value: quoted(value) });
        }
        Ok(Some(digits.parse().unwrap_or(usize::MAX))) // too large for a number is too large for any limit
    }

    fn read_body(&mut self) -> Result<Option<Complete>, DecodeError> {
        match &mut self.state {
            State::Counted { head, length } => {
                let (head, length) = (*head, *length);
                match self.input.get(head + length) {
                    None => Ok(None),
                    Some(0) => {
                        let body = Whereabouts::Input { length };
                        Ok(Some(Complete { head, bytes: head + length + 1, body, counted: true }))
                    }
                    Some(_) => Err(DecodeError::MissingNul),
                }
            }
            State::Terminated { head, scanned } => {
                let (head, scanned) = (*head, *scanned);
                self.read_terminated(head, scanned)
            }
            State::Separate { head, length, body } => match self.input.get(*head) {
                _ if body.len() < *length => Ok(None),
                None => Ok(None),
                Some(0) => {
                    let body = Whereabouts::Own(std::mem::take(body).freeze());
                    Ok(Some(Complete { head: *head, bytes: *head + 1, body, counted: true }))
                }
                Some(_) => Err(DecodeError::MissingNul),
            },
            State::Idle | State::Head { .. } | State::Failed => Ok(None),
        }
    }

    fn read_terminated(&mut self, head: usize, scanned: usize) -> Result<Option<Complete>, DecodeError> {
        let found = memchr(0, self.input.get(scanned..).unwrap_or_default());
        let end = found.map_or(self.input.len(), |found| scanned + found);
        let length = end - head;
        let verb = self.verb.unwrap_or(Verb::Error);
        if length > 0 && !verb.may_have_body() {
            return Err(DecodeError::BodyNotAllowed { command: verb.as_str() });
        }
        self.check_body(head, end)?;
        if found.is_none() {
            self.state = State::Terminated { head, scanned: end };
            return Ok(None);
        }
        Ok(Some(Complete { head, bytes: end + 1, body: Whereabouts::Input { length }, counted: false }))
    }

    fn check_utf8(&self, head: usize) -> Result<(), DecodeError> {
        let head = self.input.get(..head).unwrap_or_default();
        std::str::from_utf8(head).map(drop).map_err(|_| DecodeError::NotUtf8)
    }

    fn hand_out(&mut self, complete: Complete) -> Result<Frame<'_>, DecodeError> {
        let Complete { head, bytes, body, counted } = complete;
        self.state = State::Idle;
        let Ok(text) = std::str::from_utf8(self.input.get(..head).unwrap_or_default()) else {
            self.state = State::Failed;
            return Err(DecodeError::NotUtf8);
        };
        self.taken = bytes;
        let (body, whole) = match body {
            Whereabouts::Own(own) => {
                let whole = bytes + own.len();
                (Body::Whole(own), whole)
            }
            Whereabouts::Input { length } => {
                (Body::Read(self.input.get(head..head + length).unwrap_or_default()), bytes)
            }
        };
        let verb = self.verb.unwrap_or(Verb::Error);
        Ok(Frame { verb, headers: Headers { head: text, spans: &self.spans }, body, counted, bytes: whole })
    }
}
