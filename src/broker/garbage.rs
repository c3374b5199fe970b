//! What nobody wants any more and still lies in memory: it goes in slices, so that no turn drops a million messages (R29).
//!
//! Always true: nothing in here belongs to a queue any more; no queue hands it out, counts it or lets it leave.

use std::collections::VecDeque;

use super::{Core, QueueKey, queue::Remains};

/// So much is dropped in one turn; the rest goes in the next ones.
const DROPPED_A_TURN_MAX: usize = 10_000;

/// What is to be dropped, and of which queue it is.
#[derive(Debug, Default)]
pub(super) struct Garbage(VecDeque<(QueueKey, Remains)>);

impl Garbage {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Core {
    /// What lay in a queue goes from now on, a slice a turn.
    pub(super) fn throw_away(&mut self, key: QueueKey, remains: Remains) {
        if !remains.is_empty() {
            self.garbage.0.push_back((key, remains));
        }
    }

    /// Drops a bounded part of the garbage.
    pub(super) fn drop_garbage(&mut self) {
        for _ in 0..DROPPED_A_TURN_MAX {
            let Some((key, remains)) = self.garbage.0.front_mut() else { return };
            if let Some(entry) = remains.pop() {
                self.deadlines.unwatch_expiry(*key, &entry);
            }
            if remains.is_empty() {
                self.garbage.0.pop_front();
            }
        }
    }
}
