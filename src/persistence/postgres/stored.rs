//! A row of the view `stored_message` as a message, with everybody who holds it.

use bytes::Bytes;
use tokio_postgres::{Error, Row};

use crate::{
    persistence::sql::{MessageRow, Purges, ReturnedRow, UnreadableRow},
    types::Stored,
};

/// The message of a row; `None` if nobody holds it any more.
pub(super) fn stored(row: &Row, purges: &Purges) -> Result<Option<Stored>, UnreadableRow> {
    message_row(row).map_err(|error| UnreadableRow::Type(error.into()))?.stored(purges)
}

fn message_row(row: &Row) -> Result<MessageRow<&str>, Error> {
    Ok(MessageRow {
        sequence: row.try_get("sequence")?,
        queue: row.try_get("queue")?,
        destination: row.try_get("destination")?,
        priority: row.try_get("priority")?,
        persistent: row.try_get("persistent")?,
        created: row.try_get("created")?,
        expires: row.try_get("expires")?,
        message_id: row.try_get("message_id")?,
        reply_to: row.try_get("reply_to")?,
        correlation_id: row.try_get("correlation_id")?,
        message_type: row.try_get("type")?,
        original_destination: row.try_get("original_destination")?,
        body_kind: row.try_get("body_kind")?,
        headers: row.try_get("headers")?,
        body: Bytes::copy_from_slice(row.try_get("body")?), // its own bytes: a row shares a buffer with others
        durables: row.try_get("durables")?,
        returned: returned(row)?,
    })
}

fn returned(row: &Row) -> Result<Vec<ReturnedRow>, Error> {
    let Some(durables) = row.try_get::<_, Option<Vec<i64>>>("returned_durables")? else { return Ok(Vec::new()) };
    let deliveries = row.try_get::<_, Vec<i32>>("returned_deliveries")?;
    let failures = row.try_get::<_, Vec<i32>>("returned_failures")?;
    let due = row.try_get::<_, Vec<Option<i64>>>("returned_due")?;
    let rows = durables.into_iter().zip(deliveries).zip(failures).zip(due);
    let row = |(((durable, deliveries), failures), due)| ReturnedRow { durable, deliveries, failures, due };
    Ok(rows.map(row).collect())
}
