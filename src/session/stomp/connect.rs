//! CONNECT and CONNECTED: what a client says of itself, and what both sides agree on.

use std::{fmt, time::Duration};

use super::{Version, non_empty, unsupported};
use crate::{
    broker::Refusal,
    codec::stomp::{Frame, FrameWriter, Headers, SUPPORTED_VERSIONS, Verb},
    types::Text,
};

/// What a CONNECT says.
#[derive(Debug)]
pub(in crate::session) struct Hello {
    pub(in crate::session) version: Version,
    pub(in crate::session) login: Option<String>,
    pub(in crate::session) passcode: Passcode,
    pub(in crate::session) client_id: Option<Text>,
    pub(in crate::session) host: Option<String>,
    pub(in crate::session) heart_beat: HeartBeat,
    /// Echoed on CONNECTED, or on the ERROR instead.
    pub(in crate::session) request: Option<String>,
}

/// A secret: never printed.
#[derive(Default)]
pub(in crate::session) struct Passcode(pub(in crate::session) String);

impl fmt::Debug for Passcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a passcode)")
    }
}

impl Hello {
    /// Reads a CONNECT or STOMP frame. Any `host` is accepted: there are no virtual hosts.
    pub(in crate::session) fn read(frame: &Frame<'_>, heart_beat_min: Duration) -> Result<Self, Refusal> {
        let headers = frame.headers;
        let Some(version) = Version::negotiate(headers.find("accept-version")) else {
            return Err(Refusal::fatal(
                format!("Invalid Protocol version, supported versions are {SUPPORTED_VERSIONS}"),
                "accept-version lists what the client speaks; nothing in it is spoken here.",
            ));
        };
        unsupported::check_connect(headers)?;
        // 1.0 writes "login: <username>"; the decoder could not know the version yet.
        let value =
            |name| non_empty(headers, name).map(|value| if version == Version::V1_0 { value.trim() } else { value });
        Ok(Self {
            version,
            login: value("login").map(str::to_owned),
            passcode: Passcode(value("passcode").unwrap_or_default().to_owned()),
            client_id: value("client-id").map(Text::from),
            host: value("host").map(str::to_owned),
            heart_beat: HeartBeat::negotiate(version, headers, heart_beat_min)?,
            request: value("request-id").or(value("receipt")).map(str::to_owned),
        })
    }
}

/// How often each side promises to be heard. `None`: no promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::session) struct HeartBeat {
    /// The broker sends something at least this often.
    pub(in crate::session) sends: Option<Duration>,
    /// The client sends something at least this often.
    pub(in crate::session) hears: Option<Duration>,
}

impl HeartBeat {
    /// STOMP 1.2, "Heart-beating": the larger of what one side can do and the other wants; here the broker can do and
    /// wants whatever the client says, but nothing below `min`.
    fn negotiate(version: Version, headers: Headers<'_>, min: Duration) -> Result<Self, Refusal> {
        let Some(header) = headers.find("heart-beat").filter(|_| version != Version::V1_0) else {
            return Ok(Self::default());
        };
        let Some((can_send, wants)) = parse(header) else {
            return Err(Refusal::fatal(
                format!("Invalid heart-beat header: [{header}]"),
                "heart-beat is two whole numbers of milliseconds: what the client can send, what it wants.",
            ));
        };
        let at_least = |interval: Duration| (!interval.is_zero()).then(|| interval.max(min));
        Ok(Self { sends: at_least(wants), hears: at_least(can_send) })
    }
}

fn parse(header: &str) -> Option<(Duration, Duration)> {
    let (can_send, wants) = header.split_once(',')?;
    let millis = |text: &str| Some(Duration::from_millis(text.trim().parse::<u32>().ok()?.into()));
    Some((millis(can_send)?, millis(wants)?))
}

/// The CONNECTED frame of the session of this name, rendered before it is needed.
pub(in crate::session) fn connected_frame(hello: &Hello, session: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut frame = FrameWriter::begin(&mut out, hello.version, Verb::Connected);
    let millis = |interval: Option<Duration>| interval.map_or(0, |interval| interval.as_millis());
    frame.header("server", concat!("BatonMQ/", env!("CARGO_PKG_VERSION")));
    frame.header("session", hello.client_id.as_ref().map_or(session, Text::as_str));
    frame.header("heart-beat", &format!("{},{}", millis(hello.heart_beat.sends), millis(hello.heart_beat.hears)));
    frame.header("version", hello.version.as_str());
    if let Some(request) = &hello.request {
        frame.header("response-id", request);
        frame.header("receipt-id", request);
    }
    frame.body(b"");
    out
}
