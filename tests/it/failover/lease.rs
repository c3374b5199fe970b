//! R23: a lease in a table, and a database whose clock is set.

use super::{Brokers, DOUBTS, short_lease};
use crate::harness::{PostgresServer, Settings};

fn by_lease(settings: Settings) -> Settings {
    short_lease(settings).option("election.strategy", "\"lease\"")
}

/// As after the clock was set back by an hour: nobody waits for that hour if nobody renews the lease.
#[test]
fn r23_a_lease_that_nobody_renews_is_over_after_a_lease_whatever_the_database_says() {
    let server = PostgresServer::shared();
    let mut brokers = Brokers::start(server, 2, by_lease);
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held"]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    brokers.brokers[master].kill_9();
    server.psql(&format!("UPDATE {}.lease SET until = clock_timestamp() + interval '1 hour'", brokers.group));
    let (_, mut client) = brokers.next_master(master, "the clock set back by an hour, a lease of 2 s");
    client.subscribe("/queue/kept", "client", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "before");
    brokers.return_as_standby(master);
    brokers.stop();
}

/// As after the clock was set forward: another broker takes the lease, and the master gives in.
#[test]
fn r23_a_lease_that_ran_out_by_the_databases_clock_is_taken() {
    let server = PostgresServer::shared();
    let mut brokers = Brokers::start(server, 2, by_lease);
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held"]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    while brokers.baton(server, "term") == "1" {
        server.psql(&format!("UPDATE {}.lease SET until = '-infinity'", brokers.group));
    }
    brokers.brokers[master].logged("and this broker is a standby");
    let (_, mut other) = brokers.next_master(master, "the clock set forward");
    other.subscribe("/queue/kept", "client", &[]);
    assert_eq!(other.expect("MESSAGE").text(), "before");
    brokers.stop();
}

/// A polite stop does not leave the lease to run out.
#[test]
fn a_lease_is_given_back_at_once() {
    let server = PostgresServer::shared();
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
