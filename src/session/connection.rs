//! One connection: a reader and a writer that run side by side until one of them ends it.
//!
//! Owns the socket and its buffers.
//! Always true: the writer never waits for the reader, so deliveries, receipts and heart-beats leave while the reader
//! waits for the engine. The engine hears of deliveries after their bytes are in the kernel (R3). Timers are set anew
//! only when they fire, never for a message. A socket that we do not read is never judged silent. While memory is full
//! the reader waits, unless the session holds messages that its next frame may give back (R31).
//! On failure: the engine is told that the session is over, whatever ended it; an ERROR and all before it is flushed,
//! and the socket is read a little longer, so that no reset eats it.

use std::{io, net::SocketAddr, pin::Pin, pin::pin, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    ConnectionInfo, End, SessionOptions,
    end::{Identity, log},
    link::{Door, Link},
    socket::{Reads, Writes, lost},
    stomp::{
        Flow, HeartBeat, Hello, Renderer, Subscribers, Translator, connected_frame, put_error, refusal_of, session_name,
    },
};
use crate::{
    broker::{CloseReason, Command, Connect, Outgoing, Refusal, Request},
    codec::stomp::{Decoder, Sender, Version},
    engine::{EngineGone, EngineHandle, Written},
    types::{Mandate, Text},
};

/// The broker sends after this part of a promised interval, so that a client with a strict clock is content.
const HEART_BEAT_EARLY: f64 = 0.5;
/// More grace than this is no check at all. Unit: promised intervals.
const GRACE_MAX: f64 = 1_000.0;
/// On top of a client's promised intervals, for scheduling and the network.
const HEART_BEAT_SLACK: Duration = Duration::from_secs(1);
/// How long a polite end may take: receipts that are due, and the peer's reading of the last frame.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);
/// What is read and thrown away meanwhile. Unit: bytes.
const LINGER_BYTES_MAX: usize = 1 << 20;
/// How long nothing is read for want of memory; as long as a SEND waits for room in a queue (R8).
const MEMORY_PATIENCE: Duration = Duration::from_secs(10);
/// How long the rest of a large frame waits for memory. What is read of it takes up what whole SENDs wait for, and in a
/// transaction so does what came before it: so it gives way before they are refused.
const FRAME_PATIENCE: Duration = Duration::from_secs(5);
/// Stands for "never" where a timer needs a time.
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// Serves one connection from its first byte to its end.
///
/// Ends by itself when `stop` is cancelled, after the receipts of what it has taken, within a few seconds. It must not
/// be dropped before: the engine would not hear of the session's end. What the peer still has to read then is left to
/// the farewells of `options`: nobody who takes over has to wait for a client that keeps its socket open.
pub async fn serve<S>(
    stream: S,
    info: ConnectionInfo,
    engine: EngineHandle,
    options: Arc<SessionOptions>,
    stop: CancellationToken,
) -> End
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    serve_through(stream, info, &engine, options, stop).await
}

/// [`serve`], with whatever stands for the engine.
async fn serve_through<S, D>(
    stream: S,
    info: ConnectionInfo,
    door: &D,
    options: Arc<SessionOptions>,
    stop: CancellationToken,
) -> End
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    D: Door,
{
    let (reads, writes) = tokio::io::split(stream);
    let decoder = Decoder::new(Sender::Client, options.decode_limits(&info));
    let mut connection = Connection {
        reads: Reads::new(reads, decoder, &options),
        writes: Writes::new(writes, &options),
        info,
        options,
        stop,
        who: Identity::default(),
    };
    let end = connection.run(door).await;
    let Connection { reads, writes, info, options, stop, who } = connection;
    if end.is_orderly() {
        let mut parting = Box::pin(part(reads.half.unsplit(writes.half), info.peer));
        tokio::select! {
            biased;
            () = &mut parting => {}
            () = stop.cancelled() => options.farewells.spawn("farewell", parting),
        }
    }
    log(&info, &who, &end);
    end
}

struct Connection<S> {
    reads: Reads<S>,
    writes: Writes<S>,
    info: ConnectionInfo,
    options: Arc<SessionOptions>,
    stop: CancellationToken,
    who: Identity,
}

/// A CONNECT that was not accepted.
struct Rejection {
    refusal: Option<Refusal>,
    receipt: Option<String>,
    end: End,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    async fn run(&mut self, door: &impl Door) -> End {
        let stop = self.stop.clone();
        let greeted = tokio::select! {
            biased;
            () = stop.cancelled() => return End::STOPPING,
            greeted = self.greet() => greeted,
        };
        match greeted {
            Ok(hello) => self.converse(hello, door).await,
            Err(rejection) => self.reject(rejection).await,
        }
    }

    /// Waits for CONNECT and finds out who it is. The engine knows nothing of the connection yet.
    async fn greet(&mut self) -> Result<Hello, Rejection> {
        let hello = self.read_hello().await?;
        debug!(peer = %self.info.peer, version = %hello.version, host = hello.host, "CONNECT");
        let authenticated = self.authenticate(&hello).await;
        authenticated.map_err(|rejection| Rejection { receipt: hello.request.clone(), ..rejection })?;
        self.who.client_id.clone_from(&hello.client_id);
        Ok(hello)
    }

    async fn read_hello(&mut self) -> Result<Hello, Rejection> {
        let limit = self.options.stomp.connect_timeout;
        let deadline = Instant::now() + limit;
        loop {
            match self.reads.next_frame() {
                Ok(Some(frame)) => {
                    let receipt = frame.headers.find("receipt").map(str::to_owned);
                    let hello = Hello::read(&frame, self.options.stomp.heart_beat_min);
                    return hello.map_err(|refusal| Rejection::new(refusal, receipt));
                }
                Ok(None) => {}
                Err(error) => {
                    let receipt = self.reads.decoder.receipt_of_failed().map(str::to_owned);
                    return Err(Rejection::new(refusal_of(&error), receipt));
                }
            }
            self.reads.count();
            match timeout_at(deadline, self.reads.read()).await {
                Ok(Ok(0)) => return Err(Rejection::silent(End::PeerGone)),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(Rejection::silent(lost(&error))),
                Err(_) => {
                    let message = format!("No CONNECT frame was received within {limit:?}");
                    let advice = "The first frame of a connection is CONNECT or STOMP.";
                    let rejection = Rejection::new(Refusal::fatal(message, advice), None);
                    return Err(Rejection { end: End::NoConnect(limit), ..rejection });
                }
            }
        }
    }

    async fn authenticate(&mut self, hello: &Hello) -> Result<(), Rejection> {
        let authenticator = &self.options.authenticator;
        if authenticator.is_anonymous() {
            return Ok(());
        }
        let Some(login) = &hello.login else {
            let certified = self.info.certificate_name.clone();
            self.who.user = Some(certified.ok_or_else(|| wrong_password(""))?);
            return Ok(());
        };
        let limit = self.options.stomp.connect_timeout;
        match timeout(limit, authenticator.verify(login, &hello.passcode.0)).await {
            Ok(true) => {
                self.who.user = Some(Text::from(login.as_str()));
                Ok(())
            }
            Ok(false) => Err(wrong_password(login)),
            Err(_) => {
                let message = "Too many connections are waiting for their passwords to be checked";
                Err(Rejection::new(Refusal::fatal(message, "Try again in a few seconds."), None))
            }
        }
    }

    async fn reject(&mut self, rejection: Rejection) -> End {
        if let Some(refusal) = &rejection.refusal {
            put_error(self.writes.output().buffer(), Version::V1_0, refusal, rejection.receipt.as_deref());
            if let Err(end) = self.writes.flush().await {
                debug!(peer = %self.info.peer, reason = %end, "the peer did not take its ERROR");
            }
        }
        rejection.end
    }

    /// From CONNECT to the end, with the engine.
    async fn converse(&mut self, hello: Hello, door: &impl Door) -> End {
        let _counted = self.options.traffic.session(("stomp", hello.version.as_str()));
        let Ok(link) = door.open().await else { return End::STOPPING };
        let name = session_name(&self.options, link.id());
        let subscribers = Arc::new(Subscribers::default());
        let connected = connected_frame(&hello, &name);
        let delivered = Notify::new();
        self.reads.decoder.speak(hello.version);
        let reader = Reader {
            translator: Translator::new(Arc::clone(&self.options), &hello, link.id(), Arc::clone(&subscribers)),
            link: &link,
            reads: &mut self.reads,
            delivered: &delivered,
            patience: FRAME_PATIENCE,
            silence: silence_limit(hello.heart_beat, self.options.stomp.heart_beat_grace),
            options: &self.options,
        };
        let writer = Writer {
            renderer: Renderer::new(hello.version, &name, connected, subscribers),
            link: &link,
            writes: &mut self.writes,
            mandate: self.options.mandate.clone(),
            delivered: &delivered,
            interval: hello.heart_beat.sends.map(|interval| interval.mul_f64(HEART_BEAT_EARLY)),
        };
        let connect = Connect {
            user: self.who.user.clone(),
            client_id: hello.client_id.clone(),
            lenient: self.options.stomp.lenient,
        };
        let end = Self::exchange(connect, reader, writer, &link, &self.stop).await;
        link.close().await;
        end
    }

    async fn exchange<L: Link>(
        connect: Connect,
        reader: Reader<'_, S, L>,
        writer: Writer<'_, S, L>,
        link: &L,
        stop: &CancellationToken,
    ) -> End {
        let mut reader = pin!(reader.run(connect));
        let mut writer = pin!(writer.run());
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            end = both(reader.as_mut(), writer.as_mut()) => return end,
        }
        // What was taken gets its receipts, then the engine ends the session. Nothing more is read.
        let farewell = async {
            let goodbye = Request { command: Command::Disconnect, receipt: None, bytes: 0 };
            if link.submit(vec![goodbye]).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        let farewell = timeout(FAREWELL_PATIENCE, farewell);
        tokio::select! {
            _ = farewell => {}
            _ = &mut writer => {}
        }
        End::STOPPING
    }
}

/// Ends the socket so that the peer can read the last frame: after our end of file its bytes are taken for a while,
/// because bytes that nobody reads make the kernel answer with a reset, which throws away what is on its way.
async fn part<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, peer: SocketAddr) {
    let linger = async {
        stream.shutdown().await?;
        let mut rest = [0; 1 << 10]; // small, because every connection that ends has room for it
        let mut taken = 0;
        while taken < LINGER_BYTES_MAX {
            match stream.read(&mut rest).await? {
                0 => break,
                count => taken += count,
            }
        }
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = timeout(FAREWELL_PATIENCE, linger).await {
        debug!(%peer, %error, "the peer was gone before the end of the connection");
    }
}

/// Runs both sides until one of them ends the connection. A reader that has nothing more to do leaves the rest to the
/// writer.
async fn both(
    mut reader: Pin<&mut impl Future<Output = Reading>>,
    mut writer: Pin<&mut impl Future<Output = End>>,
) -> End {
    tokio::select! {
        biased;
        end = &mut writer => return end,
        reading = &mut reader => {
            if let Reading::Over(end) = reading {
                return end;
            }
        }
    }
    writer.await
}

impl Rejection {
    fn new(refusal: Refusal, receipt: Option<String>) -> Self {
        let end = End::Refused(refusal.message.clone());
        Self { refusal: Some(refusal), receipt, end }
    }

    fn silent(end: End) -> Self {
        Self { refusal: None, receipt: None, end }
    }
}

/// The same for a wrong name and a wrong password.
fn wrong_password(login: &str) -> Rejection {
    let message = format!("User name [{login}] or password is invalid.");
    Rejection::new(Refusal::fatal(message, "Check the headers login and passcode of CONNECT."), None)
}

fn silence_limit(heart_beat: HeartBeat, grace: f64) -> Option<Duration> {
    let grace = grace.max(1.0); // NaN too
    heart_beat.hears.map(|interval| interval.mul_f64(grace.min(GRACE_MAX)) + HEART_BEAT_SLACK)
}

/// How a reader ended.
enum Reading {
    /// The connection is over with it.
    Over(End),
    /// No frame follows; the engine will end the session when its answers are out.
    Finished,
}

/// Frames to the engine.
struct Reader<'a, S, L> {
    translator: Translator,
    link: &'a L,
    reads: &'a mut Reads<S>,
    /// The writer has written deliveries.
    delivered: &'a Notify,
    /// `None`: the client promised nothing.
    silence: Option<Duration>,
    /// How long the frame that is half read may still wait for memory.
    patience: Duration,
    options: &'a SessionOptions,
}

impl<S: AsyncRead + Unpin, L: Link> Reader<'_, S, L> {
    async fn run(mut self, connect: Connect) -> Reading {
        let bytes = 0;
        let mut requests = vec![Request { command: Command::Connect(connect), receipt: None, bytes }];
        let mut expected = 0;
        let mut heard = Instant::now();
        let mut alarm = pin!(sleep_until(heard + self.silence.unwrap_or(FAR)));
        loop {
            let flow = self.translate(&mut requests);
            if !requests.is_empty() {
                expected = requests.len(); // as many as the last time
                self.patience = FRAME_PATIENCE;
                if self.link.submit(std::mem::take(&mut requests)).await.is_err() {
                    return Reading::Over(End::STOPPING);
                }
                heard = Instant::now(); // after the wait: while we did not listen, the client was not silent
            }
            if flow == Flow::Finished {
                return Reading::Finished;
            }
            self.reads.count();
            if self.options.meter.is_full() {
                match self.await_memory().await {
                    Ok(()) => heard = Instant::now(),
                    Err(reading) => return reading,
                }
            }
            let limit = self.silence.unwrap_or(FAR);
            loop {
                tokio::select! {
                    biased;
                    read = self.reads.read() => match read {
                        Ok(0) => return Reading::Over(End::PeerGone),
                        Ok(_) => break,
                        Err(error) => return Reading::Over(lost(&error)),
                    },
                    () = &mut alarm => {
                        if heard.elapsed() >= limit {
                            return Reading::Over(End::Silent(limit));
                        }
                        alarm.as_mut().reset(heard + limit);
                    }
                }
            }
            heard = Instant::now();
            requests.reserve(expected);
        }
    }

    /// Waits until memory is not full, or what comes next may be what makes room: an ACK, a COMMIT, an ABORT, the
    /// SUBSCRIBE of somebody who sent nothing yet (R31). Who is in the middle of a large frame sends none of these
    /// before its end. Nobody waits for ever: the rest of a large frame is refused in the end, and everybody else is
    /// read once more, so that a SEND is held by the core and then refused (R8).
    async fn await_memory(&mut self) -> Result<(), Reading> {
        self.reads.return_buffer();
        let meter = &self.options.meter;
        if self.reads.is_within_large_frame() {
            let since = Instant::now();
            let has_room = timeout(self.patience, meter.room()).await.is_ok();
            self.patience = self.patience.saturating_sub(since.elapsed());
            return if has_room { Ok(()) } else { Err(self.refuse_frame().await) };
        }
        if !self.translator.has_sent() {
            return Ok(());
        }
        let mut patience = pin!(sleep(MEMORY_PATIENCE));
        while !self.link.holds_messages().await.map_err(|EngineGone| Reading::Over(End::STOPPING))? {
            tokio::select! {
                () = meter.room() => break,
                () = self.delivered.notified() => {}
                () = &mut patience => break,
            }
        }
        Ok(())
    }

    /// There is no room for the rest of a frame.
    async fn refuse_frame(&mut self) -> Reading {
        self.reads.give_up();
        let command = Command::Refuse(Refusal { fatal: true, ..Refusal::memory_full() });
        match self.link.submit(vec![Request { command, receipt: None, bytes: 0 }]).await {
            Ok(()) => Reading::Finished,
            Err(EngineGone) => Reading::Over(End::STOPPING),
        }
    }

    /// Everything that is there, as one batch.
    fn translate(&mut self, requests: &mut Vec<Request>) -> Flow {
        let now = self.options.clock.now();
        self.translator.forget_declined();
        loop {
            let error = match self.reads.next_frame() {
                Ok(None) => return Flow::Continue,
                Ok(Some(frame)) => match self.translator.translate(now, frame, requests) {
                    Flow::Continue => continue,
                    Flow::Finished => return Flow::Finished,
                },
                Err(error) => error,
            };
            let receipt = self.reads.decoder.receipt_of_failed().map(Into::into);
            requests.push(Request { command: Command::Refuse(refusal_of(&error)), receipt, bytes: 0 });
            return Flow::Finished;
        }
    }
}

/// Answers to the socket.
struct Writer<'a, S, L> {
    renderer: Renderer,
    link: &'a L,
    writes: &'a mut Writes<S>,
    mandate: Mandate,
    /// Tells the reader of deliveries.
    delivered: &'a Notify,
    /// How long the socket may be quiet before a heart-beat.
    interval: Option<Duration>,
}

impl<S: AsyncWrite + Unpin, L: Link> Writer<'_, S, L> {
    async fn run(mut self) -> End {
        let mut waiting = Vec::new();
        let interval = self.interval.unwrap_or(FAR);
        let mut sent = Instant::now();
        let mut beat = pin!(sleep_until(sent + interval));
        loop {
            let result = tokio::select! {
                biased;
                () = self.link.take(&mut waiting) => {
                    let result = self.write_all(&mut waiting).await;
                    sent = Instant::now();
                    result
                }
                () = &mut beat => {
                    let now = Instant::now();
                    let due = now >= sent + interval && self.renderer.has_greeted();
                    let result = if due { self.beat().await } else { Ok(()) };
                    sent = if due { now } else { sent };
                    let next = sent + interval;
                    beat.as_mut().reset(if next > now { next } else { now + interval });
                    result
                }
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    /// Renders and writes what the engine gave, a chunk at a time.
    async fn write_all(&mut self, waiting: &mut Vec<Outgoing>) -> Result<(), End> {
        let mut waiting = waiting.drain(..);
        while waiting.len() > 0 {
            if !self.mandate.holds() {
                // R24: what was given may be another broker's to give by now.
                let mandate = self.mandate.clone();
                self.beat_until(mandate.until_it_holds()).await?.map_err(|_| End::STOPPING)?;
            }
            let mut written = Written::default();
            let close = self.renderer.render_chunk(&mut waiting, self.writes.output(), &mut written);
            self.writes.flush().await?;
            if written.bytes > 0 {
                self.delivered.notify_one();
                let link = self.link;
                self.beat_until(link.written(written)).await?.map_err(|_| End::STOPPING)?;
            }
            if let Some(reason) = close {
                return Err(self.end_of(reason));
            }
        }
        Ok(())
    }

    /// Waits for something, and nothing leaves meanwhile but heart-beats.
    async fn beat_until<T>(&mut self, done: impl Future<Output = T>) -> Result<T, End> {
        let mut done = pin!(done);
        loop {
            let interval = self.interval.filter(|_| self.renderer.has_greeted()).unwrap_or(FAR);
            tokio::select! {
                biased;
                done = &mut done => return Ok(done),
                () = sleep(interval) => self.beat().await?,
            }
        }
    }

    fn end_of(&self, reason: CloseReason) -> End {
        match (reason, self.renderer.refused()) {
            (CloseReason::Refused, Some(message)) => End::Refused(message.to_owned()),
            (reason, _) => End::Closed(reason),
        }
    }

    async fn beat(&mut self) -> Result<(), End> {
        self.writes.output().buffer().push(b'\n');
        self.writes.flush().await
    }
}

#[cfg(test)]
mod tests;
