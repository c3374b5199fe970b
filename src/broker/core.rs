//! The core as one value: what it owns, and the door through which commands come in.
//!
//! Always true: `apply` neither waits nor fails half-way; a command that is refused or held has changed nothing, but
//! that the destination of a held SEND is there.
//! Everything that leaves goes through [`Effects`], in order. Same commands at the same times, same effects.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use slotmap::SlotMap;

use super::{
    Command, ConsumerKey, Effects, QueueKey, Refusal, UnitId,
    browsing::Browses,
    committing::Committing,
    consumer::Consumer,
    deadlines::Deadlines,
    garbage::Garbage,
    mark::DispatchMark,
    memory::Memory,
    policy,
    queue::{Queue, QueueRole},
    reading::{ReadNumber, Schedule},
    sequence::SequenceSource,
    session::Session,
    statistics::{Passed, Totals},
};
use crate::{
    config::{Limits, RedeliveryPolicy},
    types::{
        Broken, Catalog, Destination, DestinationId, DestinationKind, Durable, DurableId, Holder, Op, Sequence,
        SessionId, Term, Text, Timestamp,
    },
};

/// What the core has to know of the configuration and of the store.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// The first whose pattern matches counts.
    pub redelivery: Vec<Arc<RedeliveryPolicy>>,
    /// The largest message that the store takes. Unit: bytes, as `Message::content_bytes` counts.
    pub message_bytes_max: usize,
    /// For simulations.
    #[doc(hidden)]
    pub broken: Broken,
}

/// Why a command was not applied.
#[derive(Debug)]
pub enum NotDone {
    /// It never will be.
    Refused(Refusal),
    /// Not now: here it is back, to be tried again.
    Held {
        /// The command as it was.
        command: Command,
        /// What it waits for.
        hold: Hold,
    },
}

impl From<Refusal> for NotDone {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a command waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Something that passes by itself: everything behind it waits too.
    Passing,
    /// A topic subscription that is behind by its bound. Acknowledgements behind the command go ahead: they may be what
    /// it waits for. It is over when the subscription has caught up, or was closed.
    SlowSubscription,
    /// A queue or the store is full: acknowledgements behind the command go ahead, and it gets ERROR in the end (R8).
    Standing(Full),
}

impl Hold {
    /// Whether acknowledgements behind the command are served.
    #[must_use]
    pub fn lets_acks_pass(&self) -> bool {
        !matches!(self, Self::Passing)
    }
}

/// What is full; its text is for the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The store.
    #[error("The store is full.")]
    Store,
    /// The broker's memory: what is in flight, in transactions and on its way takes all of `limits.memory_bytes_max`.
    #[error("The broker's memory is full.")]
    Memory,
    /// A queue.
    #[error("{0} is full: it holds {1} messages.")]
    Queue(Destination, usize),
    /// A durable subscription.
    #[error("A durable subscription of {0} is full: it holds {1} messages.")]
    DurableSubscription(Destination, usize),
}

/// All queues, topics, subscriptions and transactions of one term.
#[derive(Debug)]
pub struct Core {
    pub(super) options: CoreOptions,
    pub(super) sequences: SequenceSource,
    /// The first sequence whose insert is not sealed yet (R9).
    pub(super) open_from: Sequence,
    pub(super) sessions: HashMap<SessionId, Session, foldhash::fast::FixedState>,
    /// Live sessions by client-id.
    pub(super) clients: HashMap<Text, SessionId>,
    pub(super) places: HashMap<Destination, Place>,
    pub(super) queues: SlotMap<QueueKey, Queue>,
    pub(super) holders: HashMap<Holder, QueueKey>,
    pub(super) consumers: SlotMap<ConsumerKey, Consumer>,
    pub(super) browses: Browses,
    /// Durable subscriptions by client-id and name.
    pub(super) durables: BTreeMap<(Text, Text), DurableSubscription>,
    pub(super) committing: HashMap<UnitId, Committing>,
    /// What has expired becomes a dead letter from then on.
    pub(super) deaths_from: Timestamp,
    pub(super) deadlines: Deadlines,
    pub(super) garbage: Garbage,
    pub(super) memory: Memory,
    pub(super) schedule: Schedule,
    pub(super) totals: Totals,
    pub(super) last_read: ReadNumber,
    /// How many queues have a name in the spool, or had.
    pub(super) spoolers: u64,
    /// What the store refused to make; asked for again with the next message for it.
    pub(super) unmade: BTreeMap<DestinationId, Destination>,
    pub(super) last_unit: UnitId,
    last_destination: DestinationId,
    last_durable: DurableId,
}

/// A destination as the core knows it.
#[derive(Debug)]
pub(super) struct Place {
    /// As the store knows it; temporary destinations are not stored.
    pub(super) id: Option<DestinationId>,
    /// Whose temporary destination it is.
    pub(super) owner: Option<SessionId>,
    pub(super) role: PlaceRole,
    /// Of a topic: what was sent to it, and what left subscriptions that have ended.
    pub(super) passed: Passed,
}

/// What a destination does with a message.
#[derive(Clone, Debug)]
pub(super) enum PlaceRole {
    Queue(QueueKey),
    /// Its subscriptions; shared, because a send walks them while the core changes.
    Topic(Arc<Vec<QueueKey>>),
}

/// A durable subscription, whether somebody consumes from it or not.
#[derive(Debug)]
pub(super) struct DurableSubscription {
    pub(super) id: DurableId,
    pub(super) topic: Destination,
    pub(super) queue: QueueKey,
    pub(super) consumer: Option<ConsumerKey>,
}

impl Core {
    /// The core of a new term, with everything of the catalog. Messages are read when they are wanted; how many there
    /// are is told with [`Self::count`].
    #[must_use]
    pub fn recover(options: CoreOptions, term: Term, catalog: &Catalog) -> Self {
        let sequences = SequenceSource::new(term);
        let memory = Memory::new(options.limits.memory_bytes_max);
        let mut core = Self {
            options,
            open_from: sequences.peek(),
            sequences,
            sessions: HashMap::default(),
            clients: HashMap::new(),
            places: HashMap::new(),
            queues: SlotMap::with_key(),
            holders: HashMap::new(),
            consumers: SlotMap::with_key(),
            browses: Browses::default(),
            durables: BTreeMap::new(),
            committing: HashMap::new(),
            deaths_from: Timestamp::default(),
            deadlines: Deadlines::default(),
            garbage: Garbage::default(),
            memory,
            schedule: Schedule::unknown(),
            totals: Totals::default(),
            last_read: ReadNumber::default(),
            spoolers: 0,
            unmade: BTreeMap::new(),
            last_unit: UnitId::default(),
            last_destination: catalog.last_destination,
            last_durable: catalog.last_durable,
        };
        for (id, destination) in &catalog.destinations {
            core.add_place(destination.clone(), Some(*id), None);
        }
        for (id, durable) in &catalog.durables {
            if let Some(topic) = catalog.destinations.get(&durable.topic) {
                core.add_durable(*id, durable.client_id.clone(), durable.name.clone(), topic);
            }
        }
        for (holder, upto) in &catalog.marks {
            if let Some(queue) = core.holders.get(holder).and_then(|key| core.queues.get_mut(*key)) {
                queue.mark = DispatchMark::recovered(*upto);
            }
        }
        let stored_upto = core.sequences.peek().before(); // of earlier terms
        if !core.holders.is_empty() {
            core.memory.lets_go();
        }
        for key in core.holders.values() {
            core.queues.get_mut(*key).into_iter().for_each(|queue| queue.expect_stored(stored_upto));
        }
        core
    }

    /// Applies one command of a session.
    ///
    /// # Errors
    /// [`NotDone`] when it is refused or held; then nothing has changed that a client could see, but that a transaction
    /// from which a message is missing can't be committed (R5).
    pub fn apply(
        &mut self,
        now: Timestamp,
        session: SessionId,
        command: Command,
        effects: &mut Effects,
    ) -> Result<(), NotDone> {
        match command {
            Command::Send(send) => {
                let transaction = send.transaction.clone();
                let done = self.send(now, session, send, effects);
                if matches!(done, Err(NotDone::Refused(_))) {
                    self.cut_transaction(session, transaction.as_ref());
                }
                done
            }
            Command::Ack(ack) => Ok(self.ack(now, session, ack, effects)?),
            Command::Connect(connect) => Ok(self.connect(now, session, connect, effects)?),
            Command::CreateTemporary(destination) => Ok(self.create_temporary(session, destination)?),
            Command::Subscribe(subscribe) => Ok(self.subscribe(now, session, subscribe, effects)?),
            Command::Browse(browse) => Ok(self.browse(session, &browse, effects)?),
            Command::Unsubscribe(unsubscribe) => Ok(self.unsubscribe(now, session, &unsubscribe, effects)?),
            Command::Begin(name) => Ok(self.begin(session, name)?),
            Command::Commit(name) => self.commit(now, session, name, effects),
            Command::Abort(name) => Ok(self.abort(now, session, &name, effects)?),
            Command::Refuse(refusal) => {
                self.cut_transaction(session, refusal.transaction.as_ref());
                Err(refusal.into())
            }
            Command::Confirm | Command::Disconnect => Ok(()),
        }
    }

    /// Tells that all inserts so far are sealed: a mark for them has to be durable before they are passed (R9).
    pub fn sealed(&mut self) {
        self.open_from = self.sequences.peek();
    }

    /// Goes on in a higher term after the counter of the last one came to its end (R17).
    pub fn enter_term(&mut self, term: Term) {
        self.sequences.enter(term);
        self.open_from = self.sequences.peek();
    }

    /// When [`Self::advance`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let if_read = |at: Option<Timestamp>| at.filter(|_| !self.memory.is_full());
        let deaths = [self.deadlines.next_death(), if_read(self.schedule.next_death())].into_iter().flatten().min();
        let deaths = deaths.filter(|_| self.has_room_to_die()).map(|at| at.max(self.deaths_from));
        let at_once = (!self.garbage.is_empty() || self.browses.is_due()).then_some(Timestamp(0));
        let returns = if_read(self.schedule.next_return());
        [at_once, self.deadlines.next(), returns, deaths].into_iter().flatten().min()
    }

    /// A dispatch mark is durable (R9).
    pub fn marked(&mut self, now: Timestamp, holder: Holder, upto: Sequence, effects: &mut Effects) {
        let Some(key) = self.holders.get(&holder).copied() else { return };
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.mark.made_durable(upto);
        self.dispatch(now, key, effects);
    }

    /// The place of a destination, made if need be and allowed.
    pub(super) fn place(&mut self, destination: &Destination, effects: &mut Effects) -> Result<&mut Place, Refusal> {
        if !self.places.contains_key(destination) {
            if destination.kind().is_temporary() {
                return Err(Refusal::new(
                    format!("The destination {destination} does not exist."),
                    "A temporary destination lives as long as the connection that made it.",
                ));
            }
            self.admit_destination()?;
            self.create_destination(destination.clone(), effects);
        }
        Ok(self.places.get_mut(destination).expect("it was there or has just been made"))
    }

    /// Makes a destination that the store knows; its limit was checked before, or does not count.
    pub(super) fn create_destination(&mut self, destination: Destination, effects: &mut Effects) {
        self.last_destination = DestinationId(self.last_destination.0 + 1);
        let id = self.last_destination;
        self.add_place(destination.clone(), Some(id), None);
        effects.changes.push(super::Change::One { origin: None, op: Op::CreateDestination { id, destination } });
    }

    /// Makes a durable subscription that the store knows.
    pub(super) fn create_durable(
        &mut self,
        origin: SessionId,
        (client_id, name): (Text, Text),
        topic: &Destination,
        effects: &mut Effects,
    ) {
        let Some(topic_id) = self.places.get(topic).and_then(|place| place.id) else { return };
        self.make_again(topic_id, effects);
        self.last_durable = DurableId(self.last_durable.0 + 1);
        let id = self.last_durable;
        self.add_durable(id, client_id.clone(), name.clone(), topic);
        let durable = Durable { client_id, name, topic: topic_id };
        effects.changes.push(super::Change::One { origin: Some(origin), op: Op::CreateDurable { id, durable } });
    }

    /// Refuses one destination too many.
    pub(super) fn admit_destination(&self) -> Result<(), Refusal> {
        if self.places.len() + self.durables.len() < self.options.limits.destinations_max {
            return Ok(());
        }
        Err(Refusal::new(
            format!("The maximum number of destinations ({}) was exceeded.", self.options.limits.destinations_max),
            "Use fewer names, or raise limits.destinations_max.",
        ))
    }

    /// Puts a destination into the maps.
    pub(super) fn add_place(&mut self, destination: Destination, id: Option<DestinationId>, owner: Option<SessionId>) {
        let role = match destination.kind() {
            DestinationKind::Queue | DestinationKind::TemporaryQueue => {
                let holder = id.map(Holder::Queue);
                let mut queue = Queue::new(QueueRole::Queue, destination.clone(), holder);
                queue.redelivery = policy::redelivery_for(&self.options.redelivery, destination.name());
                let key = self.queues.insert(queue);
                self.holders.extend(holder.map(|holder| (holder, key)));
                PlaceRole::Queue(key)
            }
            DestinationKind::Topic | DestinationKind::TemporaryTopic => PlaceRole::Topic(Arc::default()),
        };
        self.places.insert(destination, Place { id, owner, role, passed: Passed::default() });
    }

    /// Adds a subscription's queue to its topic.
    pub(super) fn add_subscription(
        &mut self,
        topic: &Destination,
        role: QueueRole,
        holder: Option<Holder>,
    ) -> QueueKey {
        let mut queue = Queue::new(role, topic.clone(), holder);
        queue.redelivery = policy::redelivery_for(&self.options.redelivery, topic.name());
        let key = self.queues.insert(queue);
        self.holders.extend(holder.map(|holder| (holder, key)));
        if let Some(Place { role: PlaceRole::Topic(subscriptions), .. }) = self.places.get_mut(topic) {
            Arc::make_mut(subscriptions).push(key);
        }
        key
    }

    /// Removes a subscription's queue; what lies in it in memory goes in slices (R29).
    pub(super) fn remove_subscription(&mut self, key: QueueKey, effects: &mut Effects) {
        let Some(mut queue) = self.queues.remove(key) else { return };
        effects.spool.extend(queue.spooler.map(|id| Op::DeleteDurable { id }));
        if let Some(holder) = queue.holder {
            self.holders.remove(&holder);
        }
        let place = self.places.get_mut(&queue.destination);
        if let Some(Place { role: PlaceRole::Topic(subscriptions), passed, .. }) = place {
            Arc::make_mut(subscriptions).retain(|other| *other != key);
            passed.add_left(queue.passed);
        }
        let remains = queue.take_all(self.sequences.peek().before());
        self.throw_away(key, remains);
    }

    fn add_durable(&mut self, id: DurableId, client_id: Text, name: Text, topic: &Destination) {
        let queue = self.add_subscription(topic, QueueRole::DurableSubscription, Some(Holder::Durable(id)));
        let durable = DurableSubscription { id, topic: topic.clone(), queue, consumer: None };
        self.durables.insert((client_id, name), durable);
    }

    /// Panics if an invariant of the core does not hold; run after each command in tests.
    #[cfg(any(test, debug_assertions))]
    pub fn check(&self) {
        self.queues.values().for_each(Queue::check);
        self.consumers.values().for_each(Consumer::check);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        broker::{AckMode, Change, Connect, Send, Subscribe, redelivery::COMMITTING_MAX},
        types::{ConsumerNo, Message, MessageDraft},
    };

    const SESSION: SessionId = SessionId(1);
    const NOW: Timestamp = Timestamp(1_000);

    /// A core with one session, whose counter has `left` sequences left.
    fn near_the_end(left: u64) -> (Core, Effects) {
        let limits = Limits {
            destinations_max: 10,
            subscriptions_per_connection_max: 10,
            transactions_per_connection_max: 10,
            transaction_operations_max: 10,
            transaction_bytes_max: 1 << 20,
            memory_bytes_max: 16 << 20,
            queue_bytes_max: None,
            topic_backlog_bytes_max: 1 << 20,
            slow_consumer_timeout: Duration::from_secs(30),
        };
        let options =
            CoreOptions { limits, redelivery: Vec::new(), message_bytes_max: 1 << 20, broken: Broken::default() };
        let mut core = Core::recover(options, Term(3), &Catalog::default());
        let mut effects = Effects::default();
        let connect = Connect { user: None, client_id: None, lenient: false };
        core.apply(NOW, SESSION, Command::Connect(connect), &mut effects).unwrap();
        core.sequences.skip_to(Sequence::COUNTER_MAX - left);
        (core, effects)
    }

    fn send(transaction: Option<&str>, expires: Option<Timestamp>) -> Command {
        let draft = MessageDraft { id: "m".into(), persistent: true, expires, ..MessageDraft::default() };
        let transaction = transaction.map(Into::into);
        Command::Send(Send {
            destination: Destination::queue("q"),
            message: Arc::new(Message::new(draft)),
            transaction,
        })
    }

    fn inserted(effects: &mut Effects) -> Vec<Sequence> {
        let inserts = effects.changes.drain(..).flat_map(|change| match change {
            Change::One { op, .. } => vec![op],
            Change::Unit { ops, .. } => ops.into_vec(),
            _ => Vec::new(),
        });
        inserts.filter_map(|op| if let Op::Insert(stored) = op { Some(stored.sequence) } else { None }).collect()
    }

    #[test]
    fn r17_at_the_counters_end_commands_wait_unchanged_for_the_next_term() {
        let (mut core, mut effects) = near_the_end(1);
        core.apply(NOW, SESSION, Command::Begin("t".into()), &mut effects).unwrap();
        for _ in 0..2 {
            core.apply(NOW, SESSION, send(Some("t"), None), &mut effects).unwrap();
        }
        let held = core.apply(NOW, SESSION, Command::Commit("t".into()), &mut effects).unwrap_err();
        let NotDone::Held { command: commit, hold: Hold::Passing } = held else { panic!("{held:?}") };
        assert!(matches!(&commit, Command::Commit(name) if name == "t"));
        assert!(std::mem::take(&mut effects.term_wanted));

        core.apply(NOW, SESSION, send(None, None), &mut effects).unwrap();
        let last = inserted(&mut effects);
        let held = core.apply(NOW, SESSION, send(None, None), &mut effects).unwrap_err();
        let NotDone::Held { command: send, hold: Hold::Passing } = held else { panic!("{held:?}") };
        assert!(std::mem::take(&mut effects.term_wanted));
        assert!(inserted(&mut effects).is_empty(), "what is held has changed nothing");

        core.enter_term(Term(4));
        core.apply(NOW, SESSION, commit, &mut effects).unwrap();
        core.apply(NOW, SESSION, send, &mut effects).unwrap();
        let next = inserted(&mut effects);
        assert_eq!(next, [1, 2, 3].map(|counter| Sequence::new(Term(4), counter)));
        assert!(last < next, "order goes on");
        core.check();
    }

    #[test]
    fn r17_what_dies_at_the_counters_end_is_a_dead_letter_of_the_next_term() {
        let (mut core, mut effects) = near_the_end(2);
        let expires = Timestamp(NOW.0 + 10);
        for expires in [None, Some(expires)] {
            core.apply(NOW, SESSION, send(None, expires), &mut effects).unwrap();
        }
        inserted(&mut effects);
        core.advance(expires, &mut effects);
        core.check();
        assert!(std::mem::take(&mut effects.term_wanted));
        assert!(inserted(&mut effects).is_empty());
        core.enter_term(Term(4));
        core.advance(Timestamp(expires.0 + 5_000), &mut effects);
        core.check();
        assert_eq!(inserted(&mut effects), [Sequence::new(Term(4), 1)]);
        let subscribe = Subscribe {
            consumer: ConsumerNo(1),
            destination: Destination::queue("q"),
            ack: AckMode::Individual,
            prefetch: 10,
            priority: 0,
            durable: None,
        };
        core.apply(NOW, SESSION, Command::Subscribe(subscribe), &mut effects).unwrap();
        assert!(core.sequences.peek() > Sequence::new(Term(4), 1));
    }

    #[test]
    fn r14_so_many_dead_letters_wait_for_the_store_and_others_follow() {
        let (mut core, mut effects) = near_the_end(1_000_000);
        let expires = Timestamp(NOW.0 + 10);
        for _ in 0..COMMITTING_MAX + 500 {
            core.apply(NOW, SESSION, send(None, Some(expires)), &mut effects).unwrap();
        }
        inserted(&mut effects);
        while core.next_deadline().is_some_and(|at| at <= expires) {
            core.advance(expires, &mut effects);
        }
        core.check();
        let ids: Vec<UnitId> = core.committing.keys().copied().collect();
        assert_eq!((inserted(&mut effects).len(), ids.len()), (COMMITTING_MAX, COMMITTING_MAX));
        ids.into_iter().for_each(|id| core.committed(expires, id, &mut effects));
        core.advance(expires, &mut effects);
        core.check();
        assert_eq!(inserted(&mut effects).len(), 500, "what is left follows");
    }

    #[test]
    fn r9_the_last_sequence_of_a_term_is_not_taken_for_an_open_one() {
        let (mut core, mut effects) = near_the_end(1);
        while core.apply(NOW, SESSION, send(None, None), &mut effects).is_ok() {}
        let last = *inserted(&mut effects).last().unwrap();
        core.sealed();
        assert!(last < core.open_from, "it is sealed");
    }
}
