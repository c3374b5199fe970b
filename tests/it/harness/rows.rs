//! What a store has to keep, as simple as it can be: messages and a catalog, changed by operations and read in pages. A
//! model of real stores, and the heart of the tests' own.

use std::collections::{BTreeMap, BTreeSet};

use batonmq::{
    persistence::{Backlog, DueMessage, DuePage, DueReason, Page, PageRange, Window},
    types::{Catalog, Holder, Op, Priority, Sequence, Stored, Tenure, Timestamp},
};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    pub(crate) catalog: Catalog,
    pub(crate) messages: BTreeMap<Sequence, Stored>,
}

impl Rows {
    /// The ids of the messages, in the order of acceptance.
    pub(crate) fn ids(&self) -> impl Iterator<Item = String> {
        self.messages.values().map(|stored| stored.message.id.to_string())
    }

    pub(crate) fn apply_all(&mut self, ops: &[Op]) {
        ops.iter().for_each(|op| self.apply(op));
    }

    /// What was inserted for a durable subscription has one, and no two have a name (R29).
    pub(crate) fn check(&self, ops: &[Op]) {
        let durables = &self.catalog.durables;
        let names: BTreeSet<_> = durables.values().map(|durable| (&durable.client_id, &durable.name)).collect();
        assert_eq!(names.len(), durables.len(), "R29: one was made before the last one was gone: {durables:?}");
        for stored in ops.iter().filter_map(|op| if let Op::Insert(stored) = op { Some(stored) } else { None }) {
            let stored = self.messages.get(&stored.sequence);
            for held in stored.iter().flat_map(|stored| &stored.holders) {
                let is_gone = matches!(held.holder, Holder::Durable(id) if !durables.contains_key(&id));
                assert!(!is_gone, "R29: nobody will ever get {stored:?}");
            }
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        self.catalog.apply(op);
        match op {
            Op::Insert(stored) => drop(self.messages.entry(stored.sequence).or_insert_with(|| stored.clone())),
            Op::Settle { sequence, holder } => self.settle(*sequence, *holder),
            Op::Return { sequence, held } => {
                let parts = self.messages.get_mut(sequence).map(|stored| &mut stored.holders);
                for part in parts.into_iter().flatten().filter(|part| part.holder == held.holder) {
                    *part = *held;
                }
            }
            Op::DeleteDurable { id } => self.purge(Holder::Durable(*id), Sequence::MAX),
            Op::Purge { holder, upto } => self.purge(*holder, *upto),
            Op::Mark { .. } | Op::CreateDestination { .. } | Op::CreateDurable { .. } => {}
        }
    }

    fn purge(&mut self, holder: Holder, upto: Sequence) {
        for sequence in self.messages.range(..=upto).map(|(sequence, _)| *sequence).collect::<Vec<_>>() {
            self.settle(sequence, holder);
        }
    }

    fn settle(&mut self, sequence: Sequence, holder: Holder) {
        let Some(stored) = self.messages.get_mut(&sequence) else { return };
        stored.holders.retain(|held| held.holder != holder);
        if stored.holders.is_empty() {
            self.messages.remove(&sequence);
        }
    }

    /// As [`batonmq::persistence::MessageReader::page`].
    pub(crate) fn page(&self, holder: Holder, priority: Priority, range: PageRange, window: Window) -> Page {
        let in_range = self.messages.range(range.after..).map(|(_, stored)| stored);
        let in_range = in_range.filter(|stored| stored.sequence > range.after && stored.sequence <= range.upto);
        let held = in_range.filter(|stored| {
            stored.message.priority == priority && stored.holders.iter().any(|held| held.holder == holder)
        });
        let mut page = Page { complete: true, ..Page::default() };
        let mut bytes = 0;
        for stored in held {
            let size = stored.message.size();
            if !window.has_room(page.messages.len(), bytes, size) {
                page.complete = false;
                break;
            }
            bytes += size;
            page.messages.push(stored.clone());
        }
        page
    }

    /// As [`batonmq::persistence::MessageReader::due`].
    pub(crate) fn due(&self, before: Timestamp, after: (Timestamp, Sequence), window: Window) -> DuePage {
        let mut due: Vec<DueMessage> = self.messages.values().flat_map(due).collect();
        let place = |due: &DueMessage| (due.at, due.stored.sequence);
        due.retain(|due| place(due) > after);
        due.sort_by_key(|due| (due.at, due.stored.sequence, due.reason));
        let belongs_to_the_last = |at: usize| at > 0 && place(&due[at]) == place(&due[at - 1]);
        let fits = |at: &usize| due[*at].at <= before && (*at < window.messages || belongs_to_the_last(*at));
        let count = (0..due.len()).take_while(fits).count();
        let later = due.split_off(count);
        DuePage { messages: due, next: later.first().map(|due| due.at) }
    }

    /// All that ever comes due, in order.
    pub(crate) fn all_due(&self) -> Vec<(Timestamp, Sequence, DueReason)> {
        let due = self.messages.values().flat_map(due).map(|due| (due.at, due.stored.sequence, due.reason));
        due.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether messages and catalog are the same; the tenure is its own promise.
    pub(crate) fn same_but_for_the_tenure(&self, other: &Self) -> bool {
        let timeless = |catalog: &Catalog| Catalog { tenure: Tenure::default(), ..catalog.clone() };
        self.messages == other.messages && timeless(&self.catalog) == timeless(&other.catalog)
    }

    /// Everybody who holds something.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let held = self.messages.values().flat_map(|stored| &stored.holders);
        held.map(|held| held.holder).collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub(crate) fn backlog(&self, holder: Holder) -> Backlog {
        let mut backlog = Backlog::default();
        let held = |stored: &&Stored| stored.holders.iter().any(|held| held.holder == holder);
        for stored in self.messages.values().filter(held) {
            backlog.messages[stored.message.priority.index()] += 1;
            backlog.bytes += stored.message.size() as u64;
        }
        backlog
    }
}

/// When and why a message comes due.
fn due(stored: &Stored) -> impl Iterator<Item = DueMessage> {
    let expires = stored.message.expires.map(|at| (at, DueReason::Expires));
    let returns = stored.holders.iter().filter_map(|held| Some((held.due?, DueReason::Returns(held.holder))));
    expires.into_iter().chain(returns).map(|(at, reason)| DueMessage { at, reason, stored: stored.clone() })
}
