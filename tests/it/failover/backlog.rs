//! A backlog that memory has no room for lies in the database alone, and whoever takes over finds it there.

use super::Brokers;
use crate::{
    backlog::{MANY, drain, fill},
    harness::DatabaseServer,
};

on_each_database! {
    r25_a_backlog_is_bounded_by_the_database_and_a_take_over_does_not_read_it
}

const QUEUE: &str = "/queue/backlog";

/// What a broker may take for messages and buffers.
const LIMIT_MIB: u64 = 16;

/// What a process may take beside; both together are less than is sent.
const BESIDE_MIB: u64 = 80;

/// What a standby may grow by until it serves.
const TAKE_OVER_MIB: u64 = 8;

fn r25_a_backlog_is_bounded_by_the_database_and_a_take_over_does_not_read_it<D: DatabaseServer>() {
    let little_memory = format!("\"{LIMIT_MIB}MiB\"");
    let mut brokers = Brokers::start(D::shared(), 2, |s| s.option("limits.memory_bytes_max", &little_memory));
    brokers.announce(&["the row of the baton is held"]);
    let (first, client) = brokers.master();
    drop(client);
    let mut confirmed = 0;
    fill(brokers.addresses[first], QUEUE, "true", 0..MANY, |_| confirmed += 1);
    assert_eq!(confirmed, MANY);
    let peak = brokers.brokers[first].memory_peak_mib();
    assert!(peak <= LIMIT_MIB + BESIDE_MIB, "{peak} MiB while it was filled");

    let standby = brokers.brokers[1 - first].memory_peak_mib();
    brokers.brokers[first].kill_9();
    let (next, client) = brokers.next_master(first, "kill -9 with a backlog");
    drop(client);
    let master = brokers.brokers[next].memory_peak_mib();
    assert!(master <= standby + TAKE_OVER_MIB, "{standby} MiB as a standby, {master} MiB when it serves");
    assert_eq!(drain(brokers.addresses[next], QUEUE, MANY), Vec::from_iter(0..MANY));
    let last = brokers.brokers[next].memory_peak_mib();
    assert!(last <= LIMIT_MIB + BESIDE_MIB, "{last} MiB while it was drained");
    println!("{peak} MiB while it was filled, {standby} as a standby, {master} when it serves, {last} at the end");
    brokers.return_as_standby(first);
    brokers.stop();
}
