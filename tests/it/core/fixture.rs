//! A core, its store and its clients at a table: one readable line for what a client does, and what it got.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use batonmq::{
    broker::{
        Ack, AckMode, AckTarget, Browse, Change, CloseReason, Command, Connect, Core, CoreOptions, Delivery, Effects,
        Hold, Kept, NotDone, Outgoing, Read, Refusal, Send, Subscribe, UnitId, Unsubscribe, Verdict,
    },
    config::{Limits, RedeliveryPolicy},
    types::{
        Backlog, Broken, ConsumerNo, DeliveryTag, Destination, Holder, Message, MessageDraft, Op, Priority, Sequence,
        SessionId, Stored, Term, Text, Timestamp,
    },
};

use super::store::Store;

/// Limits that no scenario meets unless it lowers them.
pub(super) fn options() -> CoreOptions {
    CoreOptions {
        limits: Limits {
            destinations_max: 100,
            subscriptions_per_connection_max: 100,
            transactions_per_connection_max: 100,
            transaction_operations_max: 1_000,
            transaction_bytes_max: 1 << 20,
            memory_bytes_max: 64 << 20,
            queue_bytes_max: Some(16 << 20),
            topic_backlog_bytes_max: 16 << 20,
            slow_consumer_timeout: Duration::from_secs(30),
        },
        redelivery: Vec::new(),
        message_bytes_max: 1 << 20,
        broken: Broken::default(),
    }
}

/// A policy for one destination: so many attempts, one second apart, then two, then four.
pub(super) fn policy(destination: &str, attempts: u32) -> RedeliveryPolicy {
    RedeliveryPolicy {
        destination: destination.into(),
        attempts,
        delay: Duration::from_secs(1),
        backoff_multiplier: 2.0,
        delay_max: Duration::from_secs(60),
        count_lost_consumers: false,
    }
}

/// Options with one redelivery policy.
pub(super) fn with_policy(policy: RedeliveryPolicy) -> CoreOptions {
    CoreOptions { redelivery: vec![Arc::new(policy)], ..options() }
}

/// A persistent message whose id and body are `id`.
pub(super) fn draft(id: &str) -> MessageDraft {
    MessageDraft { id: id.into(), persistent: true, body: id.to_owned().into(), ..MessageDraft::default() }
}

/// A core under test.
pub(super) struct Table {
    pub(super) core: Core,
    pub(super) now: Timestamp,
    /// What would be durable if everything were made durable at once.
    pub(super) store: Store,
    pub(super) spool: Store,
    options: CoreOptions,
    term: Term,
    sessions: u64,
    effects: Effects,
    /// What the core wanted written and nobody has looked at yet.
    changes: Vec<Change>,
    /// What is neither durable nor refused yet.
    pending: Vec<Pending>,
    delivered: BTreeMap<SessionId, Vec<Delivery>>,
    closed: Vec<(SessionId, CloseReason)>,
    /// Whose browsers have seen everything.
    sated: Vec<SessionId>,
    reads: Vec<Read>,
    reads_held: bool,
    settles_held: bool,
    /// What was settled and the store does not know yet.
    unsettled: HashMap<Sequence, batonmq::broker::Pending>,
    /// What the store held at the last start.
    backlogs: BTreeMap<Holder, Backlog>,
}

/// What the core waits for.
enum Pending {
    Mark(Holder, Sequence),
    Unit(UnitId),
}

impl Table {
    pub(super) fn new() -> Self {
        Self::with(options())
    }

    pub(super) fn with(options: CoreOptions) -> Self {
        let store = Store::default();
        Self {
            core: store.recover(options.clone(), Term(1)),
            now: Timestamp(1_000_000),
            store,
            spool: Store::default(),
            options,
            term: Term(1),
            sessions: 0,
            effects: Effects::default(),
            changes: Vec::new(),
            pending: Vec::new(),
            delivered: BTreeMap::new(),
            closed: Vec::new(),
            sated: Vec::new(),
            reads: Vec::new(),
            reads_held: false,
            settles_held: false,
            unsettled: HashMap::new(),
            backlogs: BTreeMap::new(),
        }
    }

    /// Killed and started again with all that was written.
    pub(super) fn restart(&mut self) {
        self.restart_uncounted();
        self.count();
    }

    /// What the store held at the start is counted.
    pub(super) fn count(&mut self) {
        for holder in self.store.holders() {
            self.core.count(
                self.now,
                holder,
                &self.backlogs.get(&holder).copied().unwrap_or_default(),
                &mut self.effects,
            );
        }
        self.sort_effects();
    }

    /// As [`Self::restart`], and nobody knows yet how much the store holds.
    pub(super) fn restart_uncounted(&mut self) {
        self.term = Term(self.term.0 + 1);
        self.backlogs = self.store.holders().into_iter().map(|holder| (holder, self.store.backlog(holder))).collect();
        self.core = Core::recover(self.options.clone(), self.term, &self.store.catalog);
        self.pending.clear();
        self.delivered.clear();
        self.reads.clear();
        self.effects = Effects::default();
    }

    // What clients do.

    pub(super) fn connect(&mut self) -> SessionId {
        self.connect_as(None, None).unwrap()
    }

    pub(super) fn connect_as(&mut self, client_id: Option<&str>, user: Option<&str>) -> Result<SessionId, Refusal> {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let connect = Connect { user: user.map(Text::from), client_id: client_id.map(Text::from), lenient: false };
        refused(self.apply(session, Command::Connect(connect)))?;
        Ok(session)
    }

    /// As [`Self::send`], and does without if the queue is full.
    pub(super) fn send_if_there_is_room(&mut self, session: SessionId, queue: &str, id: &str) {
        drop(self.send_to(session, &Destination::queue(queue), draft(id)));
    }

    /// Sends a persistent message to a queue.
    pub(super) fn send(&mut self, session: SessionId, queue: &str, id: &str) {
        self.send_to(session, &Destination::queue(queue), draft(id)).unwrap();
    }

    pub(super) fn publish(&mut self, session: SessionId, topic: &str, id: &str) {
        self.send_to(session, &Destination::topic(topic), draft(id)).unwrap();
    }

    pub(super) fn send_in(&mut self, session: SessionId, transaction: &str, queue: &str, id: &str) {
        self.send_to_in(session, transaction, &Destination::queue(queue), draft(id)).unwrap();
    }

    pub(super) fn send_to_in(
        &mut self,
        session: SessionId,
        transaction: &str,
        destination: &Destination,
        draft: MessageDraft,
    ) -> Result<(), Refusal> {
        let (destination, message) = (destination.clone(), Arc::new(Message::new(draft)));
        let send = Send { destination, message, transaction: Some(transaction.into()) };
        refused(self.apply(session, Command::Send(send)))
    }

    pub(super) fn send_to(
        &mut self,
        session: SessionId,
        destination: &Destination,
        draft: MessageDraft,
    ) -> Result<(), NotDone> {
        let message = Arc::new(Message::new(draft));
        self.apply(session, Command::Send(Send { destination: destination.clone(), message, transaction: None }))
    }

    /// Subscribes to a queue.
    pub(super) fn subscribe(&mut self, session: SessionId, consumer: u32, queue: &str, ack: AckMode, prefetch: u32) {
        self.subscribe_to(session, Subscribe { ack, prefetch, ..subscription(consumer, Destination::queue(queue)) })
            .unwrap();
    }

    pub(super) fn subscribe_to(&mut self, session: SessionId, subscribe: Subscribe) -> Result<(), Refusal> {
        refused(self.apply(session, Command::Subscribe(subscribe)))
    }

    pub(super) fn browse(&mut self, session: SessionId, browse: Browse) -> Result<(), Refusal> {
        refused(self.apply(session, Command::Browse(browse)))
    }

    pub(super) fn unsubscribe(&mut self, session: SessionId, consumer: u32) {
        let unsubscribe = Unsubscribe { consumer: Some(ConsumerNo(consumer)), durable: None };
        self.apply(session, Command::Unsubscribe(unsubscribe)).unwrap();
    }

    pub(super) fn ack(&mut self, session: SessionId, consumer: u32, tag: u64) -> Result<(), Refusal> {
        self.answer(session, by_tag(consumer, tag), Verdict::Accepted, None)
    }

    pub(super) fn nack(&mut self, session: SessionId, consumer: u32, tag: u64) -> Result<(), Refusal> {
        self.answer(session, by_tag(consumer, tag), Verdict::Rejected, None)
    }

    pub(super) fn ack_in(&mut self, session: SessionId, name: &str, consumer: u32, tag: u64) -> Result<(), Refusal> {
        self.answer(session, by_tag(consumer, tag), Verdict::Accepted, Some(name))
    }

    pub(super) fn answer(
        &mut self,
        session: SessionId,
        target: AckTarget,
        verdict: Verdict,
        transaction: Option<&str>,
    ) -> Result<(), Refusal> {
        refused(self.apply(session, Command::Ack(Ack { target, verdict, transaction: transaction.map(Into::into) })))
    }

    pub(super) fn begin(&mut self, session: SessionId, name: &str) {
        self.apply(session, Command::Begin(name.into())).unwrap();
    }

    pub(super) fn commit(&mut self, session: SessionId, name: &str) -> Result<(), NotDone> {
        self.apply(session, Command::Commit(name.into()))
    }

    pub(super) fn abort(&mut self, session: SessionId, name: &str) {
        self.apply(session, Command::Abort(name.into())).unwrap();
    }

    /// An operator purges a queue; how many messages went.
    pub(super) fn purge(&mut self, queue: &str) -> Option<usize> {
        let purged = self.core.purge(self.now, &Destination::queue(queue), &mut self.effects);
        self.sort_effects();
        purged.map(|purged| purged.messages)
    }

    /// Any command; what it brings about is sorted.
    pub(super) fn apply(&mut self, session: SessionId, command: Command) -> Result<(), NotDone> {
        let result = self.core.apply(self.now, session, command, &mut self.effects);
        self.sort_effects();
        result
    }

    // What the world around does.

    /// The connection breaks.
    pub(super) fn close(&mut self, session: SessionId) {
        self.core.close(self.now, session, &mut self.effects);
        self.sort_effects();
    }

    /// The kernel took everything up to `tag`.
    pub(super) fn written(&mut self, session: SessionId, consumer: u32, tag: u64, bytes: usize) {
        let last = [(ConsumerNo(consumer), DeliveryTag(tag))];
        self.core.written(self.now, session, &last, bytes, &mut self.effects);
        self.sort_effects();
    }

    /// Time passes.
    pub(super) fn pass(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.core.advance(self.now, &mut self.effects);
        self.sort_effects();
    }

    /// When the core has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.core.next_deadline()
    }

    /// Everything so far becomes durable, and what that brings about too.
    pub(super) fn sync(&mut self) {
        while !self.pending.is_empty() {
            self.sync_once();
        }
    }

    /// Everything so far becomes durable.
    pub(super) fn sync_once(&mut self) {
        self.core.sealed();
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Mark(holder, upto) => self.core.marked(self.now, holder, upto, &mut self.effects),
                Pending::Unit(id) => self.core.committed(self.now, id, &mut self.effects),
            }
            self.sort_effects();
        }
    }

    /// Memory is looked at: so many bytes are in use. Everything before now is durable.
    pub(super) fn use_memory(&mut self, bytes: usize) {
        self.use_memory_before(bytes, self.now.after(Duration::from_millis(1)));
    }

    /// Memory is looked at, and only what was changed before this is durable.
    pub(super) fn use_memory_before(&mut self, bytes: usize, stored_before: Timestamp) {
        self.now = self.now.after(Duration::from_millis(1));
        let kept = Kept { stored_before, spooled_before: self.now };
        self.core.keep_within(self.now, bytes, kept, &mut self.effects);
        self.sort_effects();
    }

    /// Reads are not answered until [`Self::answer_reads`].
    pub(super) fn hold_reads(&mut self) {
        self.reads_held = true;
    }

    /// The store does not learn what is settled outside transactions from now on.
    pub(super) fn hold_settles(&mut self) {
        self.settles_held = true;
    }

    /// What was held is read as it lies in the store now.
    pub(super) fn answer_reads(&mut self) {
        self.reads_held = false;
        self.sort_effects();
    }

    /// The store refuses every transaction and dead letter that is under way.
    pub(super) fn refuse_units(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Mark(..) => self.pending.push(pending),
                Pending::Unit(id) => {
                    self.core.commit_refused(self.now, id, &mut self.effects);
                    self.sort_effects();
                }
            }
        }
    }

    /// The store refuses a message.
    pub(super) fn withdraw(&mut self, stored: &Stored) {
        self.core.withdraw(stored);
        self.core.check();
    }

    // What came of it.

    /// What a session got since the last look.
    pub(super) fn deliveries(&mut self, session: SessionId) -> Vec<Delivery> {
        self.delivered.remove(&session).unwrap_or_default()
    }

    /// The message-ids of what a session got since the last look.
    pub(super) fn got(&mut self, session: SessionId) -> Vec<String> {
        self.deliveries(session).iter().map(|delivery| delivery.message.id.to_string()).collect()
    }

    /// As [`Self::got`]; a `*` follows what is marked as redelivered.
    pub(super) fn got_flagged(&mut self, session: SessionId) -> Vec<String> {
        let flagged =
            |delivery: &Delivery| format!("{}{}", delivery.message.id, if delivery.redelivered { "*" } else { "" });
        self.deliveries(session).iter().map(flagged).collect()
    }

    /// What was to be written since the last look.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The settles among what was to be written since the last look, and returns.
    pub(super) fn settled(&mut self) -> usize {
        self.changes().iter().filter(|change| matches!(change, Change::Settle { .. })).count()
    }

    /// Sessions that were told to go since the last look.
    pub(super) fn closed(&mut self) -> Vec<(SessionId, CloseReason)> {
        std::mem::take(&mut self.closed)
    }

    /// Whether a session's browser was told since the last look that it has seen everything.
    pub(super) fn has_seen_all(&mut self, session: SessionId) -> bool {
        let before = self.sated.len();
        self.sated.retain(|sated| *sated != session);
        before - self.sated.len() == 1
    }

    /// Message-ids of what the store holds, oldest first.
    pub(super) fn stored(&self) -> Vec<String> {
        self.store.messages.values().map(|stored| stored.message.id.to_string()).collect()
    }

    /// Message-ids of what the spool holds, oldest first.
    pub(super) fn spooled(&self) -> Vec<String> {
        self.spool.messages.values().map(|stored| stored.message.id.to_string()).collect()
    }

    fn sort_effects(&mut self) {
        self.take_effects();
        while !self.reads_held
            && let Some(read) = self.reads.pop()
        {
            match &read {
                Read::Page { stored, spooled, priority, range, window, .. }
                | Read::Browse { stored, spooled, priority, range, window, .. } => {
                    let stored = stored.map(|holder| self.store.page(holder, *priority, *range, *window));
                    let spooled = spooled.map(|holder| self.spool.page(holder, *priority, *range, *window));
                    let page = stored.xor(spooled).expect("no scenario mixes what is stored and what is spooled");
                    self.core.page_read(self.now, &read, &page, &self.unsettled, &mut self.effects);
                }
                Read::Due { before, after, window, .. } => {
                    let page = self.store.due(*before, *after, *window);
                    self.core.due_read(self.now, &read, &page, &mut self.effects);
                }
            }
            self.take_effects();
        }
    }

    fn take_effects(&mut self) {
        self.core.check();
        self.reads.append(&mut self.effects.reads);
        self.effects.spool.drain(..).for_each(|op| self.spool.apply_op(&op));
        for change in self.effects.changes.drain(..) {
            match &change {
                Change::Mark { holder, upto, .. } => self.pending.push(Pending::Mark(*holder, *upto)),
                Change::Unit { id, .. } => self.pending.push(Pending::Unit(*id)),
                _ => {}
            }
            match &change {
                Change::Settle { sequence, .. } if self.settles_held => {
                    self.unsettled.insert(*sequence, batonmq::broker::Pending::Settled);
                }
                _ => self.store.apply(&change),
            }
            self.changes.push(change);
        }
        for (session, outgoing) in self.effects.outgoing.drain(..) {
            match outgoing {
                Outgoing::Delivery(delivery) => self.delivered.entry(session).or_default().push(delivery),
                Outgoing::Close(reason) => self.closed.push((session, reason)),
                Outgoing::BrowseEnd(_) => self.sated.push(session),
                Outgoing::Connected | Outgoing::Receipt(_) | Outgoing::Error { .. } => {}
            }
        }
    }
}

/// A consumer that answers one by one and may hold ten.
pub(super) fn subscription(consumer: u32, destination: Destination) -> Subscribe {
    Subscribe {
        consumer: ConsumerNo(consumer),
        destination,
        ack: AckMode::Individual,
        prefetch: 10,
        priority: 0,
        durable: None,
    }
}

pub(super) fn by_tag(consumer: u32, tag: u64) -> AckTarget {
    AckTarget::Tag { consumer: ConsumerNo(consumer), tag: DeliveryTag(tag) }
}

pub(super) fn priority(level: u8, id: &str) -> MessageDraft {
    MessageDraft { priority: Priority::clamped(level), ..draft(id) }
}

/// The messages that changes insert.
pub(super) fn inserted(changes: &[Change]) -> Vec<Stored> {
    let ops = changes.iter().flat_map(super::store::operations);
    ops.filter_map(|op| if let Op::Insert(stored) = op { Some(stored) } else { None }).collect()
}

/// A refusal, from a command that is never held.
pub(super) fn refused(result: Result<(), NotDone>) -> Result<(), Refusal> {
    match result {
        Ok(()) => Ok(()),
        Err(NotDone::Refused(refusal)) => Err(refusal),
        Err(NotDone::Held { hold, .. }) => panic!("held: {hold:?}"),
    }
}

/// What a command is held for.
pub(super) fn held(result: Result<(), NotDone>) -> Option<Hold> {
    match result {
        Err(NotDone::Held { hold, .. }) => Some(hold),
        Ok(()) | Err(NotDone::Refused(_)) => None,
    }
}
