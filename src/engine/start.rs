//! Brings a term's engine to life from what the store holds.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    future::Future,
};

use smallvec::smallvec;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    batch::Unit,
    committer,
    handle::{EngineHandle, INBOX_MAX},
    task::{Engine, EngineError},
    writer::Writer,
};
use crate::{
    broker::{Core, CoreOptions, Effects},
    persistence::{MessageReader, PageRange, PersistenceAdapter, StoreError, Window},
    types::{Catalog, Clock, Holder, Op, Priority, Sequence, Stored, Tenure},
};

/// How much is read of the store at a time while a term begins.
const PAGE: Window = Window { messages: 1_000, bytes: 8 << 20 };

/// A term's engine, ready to be run.
pub struct Running<E, S> {
    /// The door for sessions.
    pub handle: EngineHandle,
    /// The engine itself: an essential task.
    pub engine: E,
    /// Carries its requests to the store, and closes the adapter in the end: an essential task.
    pub store: S,
}

/// Reads what the store holds and makes the engine of a term. The adapter has recovered and raised `tenure`.
///
/// `stop` asks the engine to write what is left and end.
///
/// # Errors
/// [`StoreError`] when the store can't be read.
pub async fn start<A: PersistenceAdapter>(
    adapter: A,
    options: CoreOptions,
    catalog: Catalog,
    tenure: Tenure,
    clock: Clock,
    stop: CancellationToken,
) -> Result<
    Running<impl Future<Output = Result<(), EngineError>> + Send, impl Future<Output = Result<(), StoreError>> + Send>,
    StoreError,
> {
    let mut core = Core::recover(options, tenure.term, &catalog);
    let mut writer = Writer::new(tenure);
    let reader = adapter.reader();
    for holder in reader.holders().await? {
        for level in (0..=9).rev() {
            for op in load(&mut core, &reader, holder, Priority::clamped(level)).await? {
                writer.open.push(Unit::new(smallvec![op], None, clock.now()));
            }
        }
    }
    let (requests, requested) = mpsc::channel(1);
    let (replies, replied) = mpsc::channel(1);
    let (inbox, inbound) = mpsc::channel(INBOX_MAX);
    let engine = Engine {
        core,
        writer,
        clock,
        inbox: inbound,
        requests,
        replies: replied,
        stop,
        sessions: HashMap::default(),
        held: VecDeque::new(),
        errors: BTreeSet::new(),
        effects: Effects::default(),
        touched: Vec::new(),
        answers: Vec::new(),
    };
    let store = committer::run(adapter, requested, replies);
    Ok(Running { handle: EngineHandle::new(inbox), engine: engine.run(), store })
}

/// Loads the messages of one holder and priority; what is to be settled because its holder is gone.
async fn load<R: MessageReader>(
    core: &mut Core,
    reader: &R,
    holder: Holder,
    priority: Priority,
) -> Result<Vec<Op>, StoreError> {
    let mut range = PageRange { after: Sequence::ZERO, upto: Sequence::MAX };
    let mut orphans = Vec::new();
    loop {
        let page = reader.page(holder, priority, range, PAGE).await?;
        for stored in &page.messages {
            let holders = stored.holders.iter().filter(|held| held.holder == holder).copied().collect();
            let part = Stored { holders, ..stored.clone() };
            let sequence = stored.sequence;
            orphans.extend(core.load(&part).into_iter().map(|holder| Op::Settle { sequence, holder }));
            range.after = sequence;
        }
        if page.complete {
            return Ok(orphans);
        }
    }
}
