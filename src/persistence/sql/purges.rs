//! What is gone although its rows may still be there: the queues and durable subscriptions that were purged (R29).
//!
//! A purge is a mark; its rows go with later batches, a bounded number each. Until then every read leaves them out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::types::{Holder, Sequence};

/// Who was purged, and up to where. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::persistence) struct Purges(Arc<Mutex<BTreeMap<Holder, Sequence>>>);

impl Purges {
    /// What the store says.
    pub(in crate::persistence) fn replace(&self, purges: BTreeMap<Holder, Sequence>) {
        *self.lock() = purges;
    }

    /// All that a holder has at or below `upto` is gone.
    pub(in crate::persistence) fn add(&self, holder: Holder, upto: Sequence) {
        let mut purges = self.lock();
        let purged = purges.entry(holder).or_default();
        *purged = (*purged).max(upto);
    }

    /// No row of it is left.
    pub(in crate::persistence) fn remove(&self, holder: Holder, upto: Sequence) {
        let mut purges = self.lock();
        if purges.get(&holder) == Some(&upto) {
            purges.remove(&holder);
        }
    }

    /// All of them.
    pub(in crate::persistence) fn all(&self) -> BTreeMap<Holder, Sequence> {
        self.lock().clone()
    }

    /// Where a holder begins: nothing at or below this is its own.
    pub(in crate::persistence) fn of(&self, holder: Holder) -> Sequence {
        self.lock().get(&holder).copied().unwrap_or_default()
    }

    /// One of them.
    pub(in crate::persistence) fn first(&self) -> Option<(Holder, Sequence)> {
        self.lock().first_key_value().map(|(holder, upto)| (*holder, *upto))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Holder, Sequence>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
