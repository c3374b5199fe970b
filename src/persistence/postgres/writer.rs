//! The session that writes: proves the baton, raises it, commits batches.
//!
//! Always true: whatever is answered here is durable, and was answered without a WARNING (R16). Whoever gets an error
//! that leaves a doubt drops the session; the next one raises the token before anything is repeated (R11).

use std::sync::Arc;

use tokio_postgres::{Error, error::SqlState, types::ToSql};

use super::{
    Known, Store, StoreError,
    columns::{Columns, Statements},
    errors::{failed, not_committed},
    statements::Prepared,
};
use crate::{
    db::postgres::{Session, history},
    persistence::{
        CommitError,
        sql::{
            BATON_ATTEMPTS, BATON_PATIENCE, Baton, CatalogChange, PURGE_ROWS, WritingSession, big, holder_columns,
            number,
        },
    },
    tasks::Tasks,
    types::{Batch, DestinationId, DurableId, FencingToken, History, Holder, Sequence, Tenure, Term},
};

/// A session that writes for a term.
pub(super) struct Writer {
    store: Arc<Store>,
    session: Session,
    prepared: Prepared,
    pid: i32,
    /// Within a transaction that holds the row of the baton: where the database was found, and the number of its next
    /// transaction.
    holds_baton: Option<(History, i64)>,
}

/// A raise that was asked for and whose answer was lost: the row may say that, and it is ours (R11).
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    tenure: Tenure,
    pid: i32,
}

impl Writer {
    /// A session whose statements are prepared. The tables are there.
    pub(super) async fn prepare(store: Arc<Store>, session: Session) -> Result<Self, StoreError> {
        let failed = |(name, error)| failed(&store.group, name, error);
        let prepared = Prepared::on(&session, &store.texts).await.map_err(failed)?;
        let pid = session.query_one_scalar("SELECT pg_backend_pid()", &[]).await;
        let pid = pid.map_err(|error| failed(("writer", error)))?;
        Ok(Self { store, session, prepared, pid, holds_baton: None })
    }

    /// The same on a new connection.
    pub(super) async fn open(store: Arc<Store>, tasks: &Tasks) -> Result<Self, StoreError> {
        let session = store.session("writer", tasks).await?;
        Self::prepare(store, session).await
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Holds the row of the baton, as [`Self::hold_baton`] does, for a recovery. The row names this session before it is
    /// held for long, so that a take-over can end it (R19).
    pub(super) async fn recover_baton(&mut self) -> Result<Baton, StoreError> {
        self.hold_baton(None).await?;
        let text = &self.store.texts.name_writer;
        let failed = |error| self.failed(text.name, error);
        self.session.execute(&text.sql, &[]).await.map_err(failed)?;
        self.session.batch_execute("COMMIT").await.map_err(failed)?;
        self.hold_baton(None).await
    }

    /// Holds the row of the baton until [`Self::raise`]: what was being written is durable then or never will be, and
    /// nothing follows. After a patience it ends the session that the row names as its writer, and nobody else's (R19);
    /// whoever goes on in a term, `within`, not that of a broker that took over.
    async fn hold_baton(&mut self, within: Option<Term>) -> Result<Baton, StoreError> {
        let text = &self.store.texts.hold_baton;
        for _ in 0..BATON_ATTEMPTS {
            let begin = format!("BEGIN; SET LOCAL lock_timeout = {}", BATON_PATIENCE.as_millis());
            self.session.batch_execute(&begin).await.map_err(|error| self.failed(text.name, error))?;
            match self.session.query_opt(&text.sql, &[]).await {
                Ok(Some(row)) => {
                    self.holds_baton = Some((history(&row), row.get("next_transaction")));
                    let term = u32::try_from(row.get::<_, i32>(0)).unwrap_or_default();
                    return Ok(Baton {
                        tenure: Tenure { term: Term(term), token: FencingToken(number(row.get(1))) },
                        last_destination: DestinationId(number(row.get(2))),
                        last_durable: DurableId(number(row.get(3))),
                    });
                }
                Ok(None) => return Err(self.doubtful(text.name, "the table baton lost its row")),
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    self.end_last_writer(within).await?
                }
                Err(error) => return Err(self.failed(text.name, error)),
            }
        }
        let who = "a session that is not a broker's holds the row of the baton: see pg_blocking_pids, and end it";
        Err(self.doubtful(text.name, who))
    }

    async fn end_last_writer(&self, within: Option<Term>) -> Result<(), StoreError> {
        let text = &self.store.texts.end_writer;
        let failed = |error| self.failed(text.name, error);
        self.session.batch_execute("ROLLBACK").await.map_err(failed)?;
        let ended = self.session.query(&text.sql, &[&within.map(integer)]).await.map_err(failed)?;
        tracing::warn!(ended = ended.len(), "the last writer still held the baton; its session was told to end");
        Ok(())
    }

    /// The number of the transaction.
    async fn run_commit(&self, token: i64, columns: &Columns<'_>) -> Result<i64, CommitError> {
        let Known { are_new, any_returned } = self.store.note(columns);
        let (prepared, session) = (&self.prepared, &self.session);
        let answer = if !are_new || !columns.are_of_queues() {
            session.query_opt(&prepared.commit, &columns.parameters(&token)).await
        } else if let Some(one) = columns.parameters_of_one(&token).filter(|_| !any_returned) {
            session.query_opt(&prepared.commit_of_one, &one).await
        } else {
            session.query_opt(&prepared.commit_of_queues, &columns.parameters_of_queues(&token)).await
        };
        let row = answer.map_err(|error| not_committed(&self.store.group, "commit", error))?;
        row.map_or(Err(CommitError::Deposed), |row| Ok(row.get(0)))
    }

    async fn commit_in_transaction(&self, token: i64, statements: &Statements<'_>) -> Result<i64, CommitError> {
        self.run_control("BEGIN").await?;
        let done = self.commit_parts(token, statements).await;
        // Each part was answered without an error, so this COMMIT can't be a ROLLBACK in disguise.
        let end = self.run_control(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await;
        done.and_then(|transaction| end.map(|()| transaction))
    }

    async fn run_control(&self, statement: &'static str) -> Result<(), CommitError> {
        let group = &self.store.group;
        self.session.batch_execute(statement).await.map_err(|error| not_committed(group, statement, error))
    }

    async fn commit_parts(&self, token: i64, statements: &Statements<'_>) -> Result<i64, CommitError> {
        let (destination, durable) = CatalogChange::highest_ids(&statements.catalog);
        let highest: [&(dyn ToSql + Sync); 3] = [&token, &big(destination.0), &big(durable.0)];
        let fence = self.session.execute(&self.prepared.fence, &highest).await;
        let fence = fence.map_err(|error| not_committed(&self.store.group, "fence", error))?;
        if fence == 0 {
            return Err(CommitError::Deposed);
        }
        for change in &statements.catalog {
            self.change_catalog(*change).await?;
        }
        let mut transaction = 0;
        for columns in &statements.columns {
            transaction = self.run_commit(token, columns).await?;
        }
        Ok(transaction)
    }

    async fn change_catalog(&self, change: CatalogChange<'_>) -> Result<(), CommitError> {
        let (session, prepared) = (&self.session, &self.prepared);
        let (name, done) = match change {
            CatalogChange::CreateDestination(id, destination) => {
                let (kind, name) = (destination.kind().scheme(), destination.name());
                let statement = &prepared.create_destination;
                ("create_destination", session.execute(statement, &[&big(id.0), &kind, &name]).await)
            }
            CatalogChange::CreateDurable(id, durable) => {
                let (client, name) = (durable.client_id.as_str(), durable.name.as_str());
                let (id, topic) = (big(id.0), big(durable.topic.0));
                let created = session.execute(&prepared.create_durable, &[&id, &client, &name, &topic]).await;
                ("create_durable", created)
            }
            CatalogChange::DeleteDurable(id) => {
                self.purge(Holder::Durable(id), Sequence::MAX).await?;
                ("delete_durable", session.execute(&prepared.delete_durable, &[&big(id.0)]).await)
            }
            CatalogChange::Purge(holder, upto) => return self.purge(holder, upto).await,
        };
        done.map(drop).map_err(|error| not_committed(&self.store.group, name, error))
    }

    async fn purge(&self, holder: Holder, upto: Sequence) -> Result<(), CommitError> {
        let (kind, id) = holder_columns(holder);
        let purged = self.session.execute(&self.prepared.purge, &[&kind, &id, &big(upto.as_u64())]).await;
        purged.map(drop).map_err(|error| not_committed(&self.store.group, "purge", error))
    }

    /// What the database warned of before says nothing about what is asked for next (R16).
    fn forget_warnings(&self) {
        if let Some(warning) = self.session.take_warning() {
            tracing::warn!("the database warned: {warning}");
        }
    }

    fn failed(&self, statement: &'static str, error: Error) -> StoreError {
        failed(&self.store.group, statement, error)
    }

    fn doubtful(&self, action: &'static str, what: &str) -> StoreError {
        StoreError::Database { action, source: what.into() }
    }
}

/// See [`WritingSession`]; dropping one ends the session.
impl WritingSession for Writer {
    type Asked = Asked;

    fn asking(&self, tenure: Tenure) -> Asked {
        Asked { tenure, pid: self.pid }
    }

    async fn raise(&mut self, to: Tenure, base: Term, asked: &[Asked]) -> Result<bool, StoreError> {
        if self.holds_baton.is_none() {
            self.hold_baton(Some(base)).await?;
        }
        if let Some(why) = self.holds_baton.take().and_then(|(now, next)| self.store.departs(now, next)) {
            tracing::warn!("{why}; what is in memory is not trusted any more (R21)");
            self.session.batch_execute("ROLLBACK").await.map_err(|error| self.failed("rollback", error))?;
            return Ok(false);
        }
        let text = &self.store.texts.raise;
        // Only an earlier raise to the same term left a doubt about whose it is.
        let asked = asked.iter().filter(|asked| asked.tenure.term == to.term);
        let (tokens, pids): (Vec<_>, Vec<_>) = asked.map(|asked| (big(asked.tenure.token.0), asked.pid)).unzip();
        let (token, to, base) = (big(to.token.0), integer(to.term), integer(base));
        let parameters: [&(dyn ToSql + Sync); 5] = [&to, &token, &base, &tokens, &pids];
        self.forget_warnings();
        let raised =
            self.session.execute(&text.sql, &parameters).await.map_err(|error| self.failed(text.name, error))?;
        self.session.batch_execute("COMMIT").await.map_err(|error| self.failed(text.name, error))?;
        match self.session.take_warning() {
            Some(warning) if raised > 0 => Err(self.doubtful(text.name, &warning)),
            _ => Ok(raised > 0),
        }
    }

    /// One round trip, but for what is large or changes the catalog.
    async fn commit(
        &mut self,
        token: FencingToken,
        batch: &Batch,
        settles: &[(Sequence, Holder)],
    ) -> Result<(), CommitError> {
        let mut statements = Statements::of(batch).map_err(|error| CommitError::Refused { source: error.into() })?;
        statements.settle_too(settles);
        let token = big(token.0);
        self.forget_warnings();
        let written = match &*statements.columns {
            [columns] if statements.catalog.is_empty() => self.run_commit(token, columns).await,
            _ => self.commit_in_transaction(token, &statements).await,
        };
        self.store.seen().wants_room |= matches!(written, Err(CommitError::Full));
        let transaction = written?;
        if let Some(warning) = self.session.take_warning() {
            return Err(CommitError::Unknown { source: warning.into() });
        }
        self.store.confirmed(transaction, statements.settled());
        Ok(())
    }

    async fn rest_of(&mut self, holder: Holder, upto: Sequence) -> Result<Vec<(Sequence, Holder)>, CommitError> {
        let (_, id) = holder_columns(holder);
        let statement = match holder {
            Holder::Queue(_) => &self.prepared.purged_of_queue,
            Holder::Durable(_) => &self.prepared.purged_of_durable,
        };
        let rows = self.session.query(statement, &[&id, &big(upto.as_u64()), &PURGE_ROWS]).await;
        let rows = rows.map_err(|error| not_committed(&self.store.group, "purged", error))?;
        Ok(rows.iter().map(|row| (Sequence::from_u64(number(row.get(0))), holder)).collect())
    }

    async fn purge_is_done(&mut self, token: FencingToken, holder: Holder, upto: Sequence) -> Result<(), CommitError> {
        let (kind, id) = holder_columns(holder);
        let parameters: [&(dyn ToSql + Sync); 4] = [&big(token.0), &kind, &id, &big(upto.as_u64())];
        let done = self.session.execute(&self.prepared.purge_is_done, &parameters).await;
        done.map(drop).map_err(|error| not_committed(&self.store.group, "purge_is_done", error))
    }
}

fn integer(term: Term) -> i32 {
    i32::try_from(term.0).unwrap_or(i32::MAX)
}
