//! R23: a lease in a table, and a database whose clock is set.

use super::{Brokers, DOUBTS, short_lease};
use crate::harness::{DatabaseServer, Settings};

on_each_database! {
    r23_a_lease_that_nobody_renews_is_over_after_a_lease_whatever_the_database_says
    r23_a_lease_that_ran_out_by_the_databases_clock_is_taken
    a_lease_is_given_back_at_once
}

fn by_lease(settings: Settings) -> Settings {
    short_lease(settings).option("election.strategy", "\"lease\"")
}

/// As after the clock was set back: nobody waits for all that time if nobody renews the lease.
fn r23_a_lease_that_nobody_renews_is_over_after_a_lease_whatever_the_database_says<D: DatabaseServer>() {
    let server = D::shared();
    let mut brokers = Brokers::start(server, 2, by_lease);
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held"]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    brokers.brokers[master].kill_9();
    server.ask(&brokers.group, "UPDATE {group}lease SET until = '2100-01-01'");
    let (_, mut client) = brokers.next_master(master, "the clock set back, a lease of 2 s");
    client.subscribe("/queue/kept", "client", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "before");
    brokers.return_as_standby(master);
    brokers.stop();
}

/// As after the clock was set forward: another broker takes the lease, and the master gives in.
fn r23_a_lease_that_ran_out_by_the_databases_clock_is_taken<D: DatabaseServer>() {
    let server = D::shared();
    let mut brokers = Brokers::start(server, 2, by_lease);
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held"]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    while brokers.baton(server, "term") == "1" {
        server.ask(&brokers.group, "UPDATE {group}lease SET until = '1970-01-02'");
    }
    brokers.brokers[master].logged("and this broker is a standby");
    let (_, mut other) = brokers.next_master(master, "the clock set forward");
    other.subscribe("/queue/kept", "client", &[]);
    assert_eq!(other.expect("MESSAGE").text(), "before");
    brokers.stop();
}

/// A polite stop does not leave the lease to run out.
fn a_lease_is_given_back_at_once<D: DatabaseServer>() {
    let server = D::shared();
    let mut brokers = Brokers::start(server, 2, by_lease);
    let (master, client) = brokers.master();
    drop(client);
    brokers.brokers[master].ask_to_stop();
    brokers.next_master(master, "polite stop with a lease");
    let (status, log) = brokers.brokers[master].ended();
    assert!(status.success(), "{log}");
    brokers.return_as_standby(master);
    brokers.stop();
}
