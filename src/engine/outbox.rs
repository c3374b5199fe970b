//! What waits for a session's writer: filled by the engine at the end of a turn, emptied whole by the session.
//!
//! Always true: the engine never waits here. What an outbox holds is bounded: deliveries by the credit of the session's
//! consumers and by the bytes that the core lets it have outstanding, answers because a session whose outbox is full
//! asks for nothing more.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::broker::Outgoing;

/// A session that leaves this much untaken has its requests wait: answers need room too.
const OUTBOX_WAITING_MAX: usize = 16_384;

/// Room that is kept of a list of outgoings while there are none: idle sessions are many.
const ROOM_KEPT_MAX: usize = 32;

/// One session's outgoing queue. The engine appends, the session takes.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Vec<Outgoing>>,
    filled: Notify,
    taken: Notify,
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
            outgoing.shrink_to(ROOM_KEPT_MAX);
        }
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits until something is there, then takes all of it; `into` is empty and lends its room. Cancel safe.
    pub async fn take(&self, into: &mut Vec<Outgoing>) {
        debug_assert!(into.is_empty(), "what was taken before is done");
        into.shrink_to(ROOM_KEPT_MAX);
        loop {
            {
                let mut waiting = self.lock();
                if !waiting.is_empty() {
                    std::mem::swap(&mut *waiting, into);
                    self.taken.notify_one();
                    return;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Whether there is room for the answers of more requests.
    pub(super) fn has_room(&self) -> bool {
        self.lock().len() < OUTBOX_WAITING_MAX
    }

    /// Waits until there is; only the session's reader does. Cancel safe.
    pub(super) async fn room(&self) {
        while !self.has_room() {
            self.taken.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Outgoing>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
