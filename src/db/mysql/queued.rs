//! A session that is asked by way of a queue: a driver carries the requests, one after the other, and listens between them.
//!
//! Always true: what was asked is done, even if nobody waits for the answer any more, so a future that is dropped leaves
//! the session fit for its next request. Without its driver the connection is over at once, whatever is under way.
//! On failure: the driver ends with the connection; whoever waits, or asks later, gets an error.

use std::{future::pending, time::Duration};

use mysql_async::{DriverError, Error, Params, Row, prelude::Queryable as _};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Session, is_lost};

/// So many requests may wait; whoever has one under way waits for its answer as a rule.
const REQUESTS_MAX: usize = 4;

/// The asking end of a session.
#[derive(Debug)]
pub struct QueuedSession {
    requests: mpsc::Sender<Request>,
    ended: CancellationToken,
}

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    /// Of the first result.
    pub rows: Vec<Row>,
    /// How many rows a statement found that changes some.
    pub affected: u64,
}

#[derive(Debug)]
struct Request {
    sql: String,
    with: Params,
    answer: oneshot::Sender<Result<Answer, Error>>,
}

/// Carries a session's requests and answers; to be run as a task.
pub struct Driver {
    session: Session,
    requests: mpsc::Receiver<Request>,
    listens: Option<Duration>,
    _ended: DropGuard,
}

impl Session {
    /// The same session, with a queue. An idle connection that ends is noticed after `listens`, and otherwise by the next
    /// request: the database's protocol tells nobody, so it has to be asked.
    #[must_use]
    pub fn queued(self, listens: Option<Duration>) -> (QueuedSession, Driver) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let ended = CancellationToken::new();
        let driver = Driver { session: self, requests, listens, _ended: ended.clone().drop_guard() };
        (QueuedSession { requests: sender, ended }, driver)
    }
}

impl QueuedSession {
    /// What the server answers to a statement, with these parameters if it has any.
    ///
    /// # Errors
    /// What the server or the system said; [`DriverError::ConnectionClosed`] if it was over before.
    pub async fn ask(&self, sql: &str, with: impl Into<Params>) -> Result<Answer, Error> {
        let (answer, answered) = oneshot::channel();
        let request = Request { sql: sql.to_owned(), with: with.into(), answer };
        let over = || Error::from(DriverError::ConnectionClosed);
        self.requests.send(request).await.map_err(|_| over())?;
        answered.await.unwrap_or_else(|_| Err(over()))
    }

    /// Waits for the end of the connection. Cancel safe.
    pub async fn closed(&self) {
        self.ended.cancelled().await;
    }

    /// Whether [`Self::closed`] would not wait.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ended.is_cancelled()
    }
}

impl Driver {
    /// Runs until the connection ends, or the session is dropped.
    pub async fn run(mut self) {
        loop {
            let asked = tokio::select! {
                asked = self.requests.recv() => asked,
                () = after(self.listens) => {
                    if self.session.ping().await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let Some(Request { sql, with, answer }) = asked else { return };
            let answered = self.carry(&sql, with).await;
            let is_over = answered.as_ref().is_err_and(is_lost);
            if answer.send(answered).is_err() {
                tracing::trace!("nobody waits for the answer any more");
            }
            if is_over {
                return;
            }
        }
    }

    /// A statement without parameters need not be prepared, and some can't be.
    async fn carry(&mut self, sql: &str, with: Params) -> Result<Answer, Error> {
        if with == Params::Empty {
            let result = self.session.query_iter(sql).await?;
            let affected = result.affected_rows();
            return Ok(Answer { affected, rows: result.collect_and_drop().await? });
        }
        let result = self.session.exec_iter(sql, with).await?;
        let affected = result.affected_rows();
        Ok(Answer { affected, rows: result.collect_and_drop().await? })
    }
}

async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => sleep(duration).await,
        None => pending().await,
    }
}
