//! The connection between a master and its database ends on the database's side only: the master hears nothing.

use std::cell::Cell;

use super::{
    Brokers, DOUBTS,
    network::{network, through, through_first},
    short_lease, wait_for,
};
use crate::harness::{Broker, DatabaseServer, Proxy, Raw, encode, get, own_group};

on_each_database! {
    r24_a_master_that_hears_nothing_pauses_turns_clients_away_and_goes_on
    a_master_that_hears_nothing_confirms_nothing_after_another_took_over
    a_standby_that_hears_nothing_takes_over_nevertheless
    r22_a_master_whose_recovery_hears_nothing_gives_the_baton_back
    r22_a_master_whose_migration_hears_nothing_gives_the_baton_back
}

fn r24_a_master_that_hears_nothing_pauses_turns_clients_away_and_goes_on<D: DatabaseServer>() {
    let server = D::shared();
    let network = network();
    let proxy = network.block_on(Proxy::to(server.port()));
    let mut brokers = Brokers::start(server, 1, |settings| through(&proxy, server, short_lease(settings)).console());
    brokers.announce(&DOUBTS);
    let console = brokers.brokers[0].console();
    assert_eq!(get(console, "/health/master").status, 200);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    proxy.cut_on_servers_side();
    brokers.brokers[master].logged("in doubt");
    wait_for(|| get(console, "/health/master").status == 503);
    assert_eq!(get(console, "/health/live").status, 200, "it is alive all the same");
    assert!(Raw::try_connect(brokers.addresses[master]).is_none(), "nobody new is let in");
    brokers.brokers[master].logged("the lock is held again");
    client.publish("/queue/kept", "after");
    wait_for(|| get(console, "/health/master").status == 200);
    assert_eq!(brokers.baton(server, "term"), "1", "the same term, the same connection");
    drop(client);
    brokers.stop();
}

fn a_master_that_hears_nothing_confirms_nothing_after_another_took_over<D: DatabaseServer>() {
    let server = D::shared();
    let network = network();
    let proxy = network.block_on(Proxy::to(server.port()));
    let proxied = through_first(&proxy, server);
    let mut brokers = Brokers::start(server, 2, |settings| proxied(short_lease(settings)));
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held", "this broker can't take part in the election"]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    proxy.cut_on_servers_side();
    let (_, mut other) = brokers.next_master(master, "ended on the database's side only");
    other.publish("/queue/kept", "after");
    client.send(encode("SEND", &[("destination", "/queue/kept"), ("receipt", "late")], b"late"));
    let answer = client.reader.next();
    assert!(!matches!(answer, Ok(Some(_))), "nothing is confirmed: {answer:?}");
    brokers.brokers[master].logged("and this broker is a standby");
    other.subscribe("/queue/kept", "client", &[]);
    for text in ["before", "after"] {
        assert_eq!(other.expect("MESSAGE").text(), text);
    }
    drop(other);
    brokers.stop();
}

/// A broker that waits on a connection of which only the database knows that it has ended is there all the same.
fn a_standby_that_hears_nothing_takes_over_nevertheless<D: DatabaseServer>() {
    let server = D::shared();
    let network = network();
    let proxy = network.block_on(Proxy::to(server.port()));
    let is_first = Cell::new(true);
    let mut brokers =
        Brokers::start(
            server,
            2,
            |settings| {
                if is_first.replace(false) { settings } else { through(&proxy, server, settings) }
            },
        );
    brokers.announce(&["this broker can't take part in the election", "the row of the baton is held"]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    proxy.cut_on_servers_side();
    brokers.brokers[master].kill_9();
    let (_, mut client) = brokers.next_master(master, "the standby's connection ended on the database's side only");
    client.subscribe("/queue/kept", "client", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "before");
    brokers.return_as_standby(master);
    drop(client);
    brokers.stop();
}

/// It has the lock, on a session that answers; what it reads for its term never arrives. Another broker serves after the
/// time in which a connection counts as lost.
fn r22_a_master_whose_recovery_hears_nothing_gives_the_baton_back<D: DatabaseServer>() {
    let server = D::shared();
    let network = network();
    let proxy = network.block_on(Proxy::to(server.port()));
    let direct_first = Cell::new(true);
    let settings = |settings| if direct_first.replace(false) { settings } else { through(&proxy, server, settings) };
    let mut brokers = Brokers::start(server, 2, settings);
    brokers.announce(&[
        "the database has taken",
        "cannot serve",
        "the row of the baton is held",
        "still held the baton",
    ]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    proxy.lose_answers_after("dispatch_mark");
    brokers.brokers[master].kill_9();
    let silent = brokers.who_says("the database has taken 5 s to");
    assert_ne!(silent, master);
    brokers.return_as_standby(master);
    brokers.brokers[silent].logged("cannot serve: the database fails at");
    let (now, mut client) = brokers.next_master(silent, "the standby's recovery was not answered");
    assert_eq!(now, master);
    client.subscribe("/queue/kept", "client", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "before");
    proxy.cut();
    drop(client);
    brokers.stop();
}

/// The session that makes the tables is gone on the database's side, and nobody hears of it.
fn r22_a_master_whose_migration_hears_nothing_gives_the_baton_back<D: DatabaseServer>() {
    let server = D::shared();
    let network = network();
    let proxy = network.block_on(Proxy::to(server.port()));
    // So long a lease that it is not what ends the session.
    let settings = server.settings(&own_group()).option("election.lease", "\"60s\"");
    let mut broker = Broker::prepare(through(&proxy, server, settings));
    broker.announce("the take-over takes long");
    broker.announce("this broker can't take part in the election");
    proxy.lose_answers_after("CREATE TABLE");
    broker.launch();
    broker.logged("the take-over takes long");
    proxy.cut_on_servers_side();
    broker.logged("the database is not at the tables any more");
    proxy.cut();
    broker.serving();
    broker.sigterm();
}
