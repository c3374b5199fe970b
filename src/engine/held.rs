//! Requests that have to wait: for a queue, the store, a topic's subscription, or the session's own answers.
//!
//! Always true: what a session has held is served in order, and nothing of that session before it but acknowledgements
//! (R8). What waits for a standing cause is refused after [`HELD_MAX`]; what waits for anything else waits as long as
//! that lasts. Who ends gives back the budget of what is held. What is held counts in the budget of memory (R31).

use std::collections::VecDeque;

use super::{
    receipts::Answer,
    task::{Engine, Phase},
    writer::HELD_MAX,
};
use crate::{
    broker::{Command, Hold, NotDone, Refusal, Request},
    types::{Charge, Meter, SessionId, Timestamp},
};

/// One session's held requests, the one that is tried first in front.
#[derive(Debug)]
pub(super) struct HeldRequests {
    requests: VecDeque<Request>,
    /// For all of `requests`.
    charge: Charge,
}

impl HeldRequests {
    pub(super) fn new(meter: &Meter) -> Self {
        Self { requests: VecDeque::new(), charge: meter.charge(0) }
    }

    fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    fn len(&self) -> usize {
        self.requests.len()
    }

    fn push_back(&mut self, request: Request) {
        self.charge.resize(self.charge.bytes() + request.own_bytes());
        self.requests.push_back(request);
    }

    fn push_front(&mut self, request: Request) {
        self.charge.resize(self.charge.bytes() + request.own_bytes());
        self.requests.push_front(request);
    }

    pub(super) fn pop_front(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.charge.resize(self.charge.bytes() - request.own_bytes());
        Some(request)
    }

    /// For an acknowledgement that overtakes: what it becomes takes as much.
    fn get_mut(&mut self, at: usize) -> Option<&mut Request> {
        self.requests.get_mut(at)
    }
}

/// What came of trying a session's held requests again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retried {
    /// Nothing is held any more.
    Done,
    /// Something was done, and something still waits.
    Moved,
    Stuck,
}

impl Engine {
    /// A request takes its turn behind what its session has held; only acknowledgements overtake, and only what waits
    /// for something that they may mend (R8). Their receipts do not overtake.
    pub(super) fn request(&mut self, now: Timestamp, session: SessionId, request: Request) {
        let Some(link) = self.sessions.get_mut(&session) else { return };
        if link.phase != Phase::Open {
            link.budget.give_back(request.bytes);
            return;
        }
        if link.held.is_empty() {
            if let Some((held, hold)) = self.perform(now, session, request) {
                self.hold(now, session, held, hold);
            }
            return;
        }
        link.held.push_back(request);
        if link.hold.as_ref().is_some_and(|(hold, _)| hold.lets_acks_pass()) {
            let last = link.held.len() - 1;
            self.overtake(now, session, last);
        }
    }

    fn hold(&mut self, now: Timestamp, session: SessionId, request: Request, hold: Hold) {
        let Some(link) = self.sessions.get_mut(&session) else { return };
        link.held.push_front(request);
        match &mut link.hold {
            Some((same, _)) => *same = hold,
            none => {
                *none = Some((hold, now));
                self.held.push_back(session);
            }
        }
    }

    /// Tries what is held again, each session's requests in order. Who gets something done goes to the end of the line.
    pub(super) fn retry_held(&mut self, now: Timestamp) {
        let mut moved = VecDeque::new();
        for session in std::mem::take(&mut self.held) {
            match self.retry(now, session) {
                Retried::Done => {}
                Retried::Moved => moved.push_back(session),
                Retried::Stuck => self.held.push_back(session),
            }
        }
        self.held.append(&mut moved);
    }

    /// Those that waited too long for a standing cause are refused (R8); a session that gets something done waits anew.
    fn retry(&mut self, now: Timestamp, session: SessionId) -> Retried {
        let hold = self.sessions.get_mut(&session).and_then(|link| link.hold.take());
        let Some((before, mut since)) = hold else { return Retried::Done };
        let mut retried = Retried::Stuck;
        while let Some(request) = self.sessions.get_mut(&session).and_then(|link| link.held.pop_front()) {
            let Some((request, hold)) = self.perform(now, session, request) else {
                (since, retried) = (now, Retried::Moved);
                continue;
            };
            if before != hold && !matches!(before, Hold::Standing(_)) && retried == Retried::Stuck {
                since = now;
            }
            match hold {
                Hold::Standing(why) if now >= since.after(HELD_MAX) => {
                    let refusal = self.give_up(now, session, request, &why.to_string());
                    let refused = self.perform(now, session, refusal);
                    debug_assert!(refused.is_none(), "a refusal is never held");
                }
                hold => {
                    self.keep_held(session, request, hold.clone(), since);
                    if hold.lets_acks_pass() && !before.lets_acks_pass() {
                        self.overtake_all(now, session);
                    }
                    return retried;
                }
            }
        }
        Retried::Done
    }

    /// What has waited too long is refused; a COMMIT that is refused is an ABORT (R5).
    fn give_up(&mut self, now: Timestamp, session: SessionId, request: Request, why: &str) -> Request {
        if let Command::Commit(name) = request.command {
            let aborted = self.core.apply(now, session, Command::Abort(name), &mut self.effects);
            debug_assert!(aborted.is_ok(), "a COMMIT is held only of a transaction that is open");
            self.take_effects(now);
        }
        Request { command: too_long(why), receipt: request.receipt, bytes: request.bytes }
    }

    fn keep_held(&mut self, session: SessionId, request: Request, hold: Hold, since: Timestamp) {
        let Some(link) = self.sessions.get_mut(&session) else { return };
        link.held.push_front(request);
        link.hold = Some((hold, since));
    }

    /// Serves the acknowledgements that came while their session waited for something they had to wait for too.
    fn overtake_all(&mut self, now: Timestamp, session: SessionId) {
        let count = self.sessions.get(&session).map_or(0, |link| link.held.len());
        for at in 1..count {
            self.overtake(now, session, at);
        }
    }

    /// Serves an acknowledgement among what a session has held (R8); its receipt keeps its place.
    fn overtake(&mut self, now: Timestamp, session: SessionId, at: usize) {
        let Some(request) = self.sessions.get_mut(&session).and_then(|link| link.held.get_mut(at)) else { return };
        if !matches!(&request.command, Command::Ack(ack) if ack.transaction.is_none()) {
            return;
        }
        let command = std::mem::replace(&mut request.command, Command::Confirm);
        if let Err(NotDone::Refused(refusal)) = self.core.apply(now, session, command, &mut self.effects) {
            request.command = Command::Refuse(refusal);
        }
        self.take_frame(now, session, Answer::Nothing);
    }
}

fn too_long(why: &str) -> Command {
    Command::Refuse(Refusal::new(
        why,
        format!("The message waited {} s and was not taken; consume from it, or send again later.", HELD_MAX.as_secs()),
    ))
}
