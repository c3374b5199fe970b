//! Answers of the engine to bytes of STOMP.
//!
//! Always true: frames are rendered in the order in which the engine gave them; nothing is allocated for a message,
//! except once for one that many subscribers get.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    ack::put_ack_id,
    claims::Claim,
    destinations::OwnNames,
    subscribers::{Subscriber, Subscribers},
};
use crate::{
    broker::{CloseReason, Delivery, Outgoing, Receipt, Refusal},
    codec::stomp::{FrameWriter, Verb, Version, body_is_separate, put_message_rest},
    engine::Written,
    session::output::Output,
};

/// How much is rendered before it is written: enough for one call into the kernel to be worth it. Unit: bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// The writing side of one session.
#[derive(Debug)]
pub(in crate::session) struct Renderer {
    version: Version,
    own: OwnNames,
    subscribers: Arc<Subscribers>,
    /// CONNECTED, until the engine says so.
    connected: Vec<u8>,
    /// The last ERROR's message, for the log.
    refused: Option<String>,
}

impl Renderer {
    /// For the session of this name, with its CONNECTED frame.
    pub(in crate::session) fn new(
        version: Version,
        session: &str,
        connected: Vec<u8>,
        subscribers: Arc<Subscribers>,
    ) -> Self {
        Self { version, own: OwnNames::new(session), subscribers, connected, refused: None }
    }

    /// Renders the next chunk of `waiting`, and counts its deliveries. A reason ends the connection after this chunk.
    pub(in crate::session) fn render_chunk(
        &mut self,
        waiting: &mut impl Iterator<Item = Outgoing>,
        out: &mut Output,
        written: &mut Written,
    ) -> Option<CloseReason> {
        let subscribers = Arc::clone(&self.subscribers);
        let mut known = subscribers.lock();
        while out.len() < CHUNK_BYTES {
            match waiting.next()? {
                Outgoing::Delivery(delivery) => {
                    written.bytes += delivery.message.size();
                    if let Some(subscriber) = known.find(delivery.consumer) {
                        self.put_message(subscriber, &delivery, out);
                        note_last(written, &delivery);
                    }
                }
                Outgoing::BrowseEnd(consumer) => {
                    if let Some(subscriber) = known.find(consumer) {
                        put_browse_end(out.buffer(), self.version, subscriber);
                    }
                }
                Outgoing::Receipt(receipt) => {
                    if let (_, Some(receipt)) = Claim::unwrap(receipt) {
                        put_receipt(out.buffer(), self.version, &receipt);
                    }
                }
                Outgoing::Connected => out.buffer().append(&mut self.connected),
                Outgoing::Error { refusal, receipt } => {
                    let (claim, receipt) = receipt.map(Claim::unwrap).unwrap_or_default();
                    if let Some(claim) = claim {
                        known.decline(claim);
                    }
                    put_error(out.buffer(), self.version, &refusal, receipt.as_deref());
                    self.refused = Some(refusal.message);
                }
                Outgoing::Close(reason) => return Some(reason),
            }
        }
        None
    }

    /// Whether CONNECTED was rendered: before it no heart-beat may be sent.
    pub(in crate::session) fn has_greeted(&self) -> bool {
        self.connected.is_empty()
    }

    /// The last ERROR's message.
    pub(in crate::session) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// One MESSAGE: what is this subscriber's own first, then what is the same for all.
    fn put_message(&self, subscriber: &Subscriber, delivery: &Delivery, out: &mut Output) {
        let message = &delivery.message;
        let buffer = out.buffer();
        buffer.extend_from_slice(&subscriber.beginning);
        if subscriber.with_ack {
            buffer.extend_from_slice(b"ack:");
            put_ack_id(buffer, delivery.consumer, delivery.tag);
            buffer.push(b'\n');
        }
        let redelivered: &[u8] = if delivery.redelivered { b"redelivered:true\n" } else { b"redelivered:false\n" };
        buffer.extend_from_slice(redelivered);
        let mut frame = FrameWriter::resume(buffer, self.version);
        frame.number("JMSXDeliveryCount", u64::from(delivery.deliveries));
        if let Some(reply_to) = message.reply_to.as_ref().filter(|reply_to| reply_to.kind().is_temporary()) {
            self.own.put_reply_to(&mut frame, reply_to);
        }
        match self.common(delivery) {
            Some(common) => buffer.extend_from_slice(common),
            None => put_message_rest(buffer, self.version, message),
        }
        if body_is_separate(message) {
            out.put_body(message.body.clone());
            out.buffer().push(0);
        }
    }

    fn common<'a>(&self, delivery: &'a Delivery) -> Option<&'a Bytes> {
        if !delivery.shared {
            return None;
        }
        let message = &delivery.message;
        message.rendering(self.version.dialect(), || {
            let mut common = Vec::new();
            put_message_rest(&mut common, self.version, message);
            common.shrink_to_fit();
            Bytes::from(common)
        })
    }
}

/// Remembers the last delivery of each consumer.
fn note_last(written: &mut Written, delivery: &Delivery) {
    let last = written.last.iter_mut().rev().find(|(consumer, _)| *consumer == delivery.consumer);
    match last {
        Some((_, tag)) => *tag = delivery.tag,
        None => written.last.push((delivery.consumer, delivery.tag)),
    }
}

/// What ActiveMQ sends behind the last message that a browser is shown.
fn put_browse_end(out: &mut Vec<u8>, version: Version, subscriber: &Subscriber) {
    out.extend_from_slice(&subscriber.beginning);
    let mut frame = FrameWriter::resume(out, version);
    frame.header("message-id", "0").header("browser", "end");
    frame.body(b"");
}

fn put_receipt(out: &mut Vec<u8>, version: Version, receipt: &Receipt) {
    let mut frame = FrameWriter::begin(out, version, Verb::Receipt);
    frame.header("receipt-id", receipt);
    frame.body(b"");
}

/// An ERROR: one short sentence in `message`, what to do about it in the body.
pub(in crate::session) fn put_error(out: &mut Vec<u8>, version: Version, refusal: &Refusal, receipt: Option<&str>) {
    let mut frame = FrameWriter::begin(out, version, Verb::Error);
    frame.header("message", &refusal.message);
    frame.header("content-type", "text/plain");
    if let Some(receipt) = receipt {
        frame.header("receipt-id", receipt);
    }
    let body = refusal.advice.replace('\0', " ");
    frame.body(body.as_bytes());
}
