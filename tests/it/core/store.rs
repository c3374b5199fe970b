//! The most naive store there is: it applies every change at once and in order. What the core must find after a crash
//! is what lies here.

use std::collections::BTreeMap;

use batonmq::{
    broker::{Change, Core, CoreOptions, Effects},
    types::{
        Backlog, Catalog, DestinationKind, DueMessage, DuePage, DueReason, Held, Holder, Op, Page, PageRange, Priority,
        Sequence, Stored, Term, Timestamp, Window,
    },
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

    pub(super) fn apply_op(&mut self, op: &Op) {
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
            Op::DeleteDurable { id } => self.purge(Holder::Durable(*id), Sequence::MAX),
            Op::Purge { holder, upto } => self.purge(*holder, *upto),
            Op::Mark { .. } | Op::CreateDestination { .. } | Op::CreateDurable { .. } => {}
        }
        self.messages.retain(|_, stored| !stored.holders.is_empty());
    }

    fn purge(&mut self, holder: Holder, upto: Sequence) {
        for (_, stored) in self.messages.range_mut(..=upto) {
            stored.holders.retain(|held| held.holder != holder);
        }
    }

    /// The core of the next term, which knows how much lies here.
    pub(super) fn recover(&self, options: CoreOptions, term: Term) -> Core {
        let mut core = Core::recover(options, term, &self.catalog);
        for holder in self.holders() {
            core.count(Timestamp(0), holder, &self.backlog(holder), &mut Effects::default());
        }
        core.check();
        core
    }

    /// Everybody who may hold messages.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let is_queue =
            |(_, destination): &(_, &batonmq::types::Destination)| destination.kind() == DestinationKind::Queue;
        let queues = self.catalog.destinations.iter().filter(is_queue).map(|(id, _)| Holder::Queue(*id));
        queues.chain(self.catalog.durables.keys().copied().map(Holder::Durable)).collect()
    }

    /// How much a holder has.
    pub(super) fn backlog(&self, holder: Holder) -> Backlog {
        let mut backlog = Backlog::default();
        for stored in self.messages.values().filter(|stored| part(stored, holder).is_some()) {
            backlog.messages[stored.message.priority.index()] += 1;
            backlog.bytes += stored.message.size() as u64;
        }
        backlog
    }

    /// As a store reads a page.
    pub(super) fn page(&self, holder: Holder, priority: Priority, range: PageRange, window: Window) -> Page {
        let lies = |stored: &&Stored| stored.message.priority == priority && part(stored, holder).is_some();
        let mut stretch =
            self.messages.range(range.after.next()..=range.upto).map(|(_, stored)| stored).filter(lies).peekable();
        let mut page = Page::default();
        let mut bytes = 0;
        while let Some(stored) = stretch.peek() {
            bytes += stored.message.size();
            if !page.messages.is_empty() && (page.messages.len() >= window.messages || bytes > window.bytes) {
                break;
            }
            page.messages.extend(stretch.next().cloned());
        }
        page.complete = stretch.peek().is_none();
        page
    }

    /// As a store finds what comes due.
    pub(super) fn due(&self, before: Timestamp, after: (Timestamp, Sequence), window: Window) -> DuePage {
        let mut all: Vec<DueMessage> = Vec::new();
        for stored in self.messages.values() {
            let returns = stored.holders.iter().filter_map(|held| Some((held.due?, DueReason::Returns(held.holder))));
            let expires = stored.message.expires.map(|at| (at, DueReason::Expires));
            all.extend(returns.chain(expires).map(|(at, reason)| DueMessage { at, reason, stored: stored.clone() }));
        }
        all.retain(|due| (due.at, due.stored.sequence) > after);
        all.sort_by_key(|due| (due.at, due.stored.sequence));
        let count = all.iter().take_while(|due| due.at <= before).count();
        let mut end = count.min(window.messages.max(1));
        while end < count && (all[end].at, all[end].stored.sequence) == (all[end - 1].at, all[end - 1].stored.sequence)
        {
            end += 1;
        }
        let next = all.get(end).map(|due| due.at);
        all.truncate(end);
        DuePage { messages: all, next }
    }
}

fn part(stored: &Stored, holder: Holder) -> Option<&Held> {
    stored.holders.iter().find(|held| held.holder == holder)
}

/// A change as a store gets it.
pub(super) fn operations(change: &Change) -> Vec<Op> {
    match change {
        Change::One { op, .. } => vec![op.clone()],
        Change::Settle { sequence, holder, .. } => vec![Op::Settle { sequence: *sequence, holder: *holder }],
        Change::Return { sequence, held, .. } => vec![Op::Return { sequence: *sequence, held: *held }],
        Change::SettleAll { holder, sequences, .. } => {
            sequences.iter().map(|sequence| Op::Settle { sequence: *sequence, holder: *holder }).collect()
        }
        Change::Purge { holder, upto } => vec![Op::Purge { holder: *holder, upto: *upto }],
        Change::Mark { holder, upto, .. } => vec![Op::Mark { holder: *holder, upto: *upto }],
        Change::Rely { .. } => Vec::new(),
        Change::Unit { ops, .. } => ops.to_vec(),
    }
}
