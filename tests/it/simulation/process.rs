//! A broker process: the real elector, keeper, engine, writer and core, on a runtime of its own.
//!
//! Its clock is the world's, and it does something only when the world lets it: a process that is frozen is not let, and
//! finds afterwards that time has passed. Dropping one is kill -9.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use batonmq::{
    broker::CoreOptions,
    election::{Baton, DatabaseLocker, HolderId, Lease, LeaseTable, Locker, SessionLock, database::LockDatabase},
    engine::{self, EngineHandle, Stores},
    persistence::{MemoryAdapter, PersistenceAdapter, StoreError},
    types::{BootClock, Clock, Footing, Mandate, Meter, Tenure, TermContext, Timestamp},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinHandle, JoinSet, yield_now},
    time::{advance, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{adapter::SimulatedAdapter, database::Database, line::SimulatedElection};

/// The shortest: so that little time has to pass.
pub(super) const LEASE: Lease = Lease::new(Duration::from_secs(2));

/// As a standby of `node/life.rs`.
const STANDBY_PATIENCE: Duration = Duration::from_secs(5);

/// See [`STANDBY_PATIENCE`].
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How a process is set up.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) strategy: Strategy,
    pub(super) options: CoreOptions,
    /// So much of the memory is taken. Unit: bytes.
    pub(super) memory_taken: usize,
    /// A read brings so many messages at most.
    pub(super) page_max: usize,
}

/// What stands for the baton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    SessionLock,
    Lease,
}

pub(super) struct Process {
    pub(super) number: usize,
    runtime: Runtime,
    life: JoinHandle<()>,
    clock: BootClock,
    serving: Arc<Mutex<Option<Serving>>>,
    ran_at: u64,
    /// Until when it is not let do anything.
    pub(super) frozen_until: Option<u64>,
}

/// A term that serves clients.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) tenure: Tenure,
    /// In which it read the store.
    pub(super) timeline: u64,
    pub(super) handle: EngineHandle,
    pub(super) mandate: Mandate,
}

impl Process {
    /// `instance`: no other process ever has it.
    pub(super) fn start(database: &Database, number: usize, instance: u64, setup: Setup, now: u64) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (clock, serving) = (BootClock::simulated(), Arc::default());
        clock.set(now);
        let me = HolderId { broker: format!("b{number}").into(), instance: instance.to_string().into() };
        let election =
            SimulatedElection { database: database.clone(), process: number, lease: LEASE, clock: clock.clone() };
        let life = Life { database: database.clone(), number, setup: setup.clone(), serving: Arc::clone(&serving) };
        let entered = runtime.enter();
        let started = tokio::time::Instant::now();
        let time = Time { started, at: now };
        drop(entered);
        let life = match setup.strategy {
            Strategy::SessionLock => runtime.spawn(life.live(time, locker(SessionLock(election), me))),
            Strategy::Lease => runtime.spawn(life.live(time, locker(LeaseTable(election), me))),
        };
        Self { number, runtime, life, clock, serving, ran_at: now, frozen_until: None }
    }

    /// Whatever is due by now and whatever can be done without waiting.
    pub(super) fn run(&mut self, now: u64) {
        self.clock.set(now);
        let passed = Duration::from_millis(now - self.ran_at);
        self.ran_at = now;
        self.runtime.block_on(async {
            advance(passed).await;
            yield_now().await;
        });
        assert!(!self.life.is_finished(), "a broker's life has no end");
    }

    pub(super) fn serving(&self) -> Option<Serving> {
        self.serving.lock().unwrap().clone()
    }
}

/// Does what can be done without waiting; `None`: the rest is not done.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

fn locker<D: LockDatabase>(database: D, me: HolderId) -> DatabaseLocker<D> {
    DatabaseLocker::new(Arc::new(database), me, LEASE)
}

/// The world's time, as a runtime's.
#[derive(Clone, Copy)]
struct Time {
    started: tokio::time::Instant,
    at: u64,
}

impl Time {
    fn clock(self) -> Clock {
        Clock::start_at(timestamp(self.at + self.started.elapsed().as_millis() as u64))
    }
}

/// The world's time as everybody's clock on the wall shows it.
pub(super) fn timestamp(millis: u64) -> Timestamp {
    Timestamp(1_000_000_000 + millis)
}

/// `node/life.rs` and `node/term.rs` without doors.
struct Life {
    database: Database,
    number: usize,
    setup: Setup,
    serving: Arc<Mutex<Option<Serving>>>,
}

impl Life {
    async fn live<L: Locker>(self, time: Time, mut locker: L) {
        loop {
            match locker.acquire(STANDBY_PATIENCE).await {
                Ok(Some(baton)) => {
                    let why = self.serve(time, &baton).await;
                    *self.serving.lock().unwrap() = None;
                    drop(baton.release(&why).await);
                }
                Ok(None) => {}
                Err(_) => sleep(ASK_AGAIN).await,
            }
        }
    }

    /// A term; why it is over.
    async fn serve(&self, time: Time, baton: &Baton) -> String {
        let timeline = self.database.server().timeline;
        let mut adapter = SimulatedAdapter::new(self.database.clone(), self.number, self.setup.page_max);
        let mut mandate = baton.mandate().clone();
        let recovered = tokio::select! {
            biased;
            recovered = recover(&mut adapter, baton) => recovered.map_err(|error| error.to_string()),
            why = lost(&mut mandate) => Err(why),
        };
        let (catalog, tenure) = match recovered {
            Ok(recovered) => recovered,
            Err(why) => return why,
        };
        let meter = Meter::new(self.setup.options.limits.memory_bytes_max);
        let context = TermContext { clock: time.clock(), mandate: mandate.clone(), meter };
        let _taken = context.meter.charge(self.setup.memory_taken);
        let stop = CancellationToken::new();
        let stores = Stores { store: adapter, spool: MemoryAdapter::new() };
        let running = engine::start(stores, self.setup.options.clone(), &catalog, tenure, context, stop);
        *self.serving.lock().unwrap() = Some(Serving { tenure, timeline, handle: running.handle, mandate });
        let mut stores = JoinSet::new();
        stores.spawn(running.store);
        match running.engine.await {
            Ok(()) => unreachable!("nobody stops it"),
            Err(over) => over.to_string(),
        }
    }
}

/// As `node/term.rs` does it (R17).
async fn recover(
    adapter: &mut SimulatedAdapter,
    baton: &Baton,
) -> Result<(batonmq::types::Catalog, Tenure), StoreError> {
    let catalog = adapter.recover().await?;
    if baton.tenure().is_none_or(|taken| taken.term != catalog.tenure.term) {
        return Err(StoreError::Deposed);
    }
    let tenure = catalog.tenure.next_token();
    adapter.raise(tenure).await?;
    Ok((catalog, tenure))
}

async fn lost(mandate: &mut Mandate) -> String {
    loop {
        if let Footing::Lost(why) = mandate.footing() {
            return why.to_string();
        }
        mandate.changed().await;
    }
}
