//! As much of a STOMP client as the benches need.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

/// The address of a broker's one connector, once it is published in its data directory.
pub(crate) fn published(data: &Path) -> anyhow::Result<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let listeners = fs::read_to_string(data.join(batonmq::server::LISTENERS_FILE)).unwrap_or_default();
        if let Some((_, address)) = listeners.trim().split_once("://") {
            return Ok(address.to_owned());
        }
        ensure!(Instant::now() < deadline, "the broker opened no port");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A connection.
pub(crate) struct Client {
    socket: TcpStream,
    frame: Vec<u8>,
}

impl Client {
    /// Connects and waits for CONNECTED.
    pub(crate) fn connect(address: &str) -> anyhow::Result<Self> {
        let mut client = Self { socket: TcpStream::connect(address)?, frame: Vec::new() };
        client.socket.set_nodelay(true)?;
        client.say("CONNECT\naccept-version:1.2\nhost:x\nheart-beat:0,0\n\n\0")?;
        client.hear_until("CONNECTED", &mut client.reader(1)?)?;
        Ok(client)
    }

    /// Reads so many bytes at a time; of one byte it leaves nothing unread behind a frame.
    pub(crate) fn reader(&self, bytes: usize) -> io::Result<BufReader<TcpStream>> {
        Ok(BufReader::with_capacity(bytes, self.socket.try_clone()?))
    }

    /// Writes frames.
    pub(crate) fn say(&self, frames: &str) -> io::Result<()> {
        (&self.socket).write_all(frames.as_bytes())
    }

    /// The next frame.
    pub(crate) fn hear(&mut self, reader: &mut impl BufRead) -> anyhow::Result<&str> {
        self.frame.clear();
        ensure!(reader.read_until(0, &mut self.frame)? > 0, "the broker closed the connection");
        std::str::from_utf8(&self.frame).context("a frame is text here")
    }

    /// The next frame that holds `text`.
    pub(crate) fn hear_until(&mut self, text: &str, reader: &mut impl BufRead) -> anyhow::Result<String> {
        loop {
            let frame = self.hear(reader)?;
            if frame.contains(text) {
                return Ok(frame.to_owned());
            }
        }
    }
}

/// A header's value.
pub(crate) fn header<'a>(frame: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let value = frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.with_context(|| format!("no {name} in {frame:?}"))
}
