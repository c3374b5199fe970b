//! A row of `messages.sql` as a message, with everybody who holds it.

use bytes::Bytes;
use mysql_async::{Row, prelude::FromValue};

use crate::{
    persistence::sql::{MessageRow, Purges, ReturnedRow, UnreadableRow},
    types::Stored,
};

/// The message of a row; `None` if nobody holds it any more.
pub(super) fn stored(mut row: Row, purges: &Purges) -> Result<Option<Stored>, UnreadableRow> {
    message_row(&mut row)?.stored(purges)
}

fn message_row(row: &mut Row) -> Result<MessageRow<String>, UnreadableRow> {
    Ok(MessageRow {
        sequence: take(row, "sequence")?,
        queue: take(row, "queue")?,
        destination: take(row, "destination")?,
        priority: take(row, "priority")?,
        persistent: take(row, "persistent")?,
        created: take(row, "created")?,
        expires: take(row, "expires")?,
        message_id: take(row, "message_id")?,
        reply_to: take(row, "reply_to")?,
        correlation_id: take(row, "correlation_id")?,
        message_type: take(row, "type")?,
        original_destination: take(row, "original_destination")?,
        body_kind: take(row, "body_kind")?,
        headers: take(row, "headers")?,
        body: Bytes::from(take::<Vec<u8>>(row, "body")?),
        durables: list(row, "durables")?,
        returned: list::<(i64, i32, i32, Option<i64>)>(row, "returned")?.into_iter().map(returned).collect(),
    })
}

fn returned((durable, deliveries, failures, due): (i64, i32, i32, Option<i64>)) -> ReturnedRow {
    ReturnedRow { durable, deliveries, failures, due }
}

fn take<T: FromValue>(row: &mut Row, column: &'static str) -> Result<T, UnreadableRow> {
    let value = row.take_opt(column).ok_or_else(|| UnreadableRow::Type(format!("there is no {column}").into()))?;
    value.map_err(|error| UnreadableRow::Type(error.into()))
}

/// A list that the database put together as JSON; NULL is an empty one.
fn list<T: serde::de::DeserializeOwned>(row: &mut Row, column: &'static str) -> Result<Vec<T>, UnreadableRow> {
    let Some(json) = take::<Option<String>>(row, column)? else { return Ok(Vec::new()) };
    serde_json::from_str(&json).map_err(|error| UnreadableRow::Type(error.into()))
}
