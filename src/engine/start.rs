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
    reader::{self, READS_WAITING_MAX},
    task::{Engine, EngineError},
    writer::Writer,
};
use crate::{
    broker::{Core, CoreOptions, Effects},
    persistence::{PersistenceAdapter, StoreError},
    types::{Catalog, Clock, DestinationKind, Holder, Meter, Tenure},
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

/// Makes the engine of a term. The adapter has recovered `catalog` and raised `tenure`. No message is read before
/// somebody wants it, so a start takes as long for ten million as for none.
///
/// `meter` counts what messages take in memory; `stop` asks the engine to write what is left and end.
pub fn start<A: PersistenceAdapter>(
    adapter: A,
    options: CoreOptions,
    catalog: &Catalog,
    tenure: Tenure,
    clock: Clock,
    meter: Meter,
    stop: CancellationToken,
) -> Running<
    impl Future<Output = Result<(), EngineError>> + Send + use<A>,
    impl Future<Output = Result<(), StoreError>> + Send + use<A>,
> {
    let (requests, requested) = mpsc::channel(1);
    let (replies, replied) = mpsc::channel(1);
    let (read_requests, reads_requested) = mpsc::channel(READS_WAITING_MAX);
    let (read_answers, reads_answered) = mpsc::channel(READS_WAITING_MAX);
    let (inbox, inbound) = mpsc::channel(INBOX_MAX);
    let engine = Engine {
        core: Core::recover(options, tenure.term, catalog),
        writer: Writer::new(tenure),
        clock,
        meter,
        inbox: inbound,
        requests,
        replies: replied,
        read_requests,
        read_answers: reads_answered,
        reads: VecDeque::new(),
        stop,
        sessions: HashMap::default(),
        held: VecDeque::new(),
        errors: BTreeSet::new(),
        effects: Effects::default(),
        touched: Vec::new(),
        answers: Vec::new(),
    };
    let reads = reader::run(adapter.reader(), holders(catalog), reads_requested, read_answers);
    let writes = committer::run(adapter, requested, replies);
    let store = async {
        let (written, ()) = tokio::join!(writes, reads);
        written
    };
    Running { handle: EngineHandle::new(inbox), engine: engine.run(), store }
}

/// Who may hold messages.
fn holders(catalog: &Catalog) -> Vec<Holder> {
    let queues = catalog.destinations.iter().filter(|(_, destination)| destination.kind() == DestinationKind::Queue);
    let queues = queues.map(|(id, _)| Holder::Queue(*id));
    queues.chain(catalog.durables.keys().copied().map(Holder::Durable)).collect()
}
