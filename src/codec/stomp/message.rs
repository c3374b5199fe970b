//! The part of a MESSAGE frame that is the same for every subscriber: all headers but those that name a subscription,
//! a delivery, or a temporary destination, then the body.

use std::io::Write;

use super::{FrameWriter, Version};
use crate::types::{BodyKind, Destination, DestinationKind, Message, PropertyValue};

/// A body of this size or more is not copied into a frame's buffer but written beside it. Below, one more part in a
/// write costs more than the copy. Unit: bytes.
pub const SEPARATE_BODY_MIN: usize = 16 << 10;

/// Whether [`put_message_rest`] leaves body and NUL to its caller.
#[must_use]
pub fn body_is_separate(message: &Message) -> bool {
    message.body.len() >= SEPARATE_BODY_MIN
}

/// Appends the common rest of a MESSAGE: headers, the blank line and, unless [`body_is_separate`], body and NUL.
///
/// Headers and conditions follow ActiveMQ; where a name is there twice the first one counts, so what a client attached
/// comes last.
pub fn put_message_rest(out: &mut Vec<u8>, version: Version, message: &Message) {
    let mut frame = FrameWriter::resume(out, version);
    frame.header("message-id", message.id.as_str());
    frame.number("timestamp", message.timestamp.0);
    frame.number("priority", u64::from(message.priority.level()));
    frame.number("expires", message.expires.map_or(0, |expires| expires.0));
    if message.persistent {
        frame.header("persistent", "true");
    }
    if let Some(correlation_id) = &message.correlation_id {
        frame.header("correlation-id", correlation_id.as_str());
    }
    if let Some(message_type) = &message.message_type {
        frame.header("type", message_type.as_str());
    }
    if let Some(reply_to) = message.reply_to.as_ref().filter(|reply_to| !reply_to.kind().is_temporary()) {
        put_destination(&mut frame, "reply-to", reply_to);
    }
    if let Some(original) = &message.original_destination {
        put_destination(&mut frame, "original-destination", original);
    }
    if states_its_length(message) {
        frame.number("content-length", message.body.len() as u64);
    }
    put_properties(&mut frame, message);
    if body_is_separate(message) { frame.end_of_headers() } else { frame.body(&message.body) }
}

/// One header that names a destination as other connections address it.
pub fn put_destination(frame: &mut FrameWriter<'_>, header: &'static str, destination: &Destination) {
    let prefix = match destination.kind() {
        DestinationKind::Queue => "/queue/",
        DestinationKind::Topic => "/topic/",
        DestinationKind::TemporaryQueue => "/remote-temp-queue/",
        DestinationKind::TemporaryTopic => "/remote-temp-topic/",
    };
    frame.prefixed(header, prefix, destination.name());
}

/// ActiveMQ's clients take `content-length` as the sign of a message of bytes, so text goes without; but a NUL in a
/// text would end the frame early.
fn states_its_length(message: &Message) -> bool {
    match message.body_kind {
        BodyKind::None => false,
        BodyKind::Text => memchr::memchr(0, &message.body).is_some(),
        BodyKind::Bytes | BodyKind::Map | BodyKind::Stream | BodyKind::Object => true,
    }
}

fn put_properties(frame: &mut FrameWriter<'_>, message: &Message) {
    for (name, value) in message.properties.iter() {
        match value {
            PropertyValue::Text(text) => frame.header(name, text),
            PropertyValue::Boolean(boolean) => frame.header(name, if boolean { "true" } else { "false" }),
            PropertyValue::Integer(integer) => frame.header(name, &integer.to_string()),
            PropertyValue::Float(float) => frame.header(name, &float.to_string()),
            PropertyValue::Bytes(bytes) => frame.header(name, &hexadecimal(bytes)),
        };
    }
}

/// STOMP has text only; a property of bytes comes from another protocol and is rare.
fn hexadecimal(bytes: &[u8]) -> String {
    let mut digits = Vec::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(digits, "{byte:02x}").expect("a Vec takes every write");
    }
    String::from_utf8(digits).expect("hexadecimal digits are ASCII")
}
