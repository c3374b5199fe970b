//! The session that writes: proves the baton, raises it, commits batches.
//!
//! Always true: every transaction begins with the fence, which holds the row of the baton to the end; after any error
//! it is rolled back (R15).

use std::{pin::pin, sync::Arc};

use mysql_async::{Error, Params, prelude::Queryable as _};
use serde::Serialize;
use tokio::time::timeout;

use super::{
    Store, StoreError,
    errors::{failed, not_committed, not_written},
    rows::{MessageValues, Statements, json},
};
use crate::{
    db::mysql::{Session, cause},
    persistence::{
        CommitError,
        sql::{
            BATON_ATTEMPTS, BATON_PATIENCE, Baton, CatalogChange, PURGE_ROWS, Text, WritingSession, big,
            holder_columns, number,
        },
    },
    types::{Batch, DestinationId, DurableId, FencingToken, Holder, Sequence, Tenure, Term},
};

/// Messages in one request take so much at most, unless it is a single one: a quarter of what the least server takes.
/// The driver has a pool of 128 buffers for the process, takes them in turn, and each keeps up to 4 MiB of what it once
/// held: requests of megabytes would cost half a gigabyte in the end.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// A list has so many entries at most.
const LIST_MAX: usize = 2_000;

/// A session that writes for a term.
pub(super) struct Writer {
    store: Arc<Store>,
    session: Session,
    /// The name of a lock that this session holds, and no other ever will: so it is known again (R19).
    mark: String,
    /// Within a transaction that holds the row of the baton.
    held: Option<HeldBaton>,
}

/// What the row of the baton says while it is held.
struct HeldBaton {
    baton: Baton,
    /// The number of the last transaction that wrote.
    batch: i64,
    /// Of the session that raised it last.
    mark: Option<String>,
}

/// The row of the baton.
type BatonRow = (u32, i64, i64, Option<String>, i64, i64);

/// A raise that was asked for and whose answer was lost: the row may say that, and it is ours (R11).
#[derive(Clone, Debug)]
pub(super) struct Asked {
    tenure: Tenure,
    mark: String,
}

impl Writer {
    /// A session whose statements are prepared, and which can be known again. The tables are there.
    pub(super) async fn prepare(store: Arc<Store>, mut session: Session) -> Result<Self, StoreError> {
        let prepared = store.texts.prepare(&mut session, &store.inserts).await;
        prepared.map_err(|(name, error)| failed(&store.group, name, error))?;
        let mark = session.query_first("SELECT CONCAT('batonmq writer ', UUID())").await;
        let mark: String = mark.map_err(|error| failed(&store.group, "writer", error))?.unwrap_or_default();
        let locked = session.exec_drop("SELECT GET_LOCK(?, 0)", (&mark,)).await;
        locked.map_err(|error| failed(&store.group, "writer", error))?;
        Ok(Self { store, session, mark, held: None })
    }

    /// The same on a new connection.
    pub(super) async fn open(store: Arc<Store>) -> Result<Self, StoreError> {
        let session = store.mysql.connect("writer").await?;
        Self::prepare(store, session).await
    }

    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Holds the row of the baton, as [`Self::hold_baton`] does, and takes what it says for the beginning of the term.
    /// The row names this session before it is held for long, so that a take-over can end it (R19).
    pub(super) async fn recover_baton(&mut self) -> Result<Baton, StoreError> {
        self.hold_baton(None).await?;
        let Self { store, session, .. } = self;
        let text = &store.texts.name_writer;
        let failed = |error| failed(&store.group, text.name, error);
        session.exec_drop(text.sql.as_str(), (&self.mark,)).await.map_err(failed)?;
        session.query_drop("COMMIT").await.map_err(failed)?;
        let baton = self.hold_baton(None).await?;
        if let Some(held) = &self.held {
            self.store.history.begin(held.batch);
        }
        Ok(baton)
    }

    /// Holds the row of the baton until [`WritingSession::raise`]: what was being written is durable then or never will
    /// be, and nothing follows. After a patience it ends the session that the row names as its writer, and nobody
    /// else's (R19). After an error the session is no good any more: it may still wait.
    async fn hold_baton(&mut self, within: Option<Term>) -> Result<Baton, StoreError> {
        let Self { store, session, .. } = self;
        let text = &store.texts.hold_baton;
        let failed = |error| failed(&store.group, text.name, error);
        session.query_drop("START TRANSACTION").await.map_err(failed)?;
        let own = i64::from(session.id());
        let mut waiting = pin!(session.query_first::<BatonRow, _>(text.sql.as_str()));
        for _ in 0..BATON_ATTEMPTS {
            if let Ok(answered) = timeout(BATON_PATIENCE, &mut waiting).await {
                let row = answered.map_err(failed)?;
                let held = row.map(HeldBaton::of).ok_or_else(|| doubtful(text.name, "the baton lost its row"))?;
                let baton = held.baton;
                self.held = Some(held);
                return Ok(baton);
            }
            store.end_last_writer(own, within).await?;
        }
        let who = "a session that is not a broker's holds the row of the baton: see information_schema.innodb_trx, and \
                   kill it";
        Err(doubtful(text.name, who))
    }

    /// Nobody took over, or we did ourselves and did not hear of it; and this is the database that we know.
    fn may_raise(&self, held: &HeldBaton, to: Tenure, base: Term, asked: &[Asked]) -> bool {
        let is = held.baton.tenure;
        // Only an earlier raise to the same term left a doubt about whose it is.
        let is_asked = |asked: &Asked| asked.tenure == is && Some(&asked.mark) == held.mark.as_ref();
        let is_ours = is.term == base || (is.term == to.term && asked.iter().any(is_asked));
        if is_ours && !self.store.history.has(held.batch) {
            tracing::warn!("the database is not the one that was written to: an older copy was restored (R21)");
            return false;
        }
        is_ours && is.term <= to.term && is.token < to.token
    }

    /// Writes what a transaction is for, behind the fence, and commits.
    async fn write(&mut self, token: FencingToken, statements: &Statements<'_>) -> Result<(), CommitError> {
        let batch = self.store.history.ask();
        if let Err(error) = self.write_behind_fence(token, batch, statements).await {
            return Err(self.roll_back(error).await);
        }
        if let Err(error) = self.session.query_drop("COMMIT").await {
            return Err(self.roll_back(not_committed(error)).await);
        }
        self.store.history.confirm(batch);
        Ok(())
    }

    /// What is certain is certain only after this (R15).
    async fn roll_back(&mut self, error: CommitError) -> CommitError {
        if matches!(error, CommitError::Unknown { .. }) {
            return error; // the session is dropped, which rolls back too
        }
        match self.session.query_drop("ROLLBACK").await {
            Ok(()) => error,
            Err(lost) => CommitError::Unknown { source: cause(lost) },
        }
    }

    async fn write_behind_fence(
        &mut self,
        token: FencingToken,
        batch: i64,
        statements: &Statements<'_>,
    ) -> Result<(), CommitError> {
        let store = Arc::clone(&self.store);
        let texts = &store.texts;
        let begun = self.session.query_drop("START TRANSACTION").await;
        begun.map_err(|error| not_written(&store.group, "begin", error))?;
        let (destination, durable) = CatalogChange::highest_ids(&statements.catalog);
        self.run(&texts.fence, (batch, big(destination.0), big(durable.0), big(token.0))).await?;
        if self.session.affected_rows() != 1 {
            return Err(CommitError::Deposed);
        }
        for change in &statements.catalog {
            self.change_catalog(*change).await?;
        }
        if let Some((holder, upto)) = statements.done {
            let (kind, id) = holder_columns(holder);
            self.run(&texts.purge_is_done, (kind, id, big(upto.as_u64()))).await?;
        }
        self.run_list(&texts.settle_queues, &statements.settle_queues).await?;
        self.run_list(&texts.settle_durables, &statements.settle_durables).await?;
        self.run_list(&texts.orphans, &statements.settle_durables).await?;
        self.run_list(&texts.came_back, &statements.came_back).await?;
        self.run_list(&texts.hold, &statements.hold).await?;
        self.insert(&statements.messages).await?;
        self.run_list(&texts.mark, &statements.marks).await
    }

    async fn run(&mut self, text: &Text, with: impl Into<Params>) -> Result<(), CommitError> {
        let ran = self.session.exec_drop(text.sql.as_str(), with.into()).await;
        ran.map_err(|error| not_written(&self.store.group, text.name, error))
    }

    async fn run_list<T: Serialize>(&mut self, text: &Text, list: &[T]) -> Result<(), CommitError> {
        for part in list.chunks(LIST_MAX) {
            self.run(text, (json(part),)).await?;
        }
        Ok(())
    }

    async fn insert(&mut self, mut messages: &[MessageValues<'_>]) -> Result<(), CommitError> {
        let store = Arc::clone(&self.store);
        while !messages.is_empty() {
            let (rows, text) = store.inserts.of(fitting(messages));
            let (now, later) = messages.split_at(rows);
            self.run(text, Params::Positional(now.iter().flat_map(MessageValues::values).collect())).await?;
            messages = later;
        }
        Ok(())
    }

    async fn change_catalog(&mut self, change: CatalogChange<'_>) -> Result<(), CommitError> {
        let store = Arc::clone(&self.store);
        let texts = &store.texts;
        match change {
            CatalogChange::CreateDestination(id, destination) => {
                let (kind, name) = (destination.kind().scheme(), destination.name());
                self.run(&texts.create_destination, (big(id.0), kind, name)).await
            }
            CatalogChange::CreateDurable(id, durable) => {
                let (client, name) = (durable.client_id.as_str(), durable.name.as_str());
                self.run(&texts.create_durable, (big(id.0), client, name, big(durable.topic.0))).await
            }
            CatalogChange::DeleteDurable(id) => {
                self.purge(Holder::Durable(id), Sequence::MAX).await?;
                self.run(&texts.delete_durable, (big(id.0),)).await
            }
            CatalogChange::Purge(holder, upto) => self.purge(holder, upto).await,
        }
    }

    async fn purge(&mut self, holder: Holder, upto: Sequence) -> Result<(), CommitError> {
        let store = Arc::clone(&self.store);
        let (kind, id) = holder_columns(holder);
        self.run(&store.texts.purge, (kind, id, big(upto.as_u64()))).await
    }

    /// On a cluster the raise has seen all that was committed on other nodes, and whatever follows there fails when it
    /// commits: from here on this node has all that a batch has to see, and need not ask the others at each BEGIN.
    async fn wait_for_no_other_node(&mut self) -> Result<(), Error> {
        if self.session.server().is_clustered() {
            self.session.query_drop("SET SESSION wsrep_sync_wait = 0").await?;
        }
        Ok(())
    }

    fn failed(&self, text: &Text, error: Error) -> StoreError {
        failed(&self.store.group, text.name, error)
    }
}

impl HeldBaton {
    fn of((term, token, batch, mark, destination, durable): BatonRow) -> Self {
        let baton = Baton {
            tenure: Tenure { term: Term(term), token: FencingToken(number(token)) },
            last_destination: DestinationId(number(destination)),
            last_durable: DurableId(number(durable)),
        };
        Self { baton, batch, mark }
    }
}

/// See [`WritingSession`]; dropping one ends the session.
impl WritingSession for Writer {
    type Asked = Asked;

    fn asking(&self, tenure: Tenure) -> Asked {
        Asked { tenure, mark: self.mark.clone() }
    }

    async fn raise(&mut self, to: Tenure, base: Term, asked: &[Asked]) -> Result<bool, StoreError> {
        if self.held.is_none() {
            self.hold_baton(Some(base)).await?;
        }
        let Some(held) = self.held.take() else { return Ok(false) };
        let store = Arc::clone(&self.store);
        let text = &store.texts.raise;
        if !self.may_raise(&held, to, base, asked) {
            self.session.query_drop("ROLLBACK").await.map_err(|error| self.failed(text, error))?;
            return Ok(false);
        }
        let batch = store.history.ask();
        let with = (to.term.0, big(to.token.0), batch, self.mark.as_str());
        self.session.exec_drop(text.sql.as_str(), with).await.map_err(|error| self.failed(text, error))?;
        self.session.query_drop("COMMIT").await.map_err(|error| self.failed(text, error))?;
        store.history.confirm(batch);
        self.wait_for_no_other_node().await.map_err(|error| self.failed(text, error))?;
        Ok(true)
    }

    async fn commit(
        &mut self,
        token: FencingToken,
        batch: &Batch,
        settles: &[(Sequence, Holder)],
    ) -> Result<(), CommitError> {
        let packet_bytes_max = self.session.server().packet_bytes_max();
        let statements = Statements::of(batch, packet_bytes_max);
        let mut statements = statements.map_err(|error| CommitError::Refused { source: error.into() })?;
        settles.iter().for_each(|(sequence, holder)| statements.settle(*sequence, *holder));
        self.write(token, &statements).await
    }

    async fn rest_of(&mut self, holder: Holder, upto: Sequence) -> Result<Vec<(Sequence, Holder)>, CommitError> {
        let (_, id) = holder_columns(holder);
        let text = match holder {
            Holder::Queue(_) => &self.store.texts.purged_of_queue,
            Holder::Durable(_) => &self.store.texts.purged_of_durable,
        };
        let rows = self.session.exec(text.sql.as_str(), (id, big(upto.as_u64()), PURGE_ROWS)).await;
        let rows: Vec<i64> = rows.map_err(|error| not_written(&self.store.group, text.name, error))?;
        Ok(rows.into_iter().map(|sequence| (Sequence::from_u64(number(sequence)), holder)).collect())
    }

    async fn purge_is_done(&mut self, token: FencingToken, holder: Holder, upto: Sequence) -> Result<(), CommitError> {
        self.write(token, &Statements::of_done_purge(holder, upto)).await
    }
}

/// How many of the first messages, one at least, fit in a request.
fn fitting(messages: &[MessageValues<'_>]) -> usize {
    let sums = messages.iter().scan(0_usize, |sum, message| {
        *sum = sum.saturating_add(message.bytes);
        Some(*sum)
    });
    sums.take_while(|&bytes| bytes <= REQUEST_BYTES_MAX).count().max(1)
}

fn doubtful(action: &'static str, what: &str) -> StoreError {
    StoreError::Database { action, source: what.into() }
}
