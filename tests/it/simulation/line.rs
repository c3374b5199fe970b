//! What an election asks of the simulated database.

use std::time::Duration;

use batonmq::{
    election::{
        HolderId, Lease, LockError, Survey,
        database::{BatonRow, Namesake, Purpose},
        line::{Election, LeaseRow, Line},
    },
    types::{BootClock, Tenure, Term},
};

use super::database::{Connection, Database, Gone, Mode, Progress, Server, SessionNo};

/// One process's part in the election.
#[derive(Clone)]
pub(super) struct SimulatedElection {
    pub(super) database: Database,
    pub(super) process: usize,
    pub(super) lease: Lease,
    pub(super) clock: BootClock,
}

impl SimulatedElection {
    fn lease_millis(&self) -> u64 {
        self.lease.length().as_millis() as u64
    }
}

impl Election for SimulatedElection {
    type Line = SimulatedLine;

    async fn connect(&self, _: Purpose) -> Result<SimulatedLine, LockError> {
        let connection = self.database.connect(self.process, None).await.map_err(failed)?;
        Ok(SimulatedLine { election: self.clone(), connection })
    }

    fn lease(&self) -> Lease {
        self.lease
    }

    fn what(&self) -> String {
        "the simulated baton".into()
    }

    fn boot_clock(&self) -> BootClock {
        self.clock.clone()
    }
}

pub(super) struct SimulatedLine {
    election: SimulatedElection,
    connection: Connection,
}

fn failed(gone: Gone) -> LockError {
    LockError::Database { action: "a statement", source: gone.into() }
}

impl SimulatedLine {
    /// A statement that neither waits nor takes more than one step.
    async fn at_once<T: Send + 'static>(
        &self,
        mut run: impl FnMut(&mut Server, SessionNo) -> T + Send + 'static,
    ) -> Result<T, LockError> {
        self.connection.ask(move |server, me| Progress::Done(run(server, me))).await.map_err(failed)
    }
}

impl Line for SimulatedLine {
    async fn closed(&self) {
        self.connection.over().await;
    }

    fn is_closed(&self) -> bool {
        self.connection.is_over()
    }

    async fn look(&self) -> Result<Option<BatonRow>, LockError> {
        self.at_once(|server, _| {
            Some(BatonRow {
                tenure: server.tenure(),
                holder: server.baton.holder.clone(),
                released: server.baton.released,
                history: server.history(),
            })
        })
        .await
    }

    async fn migrate(&self) -> Result<(), LockError> {
        Ok(())
    }

    async fn is_migrating(&self) -> Result<bool, LockError> {
        Ok(false)
    }

    async fn prepare_to_hold(&mut self) -> Result<(), LockError> {
        let lease = self.election.lease_millis();
        self.at_once(move |server, me| server.set_idle_max(me, lease)).await
    }

    async fn lock(&self, patience: Duration) -> Result<bool, LockError> {
        let patience = patience.as_millis() as u64;
        let mut until = None;
        let lock = move |server: &mut Server, me| {
            let until = *until.get_or_insert(server.now + patience);
            match server.try_lock(me) {
                true => Progress::Done(true),
                false if server.now >= until => Progress::Done(false),
                false => Progress::Waits,
            }
        };
        self.connection.ask(lock).await.map_err(failed)
    }

    async fn unlock(&self) -> Result<(), LockError> {
        self.at_once(|server, me| server.unlock(me)).await
    }

    async fn end_own_lock(&self, me: &HolderId) -> Result<(), LockError> {
        let holder = me.clone();
        self.at_once(move |server, me| {
            let is_mine = server.baton.holder.as_ref() == Some(&holder);
            let session = server.baton.lock_session.filter(|session| is_mine && *session != me);
            session.into_iter().for_each(|session| server.end_session(session));
        })
        .await
    }

    async fn end_sessions(&self, within: Option<Term>) -> Result<usize, LockError> {
        let line = self.election.connect(Purpose::Lock).await?;
        line.at_once(move |server, _| {
            if within.is_some_and(|within| server.tenure().term > within) {
                return 0;
            }
            let named = [server.baton.lock_session, server.baton.writer_session];
            named.into_iter().flatten().map(|session| server.end_session(session)).count()
        })
        .await
    }

    async fn look_at_lease(&self) -> Result<Option<LeaseRow>, LockError> {
        self.at_once(|server, _| Some(LeaseRow { is_over: server.lease.until < server.now, beat: server.lease.beat }))
            .await
    }

    async fn renew_lease(&self, tenure: Tenure) -> Result<bool, LockError> {
        let lease = self.election.lease_millis();
        let renew = move |server: &mut Server, me| {
            if !server.try_lock_lease(me) {
                return Progress::Waits;
            }
            server.unlock_lease(me);
            let is_mine = server.lease.token == tenure.token;
            if is_mine {
                server.extend_lease(lease);
            }
            Progress::Done(is_mine)
        };
        self.connection.ask(renew).await.map_err(failed)
    }

    async fn begin(&self) -> Result<(), LockError> {
        self.at_once(|server, me| server.begin(me)).await
    }

    async fn commit(&self) -> Result<(), LockError> {
        self.connection.ask(|server, me| server.try_commit(me)).await.map_err(failed)
    }

    async fn rollback(&self) -> Result<(), LockError> {
        self.at_once(|server, me| server.end_transaction(me)).await
    }

    async fn hold_row(&self) -> Result<(), LockError> {
        let hold = |server: &mut Server, me| match server.try_lock_row(me, Mode::Exclusive) {
            true => Progress::Done(()),
            false => Progress::Waits,
        };
        self.connection.ask(hold).await.map_err(failed)
    }

    async fn take_lease(&self, unchanged: Option<i64>) -> Result<bool, LockError> {
        let lease = self.election.lease_millis();
        let take = move |server: &mut Server, me| {
            if !server.try_lock_lease(me) {
                return Progress::Waits;
            }
            let is_free = server.lease.until < server.now || unchanged == Some(server.lease.beat);
            if is_free {
                server.write(me, move |server| server.extend_lease(lease));
            }
            Progress::Done(is_free)
        };
        self.connection.ask(take).await.map_err(failed)
    }

    async fn end_lease(&self, tenure: Tenure) -> Result<(), LockError> {
        self.at_once(move |server, me| {
            server.write(me, move |server| {
                if server.lease.token == tenure.token {
                    server.lease.until = 0;
                    server.lease.beat += 1;
                }
            });
        })
        .await
    }

    async fn raise(&self, me: &HolderId, seen: Tenure) -> Result<Tenure, LockError> {
        let holder = me.clone();
        self.at_once(move |server, me| {
            let (tenure, holder) = (server.next_tenure(seen), holder.clone());
            server.write(me, move |server| server.take_over(holder, tenure, me));
            tenure
        })
        .await
    }

    async fn hold(&self, me: &HolderId) -> Result<bool, LockError> {
        let holder = me.clone();
        self.at_once(move |server, me| {
            let is_mine = server.baton.holder.as_ref() == Some(&holder);
            if is_mine {
                server.write(me, move |server| server.baton.lock_session = Some(me));
            }
            is_mine
        })
        .await
    }

    async fn release(&self, me: &HolderId, _: &str) -> Result<(), LockError> {
        let holder = me.clone();
        let release = move |server: &mut Server, me| {
            if !server.try_lock_row(me, Mode::Exclusive) {
                return Progress::Waits;
            }
            if server.baton.holder.as_ref() == Some(&holder) {
                server.write(me, |server| {
                    server.baton.released = true;
                    (server.baton.lock_session, server.baton.writer_session) = (None, None);
                });
            }
            Progress::Done(())
        };
        self.connection.ask(release).await.map_err(failed)
    }

    async fn sign(&self, _: &HolderId, _: &str, _: &str) -> Result<Vec<Namesake>, LockError> {
        Ok(Vec::new())
    }

    async fn leave(&self, _: &HolderId) -> Result<(), LockError> {
        Ok(())
    }

    async fn survey(&self) -> Result<Option<Survey>, LockError> {
        Ok(None)
    }
}
