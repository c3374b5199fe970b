//! A STOMP client with a list of brokers, as small as the demonstration needs it.
//!
//! Always true: whatever was sent has been confirmed when its call returns. On failure: an error, and the connection is
//! worth nothing any more; what was not confirmed may have been done.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::codec::stomp::{DecodeLimits, Decoder, FrameWriter, Sender, Verb, Version};

/// How long until the list is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// How long a broker may take for its first words.
const PATIENCE: Duration = Duration::from_secs(5);

/// The only subscription.
const SUBSCRIPTION: &str = "1";

/// A message, as far as somebody looks at it.
pub(super) struct Message {
    pub(super) id: String,
    pub(super) body: String,
    pub(super) redelivered: bool,
    ack: String,
}

/// A connection to the broker that serves.
pub(super) struct Client {
    stream: TcpStream,
    decoder: Decoder,
    out: Vec<u8>,
    /// What came while a receipt was awaited.
    messages: VecDeque<Message>,
    receipts: u64,
}

/// A frame of a broker.
enum Heard {
    Connected,
    Receipt(String),
    Message(Message),
}

impl Client {
    /// Tries one broker after the other until one serves; which, and the connection.
    pub(super) async fn connect(brokers: &[SocketAddr]) -> (usize, Self) {
        loop {
            for (number, address) in brokers.iter().enumerate() {
                if let Ok(Ok(client)) = timeout(PATIENCE, Self::open(*address)).await {
                    return (number, client);
                }
            }
            sleep(TRY_AGAIN).await;
        }
    }

    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let decoder = Decoder::new(Sender::Broker, DecodeLimits::default());
        let mut client = Self { stream, decoder, out: Vec::new(), messages: VecDeque::new(), receipts: 0 };
        client.write(Verb::Connect, &[("accept-version", "1.2"), ("host", "demo")], "").await?;
        match client.hear().await? {
            Heard::Connected => client.decoder.speak(Version::V1_2),
            _ => return Err(unexpected("something before CONNECTED")),
        }
        Ok(client)
    }

    /// Sends a persistent message.
    pub(super) async fn send(&mut self, destination: &str, body: &str) -> io::Result<()> {
        self.ask(Verb::Send, &[("destination", destination), ("persistent", "true")], body).await
    }

    /// Asks for the messages of a destination, each to be acknowledged by itself.
    pub(super) async fn subscribe(&mut self, destination: &str) -> io::Result<()> {
        let headers = [("destination", destination), ("id", SUBSCRIPTION), ("ack", "client-individual")];
        self.ask(Verb::Subscribe, &headers, "").await
    }

    /// The next message. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<Message> {
        if let Some(message) = self.messages.pop_front() {
            return Ok(message);
        }
        match self.hear().await? {
            Heard::Message(message) => Ok(message),
            _ => Err(unexpected("an answer to nothing")),
        }
    }

    /// Acknowledges a message.
    pub(super) async fn ack(&mut self, message: &Message) -> io::Result<()> {
        self.ask(Verb::Ack, &[("id", &message.ack)], "").await
    }

    /// Writes a frame and waits until it is confirmed.
    async fn ask(&mut self, verb: Verb, headers: &[(&str, &str)], body: &str) -> io::Result<()> {
        self.receipts += 1;
        let receipt = self.receipts.to_string();
        let headers = [headers, &[("receipt", &*receipt)]].concat();
        self.write(verb, &headers, body).await?;
        loop {
            match self.hear().await? {
                Heard::Receipt(id) if id == receipt => return Ok(()),
                Heard::Message(message) => self.messages.push_back(message),
                _ => return Err(unexpected("the receipt of something else")),
            }
        }
    }

    async fn write(&mut self, verb: Verb, headers: &[(&str, &str)], body: &str) -> io::Result<()> {
        self.out.clear();
        let mut frame = FrameWriter::begin(&mut self.out, Version::V1_2, verb);
        for (name, value) in headers {
            frame.header(name, value);
        }
        frame.body(body.as_bytes());
        self.stream.write_all(&self.out).await
    }

    async fn hear(&mut self) -> io::Result<Heard> {
        loop {
            if let Some(heard) = self.heard()? {
                return Ok(heard);
            }
            if self.stream.read_buf(&mut self.decoder.room()).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn heard(&mut self) -> io::Result<Option<Heard>> {
        let Some(frame) = self.decoder.next_frame().map_err(io::Error::other)? else { return Ok(None) };
        let header = |name| frame.headers.find(name).unwrap_or_default().to_owned();
        Ok(Some(match frame.verb {
            Verb::Connected => Heard::Connected,
            Verb::Receipt => Heard::Receipt(header("receipt-id")),
            Verb::Message => Heard::Message(Message {
                id: header("message-id"),
                body: String::from_utf8_lossy(frame.body.as_bytes()).into_owned(),
                redelivered: frame.headers.find("redelivered") == Some("true"),
                ack: header("ack"),
            }),
            _ => return Err(io::Error::other(header("message"))),
        }))
    }
}

fn unexpected(what: &str) -> io::Error {
    io::Error::other(format!("the broker sent {what}"))
}
