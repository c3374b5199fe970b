//! ACK and NACK: how each version names a delivery.

use super::{Translator, non_empty, transaction, unsupported};
use crate::{
    broker::{Ack, AckTarget, Command, Refusal, Verdict},
    codec::stomp::{Headers, Verb, Version, put_decimal},
    types::{ConsumerNo, DeliveryTag, Text},
};

impl Translator {
    /// ACK or NACK, as `verb` says.
    pub(super) fn ack(&mut self, verb: Verb, headers: Headers<'_>) -> Result<Command, Refusal> {
        let verdict = if verb == Verb::Nack { Verdict::Rejected } else { Verdict::Accepted };
        if verb == Verb::Nack {
            if self.version == Version::V1_0 {
                let message = "NACK received but connection is in v1.0 mode.";
                return Err(Refusal::new(message, "Connect with accept-version:1.1 or 1.2 to use NACK."));
            }
            unsupported::check_nack(headers)?;
        }
        let target = match (self.version, non_empty(headers, "id"), non_empty(headers, "message-id")) {
            (Version::V1_2, Some(id), _) | (_, Some(id), None) => self.target_of_id(headers, id),
            (_, _, Some(message_id)) => self.target_of_message(verb, headers, message_id)?,
            (Version::V1_2, None, None) => {
                return Err(without(verb, "n ack id", "id, with the value of MESSAGE's header ack"));
            }
            (_, None, None) => return Err(without(verb, " message-id", "message-id")),
        };
        Ok(Command::Ack(Ack { target, verdict, transaction: transaction::of(headers) }))
    }

    /// An ack id of ours; anything else is taken for a message-id, which never looks like one.
    fn target_of_id(&self, headers: Headers<'_>, id: &str) -> AckTarget {
        parse_ack_id(id).unwrap_or_else(|| AckTarget::MessageId {
            consumer: non_empty(headers, "subscription").and_then(|id| self.subscriptions.of_id(id)),
            id: Text::from(id),
        })
    }

    fn target_of_message(&self, verb: Verb, headers: Headers<'_>, message_id: &str) -> Result<AckTarget, Refusal> {
        let consumer = match non_empty(headers, "subscription") {
            Some(id) => Some(self.subscriptions.of_id(id).ok_or_else(|| {
                let message = format!("Unexpected {} received for message-id [{message_id}]", verb.as_str());
                Refusal::new(message, format!("This connection has no subscription with the id [{id}]."))
            })?),
            None if self.version == Version::V1_0 => None,
            None => match self.subscriptions.only() {
                Some(only) => Some(only), // nothing else can be meant
                None => return Err(without(verb, " subscription id", "subscription")),
            },
        };
        Ok(AckTarget::MessageId { consumer, id: Text::from(message_id) })
    }
}

fn without(verb: Verb, what: &str, header: &str) -> Refusal {
    let verb = verb.as_str();
    Refusal::new(
        format!("{verb} received without a{what} to acknowledge!"),
        format!("{verb} needs the header {header}."),
    )
}

/// The value of a MESSAGE's `ack` header: consumer and delivery, no colon.
pub(super) fn put_ack_id(out: &mut Vec<u8>, consumer: ConsumerNo, tag: DeliveryTag) {
    put_decimal(out, u64::from(consumer.0));
    out.push(b'-');
    put_decimal(out, tag.0);
}

fn parse_ack_id(id: &str) -> Option<AckTarget> {
    let (consumer, tag) = id.split_once('-')?;
    Some(AckTarget::Tag { consumer: ConsumerNo(consumer.parse().ok()?), tag: DeliveryTag(tag.parse().ok()?) })
}
