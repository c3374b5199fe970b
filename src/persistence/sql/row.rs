//! What a database says of a message, as the message that it is, with everybody who holds it.

use std::{error::Error, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Purges, headers_from_json, number};
use crate::types::{
    BodyKind, Destination, DestinationId, DurableId, Held, Holder, Message, MessageDraft, Priority, Sequence, Stored,
    Text, Timestamp,
};

/// Why a row can't be read as a message: somebody changed it by hand.
#[derive(Debug, thiserror::Error)]
pub(in crate::persistence) enum UnreadableRow {
    #[error("the column {0} of message {1} is not as a broker writes it")]
    Column(&'static str, Sequence),
    #[error("the column headers of message {0} is not as a broker writes it")]
    Headers(Sequence, #[source] serde_json::Error),
    #[error("a column has another type")]
    Type(#[source] Box<dyn Error + Send + Sync>),
}

/// The columns of a message, and who holds it; `T` is text, borrowed or not.
pub(in crate::persistence) struct MessageRow<T> {
    pub(in crate::persistence) sequence: i64,
    pub(in crate::persistence) queue: Option<i64>,
    pub(in crate::persistence) destination: i64,
    pub(in crate::persistence) priority: i16,
    pub(in crate::persistence) persistent: bool,
    pub(in crate::persistence) created: i64,
    pub(in crate::persistence) expires: Option<i64>,
    pub(in crate::persistence) message_id: T,
    pub(in crate::persistence) reply_to: Option<T>,
    pub(in crate::persistence) correlation_id: Option<T>,
    pub(in crate::persistence) message_type: Option<T>,
    pub(in crate::persistence) original_destination: Option<T>,
    pub(in crate::persistence) body_kind: T,
    pub(in crate::persistence) headers: T,
    pub(in crate::persistence) body: Bytes,
    pub(in crate::persistence) durables: Vec<i64>,
    pub(in crate::persistence) returned: Vec<ReturnedRow>,
}

/// How often a message came back, for whom (0: the queue), and until when it waits.
pub(in crate::persistence) struct ReturnedRow {
    pub(in crate::persistence) durable: i64,
    pub(in crate::persistence) deliveries: i32,
    pub(in crate::persistence) failures: i32,
    pub(in crate::persistence) due: Option<i64>,
}

impl<T: AsRef<str>> MessageRow<T> {
    /// The message; `None` if nobody holds it any more.
    pub(in crate::persistence) fn stored(self, purges: &Purges) -> Result<Option<Stored>, UnreadableRow> {
        let sequence = Sequence::from_u64(number(self.sequence));
        let holders = self.holders(sequence, purges);
        if holders.is_empty() {
            return Ok(None);
        }
        let destination = DestinationId(number(self.destination));
        Ok(Some(Stored { sequence, destination, holders, message: Arc::new(Message::new(self.draft(sequence)?)) }))
    }

    fn holders(&self, sequence: Sequence, purges: &Purges) -> SmallVec<[Held; 1]> {
        let queue = self.queue.map(|id| Holder::Queue(DestinationId(number(id))));
        let durables = self.durables.iter().map(|&id| Holder::Durable(DurableId(number(id))));
        let left = queue.into_iter().chain(durables).filter(|holder| sequence > purges.of(*holder));
        let mut holders: SmallVec<[Held; 1]> = left.map(Held::fresh).collect();
        holders.sort_by_key(|held| held.holder);
        let count = |number: i32| u32::try_from(number).unwrap_or_default();
        for returned in &self.returned {
            let is_this = |holder: Holder| match holder {
                Holder::Queue(_) => returned.durable == 0,
                Holder::Durable(id) => id.0 == number(returned.durable),
            };
            if let Some(held) = holders.iter_mut().find(|held| is_this(held.holder)) {
                (held.deliveries, held.failures) = (count(returned.deliveries), count(returned.failures));
                held.due = returned.due.map(|at| Timestamp(number(at)));
            }
        }
        holders
    }

    fn draft(self, sequence: Sequence) -> Result<MessageDraft, UnreadableRow> {
        let destination = |column, uri: Option<T>| {
            let read = |uri: T| Destination::from_uri(uri.as_ref()).ok_or(UnreadableRow::Column(column, sequence));
            uri.map(read).transpose()
        };
        let text = |text: Option<T>| text.map(|text| Text::from(text.as_ref()));
        let priority = u8::try_from(self.priority).map_err(|_| UnreadableRow::Column("priority", sequence))?;
        let body_kind = BodyKind::from_name(self.body_kind.as_ref());
        let headers = headers_from_json(self.headers.as_ref());
        Ok(MessageDraft {
            id: self.message_id.as_ref().into(),
            persistent: self.persistent,
            priority: Priority::clamped(priority),
            timestamp: Timestamp(number(self.created)),
            expires: self.expires.map(|at| Timestamp(number(at))),
            reply_to: destination("reply_to", self.reply_to)?,
            correlation_id: text(self.correlation_id),
            message_type: text(self.message_type),
            original_destination: destination("original_destination", self.original_destination)?,
            body_kind: body_kind.ok_or(UnreadableRow::Column("body_kind", sequence))?,
            properties: headers.map_err(|error| UnreadableRow::Headers(sequence, error))?,
            body: self.body,
        })
    }
}
