//! A STOMP connection that sends exactly the bytes it is given, legal or not.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use super::PATIENCE;

/// One frame from the broker, its headers unescaped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) command: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// A whole connection.
pub(crate) struct Raw {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

/// The half that hears the broker.
pub(crate) struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    taken: usize,
    /// Frames that came while another one was waited for.
    early: VecDeque<Frame>,
}

/// The half that speaks.
pub(crate) struct Writer {
    stream: TcpStream,
}

impl Raw {
    /// A connection on which nothing was said.
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect_timeout(&address, PATIENCE).unwrap())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let writer = Writer { stream: stream.try_clone().unwrap() };
        Self { reader: Reader { stream, buffer: Vec::new(), taken: 0, early: VecDeque::new() }, writer }
    }

    /// A connection of STOMP 1.2 whose CONNECT was answered.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[])
    }

    /// The same, if somebody is there who answers it: else the port is closed, or its broker does not serve.
    pub(crate) fn try_connect(address: SocketAddr) -> Option<Self> {
        let mut raw = Self::of(TcpStream::connect(address).ok()?);
        raw.writer.send(b"CONNECT\naccept-version:1.2\nhost:test\n\n\0").ok()?;
        let connected = raw.reader.next().ok()??;
        (connected.command == "CONNECTED").then_some(raw)
    }

    /// The same, with further headers on its CONNECT.
    pub(crate) fn connect_with(address: SocketAddr, headers: &[(&str, &str)]) -> Self {
        let mut raw = Self::open(address);
        // CONNECT is not escaped.
        let mut bytes = b"CONNECT\naccept-version:1.2\nhost:test\n".to_vec();
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}:{value}\n").as_bytes());
        }
        bytes.extend_from_slice(b"\n\0");
        raw.send(bytes);
        let connected = raw.frame();
        assert_eq!(connected.command, "CONNECTED", "{connected:?}");
        raw
    }

    /// Sends these bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.writer.send(bytes).unwrap();
    }

    /// The next frame.
    pub(crate) fn frame(&mut self) -> Frame {
        match self.reader.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!("the broker closed the connection instead of sending a frame"),
            Err(error) => panic!("no frame: {error}"),
        }
    }

    /// The next frame, which has this command.
    pub(crate) fn expect(&mut self, command: &str) -> Frame {
        let frame = self.frame();
        assert_eq!(frame.command, command, "{frame:?}");
        frame
    }

    /// Sends a frame, a receipt asked for, and waits for that receipt. Messages that come before it are kept.
    pub(crate) fn confirmed(&mut self, command: &str, headers: &[(&str, &str)], body: &[u8]) {
        let receipt = format!("confirm {command}");
        let mut all = headers.to_vec();
        all.push(("receipt", &receipt));
        self.send(encode(command, &all, body));
        let early = std::mem::take(&mut self.reader.early);
        let mut meanwhile = Vec::new();
        loop {
            let frame = self.frame();
            match frame.command.as_str() {
                "RECEIPT" if frame.header("receipt-id") == receipt => break,
                "ERROR" => panic!("refused: {frame:?}"),
                _ => meanwhile.push(frame),
            }
        }
        self.reader.early = early.into_iter().chain(meanwhile).collect();
    }

    /// Subscribes as "1" unless the headers say otherwise, and waits for the receipt.
    pub(crate) fn subscribe(&mut self, destination: &str, ack: &str, headers: &[(&str, &str)]) {
        let mut all = vec![("destination", destination), ("ack", ack)];
        all.extend_from_slice(headers);
        if !headers.iter().any(|(name, _)| *name == "id") {
            all.push(("id", "1"));
        }
        self.confirmed("SUBSCRIBE", &all, b"");
    }

    /// Sends a message and waits for its receipt.
    pub(crate) fn publish(&mut self, destination: &str, body: &str) {
        let headers = [("destination", destination), ("persistent", "true")];
        self.confirmed("SEND", &headers, body.as_bytes());
    }

    /// Acknowledges this message and waits for the receipt.
    pub(crate) fn ack(&mut self, message: &Frame) {
        self.confirmed("ACK", &[("id", message.header("ack"))], b"");
    }

    /// The broker ends the connection: an orderly end, all it sent has been read.
    pub(crate) fn closed(&mut self) {
        match self.reader.next() {
            Ok(None) => {}
            Ok(Some(frame)) => panic!("the connection should be closed, but there is {frame:?}"),
            Err(error) => panic!("the connection should end in order, but: {error}"),
        }
    }

    /// The broker ends the connection, in order or not; no frame comes before.
    pub(crate) fn cut_off(&mut self) {
        if let Ok(Some(frame)) = self.reader.next() {
            panic!("the connection should end, but there is {frame:?}");
        }
    }

    /// The next frame is an ERROR whose message contains `says`, then the connection ends in order.
    pub(crate) fn refused(&mut self, says: &str) -> Frame {
        let error = self.expect("ERROR");
        let message = error.header("message").to_lowercase();
        assert!(message.contains(&says.to_lowercase()), "{error:?} does not say {says:?}");
        self.closed();
        error
    }

    /// Refuses this message and waits for the receipt.
    pub(crate) fn nack(&mut self, message: &Frame) {
        self.confirmed("NACK", &[("id", message.header("ack"))], b"");
    }

    /// Says goodbye and waits until everything before is confirmed.
    pub(crate) fn disconnect(mut self) {
        self.confirmed("DISCONNECT", &[], b"");
        self.closed();
    }
}

impl Writer {
    /// Sends these bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Ends this direction; the other one stays open.
    pub(crate) fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

impl Reader {
    /// The next frame; `None` after an orderly end, an error after another one. Panics if nothing happens at all.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        if let Some(frame) = self.early.pop_front() {
            return Ok(Some(frame));
        }
        loop {
            while self.buffer.get(self.taken) == Some(&b'\n') {
                self.taken += 1; // heart-beats and the line ends that may follow a frame
            }
            if let Some((frame, length)) = Frame::parse(&self.buffer[self.taken..]) {
                self.taken += length;
                return Ok(Some(frame));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            if !self.fill()? {
                assert!(self.buffer.is_empty(), "the connection ended within a frame");
                return Ok(None);
            }
        }
    }

    /// Waits for one heart-beat; a frame instead fails.
    pub(crate) fn heart_beat(&mut self) {
        while self.taken == self.buffer.len() {
            assert!(self.fill().unwrap(), "the connection ended");
        }
        assert_eq!(self.buffer[self.taken], b'\n', "a frame instead of a heart-beat");
        self.taken += 1;
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 65536];
        let length = match self.stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("the broker says nothing"),
            read => read?,
        };
        self.buffer.extend_from_slice(&chunk[..length]);
        Ok(length > 0)
    }
}

impl Frame {
    /// The value of a header that must be there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no header {name} in {self:?}"))
    }

    /// The value of a header, if it is there; the first one counts.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body, which is text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Whether the broker can't rule out an earlier delivery.
    pub(crate) fn redelivered(&self) -> bool {
        self.find("redelivered") == Some("true")
    }

    /// A frame and its length in bytes, if it is all there.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let head = bytes.windows(2).position(|pair| pair == b"\n\n")?;
        let text = std::str::from_utf8(&bytes[..head]).expect("the broker sends UTF-8");
        let mut lines = text.split('\n');
        let command = lines.next()?.to_owned();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no colon in header {line:?}"));
            if command == "CONNECTED" { (name.into(), value.into()) } else { (unescape(name), unescape(value)) }
        });
        let headers: Vec<(String, String)> = headers.collect();
        let body = &bytes[head + 2..];
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = match length {
            Some((_, length)) => length.parse().expect("content-length is a number"),
            None => body.iter().position(|byte| *byte == 0)?,
        };
        let end = *body.get(length)?;
        assert_eq!(end, 0, "a frame ends with NUL");
        Some((Self { command, headers, body: body[..length].to_vec() }, head + 2 + length + 1))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.body[..self.body.len().min(200)];
        write!(f, "{} {:?} {:?}", self.command, self.headers, String::from_utf8_lossy(start))
    }
}

/// The bytes of a legal frame of STOMP 1.2.
pub(crate) fn encode(command: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{command}\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{}:{}\n", escape(name), escape(value)).as_bytes());
    }
    if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-length") {
        bytes.extend_from_slice(format!("content-length:{}\n", body.len()).as_bytes());
    }
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    bytes.push(0);
    bytes
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\r', "\\r").replace('\n', "\\n").replace(':', "\\c")
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match (character, character == '\\') {
            (_, false) => character,
            (_, true) => match characters.next() {
                Some('r') => '\r',
                Some('n') => '\n',
                Some('c') => ':',
                Some('\\') => '\\',
                other => panic!("the broker sent the escape {other:?}"),
            },
        });
    }
    plain
}
