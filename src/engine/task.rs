//! The engine's task: it owns the core, and turns are all it does.
//!
//! One turn: what the store answered → what was read → a bounded part of the inbox → deadlines → memory → a request to
//! the store, if it is idle and something is due → outboxes. Nothing in a turn waits.
//!
//! Always true: effects that are free leave at the end of the turn that made them; receipts leave in frame order (R4);
//! after a refusal a strict session gets nothing but what it was owed before.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use smallvec::SmallVec;
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use super::{
    batch::{Settled, Unit},
    handle::{Budget, INBOX_MAX, Inbound, Written},
    held::HeldRequests,
    outbox::Outbox,
    reader::{ReadAnswer, ReadRequest},
    receipts::{Answer, Ledger, StepRef},
    spool::Spool,
    writer::{HELD_MAX, Resolved, StoreReply, StoreRequest, Writer},
};
use crate::{
    broker::{
        Change, CloseReason, Command, Core, Effects, Hold, Kept, NotDone, Outgoing, Purged, Read, Receipt, Refusal,
        Request, UnitId,
    },
    types::{
        Broken, Clock, Destination, Footing, Holder, Mandate, Meter, Op, Rule, Sequence, SessionId, Stored, Timestamp,
    },
};

/// So many messages from sessions are taken in one turn.
const TURN_INBOUND_MAX: usize = 256;

/// So many answers to reads are taken in one turn.
const TURN_READS_MAX: usize = 4;

/// While somebody waits for memory and nothing else happens, the budget is looked at this often: what sessions hold
/// returns to it without a word.
const MEMORY_LOOK: Duration = Duration::from_millis(20);

/// An ERROR waits for the receipts before it for so long (R4).
const ERROR_HELD_MAX: Duration = Duration::from_secs(5);

/// A stop waits so long for room in a full store.
const STOP_FULL_PATIENCE: Duration = Duration::from_secs(2);

/// That memory is full is told at most so often: it may come and go.
const FULL_TOLD_EVERY: Duration = Duration::from_secs(60);

/// So many frames of one session may wait for the store; its next ones wait until some of them are answered.
const LEDGER_STEPS_MAX: usize = 65_536;

/// Why a term's engine ended.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store has taken the term away, or is gone.
    #[error("the term is over: {0}")]
    TermOver(String),
}

/// The one owner of a term's core.
pub(super) struct Engine {
    pub(super) core: Core,
    pub(super) writer: Writer,
    pub(super) clock: Clock,
    /// Whether this broker is the master, as far as is known (R24).
    pub(super) mandate: Mandate,
    /// How often that was in doubt and is over.
    pub(super) doubts: u64,
    /// Counts what messages take in memory (R31).
    pub(super) meter: Meter,
    /// When the log was told last that memory is full.
    pub(super) full_told: Option<Timestamp>,
    pub(super) inbox: mpsc::Receiver<Inbound>,
    pub(super) requests: mpsc::Sender<StoreRequest>,
    pub(super) replies: mpsc::Receiver<StoreReply>,
    pub(super) spool: Spool,
    pub(super) spool_requests: mpsc::Sender<StoreRequest>,
    pub(super) spool_replies: mpsc::Receiver<StoreReply>,
    pub(super) read_requests: mpsc::Sender<ReadRequest>,
    pub(super) read_answers: mpsc::Receiver<ReadAnswer>,
    /// What the reader has no room for yet; one for each priority of a queue at most, and one for each browse.
    pub(super) reads: VecDeque<Read>,
    pub(super) stop: CancellationToken,
    pub(super) sessions: HashMap<SessionId, Link, foldhash::fast::FixedState>,
    /// Sessions with held requests, the one that is tried first in front.
    pub(super) held: VecDeque<SessionId>,
    /// Until when an ERROR may wait for the receipts before it.
    pub(super) errors: BTreeSet<(Timestamp, SessionId)>,
    pub(super) effects: Effects,
    /// Purges that are not durable yet, and who asked for them.
    pub(super) purging: Vec<Purging>,
    /// Sessions with something to flush at the end of the turn.
    pub(super) touched: Vec<SessionId>,
    pub(super) answers: Vec<Answer>,
    /// For simulations.
    pub(super) broken: Broken,
}

/// A session as the engine sees it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) outbox: Arc<Outbox>,
    pub(super) budget: Arc<Budget>,
    pub(super) outgoing: Vec<Outgoing>,
    touched: bool,
    pub(super) ledger: Ledger,
    pub(super) held: HeldRequests,
    pub(super) hold: Option<(Hold, Timestamp)>,
    pub(super) lenient: bool,
    pub(super) phase: Phase,
}

/// A purge that is not durable yet.
#[derive(Debug)]
pub(super) struct Purging {
    /// The mark, until that is durable.
    mark: Option<(Holder, Sequence)>,
    /// What is settled beside it, until that is durable.
    behind: Option<UnitId>,
    messages: usize,
    answer: oneshot::Sender<Option<usize>>,
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// It was refused something, or said goodbye: what it still sends is ignored, what it is owed still leaves.
    Ending,
    /// It was told that nothing follows.
    Closed,
}

impl Engine {
    /// Runs until the term ends, or a stop is asked for and everything is written. Then every session is told.
    pub(super) async fn run(mut self) -> Result<(), EngineError> {
        let result = self.serve().await;
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.tell(session, Outgoing::Close(CloseReason::Stopping));
        }
        self.flush_outboxes();
        result
    }

    async fn serve(&mut self) -> Result<(), EngineError> {
        let mut inbound = Vec::with_capacity(TURN_INBOUND_MAX);
        let mut read = Vec::with_capacity(TURN_READS_MAX);
        let timer = sleep_until(tokio::time::Instant::now());
        tokio::pin!(timer);
        let mut armed = None;
        let (mut reachable, mut stopping) = (true, None);
        let stop = self.stop.clone();
        while !stopping.is_some_and(|since| self.has_done_what_it_can(since)) {
            let is_sure = self.mandate.footing() == Footing::Firm && self.mandate.doubts() == self.doubts;
            if !is_sure && !self.broken.is(Rule::ServesInDoubt) {
                self.sit_out_doubt().await?;
                if stop.is_cancelled() {
                    return Ok(()); // nobody was told that what is not written is safe
                }
                self.turn(None, &mut read, &mut inbound, stopping.is_some())?;
                continue;
            }
            let deadline = self.next_deadline();
            if deadline != armed {
                armed = deadline;
                if let Some(at) = deadline {
                    timer.as_mut().reset(self.clock.instant_of(at));
                }
            }
            let mut reply = None;
            tokio::select! {
                biased;
                () = self.mandate.changed() => continue,
                answered = self.replies.recv() => match answered {
                    Some(answered) => reply = Some(answered),
                    None => return Err(EngineError::TermOver("the store's task has ended".into())),
                },
                spooled = self.spool_replies.recv() => match spooled {
                    Some(spooled) => self.spool.answered(self.clock.now(), &spooled),
                    None => return Err(EngineError::TermOver("the spool's task has ended".into())),
                },
                () = stop.cancelled(), if stopping.is_none() => {
                    stopping = Some(self.clock.now());
                    // Everything that came before the stop, but not what sessions send meanwhile.
                    inbound.extend((0..INBOX_MAX).map_while(|_| self.inbox.try_recv().ok()));
                }
                taken = self.read_answers.recv_many(&mut read, TURN_READS_MAX) => if taken == 0 {
                    return Err(EngineError::TermOver("the store's reader has ended".into()));
                },
                taken = self.inbox.recv_many(&mut inbound, TURN_INBOUND_MAX), if reachable && stopping.is_none() => {
                    reachable = taken > 0; // every session and every handle is gone; the stop follows
                }
                () = &mut timer, if armed.is_some() => armed = None,
            }
            self.turn(reply, &mut read, &mut inbound, stopping.is_some())?;
        }
        Ok(())
    }

    /// Whether a stop that was asked for at `since` need not wait any more. For room in a full store it waits a while;
    /// nobody was told that what waits for that is safe.
    fn has_done_what_it_can(&self, since: Timestamp) -> bool {
        let patient = self.clock.now() < since.after(STOP_FULL_PATIENCE);
        self.writer.is_idle() || (self.writer.only_waits_for_room() && !patient)
    }

    /// One turn with one `now`.
    fn turn(
        &mut self,
        reply: Option<StoreReply>,
        read: &mut Vec<ReadAnswer>,
        inbound: &mut Vec<Inbound>,
        stopping: bool,
    ) -> Result<(), EngineError> {
        let now = self.clock.now();
        if let Some(reply) = reply {
            self.store_answered(now, reply)?;
        }
        for answer in read.drain(..) {
            self.read_answered(now, answer);
        }
        for item in inbound.drain(..) {
            self.take_in(now, item);
        }
        self.writer.advance(now);
        self.serve_deadlines(now);
        self.keep_within_memory(now);
        self.retry_held(now);
        if stopping {
            self.writer.open.make_eager();
        }
        if self.ask_the_store(now) {
            self.retry_held(now); // there is room in the open batch, which is to fill while the store works
        }
        self.ask_the_spool(now);
        self.ask_the_reader();
        self.flush_outboxes();
        Ok(())
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let held = self.held.iter().filter_map(|id| {
            let (hold, since) = self.sessions.get(id)?.hold.as_ref()?;
            matches!(hold, Hold::Standing(_)).then(|| since.after(HELD_MAX))
        });
        let error = self.errors.first().map(|(at, _)| *at);
        let memory = self.core.waits_for_memory().then(|| self.clock.now().after(MEMORY_LOOK));
        let (core, writer, spool) =
            (self.core.next_deadline(), self.writer.next_deadline(), self.spool.next_deadline());
        [core, writer, spool, error, memory].into_iter().flatten().chain(held).min()
    }

    fn read_answered(&mut self, now: Timestamp, answer: ReadAnswer) {
        match answer {
            ReadAnswer::Page(ReadRequest { read, pending }, page) => {
                page.messages.iter().for_each(|stored| stored.message.charge(&self.meter));
                self.core.page_read(now, &read, &page, &pending, &mut self.effects);
            }
            ReadAnswer::Due(read, page) => {
                page.messages.iter().for_each(|due| due.stored.message.charge(&self.meter));
                self.core.due_read(now, &read, &page, &mut self.effects);
            }
            ReadAnswer::Backlog(holder, backlog) => self.core.count(now, holder, &backlog, &mut self.effects),
        }
        self.take_effects(now);
    }

    /// R25, R31: what is durable may leave memory.
    fn keep_within_memory(&mut self, now: Timestamp) {
        let before = |oldest: Option<Timestamp>| oldest.map_or(now, |oldest| oldest.min(now));
        let kept = Kept {
            stored_before: before(self.writer.oldest_change()),
            spooled_before: before(self.spool.oldest_change()),
        };
        // What is held is on its way to where it may leave memory: nothing is to wait for it.
        let held: usize = self.held.iter().filter_map(|id| Some(self.sessions.get(id)?.budget.spent())).sum();
        self.core.keep_within(now, self.meter.in_use().saturating_sub(held), kept, &mut self.effects);
        self.take_effects(now);
        self.tell_that_memory_is_full(now);
    }

    fn tell_that_memory_is_full(&mut self, now: Timestamp) {
        if self.meter.is_full() && self.full_told.is_none_or(|told| now >= told.after(FULL_TOLD_EVERY)) {
            self.full_told = Some(now);
            tracing::info!(
                in_use = self.meter.in_use(),
                limit = self.meter.limit(),
                "memory is full: SENDs wait, and connections that hold nothing are not read; raise \
                 limits.memory_bytes_max if this lasts"
            );
        }
    }

    fn ask_the_spool(&mut self, now: Timestamp) {
        if let Some(request) = self.spool.next_request(now) {
            let sent = self.spool_requests.try_send(request);
            debug_assert!(sent.is_ok(), "one request is under way at most, and the channel holds one");
        }
    }

    fn ask_the_reader(&mut self) {
        while let Some(read) = self.reads.pop_front() {
            let Ok(permit) = self.read_requests.try_reserve() else { return self.reads.push_front(read) };
            let mut pending = HashMap::new();
            if let Read::Page { stored, spooled, handed_out: true, .. } | Read::Browse { stored, spooled, .. } = &read
                && !self.broken.is(Rule::ForgetsPending)
            {
                pending.extend(stored.iter().flat_map(|holder| self.writer.pending(*holder)));
                pending.extend(spooled.iter().flat_map(|holder| self.spool.pending(*holder)));
            }
            permit.send(ReadRequest { read, pending });
        }
    }

    fn take_in(&mut self, now: Timestamp, item: Inbound) {
        match item {
            Inbound::Opened { session, outbox, budget } => {
                self.sessions.insert(session, Link::new(outbox, budget, &self.meter));
            }
            Inbound::Requests { session, requests, charge: _until_taken } => {
                for request in requests {
                    self.request(now, session, request);
                }
            }
            Inbound::Written { session, written } => self.written(now, session, &written),
            Inbound::HoldsMessages { session, answer } => {
                let _gone = answer.send(self.core.holds_messages(session)); // who asked may have left
            }
            Inbound::Overview { answer } => {
                let _gone = answer.send(Box::new(self.overview())); // who asked may have left
            }
            Inbound::Closed { session } => self.closed(now, session),
            Inbound::Purge { destination, answer } => self.purge(now, &destination, answer),
        }
    }

    /// Purges a queue, and answers when that is durable.
    fn purge(&mut self, now: Timestamp, destination: &Destination, answer: oneshot::Sender<Option<usize>>) {
        let purged = self.core.purge(now, destination, &mut self.effects);
        self.take_effects(now);
        let Some(Purged { messages, mark, behind }) = purged else { return answer_purge(answer, None) };
        let waits = !self.broken.is(Rule::ConfirmsPurgesAtOnce);
        let (mark, behind) = (mark.filter(|_| waits), behind.filter(|_| waits));
        self.purging.push(Purging { mark, behind, messages, answer });
        self.answer_purges();
    }

    /// This purge's mark is durable.
    fn purged(&mut self, (holder, upto): (Holder, Sequence)) {
        for purging in &mut self.purging {
            purging.mark.take_if(|mark| mark.0 == holder && mark.1 <= upto);
        }
        self.answer_purges();
    }

    /// What a purge's mark does not cover is durably gone.
    fn purged_behind(&mut self, id: UnitId) {
        for purging in &mut self.purging {
            purging.behind.take_if(|behind| *behind == id);
        }
        self.answer_purges();
    }

    /// R29: who asked is told when nothing that the purge took can come back.
    fn answer_purges(&mut self) {
        let is_over = |purging: &mut Purging| purging.mark.is_none() && purging.behind.is_none();
        for purging in self.purging.extract_if(.., is_over) {
            answer_purge(purging.answer, Some(purging.messages));
        }
    }

    /// Applies a request and takes its effects in; gives it back if it has to wait.
    pub(super) fn perform(&mut self, now: Timestamp, session: SessionId, request: Request) -> Option<(Request, Hold)> {
        if let Some(hold) = self.store_hold(session, &request.command) {
            return Some((request, hold));
        }
        let link = self.sessions.get_mut(&session)?;
        if link.ledger.len() >= LEDGER_STEPS_MAX {
            return Some((request, Hold::Passing));
        }
        let Request { command, receipt, bytes } = request;
        if let Command::Connect(connect) = &command {
            link.lenient = connect.lenient;
        }
        let goodbye = matches!(command, Command::Disconnect);
        match self.core.apply(now, session, command, &mut self.effects) {
            Ok(()) => {
                let answer =
                    if goodbye { Answer::Goodbye(receipt) } else { receipt.map_or(Answer::Nothing, Answer::Receipt) };
                self.give_back(session, bytes);
                self.take_frame(now, session, answer);
                if goodbye {
                    self.end_session(now, session);
                }
            }
            Err(NotDone::Refused(refusal)) => {
                self.give_back(session, bytes);
                self.refuse(now, session, refusal, receipt);
            }
            Err(NotDone::Held { command, hold }) => {
                self.take_effects(now);
                return Some((Request { command, receipt, bytes }, hold));
            }
        }
        None
    }

    /// Whether the store lets a command wait: only what is to be stored.
    fn store_hold(&self, session: SessionId, command: &Command) -> Option<Hold> {
        let hold = self.writer.hold()?;
        let stores = match command {
            Command::Send(send) => {
                send.transaction.is_none() && send.message.persistent && !send.destination.kind().is_temporary()
            }
            Command::Commit(name) => self.core.commit_stores(session, name),
            _ => false,
        };
        stores.then_some(hold)
    }

    fn refuse(&mut self, now: Timestamp, session: SessionId, refusal: Refusal, receipt: Option<Receipt>) {
        let Some(link) = self.sessions.get(&session) else { return };
        let closes = (refusal.fatal || !link.lenient).then_some(CloseReason::Refused);
        let ends = closes.is_some();
        self.take_frame(now, session, Answer::Error { refusal, receipt, closes });
        self.watch_error(now, session);
        if ends {
            self.end_session(now, session);
        }
    }

    /// Adds a frame with so many changes to its session's ledger, or answers it if nothing is before it.
    fn add_step(&mut self, session: SessionId, pending: u32, answer: Answer) {
        let pending = if self.broken.is(Rule::ConfirmsAtOnce) { 0 } else { pending };
        let Some(link) = self.sessions.get_mut(&session) else { return };
        let asks = !matches!(answer, Answer::Nothing);
        let is_its_turn = link.ledger.is_clear() || self.broken.is(Rule::AnswersOutOfTurn);
        if pending == 0 && (is_its_turn || !asks) {
            return self.answer(session, answer);
        }
        if asks {
            self.writer.open.make_eager(); // R4: a receipt makes everything before it on its connection eager
        }
        link.ledger.push(pending, answer);
    }

    /// Takes in what a session's frame brought about. Its answer comes before that if it can: the receipt of a
    /// SUBSCRIBE before its messages.
    pub(super) fn take_frame(&mut self, now: Timestamp, session: SessionId, answer: Answer) {
        let pending = self.take_changes(now, Some(session));
        self.add_step(session, pending, answer);
        self.tell_all();
    }

    /// Takes in what the core brought about without a frame that waits for it.
    pub(super) fn take_effects(&mut self, now: Timestamp) {
        self.take_changes(now, None);
        self.tell_all();
    }

    /// Changes go into the open batch. How many of them `session`'s frame has to wait for.
    fn take_changes(&mut self, now: Timestamp, session: Option<SessionId>) -> u32 {
        let mut pending = 0;
        let mut changes = std::mem::take(&mut self.effects.changes);
        for change in changes.drain(..) {
            self.take_change(now, change, session, &mut pending);
        }
        self.effects.changes = changes;
        self.reads.extend(self.effects.reads.drain(..));
        self.spool.take(now, &mut self.effects.spool);
        if std::mem::take(&mut self.effects.term_wanted) {
            self.writer.want_term();
        }
        pending
    }

    /// Words go to their sessions.
    fn tell_all(&mut self) {
        let mut outgoing = std::mem::take(&mut self.effects.outgoing);
        for (session, outgoing) in outgoing.drain(..) {
            if matches!(outgoing, Outgoing::Close(_)) {
                self.mark_ending(session);
            }
            self.tell(session, outgoing);
        }
        self.effects.outgoing = outgoing;
    }

    fn take_change(&mut self, now: Timestamp, change: Change, session: Option<SessionId>, pending: &mut u32) {
        let writer = &mut self.writer;
        let sessions = &self.sessions;
        let step = |origin: Option<SessionId>| {
            let origin = origin.filter(|origin| Some(*origin) == session)?;
            Some(StepRef { session: origin, number: sessions.get(&origin)?.ledger.next() })
        };
        match change {
            Change::One { origin, op } => {
                let origin = step(origin);
                *pending += u32::from(origin.is_some());
                writer.open.push(Unit::new(SmallVec::from_buf([op]), origin, now));
            }
            Change::Unit { origin, ops, id, awaited } => {
                let origin = step(origin);
                *pending += u32::from(origin.is_some());
                if awaited {
                    writer.open.make_eager();
                }
                if self.broken.is(if awaited { Rule::SettlesBeforeCommit } else { Rule::SettlesBeforeBurial }) {
                    self.settle_at_once(now, &ops);
                }
                self.writer.open.push(Unit::new(ops, origin, now).named(id, awaited));
            }
            Change::Return { origin, sequence, held } => {
                let origin = step(origin);
                *pending += u32::from(origin.is_some());
                writer.open.give_back(sequence, held, origin, now);
            }
            Change::Mark { holder, upto, awaited } => {
                writer.open.mark(holder, upto, now);
                if awaited {
                    writer.open.make_eager();
                }
            }
            Change::Purge { holder, upto } => {
                writer.open.purge(holder, upto, now);
                writer.open.make_eager();
            }
            Change::Rely { origin, durable } if writer.makes(durable) => {
                if let Some(origin) = step(Some(origin)) {
                    *pending += 1;
                    writer.open.push_last(Unit::relying(durable, origin, now));
                }
            }
            Change::Rely { .. } => {}
            Change::SettleAll { holder, sequences, id } => writer.open.settle_all(holder, &sequences, id, now),
            Change::Settle { by, asked, sequence, holder } => {
                let clean = sessions.get(&by).is_none_or(|link| link.ledger.is_clear());
                let clean = clean || self.broken.is(Rule::ForgetsResults);
                let origin = if asked { step(Some(by)) } else { None };
                match writer.open.settle(sequence, holder, origin, now, clean) {
                    Settled::Written => *pending += u32::from(origin.is_some()),
                    Settled::Cancelled(None) => {}
                    Settled::Cancelled(Some(freed)) => self.free(freed),
                }
            }
        }
    }

    /// For simulations: what a unit settles counts as if it were acknowledged alone.
    fn settle_at_once(&mut self, now: Timestamp, ops: &[Op]) {
        for op in ops {
            if let Op::Settle { sequence, holder } = op
                && let Settled::Cancelled(Some(freed)) = self.writer.open.settle(*sequence, *holder, None, now, true)
            {
                self.free(freed);
            }
        }
    }

    /// One change of a step needs no more waiting.
    fn free(&mut self, step: StepRef) {
        if let Some(link) = self.sessions.get_mut(&step.session) {
            link.ledger.done(step.number);
            self.advance_ledger(step.session);
        }
    }

    fn advance_ledger(&mut self, session: SessionId) {
        let Some(link) = self.sessions.get_mut(&session) else { return };
        let mut answers = std::mem::take(&mut self.answers);
        link.ledger.advance(&mut answers);
        for answer in answers.drain(..) {
            self.answer(session, answer);
        }
        self.answers = answers;
    }

    fn answer(&mut self, session: SessionId, answer: Answer) {
        match answer {
            Answer::Nothing => {}
            Answer::Receipt(receipt) => self.tell(session, Outgoing::Receipt(receipt)),
            Answer::Error { refusal, receipt, closes } => {
                self.errors.retain(|(_, waiting)| *waiting != session);
                self.tell(session, Outgoing::Error { refusal, receipt });
                match closes {
                    Some(reason) => self.tell(session, Outgoing::Close(reason)),
                    None => self.watch_error(self.clock.now(), session), // another one may wait behind it
                }
            }
            Answer::Goodbye(receipt) => {
                if let Some(receipt) = receipt {
                    self.tell(session, Outgoing::Receipt(receipt));
                }
                self.tell(session, Outgoing::Close(CloseReason::Disconnected));
            }
        }
    }

    fn tell(&mut self, session: SessionId, outgoing: Outgoing) {
        let Some(link) = self.sessions.get_mut(&session) else { return };
        if link.phase == Phase::Closed {
            return;
        }
        if matches!(outgoing, Outgoing::Close(_)) {
            link.phase = Phase::Closed;
        }
        link.outgoing.push(outgoing);
        if !link.touched {
            link.touched = true;
            self.touched.push(session);
        }
    }

    fn written(&mut self, now: Timestamp, session: SessionId, written: &Written) {
        self.core.written(now, session, &written.last, written.bytes, &mut self.effects);
        self.take_frame(now, session, Answer::Nothing);
    }

    /// The connection is gone.
    fn closed(&mut self, now: Timestamp, session: SessionId) {
        self.core.close(now, session, &mut self.effects);
        self.take_effects(now);
        self.errors.retain(|(_, waiting)| *waiting != session);
        self.mark_ending(session); // gives back what was held
        self.sessions.remove(&session);
    }

    /// The session gets nothing new any more; what it is owed still leaves.
    fn end_session(&mut self, now: Timestamp, session: SessionId) {
        self.mark_ending(session);
        self.core.close(now, session, &mut self.effects);
        self.take_effects(now);
    }

    fn mark_ending(&mut self, session: SessionId) {
        let Some(link) = self.sessions.get_mut(&session) else { return };
        if link.phase == Phase::Open {
            link.phase = Phase::Ending;
        }
        link.hold = None;
        while let Some(request) = link.held.pop_front() {
            link.budget.give_back(request.bytes);
        }
    }

    pub(super) fn store_answered(&mut self, now: Timestamp, reply: StoreReply) -> Result<(), EngineError> {
        let Resolved { done, refused, entered, over } = self.writer.answered(now, reply);
        if let Some(why) = over {
            return Err(EngineError::TermOver(why));
        }
        if let Some(term) = entered {
            self.core.enter_term(term);
        }
        if let Some(part) = done {
            for (holder, upto) in part.marks {
                self.core.marked(now, holder, upto, &mut self.effects);
            }
            for mark in part.purges {
                self.purged(mark);
            }
            for unit in part.units {
                self.unit_done(now, unit.origin, unit.id);
            }
            self.take_effects(now);
        }
        for (unit, why) in refused {
            self.unit_refused(now, unit, why);
        }
        Ok(())
    }

    fn unit_done(&mut self, now: Timestamp, origin: Option<StepRef>, id: Option<UnitId>) {
        if let Some(id) = id {
            self.purged_behind(id);
            self.core.committed(now, id, &mut self.effects);
            self.take_effects(now);
        }
        if let Some(step) = origin {
            self.free(step);
        }
    }

    /// The store refused this, or had no room for it in time.
    fn unit_refused(&mut self, now: Timestamp, unit: Unit, why: &str) {
        if unit.is_dead_letter() {
            warn_of_dead_letter(&unit);
        }
        self.undo(now, unit, why);
    }

    /// R13: what is never written leaves the core, and its sender gets ERROR. Nobody sent a dead letter: who rejected its
    /// message did nothing wrong.
    fn undo(&mut self, now: Timestamp, unit: Unit, why: &str) {
        match unit.id {
            Some(id) => {
                self.core.commit_refused(now, id, &mut self.effects);
            }
            None => {
                for op in unit.live() {
                    match op {
                        Op::Insert(stored) => self.withdraw(now, stored, why),
                        Op::CreateDestination { id, destination } => self.core.destination_refused(*id, destination),
                        Op::CreateDurable { id, .. } => self.core.durable_refused(now, *id, &mut self.effects),
                        _ => debug_assert!(false, "the writer ends the term: {unit:?}"),
                    }
                }
            }
        }
        self.take_effects(now);
        let Some(step) = unit.origin else { return };
        if unit.is_dead_letter() {
            return self.free(step);
        }
        let Some(link) = self.sessions.get_mut(&step.session) else { return };
        let closes = (!link.lenient).then_some(CloseReason::Refused);
        let ends = closes.is_some() && link.phase == Phase::Open;
        let refusal = Refusal::new(why, "Nothing of this frame was stored, and nothing of it will be delivered.");
        link.ledger.refuse(step.number, refusal, closes);
        self.watch_error(now, step.session);
        self.advance_ledger(step.session);
        if ends {
            self.end_session(now, step.session);
        }
    }

    /// A message that was never stored leaves its queues, and what was to be made of it waits here still (R12).
    fn withdraw(&mut self, now: Timestamp, stored: &Stored, why: &str) {
        self.core.withdraw(stored);
        for id in self.core.units_that_bury(stored) {
            if let Some(unit) = self.writer.open.take_out(id) {
                self.undo(now, unit, why);
            }
        }
    }

    fn watch_error(&mut self, now: Timestamp, session: SessionId) {
        if self.sessions.get(&session).is_some_and(|link| link.ledger.has_error()) {
            self.errors.insert((now.after(ERROR_HELD_MAX), session));
        }
    }

    fn serve_deadlines(&mut self, now: Timestamp) {
        self.core.advance(now, &mut self.effects);
        self.take_effects(now);
        for (unit, why) in self.writer.take_overdue(now) {
            self.unit_refused(now, unit, why);
        }
        while let Some((at, session)) = self.errors.first().copied() {
            if at > now {
                break;
            }
            self.errors.remove(&(at, session));
            if let Some(error) = self.sessions.get_mut(&session).and_then(|link| link.ledger.hasten_error()) {
                self.answer(session, error);
            }
            self.watch_error(now, session); // a lenient session may have more of them
        }
    }

    /// Whether the open batch was sealed.
    pub(super) fn ask_the_store(&mut self, now: Timestamp) -> bool {
        let Some((request, sealed)) = self.writer.next_request(now) else { return false };
        if sealed {
            self.core.sealed();
        }
        let sent = self.requests.try_send(request);
        debug_assert!(sent.is_ok(), "one request is under way at most, and the channel holds one");
        sealed
    }

    fn flush_outboxes(&mut self) {
        for session in self.touched.drain(..) {
            let Some(link) = self.sessions.get_mut(&session) else { continue };
            link.touched = false;
            if !link.outgoing.is_empty() {
                link.outbox.append(&mut link.outgoing);
            }
        }
    }

    fn give_back(&mut self, session: SessionId, bytes: usize) {
        if let Some(link) = self.sessions.get(&session) {
            link.budget.give_back(bytes);
        }
    }
}

fn warn_of_dead_letter(unit: &Unit) {
    for dead in unit.live().filter_map(|op| if let Op::Insert(dead) = op { Some(dead) } else { None }) {
        let of = dead.message.original_destination.as_ref().map(tracing::field::display);
        tracing::warn!(of, "the store refuses a dead letter; its message goes back to where it was");
    }
}

fn answer_purge(answer: oneshot::Sender<Option<usize>>, messages: Option<usize>) {
    let _gone = answer.send(messages); // who asked may have left
}

impl Link {
    fn new(outbox: Arc<Outbox>, budget: Arc<Budget>, meter: &Meter) -> Self {
        Self {
            outbox,
            budget,
            outgoing: Vec::new(),
            touched: false,
            ledger: Ledger::new(meter),
            held: HeldRequests::new(meter),
            hold: None,
            lenient: false,
            phase: Phase::Open,
        }
    }
}
