//! What waits for a session's writer: filled by the engine at the end of a turn, emptied whole by the session.
//!
//! Always true: the engine never waits here. What an outbox holds is bounded by the credit of the session's consumers,
//! by the bytes the core lets a session have outstanding, and by the requests it may have under way.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::broker::Outgoing;

/// One session's outgoing queue. The engine appends, the session takes.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Vec<Outgoing>>,
    filled: Notify,
}

impl Outbox {
    /// Moves all of `outgoing` to the session and leaves it empty, with its room kept or exchanged.
    pub(super) fn append(&self, outgoing: &mut Vec<Outgoing>) {
        let mut waiting = self.lock();
        let was_empty = waiting.is_empty();
        if was_empty {
            std::mem::swap(&mut *waiting, outgoing);
        } else {
            waiting.append(outgoing);
        }
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits until something is there, then takes all of it; `into` is empty and lends its room. Cancel safe.
    pub async fn take(&self, into: &mut Vec<Outgoing>) {
        debug_assert!(into.is_empty(), "what was taken before is done");
        loop {
            {
                let mut waiting = self.lock();
                if !waiting.is_empty() {
                    std::mem::swap(&mut *waiting, into);
                    return;
                }
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Outgoing>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
