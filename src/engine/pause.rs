//! The paused engine (R24): while it is in doubt whether this broker still is the master, nothing is applied, handed out
//! or answered. Sessions fill their budgets and stop reading; heart-beats are theirs and go on.
//!
//! When the baton is proven again, the token is raised before anything is written (R11, R18), and everything goes on
//! where it stood. Whoever waited for something with a limit has the pause on top of it.

use std::{collections::BTreeSet, time::Duration};

use super::{
    task::{Engine, EngineError},
    writer::StoreReply,
};
use crate::types::{Footing, Timestamp};

impl Engine {
    /// Waits until the baton is proven, or lost. What the store answered meanwhile, to be taken in then; it may have
    /// been asked before the doubt. `None` as well: a stop was asked for.
    ///
    /// # Errors
    /// The term is over.
    pub(super) async fn sit_out_doubt(&mut self) -> Result<Option<StoreReply>, EngineError> {
        let since = self.clock.now();
        let stop = self.stop.clone();
        let mut reply = None;
        tracing::warn!(
            "it is in doubt whether this broker holds the baton: nothing is delivered or confirmed meanwhile"
        );
        loop {
            match self.mandate.footing() {
                Footing::Firm => break,
                Footing::Lost(why) => return Err(EngineError::TermOver(why.to_string())),
                Footing::Doubtful => {}
            }
            tokio::select! {
                biased;
                () = self.mandate.changed() => {}
                answered = self.replies.recv(), if reply.is_none() => match answered {
                    Some(answered) => reply = Some(answered),
                    None => return Err(EngineError::TermOver("the store's task has ended".into())),
                },
                () = stop.cancelled() => return Ok(None),
            }
        }
        self.doubts = self.mandate.doubts();
        let now = self.clock.now();
        let paused = now.since(since);
        tracing::info!(?paused, "the baton is proven; going on");
        self.resume(now, paused);
        Ok(reply)
    }

    fn resume(&mut self, now: Timestamp, paused: Duration) {
        self.writer.resume(now);
        self.core.paused(paused);
        for link in self.sessions.values_mut() {
            if let Some((_, since)) = &mut link.hold {
                *since = since.after(paused);
            }
        }
        let errors = std::mem::take(&mut self.errors).into_iter();
        self.errors = errors.map(|(at, session)| (at.after(paused), session)).collect::<BTreeSet<_>>();
    }
}
