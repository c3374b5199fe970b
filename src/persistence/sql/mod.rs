//! What stores in databases have in common: how things are written so that a DBA can read them, what is noted of a
//! term, and how reads are put together.

mod changes;
mod counts;
mod due;
mod headers;
mod purges;
mod row;
mod writing;

pub(super) use changes::{CatalogChange, Marks, Unfit};
pub(super) use counts::{Census, Counted, Counting};
pub(super) use due::{Candidate, DueReads, due};
pub(super) use headers::{headers_from_json, headers_to_json};
pub(super) use purges::Purges;
pub(super) use row::{MessageRow, ReturnedRow, UnreadableRow};
pub(super) use writing::{PURGE_ROWS, Writing, WritingSession, answered};

use std::time::Duration;

use crate::types::{DestinationId, DurableId, Holder, Tenure, Timestamp};

pub(super) use crate::db::{Text, big, number, texts};

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

/// A row of the database is not as a broker writes it.
pub(super) const ALTERED_ROW: &str = "a row has a kind that is none; somebody changed it by hand";

/// A row is in the server's memory several times while it is written. Unit: bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// How long a raise and a recovery wait for what is being written, before they end the session that writes it (R19).
pub(super) const BATON_PATIENCE: Duration = Duration::from_millis(500);

/// How often they wait so long before they give up: the row is held by somebody who is not ours to end.
pub(super) const BATON_ATTEMPTS: u32 = 4;

/// How long the end of the connections may take; the server ends what is left.
pub(super) const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// So many reads are under way at once; the engine asks for no more.
pub(super) const READ_CONNECTIONS: usize = 4;

/// How long a read waits for a connection.
pub(super) const READ_PATIENCE: Duration = Duration::from_secs(5);

/// What the row of the baton says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Baton {
    pub(super) tenure: Tenure,
    pub(super) last_destination: DestinationId,
    pub(super) last_durable: DurableId,
}
