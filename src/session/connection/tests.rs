//! Whole connections over a pipe, with a scripted engine. Time is paused: a test that waits costs nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::{
    io::DuplexStream,
    sync::{Mutex, Notify, mpsc},
    task::JoinHandle,
};

use super::{super::options::tests::options, *};
use crate::{
    broker::{Delivery, Receipt},
    engine::EngineGone,
    session::Authenticator,
    types::{BodyKind, BootTime, Charge, ConsumerNo, DeliveryTag, Message, MessageDraft, Meter, SessionId},
};

/// What a connection told the engine.
#[derive(Debug)]
enum Told {
    Requests(Vec<Request>),
    Written(Written),
    Closed,
}

/// Stands for the engine: the test reads what it is told and says what it answers.
#[derive(Clone)]
struct Script {
    told: mpsc::Sender<Told>,
    answers: Arc<Mutex<mpsc::Receiver<Vec<Outgoing>>>>,
    /// While it is set, `submit` waits.
    busy: Arc<AtomicBool>,
    freed: Arc<Notify>,
    gone: Arc<AtomicBool>,
    /// What it says of messages that the session holds.
    holds: Arc<AtomicBool>,
    asked: Arc<Notify>,
}

impl Door for Script {
    type Link = Self;

    async fn open(&self) -> Result<Self, EngineGone> {
        if self.gone.load(Ordering::Relaxed) { Err(EngineGone) } else { Ok(self.clone()) }
    }
}

impl Link for Script {
    fn id(&self) -> SessionId {
        SessionId(7)
    }

    async fn submit(&self, requests: Vec<Request>) -> Result<(), EngineGone> {
        while self.busy.load(Ordering::Relaxed) {
            self.freed.notified().await;
        }
        if self.gone.load(Ordering::Relaxed) {
            return Err(EngineGone);
        }
        self.told.send(Told::Requests(requests)).await.map_err(|_| EngineGone)
    }

    async fn written(&self, written: Written) -> Result<(), EngineGone> {
        self.told.send(Told::Written(written)).await.map_err(|_| EngineGone)
    }

    async fn take(&self, into: &mut Vec<Outgoing>) {
        match self.answers.lock().await.recv().await {
            Some(mut answers) => into.append(&mut answers),
            None => std::future::pending().await,
        }
    }

    async fn holds_messages(&self) -> Result<bool, EngineGone> {
        self.asked.notify_one();
        Ok(self.holds.load(Ordering::Relaxed))
    }

    async fn close(&self) {
        self.told.send(Told::Closed).await.unwrap();
    }
}

/// Both ends of one connection.
struct Scene {
    client: DuplexStream,
    told: mpsc::Receiver<Told>,
    answers: mpsc::Sender<Vec<Outgoing>>,
    script: Script,
    stop: CancellationToken,
    serving: JoinHandle<End>,
}

fn info() -> ConnectionInfo {
    ConnectionInfo {
        peer: ([127, 0, 0, 1], 50_000).into(),
        connector: "stomp".into(),
        frame_bytes_max: usize::MAX,
        certificate_name: None,
    }
}

#[expect(clippy::disallowed_methods, reason = "a test waits for its own task")]
fn start<F: Future<Output = End> + Send + 'static>(serving: F) -> JoinHandle<End> {
    tokio::spawn(serving)
}

fn script() -> (Script, mpsc::Receiver<Told>, mpsc::Sender<Vec<Outgoing>>) {
    let (told, is_told) = mpsc::channel(100);
    let (answers, answered) = mpsc::channel(100);
    let answered = Arc::new(Mutex::new(answered));
    let (busy, freed, gone, holds, asked) = Default::default();
    (Script { told, answers: answered, busy, freed, gone, holds, asked }, is_told, answers)
}

impl Scene {
    fn new() -> Self {
        Self::with(options(), info(), 64 << 10)
    }

    fn with(options: SessionOptions, info: ConnectionInfo, pipe_bytes: usize) -> Self {
        let (client, server) = tokio::io::duplex(pipe_bytes);
        let (script, told, answers) = script();
        let stop = CancellationToken::new();
        let door = script.clone();
        let stopped = stop.clone();
        let serving = start(async move { serve_through(server, info, &door, Arc::new(options), stopped).await });
        Self { client, told, answers, script, stop, serving }
    }

    /// A connection whose CONNECT was answered.
    async fn connected(headers: &str) -> Self {
        Self::new().connect(headers).await
    }

    async fn connect(mut self, headers: &str) -> Self {
        self.say(&format!("CONNECT\naccept-version:1.2{headers}\n\n^")).await;
        assert!(matches!(self.requests().await[..], [Command::Connect(_)]));
        self.answer([Outgoing::Connected]).await;
        assert!(self.hear().await.starts_with("CONNECTED\n"));
        self
    }

    async fn say(&mut self, frames: &str) {
        self.client.write_all(frames.replace('^', "\0").as_bytes()).await.unwrap();
    }

    /// It is a producer from now on.
    async fn sends(&mut self) {
        self.say("SEND\ndestination:/queue/a\n\n1^").await;
        assert!(matches!(self.requests().await[..], [Command::Send(_)]));
    }

    async fn answer(&self, answers: impl IntoIterator<Item = Outgoing>) {
        self.answers.send(answers.into_iter().collect()).await.unwrap();
    }

    /// The commands of the next batch.
    async fn requests(&mut self) -> Vec<Command> {
        match self.told.recv().await.unwrap() {
            Told::Requests(requests) => requests.into_iter().map(|request| request.command).collect(),
            other => panic!("no requests but {other:?}"),
        }
    }

    /// The next frame (or heart-beat) for the client.
    async fn hear(&mut self) -> String {
        let mut heard = Vec::new();
        loop {
            let byte = self.client.read_u8().await.unwrap();
            heard.push(byte);
            if byte == 0 || heard == b"\n" {
                return String::from_utf8(heard).unwrap();
            }
        }
    }

    /// All that comes until the end of the stream.
    async fn hear_all(&mut self) -> String {
        let mut heard = String::new();
        self.client.read_to_string(&mut heard).await.unwrap();
        heard
    }

    async fn end(self) -> End {
        drop(self.client);
        self.serving.await.unwrap()
    }
}

fn delivery(tag: u64, body_bytes: usize) -> Outgoing {
    let body = vec![b'x'; body_bytes].into();
    let draft = MessageDraft { body_kind: BodyKind::Bytes, body, ..MessageDraft::default() };
    Outgoing::Delivery(Delivery {
        consumer: ConsumerNo(1),
        tag: DeliveryTag(tag),
        message: Arc::new(Message::new(draft)),
        redelivered: false,
        deliveries: 1,
        shared: false,
    })
}

fn receipt(name: &str) -> Outgoing {
    Outgoing::Receipt(Receipt::from(name))
}

#[tokio::test(start_paused = true)]
async fn what_one_read_brings_is_one_batch() {
    let mut scene = Scene::connected("").await;
    scene
        .say("SEND\ndestination:/queue/a\n\n1^\nSEND\ndestination:/queue/a\n\n2^BEGIN\ntransaction:t\n\n^SEND\ndest")
        .await;
    let batch = scene.requests().await;
    assert!(matches!(batch[..], [Command::Send(_), Command::Send(_), Command::Begin(_)]), "{batch:?}");
    scene.say("ination:/queue/a\n\n3^").await;
    assert!(matches!(scene.requests().await[..], [Command::Send(_)]));
}

#[tokio::test(start_paused = true)]
async fn frames_behind_a_connect_in_the_same_packet_are_taken() {
    let mut scene = Scene::new();
    scene.say("CONNECT\naccept-version:1.1\n\n^SEND\ndestination:/queue/a\n\n1^").await;
    assert!(matches!(scene.requests().await[..], [Command::Connect(_), Command::Send(_)]));
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_gets_its_receipt_before_the_end() {
    let mut scene = Scene::connected("").await;
    scene.say("DISCONNECT\nreceipt:bye\n\n^").await;
    assert!(matches!(scene.requests().await[..], [Command::Disconnect]));
    scene.answer([receipt("bye"), Outgoing::Close(CloseReason::Disconnected)]).await;
    assert_eq!(scene.hear_all().await, "RECEIPT\nreceipt-id:bye\n\n\0");
    assert!(matches!(scene.told.recv().await, Some(Told::Closed)));
    assert_eq!(scene.end().await, End::Closed(CloseReason::Disconnected));
}

#[tokio::test(start_paused = true)]
async fn r4_a_bad_frame_is_refused_behind_all_before_it() {
    let mut scene = Scene::connected("").await;
    scene
        .say("SEND\ndestination:/queue/a\nreceipt:1\n\n1^PUBLISH\nreceipt:2\n\n^SEND\ndestination:/queue/a\n\n3^")
        .await;
    let batch = scene.requests().await;
    let [Command::Send(_), Command::Refuse(refusal)] = &batch[..] else { panic!("{batch:?}") };
    assert_eq!(refusal.message, "Unknown STOMP action: PUBLISH");
    assert!(refusal.fatal);
    let error = Outgoing::Error { refusal: refusal.clone(), receipt: None };
    scene.answer([receipt("1"), error, Outgoing::Close(CloseReason::Refused)]).await;
    let heard = scene.hear_all().await;
    assert!(
        heard.starts_with("RECEIPT\nreceipt-id:1\n\n\0ERROR\nmessage:Unknown STOMP action\\c PUBLISH\n"),
        "{heard}"
    );
    assert_eq!(scene.end().await, End::Refused("Unknown STOMP action: PUBLISH".into()));
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_connect_is_refused() {
    for (frame, message) in [
        (
            "SEND\ndestination:/queue/a\nreceipt:7\n\nx^",
            "Received an unexpected SEND frame before a CONNECT or STOMP frame",
        ),
        ("HELLO\n\n^", "Unknown STOMP action: HELLO"),
        ("CONNECT\naccept-version:9\n\n^", "Invalid Protocol version, supported versions are 1.0,1.1,1.2"),
        ("CONNECT\naccept-version:1.2\nheart-beat:x\n\n^", "Invalid heart-beat header: [x]"),
    ] {
        let mut scene = Scene::new();
        scene.say(frame).await;
        let heard = scene.hear_all().await;
        assert!(heard.starts_with(&format!("ERROR\nmessage:{message}\n")), "{heard}");
        assert_eq!(heard.contains("receipt-id:7"), frame.contains("receipt:7"));
        assert!(scene.told.try_recv().is_err(), "the engine knows nothing of it");
        assert_eq!(scene.end().await, End::Refused(message.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_connect_is_told_and_ended() {
    let mut scene = Scene::new();
    scene.say("CONNECT\naccept-ver").await;
    assert!(scene.hear_all().await.starts_with("ERROR\nmessage:No CONNECT frame was received within 30s\n"));
    assert_eq!(scene.end().await, End::NoConnect(Duration::from_secs(30)));
}

fn with_user() -> SessionOptions {
    use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version, password_hash::phc::PasswordHash};
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    let hash: PasswordHash = argon2.hash_password(b"secret").unwrap();
    let authenticator = Authenticator::new([("alice".into(), hash.to_string())]).unwrap();
    SessionOptions { authenticator: Arc::new(authenticator), ..options() }
}

#[tokio::test]
async fn a_user_proves_a_passcode() {
    let mut scene = Scene::with(with_user(), info(), 4_096);
    scene.say("CONNECT\naccept-version:1.2\nlogin:alice\npasscode:secret\nclient-id:c\n\n^").await;
    let batch = scene.requests().await;
    let [Command::Connect(connect)] = &batch[..] else { panic!("{batch:?}") };
    assert_eq!(connect.user.as_ref().unwrap().as_str(), "alice");
    assert_eq!(connect.client_id.as_ref().unwrap().as_str(), "c");
    for login in ["login:alice\npasscode:wrong\n", "login:bob\npasscode:secret\n", "login:alice\n", ""] {
        let mut scene = Scene::with(with_user(), info(), 4_096);
        scene.say(&format!("CONNECT\naccept-version:1.2\n{login}\n^")).await;
        let name = login.split(['\n', ':']).nth(1).unwrap_or_default();
        let message = format!("User name [{name}] or password is invalid.");
        assert!(scene.hear_all().await.starts_with(&format!("ERROR\nmessage:{message}\n")));
        assert_eq!(scene.end().await, End::Refused(message));
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_stands_for_a_login() {
    let info = ConnectionInfo { certificate_name: Some("CN=carol".into()), ..info() };
    let mut scene = Scene::with(with_user(), info, 4_096);
    scene.say("CONNECT\naccept-version:1.2\n\n^").await;
    let batch = scene.requests().await;
    let [Command::Connect(connect)] = &batch[..] else { panic!("{batch:?}") };
    assert_eq!(connect.user.as_ref().unwrap().as_str(), "CN=carol");
}

#[tokio::test(start_paused = true)]
async fn heart_beats_leave_early_also_while_the_reader_waits_for_the_engine() {
    let mut scene = Scene::connected("\nheart-beat:0,10000").await;
    scene.script.busy.store(true, Ordering::Relaxed);
    scene.say("SEND\ndestination:/queue/a\n\n1^").await;
    for _ in 0..3 {
        let before = Instant::now();
        assert_eq!(scene.hear().await, "\n");
        assert!(before.elapsed() <= Duration::from_secs(6), "after half of ten seconds");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_line_needs_few_heart_beats() {
    let mut scene = Scene::connected("\nheart-beat:0,10000").await;
    for number in 0..20 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        scene.answer([receipt(&number.to_string())]).await;
        assert!(scene.hear().await.starts_with("RECEIPT"), "a frame within every five seconds is sign enough");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_ended_after_grace_and_slack() {
    let mut scene = Scene::connected("\nheart-beat:10000,0").await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(19)).await; // late, but within twice its interval and a second
        scene.say("\n").await;
    }
    let quiet_since = Instant::now();
    let end = (&mut scene.serving).await.unwrap();
    assert_eq!(end, End::Silent(Duration::from_secs(21)));
    assert!((20..=22).contains(&quiet_since.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn r24_a_socket_that_we_do_not_read_is_never_judged_silent() {
    let mut scene = Scene::connected("\nheart-beat:1000,0").await;
    scene.script.busy.store(true, Ordering::Relaxed);
    scene.say("SEND\ndestination:/queue/a\n\n1^").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!scene.serving.is_finished());
    scene.script.busy.store(false, Ordering::Relaxed);
    scene.script.freed.notify_one();
    assert!(matches!(scene.requests().await[..], [Command::Send(_)]));
    scene.say("BEGIN\ntransaction:t\n\n^").await;
    assert!(matches!(scene.requests().await[..], [Command::Begin(_)]));
}

/// What is there is not a lie yet, but may be one when it arrives.
#[tokio::test(start_paused = true)]
async fn r24_past_the_lease_heart_beats_leave_and_nothing_else() {
    let (keeper, mandate) = Mandate::until(BootTime::now().after(FAR));
    let scene = Scene::with(SessionOptions { mandate, ..options() }, info(), 64 << 10);
    let mut scene = scene.connect("\nheart-beat:0,1000").await;
    keeper.prove(BootTime::now());
    scene.answer([receipt("late")]).await;
    for _ in 0..5 {
        assert_eq!(scene.hear().await, "\n");
    }
    keeper.prove(BootTime::now().after(FAR));
    assert!(scene.hear().await.starts_with("RECEIPT\nreceipt-id:late"));
    keeper.lose("another broker took over");
    scene.answer([receipt("never")]).await;
    assert_eq!(scene.hear_all().await, "");
    assert_eq!(scene.end().await, End::STOPPING);
}

#[tokio::test(start_paused = true)]
async fn r24_heart_beats_leave_while_the_engine_does_not_hear_of_what_was_written() {
    let mut scene = Scene::connected("\nheart-beat:0,1000").await;
    scene.say("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^").await;
    assert!(matches!(scene.requests().await[..], [Command::Subscribe(_)]));
    for tag in 1..=101 {
        scene.answer([delivery(tag, 1)]).await; // more than the engine has room for, which takes none
        assert!(scene.hear().await.starts_with("MESSAGE"));
    }
    for _ in 0..5 {
        assert_eq!(scene.hear().await, "\n");
    }
}

#[tokio::test(start_paused = true)]
async fn r3_the_engine_hears_of_deliveries_after_their_bytes_left() {
    let mut scene = Scene::with(options(), info(), 1_000).connect("").await;
    scene.say("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^").await;
    assert!(matches!(scene.requests().await[..], [Command::Subscribe(_)]));
    scene.answer([delivery(1, 600), delivery(2, 600)]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(scene.told.try_recv().is_err(), "half of the second message does not fit into the pipe");
    assert!(scene.hear().await.starts_with("MESSAGE"));
    assert!(scene.hear().await.starts_with("MESSAGE"));
    match scene.told.recv().await.unwrap() {
        Told::Written(written) => assert_eq!(written.last.to_vec(), [(ConsumerNo(1), DeliveryTag(2))]),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn each_chunk_is_reported_once() {
    let mut scene = Scene::with(options(), info(), 10 << 20).connect("").await;
    scene.say("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^").await;
    assert!(matches!(scene.requests().await[..], [Command::Subscribe(_)]));
    scene.answer((1..=100).map(|tag| delivery(tag, 1_024))).await;
    let (mut reports, mut last) = (0, 0);
    while last < 100 {
        let Told::Written(written) = scene.told.recv().await.unwrap() else { panic!("no report") };
        reports += 1;
        last = written.last[0].1.0;
    }
    assert_eq!(reports, 2, "about 64 KiB each");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_ended_with_the_reason() {
    let mut scene = Scene::with(options(), info(), 1_000).connect("").await;
    scene.say("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^").await;
    assert!(matches!(scene.requests().await[..], [Command::Subscribe(_)]));
    scene.answer([delivery(1, 100_000)]).await;
    let end = (&mut scene.serving).await.unwrap();
    assert_eq!(end, End::Closed(CloseReason::SlowConsumer("its socket took nothing for 60s".into())));
    assert!(matches!(scene.told.recv().await, Some(Told::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_but_reads_is_kept() {
    let mut scene = Scene::with(options(), info(), 1_000).connect("").await;
    scene.say("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^").await;
    assert!(matches!(scene.requests().await[..], [Command::Subscribe(_)]));
    scene.answer([delivery(1, 10_000)]).await;
    let mut part = [0; 500];
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        scene.client.read_exact(&mut part).await.unwrap();
    }
    assert!(!scene.serving.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_receipts_then_ends() {
    let mut scene = Scene::connected("").await;
    scene.say("SEND\ndestination:/queue/a\nreceipt:1\n\n1^").await;
    assert!(matches!(scene.requests().await[..], [Command::Send(_)]));
    scene.stop.cancel();
    assert!(matches!(scene.requests().await[..], [Command::Disconnect]));
    scene.answer([receipt("1"), Outgoing::Close(CloseReason::Disconnected)]).await;
    assert_eq!(scene.hear_all().await, "RECEIPT\nreceipt-id:1\n\n\0");
    assert_eq!(scene.end().await, End::STOPPING);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_bounded_whatever_the_engine_and_the_client_do() {
    let mut scene = Scene::connected("").await;
    scene.script.busy.store(true, Ordering::Relaxed);
    scene.say("SEND\ndestination:/queue/a\n\n1^").await;
    let before = Instant::now();
    scene.stop.cancel();
    assert_eq!((&mut scene.serving).await.unwrap(), End::STOPPING);
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_is_reported_to_the_engine() {
    let mut scene = Scene::connected("").await;
    drop(std::mem::replace(&mut scene.client, tokio::io::duplex(1).0));
    assert!(matches!(scene.told.recv().await, Some(Told::Closed)));
    assert_eq!(scene.end().await, End::PeerGone);
}

#[tokio::test(start_paused = true)]
async fn a_term_that_is_over_ends_its_connections() {
    let mut scene = Scene::connected("").await;
    scene.script.gone.store(true, Ordering::Relaxed);
    scene.say("SEND\ndestination:/queue/a\n\n1^").await;
    assert_eq!(scene.hear_all().await, "");
    assert_eq!(scene.end().await, End::STOPPING);
}

/// A connection of a term whose memory has `limit` bytes.
async fn in_memory_of(limit: usize, charged: usize) -> (Scene, Meter, Charge) {
    let meter = Meter::new(limit);
    let charge = meter.charge(charged);
    let scene = Scene::with(SessionOptions { meter: meter.clone(), ..options() }, info(), 64 << 10);
    (scene.connect("\nheart-beat:1000,1000").await, meter, charge)
}

#[tokio::test(start_paused = true)]
async fn r31_while_memory_is_full_a_session_that_holds_nothing_is_not_read_and_not_judged() {
    let (mut scene, _meter, charge) = in_memory_of(1_000, 1_000).await;
    scene.sends().await;
    scene.say("SEND\ndestination:/queue/a\n\n2^").await;
    for _ in 0..15 {
        assert_eq!(scene.hear().await, "\n", "heart-beats go on");
    }
    assert!(scene.told.try_recv().is_err(), "it is not read");
    drop(charge);
    assert!(matches!(scene.requests().await[..], [Command::Send(_)]));
}

#[tokio::test(start_paused = true)]
async fn r31_who_sent_nothing_may_subscribe_while_memory_is_full() {
    let (mut scene, _meter, _charge) = in_memory_of(1_000, 1_000).await;
    let begun = Instant::now();
    scene.say("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^").await;
    assert!(matches!(scene.requests().await[..], [Command::Subscribe(_)]));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn r31_nobody_goes_unread_for_ever() {
    let (mut scene, _meter, _charge) = in_memory_of(1_000, 1_000).await;
    scene.sends().await;
    let begun = Instant::now();
    scene.say("SEND\ndestination:/queue/a\n\n2^").await;
    assert!(matches!(scene.requests().await[..], [Command::Send(_)]));
    assert_eq!(begun.elapsed(), MEMORY_PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn r31_while_memory_is_full_a_session_that_gets_a_delivery_is_read() {
    let (mut scene, _meter, _charge) = in_memory_of(1_000, 1_000).await;
    scene.sends().await;
    scene.say("ACK\nid:1-1\n\n^").await;
    scene.script.asked.notified().await;
    assert!(scene.told.try_recv().is_err(), "it holds nothing");
    scene.script.holds.store(true, Ordering::Relaxed);
    scene.answer([delivery(1, 0)]).await;
    assert!(matches!(scene.told.recv().await, Some(Told::Written(_))));
    assert!(matches!(scene.requests().await[..], [Command::Ack(_)]));
}

#[tokio::test(start_paused = true)]
async fn r31_what_was_read_of_a_large_frame_counts_and_does_not_wait_for_memory_for_ever() {
    let (mut scene, meter, _charge) = in_memory_of(100 << 10, 1_000).await;
    scene.script.holds.store(true, Ordering::Relaxed); // its next frame is no ACK all the same
    let (begun, part) = (Instant::now(), "x".repeat(60 << 10));
    scene.say(&format!("SEND\ndestination:/queue/a\ncontent-length:300000\n\n{part}")).await;
    scene.say(&part).await;
    let batch = scene.requests().await;
    let [Command::Refuse(refusal)] = &batch[..] else { panic!("{batch:?}") };
    assert_eq!((refusal.message.as_str(), refusal.fatal), ("The broker's memory is full.", true));
    assert!((FRAME_PATIENCE..MEMORY_PATIENCE).contains(&begun.elapsed()), "whole SENDs wait for what it takes");
    assert_eq!(meter.in_use(), 1_000, "what was read is gone");
    let error = Outgoing::Error { refusal: refusal.clone(), receipt: None };
    scene.answer([error, Outgoing::Close(CloseReason::Refused)]).await;
    assert!(scene.hear_all().await.contains("ERROR\nmessage:The broker's memory is full.\n"));
    assert_eq!(scene.end().await, End::Refused("The broker's memory is full.".into()));
}

#[tokio::test(start_paused = true)]
async fn r31_a_large_frame_goes_on_when_there_is_memory() {
    let (mut scene, meter, charge) = in_memory_of(200 << 10, 100 << 10).await;
    let part = "x".repeat(60 << 10);
    scene.say(&format!("SEND\ndestination:/queue/a\ncontent-length:{}\n\n{part}", 3 * part.len())).await;
    scene.say(&part).await;
    while !meter.is_full() {
        tokio::task::yield_now().await;
    }
    drop(charge);
    scene.say(&format!("{part}^")).await;
    let batch = scene.requests().await;
    let [Command::Send(send)] = &batch[..] else { panic!("{batch:?}") };
    assert_eq!(meter.in_use(), send.message.size(), "the frame is a message now");
}

#[tokio::test(start_paused = true)]
async fn r31_frames_that_a_client_does_not_take_count() {
    let (mut scene, meter, _charge) = in_memory_of(1 << 20, 0).await;
    scene.say("SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\n\n^").await;
    assert!(matches!(scene.requests().await[..], [Command::Subscribe(_)]));
    scene.answer((1..=20).map(|tag| delivery(tag, 10_000))).await;
    while meter.in_use() == 0 {
        tokio::task::yield_now().await;
    }
    drop(std::mem::replace(&mut scene.client, tokio::io::duplex(1).0));
    assert!(matches!(scene.end().await, End::Lost(_) | End::PeerGone));
    assert_eq!(meter.in_use(), 0);
}

/// Bytes that nobody reads make the kernel throw away what it has not sent yet: here, most of a large message and the
/// ERROR behind it.
#[tokio::test]
async fn no_reset_eats_an_error_over_tcp() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = tokio::net::TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(4 << 10).unwrap();
    let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let (script, mut told, answers) = script();
    let serving =
        start(
            async move { serve_through(server, info(), &script, Arc::new(options()), CancellationToken::new()).await },
        );
    let (mut reads, mut writes) = client.into_split();
    let frames = "CONNECT\naccept-version:1.2\n\n\0SUBSCRIBE\nid:1\ndestination:/queue/a\n\n\0PUBLISH\n\n\0";
    let behind = "SEND\ndestination:/queue/a\n\nbody\0".repeat(20_000);
    let writing = async { writes.write_all((frames.to_owned() + &behind).as_bytes()).await };
    let engine = async {
        let refusal = loop {
            let Some(Told::Requests(requests)) = told.recv().await else { continue };
            let refused = requests.into_iter().find_map(|request| match request.command {
                Command::Refuse(refusal) => Some(refusal),
                _ => None,
            });
            if let Some(refusal) = refused {
                break refusal;
            }
        };
        let error = Outgoing::Error { refusal, receipt: None };
        let close = Outgoing::Close(CloseReason::Refused);
        answers.send(vec![Outgoing::Connected, delivery(1, 300_000), error, close]).await.unwrap();
        while told.recv().await.is_some() {}
        std::future::pending::<()>().await;
    };
    let reading = async {
        tokio::time::sleep(Duration::from_millis(200)).await; // until the client's small buffer is full
        let mut heard = String::new();
        reads.read_to_string(&mut heard).await.map(|_| heard)
    };
    let client = async { tokio::join!(writing, reading).1 };
    let heard = tokio::select! { heard = client => heard, () = engine => unreachable!("it waits") };
    assert!(heard.unwrap().contains("\0ERROR\nmessage:Unknown STOMP action\\c PUBLISH\n"));
    drop(writes);
    assert_eq!(serving.await.unwrap(), End::Refused("Unknown STOMP action: PUBLISH".into()));
}

/// Compiles: a listener can give a connection to a task.
#[test]
fn serving_can_be_a_task() {
    fn is_task<F: Future + Send + 'static>(_: impl FnOnce(EngineHandle) -> F) {}
    is_task(|engine| {
        let stream = tokio::io::duplex(1).0;
        serve(stream, info(), engine, Arc::new(options()), CancellationToken::new())
    });
}
