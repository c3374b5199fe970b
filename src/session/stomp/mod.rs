//! STOMP frames to requests, and answers to STOMP frames. Plain values: no socket, no clock, no waiting.
//!
//! Owns a client's names for things: its subscription ids, its temporary destinations, its message-ids.
//! Always true: a frame becomes its requests or one [`Command::Refuse`], never nothing; a header that would change what
//! is delivered and that this version does not act on is refused by name.
//! On failure: a strict session stops translating after the first refusal, so that nothing after an ERROR is done. A
//! lenient one forgets what the core declined (`claims.rs`), so that both have the same subscriptions.

mod ack;
mod claims;
mod connect;
mod destinations;
mod render;
mod send;
mod subscribe;
mod subscribers;
mod transaction;
mod unsupported;

use std::sync::Arc;

use bytes::BytesMut;

use self::{claims::Claim, destinations::Names, send::MessageIds, subscribe::Subscriptions};
pub(super) use self::{
    connect::{HeartBeat, Hello, connected_frame},
    render::{Renderer, put_error},
    subscribers::Subscribers,
};
use super::SessionOptions;
use crate::{
    broker::{Command, Receipt, Refusal, Request},
    codec::stomp::{DecodeError, Frame, Headers, Verb, Version},
    types::{SessionId, Text, Timestamp},
};

/// What a request that carries no message counts against a session's budget, beside its frame. Unit: bytes.
const REQUEST_OVERHEAD_BYTES: usize = 128;

/// Whether more frames may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// They may.
    Continue,
    /// What follows on this connection is not looked at.
    Finished,
}

/// The reading side of one session.
#[derive(Debug)]
pub(super) struct Translator {
    version: Version,
    options: Arc<SessionOptions>,
    client_id: Option<Text>,
    names: Names,
    subscriptions: Subscriptions,
    ids: MessageIds,
    /// A message's properties on their way into its own allocation.
    properties: BytesMut,
    /// Its texts on the same way.
    texts: Vec<u8>,
}

impl Translator {
    /// For a session that is about to begin.
    pub(super) fn new(
        options: Arc<SessionOptions>,
        hello: &Hello,
        session: SessionId,
        subscribers: Arc<Subscribers>,
    ) -> Self {
        let prefix = session_name(&options, session);
        Self {
            version: hello.version,
            client_id: hello.client_id.clone(),
            names: Names::new(&prefix, options.stomp.lenient),
            subscriptions: Subscriptions::new(subscribers),
            ids: MessageIds::new(&prefix),
            properties: BytesMut::new(),
            texts: Vec::new(),
            options,
        }
    }

    /// Whether it was given a message.
    pub(super) fn has_sent(&self) -> bool {
        self.ids.has_begun()
    }

    /// Forgets what the core has declined since the last time. Before the frames of each read: a client that has seen
    /// an ERROR may try again.
    pub(super) fn forget_declined(&mut self) {
        if !self.options.stomp.lenient {
            return; // the session is over
        }
        for claim in self.subscriptions.take_declined() {
            match claim {
                Claim::Subscription(consumer) => self.subscriptions.remove(consumer),
                Claim::Temporary => self.names.forget(),
            }
        }
    }

    /// Appends what `frame` asks for to `requests`.
    pub(super) fn translate(&mut self, now: Timestamp, frame: Frame<'_>, requests: &mut Vec<Request>) -> Flow {
        let receipt = frame.headers.find("receipt").map(|text| Receipt::charged(text, &self.options.meter));
        let bytes = frame.bytes + REQUEST_OVERHEAD_BYTES;
        let (verb, headers) = (frame.verb, frame.headers);
        match self.command(now, frame, requests) {
            Ok(Command::Send(send)) => {
                let bytes = send.message.size();
                requests.push(Request { command: Command::Send(send), receipt, bytes });
                Flow::Continue
            }
            Ok(command) => {
                let claimed = match &command {
                    Command::Subscribe(subscribe) => Some(subscribe.consumer),
                    Command::Browse(browse) => Some(browse.consumer),
                    _ => None,
                };
                let receipt = match claimed.filter(|_| self.options.stomp.lenient) {
                    Some(consumer) => {
                        let own = Claim::Subscription(consumer).around(receipt.as_deref());
                        Some(Receipt::charged(&own, &self.options.meter))
                    }
                    None => receipt,
                };
                requests.push(Request { command, receipt, bytes });
                if verb == Verb::Disconnect { Flow::Finished } else { Flow::Continue }
            }
            Err(mut refusal) => {
                let finished = refusal.fatal || !self.options.stomp.lenient;
                refusal.transaction = transaction::of(headers).filter(|_| verb == Verb::Send);
                requests.push(Request { command: Command::Refuse(refusal), receipt, bytes });
                if finished { Flow::Finished } else { Flow::Continue }
            }
        }
    }

    fn command(&mut self, now: Timestamp, frame: Frame<'_>, requests: &mut Vec<Request>) -> Result<Command, Refusal> {
        let headers = frame.headers;
        match frame.verb {
            Verb::Send => self.send(now, frame, requests),
            Verb::Ack => self.ack(Verb::Ack, headers),
            Verb::Nack => self.ack(Verb::Nack, headers),
            Verb::Subscribe => self.subscribe(headers, requests),
            Verb::Unsubscribe => self.unsubscribe(headers),
            Verb::Begin => transaction::begin(headers),
            Verb::Commit => transaction::commit(headers),
            Verb::Abort => transaction::abort(headers),
            Verb::Disconnect => Ok(Command::Disconnect),
            Verb::Connect | Verb::Stomp | Verb::Connected | Verb::Message | Verb::Receipt | Verb::Error => {
                Err(refusal_of(&DecodeError::DuplicateConnect)) // the decoder lets none of them through
            }
        }
    }
}

/// A decoder's error as a refusal: always fatal, because the start of the next frame is unknown.
pub(super) fn refusal_of(error: &DecodeError) -> Refusal {
    Refusal::fatal(error.to_string(), error.advice())
}

/// A session's name, unique over all terms of a broker. No colons, because clients of 1.0 echo them unescaped.
pub(super) fn session_name(options: &SessionOptions, session: SessionId) -> String {
    let broker: String =
        options.broker_name.chars().map(|char| if char.is_alphanumeric() { char } else { '-' }).collect();
    format!("ID-{broker}-{}-{}", options.term_started.0, session.0)
}

/// A header that says yes or no; ActiveMQ takes `true` in any case for yes and everything else for no.
fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

/// A header that says a number.
fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Refusal> {
    value.trim().parse().map_err(|_| {
        Refusal::new(format!("Invalid {name} header: [{value}]"), format!("{name} is a whole number within its range."))
    })
}

/// A header that may not be empty.
fn non_empty<'a>(headers: Headers<'a>, name: &str) -> Option<&'a str> {
    headers.find(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests;
