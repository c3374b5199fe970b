//! Standby → term → standby …, until the process is asked to stop.
//!
//! Always true: what was given back is asked for again later; a broker that could not open its term lets others try for
//! a while (R22).
//! On failure: where a store refuses what an earlier master writes, a term that is over makes a standby of this broker.
//! Where nothing does (the file lock), it ends the process, and the lock goes with that: a thread may still be writing.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::{
    NodeError, Signals, Standby,
    standing::Standing,
    term::{Ended, Term},
};
use crate::{
    config::Config,
    election::{Baton, LockError, Locker, Sign},
    persistence::{PersistenceAdapter, StoreError},
    server::{Doors, PublishedAddresses},
    tasks::Tasks,
    types::with_causes,
};

/// How long a standby waits at a time before it asks again.
const STANDBY_PATIENCE: Duration = Duration::from_secs(5);

/// A broker that could not open its term lets others try for so long (R22).
const STEP_BACK: Duration = Duration::from_secs(5);

/// How long until somebody who could not be asked is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How long a process that has given the baton back waits for its clients to take their last frames.
const FAREWELLS_PATIENCE: Duration = Duration::from_secs(2);

/// The life of a broker.
pub(super) struct Life<'a, L, O> {
    pub(super) standing: &'a Standing,
    pub(super) config: Arc<Config>,
    pub(super) doors: Doors,
    pub(super) locker: L,
    /// Opens the store for a term.
    pub(super) open_store: O,
    pub(super) standby: Standby,
    /// What the other brokers are told of this process.
    pub(super) sign: watch::Sender<Sign>,
}

impl<L, A, O> Life<'_, L, O>
where
    L: Locker,
    A: PersistenceAdapter,
    O: FnMut() -> Result<A, StoreError>,
{
    /// Lives until it is asked to stop.
    pub(super) async fn live(mut self, signals: &mut Signals) -> Result<(), NodeError> {
        let mut is_asked = Asked::default();
        while let Some(baton) = self.become_master(&mut is_asked, signals).await? {
            let opened = match (self.open_store)() {
                Ok(adapter) => Term::open(adapter, &baton, &self.config, &self.doors, signals, self.standing).await,
                Err(error) => Err(error.into()),
            };
            let ended = match opened {
                Ok(Some(term)) => {
                    self.tell("master", &term.addresses());
                    term.run(signals, self.standing).await
                }
                Ok(None) => return give_back(baton, "it was stopped while it took over").await,
                Err(error) if L::FENCES => {
                    self.step_back(baton, &error).await;
                    match signals.unless(sleep(STEP_BACK)).await {
                        Some(()) => continue,
                        None => break,
                    }
                }
                Err(error) => Err(error),
            };
            match ended {
                Ok(Ended::Stopped(written, farewells)) if L::FENCES || written.is_ok() => {
                    if let Err(why) = written {
                        tracing::warn!("the term was over before all was written: {why}; what was confirmed is safe");
                    }
                    give_back(baton, "it was stopped").await?;
                    tracing::info!(broker = self.config.broker_name, "stopped");
                    wait_for(farewells, signals).await;
                    return Ok(());
                }
                Ok(Ended::Over(why)) if L::FENCES => {
                    tracing::warn!("the term is over: {why}; its clients are gone, and this broker is a standby");
                    give_back(baton, &why).await?;
                    self.stand_by();
                }
                ended => {
                    // Something of it may still write. The lock goes with the process, and not before.
                    std::mem::forget(baton);
                    return Err(failure(ended));
                }
            }
        }
        tracing::info!("stopped; this broker was a standby");
        Ok(())
    }

    /// Takes the baton, or waits for it. `None`: asked to stop meanwhile.
    async fn become_master(&mut self, asked: &mut Asked, signals: &mut Signals) -> Result<Option<Baton>, NodeError> {
        let mut is_told = false;
        loop {
            let patience = if is_told { STANDBY_PATIENCE } else { Duration::ZERO };
            let asking = async {
                tokio::select! {
                    answered = self.locker.acquire(patience) => Ok(answered),
                    task = self.standing.tasks().broken() => Err(NodeError::TaskEnded(task)),
                }
            };
            let Some(answered) = signals.unless(asking).await.transpose()? else { return Ok(None) };
            let wait = match answered {
                Ok(Some(baton)) => {
                    asked.answered();
                    self.standing.starts();
                    self.withdraw_stale_addresses()?;
                    return Ok(Some(baton));
                }
                Ok(None) => {
                    asked.answered();
                    if self.standby == Standby::Exit {
                        return Err(NodeError::Locked(self.locker.what()));
                    }
                    self.stand_by();
                    if !is_told {
                        let what = self.locker.what();
                        tracing::info!("standby: another broker holds {what}; waiting with client ports closed");
                        is_told = true;
                    }
                    continue;
                }
                Err(error) if !L::FENCES || (error.needs_a_human() && asked.is_first()) => return Err(error.into()),
                Err(error) => asked.failed(&error),
            };
            if signals.unless(sleep(wait)).await.is_none() {
                return Ok(None);
            }
        }
    }

    /// R22: others may be able to do what this broker can't.
    async fn step_back(&mut self, baton: Baton, error: &NodeError) {
        let why = with_causes(error);
        let seconds = STEP_BACK.as_secs();
        let fix = error.fix();
        tracing::warn!("this broker has the baton and cannot serve: {why}; {fix}; it steps back for {seconds} s");
        if let Err(error) = baton.release(&format!("it could not serve: {why}")).await {
            tracing::warn!("it is not known whether the baton was given back: {error}");
        }
        self.stand_by();
    }

    fn stand_by(&self) {
        self.standing.stands_by();
        self.tell("standby", &self.doors.configured());
    }

    fn tell(&self, role: &'static str, addresses: &str) {
        self.sign.send_if_modified(|sign| {
            let told = Sign { role, addresses: addresses.to_owned() };
            let is_new = *sign != told;
            *sign = told;
            is_new
        });
    }

    fn withdraw_stale_addresses(&self) -> Result<(), NodeError> {
        let data = &self.config.data;
        PublishedAddresses::withdraw_stale(data).map_err(|source| NodeError::Data {
            action: "remove old addresses from",
            path: data.clone(),
            source,
        })
    }
}

async fn give_back(baton: Baton, why: &str) -> Result<(), NodeError> {
    Ok(baton.release(why).await?)
}

/// The baton is somebody else's already; only the process waits.
async fn wait_for(farewells: Tasks, signals: &mut Signals) {
    if let Some(Err(late)) = signals.unless(farewells.stop(FAREWELLS_PATIENCE)).await {
        tracing::debug!("closing sockets whose peers did not: {late}");
    }
}

/// Of a term that ends the process.
fn failure(ended: Result<Ended, NodeError>) -> NodeError {
    match ended {
        Err(error) => error,
        Ok(Ended::Over(why) | Ended::Stopped(Err(why), _)) => {
            tracing::error!("the term is over: {why}");
            NodeError::TaskEnded("engine")
        }
        Ok(Ended::Stopped(Ok(()), _)) => NodeError::TaskEnded("node"),
    }
}

/// What became of asking for the baton.
#[derive(Default)]
struct Asked {
    /// It was answered once: what fails later may pass.
    was_answered: bool,
    /// The last complaint.
    told: Option<String>,
}

impl Asked {
    fn is_first(&self) -> bool {
        !self.was_answered
    }

    fn answered(&mut self) {
        self.was_answered = true;
        if self.told.take().is_some() {
            tracing::info!("the election goes on");
        }
    }

    /// Complains, once of each trouble; how long until the next attempt.
    fn failed(&mut self, error: &LockError) -> Duration {
        let told = with_causes(error);
        if self.told.as_ref() != Some(&told) {
            tracing::warn!("this broker can't take part in the election: {told}; {}; trying again", error.fix());
            self.told = Some(told);
        }
        match error {
            LockError::Schema(_) | LockError::Stuck => STEP_BACK,
            _ => ASK_AGAIN,
        }
    }
}
