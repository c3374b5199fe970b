//! Fills queues by four producers and drains them by four consumers.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{Broker, Consumer, Ledger, Outlet, Producer, Step, Subscription};

const PRODUCERS: u8 = 4;
const CONSUMERS: u8 = 4;
/// Batches of a producer that are under way, so that the broker need not wait for it.
const WINDOW: usize = 4;
/// Messages of the largest load in one batch; of the others in proportion, so that all are mixed in the store.
const BATCH: u64 = 1_000;
/// How often the moment to kill is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a consumer waits for one message before it looks whether all are there.
const LULL: Duration = Duration::from_millis(500);
/// So many lulls without a message while some are missing: they do not come any more.
const LULLS_MAX: u32 = 120;

/// What is sent to one queue.
pub(crate) struct Load {
    pub(crate) ledger: Ledger,
    pub(crate) messages: u32,
    queue: String,
    body_bytes: usize,
}

/// How fast it went.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) messages: u64,
    pub(crate) took: Duration,
}

impl Load {
    pub(crate) fn new(name: &'static str, lane: u8, body_bytes: usize, messages: u32) -> Self {
        let queue = format!("/queue/{name}");
        Self { ledger: Ledger::new(name, lane, PRODUCERS), messages, queue, body_bytes }
    }

    /// Sends one message more, and waits for its receipt.
    pub(crate) fn send_one(&self, address: SocketAddr) -> io::Result<()> {
        let ledgers = [&self.ledger];
        let mut producer = Producer::connect(address, 0)?;
        producer.send(self.outlet(&ledgers), &[self.body_bytes])?;
        producer.confirmed().map(drop)
    }

    fn outlet<'a>(&'a self, ledgers: &'a [&'a Ledger]) -> Outlet<'a, 'a> {
        Outlet { destination: &self.queue, headers: "persistent:true\n", ledgers }
    }

    /// What this producer has still to bring.
    fn due(&self, producer: u8) -> u64 {
        let (each, rest) = (self.messages / u32::from(PRODUCERS), self.messages % u32::from(PRODUCERS));
        let share = u64::from(each) + u64::from(u32::from(producer) < rest);
        share.saturating_sub(self.ledger.confirmed_by(producer))
    }
}

/// Sends what is due, to the end.
pub(crate) fn fill(address: SocketAddr, loads: &[&Load]) -> anyhow::Result<Rate> {
    let (began, confirmed) = (Instant::now(), AtomicU64::new(0));
    thread::scope(|scope| {
        let producers = spawn_producers(scope, address, loads, &confirmed);
        producers.into_iter().try_for_each(|producer| producer.join().expect("no producer panics"))
    })?;
    Ok(Rate { messages: confirmed.into_inner(), took: began.elapsed() })
}

/// Sends what is due, until so many messages are confirmed; then the broker is killed in the midst of it. `look` sees
/// it right before.
pub(crate) fn fill_until_killed(
    address: SocketAddr,
    loads: &[&Load],
    mut broker: Broker,
    messages: u64,
    look: impl FnOnce(&Broker),
) -> anyhow::Result<Rate> {
    let (began, confirmed) = (Instant::now(), AtomicU64::new(0));
    thread::scope(|scope| {
        let producers = spawn_producers(scope, address, loads, &confirmed);
        while confirmed.load(Ordering::Relaxed) < messages && producers.iter().any(|producer| !producer.is_finished()) {
            thread::sleep(LOOK_EVERY);
        }
        look(&broker);
        let killed = broker.kill_9();
        for producer in producers {
            // An error is what it must get.
            drop(producer.join().expect("no producer panics"));
        }
        killed
    })?;
    let rate = Rate { messages: confirmed.into_inner(), took: began.elapsed() };
    ensure!(rate.messages >= messages, "the producers ended after {} messages, before the kill", rate.messages);
    Ok(rate)
}

fn spawn_producers<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    address: SocketAddr,
    loads: &'env [&'env Load],
    confirmed: &'env AtomicU64,
) -> Vec<thread::ScopedJoinHandle<'scope, io::Result<()>>> {
    (0..PRODUCERS).map(|number| scope.spawn(move || produce(address, loads, number, confirmed))).collect()
}

fn produce(address: SocketAddr, loads: &[&Load], number: u8, confirmed: &AtomicU64) -> io::Result<()> {
    let most = loads.iter().map(|load| u64::from(load.messages)).max().unwrap_or(1);
    let ledgers: Vec<_> = loads.iter().map(|load| [&load.ledger]).collect();
    let mut producer = Producer::connect(address, number)?;
    let mut due: Vec<_> = loads.iter().map(|load| load.due(number)).collect();
    while due.iter().any(|due| *due > 0) {
        for ((load, ledgers), due) in loads.iter().zip(&ledgers).zip(&mut due) {
            let batch = (BATCH * u64::from(load.messages)).div_ceil(most).min(*due);
            let sizes: Vec<_> = (0..batch).map(|_| load.body_bytes).collect();
            *due -= batch;
            if batch > 0 {
                producer.send(load.outlet(ledgers), &sizes)?;
            }
        }
        while producer.unconfirmed() > WINDOW {
            confirmed.fetch_add(producer.confirmed()?, Ordering::Relaxed);
        }
    }
    while producer.unconfirmed() > 0 {
        confirmed.fetch_add(producer.confirmed()?, Ordering::Relaxed);
    }
    Ok(())
}

/// Takes and acknowledges until everything that was confirmed has come and nothing more comes.
pub(crate) fn drain(address: SocketAddr, load: &Load) -> anyhow::Result<Rate> {
    let (began, before) = (Instant::now(), load.ledger.settled_count());
    let expected = load.ledger.tally().confirmed;
    let last = thread::scope(|scope| {
        let consumers: Vec<_> = (0..CONSUMERS).map(|_| scope.spawn(|| consume(address, load, expected))).collect();
        let ends = consumers.into_iter().map(|consumer| consumer.join().expect("no consumer panics"));
        ends.collect::<io::Result<Vec<_>>>()
    })?;
    let took = last.into_iter().max().map_or(Duration::ZERO, |last| last.saturating_duration_since(began));
    Ok(Rate { messages: load.ledger.settled_count() - before, took })
}

/// When its last message came.
fn consume(address: SocketAddr, load: &Load, expected: u64) -> io::Result<Instant> {
    let subscription =
        Subscription { destination: &load.queue, durable: None, prefetch: 1_000, ack_every: 100, is_ordered: true };
    let mut consumer = Consumer::subscribe(address, subscription, &load.ledger)?;
    let (mut last, mut lulls) = (Instant::now(), 0);
    while lulls < LULLS_MAX {
        match consumer.step(LULL)? {
            Step::Message => (last, lulls) = (Instant::now(), 0),
            Step::Receipt => {}
            Step::Nothing if load.ledger.settled_count() >= expected => break,
            Step::Nothing => lulls += 1,
        }
    }
    consumer.leave()?;
    Ok(last)
}
