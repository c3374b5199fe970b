//! Real clients browse a backlog that memory has no room for, whatever keeps it: all of it is shown, in its order,
//! while a consumer holds some of it, and nothing of it changes.

#[cfg(feature = "mysql")]
use crate::harness::MariadbServer;
#[cfg(feature = "postgres")]
use crate::harness::PostgresServer;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::harness::{DatabaseServer as _, own_group};
use crate::{
    backlog::fill,
    harness::{Broker, Raw, Script, Settings},
};

/// What the broker may take for messages and buffers. Unit: MiB.
const LIMIT_MIB: u64 = 16;

/// What the process may take beside: its code, its stacks, the journal's sets, what an allocator keeps.
const BESIDE_MIB: u64 = 64;

/// So many messages lie in the queue, of 16 KiB each: twice what memory has room for.
const BACKLOG: usize = 2_000;

const QUEUE: &str = "/queue/backlog";

/// So many of them are out.
const OUT: usize = 10;

fn started(settings: Settings) -> Broker {
    Broker::start_with(settings.option("limits.memory_bytes_max", &format!("\"{LIMIT_MIB}MiB\"")))
}

/// What a broker has just started with: all of it lies in the store.
fn kept_by(settings: Settings) {
    let mut broker = started(settings);
    fill(broker.address(), QUEUE, "true", 0..BACKLOG, |_| {});
    broker.kill_9();
    broker.restart();
    is_browsed(&broker, BACKLOG);
}

/// Both clients are shown all of it, while somebody holds the first of it and is the only one to get any.
fn is_browsed(broker: &Broker, backlog: usize) {
    let address = broker.address();
    let mut consumer = Raw::connect(address);
    consumer.subscribe(QUEUE, "client-individual", &[("activemq.prefetchSize", &OUT.to_string())]);
    let out: Vec<_> = (0..OUT).map(|_| consumer.expect("MESSAGE")).collect();
    for script in [Script::python("browse_backlog.py", address, &[]), Script::node("browse_backlog.mjs", address, &[])]
    {
        let shown: Vec<usize> = script.finish().iter().map(|line| line.parse().unwrap()).collect();
        assert!(shown == Vec::from_iter(0..backlog), "{} were shown", shown.len());
    }
    for (number, message) in out.into_iter().enumerate() {
        consumer.ack(&message);
        let next = consumer.expect("MESSAGE");
        assert!(next.text().starts_with(&format!("{} ", OUT + number)) && !next.redelivered(), "{next:?}");
    }
    consumer.disconnect();
    let grown = broker.memory_peak_mib();
    assert!(grown <= LIMIT_MIB + BESIDE_MIB, "{grown} MiB");
}

#[test]
fn a_backlog_in_the_journal() {
    kept_by(Settings::new());
}

#[cfg(feature = "postgres")]
#[test]
fn a_backlog_in_postgres() {
    kept_by(PostgresServer::shared().settings(&own_group()));
}

#[cfg(feature = "mysql")]
#[test]
fn a_backlog_in_mariadb() {
    kept_by(MariadbServer::shared().settings(&own_group()));
}

#[test]
fn r32_a_backlog_in_the_spool() {
    let broker = started(Settings::new());
    fill(broker.address(), QUEUE, "false", 0..BACKLOG, |_| {});
    is_browsed(&broker, BACKLOG);
}

/// A broker that keeps everything in memory has room for half as much as that.
#[test]
fn a_backlog_in_memory() {
    let broker = started(Settings::new().option("store.backend", "\"memory\""));
    fill(broker.address(), QUEUE, "true", 0..BACKLOG / 4, |_| {});
    is_browsed(&broker, BACKLOG / 4);
}
