//! The order of answers on each connection (R4).
//!
//! A frame that has something to wait for takes a step in its session's ledger. Answers leave from the front: a step
//! is over when everything that its frame changed is durable, or was cancelled as R2 allows.
//!
//! Always true: an answer leaves after those of all earlier frames of its session. Nobody waits for another session's
//! step: who has to wait for what another one sent waits in the batch, so that waiting can't go round in a circle.

use std::collections::VecDeque;

use crate::{
    broker::{CloseReason, Receipt, Refusal},
    types::{Charge, Meter, SessionId},
};

/// Room for frames that is kept while none wait: idle sessions are many.
const ROOM_KEPT_MAX: usize = 16;

/// One frame's place in its session's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepRef {
    pub(super) session: SessionId,
    pub(super) number: u64,
}

/// What a session is told when a step is over.
#[derive(Debug, Default)]
pub(super) enum Answer {
    /// Nothing was asked for.
    #[default]
    Nothing,
    Receipt(Receipt),
    /// ERROR; `Some`: the connection ends with it.
    Error {
        refusal: Refusal,
        receipt: Option<Receipt>,
        closes: Option<CloseReason>,
    },
    /// The receipt of a DISCONNECT, and the end.
    Goodbye(Option<Receipt>),
}

/// One frame that waits.
#[derive(Debug, Default)]
struct Step {
    /// Changes that are neither durable nor cancelled.
    pending: u32,
    answer: Answer,
}

/// One session's frames that wait, oldest first.
#[derive(Debug)]
pub(super) struct Ledger {
    steps: VecDeque<Step>,
    first: u64,
    /// For the room that `steps` has (R31), which seldom changes.
    charge: Charge,
}

impl Ledger {
    pub(super) fn new(meter: &Meter) -> Self {
        Self { steps: VecDeque::new(), first: 0, charge: meter.charge(0) }
    }

    /// Whether everything that the session sent is durable or cancelled.
    pub(super) fn is_clear(&self) -> bool {
        self.steps.is_empty()
    }

    /// How many frames wait.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// The number that the next step will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.steps.len() as u64
    }

    /// Adds a frame that waits for `pending` changes.
    pub(super) fn push(&mut self, pending: u32, answer: Answer) {
        self.steps.push_back(Step { pending, answer });
        self.count_room();
    }

    /// One change of a step is durable or cancelled. A step that is over already is ignored.
    pub(super) fn done(&mut self, number: u64) {
        if let Some(step) = self.step(number) {
            step.pending = step.pending.saturating_sub(1);
        }
    }

    /// A change of a step was refused: ERROR instead of its answer.
    pub(super) fn refuse(&mut self, number: u64, refusal: Refusal, closes: Option<CloseReason>) {
        if let Some(step) = self.step(number) {
            let receipt = match std::mem::take(&mut step.answer) {
                Answer::Receipt(receipt) | Answer::Goodbye(Some(receipt)) => Some(receipt),
                Answer::Error { receipt, .. } => receipt,
                Answer::Nothing | Answer::Goodbye(None) => None,
            };
            step.answer = Answer::Error { refusal, receipt, closes };
            step.pending = step.pending.saturating_sub(1);
        }
    }

    /// Takes what leaves now.
    pub(super) fn advance(&mut self, answers: &mut Vec<Answer>) {
        let over = self.steps.iter().take_while(|step| step.pending == 0).count();
        answers.extend(self.steps.drain(..over).map(|step| step.answer));
        self.first += over as u64;
        if self.steps.is_empty() {
            self.steps.shrink_to(ROOM_KEPT_MAX);
            self.count_room();
        }
    }

    /// Takes the first ERROR out of its place, because it has waited long enough; the others still wait.
    pub(super) fn hasten_error(&mut self) -> Option<Answer> {
        let step = self.steps.iter_mut().find(|step| matches!(step.answer, Answer::Error { .. }))?;
        Some(std::mem::take(&mut step.answer))
    }

    /// Whether an ERROR waits for its turn.
    pub(super) fn has_error(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.answer, Answer::Error { .. }))
    }

    fn count_room(&mut self) {
        let bytes = self.steps.capacity() * size_of::<Step>();
        if bytes != self.charge.bytes() {
            self.charge.resize(bytes);
        }
    }

    fn step(&mut self, number: u64) -> Option<&mut Step> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.steps.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(text: &str) -> Answer {
        Answer::Receipt(text.into())
    }

    fn leaving(ledger: &mut Ledger) -> Vec<String> {
        let mut answers = Vec::new();
        ledger.advance(&mut answers);
        let texts = answers.iter().map(|answer| match answer {
            Answer::Receipt(receipt) => receipt.to_string(),
            other => format!("{other:?}"),
        });
        texts.collect()
    }

    #[test]
    fn r4_a_receipt_waits_for_all_frames_before_it() {
        let mut ledger = Ledger::new(&Meter::unlimited());
        let (first, second) = (ledger.next(), ledger.next() + 1);
        ledger.push(1, receipt("a"));
        ledger.push(1, receipt("b"));
        ledger.push(0, receipt("c"));
        ledger.done(second);
        assert!(leaving(&mut ledger).is_empty());
        ledger.done(first);
        assert_eq!(leaving(&mut ledger), ["a", "b", "c"]);
        assert!(ledger.is_clear());
    }

    #[test]
    fn r31_frames_that_wait_count() {
        let meter = Meter::unlimited();
        let mut ledger = Ledger::new(&meter);
        (0..1_000).for_each(|_| ledger.push(1, Answer::Nothing));
        assert!(meter.in_use() >= 1_000 * size_of::<Step>());
        (0..1_000).for_each(|number| ledger.done(number));
        leaving(&mut ledger);
        assert!(meter.in_use() <= ROOM_KEPT_MAX * size_of::<Step>());
        drop(ledger);
        assert_eq!(meter.in_use(), 0);
    }

    #[test]
    fn r4_an_error_keeps_its_place_until_it_is_hastened() {
        let mut ledger = Ledger::new(&Meter::unlimited());
        ledger.push(1, receipt("a"));
        ledger.push(1, receipt("b"));
        ledger.refuse(1, Refusal::new("no", ""), Some(CloseReason::Refused));
        assert!(leaving(&mut ledger).is_empty());
        let error = ledger.hasten_error();
        assert!(matches!(error, Some(Answer::Error { receipt: Some(receipt), .. }) if receipt == "b"));
        ledger.done(0);
        assert_eq!(leaving(&mut ledger), ["a", "Nothing"]);
    }
}
