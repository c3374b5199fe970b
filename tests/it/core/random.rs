//! Random commands on the core and on the naive model in lock-step, with batches that become durable, are refused in
//! part, or are lost in a crash. Each run enables a random part of the commands, so that rare meetings become common.
//!
//! Runs have the seeds from `BATONMQ_SEED` on (1 without it), so that each run of all tests tries new ones.
//! `BATONMQ_RUNS` asks for more than the usual number of them; 1 repeats the one that failed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use batonmq::{
    broker::{
        Ack, AckMode, AckTarget, Browse, Change, Command, Connect, Core, CoreOptions, Effects, Kept, NotDone, Outgoing,
        Pending, Read, Send, Subscribe, UnitId, Unsubscribe, Verdict,
    },
    config::RedeliveryPolicy,
    types::{
        Backlog, Catalog, ConsumerNo, DeliveryTag, Destination, DestinationKind, Holder, Message, MessageDraft, Op,
        Page, Priority, Sequence, SessionId, Stored, Term, Timestamp, Window,
    },
};

use super::{
    fixture::{options, policy},
    model::{Consumer, DLQ, Event, Group, Label, Model, Place, Record, Session, Shadow, State, Transaction, Who},
    store::{Store, operations},
};
use crate::harness::{Rng, number};

/// Runs of the usual test, and commands of each.
const RUNS: u64 = 6_000;
const COMMANDS: u64 = 400;

#[test]
fn core_and_model_agree_under_random_commands() {
    let (first, runs) = (number("BATONMQ_SEED").unwrap_or(1), number("BATONMQ_RUNS").unwrap_or(RUNS));
    for seed in first..first + runs {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "repeat it with BATONMQ_SEED={seed} BATONMQ_RUNS=1");
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..COMMANDS {
        world.step();
    }
    world.drain();
}

/// Whether a dead letter of the core can be this one of the model.
fn is_of((made_of, id): &(Option<Place>, String), group: &Group) -> bool {
    match (made_of, &group.events[..]) {
        (Some(place), [Event::Remove(removed), Event::Add(..)]) => place == removed,
        (None, [Event::Add(_, record)]) => *id == record.id,
        _ => false,
    }
}

struct Dice(Rng);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound.max(1))
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len())).cloned()
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Connect,
    Close,
    Temporary,
    Send,
    SendIn,
    Subscribe,
    Unsubscribe,
    DeleteDurable,
    Answer,
    AnswerIn,
    Written,
    Begin,
    Commit,
    Abort,
    Tick,
    Seal,
    Resolve,
    Crash,
    Squeeze,
    Read,
    Purge,
    Browse,
    Look,
}

const STEPS: [Step; 23] = [
    Step::Connect,
    Step::Send,
    Step::Subscribe,
    Step::Seal,
    Step::Resolve,
    Step::Close,
    Step::Temporary,
    Step::SendIn,
    Step::Unsubscribe,
    Step::DeleteDurable,
    Step::Answer,
    Step::AnswerIn,
    Step::Written,
    Step::Begin,
    Step::Commit,
    Step::Abort,
    Step::Tick,
    Step::Crash,
    Step::Squeeze,
    Step::Read,
    Step::Purge,
    Step::Browse,
    Step::Look,
];

/// The first so many steps are in every run; without them nothing happens.
const ALWAYS: usize = 5;

/// What one batch holds, as the core and as the model see it.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    groups: Vec<Group>,
    /// When its first change came in.
    since: Option<Timestamp>,
}

struct World {
    dice: Dice,
    weights: Vec<(Step, usize)>,
    /// One refusal in so many units; 0: none.
    refusals: usize,
    options: CoreOptions,
    core: Core,
    model: Model,
    store: Store,
    /// Written at once.
    spool: Store,
    shadow: Shadow,
    /// Destinations and durable subscriptions as the core has made them, durable or not.
    catalog: Catalog,
    open: Batch,
    sealed: Option<Batch>,
    /// The store's name of a message, and the model's.
    places: std::collections::BTreeMap<(Sequence, Holder), Place>,
    /// The core's name of a unit under way, and the model's.
    units: Vec<(UnitId, u64)>,
    /// Marks that are durable and that the core is not told of yet.
    untold: Vec<(Holder, Sequence)>,
    /// Pages that the core asked for, with what was not durable then of what had become of their messages.
    reads: Vec<(Read, HashMap<Sequence, Pending>)>,
    /// Pages that were read as the store stood then, and that the core has not got yet.
    pages: Vec<(Read, HashMap<Sequence, Pending>, Page)>,
    /// What the core has not been told of what holders had at the start of the term (R28).
    uncounted: Vec<(Holder, Backlog)>,
    /// One page in so many is held back; 0: none.
    held_pages: usize,
    term: u32,
    sessions: u64,
    consumers: u32,
    messages: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(Rng::new(seed));
        let mut weights = Vec::new();
        for (at, step) in STEPS.into_iter().enumerate() {
            if at < ALWAYS || !dice.one_in(3) {
                let weight = 1 + dice.below(10);
                weights.push((
                    step,
                    if matches!(step, Step::Crash | Step::Close | Step::Purge) { 1 + weight / 4 } else { weight * 2 },
                ));
            }
        }
        let at_once = RedeliveryPolicy { delay: Duration::ZERO, backoff_multiplier: 1.0, ..policy("lost", 1) };
        let policies = vec![
            policy("retry", 2),
            RedeliveryPolicy { count_lost_consumers: true, ..at_once.clone() },
            RedeliveryPolicy { destination: "events".into(), count_lost_consumers: true, ..policy("", 1) },
        ];
        let options = CoreOptions { redelivery: policies.iter().cloned().map(Arc::new).collect(), ..options() };
        let store = Store::default();
        let refusals = if dice.one_in(2) { 0 } else { 3 + dice.below(10) };
        Self {
            weights,
            refusals,
            core: store.recover(options.clone(), Term(1)),
            options,
            model: Model { now: Timestamp(1_000_000), policies, commands: 1, ..Model::default() },
            store,
            spool: Store::default(),
            shadow: Shadow::default(),
            catalog: Catalog::default(),
            open: Batch::default(),
            sealed: None,
            places: std::collections::BTreeMap::new(),
            units: Vec::new(),
            untold: Vec::new(),
            reads: Vec::new(),
            pages: Vec::new(),
            uncounted: Vec::new(),
            held_pages: if dice.one_in(2) { 0 } else { 1 + dice.below(4) },
            term: 1,
            sessions: 0,
            consumers: 0,
            messages: 0,
            dice,
        }
    }

    fn step(&mut self) {
        let total = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.dice.below(total);
        let weights = self.weights.clone();
        let (step, _) = weights
            .iter()
            .find(|(_, weight)| {
                at.checked_sub(*weight).is_none_or(|rest| {
                    at = rest;
                    false
                })
            })
            .unwrap();
        match step {
            Step::Connect => self.connect(),
            Step::Close => self.close(),
            Step::Temporary => self.temporary(),
            Step::Send => self.send(),
            Step::SendIn => self.send_in(),
            Step::Subscribe => self.subscribe(),
            Step::Unsubscribe => self.unsubscribe(),
            Step::DeleteDurable => self.delete_durable(),
            Step::Answer => self.answer(false),
            Step::AnswerIn => self.answer(true),
            Step::Written => self.written(),
            Step::Begin => self.begin(),
            Step::Commit => self.commit(),
            Step::Abort => self.abort(),
            Step::Tick => self.tick(),
            Step::Seal => self.seal(),
            Step::Resolve => self.resolve(),
            Step::Crash => self.crash(),
            Step::Squeeze => self.squeeze(),
            Step::Read => self.read(),
            Step::Purge => self.purge(),
            Step::Browse => self.browse(),
            Step::Look => self.look(),
        }
    }

    // The core, and what comes of it.

    /// Applies a command; whether it was done.
    fn apply(&mut self, session: SessionId, command: Command, effects: &mut Effects) -> bool {
        match self.core.apply(self.model.now, session, command, effects) {
            Ok(()) => true,
            Err(NotDone::Refused(_)) => false,
            Err(NotDone::Held { hold, .. }) => panic!("nothing is full: {hold:?}"),
        }
    }

    /// The model has followed a command: was what the core did right?
    fn follow(&mut self, mut effects: Effects) {
        self.core.advance(self.model.now, &mut effects);
        self.answer_reads(&mut effects);
        self.core.check();
        effects.spool.drain(..).for_each(|op| self.spool.apply_op(&op));
        for change in &effects.changes {
            operations(change).iter().for_each(|op| self.catalog.apply(op));
        }
        let mut groups = std::mem::take(&mut self.model.groups);
        self.learn_places(&effects.changes, &groups);
        let mut died: Vec<_> = effects.changes.iter().filter_map(|change| self.died(change)).collect();
        for own in groups.iter().filter(|group| self.is_dead_letter(group)) {
            died.iter().position(|died| is_of(died, own)).map(|at| died.remove(at)); // of the command, not of time
        }
        self.model.advance(&died);
        groups.append(&mut self.model.groups);
        self.learn_units(&effects.changes, &groups);
        if !effects.changes.is_empty() {
            self.open.since.get_or_insert(self.model.now);
        }
        self.open.changes.append(&mut effects.changes);
        self.open.groups.extend(groups);
        for (session, outgoing) in effects.outgoing.drain(..) {
            match outgoing {
                Outgoing::Delivery(delivery) => {
                    let who = (session, delivery.consumer.0);
                    match self.model.browsers.contains_key(&who) {
                        true => self.model.shown(who, &delivery),
                        false => self.model.delivered(session, &delivery),
                    }
                }
                Outgoing::BrowseEnd(browser) => self.model.seen_all((session, browser.0)),
                _ => {}
            }
        }
        self.model.commands += 1;
        let waiting = self.waiting();
        self.model.check(|label| waiting.contains(label));
    }

    /// What comes due is read at once, and so are pages unless they are held back.
    fn answer_reads(&mut self, effects: &mut Effects) {
        while !effects.reads.is_empty() {
            effects.spool.drain(..).for_each(|op| self.spool.apply_op(&op));
            for read in std::mem::take(&mut effects.reads) {
                match &read {
                    Read::Page { stored, .. } | Read::Browse { stored, .. } => {
                        let told = !matches!(read, Read::Page { handed_out: false, .. });
                        let holder = stored.filter(|_| told);
                        let pending = holder.map(|holder| self.pending(holder, &effects.changes)).unwrap_or_default();
                        let held = stored.is_some() && self.held_pages > 0 && self.dice.one_in(self.held_pages);
                        if held {
                            self.reads.push((read, pending));
                        } else {
                            let page = self.page(&read);
                            self.core.page_read(self.model.now, &read, &page, &pending, effects);
                        }
                    }
                    Read::Due { before, after, window, .. } => {
                        let page = self.store.due(*before, *after, *window);
                        self.core.due_read(self.model.now, &read, &page, effects);
                    }
                }
            }
            self.core.advance(self.model.now, effects);
        }
    }

    /// What of a holder's messages was settled or came back and is not durable.
    fn pending(&self, holder: Holder, now: &[Change]) -> HashMap<Sequence, Pending> {
        let sealed = self.sealed.iter().flat_map(|batch| &batch.changes);
        let ops = sealed.chain(&self.open.changes).chain(now).flat_map(operations);
        let became = ops.filter_map(|op| match op {
            Op::Settle { sequence, holder: by } if by == holder => Some((sequence, Pending::Settled)),
            Op::Return { sequence, held } if held.holder == holder => Some((sequence, Pending::Returned(held))),
            _ => None,
        });
        became.collect()
    }

    fn page(&mut self, read: &Read) -> Page {
        let (Read::Page { stored, spooled, priority, range, .. }
        | Read::Browse { stored, spooled, priority, range, .. }) = read
        else {
            panic!("{read:?} is no page")
        };
        let window = Window { messages: 1 + self.dice.below(4), bytes: usize::MAX };
        let page = |store: &Store, holder: Option<Holder>| {
            let all = Page { messages: Vec::new(), complete: true };
            holder.map_or(all, |holder| store.page(holder, *priority, *range, window))
        };
        let (one, mut other) = (page(&self.store, *stored), page(&self.spool, *spooled));
        let end = |page: &Page| page.messages.last().filter(|_| !page.complete).map(|last| last.sequence);
        let upto = end(&one).into_iter().chain(end(&other)).min();
        other.complete &= one.complete;
        other.messages.extend(one.messages);
        other.messages.sort_by_key(|stored| stored.sequence);
        other.messages.retain(|stored| upto.is_none_or(|upto| stored.sequence <= upto));
        other
    }

    /// A page that was held back is read, and later handed over; the core is told how much a holder had at the start.
    fn read(&mut self) {
        if !self.uncounted.is_empty() {
            let (holder, backlog) = self.uncounted.remove(self.dice.below(self.uncounted.len()));
            let mut effects = Effects::default();
            self.core.count(self.model.now, holder, &backlog, &mut effects);
            self.follow(effects);
        }
        if !self.reads.is_empty() {
            let (read, pending) = self.reads.remove(self.dice.below(self.reads.len()));
            let page = self.page(&read);
            self.pages.push((read, pending, page));
        }
        if !self.pages.is_empty() && self.dice.one_in(2) {
            let (read, pending, page) = self.pages.remove(self.dice.below(self.pages.len()));
            let mut effects = Effects::default();
            self.core.page_read(self.model.now, &read, &page, &pending, &mut effects);
            self.follow(effects);
        }
    }

    /// Memory gets scarce: what is durable may leave it.
    fn squeeze(&mut self) {
        let batches = self.sealed.iter().chain([&self.open]);
        let oldest = batches.filter_map(|batch| batch.since).chain([self.model.now]).min().unwrap();
        let in_use = self.options.limits.memory_bytes_max / 100 * [60, 80, 99][self.dice.below(3)];
        let mut effects = Effects::default();
        let spooled_before = if self.dice.one_in(3) { oldest } else { self.model.now };
        self.core.keep_within(self.model.now, in_use, Kept { stored_before: oldest, spooled_before }, &mut effects);
        self.follow(effects);
    }

    /// What a dead letter is made of, if the store has that and its place is known, and its message-id.
    fn died(&self, change: &Change) -> Option<(Option<Place>, String)> {
        let Change::Unit { ops, awaited: false, .. } = change else { return None };
        let Some(Op::Insert(dead)) = ops.last() else { panic!("{change:?} is no dead letter") };
        let settled = ops.iter().find_map(|op| match op {
            Op::Settle { sequence, holder } => self.places.get(&(*sequence, *holder)).copied(),
            _ => None,
        });
        Some((settled, dead.message.id.to_string()))
    }

    /// Matches units of the core and of the model: dead letters by what they are made of, else by message-id.
    fn learn_units(&mut self, changes: &[Change], groups: &[Group]) {
        let mut left: Vec<&Group> = groups.iter().filter(|group| group.unit.is_some()).collect();
        for change in changes {
            let Change::Unit { id, ops, .. } = change else { continue };
            let died = self.died(change);
            let same = |group: &&Group| match &died {
                Some(died) => is_of(died, group),
                None => !self.is_dead_letter(group),
            };
            let group = left.remove(left.iter().position(same).expect("the model does what the core does"));
            self.units.push((*id, group.unit.unwrap()));
            if let (true, Some(Op::Insert(dead)), Some(Event::Add(place, _))) =
                (died.is_some(), ops.last(), group.events.last())
            {
                self.places.insert((dead.sequence, dead.holders[0].holder), *place);
            }
        }
        assert!(left.is_empty(), "the core did not do {left:?}");
    }

    fn is_dead_letter(&self, group: &Group) -> bool {
        group.unit.is_some_and(|unit| self.model.committing[&unit].dying.is_some())
    }

    /// Matches other inserts of the core and of the model by destination and message-id.
    fn learn_places(&mut self, changes: &[Change], groups: &[Group]) {
        let mut added: Vec<(Place, String)> = Vec::new();
        let living = groups.iter().filter(|group| !self.is_dead_letter(group));
        for event in living.flat_map(|group| &group.events) {
            if let Event::Add(place, record) = event {
                added.push((*place, record.id.clone()));
            }
        }
        let living = changes.iter().filter(|change| !matches!(change, Change::Unit { awaited: false, .. }));
        for op in living.flat_map(operations) {
            let Op::Insert(stored) = op else { continue };
            for held in &stored.holders {
                let label = self.label(held.holder);
                let same = |(place, id): &(Place, String)| {
                    *id == stored.message.id.as_str() && self.model.queues[&place.0].label == label
                };
                let at = added.iter().position(same).expect("the model stores what the core stores");
                self.places.insert((stored.sequence, held.holder), added.remove(at).0);
            }
        }
        assert!(added.is_empty(), "the core did not store {added:?}");
    }

    fn label(&self, holder: Holder) -> Label {
        match holder {
            Holder::Queue(id) => Label::Queue(self.catalog.destinations[&id].name().into()),
            Holder::Durable(id) => {
                let durable = &self.catalog.durables[&id];
                let topic = self.catalog.destinations[&durable.topic].name();
                Label::Durable(durable.client_id.to_string(), durable.name.to_string(), topic.into())
            }
        }
    }

    /// Queues with a mark that is not durable yet, or a page that is being read.
    fn waiting(&self) -> Vec<Label> {
        let changes = self.open.changes.iter().chain(self.sealed.iter().flat_map(|batch| &batch.changes));
        let marked =
            changes.filter_map(|change| if let Change::Mark { holder, .. } = change { Some(*holder) } else { None });
        let reads = self.reads.iter().map(|(read, _)| read).chain(self.pages.iter().map(|(read, ..)| read));
        let read = reads.filter_map(|read| if let Read::Page { stored, .. } = read { *stored } else { None });
        let holders = marked.chain(self.untold.iter().map(|(holder, _)| *holder)).chain(read);
        let live = |holder: &Holder| match holder {
            Holder::Queue(id) => self.catalog.destinations.contains_key(id),
            Holder::Durable(id) => self.catalog.durables.contains_key(id),
        };
        holders.filter(live).map(|holder| self.label(holder)).collect()
    }

    // Clients.

    fn session(&mut self) -> Option<SessionId> {
        let sessions: Vec<_> = self.model.sessions.keys().copied().collect();
        self.dice.pick(&sessions)
    }

    fn connect(&mut self) {
        if self.model.sessions.len() >= 5 {
            return;
        }
        let client = [None, None, Some("ann"), Some("bob")][self.dice.below(4)];
        self.connect_as(client);
    }

    fn connect_as(&mut self, client: Option<&str>) -> SessionId {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let mut effects = Effects::default();
        let connect = Connect { user: None, client_id: client.map(Into::into), lenient: false };
        assert!(self.apply(session, Command::Connect(connect), &mut effects));
        let same = |(_, other): &(&SessionId, &Session)| client.is_some() && other.client.as_deref() == client;
        let old = self.model.sessions.iter().find(same).map(|(old, _)| *old);
        if let Some(old) = old {
            self.model.close(old);
        }
        self.model.sessions.insert(session, Session { client: client.map(Into::into), ..Session::default() });
        self.follow(effects);
        session
    }

    fn close(&mut self) {
        let Some(session) = self.session() else { return };
        let mut effects = Effects::default();
        self.core.close(self.model.now, session, &mut effects);
        self.model.close(session);
        self.follow(effects);
    }

    fn temporary(&mut self) {
        let Some(session) = self.session() else { return };
        let name = format!("answers-{}-{}", session.0, self.dice.below(2));
        let destination = Destination::new(DestinationKind::TemporaryQueue, &name);
        let mut effects = Effects::default();
        assert!(self.apply(session, Command::CreateTemporary(destination), &mut effects));
        let temporaries = &mut self.model.sessions.get_mut(&session).unwrap().temporaries;
        if !temporaries.contains(&name) {
            temporaries.push(name);
        }
        self.follow(effects);
    }

    fn destination(&mut self) -> Destination {
        match self.dice.below(10) {
            0 | 1 => Destination::queue("orders"),
            2 | 3 => Destination::queue("retry"),
            4 => Destination::queue("lost"),
            5 | 6 => Destination::topic("news"),
            7 => Destination::topic("events"),
            8 => Destination::queue(DLQ),
            _ => {
                let session = self.dice.below(self.sessions as usize + 1);
                let name = format!("answers-{session}-{}", self.dice.below(2));
                Destination::new(DestinationKind::TemporaryQueue, &name)
            }
        }
    }

    fn message(&mut self) -> (MessageDraft, Record) {
        self.messages += 1;
        let id = format!("m{}", self.messages);
        let lifetime = self.dice.below(4_000) as u64;
        let expires = self.dice.one_in(6).then_some(Timestamp(self.model.now.0 + lifetime));
        let priority = if self.dice.one_in(4) { self.dice.below(10) as u8 } else { 4 };
        let persistent = !self.dice.one_in(4);
        let draft = MessageDraft {
            id: id.as_str().into(),
            persistent,
            priority: Priority::clamped(priority),
            expires,
            ..MessageDraft::default()
        };
        let record = Record {
            id,
            priority,
            persistent,
            expires,
            stored: false,
            withdrawn: false,
            purged: false,
            state: State::Pending,
            redelivered: false,
            deliveries: 0,
            failures: 0,
            moved: 0,
            origin: None,
        };
        (draft, record)
    }

    fn send(&mut self) {
        let Some(session) = self.session() else { return };
        let destination = self.destination();
        let (draft, record) = self.message();
        let message = Arc::new(Message::new(draft));
        let send = Send { destination: destination.clone(), message, transaction: None };
        let mut effects = Effects::default();
        let done = self.apply(session, Command::Send(send), &mut effects);
        assert!(done, "{destination}");
        self.model.send(&destination, &record);
        self.follow(effects);
    }

    /// A name of one of the session's transactions, or sometimes of none.
    fn transaction(&mut self, session: SessionId) -> String {
        let open: Vec<_> = self.model.sessions[&session].transactions.keys().cloned().collect();
        let unknown = || "unknown".to_owned();
        if self.dice.one_in(20) { unknown() } else { self.dice.pick(&open).unwrap_or_else(unknown) }
    }

    fn open_transaction(&mut self, session: SessionId, name: &str) -> Option<&mut Transaction> {
        self.model.sessions.get_mut(&session)?.transactions.get_mut(name)
    }

    fn send_in(&mut self) {
        let Some(session) = self.session() else { return };
        let (destination, name) = (self.destination(), self.transaction(session));
        let (draft, record) = self.message();
        let message = Arc::new(Message::new(draft));
        let send = Send { destination: destination.clone(), message, transaction: Some(name.as_str().into()) };
        let mut effects = Effects::default();
        let done = self.apply(session, Command::Send(send), &mut effects);
        let open = self.open_transaction(session, &name).is_some();
        assert_eq!(done, open, "{destination} {name}");
        if done && self.model.targets(&destination).is_some() {
            self.open_transaction(session, &name).unwrap().sends.push((destination, record));
        }
        self.follow(effects);
    }

    fn begin(&mut self) {
        let Some(session) = self.session() else { return };
        let name = format!("t{}", self.dice.below(4));
        let mut effects = Effects::default();
        let done = self.apply(session, Command::Begin(name.as_str().into()), &mut effects);
        assert_eq!(done, self.open_transaction(session, &name).is_none());
        if done {
            self.model.sessions.get_mut(&session).unwrap().transactions.insert(name, Transaction::default());
        }
        self.follow(effects);
    }

    fn commit(&mut self) {
        let Some(session) = self.session() else { return };
        let name = self.transaction(session);
        let mut effects = Effects::default();
        let done = self.apply(session, Command::Commit(name.as_str().into()), &mut effects);
        if self.open_transaction(session, &name).is_none() {
            assert!(!done);
            return self.follow(effects);
        }
        let number = self.model.next();
        assert!(done, "{name}");
        self.model.commit(session, &name, number);
        let waits = effects.changes.iter().any(|change| matches!(change, Change::Unit { awaited: true, .. }));
        assert_eq!(waits, self.model.committing.contains_key(&number), "only what is stored waits");
        self.follow(effects);
    }

    fn abort(&mut self) {
        let Some(session) = self.session() else { return };
        let name = self.transaction(session);
        let mut effects = Effects::default();
        let done = self.apply(session, Command::Abort(name.as_str().into()), &mut effects);
        assert_eq!(done, self.open_transaction(session, &name).is_some());
        if done {
            self.model.abort(session, &name);
        }
        self.follow(effects);
    }

    fn subscribe(&mut self) {
        let Some(session) = self.session() else { return };
        if self.model.consumers.len() >= 10 {
            return;
        }
        let destination = self.destination();
        let durable = (destination.kind() == DestinationKind::Topic && self.dice.one_in(2)).then_some("d");
        let mode = [AckMode::Auto, AckMode::Cumulative, AckMode::Individual, AckMode::Individual][self.dice.below(4)];
        let prefetch = 1 + self.dice.below(6) as u32;
        self.subscribe_to(session, &destination, mode, prefetch, durable);
    }

    fn subscribe_to(
        &mut self,
        session: SessionId,
        destination: &Destination,
        mode: AckMode,
        prefetch: u32,
        durable: Option<&str>,
    ) -> Who {
        self.consumers += 1;
        let who = (session, self.consumers);
        let priority = if self.dice.one_in(3) { self.dice.below(3) as u8 } else { 0 };
        let subscribe = Subscribe {
            consumer: ConsumerNo(who.1),
            destination: destination.clone(),
            ack: mode,
            prefetch,
            priority,
            durable: durable.map(Into::into),
        };
        let mut effects = Effects::default();
        let done = self.apply(session, Command::Subscribe(subscribe), &mut effects);
        let queue = self.subscribed(who, destination, durable);
        assert_eq!(done, queue.is_some(), "{destination} {durable:?}");
        if let Some(queue) = queue {
            let prefetch = prefetch as usize;
            let consumer = Consumer { queue, mode, prefetch, priority, last_tag: 0, excess: 0 };
            self.model.consumers.insert(who, consumer);
        }
        self.follow(effects);
        who
    }

    /// The model's queue for a new consumer, if it may have one.
    fn subscribed(&mut self, who: Who, destination: &Destination, durable: Option<&str>) -> Option<u64> {
        let name = destination.name().to_owned();
        let Some(durable) = durable else {
            return match destination.kind() {
                DestinationKind::Topic => Some(self.model.queue(Label::Plain(who, name))),
                DestinationKind::Queue => Some(self.model.queue(Label::Queue(name))),
                _ => {
                    let owned = self.model.sessions[&who.0].temporaries.contains(&name);
                    owned.then(|| self.model.queue(Label::Temporary(who.0, name)))
                }
            };
        };
        let client = self.model.sessions[&who.0].client.clone()?;
        let old = self.durable(&client, durable);
        if let Some(old) = old {
            if self.model.consumers.values().any(|consumer| consumer.queue == old) {
                return None;
            }
            if matches!(&self.model.queues[&old].label, Label::Durable(_, _, topic) if *topic == name) {
                return Some(old);
            }
            self.model.delete_durable(old);
        }
        let label = Label::Durable(client, durable.into(), name);
        let queue = self.model.queue(label.clone());
        let events = vec![Event::NewDurable(queue, label)];
        self.model.groups.push(Group { unit: None, sent: Vec::new(), events });
        Some(queue)
    }

    fn durable(&self, client: &str, name: &str) -> Option<u64> {
        let same = |label: &Label| matches!(label, Label::Durable(owner, other, _) if owner == client && other == name);
        self.model.queues.iter().find(|(_, queue)| same(&queue.label)).map(|(number, _)| *number)
    }

    fn consumer(&mut self) -> Option<Who> {
        let consumers: Vec<_> = self.model.consumers.keys().copied().collect();
        self.dice.pick(&consumers)
    }

    /// Somebody wants to see what lies in a queue.
    fn browse(&mut self) {
        let Some(session) = self.session() else { return };
        let destination = self.destination();
        if self.model.browsers.len() >= 6 {
            return;
        }
        self.consumers += 1;
        let who = (session, self.consumers);
        let prefetch = 1 + self.dice.below(6) as u32;
        let browse = Browse {
            consumer: ConsumerNo(who.1),
            destination: destination.clone(),
            ack: AckMode::Individual,
            prefetch,
        };
        let mut effects = Effects::default();
        let done = self.apply(session, Command::Browse(browse), &mut effects);
        let queue = match destination.kind() {
            DestinationKind::Topic => None,
            _ => self.subscribed(who, &destination, None),
        };
        assert_eq!(done, queue.is_some(), "{destination}");
        if let Some(queue) = queue {
            self.model.browse(who, queue, prefetch as usize);
        }
        self.follow(effects);
    }

    /// A browser reads what it was shown, or a part of it; or it is tired of it.
    fn look(&mut self) {
        let browsers: Vec<_> = self.model.browsers.keys().copied().collect();
        let Some(who) = self.dice.pick(&browsers) else { return };
        let browser = self.model.browsers.get_mut(&who).unwrap();
        if browser.over || self.dice.one_in(20) {
            self.model.browsers.remove(&who);
            let mut effects = Effects::default();
            let unsubscribe = Unsubscribe { consumer: Some(ConsumerNo(who.1)), durable: None };
            assert!(self.apply(who.0, Command::Unsubscribe(unsubscribe), &mut effects));
            assert!(effects.changes.is_empty() && effects.outgoing.is_empty(), "nothing comes of it");
            return self.follow(effects);
        }
        let unwritten = (browser.last_tag - browser.written) as usize;
        let few = if self.dice.one_in(3) { self.dice.below(unwritten + 1) } else { unwritten };
        browser.written += few as u64;
        let last = [(ConsumerNo(who.1), DeliveryTag(browser.written))];
        let mut effects = Effects::default();
        self.core.written(self.model.now, who.0, &last, usize::MAX, &mut effects);
        assert!(effects.changes.is_empty(), "a browser changes nothing");
        self.follow(effects);
    }

    fn unsubscribe(&mut self) {
        let Some(who) = self.consumer() else { return };
        let mut effects = Effects::default();
        let unsubscribe = Unsubscribe { consumer: Some(ConsumerNo(who.1)), durable: None };
        assert!(self.apply(who.0, Command::Unsubscribe(unsubscribe), &mut effects));
        self.model.end_consumer(who);
        self.follow(effects);
    }

    fn delete_durable(&mut self) {
        let Some(session) = self.session() else { return };
        let mut effects = Effects::default();
        let unsubscribe = Unsubscribe { consumer: None, durable: Some("d".into()) };
        let done = self.apply(session, Command::Unsubscribe(unsubscribe), &mut effects);
        let client = self.model.sessions[&session].client.clone();
        let queue = client.and_then(|client| self.durable(&client, "d"));
        assert_eq!(done, queue.is_some());
        if let Some(queue) = queue {
            self.model.delete_durable(queue);
        }
        self.follow(effects);
    }

    fn purge(&mut self) {
        let destination = self.destination();
        let mut effects = Effects::default();
        let purged = self.core.purge(self.model.now, &destination, &mut effects);
        if !destination.kind().is_queue() {
            assert_eq!(purged, None);
            return;
        }
        let Some(purged) = purged else { return };
        let queues = self.model.targets(&destination).expect("the core has it");
        let gone = self.model.purge(queues[0]);
        // What has expired in the spool is not known to have.
        assert!(purged.messages >= gone || !self.uncounted.is_empty(), "{purged:?} instead of {gone}");
        self.follow(effects);
    }

    fn answer(&mut self, in_transaction: bool) {
        let Some(who) = self.consumer() else { return };
        let held = self.model.in_flight(who);
        let last = self.model.consumers[&who].last_tag;
        let settles_itself = self.model.consumers[&who].mode != AckMode::Auto;
        let tag = match self.dice.pick(&held) {
            Some((tag, _)) if !self.dice.one_in(10) => tag,
            _ => self.dice.below(last as usize + 2) as u64,
        };
        let place = held.iter().find(|(other, _)| *other == tag).map(|(_, place)| *place);
        let target = match place {
            // The message-id names the oldest delivery of its consumer, and there may be dead letters of one id.
            Some(place) if self.dice.one_in(3) && self.is_the_only_one(&held, place) => {
                let id = self.model.record(place).unwrap().id.as_str().into();
                AckTarget::MessageId { consumer: Some(ConsumerNo(who.1)), id }
            }
            _ => AckTarget::Tag { consumer: ConsumerNo(who.1), tag: DeliveryTag(tag) },
        };
        let verdict = if self.dice.one_in(4) { Verdict::Rejected } else { Verdict::Accepted };
        let name = in_transaction.then(|| self.transaction(who.0));
        let ack = Ack { target, verdict, transaction: name.as_deref().map(Into::into) };
        let mut effects = Effects::default();
        let done = self.apply(who.0, Command::Ack(ack), &mut effects);
        let known = name.as_ref().is_none_or(|name| self.model.sessions[&who.0].transactions.contains_key(name));
        assert_eq!(done, place.is_some() && settles_itself && known, "R7: {who:?} {tag}");
        match (done, name) {
            (false, _) => assert!(effects.changes.is_empty() && effects.outgoing.is_empty(), "R7: it changes nothing"),
            (true, Some(name)) => self.model.answer_in(who, tag, verdict, &name),
            (true, None) => self.model.answer(who, tag, verdict),
        }
        self.follow(effects);
    }

    fn is_the_only_one(&mut self, held: &[(u64, Place)], place: Place) -> bool {
        let id = self.model.record(place).unwrap().id.clone();
        held.iter().filter(|(_, other)| self.model.record(*other).unwrap().id == id).count() == 1
    }

    fn written(&mut self) {
        let consumers = self.model.consumers.iter().filter(|(_, consumer)| consumer.mode == AckMode::Auto);
        let consumers: Vec<_> = consumers.map(|(who, consumer)| (*who, consumer.last_tag)).collect();
        let Some((who, last)) = self.dice.pick(&consumers) else { return };
        let tag = self.dice.below(last as usize + 1) as u64;
        self.written_upto(who, tag);
    }

    fn written_upto(&mut self, who: Who, tag: u64) {
        let mut effects = Effects::default();
        let last = [(ConsumerNo(who.1), DeliveryTag(tag))];
        self.core.written(self.model.now, who.0, &last, usize::MAX, &mut effects);
        self.model.answer(who, tag, Verdict::Accepted);
        self.follow(effects);
    }

    fn tick(&mut self) {
        let millis = self.dice.below(2_000) as u64;
        self.model.now = Timestamp(self.model.now.0 + millis);
        self.follow(Effects::default());
    }

    // The store.

    /// The open batch goes to the store, if that is idle (R12).
    fn seal(&mut self) {
        if self.sealed.is_none() {
            self.sealed = Some(std::mem::take(&mut self.open));
            self.core.sealed();
        }
    }

    /// The batch under way becomes durable, less what the store refuses.
    fn resolve(&mut self) {
        let Some(batch) = self.sealed.take() else { return };
        let mut refused_messages: Vec<Stored> = Vec::new();
        let mut units: Vec<(UnitId, bool)> = Vec::new();
        for change in &batch.changes {
            let refused = self.refusals > 0 && self.dice.one_in(self.refusals);
            match change {
                Change::One { op: Op::Insert(stored), .. } if refused => {
                    refused_messages.push(stored.clone());
                    continue;
                }
                Change::Unit { id, .. } => {
                    units.push((*id, refused));
                    if refused {
                        continue;
                    }
                }
                Change::Mark { holder, upto, .. } => self.untold.push((*holder, *upto)),
                _ => {}
            }
            self.store.apply(change);
        }
        self.resolve_shadow(&batch.groups, &refused_messages, &units);
        self.compare_store();
        while !self.untold.is_empty() {
            let (holder, upto) = self.untold.remove(0);
            let mut effects = Effects::default();
            self.core.marked(self.model.now, holder, upto, &mut effects);
            self.follow(effects);
        }
        for stored in refused_messages {
            self.core.withdraw(&stored);
            let places: Vec<_> =
                stored.holders.iter().map(|held| self.places[&(stored.sequence, held.holder)]).collect();
            self.model.withdraw(&places);
            self.follow(Effects::default());
        }
        for (id, refused) in units {
            let number = self.number_of(id);
            let mut effects = Effects::default();
            if refused {
                self.core.commit_refused(self.model.now, id, &mut effects);
                self.model.commit_refused(number);
            } else {
                self.core.committed(self.model.now, id, &mut effects);
                self.model.committed(number);
            }
            self.follow(effects);
        }
    }

    fn number_of(&self, id: UnitId) -> u64 {
        self.units.iter().find(|(other, _)| *other == id).unwrap().1
    }

    fn resolve_shadow(&mut self, groups: &[Group], refused: &[Stored], units: &[(UnitId, bool)]) {
        let places: Vec<Place> = refused
            .iter()
            .flat_map(|stored| stored.holders.iter().map(|held| self.places[&(stored.sequence, held.holder)]))
            .collect();
        let refused: Vec<u64> =
            units.iter().filter(|(_, refused)| *refused).map(|(id, _)| self.number_of(*id)).collect();
        for (number, queue) in &self.model.queues {
            if let Label::Queue(_) = queue.label {
                self.shadow.labels.insert(*number, queue.label.clone());
            }
        }
        for group in groups {
            let is_refused = group.unit.is_some_and(|number| refused.contains(&number));
            if !is_refused && !group.sent.iter().any(|place| places.contains(place)) {
                self.shadow.apply(group);
            }
        }
    }

    /// The store holds what the model says, message by message.
    fn compare_store(&self) {
        let mut held: Vec<_> = Vec::new();
        for stored in self.store.messages.values() {
            for part in &stored.holders {
                let place = self.places[&(stored.sequence, part.holder)];
                held.push((place, stored.message.id.to_string(), part.deliveries, part.failures, part.due));
            }
        }
        held.sort();
        let expected = self
            .shadow
            .records
            .iter()
            .map(|(place, (record, due))| (*place, record.id.clone(), record.deliveries, record.failures, *due));
        assert_eq!(held, expected.collect::<Vec<_>>(), "the store holds what it should");
    }

    /// Killed: what is not durable is lost. Sometimes the batch under way had been written, and the open one too.
    fn crash(&mut self) {
        let survives = self.dice.below(3);
        for _ in 0..survives {
            self.seal();
            let batch = self.sealed.take().unwrap();
            batch.changes.iter().for_each(|change| self.store.apply(change));
            self.resolve_shadow(&batch.groups, &[], &[]);
        }
        self.compare_store();
        (self.open, self.sealed) = (Batch::default(), None);
        self.reads.clear();
        self.pages.clear();
        self.spool = Store::default();
        self.units.clear(); // their numbers are unique in a term
        self.term += 1;
        self.catalog = self.store.catalog.clone();
        self.core = Core::recover(self.options.clone(), Term(self.term), &self.store.catalog);
        let holders = self.store.holders().into_iter();
        self.uncounted = holders.map(|holder| (holder, self.store.backlog(holder))).collect();
        for stored in self.store.messages.values() {
            for part in &stored.holders {
                let place = self.places[&(stored.sequence, part.holder)];
                let marked = self.store.catalog.marks.get(&part.holder).is_some_and(|upto| stored.sequence <= *upto);
                let (record, _) = self.shadow.records.get_mut(&place).unwrap();
                record.redelivered = part.deliveries > 0 || marked;
                assert!(record.redelivered || !self.model.seen.contains(&place), "R9: {} came to somebody", record.id);
            }
        }
        self.model.restart(&self.shadow);
        self.follow(Effects::default());
    }

    // The end.

    /// Everybody goes, and one consumer takes what is left: all of it, and nothing else.
    fn drain(&mut self) {
        self.settle_everything();
        while !self.model.browsers.is_empty() {
            self.look();
            self.settle_everything();
        }
        while let Some(session) = self.session() {
            let mut effects = Effects::default();
            self.core.close(self.model.now, session, &mut effects);
            self.model.close(session);
            self.follow(effects);
        }
        self.model.now = Timestamp(self.model.now.0 + 3_600_000);
        self.follow(Effects::default());
        self.settle_everything();
        let mut labels: Vec<_> = self.model.queues.values().map(|queue| queue.label.clone()).collect();
        labels.sort_by_key(|label| *label == Label::Queue(DLQ.into()));
        for label in labels {
            let who = match &label {
                Label::Queue(name) => {
                    let session = self.connect_as(None);
                    self.subscribe_to(session, &Destination::queue(name), AckMode::Auto, 10_000, None)
                }
                Label::Durable(client, name, topic) => {
                    let session = self.connect_as(Some(client));
                    self.subscribe_to(session, &Destination::topic(topic), AckMode::Auto, 10_000, Some(name))
                }
                Label::Plain(..) | Label::Temporary(..) => panic!("{label:?} outlives its connection"),
            };
            self.settle_everything();
            self.written_upto(who, self.model.consumers[&who].last_tag);
            assert!(self.model.queues.values().all(|queue| queue.label != label || queue.records.is_empty()));
        }
        self.settle_everything();
        assert!(self.store.messages.is_empty(), "all is settled");
        self.compare_store();
    }

    fn settle_everything(&mut self) {
        self.refusals = 0;
        self.held_pages = 0;
        while !self.reads.is_empty() || !self.pages.is_empty() || !self.uncounted.is_empty() {
            self.read();
        }
        while self.sealed.is_some() || !self.open.changes.is_empty() {
            self.seal();
            self.resolve();
        }
    }
}
