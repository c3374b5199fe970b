//! What comes due, put together from two reads: what and when, without the messages themselves; then those of a window.

use std::{collections::HashMap, future::Future};

use super::{millis, number};
use crate::{
    persistence::{DueMessage, DuePage, DueReason, StoreError, Window},
    types::{DurableId, Holder, Sequence, Stored, Timestamp},
};

/// Stands in `due.sql` for a message that expires, where else is written to whom it returns.
const EXPIRES: i64 = -1;

/// Something that comes due.
pub(in crate::persistence) struct Candidate {
    at: Timestamp,
    sequence: Sequence,
    /// [`EXPIRES`], 0 for a queue, or the id of a durable subscription.
    durable: i64,
    size: usize,
}

impl Candidate {
    /// A row of `due.sql`.
    pub(in crate::persistence) fn of_row((at, sequence, durable, size): (i64, i64, i64, i32)) -> Self {
        Self {
            at: Timestamp(number(at)),
            sequence: Sequence::from_u64(number(sequence)),
            durable,
            size: usize::try_from(size).unwrap_or_default(),
        }
    }

    /// As a page brings it; `None` if it is no more what it was: it was settled, or came back again.
    fn due(&self, messages: &HashMap<Sequence, Stored>) -> Option<DueMessage> {
        let stored = messages.get(&self.sequence)?;
        let reason = match self.durable {
            EXPIRES => DueReason::Expires,
            0 => DueReason::Returns(stored.holders.iter().map(|held| held.holder).find(is_queue)?),
            id => DueReason::Returns(Holder::Durable(DurableId(number(id)))),
        };
        let stands = match reason {
            DueReason::Expires => true,
            DueReason::Returns(holder) => {
                stored.holders.iter().any(|held| held.holder == holder && held.due == Some(self.at))
            }
        };
        stands.then(|| DueMessage { at: self.at, reason, stored: stored.clone() })
    }
}

fn is_queue(holder: &Holder) -> bool {
    matches!(holder, Holder::Queue(_))
}

/// How many rows make sure of a window, and of what comes behind it.
fn rows_in(window: Window) -> i64 {
    i64::try_from(window.messages.max(1)).unwrap_or(i64::MAX).saturating_add(2)
}

/// The two reads.
pub(in crate::persistence) trait DueReads: Sync {
    /// What comes due behind a time and sequence: the first so many, and all that belongs to the last of them.
    fn candidates(
        &self,
        after: (i64, Sequence),
        rows_max: i64,
    ) -> impl Future<Output = Result<Vec<Candidate>, StoreError>> + Send;

    /// Those of these messages that are still held.
    fn messages(
        &self,
        sequences: Vec<Sequence>,
    ) -> impl Future<Output = Result<HashMap<Sequence, Stored>, StoreError>> + Send;
}

/// A page of what comes due.
pub(in crate::persistence) async fn due(
    reads: &impl DueReads,
    before: Timestamp,
    after: (Timestamp, Sequence),
    window: Window,
) -> Result<DuePage, StoreError> {
    let mut after = after;
    loop {
        let mut candidates = reads.candidates((millis(after.0), after.1), rows_in(window)).await?;
        let (taken, next) = take_window(&candidates, before, window);
        candidates.truncate(taken);
        let mut sequences: Vec<Sequence> = candidates.iter().map(|candidate| candidate.sequence).collect();
        sequences.sort_unstable();
        sequences.dedup();
        let messages = reads.messages(sequences).await?;
        let messages: Vec<_> = candidates.iter().filter_map(|candidate| candidate.due(&messages)).collect();
        match candidates.last() {
            // All of it is purged or settled: a page says what comes due.
            Some(last) if messages.is_empty() && next.is_some() => after = (last.at, last.sequence),
            _ => return Ok(DuePage { messages, next }),
        }
    }
}

/// How many of the candidates a page brings, and when the next one comes due.
fn take_window(candidates: &[Candidate], before: Timestamp, window: Window) -> (usize, Option<Timestamp>) {
    let (mut bytes, mut last) = (0, None);
    for (taken, candidate) in candidates.iter().enumerate() {
        let belongs_to_the_last = last == Some((candidate.at, candidate.sequence));
        let fits = belongs_to_the_last || window.has_room(taken, bytes, candidate.size);
        if candidate.at > before || !fits {
            return (taken, Some(candidate.at));
        }
        bytes += candidate.size;
        last = Some((candidate.at, candidate.sequence));
    }
    (candidates.len(), None)
}
