//! The numbers of the transactions that write: whether a database that is found after a doubt is the one that was lost
//! (R21).

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Each transaction leaves its number in the row of the baton.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Numbers>);

#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    /// Of the last one that is durable for certain.
    confirmed: i64,
    /// Of the last one that was begun.
    asked: i64,
}

impl History {
    /// What the row says while it is held, at a recovery.
    pub(super) fn begin(&self, number: i64) {
        *self.lock() = Numbers { confirmed: number, asked: number };
    }

    /// The number of a transaction that begins.
    pub(super) fn ask(&self) -> i64 {
        let mut numbers = self.lock();
        numbers.asked += 1;
        numbers.asked
    }

    /// A transaction is durable.
    pub(super) fn confirm(&self, number: i64) {
        self.lock().confirmed = number;
    }

    /// Whether a row that says this comes after all that is durable, and has nothing that was not asked for.
    pub(super) fn has(&self, number: i64) -> bool {
        let Numbers { confirmed, asked } = *self.lock();
        (confirmed..=asked).contains(&number)
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r21_a_row_is_known_by_what_was_confirmed_last_or_is_in_doubt() {
        let history = History::default();
        history.begin(7);
        assert!(history.has(7) && !history.has(6) && !history.has(8));
        let first = history.ask();
        assert!(history.has(7) && history.has(first), "in doubt");
        history.confirm(first);
        assert!(!history.has(7), "an older copy");
        assert!(history.has(first) && !history.has(first + 1));
    }
}
