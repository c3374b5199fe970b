//! The most naive store there is: it applies every change at once and in order. What the core must find after a crash
//! is what lies here.

use std::collections::BTreeMap;

use batonmq::{
    broker::{Change, Core, CoreOptions},
    types::{Catalog, Op, Sequence, Stored, Term},
};

/// A catalog and messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) catalog: Catalog,
    pub(super) messages: BTreeMap<Sequence, Stored>,
}

impl Store {
    /// Applies what the core wants to be written.
    pub(super) fn apply(&mut self, change: &Change) {
        for op in operations(change) {
            self.apply_op(&op);
        }
    }

    fn apply_op(&mut self, op: &Op) {
        self.catalog.apply(op);
        match op {
            Op::Insert(stored) => {
                assert!(!stored.holders.is_empty(), "somebody holds what is stored");
                let earlier = self.messages.insert(stored.sequence, stored.clone());
                assert_eq!(earlier, None, "a sequence is given once (R6)");
            }
            Op::Settle { sequence, holder } => {
                if let Some(stored) = self.messages.get_mut(sequence) {
                    stored.holders.retain(|held| held.holder != *holder);
                }
            }
            Op::Return { sequence, held } => {
                let holders = self.messages.get_mut(sequence).map(|stored| &mut stored.holders);
                for part in holders.into_iter().flatten().filter(|part| part.holder == held.holder) {
                    *part = *held;
                }
            }
            Op::DeleteDurable { id } => {
                let gone = batonmq::types::Holder::Durable(*id);
                self.messages.values_mut().for_each(|stored| stored.holders.retain(|held| held.holder != gone));
            }
            Op::Mark { .. } | Op::CreateDestination { .. } | Op::CreateDurable { .. } => {}
        }
        self.messages.retain(|_, stored| !stored.holders.is_empty());
    }

    /// The core of the next term, with everything that lies here.
    pub(super) fn recover(&self, options: CoreOptions, term: Term) -> Core {
        let mut core = Core::recover(options, term, &self.catalog);
        for stored in self.messages.values() {
            let unknown = core.load(stored); // by rising sequence
            assert!(unknown.is_empty(), "somebody holds {stored:?} who is gone");
        }
        core.check();
        core
    }
}

/// A change as a store gets it.
pub(super) fn operations(change: &Change) -> Vec<Op> {
    match change {
        Change::One { op, .. } => vec![op.clone()],
        Change::Settle { sequence, holder, .. } => vec![Op::Settle { sequence: *sequence, holder: *holder }],
        Change::Return { sequence, held, .. } => vec![Op::Return { sequence: *sequence, held: *held }],
        Change::Mark { holder, upto, .. } => vec![Op::Mark { holder: *holder, upto: *upto }],
        Change::Unit { ops, .. } => ops.to_vec(),
    }
}
