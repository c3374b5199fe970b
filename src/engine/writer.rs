//! What is written when, and all that follows an error: raise, repeat, bisect, settles alone, resume (R10).
//!
//! A value without I/O: it hands out one request at a time and takes the store's answer; `committer.rs` carries them
//! to the adapter, which only tries. So a simulation can drive it through every error.
//!
//! Always true: one batch is under way at most (R12); a batch of unknown outcome is repeated only after the token was
//! raised (R11); no settle is written whose insert still waits (R14).

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    sync::Arc,
    time::Duration,
};

use super::{
    batch::{OpenBatch, Part, Sealed, Unit},
    overview::{Answers, StoreOverview},
};
use crate::{
    broker::{Full, Hold, Pending},
    persistence::{CommitError, StoreError},
    types::{
        Batch, BatchNumber, Broken, DurableId, FencingToken, Holder, OUTAGE_PATIENCE, Op, Rule, Sequence, Tenure, Term,
        Timestamp, with_causes,
    },
};

/// SENDs wait while this much waits for the store already. Unit: bytes.
const OPEN_BYTES_MAX: usize = 16 << 20;

/// A SEND that a full store holds gets ERROR after this (R8).
pub(super) const HELD_MAX: Duration = Duration::from_secs(10);

/// How long until a store that was full, or asked to try again, is asked again.
const FULL_RETRY: Duration = Duration::from_millis(250);

/// See [`FULL_RETRY`].
const AGAIN_RETRY: Duration = Duration::from_millis(10);

/// How long until a raise that failed is tried again.
const RAISE_RETRY: Duration = Duration::from_millis(100);

/// What the store is asked for.
#[derive(Debug)]
pub(super) enum StoreRequest {
    Commit(Arc<Batch>),
    /// A batch without operations, in which the store does what it does by itself: what makes room in a full one (R35).
    Turn(Arc<Batch>),
    Raise(Tenure),
}

/// What the store answers.
#[derive(Debug)]
pub(super) enum StoreReply {
    Committed(Result<(), CommitError>),
    Raised(Result<(), StoreError>),
}

/// What an answer means for everybody else.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Durable now.
    pub(super) done: Option<Part>,
    /// Never will be; with what its sender is told.
    pub(super) refused: Vec<(Unit, &'static str)>,
    /// The term that sequences are given in from now on.
    pub(super) entered: Option<Term>,
    /// This term is over, and why.
    pub(super) over: Option<String>,
}

/// How the store takes batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    /// Inserts wait; it is asked again then, and is open when it takes some.
    Full {
        retry_at: Timestamp,
    },
}

/// The one writer of a term.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) open: OpenBatch,
    under_way: Option<Sealed>,
    /// Parts of a refused batch that are still to be written, in order; numbered when their turn comes, so that
    /// numbers rise.
    parts: VecDeque<Part>,
    flow: Flow,
    /// A full store gets a turn of its own between two attempts, unless something is to be settled.
    turn_due: bool,
    tenure: Tenure,
    /// The highest token ever asked for (R11).
    asked: FencingToken,
    raise_wanted: Option<Raise>,
    /// The lock was in doubt, and not all of that is settled yet (R18).
    settles_doubt: bool,
    answer_awaited: bool,
    not_before: Option<Timestamp>,
    outage_since: Option<Timestamp>,
    answers: Answers,
    /// Nobody has waited too long for room before this: a pause is nobody's fault (R24).
    patient_until: Timestamp,
    last_number: BatchNumber,
    /// For simulations.
    broken: Broken,
}

/// Why the tenure has to be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raise {
    /// A batch's outcome is unknown, or the lock was in doubt.
    Token,
    /// The counter of sequences ends.
    Term,
}

impl Writer {
    /// The writer of a tenure that the store has raised.
    pub(super) fn new(tenure: Tenure, broken: Broken) -> Self {
        Self {
            open: OpenBatch::new(broken),
            under_way: None,
            parts: VecDeque::new(),
            flow: Flow::Open,
            turn_due: false,
            tenure,
            asked: tenure.token,
            raise_wanted: None,
            settles_doubt: false,
            answer_awaited: false,
            not_before: None,
            outage_since: None,
            answers: Answers::default(),
            patient_until: Timestamp(0),
            last_number: BatchNumber(0),
            broken,
        }
    }

    /// When nothing waits for room any more, the next SEND shows whether a full store has some.
    pub(super) fn advance(&mut self, now: Timestamp) {
        if let Flow::Full { retry_at } = self.flow
            && now >= retry_at
            && !self.answer_awaited
            && !self.open.adds()
        {
            self.flow = Flow::Open;
        }
    }

    /// What the store is asked for next, if anything is due; the answer goes to [`Self::answered`]. The flag tells
    /// whether the open batch was sealed.
    pub(super) fn next_request(&mut self, now: Timestamp) -> Option<(StoreRequest, bool)> {
        if self.answer_awaited || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.not_before = None;
        let seals = self.raise_wanted.is_none() && self.under_way.is_none() && self.parts.is_empty();
        let request = self.raise_request().or_else(|| self.commit_request(now)).or_else(|| self.turn_request())?;
        self.answer_awaited = true;
        let seals = seals && !matches!(request, StoreRequest::Turn(_));
        Some((request, seals))
    }

    fn turn_request(&mut self) -> Option<StoreRequest> {
        let due = std::mem::take(&mut self.turn_due) && matches!(self.flow, Flow::Full { .. });
        due.then(|| StoreRequest::Turn(Arc::new(Batch { number: self.number(), ops: Vec::new() })))
    }

    fn raise_request(&mut self) -> Option<StoreRequest> {
        let raise = self.raise_wanted?;
        self.asked = FencingToken(self.asked.0 + 1);
        let term = match raise {
            Raise::Token => self.tenure.term,
            Raise::Term => Term(self.tenure.term.0 + 1),
        };
        Some(StoreRequest::Raise(Tenure { term, token: self.asked }))
    }

    fn commit_request(&mut self, now: Timestamp) -> Option<StoreRequest> {
        if self.broken.is(Rule::RepeatsBehindNext) {
            self.let_next_pass(now);
        }
        if self.under_way.is_none() {
            self.under_way = match self.parts.pop_front() {
                Some(part) => Some(Sealed::new(self.number(), part)),
                None => self.seal(now),
            };
        }
        self.under_way.as_ref().map(|sealed| StoreRequest::Commit(sealed.batch.clone()))
    }

    /// For simulations: what is in doubt goes behind the open batch.
    fn let_next_pass(&mut self, now: Timestamp) {
        if self.under_way.as_ref().is_some_and(|sealed| sealed.part.is_in_doubt())
            && let Some(next) = self.seal(now)
        {
            let in_doubt = self.under_way.replace(next);
            self.parts.extend(in_doubt.map(|sealed| sealed.part));
        }
    }

    fn seal(&mut self, now: Timestamp) -> Option<Sealed> {
        if let Flow::Full { retry_at } = self.flow
            && now < retry_at
        {
            let settles = self.open.has_settles().then(|| self.open.take_settles())?;
            return Some(Sealed::new(self.number(), settles));
        }
        let part = self.open.is_due(now).then(|| self.open.take())?;
        Some(Sealed::new(self.number(), part))
    }

    /// Takes the store's answer.
    pub(super) fn answered(&mut self, now: Timestamp, reply: StoreReply) -> Resolved {
        self.answer_awaited = false;
        self.count(&reply);
        let resolved = match reply {
            StoreReply::Committed(Ok(())) => self.committed(),
            StoreReply::Committed(Err(error)) => self.not_committed(now, error),
            StoreReply::Raised(result) => self.raised(now, result),
        };
        self.settles_doubt &= self.raise_wanted.is_some() || self.under_way.is_some();
        resolved
    }

    /// Whether the raise after a doubt, or the batch that it left, is still to be settled (R18).
    pub(super) fn settles_doubt(&self) -> bool {
        self.settles_doubt
    }

    fn count(&mut self, reply: &StoreReply) {
        let StoreReply::Committed(answer) = reply else { return };
        let answers = &mut self.answers;
        let counted = match answer {
            Ok(()) => &mut answers.committed,
            Err(CommitError::Full) => &mut answers.full,
            Err(CommitError::Again { .. }) => &mut answers.again,
            Err(CommitError::Unknown { .. }) => &mut answers.unknown,
            Err(CommitError::Refused { .. }) => &mut answers.refused,
            Err(CommitError::Deposed | CommitError::Unusable(_)) => return, // the term is over, and its counts with it
        };
        *counted += 1;
    }

    fn committed(&mut self) -> Resolved {
        self.outage_since = None;
        let done = self.under_way.take().map(|sealed| sealed.part);
        if done.as_ref().is_some_and(Part::adds) && self.flow != Flow::Open {
            tracing::info!("the store has room again");
            self.flow = Flow::Open;
        }
        Resolved { done, ..Resolved::default() }
    }

    fn not_committed(&mut self, now: Timestamp, error: CommitError) -> Resolved {
        if !matches!(error, CommitError::Unknown { .. } | CommitError::Again { .. }) {
            self.outage_since = None;
        }
        match error {
            CommitError::Deposed => return over("somebody else holds the baton"),
            CommitError::Refused { source } => return self.bisect(source.as_ref()),
            CommitError::Unusable(error) => {
                return over(&format!("{}; {}", with_causes(&error), error.fix()));
            }
            CommitError::Full => {
                if self.flow == Flow::Open {
                    tracing::warn!(
                        "the store is full: persistent SENDs wait, and get ERROR after {} s",
                        HELD_MAX.as_secs()
                    );
                }
                self.flow = Flow::Full { retry_at: now.after(FULL_RETRY) };
                // Newest first, because what is reopened comes before all that is open.
                for part in std::mem::take(&mut self.parts).into_iter().rev() {
                    self.open.reopen(part);
                }
                if let Some(sealed) = self.under_way.take() {
                    if sealed.part.adds() {
                        self.turn_due = true;
                    } else {
                        self.not_before = Some(now.after(FULL_RETRY)); // not even settles have room
                    }
                    self.open.reopen(sealed.part);
                }
            }
            CommitError::Again { source } => {
                match self.outage_since {
                    None => tracing::warn!(source, "the store asks to try again; receipts wait"),
                    Some(_) => tracing::debug!(source, "the store asks to try again"),
                }
                self.not_before = Some(now.after(AGAIN_RETRY));
                return self.wait_out(now);
            }
            CommitError::Unknown { source } => {
                tracing::warn!(source, "the outcome of a batch is unknown; raising the token before it is repeated");
                self.raise_wanted = (!self.broken.is(Rule::RepeatsWithoutRaise)).then_some(Raise::Token);
                self.under_way.iter_mut().for_each(|sealed| sealed.part.doubt());
                return self.wait_out(now);
            }
        }
        Resolved::default()
    }

    /// R13: halves until the unit is found that the store refuses; the others go on.
    fn bisect(&mut self, source: &(dyn Error + 'static)) -> Resolved {
        let Some(sealed) = self.under_way.take() else { return Resolved::default() };
        match sealed.part.split() {
            Ok((first, second)) => {
                self.parts.push_front(second);
                self.parts.push_front(first);
                Resolved::default()
            }
            Err(alone) => self.refuse_alone(alone, source),
        }
    }

    /// A unit that is refused alone: who sent it hears of it. What no client wrote is numbers, which a store in order
    /// takes; memory has acted on them, so only the next term is right again.
    fn refuse_alone(&mut self, alone: Part, source: &(dyn Error + 'static)) -> Resolved {
        if alone.is_in_doubt() {
            // R11: an earlier attempt may have stored it, so that an ERROR might be a lie.
            return over(&format!("the store refuses what it may have already: {}", with_causes(source)));
        }
        let mut refused = Vec::new();
        for unit in alone.units {
            if !unit.can_be_undone() {
                return refuses_what_is_ours(unit.live().next().map_or("nothing", Op::name), source);
            }
            tracing::warn!(source, "the store refuses an operation; who sent it gets ERROR");
            self.refuse(unit, "The store refused the message.", &mut refused);
        }
        match refused.is_empty() {
            true => refuses_what_is_ours("mark or purge", source),
            false => Resolved { refused, ..Resolved::default() },
        }
    }

    /// Refuses a unit, and all that needs what it was to make: that came later, so nothing of it was written.
    fn refuse(&mut self, unit: Unit, why: &'static str, refused: &mut Vec<(Unit, &'static str)>) {
        let made = unit.live().find_map(|op| match op {
            Op::CreateDestination { .. } => Some((op.clone(), "The store refused to make the destination.")),
            Op::CreateDurable { .. } => Some((op.clone(), "The store refused to make the durable subscription.")),
            _ => None,
        });
        let Some((made, why_not_made)) = made else { return refused.push((unit, why)) };
        refused.push((unit, why_not_made));
        let parts = self.parts.iter_mut().flat_map(|part| part.take_what_needs(&made));
        let needing: Vec<Unit> = parts.chain(self.open.take_what_needs(&made)).collect();
        for unit in needing {
            self.refuse(unit, why_not_made, refused);
        }
    }

    fn raised(&mut self, now: Timestamp, result: Result<(), StoreError>) -> Resolved {
        match result {
            Ok(()) => {
                let entered = (self.raise_wanted.take() == Some(Raise::Term)).then(|| {
                    self.tenure.term = Term(self.tenure.term.0 + 1);
                    self.tenure.term
                });
                self.tenure.token = self.asked;
                if self.under_way.is_none() {
                    self.outage_since = None; // nothing is left to show that it is over
                }
                Resolved { entered, ..Resolved::default() }
            }
            Err(StoreError::Deposed) => over("somebody else holds the baton"),
            Err(error) => {
                tracing::warn!(source = &error as &dyn Error, "the token can't be raised; trying again");
                self.not_before = Some(now.after(RAISE_RETRY));
                self.wait_out(now)
            }
        }
    }

    fn wait_out(&mut self, now: Timestamp) -> Resolved {
        let since = *self.outage_since.get_or_insert(now);
        if now.since(since) < OUTAGE_PATIENCE {
            return Resolved::default();
        }
        over("the store has not taken anything for too long")
    }

    /// The lock was in doubt and is proven again: whatever still runs for this broker is made void first (R11, R18).
    pub(super) fn resume(&mut self, now: Timestamp) {
        self.raise_wanted.get_or_insert(Raise::Token);
        self.settles_doubt = true;
        (self.not_before, self.outage_since) = (None, None);
        self.patient_until = now.after(HELD_MAX);
    }

    /// The counter of sequences ends: a new term is raised between two batches (R17).
    pub(super) fn want_term(&mut self) {
        self.raise_wanted.get_or_insert(Raise::Term);
    }

    /// What a SEND that is to be stored has to wait for.
    pub(super) fn hold(&self) -> Option<Hold> {
        match self.flow {
            Flow::Full { .. } => Some(Hold::Standing(Full::Store)),
            Flow::Open => (self.open.bytes() >= OPEN_BYTES_MAX).then_some(Hold::Passing),
        }
    }

    /// What a full store could not take in time (R8); with what its sender is told.
    pub(super) fn take_overdue(&mut self, now: Timestamp) -> Vec<(Unit, &'static str)> {
        if !matches!(self.flow, Flow::Full { .. }) || self.answer_awaited || now < self.patient_until {
            return Vec::new();
        }
        let limit = Timestamp(now.0.saturating_sub(u64::try_from(HELD_MAX.as_millis()).unwrap_or(u64::MAX)));
        self.open.take_overdue(limit).into_iter().map(|unit| (unit, "The store is full.")).collect()
    }

    /// When the oldest of what is not durable came in; `None`: everything is.
    pub(super) fn oldest_change(&self) -> Option<Timestamp> {
        let under_way =
            self.under_way.iter().map(|sealed| &sealed.part).chain(&self.parts).filter_map(|part| part.since);
        under_way.chain(self.open.since()).min()
    }

    /// What became of a holder's messages and is not durable yet; of one message the latest.
    pub(super) fn pending(&self, holder: Holder) -> HashMap<Sequence, Pending> {
        let under_way = self.under_way.iter().map(|sealed| &sealed.part).chain(&self.parts);
        let mut pending: HashMap<_, _> = under_way.flat_map(|part| part.pending(holder)).collect();
        pending.extend(self.open.pending(holder));
        pending
    }

    /// Whether a durable subscription is being made, and is not durable.
    pub(super) fn makes(&self, durable: DurableId) -> bool {
        let under_way = self.under_way.iter().map(|sealed| &sealed.part).chain(&self.parts);
        under_way.into_iter().any(|part| part.makes(durable)) || self.open.makes(durable)
    }

    /// What the store does, for operators.
    pub(super) fn overview(&self) -> StoreOverview {
        StoreOverview {
            is_full: matches!(self.flow, Flow::Full { .. }),
            batches_under_way: usize::from(self.under_way.is_some()) + self.parts.len(),
            waiting_bytes: self.open.bytes(),
            answers: self.answers,
        }
    }

    /// Whether nothing is open, under way or waiting to be repeated.
    pub(super) fn is_idle(&self) -> bool {
        self.has_nothing_under_way() && self.open.is_empty()
    }

    /// Whether all that is left is what a full store has no room for.
    pub(super) fn only_waits_for_room(&self) -> bool {
        matches!(self.flow, Flow::Full { .. }) && self.has_nothing_under_way() && !self.open.has_settles()
    }

    fn has_nothing_under_way(&self) -> bool {
        self.under_way.is_none() && self.parts.is_empty() && self.raise_wanted.is_none()
    }

    /// When [`Self::next_request`] or [`Self::take_overdue`] may have something next, without another event.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        if self.answer_awaited {
            return None;
        }
        if self.not_before.is_some() {
            return self.not_before;
        }
        match self.flow {
            Flow::Open => self.open.due_at(),
            Flow::Full { retry_at } => {
                let overdue = self.open.oldest_send().map(|since| since.after(HELD_MAX).max(self.patient_until));
                Some(overdue.map_or(retry_at, |overdue| overdue.min(retry_at)))
            }
        }
    }

    fn number(&mut self) -> BatchNumber {
        self.last_number = BatchNumber(self.last_number.0 + 1);
        self.last_number
    }
}

fn refuses_what_is_ours(what: &str, source: &(dyn Error + 'static)) -> Resolved {
    over(&format!("the store refuses a {what}, which no client answers for: {}", with_causes(source)))
}

fn over(why: &str) -> Resolved {
    Resolved { over: Some(why.to_owned()), ..Resolved::default() }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::{
        broker::UnitId,
        engine::batch::Settled,
        types::{DestinationId, Held, Holder, Message, MessageDraft, Op, Sequence, Stored},
    };

    const NOW: Timestamp = Timestamp(1_000);

    fn writer() -> Writer {
        Writer::new(tenure(4, 7), Broken::default())
    }

    fn tenure(term: u32, token: u64) -> Tenure {
        Tenure { term: Term(term), token: FencingToken(token) }
    }

    /// A message for which somebody waits.
    fn sent(writer: &mut Writer, term: u32, counter: u64) {
        let stored = Stored {
            sequence: Sequence::new(Term(term), counter),
            destination: DestinationId(1),
            holders: [Held::fresh(Holder::Queue(DestinationId(1)))].into_iter().collect(),
            message: Arc::new(Message::new(MessageDraft::default())),
        };
        writer.open.push(Unit::new(smallvec![Op::Insert(stored)], None, NOW));
        writer.open.make_eager();
    }

    /// The batch that is asked for now.
    fn committing(writer: &mut Writer) -> Arc<Batch> {
        match writer.next_request(NOW) {
            Some((StoreRequest::Commit(batch), _)) => batch,
            other => panic!("{other:?} instead of a batch"),
        }
    }

    /// The tenure that is asked for now; the open batch stays open.
    fn raising(writer: &mut Writer, now: Timestamp) -> Tenure {
        match writer.next_request(now) {
            Some((StoreRequest::Raise(tenure), false)) => tenure,
            other => panic!("{other:?} instead of a raise"),
        }
    }

    /// R35: the journal makes room in it.
    #[test]
    fn r35_a_full_store_gets_a_turn_of_its_own_between_two_attempts() {
        let mut writer = writer();
        sent(&mut writer, 4, 1);
        let retry = NOW.after(FULL_RETRY);
        for now in [NOW, retry, retry.after(FULL_RETRY)] {
            assert!(
                matches!(writer.next_request(now), Some((StoreRequest::Commit(batch), true)) if !batch.ops.is_empty())
            );
            writer.answered(now, StoreReply::Committed(Err(CommitError::Full)));
            assert!(
                matches!(writer.next_request(now), Some((StoreRequest::Turn(batch), false)) if batch.ops.is_empty())
            );
            assert!(writer.answered(now, StoreReply::Committed(Ok(()))).done.is_none());
            assert!(writer.next_request(now).is_none(), "one turn");
        }
    }

    fn committed(writer: &mut Writer) -> Resolved {
        writer.answered(NOW, StoreReply::Committed(Ok(())))
    }

    fn unknown(writer: &mut Writer) -> Resolved {
        let source = "the connection died".into();
        writer.answered(NOW, StoreReply::Committed(Err(CommitError::Unknown { source })))
    }

    fn raised(writer: &mut Writer) -> Option<Term> {
        let resolved = writer.answered(NOW, StoreReply::Raised(Ok(())));
        assert_eq!(resolved.over, None);
        resolved.entered
    }

    #[test]
    fn r17_a_term_that_is_wanted_is_raised_between_two_batches_and_entered() {
        let mut writer = writer();
        sent(&mut writer, 4, 1);
        let first = committing(&mut writer);
        writer.want_term();
        sent(&mut writer, 4, 2);
        assert!(writer.next_request(NOW).is_none(), "R12: one request at a time");
        assert!(committed(&mut writer).done.is_some());
        assert_eq!(raising(&mut writer, NOW), tenure(5, 8), "before the batch that is open");
        writer.want_term(); // every message asks for it until it is there
        assert_eq!(raised(&mut writer), Some(Term(5)));
        let second = committing(&mut writer);
        assert_eq!((first.number, second.number), (BatchNumber(1), BatchNumber(2)), "nothing is cut or left out");
        assert_eq!(committed(&mut writer).entered, None, "once");
        assert!(writer.is_idle());
    }

    #[test]
    fn r17_the_next_term_is_above_the_one_that_was_raised() {
        let mut writer = writer();
        for term in 5..8 {
            assert!(writer.is_idle());
            writer.want_term();
            assert!(!writer.is_idle(), "a stop waits for it");
            assert_eq!(raising(&mut writer, NOW).term, Term(term));
            assert_eq!(raised(&mut writer), Some(Term(term)));
        }
    }

    #[test]
    fn r17_a_term_is_entered_only_when_the_store_has_it() {
        let mut writer = writer();
        writer.want_term();
        assert_eq!(raising(&mut writer, NOW), tenure(5, 8));
        let failed = writer.answered(NOW, StoreReply::Raised(Err(StoreError::Closed)));
        assert_eq!((failed.entered, failed.over), (None, None));
        assert!(writer.next_request(NOW).is_none(), "not at once");
        let later = NOW.after(RAISE_RETRY);
        assert_eq!(writer.next_deadline(), Some(later));
        assert_eq!(raising(&mut writer, later), tenure(5, 9), "R11: a token above every one that was asked for");
        assert_eq!(raised(&mut writer), Some(Term(5)));
    }

    #[test]
    fn r17_a_raise_after_an_unknown_outcome_stays_in_the_term_and_repeats_the_batch() {
        let mut writer = writer();
        sent(&mut writer, 4, 1);
        let batch = committing(&mut writer);
        assert!(unknown(&mut writer).done.is_none());
        writer.want_term();
        assert_eq!(raising(&mut writer, NOW), tenure(4, 8));
        assert_eq!(raised(&mut writer), None);
        assert_eq!(committing(&mut writer), batch, "R12");
        committed(&mut writer);
        writer.want_term(); // the next message asks again
        assert_eq!(raising(&mut writer, NOW), tenure(5, 9));
        assert_eq!(raised(&mut writer), Some(Term(5)));
    }

    #[test]
    fn r11_an_outage_is_over_when_the_token_is_raised_and_nothing_is_in_doubt() {
        let mut writer = writer();
        writer.resume(NOW);
        raising(&mut writer, NOW);
        writer.answered(NOW, StoreReply::Raised(Err(StoreError::Closed)));
        raising(&mut writer, NOW.after(RAISE_RETRY));
        raised(&mut writer);
        let much_later = NOW.after(10 * OUTAGE_PATIENCE);
        sent(&mut writer, 4, 1);
        assert!(matches!(writer.next_request(much_later), Some((StoreRequest::Commit(_), true))));
        let source = "the connection was idle for too long".into();
        let lost = writer.answered(much_later, StoreReply::Committed(Err(CommitError::Unknown { source })));
        assert_eq!(lost.over, None, "another outage, which has just begun");
    }

    #[test]
    fn r11_what_may_be_stored_already_is_not_refused_to_its_sender() {
        let mut writer = writer();
        sent(&mut writer, 4, 1);
        committing(&mut writer);
        let source = "the connection was lost in the COMMIT".into();
        writer.answered(NOW, StoreReply::Committed(Err(CommitError::Unknown { source })));
        raising(&mut writer, NOW);
        raised(&mut writer);
        committing(&mut writer);
        let source = "the server takes smaller messages now".into();
        let answer = writer.answered(NOW, StoreReply::Committed(Err(CommitError::Refused { source })));
        assert!(answer.refused.is_empty());
        assert!(answer.over.is_some_and(|why| why.ends_with("the server takes smaller messages now")));
    }

    #[test]
    fn r13_what_is_refused_and_no_client_wrote_ends_the_term_and_says_so() {
        let holder = Holder::Queue(DestinationId(1));
        let sequence = Sequence::new(Term(4), 9);
        let mark = |writer: &mut Writer| writer.open.mark(holder, sequence, NOW);
        let purge = |writer: &mut Writer| writer.open.purge(holder, sequence, NOW);
        let settle = |writer: &mut Writer| {
            assert_eq!(writer.open.settle(sequence, holder, None, NOW, true), Settled::Written);
        };
        let settle_all = |writer: &mut Writer| writer.open.settle_all(holder, &[sequence], UnitId::default(), NOW);
        let give_back = |writer: &mut Writer| writer.open.give_back(sequence, Held::fresh(holder), None, NOW);
        let delete = |writer: &mut Writer| {
            let op = Op::DeleteDurable { id: DurableId(1) };
            writer.open.push(Unit::new(smallvec![op], None, NOW));
        };
        for ask in [&mark as &dyn Fn(&mut Writer), &purge, &settle, &settle_all, &give_back, &delete] {
            let mut writer = writer();
            ask(&mut writer);
            sent(&mut writer, 4, 10);
            let mut refuse = || {
                committing(&mut writer);
                let source = "no such column".into();
                writer.answered(NOW, StoreReply::Committed(Err(CommitError::Refused { source }))).over
            };
            assert_eq!(refuse(), None, "with a message, it may be that");
            assert!(refuse().is_some_and(|why| why.ends_with("no such column")));
        }
    }

    #[test]
    fn r17_who_is_deposed_enters_no_term() {
        let mut writer = writer();
        writer.want_term();
        raising(&mut writer, NOW);
        let deposed = writer.answered(NOW, StoreReply::Raised(Err(StoreError::Deposed)));
        assert_eq!(deposed.entered, None);
        assert!(deposed.over.is_some());
    }
}
