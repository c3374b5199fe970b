//! A row of the view `stored_message` as a message, with everybody who holds it.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio_postgres::{Error, Row};

use super::purges::Purges;
use crate::{
    persistence::sql::{headers_from_json, number},
    types::{
        BodyKind, Destination, DestinationId, DurableId, Held, Holder, Message, MessageDraft, Priority, Sequence,
        Stored, Text, Timestamp,
    },
};

/// Why a row can't be read as a message: somebody changed it by hand.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnreadableRow {
    #[error("the column {0} of message {1} is not as a broker writes it")]
    Column(&'static str, Sequence),
    #[error("the column headers of message {0} is not as a broker writes it")]
    Headers(Sequence, #[source] serde_json::Error),
    #[error("a column has another type")]
    Type(#[from] Error),
}

/// The message of a row; `None` if nobody holds it any more.
pub(super) fn stored(row: &Row, purges: &Purges) -> Result<Option<Stored>, UnreadableRow> {
    let sequence = Sequence::from_u64(number(row.try_get("sequence")?));
    let holders = holders(row, sequence, purges)?;
    if holders.is_empty() {
        return Ok(None);
    }
    let destination = DestinationId(number(row.try_get("destination")?));
    Ok(Some(Stored { sequence, destination, holders, message: Arc::new(Message::new(draft(row, sequence)?)) }))
}

fn draft(row: &Row, sequence: Sequence) -> Result<MessageDraft, UnreadableRow> {
    let text = |column| Ok::<_, Error>(row.try_get::<_, Option<&str>>(column)?.map(Text::from));
    let destination = |column| match row.try_get::<_, Option<&str>>(column)? {
        None => Ok(None),
        Some(uri) => Destination::from_uri(uri).map(Some).ok_or(UnreadableRow::Column(column, sequence)),
    };
    let priority = u8::try_from(row.try_get::<_, i16>("priority")?);
    let body_kind = BodyKind::from_name(row.try_get("body_kind")?);
    let headers = headers_from_json(row.try_get("headers")?);
    Ok(MessageDraft {
        id: row.try_get::<_, &str>("message_id")?.into(),
        persistent: row.try_get("persistent")?,
        priority: Priority::clamped(priority.map_err(|_| UnreadableRow::Column("priority", sequence))?),
        timestamp: Timestamp(number(row.try_get("created")?)),
        expires: row.try_get::<_, Option<i64>>("expires")?.map(|at| Timestamp(number(at))),
        reply_to: destination("reply_to")?,
        correlation_id: text("correlation_id")?,
        message_type: text("type")?,
        original_destination: destination("original_destination")?,
        body_kind: body_kind.ok_or(UnreadableRow::Column("body_kind", sequence))?,
        properties: headers.map_err(|error| UnreadableRow::Headers(sequence, error))?,
        body: Bytes::copy_from_slice(row.try_get("body")?), // its own bytes: a row shares a buffer with others
    })
}

fn holders(row: &Row, sequence: Sequence, purges: &Purges) -> Result<SmallVec<[Held; 1]>, UnreadableRow> {
    let queue = row.try_get::<_, Option<i64>>("queue")?.map(|id| Holder::Queue(DestinationId(number(id))));
    let durables = row.try_get::<_, Vec<i64>>("durables")?.into_iter().map(|id| Holder::Durable(DurableId(number(id))));
    let left = queue.into_iter().chain(durables).filter(|holder| sequence > purges.of(*holder));
    let mut holders: SmallVec<[Held; 1]> = left.map(Held::fresh).collect();
    let Some(returned) = row.try_get::<_, Option<Vec<i64>>>("returned_durables")? else { return Ok(holders) };
    let deliveries = row.try_get::<_, Vec<i32>>("returned_deliveries")?;
    let failures = row.try_get::<_, Vec<i32>>("returned_failures")?;
    let due = row.try_get::<_, Vec<Option<i64>>>("returned_due")?;
    let count = |number: i32| u32::try_from(number).unwrap_or_default();
    for (((durable, deliveries), failures), due) in returned.into_iter().zip(deliveries).zip(failures).zip(due) {
        let is_this = |holder: Holder| match holder {
            Holder::Queue(_) => durable == 0,
            Holder::Durable(id) => id.0 == number(durable),
        };
        if let Some(held) = holders.iter_mut().find(|held| is_this(held.holder)) {
            (held.deliveries, held.failures) = (count(deliveries), count(failures));
            held.due = due.map(|at| Timestamp(number(at)));
        }
    }
    Ok(holders)
}
