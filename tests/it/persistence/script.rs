//! A seeded script of batches, as a broker could make them of what a store holds.

use std::collections::BTreeSet;

use batonmq::types::{
    Destination, DestinationId, Durable, DurableId, Held, Holder, Op, Priority, Sequence, Stored, Tenure, Term,
    Timestamp,
};
use smallvec::smallvec;

use super::{NEWS, ORDERS, stored};
use crate::harness::{Rng, Rows};

/// Makes the batches that a broker could.
pub(super) struct Script {
    rng: Rng,
    term: Term,
    counter: u64,
    body_bytes_max: usize,
}

impl Script {
    pub(super) fn new(rng: Rng, body_bytes_max: usize) -> Self {
        Self { rng, term: Term(1), counter: 0, body_bytes_max }
    }

    pub(super) fn seed(&self) -> u64 {
        self.rng.seed()
    }

    /// What a broker does first.
    pub(super) fn first_batch() -> Vec<Op> {
        let durable = |name: &str| Durable { client_id: "c".into(), name: name.into(), topic: NEWS };
        vec![
            Op::CreateDestination { id: ORDERS, destination: Destination::queue("orders") },
            Op::CreateDestination { id: NEWS, destination: Destination::topic("news") },
            Op::CreateDurable { id: DurableId(1), durable: durable("one") },
            Op::CreateDurable { id: DurableId(2), durable: durable("two") },
        ]
    }

    /// A new term's sequences are above the last one's.
    pub(super) fn new_term(&mut self, tenure: Tenure) {
        (self.term, self.counter) = (tenure.term, 0);
    }

    /// The next batch: no two operations on one message (R1).
    pub(super) fn next_batch(&mut self, model: &Rows) -> Vec<Op> {
        let mut ops = Vec::new();
        let live: Vec<Sequence> = model.messages.keys().copied().collect();
        let mut touched = BTreeSet::new();
        let purges = self.rng.one_in(20) && !live.is_empty();
        if purges {
            let last = self.rng.pick(&live);
            ops.push(self.purge(&model.messages[&last]));
        }
        for _ in 0..if purges { 0 } else { self.rng.below(4) } {
            // old ones too, but mostly the newest: so that segments hold little that is live
            let Some(index) = live.len().checked_sub(1 + self.rng.below(6)) else { break };
            let index = if self.rng.one_in(10) { self.rng.below(live.len()) } else { index };
            let stored = &model.messages[&live[index]];
            if touched.insert(stored.sequence) {
                ops.push(self.change(stored));
            }
        }
        let inserts = if self.rng.one_in(12) { 12 } else { self.rng.below(3) }; // a transaction, or what came by
        for _ in 0..inserts {
            ops.push(Op::Insert(self.message(model)));
        }
        if self.rng.one_in(8) {
            let upto = Sequence::new(self.term, self.rng.next() % 1_000);
            ops.push(Op::Mark { holder: Holder::Queue(ORDERS), upto });
        }
        if self.rng.one_in(16) {
            let id = DestinationId(3 + self.rng.next() % 5);
            ops.push(Op::CreateDestination { id, destination: Destination::queue(&format!("q{}", id.0)) });
        }
        if self.rng.one_in(24) {
            ops.push(self.change_durables(model));
        }
        if ops.is_empty() {
            ops.push(Op::Insert(self.message(model)));
        }
        ops
    }

    /// One is made, under an id that was never used (R29), or goes with its part of every message.
    fn change_durables(&mut self, model: &Rows) -> Op {
        let ids: Vec<DurableId> = model.catalog.durables.keys().copied().collect();
        if ids.len() > 1 && self.rng.one_in(2) {
            return Op::DeleteDurable { id: self.rng.pick(&ids) };
        }
        let id = DurableId(model.catalog.last_durable.0 + 1);
        let name = format!("durable {}", id.0);
        Op::CreateDurable { id, durable: Durable { client_id: "c".into(), name: name.as_str().into(), topic: NEWS } }
    }

    /// Of one who holds this message.
    fn purge(&mut self, stored: &Stored) -> Op {
        Op::Purge { holder: self.rng.pick(&stored.holders).holder, upto: stored.sequence }
    }

    fn change(&mut self, stored: &Stored) -> Op {
        let part = stored.holders[self.rng.below(stored.holders.len())];
        if self.rng.one_in(6) {
            let held = Held { deliveries: part.deliveries + 1, failures: 1, due: self.time(), ..part };
            return Op::Return { sequence: stored.sequence, held };
        }
        Op::Settle { sequence: stored.sequence, holder: part.holder }
    }

    /// Sometimes none, and often the same.
    fn time(&mut self) -> Option<Timestamp> {
        let time = Timestamp(90 + self.rng.next() % 20);
        (!self.rng.one_in(4)).then_some(time)
    }

    fn message(&mut self, model: &Rows) -> Stored {
        self.counter += 1;
        let larger_than_usual = if self.rng.one_in(40) { 15 } else { 1 };
        let size = self.rng.below(larger_than_usual * self.body_bytes_max);
        let mut message = stored(Sequence::new(self.term, self.counter), size);
        let queues: Vec<DestinationId> = model.catalog.destinations.keys().copied().filter(|id| *id != NEWS).collect();
        if !queues.is_empty() {
            let queue = self.rng.pick(&queues);
            (message.destination, message.holders) = (queue, smallvec![Held::fresh(Holder::Queue(queue))]);
        }
        let durables: Vec<DurableId> = model.catalog.durables.keys().copied().collect();
        if !durables.is_empty() && self.rng.one_in(3) {
            let first = self.rng.below(durables.len());
            let held = durables[first..].iter().map(|id| Held::fresh(Holder::Durable(*id)));
            (message.destination, message.holders) = (NEWS, held.collect());
        }
        if self.rng.one_in(4) {
            let mut draft = message.message.to_draft();
            draft.priority = Priority::clamped(self.rng.below(10) as u8);
            draft.expires = self.time();
            message.message = std::sync::Arc::new(batonmq::types::Message::new(draft));
        }
        message
    }
}
