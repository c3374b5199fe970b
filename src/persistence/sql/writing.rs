//! The writing side of a store: one session, the token that it proves, and what is in doubt; the same everywhere.
//!
//! Always true: one batch is under way at a time (R12); whoever gets an error that leaves a doubt has no session any
//! more, and the next one raises the token before anything is repeated (R11).

use std::{future::Future, pin::pin, time::Duration};

use tokio::time::{error::Elapsed, timeout};

use super::Purges;
use crate::{
    persistence::{CommitError, StoreError},
    types::{Batch, FencingToken, Holder, Op, Sequence, Tenure, Term},
};

/// How long the database may take to answer; then the connection counts as lost.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Who waits longer for an answer is told so.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// How many rows of a purge go along with one batch (R29).
pub(in crate::persistence) const PURGE_ROWS: i64 = 500;

/// A session that writes for a term.
pub(in crate::persistence) trait WritingSession: Sized + Send {
    /// A raise that was asked for and whose answer was lost: the row may say that, and it is ours (R11).
    type Asked: Send + Sync;

    /// What a raise asks for.
    fn asking(&self, to: Tenure) -> Self::Asked;

    /// Raises the baton from the term `base`, or from what one of `asked` wrote, durably. `false`: somebody else took
    /// over.
    fn raise(
        &mut self,
        to: Tenure,
        base: Term,
        asked: &[Self::Asked],
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// All of a batch, and these settles too; or nothing.
    fn commit(
        &mut self,
        token: FencingToken,
        batch: &Batch,
        settles: &[(Sequence, Holder)],
    ) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// The next rows of a purge.
    fn rest_of(
        &mut self,
        holder: Holder,
        upto: Sequence,
    ) -> impl Future<Output = Result<Vec<(Sequence, Holder)>, CommitError>> + Send;

    /// Notes that no row of a purge is left.
    fn purge_is_done(
        &mut self,
        token: FencingToken,
        holder: Holder,
        upto: Sequence,
    ) -> impl Future<Output = Result<(), CommitError>> + Send;
}

/// What an adapter knows of its own term.
pub(in crate::persistence) struct Writing<S: WritingSession> {
    /// `None`: the last one left a doubt, or there was none yet.
    session: Option<S>,
    /// The term that the row had when this adapter proved it last; while it has it, nobody took over (R17).
    base: Option<Term>,
    /// Of the last raise; nothing may be committed before.
    token: Option<FencingToken>,
    /// The raises of which it is not known what became of them (R11).
    asked: Vec<S::Asked>,
    purges: Purges,
}

impl<S: WritingSession> Writing<S> {
    pub(in crate::persistence) fn new(purges: Purges) -> Self {
        Self { session: None, base: None, token: None, asked: Vec::new(), purges }
    }

    /// After a recovery, whose session holds the row of the baton.
    pub(in crate::persistence) fn begin(&mut self, session: S, base: Term) {
        (self.session, self.base) = (Some(session), Some(base));
    }

    /// Raises the baton on a fresh session, which `open` brings; the first time on that of the recovery. The last one may
    /// be silent without having said so.
    pub(in crate::persistence) async fn raise(
        &mut self,
        to: Tenure,
        open: impl Future<Output = Result<S, StoreError>> + Send,
    ) -> Result<(), StoreError> {
        let Some(base) = self.base else {
            return Err(StoreError::Deposed); // nobody raises what was not recovered
        };
        let mut session = match self.session.take() {
            Some(session) if self.token.is_none() => session,
            None if self.token.is_none() => return Err(StoreError::Closed), // the row was let go between
            _ => answered("open a session that writes", open).await?,
        };
        self.asked.push(session.asking(to));
        let raised = answered("raise the token", session.raise(to, base, &self.asked)).await?;
        // Answered, so there is no doubt, and the session is good.
        self.session = Some(session);
        self.asked.clear();
        if !raised {
            return Err(StoreError::Deposed);
        }
        (self.base, self.token) = (Some(to.term), Some(to.token));
        Ok(())
    }

    pub(in crate::persistence) async fn try_commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let Some(token) = self.token else { return Err(CommitError::Deposed) };
        let Some(mut session) = self.session.take() else {
            return Err(CommitError::Unknown { source: "the connection was lost before".into() });
        };
        let written = in_time("write a batch", write(&mut session, token, batch, &self.purges)).await;
        let written = written.unwrap_or_else(|Late(_, late)| Err(CommitError::Unknown { source: late.into() }));
        match &written {
            Ok(()) => self.note(batch),
            Err(CommitError::Unknown { .. }) => return written, // R11: a new session raises the token first
            Err(_) => {}
        }
        self.session = Some(session);
        written
    }

    /// What reads have to know of a batch that is durable.
    fn note(&self, batch: &Batch) {
        for op in &batch.ops {
            match op {
                Op::DeleteDurable { id } => self.purges.add(Holder::Durable(*id), Sequence::MAX),
                Op::Purge { holder, upto } => self.purges.add(*holder, *upto),
                _ => {}
            }
        }
    }

    /// Ends the session.
    pub(in crate::persistence) fn end(&mut self) {
        self.session = None;
    }
}

/// The same for what fails as a store does: one step of a recovery, or a raise. A recovery as a whole has no limit, because
/// it may read much: but each of its steps is answered, or the baton is given back.
pub(in crate::persistence) async fn answered<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |Late(action, late)| Err(StoreError::Database { action, source: late.into() });
    in_time(what, answer).await.unwrap_or_else(late)
}

/// What is answered in time. Whoever waits in vain drops the session: what was asked may still be done.
async fn in_time<T>(what: &'static str, answer: impl Future<Output = T>) -> Result<T, Late> {
    let mut answer = pin!(answer);
    if let Ok(answered) = timeout(TOLD_AFTER, &mut answer).await {
        return Ok(answered);
    }
    tracing::warn!("the database has taken {} s to {what}, and everybody waits for it", TOLD_AFTER.as_secs());
    timeout(ANSWER_PATIENCE - TOLD_AFTER, answer).await.map_err(|late| Late(what, late))
}

/// What was not answered in time.
struct Late(&'static str, Elapsed);

async fn write<S: WritingSession>(
    session: &mut S,
    token: FencingToken,
    batch: &Batch,
    purges: &Purges,
) -> Result<(), CommitError> {
    let rest = rest_of_a_purge(session, token, purges).await?;
    if batch.ops.is_empty() && rest.is_empty() {
        return Ok(());
    }
    session.commit(token, batch, &rest).await
}

/// What goes along with a batch, and is looked for before it: an error here means that the batch was not written.
async fn rest_of_a_purge<S: WritingSession>(
    session: &mut S,
    token: FencingToken,
    purges: &Purges,
) -> Result<Vec<(Sequence, Holder)>, CommitError> {
    let Some((holder, upto)) = purges.first() else { return Ok(Vec::new()) };
    let rest = session.rest_of(holder, upto).await?;
    if rest.is_empty() {
        session.purge_is_done(token, holder, upto).await?;
        purges.remove(holder, upto);
    }
    Ok(rest)
}
