//! What clients were told, held against what they get and what the database has: the promises of ARCHITECTURE.md,
//! "Always true". Whatever is broken panics, with the promise or the rule.

use std::collections::{BTreeMap, BTreeSet};

use batonmq::types::{Holder, Priority, Term};

use super::database::Server;
use crate::harness::Rows;

/// A message.
pub(super) type Id = u64;

/// Orders what clients see.
pub(super) type Moment = u64;

/// Where messages wait for a consumer: a queue, or a durable subscription.
pub(super) type Place = &'static str;

pub(super) const QUEUES: [Place; 2] = ["a", "b"];
pub(super) const SUBSCRIPTIONS: [Place; 2] = ["news one", "news two"];
pub(super) const DEAD_LETTERS: Place = "ActiveMQ.DLQ";

/// Queues that nobody has made when a run begins.
pub(super) const MADE_LATER: [Place; 3] = ["c", "d", "e"];

/// A term, and how often a message was delivered by then. What a session has in hand when it is over is told late.
pub(super) type Number = (Term, u32);

/// A delivery.
#[derive(Clone, Copy, Debug)]
pub(super) struct Got {
    pub(super) place: Place,
    pub(super) id: Id,
    pub(super) number: Number,
    pub(super) redelivered: bool,
    /// When the connection began.
    pub(super) since: Moment,
}

/// What a receipt will mean.
#[derive(Clone, Debug, Default)]
pub(super) struct Meaning {
    /// It will be delivered, or is settled.
    pub(super) kept: Vec<(Place, Id)>,
    /// It will never be delivered again.
    pub(super) done: Vec<(Place, Id)>,
    /// Neither will this, to nobody who connects later: somebody had it removed.
    pub(super) removed: Vec<(Place, Id)>,
    /// These subscriptions are there.
    pub(super) subscribed: Vec<Place>,
}

impl Meaning {
    /// A receipt confirms all that was sent before on its connection (R4).
    pub(super) fn and(&mut self, later: Self) {
        self.kept.extend(later.kept);
        self.done.extend(later.done);
        self.removed.extend(later.removed);
        self.subscribed.extend(later.subscribed);
    }
}

/// A message as its sender knows it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) sender: usize,
    pub(super) priority: Priority,
    /// Who is sure to get it.
    pub(super) places: Vec<Place>,
    /// When it becomes a dead letter. Unit: milliseconds.
    pub(super) expires: Option<u64>,
    /// Its transaction.
    pub(super) unit: Option<usize>,
    /// Its place among all that its sender sent, as they take effect.
    pub(super) rank: u64,
}

impl Sent {
    /// Several subscriptions may have it, and each may make a dead letter of it.
    fn is_shared(&self) -> bool {
        self.places.iter().all(|place| SUBSCRIPTIONS.contains(place))
    }

    fn has_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

/// A transaction: all of it takes effect, or nothing.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) sent: Vec<Id>,
    /// What it acknowledges.
    pub(super) settled: Vec<(Place, Id)>,
}

/// What all clients know, over all terms.
#[derive(Default)]
pub(super) struct Ledger {
    /// Unit: milliseconds.
    pub(super) now: u64,
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
    /// What somebody wanted to be removed: a purge, or the end of a subscription. It may be gone.
    unwanted: BTreeSet<(Place, Id)>,
    /// The same, confirmed; with the moment when it was.
    removed: BTreeMap<(Place, Id), Moment>,
    last_moment: Moment,
    /// With the last delivery of each.
    delivered: BTreeMap<(Place, Id), Number>,
    /// What was sent as the result of a message, before that was acknowledged.
    results: BTreeMap<(Place, Id), Id>,
    units: Vec<Unit>,
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

    pub(super) fn next_moment(&mut self) -> Moment {
        self.last_moment += 1;
        self.last_moment
    }

    /// A message takes effect when it is sent, or when its transaction is committed.
    pub(super) fn takes_effect(&mut self, id: Id, sent: Sent) {
        self.last_rank += 1;
        self.sent.insert(id, Sent { rank: self.last_rank, ..sent });
    }

    pub(super) fn next_unit(&self) -> usize {
        self.units.len()
    }

    pub(super) fn unit(&mut self, unit: Unit) {
        self.units.push(unit);
    }

    /// The message that was sent last.
    pub(super) fn last_id(&self) -> Id {
        self.last_id
    }

    /// The message is acknowledged, after its result was sent if it has one.
    pub(super) fn acks(&mut self, place: Place, id: Id, number: Number, result: Option<Id>) {
        self.acked.insert((place, id));
        self.answers(place, id, number, result);
    }

    pub(super) fn was_acked(&self, place: Place, id: Id) -> bool {
        self.acked.contains(&(place, id))
    }

    pub(super) fn rejects(&mut self, place: Place, id: Id, number: Number) {
        self.rejected.insert((place, id));
        self.answers(place, id, number, None);
    }

    /// An earlier answer did not take effect, or the message would not be there again. What a broker is told that was
    /// deposed is lost with the result, and so is what it is told in a session that it has ended.
    fn answers(&mut self, place: Place, id: Id, number: Number, result: Option<Id>) {
        let is_over = self.delivered.get(&(place, id)).is_some_and(|last| *last > number);
        if self.speaks_to_master && !is_over {
            self.results.remove(&(place, id));
            self.results.extend(result.map(|result| ((place, id), result)));
        }
    }

    /// The subscriptions that a topic message is sure to go to.
    pub(super) fn subscribed(&self) -> Vec<Place> {
        SUBSCRIPTIONS.into_iter().filter(|place| self.subscribed.contains(place)).collect()
    }

    /// Somebody asks for the end of a subscription.
    pub(super) fn unsubscribes(&mut self, place: Place) -> Vec<(Place, Id)> {
        self.subscribed.remove(place);
        self.wants_removed(place)
    }

    /// Somebody has everything removed that waits in a place; what is sure to be there.
    pub(super) fn wants_removed(&mut self, place: Place) -> Vec<(Place, Id)> {
        let may_lie_here = |(id, sent): &(&Id, &Sent)| match place {
            DEAD_LETTERS => self.may_have_died(**id, sent),
            _ => sent.places.contains(&place),
        };
        let unwanted = self.sent.iter().filter(may_lie_here).map(|(id, _)| (place, *id));
        self.unwanted.extend(unwanted.collect::<Vec<_>>());
        let here = |(at, _): &(Place, Id)| *at == place;
        match place {
            DEAD_LETTERS => self.delivered.keys().copied().filter(here).collect(),
            _ => self.owed.iter().copied().filter(here).collect(),
        }
    }

    fn may_have_died(&self, id: Id, sent: &Sent) -> bool {
        sent.has_expired(self.now) || sent.places.iter().any(|place| self.rejected.contains(&(*place, id)))
    }

    pub(super) fn is_told(&mut self, meaning: Meaning) {
        self.receipts += 1;
        self.are_removed(meaning.removed);
        self.owed.extend(meaning.kept);
        self.done.extend(meaning.done);
        self.subscribed.extend(meaning.subscribed);
    }

    /// An older copy of the database was put back: what was promised before is lost with it.
    pub(super) fn forget(&mut self) {
        self.sent.values_mut().for_each(|sent| sent.unit = None);
        self.units.clear();
        for promised in [&mut self.owed, &mut self.done, &mut self.unwanted] {
            promised.clear();
        }
        self.delivered.clear();
        self.removed.clear();
        self.results.clear();
        self.subscribed.clear();
    }

    pub(super) fn are_removed(&mut self, removed: Vec<(Place, Id)>) {
        let moment = self.next_moment();
        self.removed.extend(removed.into_iter().map(|removed| (removed, moment)));
    }

    /// A delivery, by a broker that holds the token as far as anybody can know.
    pub(super) fn gets(&mut self, got: &Got, server: &Server) {
        let Got { place, id, number, redelivered, since } = *got;
        self.deliveries += 1;
        let before = self.delivered.get(&(place, id)).copied();
        let is_late = before.is_some_and(|before| before.0 == number.0 && before.1 > number.1);
        self.gets_again(place, id, number);
        let sent = &self.sent[&id];
        let is_one_of_several = place == DEAD_LETTERS && sent.is_shared();
        if !is_late && !is_one_of_several {
            let is_done = self.done.contains(&(place, id));
            assert!(!is_done, "promise 2: {id} of {place} was acknowledged and comes back");
            let is_removed = self.removed.get(&(place, id)).is_some_and(|removed| *removed < since);
            assert!(!is_removed, "R29: {id} of {place} was removed and comes back");
            assert!(before.is_none() || redelivered, "R9: {id} of {place} was delivered before");
        }
        if place == DEAD_LETTERS {
            assert!(self.may_have_died(id, sent), "{id} is a dead letter without a cause");
        }
        if let Some(unit) = sent.unit {
            let is_there = |id: &Id| server.ever.contains(&id.to_string());
            assert!(self.lasting(unit).all(is_there), "promise 7: {id} is of a transaction that is not durable");
        }
    }

    /// The same by one that was deposed and could not know.
    pub(super) fn gets_again(&mut self, place: Place, id: Id, number: Number) {
        let last = self.delivered.entry((place, id)).or_insert(number);
        *last = number.max(*last);
    }

    /// The messages of a transaction that somebody is sure to get: what nobody is subscribed to is never stored.
    fn lasting(&self, unit: usize) -> impl Iterator<Item = &Id> {
        let is_wanted = |id: &&Id| self.sent[id].places.iter().any(|place| !self.unwanted.contains(&(*place, **id)));
        self.units[unit].sent.iter().filter(is_wanted)
    }

    /// Nobody can write any more who gave these promises, or everything stands still.
    pub(super) fn is_kept_by(&self, server: &Server) {
        let stored = stored(&server.rows);
        let is_stored = |place: Place, id: Id| stored.contains(&(place.to_owned(), id));
        for (place, id) in self.owed.difference(&self.acked).filter(|owed| !self.unwanted.contains(owed)) {
            let is_dead = self.is_dead(place, *id, is_stored(DEAD_LETTERS, *id));
            assert!(is_dead || is_stored(place, *id), "promise 1: {id} of {place} was confirmed and is gone");
        }
        let counts =
            |of: &(Place, Id)| self.owed.contains(of) && self.acked.contains(of) && !self.unwanted.contains(of);
        for (of, result) in self.results.iter().filter(|(of, _)| counts(of)) {
            let is_unwanted = |place: &Place| self.unwanted.contains(&(*place, *result));
            let is_safe = server.ever.contains(&result.to_string())
                || self.acked.iter().any(|(_, id)| id == result)
                || self.sent[result].places.iter().all(is_unwanted)
                || is_stored(of.0, of.1)
                || self.is_dead(of.0, of.1, is_stored(DEAD_LETTERS, of.1));
            assert!(is_safe, "promise 1: {of:?} was confirmed, and is gone with its result {result}");
        }
        for (place, id) in &self.done {
            let is_one_of_several = *place == DEAD_LETTERS && self.sent[id].is_shared();
            assert!(
                is_one_of_several || !is_stored(place, *id),
                "promise 2: {id} of {place} was acknowledged and is kept"
            );
            let is_dead = *place != DEAD_LETTERS && !self.sent[id].is_shared() && is_stored(DEAD_LETTERS, *id);
            assert!(!is_dead, "promise 2: {id} of {place} was acknowledged and is a dead letter");
        }
        for (place, id) in self.removed.keys().filter(|(place, _)| *place != DEAD_LETTERS) {
            assert!(!is_stored(place, *id), "R29: {id} of {place} was removed and is kept");
        }
        for (number, unit) in self.units.iter().enumerate() {
            let is_there = |id: &Id| server.ever.contains(&id.to_string());
            let mut lasting = self.lasting(number).map(is_there);
            let first = lasting.next();
            let is_whole = lasting.all(|is_there| Some(is_there) == first);
            assert!(is_whole, "promise 7: {unit:?} is there in part");
            let mut settled = unit.settled.iter().filter(|(place, _)| *place != DEAD_LETTERS);
            let is_settled = settled.all(|(place, id)| !is_stored(place, *id));
            assert!(first != Some(true) || is_settled, "promise 7: {unit:?} is there, and what it acknowledged too");
        }
    }

    /// Whether what is not in its place any more has become a dead letter.
    fn is_dead(&self, place: Place, id: Id, is_stored: bool) -> bool {
        let dead = (DEAD_LETTERS, id);
        let has_cause = self.rejected.contains(&(place, id)) || self.sent[&id].has_expired(self.now);
        has_cause && (is_stored || self.acked.contains(&dead) || self.unwanted.contains(&dead))
    }

    /// Everything was delivered and acknowledged, and there is nothing else.
    pub(super) fn is_empty_with(&self, server: &Server) {
        let left = stored(&server.rows);
        assert!(left.is_empty(), "promise 1: {left:?} is kept, and no consumer gets it");
        for (place, id) in self.owed.difference(&self.acked).filter(|owed| !self.unwanted.contains(owed)) {
            let is_dead = self.is_dead(place, *id, false);
            assert!(is_dead, "promise 1: {id} of {place} was never delivered");
        }
    }
}

/// What waits where.
fn stored(rows: &Rows) -> BTreeSet<(String, Id)> {
    let name = |holder: Holder| match holder {
        Holder::Queue(id) => rows.catalog.destinations.get(&id).map(|destination| destination.name().to_owned()),
        Holder::Durable(id) => rows.catalog.durables.get(&id).map(|durable| durable.name.to_string()),
    };
    let name = |holder| name(holder).unwrap_or_else(|| format!("{holder:?}, which is not there"));
    let parts = rows.messages.values().flat_map(|stored| {
        let id = stored.message.id.as_str().parse().unwrap();
        stored.holders.iter().map(move |held| (name(held.holder), id))
    });
    parts.collect()
}
