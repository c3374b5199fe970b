//! Brings a term's engine to life from what the store holds.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    future::Future,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    committer,
    handle::{EngineHandle, INBOX_MAX},
    reader::{self, READS_WAITING_MAX, Readers},
    spool::Spool,
    task::{Engine, EngineError},
    writer::Writer,
};
use crate::{
    broker::{Core, CoreOptions, Effects},
    persistence::{PersistenceAdapter, StoreError},
    types::{Catalog, DestinationKind, Holder, Tenure, TermContext},
};

/// A term's engine, ready to be run.
pub struct Running<E, S> {
    /// The door for sessions.
    pub handle: EngineHandle,
    /// The engine itself: an essential task.
    pub engine: E,
    /// Carries its requests to the store, and closes the adapter in the end: an essential task.
    pub store: S,
}

/// Where a term keeps messages.
pub struct Stores<A, S> {
    /// What has to outlive it.
    pub store: A,
    /// What the store does not keep, while memory is scarce (R32); empty at the start.
    pub spool: S,
}

/// Makes the engine of a term. The adapter has recovered `catalog` and raised `tenure`. No message is read before
/// somebody wants it, so a start takes as long for ten million as for none.
///
/// `stop` asks the engine to write what is left and end.
pub fn start<A: PersistenceAdapter, S: PersistenceAdapter>(
    Stores { store: adapter, spool }: Stores<A, S>,
    options: CoreOptions,
    catalog: &Catalog,
    tenure: Tenure,
    context: TermContext,
    stop: CancellationToken,
) -> Running<
    impl Future<Output = Result<(), EngineError>> + Send + use<A, S>,
    impl Future<Output = Result<(), StoreError>> + Send + use<A, S>,
> {
    let (requests, requested) = mpsc::channel(1);
    let (replies, replied) = mpsc::channel(1);
    let (spool_requests, spool_requested) = mpsc::channel(1);
    let (spool_answers, spool_replied) = mpsc::channel(1);
    let (read_requests, reads_requested) = mpsc::channel(READS_WAITING_MAX);
    let (read_answers, reads_answered) = mpsc::channel(READS_WAITING_MAX);
    let (inbox, inbound) = mpsc::channel(INBOX_MAX);
    let handle = EngineHandle::new(inbox, context.meter.clone());
    let broken = options.broken;
    let engine = Engine {
        core: Core::recover(options, tenure.term, catalog),
        writer: Writer::new(tenure, broken),
        broken,
        clock: context.clock,
        doubts: context.mandate.doubts(),
        mandate: context.mandate,
        meter: context.meter,
        full_told: None,
        inbox: inbound,
        requests,
        replies: replied,
        spool: Spool::default(),
        spool_requests,
        spool_replies: spool_replied,
        read_requests,
        read_answers: reads_answered,
        reads: VecDeque::new(),
        stop,
        sessions: HashMap::default(),
        held: VecDeque::new(),
        errors: BTreeSet::new(),
        effects: Effects::default(),
        purging: Vec::new(),
        touched: Vec::new(),
        answers: Vec::new(),
    };
    let readers = Readers { store: adapter.reader(), spool: spool.reader() };
    let reads = reader::run(readers, holders(catalog), reads_requested, read_answers);
    let writes = committer::run(adapter, requested, replies);
    let spools = committer::run(spool, spool_requested, spool_answers);
    let store = async {
        let (written, spooled, ()) = tokio::join!(writes, spools, reads);
        written.and(spooled)
    };
    Running { handle, engine: engine.run(), store }
}

/// Who may hold messages.
fn holders(catalog: &Catalog) -> Vec<Holder> {
    let queues = catalog.destinations.iter().filter(|(_, destination)| destination.kind() == DestinationKind::Queue);
    let queues = queues.map(|(id, _)| Holder::Queue(*id));
    queues.chain(catalog.durables.keys().copied().map(Holder::Durable)).collect()
}
