//! What stores in databases have in common: how things are written so that a DBA can read them.

mod headers;

pub(super) use headers::{headers_from_json, headers_to_json};

use crate::types::{DestinationId, DurableId, Holder, Timestamp};

/// A number as databases keep it; what is beyond their largest becomes that.
pub(super) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that [`big`] made.
pub(super) fn number(big: i64) -> u64 {
    u64::try_from(big).unwrap_or_default()
}

/// A point in time that may be beyond what a database keeps; that is never, for all that live.
pub(super) fn millis(at: Timestamp) -> i64 {
    big(at.0)
}

/// A holder's kind and id.
pub(super) fn holder_columns(holder: Holder) -> (&'static str, i64) {
    match holder {
        Holder::Queue(DestinationId(id)) => ("queue", big(id)),
        Holder::Durable(DurableId(id)) => ("durable", big(id)),
    }
}

/// The holder of this kind and id.
pub(super) fn holder_of(kind: &str, id: i64) -> Option<Holder> {
    match kind {
        "queue" => Some(Holder::Queue(DestinationId(number(id)))),
        "durable" => Some(Holder::Durable(DurableId(number(id)))),
        _ => None,
    }
}
