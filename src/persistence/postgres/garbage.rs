//! How many rows of consumed messages PostgreSQL could give back by now.
//!
//! A row that was deleted stays until no snapshot can see it any more, whoever took that. So it is noted how many rows
//! were deleted before which transaction, and the oldest transaction that somebody may still look behind says how many
//! of them a VACUUM would find.

/// So many points are remembered; then every other one is forgotten, and new ones lie twice as far apart: what can be
/// given back is seen a bit later.
const POINTS_MAX: usize = 256;
const POINTS_KEPT: i64 = 128;

/// Rows that were deleted, and how many of them are gone.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    /// In order: all `deleted` rows were deleted by transactions before `transaction`.
    points: Vec<Point>,
    /// How far they lie apart at least, but for the last one. Unit: transactions.
    apart: i64,
    /// So many were cleaned away, of all that were ever deleted.
    cleaned: u64,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    transaction: i64,
    deleted: u64,
}

impl Garbage {
    /// `deleted` rows so far, all of them by transactions before the `next`.
    pub(super) fn note(&mut self, next: i64, deleted: u64) {
        if self.points.last().is_some_and(|last| last.deleted >= deleted || last.transaction >= next) {
            return;
        }
        if self.points.len() == POINTS_MAX {
            let mut at = 0;
            self.points.retain(|_| {
                at += 1;
                at % 2 == 0
            });
            let first = self.points.first().map_or(next, |first| first.transaction);
            self.apart = (next - first) / POINTS_KEPT;
        }
        if let [.., one, last] = self.points[..]
            && last.transaction - one.transaction < self.apart
        {
            self.points.pop();
        }
        self.points.push(Point { transaction: next, deleted });
    }

    /// How many rows a VACUUM would give back while somebody may look behind the `oldest` transaction.
    pub(super) fn removable(&self, oldest: i64) -> u64 {
        let seen = self.points.iter().rev().find(|point| point.transaction <= oldest);
        seen.map_or(0, |point| point.deleted.saturating_sub(self.cleaned))
    }

    /// How many wait, whether they can be given back or not.
    pub(super) fn waiting(&self, deleted: u64) -> u64 {
        deleted.saturating_sub(self.cleaned)
    }

    /// A VACUUM that began when `oldest` was the oldest has ended.
    pub(super) fn cleaned(&mut self, oldest: i64) {
        self.cleaned += self.removable(oldest);
        let cleaned = self.cleaned;
        self.points.retain(|point| point.deleted > cleaned);
        if self.points.len() < POINTS_MAX / 2 {
            self.apart = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_may_still_see_can_not_be_given_back() {
        let mut garbage = Garbage::default();
        garbage.note(100, 10);
        garbage.note(200, 25);
        assert_eq!(garbage.removable(99), 0);
        assert_eq!(garbage.removable(199), 10);
        assert_eq!(garbage.removable(200), 25);
        assert_eq!(garbage.waiting(30), 30);
    }

    #[test]
    fn what_is_cleaned_is_not_counted_again() {
        let mut garbage = Garbage::default();
        garbage.note(100, 10);
        garbage.note(200, 25);
        garbage.cleaned(150);
        assert_eq!(garbage.removable(150), 0);
        assert_eq!(garbage.removable(200), 15);
        assert_eq!(garbage.waiting(30), 20);
        garbage.cleaned(200);
        assert_eq!(garbage.removable(i64::MAX), 0);
    }

    #[test]
    fn a_day_under_a_foreign_transaction_takes_no_more_memory_and_forgets_no_row() {
        let mut garbage = Garbage::default();
        for point in 1..=40_000 {
            garbage.note(point, point.unsigned_abs() * 7);
        }
        assert!(garbage.points.len() <= POINTS_MAX, "{}", garbage.points.len());
        assert_eq!(garbage.removable(i64::MAX), 40_000 * 7);
        assert!(garbage.removable(20_000) > 19_000 * 7, "{}", garbage.removable(20_000));
        assert!(garbage.removable(20_000) <= 20_000 * 7);
    }
}
