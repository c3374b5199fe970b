//! The paused engine (R24): while it is in doubt whether this broker still is the master, nothing is applied, handed out
//! or answered. Sessions fill their budgets and stop reading; heart-beats are theirs and go on.
//!
//! When the baton is proven again, the token is raised and the batch in doubt is settled first (R11, R18); then everything
//! goes on where it stood. Whoever waited for something with a limit has the pause on top of it.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    task::{Engine, EngineError},
    writer::StoreReply,
};
use crate::types::{Footing, Timestamp};

impl Engine {
    /// Waits until the baton is proven and nothing written is in doubt, or until a stop is asked for.
    ///
    /// # Errors
    /// The term is over.
    pub(super) async fn sit_out_doubt(&mut self) -> Result<(), EngineError> {
        let stop = self.stop.clone();
        tracing::warn!(
            "it is in doubt whether this broker holds the baton: nothing is delivered or confirmed meanwhile"
        );
        let sitting_out = async {
            // What the store answers meanwhile may have been asked before the doubt, and is taken in after it.
            let mut reply = None;
            loop {
                self.wait_for_proof(&mut reply).await?;
                if self.settle_doubt(&mut reply).await? {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            biased;
            done = sitting_out => done,
            () = stop.cancelled() => Ok(()),
        }
    }

    async fn wait_for_proof(&mut self, reply: &mut Option<StoreReply>) -> Result<(), EngineError> {
        let since = self.clock.now();
        loop {
            match self.mandate.footing() {
                Footing::Firm => break,
                Footing::Lost(why) => return Err(EngineError::TermOver(why.to_string())),
                Footing::Doubtful => {}
            }
            tokio::select! {
                biased;
                () = self.mandate.changed() => {}
                answered = self.replies.recv(), if reply.is_none() => *reply = Some(answered.ok_or_else(store_ended)?),
            }
        }
        self.doubts = self.mandate.doubts();
        let now = self.clock.now();
        let paused = now.since(since);
        tracing::info!(?paused, "the baton is proven; going on");
        self.resume(now, paused);
        Ok(())
    }

    /// Raises, and repeats what is in doubt, before anything is applied or handed out. `false`: there is a new doubt.
    async fn settle_doubt(&mut self, reply: &mut Option<StoreReply>) -> Result<bool, EngineError> {
        loop {
            let now = self.clock.now();
            if let Some(reply) = reply.take() {
                self.store_answered(now, reply)?;
            }
            if !self.writer.settles_doubt() {
                return Ok(true);
            }
            self.ask_the_store(now);
            let again = self.writer.next_deadline().map(|at| self.clock.instant_of(at));
            tokio::select! {
                biased;
                () = self.mandate.changed() => return Ok(false),
                answered = self.replies.recv() => *reply = Some(answered.ok_or_else(store_ended)?),
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
        }
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

fn store_ended() -> EngineError {
    EngineError::TermOver("the store's task has ended".into())
}
