//! SEND: a frame becomes a message that owns exactly its bytes.
//!
//! The hot path: one pass over the headers, one allocation for texts, properties and body together (a large body that
//! was read into its own allocation stays there).

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};

use super::{Translator, is_true, number, transaction, unsupported};
use crate::{
    broker::{Command, Refusal, Request, Send},
    codec::stomp::{Body, Frame, Headers, put_decimal},
    types::{
        BodyKind, Destination, Message, MessageDraft, Priority, Properties, PropertyValue, Text, Timestamp,
        append_property,
    },
};

/// So many message-ids share an allocation. An id beside its body would make it a shared one, which costs another; and
/// of a message that outlives those around it little more than its own id stays.
const IDS_AT_ONCE: u64 = 16;

/// Message-ids of one session: its name and a number.
#[derive(Debug)]
pub(super) struct MessageIds {
    prefix: Vec<u8>,
    next: u64,
    /// From `next` on, back to back.
    made: Bytes,
}

impl MessageIds {
    /// For the session of this name.
    pub(super) fn new(session: &str) -> Self {
        Self { prefix: format!("{session}-").into_bytes(), next: 1, made: Bytes::new() }
    }

    /// Whether one was given out.
    pub(super) fn has_begun(&self) -> bool {
        self.next > 1
    }

    fn next(&mut self) -> Text {
        if self.made.is_empty() {
            self.made = self.make();
        }
        let id = self.made.split_to(self.length(self.next));
        self.next += 1;
        Text::from_utf8(id).expect("a session's name is text, and so is a number")
    }

    fn make(&self) -> Bytes {
        let end = self.next + IDS_AT_ONCE;
        let mut ids = Vec::with_capacity((self.next..end).map(|number| self.length(number)).sum());
        for number in self.next..end {
            ids.extend_from_slice(&self.prefix);
            put_decimal(&mut ids, number);
        }
        Bytes::from(ids)
    }

    fn length(&self, number: u64) -> usize {
        let digits = number.checked_ilog10().unwrap_or_default() + 1;
        self.prefix.len() + digits as usize
    }
}

/// The headers of a SEND that mean something to the broker; of repeated ones the first.
#[derive(Debug, Default)]
struct Fields<'a> {
    destination: Option<&'a str>,
    persistent: Option<&'a str>,
    priority: Option<&'a str>,
    expires: Option<&'a str>,
    expiration: Option<&'a str>,
    timestamp: Option<&'a str>,
    correlation_id: Option<&'a str>,
    message_type: Option<&'a str>,
    reply_to: Option<&'a str>,
    body_kind: Option<&'a str>,
}

impl Translator {
    /// SEND.
    pub(super) fn send(
        &mut self,
        now: Timestamp,
        frame: Frame<'_>,
        requests: &mut Vec<Request>,
    ) -> Result<Command, Refusal> {
        self.properties.clear();
        let fields = sort_headers(frame.headers, &mut self.properties)?;
        let Some(name) = fields.destination.filter(|name| !name.is_empty()) else {
            let message = "SEND received without a Destination specified!";
            return Err(Refusal::new(message, "The header destination names a queue or topic: /queue/orders."));
        };
        let destination = self.names.resolve(name, requests)?;
        let reply_to = self.reply_to(&fields, requests);
        let body_kind = self.body_kind(&fields, &frame)?;
        let persistent = fields.persistent.map_or_else(|| self.persistent_by_default(&destination), is_true);
        let priority = fields.priority.map(|value| number::<i64>("priority", value)).transpose()?;
        let timestamp = fields.timestamp.map(|value| number("timestamp", value)).transpose()?;
        let expires = expires(now, &fields)?;
        let transaction = transaction::of(frame.headers);
        let owned = self.own_bytes(&fields, frame.body);
        let message = Message::new(MessageDraft {
            id: self.ids.next(),
            persistent,
            priority: priority.map_or_else(Priority::default, clamped),
            timestamp: timestamp.map_or(now, Timestamp),
            expires,
            reply_to,
            correlation_id: owned.correlation_id,
            message_type: owned.message_type,
            original_destination: None,
            body_kind,
            properties: owned.properties,
            body: owned.body,
        });
        message.charge(&self.options.meter);
        Ok(Command::Send(Send { destination, message: Arc::new(message), transaction }))
    }

    fn persistent_by_default(&self, destination: &Destination) -> bool {
        destination.kind().is_queue() && self.options.stomp.default_persistent
    }

    /// A `reply-to` that is no destination is kept as a property, as ActiveMQ does: it may mean something to the
    /// receiver.
    fn reply_to(&mut self, fields: &Fields<'_>, requests: &mut Vec<Request>) -> Option<Destination> {
        let text = fields.reply_to?;
        let resolved = self.names.resolve(text, requests).ok();
        if resolved.is_none() {
            append_property(&mut self.properties, "reply-to", PropertyValue::Text(text));
        }
        resolved
    }

    /// What the body is: counted bodies are bytes, others text, unless `amq-msg-type` says otherwise, or `content-type`
    /// does and the operator lets it.
    ///
    /// Always true: a message of text holds UTF-8. What is none and was not called text by `amq-msg-type` becomes a
    /// message of bytes, so that it arrives as it was sent; what was called so is refused.
    fn body_kind(&self, fields: &Fields<'_>, frame: &Frame<'_>) -> Result<BodyKind, Refusal> {
        let is_utf8 = || std::str::from_utf8(frame.body.as_bytes()).is_ok();
        let is_text = || !frame.counted || self.options.stomp.text_by_content_type && says_text(frame.headers);
        match fields.body_kind {
            None => Ok(if is_text() && is_utf8() { BodyKind::Text } else { BodyKind::Bytes }),
            Some("bytes") => Ok(BodyKind::Bytes),
            Some("text") if is_utf8() => Ok(BodyKind::Text),
            Some("text") => Err(Refusal::new(
                "The body of a text message is not valid UTF-8",
                "Send it with amq-msg-type:bytes, or with content-length and without amq-msg-type.",
            )),
            Some(other) => Err(Refusal::new(
                format!("Invalid amq-msg-type header: [{other}]"),
                "amq-msg-type is text or bytes; other kinds of messages are not supported yet.",
            )),
        }
    }

    /// Moves what the message keeps into its own allocation: texts, properties, body. The properties are in
    /// `properties` already.
    fn own_bytes(&mut self, fields: &Fields<'_>, body: Body<'_>) -> Owned {
        let texts = &mut self.texts;
        texts.clear();
        let mut put = |text: &str| {
            let start = texts.len();
            texts.extend_from_slice(text.as_bytes());
            start..texts.len()
        };
        let correlation_id = fields.correlation_id.map(&mut put);
        let message_type = fields.message_type.map(&mut put);
        let properties = texts.len()..texts.len() + self.properties.len();
        let (read, whole) = match body {
            Body::Read(read) => (read, None),
            Body::Whole(whole) => (&[][..], Some(whole)),
        };
        let mut all = Vec::with_capacity(properties.end + read.len());
        all.extend_from_slice(texts);
        all.extend_from_slice(&self.properties);
        all.extend_from_slice(read);
        let mut all = Bytes::from(all);
        let body = all.split_off(properties.end); // without a cost if nothing stands before it
        let text = |range: Range<usize>| Text::from_utf8(all.slice(range)).unwrap_or_default();
        Owned {
            correlation_id: correlation_id.map(text),
            message_type: message_type.map(text),
            properties: Properties::from_bytes(all.slice(properties)),
            body: whole.unwrap_or(body),
        }
    }
}

/// The parts of a message that point into its own allocation.
struct Owned {
    correlation_id: Option<Text>,
    message_type: Option<Text>,
    properties: Properties,
    body: Bytes,
}

/// Tells the headers that mean something to the broker from those that travel with the message; the latter go to
/// `properties`, in order.
fn sort_headers<'a>(headers: Headers<'a>, properties: &mut BytesMut) -> Result<Fields<'a>, Refusal> {
    let mut fields = Fields::default();
    for (name, value) in headers.iter() {
        let field = match name {
            "destination" => &mut fields.destination,
            "persistent" => &mut fields.persistent,
            "priority" => &mut fields.priority,
            "expires" => &mut fields.expires,
            "expiration" => &mut fields.expiration,
            "timestamp" => &mut fields.timestamp,
            "correlation-id" => &mut fields.correlation_id,
            "type" => &mut fields.message_type,
            "reply-to" => &mut fields.reply_to,
            "amq-msg-type" => &mut fields.body_kind,
            // Of the frame, not of the message; or the broker's own to set, so that nobody forges them.
            "content-length"
            | "receipt"
            | "transaction"
            | "message-id"
            | "redelivered"
            | "subscription"
            | "ack"
            | "JMSXUserID"
            | "JMSXDeliveryCount"
            | "original-destination" => continue,
            _ => {
                if let Some(feature) = unsupported::feature_of_send(name, value) {
                    return Err(unsupported::header(name, feature));
                }
                append_property(properties, name, PropertyValue::Text(value));
                continue;
            }
        };
        field.get_or_insert(value);
    }
    Ok(fields)
}

/// Whether `content-type` is `text/…`.
fn says_text(headers: Headers<'_>) -> bool {
    let start = headers.find("content-type").and_then(|media_type| media_type.trim_start().get(..5));
    start.is_some_and(|start| start.eq_ignore_ascii_case("text/"))
}

/// ActiveMQ's `expires` is a point in time, RabbitMQ's `expiration` a duration; both in milliseconds, 0 is never.
fn expires(now: Timestamp, fields: &Fields<'_>) -> Result<Option<Timestamp>, Refusal> {
    if let Some(value) = fields.expires {
        let at: u64 = number("expires", value)?;
        return Ok((at > 0).then_some(Timestamp(at)));
    }
    let Some(value) = fields.expiration else { return Ok(None) };
    let millis: u64 = number("expiration", value)?;
    Ok((millis > 0).then(|| now.after(Duration::from_millis(millis))))
}

/// Priorities beyond 0 to 9 are held within, as JMS brokers do.
fn clamped(level: i64) -> Priority {
    Priority::clamped(u8::try_from(level.clamp(0, 9)).unwrap_or_default())
}
