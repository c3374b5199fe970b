//! The database's clock is set, by an hour either way.

use super::{Brokers, DOUBTS, short_lease};
use crate::harness::{PostgresServer, Script};

/// Hours ahead of the machine's clock, one after the other: each is a step of an hour or more.
const STEPS: [i32; 4] = [1, 0, -1, 1];

/// A producer and a consumer go on, and check that everything confirmed is there once and in order. After each step the
/// master is killed: nobody waits for an hour that was only on a clock.
fn steps_lose_nothing(strategy: &str) {
    let server = PostgresServer::start_with_clock();
    let by = |strategy: &str| format!("{strategy:?}");
    let mut brokers = Brokers::start(&server, 3, |s| short_lease(s).option("election.strategy", &by(strategy)));
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held", "another running broker is called"]);
    let mut script = Script::python_with("failover.py", &brokers.addresses, &[]);
    script.wait_for("under way");
    for hours in STEPS {
        server.set_clock(hours);
        let clock = format!("SELECT round(extract(epoch FROM clock_timestamp() - '{}') / 3600)", machine_time());
        assert_eq!(server.psql(&clock), hours.to_string(), "the clock was set");
        script.tell("go on");
        script.wait_for("it goes on");
        let (master, client) = brokers.master();
        drop(client);
        brokers.brokers[master].kill_9();
        brokers.next_master(master, &format!("{strategy}, the clock set by {hours} h, a lease of 2 s, kill -9"));
        brokers.return_as_standby(master);
    }
    script.tell("go on");
    script.wait_for("it goes on");
    println!("{:?}", script.finish());
    brokers.stop();
}

/// As PostgreSQL reads it.
fn machine_time() -> String {
    let output = std::process::Command::new("date").arg("--iso-8601=seconds").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_clock_that_is_set_changes_nothing_for_a_session_lock() {
    steps_lose_nothing("session-lock");
}

#[test]
fn r23_a_clock_that_is_set_costs_a_lease_at_most() {
    steps_lose_nothing("lease");
}
