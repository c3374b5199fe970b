//! How much everybody held when the store was recovered (R28): counted once a term, told to whoever asks.
//!
//! Counted in one snapshot that was taken while the row of the baton was held: no batch of the term is in it, however
//! long the counting takes. It holds back the database's clean-up meanwhile.
//! On failure (the session is lost, as when the database restarts): what is not counted by then is counted in a second
//! snapshot, taken between two batches. It shows the term's batches: what they inserted lies behind the beginning of the
//! term and is left out, and how much of the rest they settled is remembered for as long as anything is uncounted. Only
//! the bytes of what was settled by then are an estimate.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error,
    future::Future,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Purges, number};
use crate::{
    persistence::{Backlog, StoreError},
    tasks::Tasks,
    types::{Batch, Holder, Op, Priority, Sequence, Term},
};

/// How long a batch that is done may be kept from telling so by a snapshot.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(1);

/// How often a second snapshot is tried for.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(5);

/// What was counted so far.
#[derive(Debug, Default)]
struct Counts {
    /// Everybody who holds something, in order.
    holders: Option<Vec<Holder>>,
    backlogs: BTreeMap<Holder, Backlog>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Counting,
    Interrupted,
    Done,
}

/// Counts in a snapshot that it has taken already.
pub(in crate::persistence) trait Counting: Send + 'static {
    type Error: Error + Send;

    /// Everybody who may hold something.
    fn holders(&mut self) -> impl Future<Output = Result<Vec<Holder>, Self::Error>> + Send;

    /// How many messages of each priority a holder has behind `purged` and up to `upto`, and their bytes.
    fn count(
        &mut self,
        holder: Holder,
        purged: Sequence,
        upto: Sequence,
    ) -> impl Future<Output = Result<Vec<(i16, i64, i64)>, Self::Error>> + Send;
}

/// The counting of one recovery.
#[derive(Debug)]
pub(in crate::persistence) struct Census {
    counts: watch::Sender<Counts>,
    end: CancellationToken,
    /// What was sent after the recovery lies behind it.
    upto: Option<Sequence>,
    /// How much of what lies before it was settled since.
    settled: HashMap<Holder, u64>,
    /// When a second snapshot was tried for.
    tried: Option<Instant>,
}

impl Default for Census {
    fn default() -> Self {
        let (counts, end) = (watch::Sender::new(Counts::default()), CancellationToken::new());
        Self { counts, end, upto: None, settled: HashMap::new(), tried: None }
    }
}

impl Census {
    /// Counts in a task. What is purged by now is not counted.
    pub(in crate::persistence) fn begin(&self, counting: impl Counting, purges: &Purges, tasks: &Tasks) {
        let upto = self.upto.unwrap_or(Sequence::MAX);
        let settled = self.settled.clone();
        let count = Count { counting, purges: purges.all(), settled, upto, counts: self.counts.clone() };
        self.counts.send_modify(|counts| counts.state = State::Counting);
        tasks.spawn("counting", count.run(self.end.clone()));
    }

    /// A term begins: what was sent before is counted.
    pub(in crate::persistence) fn begin_term(&mut self, term: Term) {
        self.upto.get_or_insert(Sequence::new(term, 0));
    }

    /// After a batch that is durable, and before the next one: counts again what is not counted yet, if that was
    /// interrupted.
    pub(in crate::persistence) async fn after<C: Counting>(
        &mut self,
        batch: &Batch,
        snapshot: impl Future<Output = Result<C, StoreError>>,
        purges: &Purges,
        tasks: &Tasks,
    ) {
        let state = self.counts.borrow().state;
        if state == State::Done {
            return self.settled.clear();
        }
        self.note(batch);
        if state == State::Counting || self.tried.is_some_and(|tried| tried.elapsed() < SNAPSHOT_EVERY) {
            return;
        }
        self.tried = Some(Instant::now());
        match timeout(SNAPSHOT_PATIENCE, snapshot).await {
            Ok(Ok(counting)) => self.begin(counting, purges, tasks),
            Ok(Err(error)) => tracing::debug!("what was stored before can't be counted yet: {error}"),
            Err(late) => tracing::debug!("what was stored before can't be counted yet: {late}"),
        }
    }

    fn note(&mut self, batch: &Batch) {
        let upto = self.upto.unwrap_or(Sequence::MAX);
        for op in &batch.ops {
            if let Op::Settle { sequence, holder } = op
                && *sequence <= upto
            {
                *self.settled.entry(*holder).or_default() += 1;
            }
        }
    }

    /// What is known, and will be.
    pub(in crate::persistence) fn counted(&self) -> Counted {
        Counted(self.counts.subscribe())
    }

    /// Nobody wants to know any more.
    pub(in crate::persistence) fn end(&self) {
        self.end.cancel();
    }
}

/// The counting in one snapshot.
struct Count<C> {
    counting: C,
    purges: BTreeMap<Holder, Sequence>,
    settled: HashMap<Holder, u64>,
    upto: Sequence,
    counts: watch::Sender<Counts>,
}

impl<C: Counting> Count<C> {
    async fn run(mut self, end: CancellationToken) {
        let state = match end.run_until_cancelled(self.count()).await {
            None => return,
            Some(Ok(())) => State::Done,
            Some(Err(error)) => {
                tracing::warn!("what was stored before can't be counted, and limits by count wait for it: {error}");
                State::Interrupted
            }
        };
        self.counts.send_modify(|counts| counts.state = state);
    }

    /// All that is not counted yet.
    async fn count(&mut self) -> Result<(), C::Error> {
        let known = self.counts.borrow().holders.clone();
        let holders = match known {
            Some(holders) => holders,
            None => self.find_holders().await?,
        };
        for holder in holders {
            if !self.counts.borrow().backlogs.contains_key(&holder) {
                let backlog = self.backlog(holder).await?;
                self.counts.send_modify(|counts| counts.backlogs.extend([(holder, backlog)]));
            }
        }
        Ok(())
    }

    async fn find_holders(&mut self) -> Result<Vec<Holder>, C::Error> {
        let mut holders: BTreeSet<Holder> = self.settled.keys().copied().collect();
        for holder in self.counting.holders().await? {
            // All that is left of it may be purged already.
            let holds = match self.purges.get(&holder) {
                Some(purged) => !self.counting.count(holder, *purged, self.upto).await?.is_empty(),
                None => true,
            };
            holders.extend(holds.then_some(holder));
        }
        let holders: Vec<Holder> = holders.into_iter().collect();
        self.counts.send_modify(|counts| counts.holders = Some(holders.clone()));
        Ok(holders)
    }

    async fn backlog(&mut self, holder: Holder) -> Result<Backlog, C::Error> {
        let purged = self.purges.get(&holder).copied().unwrap_or_default();
        let counted = self.counting.count(holder, purged, self.upto).await?;
        let backlog = counted.into_iter().fold(Backlog::default(), add);
        Ok(with_settled(backlog, self.settled.get(&holder).copied().unwrap_or_default()))
    }
}

fn add(mut backlog: Backlog, (priority, messages, bytes): (i16, i64, i64)) -> Backlog {
    let index = usize::try_from(priority).unwrap_or_default();
    if let Some(of_priority) = backlog.messages.get_mut(index) {
        *of_priority += number(messages);
    }
    backlog.bytes += number(bytes);
    backlog
}

/// What was there, as far as is known: of what was settled neither priority nor size is remembered. That something may be
/// stored with a priority is always right to say, and sizes are those of the others.
fn with_settled(mut backlog: Backlog, settled: u64) -> Backlog {
    let left: u64 = backlog.messages.iter().sum();
    backlog.bytes += backlog.bytes / left.max(1) * settled;
    if let Some(usual) = backlog.messages.get_mut(Priority::default().index()) {
        *usual += settled;
    }
    backlog
}

/// Waits for what is counted. Clones wait on their own.
#[derive(Clone)]
pub(in crate::persistence) struct Counted(watch::Receiver<Counts>);

impl Counted {
    /// Everybody who held something, in order.
    pub(in crate::persistence) async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        self.known(|counts| counts.holders.clone()).await
    }

    /// What a holder held.
    pub(in crate::persistence) async fn backlog(&self, holder: Holder) -> Result<Backlog, StoreError> {
        let known = |counts: &Counts| {
            let holds = counts.holders.as_ref()?.binary_search(&holder).is_ok();
            if holds { counts.backlogs.get(&holder).copied() } else { Some(Backlog::default()) }
        };
        self.known(known).await
    }

    /// Waits until something is known.
    async fn known<T>(&self, known: impl Fn(&Counts) -> Option<T>) -> Result<T, StoreError> {
        let mut counts = self.0.clone();
        let counts = counts.wait_for(|counts| known(counts).is_some()).await;
        counts.ok().and_then(|counts| known(&counts)).ok_or(StoreError::Closed)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::types::{BatchNumber, DestinationId};

    /// A snapshot in which a queue has so many messages of 10 bytes; none: its session is lost at the first count.
    struct Scripted(Option<i64>);

    const QUEUE: Holder = Holder::Queue(DestinationId(1));

    impl Counting for Scripted {
        type Error = io::Error;

        async fn holders(&mut self) -> io::Result<Vec<Holder>> {
            Ok(vec![QUEUE])
        }

        async fn count(&mut self, _: Holder, _: Sequence, upto: Sequence) -> io::Result<Vec<(i16, i64, i64)>> {
            assert!(self.0.is_none() || upto == Sequence::new(Term(2), 0), "what the term inserted is left out");
            let messages = self.0.ok_or_else(|| io::Error::other("gone"))?;
            Ok(if messages == 0 { Vec::new() } else { vec![(7, messages, messages * 10)] })
        }
    }

    fn settles(sequences: &[Sequence]) -> Batch {
        let settle = |sequence: &Sequence| Op::Settle { sequence: *sequence, holder: QUEUE };
        Batch { number: BatchNumber(1), ops: sequences.iter().map(settle).collect() }
    }

    async fn becomes(census: &Census, state: State) {
        census.counts.subscribe().wait_for(|counts| counts.state == state).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn r28_what_was_settled_before_the_second_snapshot_was_there_at_the_recovery() {
        for (left, bytes) in [(8, 100), (0, 0)] {
            let (mut census, purges, tasks) = (Census::default(), Purges::default(), Tasks::new());
            census.begin(Scripted(None), &purges, &tasks);
            census.begin_term(Term(2));
            becomes(&census, State::Interrupted).await;
            let (first, second) = (Sequence::new(Term(1), 5), Sequence::new(Term(1), 6));
            let lost = async { Err::<Scripted, _>(StoreError::Closed) };
            census.after(&settles(&[first]), lost, &purges, &tasks).await;
            tokio::time::advance(SNAPSHOT_EVERY).await;
            let batch = settles(&[second, Sequence::new(Term(2), 1)]);
            census.after(&batch, async { Ok(Scripted(Some(left))) }, &purges, &tasks).await;
            let backlog = census.counted().backlog(QUEUE).await.unwrap();
            let total = u64::try_from(left).unwrap() + 2;
            assert_eq!((backlog.messages.iter().sum::<u64>(), backlog.bytes), (total, bytes));
            becomes(&census, State::Done).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_snapshot_is_taken_beside_the_first() {
        let (mut census, purges, tasks) = (Census::default(), Purges::default(), Tasks::new());
        let unasked = async || -> Result<Scripted, StoreError> { unreachable!("nobody asks for it") };
        census.after(&settles(&[]), unasked(), &purges, &tasks).await;
        census.begin(Scripted(None), &purges, &tasks);
        becomes(&census, State::Interrupted).await;
        census.after(&settles(&[]), async { Ok(Scripted(None)) }, &purges, &tasks).await;
        becomes(&census, State::Interrupted).await;
        census.after(&settles(&[]), unasked(), &purges, &tasks).await;
    }
}
