//! BEGIN, COMMIT, ABORT. Whether a transaction is open is the core's to know.

use super::non_empty;
use crate::{
    broker::{Command, Refusal, TransactionName},
    codec::stomp::Headers,
};

pub(super) fn begin(headers: Headers<'_>) -> Result<Command, Refusal> {
    name(headers, "beginning").map(Command::Begin)
}

pub(super) fn commit(headers: Headers<'_>) -> Result<Command, Refusal> {
    name(headers, "committing").map(Command::Commit)
}

pub(super) fn abort(headers: Headers<'_>) -> Result<Command, Refusal> {
    name(headers, "aborting").map(Command::Abort)
}

fn name(headers: Headers<'_>, doing: &str) -> Result<TransactionName, Refusal> {
    non_empty(headers, "transaction").map(TransactionName::from).ok_or_else(|| {
        let message = format!("Must specify the transaction you are {doing}");
        Refusal::new(message, "The header transaction names it; the client chooses the name.")
    })
}

/// The transaction that a SEND, ACK or NACK belongs to.
pub(super) fn of(headers: Headers<'_>) -> Option<TransactionName> {
    non_empty(headers, "transaction").map(TransactionName::from)
}
