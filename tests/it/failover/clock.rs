//! The database's clock is set, by an hour either way.

use super::{Brokers, DOUBTS, short_lease};
use crate::harness::{DatabaseServer, Script};

on_each_database! {
    a_clock_that_is_set_changes_nothing_for_a_session_lock
    r23_a_clock_that_is_set_costs_a_lease_at_most
}

/// Hours ahead of the machine's clock, one after the other: each is a step of an hour or more.
const STEPS: [i32; 4] = [1, 0, -1, 1];

/// A producer and a consumer go on, and check that everything confirmed is there once and in order. After each step the
/// master is killed: nobody waits for an hour that was only on a clock.
fn steps_lose_nothing<D: DatabaseServer>(strategy: &str) {
    let server = D::own_with_clock();
    let by = format!("{strategy:?}");
    let mut brokers = Brokers::start(&server, 3, |s| short_lease(s).option("election.strategy", &by));
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held"]);
    let mut script = Script::python_with("failover.py", &brokers.addresses, &[]);
    script.wait_for("under way");
    for hours in STEPS {
        server.clock().set(hours);
        script.tell("go on");
        script.wait_for("it goes on");
        let (master, client) = brokers.master();
        drop(client);
        brokers.brokers[master].kill_9();
        brokers.next_master(master, &format!("{strategy}, the clock at {hours} h, a lease of 2 s, kill -9"));
        brokers.return_as_standby(master);
    }
    script.tell("go on");
    script.wait_for("it goes on");
    println!("{:?}", script.finish());
    brokers.stop();
}

fn a_clock_that_is_set_changes_nothing_for_a_session_lock<D: DatabaseServer>() {
    steps_lose_nothing::<D>("session-lock");
}

fn r23_a_clock_that_is_set_costs_a_lease_at_most<D: DatabaseServer>() {
    steps_lose_nothing::<D>("lease");
}
