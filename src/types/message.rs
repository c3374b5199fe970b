//! A message, as every protocol and every store sees it.

use std::sync::OnceLock;

use bytes::Bytes;

use super::{Charge, Destination, Meter, Priority, Properties, Text, Timestamp};

/// What the body's bytes are; the broker never looks into them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// No body at all.
    None,
    /// UTF-8 text: a STOMP SEND without `content-length`.
    Text,
    /// Bytes: a STOMP SEND with `content-length`.
    #[default]
    Bytes,
    /// JMS' map message, marshalled by the client.
    Map,
    /// JMS' stream message, marshalled by the client.
    Stream,
    /// JMS' object message, serialised by the client.
    Object,
}

impl BodyKind {
    /// Its name, in a store that people read.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Map => "map",
            Self::Stream => "stream",
            Self::Object => "object",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Text, Self::Bytes, Self::Map, Self::Stream, Self::Object]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// What a message is made of, before it is frozen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MessageDraft {
    /// Given by the broker for STOMP; the same over redelivery, restart and dead-lettering.
    pub id: Text,
    /// Whether it must survive the broker.
    pub persistent: bool,
    /// 0 to 9, higher first.
    pub priority: Priority,
    /// When the client sent it, or when the broker took it.
    pub timestamp: Timestamp,
    /// After this it is not delivered any more. `None`: never.
    pub expires: Option<Timestamp>,
    /// Where an answer shall go, in its real name (a temporary destination's own name, not the client's).
    pub reply_to: Option<Destination>,
    /// JMSCorrelationID.
    pub correlation_id: Option<Text>,
    /// JMSType, STOMP's `type`.
    pub message_type: Option<Text>,
    /// Where it was sent first, if it lies somewhere else now (dead letters).
    pub original_destination: Option<Destination>,
    /// What the body's bytes are.
    pub body_kind: BodyKind,
    /// Everything that a client or the broker attached, raw until somebody asks.
    pub properties: Properties,
    /// The body, exactly its bytes: never a slice of a larger read buffer.
    pub body: Bytes,
}

/// A message, immutable from here on; shared by all that hold it.
#[derive(Debug)]
pub struct Message {
    draft: MessageDraft,
    /// Asked for many times by whoever holds it. Unit: bytes.
    content_bytes: usize,
    /// Few messages have one.
    rendering: OnceLock<Box<Rendering>>,
    charge: OnceLock<Charge>,
}

/// What a protocol made of a message once, for many subscribers.
#[derive(Debug)]
struct Rendering {
    /// Which protocol and version made it; another one has to render for itself.
    dialect: u8,
    /// The part of the frame that is the same for everybody.
    bytes: Bytes,
    _charge: Option<Charge>,
}

impl Message {
    /// Bytes of memory that a message takes beside its body, properties, texts and names: itself, its place in a queue
    /// or with a consumer, and what the allocator adds. Measured as what a million small ones add to the process.
    pub const OVERHEAD: usize = 448;

    /// Freezes a draft.
    #[must_use]
    pub fn new(draft: MessageDraft) -> Self {
        let content_bytes = content_bytes(&draft);
        Self { draft, content_bytes, rendering: OnceLock::new(), charge: OnceLock::new() }
    }

    /// Counts it while anybody holds it; once, however often this is called.
    pub fn charge(&self, meter: &Meter) {
        self.charge.get_or_init(|| meter.charge(self.size()));
    }

    /// Counts it where another one counts, if that does.
    pub fn charge_as(&self, other: &Self) {
        if let Some(charge) = other.charge.get() {
            self.charge(charge.meter());
        }
    }

    /// A copy to change: for a dead letter.
    #[must_use]
    pub fn to_draft(&self) -> MessageDraft {
        self.draft.clone()
    }

    /// What it counts in every limit of bytes: what its sender sent, and a fixed overhead.
    #[must_use]
    pub fn size(&self) -> usize {
        Self::OVERHEAD + self.content_bytes()
    }

    /// The bytes that its sender chose, and its id: body, properties and texts. What a store's limit is about.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        self.content_bytes
    }

    /// The rendering that `dialect` made, made by `render` if nobody did yet; `None` if another dialect holds the
    /// place.
    pub fn rendering(&self, dialect: u8, render: impl FnOnce() -> Bytes) -> Option<&Bytes> {
        let rendering = self.rendering.get_or_init(|| {
            let bytes = render();
            let charge = self.charge.get().map(|charge| charge.meter().charge(bytes.len()));
            Box::new(Rendering { dialect, bytes, _charge: charge })
        });
        (rendering.dialect == dialect).then_some(&rendering.bytes)
    }
}

fn content_bytes(draft: &MessageDraft) -> usize {
    let text = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.as_bytes().len());
    let name = |name: &Option<Destination>| name.as_ref().map_or(0, |name| name.name().len());
    let texts = draft.id.as_bytes().len() + text(&draft.correlation_id) + text(&draft.message_type);
    let names = name(&draft.reply_to) + name(&draft.original_destination);
    draft.body.len() + draft.properties.as_bytes().len() + texts + names
}

impl std::ops::Deref for Message {
    type Target = MessageDraft;

    fn deref(&self) -> &MessageDraft {
        &self.draft
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.draft == other.draft
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn r31_a_message_counts_once_for_as_long_as_it_is_held() {
        let meter = Meter::unlimited();
        let message = Arc::new(Message::new(MessageDraft { body: "body".into(), ..MessageDraft::default() }));
        let held = [Arc::clone(&message), Arc::clone(&message)];
        held.iter().for_each(|message| message.charge(&meter));
        assert_eq!(meter.in_use(), message.size());
        message.rendering(1, || "what all get".into());
        assert_eq!(meter.in_use(), message.size() + 12);
        drop(message);
        assert!(meter.in_use() > 0);
        drop(held);
        assert_eq!(meter.in_use(), 0);
    }

    #[test]
    fn all_that_a_sender_chooses_counts() {
        let bare = Message::new(MessageDraft::default()).size();
        let text = "x".repeat(10_000);
        let drafts = [
            MessageDraft { id: text.as_str().into(), ..MessageDraft::default() },
            MessageDraft { correlation_id: Some(text.as_str().into()), ..MessageDraft::default() },
            MessageDraft { message_type: Some(text.as_str().into()), ..MessageDraft::default() },
            MessageDraft { reply_to: Some(Destination::queue(&text)), ..MessageDraft::default() },
            MessageDraft { original_destination: Some(Destination::topic(&text)), ..MessageDraft::default() },
            MessageDraft { body: text.clone().into(), ..MessageDraft::default() },
        ];
        for draft in drafts {
            let message = Message::new(draft);
            assert_eq!((message.size(), message.content_bytes()), (bare + 10_000, 10_000), "{message:?}");
        }
    }
}
