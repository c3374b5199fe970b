//! What clients were told, held against what they get and what the database has: the promises of ARCHITECTURE.md,
//! "Always true". Whatever is broken panics, with the promise or the rule.

use std::collections::{BTreeMap, BTreeSet};

use batonmq::types::{Holder, Priority};

use super::database::Server;
use crate::harness::Rows;

/// A message.
pub(super) type Id = u64;

/// Where messages wait for a consumer: a queue, or a durable subscription.
pub(super) type Place = &'static str;

pub(super) const QUEUES: [Place; 2] = ["a", "b"];
pub(super) const SUBSCRIPTIONS: [Place; 2] = ["news one", "news two"];
pub(super) const DEAD_LETTERS: Place = "ActiveMQ.DLQ";

/// What a receipt will mean.
#[derive(Clone, Debug, Default)]
pub(super) struct Meaning {
    /// It will be delivered, or is settled.
    pub(super) kept: Vec<(Place, Id)>,
    /// It will never be delivered again.
    pub(super) done: Vec<(Place, Id)>,
    /// This subscription is there.
    pub(super) subscribed: Option<Place>,
}

/// A message as its sender knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) sender: usize,
    pub(super) priority: Priority,
    /// Its transaction.
    pub(super) unit: Option<usize>,
    /// Its place among all that its sender sent, as they take effect.
    pub(super) rank: u64,
}

/// What all clients know, over all terms.
#[derive(Default)]
pub(super) struct Ledger {
    last_id: Id,
    last_rank: u64,
    pub(super) sent: BTreeMap<Id, Sent>,
    /// What clients were promised to be kept.
    owed: BTreeSet<(Place, Id)>,
    /// What was acknowledged, confirmed or not: it may be gone.
    acked: BTreeSet<(Place, Id)>,
    /// What was acknowledged and confirmed.
    done: BTreeSet<(Place, Id)>,
    /// What was rejected, and may be a dead letter.
    rejected: BTreeSet<(Place, Id)>,
    delivered: BTreeSet<(Place, Id)>,
    /// What was sent as the result of a message, before that was acknowledged.
    results: BTreeMap<(Place, Id), Id>,
    /// Transactions: all of it, or nothing.
    units: Vec<Vec<Id>>,
    subscribed: BTreeSet<Place>,
    /// Whether who acts now is connected to the master.
    pub(super) speaks_to_master: bool,
    pub(super) receipts: u64,
    pub(super) deliveries: u64,
}

impl Ledger {
    pub(super) fn next_id(&mut self) -> Id {
        self.last_id += 1;
        self.last_id
    }

    /// A message takes effect when it is sent, or when its transaction is committed.
    pub(super) fn takes_effect(&mut self, id: Id, sender: usize, priority: Priority, unit: Option<usize>) {
        self.last_rank += 1;
        self.sent.insert(id, Sent { sender, priority, unit, rank: self.last_rank });
    }

    pub(super) fn next_unit(&self) -> usize {
        self.units.len()
    }

    pub(super) fn unit(&mut self, sent: Vec<Id>) {
        self.units.push(sent);
    }

    /// The message that was sent last.
    pub(super) fn last_id(&self) -> Id {
        self.last_id
    }

    /// The message is acknowledged, after its result was sent if it has one.
    pub(super) fn acks(&mut self, place: Place, id: Id, result: Option<Id>) {
        self.acked.insert((place, id));
        self.answers(place, id, result);
    }

    pub(super) fn rejects(&mut self, place: Place, id: Id) {
        self.rejected.insert((place, id));
        self.answers(place, id, None);
    }

    /// An earlier answer did not take effect, or the message would not be there again. What a broker is told that was
    /// deposed is lost with the result.
    fn answers(&mut self, place: Place, id: Id, result: Option<Id>) {
        if self.speaks_to_master {
            self.results.remove(&(place, id));
            self.results.extend(result.map(|result| ((place, id), result)));
        }
    }

    /// Whether a topic message has somebody to go to.
    pub(super) fn all_are_subscribed(&self) -> bool {
        SUBSCRIPTIONS.iter().all(|place| self.subscribed.contains(place))
    }

    pub(super) fn is_told(&mut self, meaning: Meaning) {
        self.receipts += 1;
        self.owed.extend(meaning.kept);
        self.done.extend(meaning.done);
        self.subscribed.extend(meaning.subscribed);
    }

    /// A delivery, by a broker that holds the token as far as anybody can know.
    pub(super) fn gets(&mut self, place: Place, id: Id, redelivered: bool, server: &Server) {
        self.deliveries += 1;
        assert!(!self.done.contains(&(place, id)), "promise 2: {id} of {place} was acknowledged and comes back");
        let is_first = self.delivered.insert((place, id));
        assert!(is_first || redelivered, "R9: {id} of {place} was delivered before");
        if let Some(unit) = self.sent[&id].unit {
            let is_there = |id: &Id| server.ever.contains(&id.to_string());
            assert!(self.units[unit].iter().all(is_there), "promise 7: {id} is of a transaction that is not durable");
        }
    }

    /// The same by one that was deposed and could not know.
    pub(super) fn gets_again(&mut self, place: Place, id: Id) {
        self.delivered.insert((place, id));
    }

    /// Nobody can write any more who gave these promises, or everything stands still.
    pub(super) fn is_kept_by(&self, server: &Server) {
        let stored = stored(&server.rows);
        let is_stored = |place: Place, id: Id| stored.contains(&(place.to_owned(), id));
        for (place, id) in self.owed.iter().copied().filter(|owed| !self.acked.contains(owed)) {
            let is_dead = self.rejected.contains(&(place, id))
                && (is_stored(DEAD_LETTERS, id) || self.acked.contains(&(DEAD_LETTERS, id)));
            assert!(is_dead || is_stored(place, id), "promise 1: {id} of {place} was confirmed and is gone");
        }
        for (of, result) in self.results.iter().filter(|(of, _)| self.owed.contains(of) && self.acked.contains(of)) {
            let is_safe = server.ever.contains(&result.to_string())
                || self.acked.iter().any(|(_, id)| id == result)
                || is_stored(of.0, of.1);
            assert!(is_safe, "promise 1: {of:?} was confirmed, and is gone with its result {result}");
        }
        for (place, id) in &self.done {
            assert!(!is_stored(place, *id), "promise 2: {id} of {place} was acknowledged and is kept");
        }
        for unit in &self.units {
            let were_there = unit.iter().filter(|id| server.ever.contains(&id.to_string())).count();
            assert!(were_there == 0 || were_there == unit.len(), "promise 7: {unit:?} is there in part");
        }
    }

    /// Everything was delivered and acknowledged, and there is nothing else.
    pub(super) fn is_empty_with(&self, server: &Server) {
        let left = stored(&server.rows);
        assert!(left.is_empty(), "promise 1: {left:?} is kept, and no consumer gets it");
        for (place, id) in &self.owed {
            let is_dead = self.rejected.contains(&(place, *id)) && self.acked.contains(&(DEAD_LETTERS, *id));
            assert!(is_dead || self.acked.contains(&(place, *id)), "promise 1: {id} of {place} was never delivered");
        }
    }
}

/// What waits where.
fn stored(rows: &Rows) -> BTreeSet<(String, Id)> {
    let name = |holder: Holder| match holder {
        Holder::Queue(id) => rows.catalog.destinations[&id].name().to_owned(),
        Holder::Durable(id) => rows.catalog.durables[&id].name.to_string(),
    };
    let parts = rows.messages.values().flat_map(|stored| {
        let id = stored.message.id.as_str().parse().unwrap();
        stored.holders.iter().map(move |held| (name(held.holder), id))
    });
    parts.collect()
}
