//! Brokers that are killed, or stopped.

use std::ops::Range;

use super::Brokers;
use crate::harness::{Broker, DatabaseServer, Raw, Script, Settings, encode, own_group};

on_each_database! {
    a_broker_alone_loses_nothing_by_a_kill
    ten_kills_in_a_row_lose_nothing
    a_polite_stop_hands_over_at_once
    r17_a_take_over_goes_on_in_a_higher_term
}

/// Longer than a test waits for anything: nobody who takes over waited for its end.
fn long_lease(settings: Settings) -> Settings {
    settings.option("election.lease", "\"5m\"")
}

/// What was confirmed survives, and nothing that was acknowledged comes back.
fn a_broker_alone_loses_nothing_by_a_kill<D: DatabaseServer>() {
    let (server, group) = (D::shared(), own_group());
    let mut broker = Broker::start_with(server.settings(&group));
    let mut client = Raw::connect(broker.address());
    for number in 0..20 {
        client.publish("/queue/orders", &format!("order {number}"));
    }
    let take = |client: &mut Raw, numbers: Range<u32>| {
        client.subscribe("/queue/orders", "client-individual", &[("prefetch-count", "1")]);
        for number in numbers {
            let next = client.expect("MESSAGE");
            assert_eq!(next.text(), format!("order {number}"));
            client.ack(&next);
        }
    };
    take(&mut client, 0..5);
    broker.kill_9();
    broker.restart();
    let mut client = Raw::connect(broker.address());
    take(&mut client, 5..20);
    assert_eq!(server.ask(&group, "SELECT messages FROM {group}queue_depth WHERE name = 'orders'"), "0");
    client.disconnect();
}

/// The main job: whoever is master is killed ten times in a row, each comes back as a standby, and a client of a foreign
/// library with the list of all three goes on.
fn ten_kills_in_a_row_lose_nothing<D: DatabaseServer>() {
    let server = D::shared();
    let mut brokers = Brokers::start(server, 3, long_lease);
    brokers.announce(&["the row of the baton is held"]);
    let mut script = Script::python_with("failover.py", &brokers.addresses, &[]);
    script.wait_for("under way");
    for _ in 0..10 {
        script.tell("go on");
        script.wait_for("it goes on");
        let (master, client) = brokers.master();
        drop(client);
        brokers.brokers[master].kill_9();
        brokers.next_master(master, "kill -9");
        brokers.return_as_standby(master);
    }
    script.tell("go on");
    script.wait_for("it goes on");
    println!("{:?}", script.finish());
    let reasons = brokers.reasons(server);
    assert_eq!(reasons.len(), 11, "{reasons:?}");
    assert!(reasons[..10].iter().all(|reason| reason.contains("killed")), "{reasons:?}");
    assert_eq!(brokers.baton(server, "term"), "11");
    brokers.stop();
}

/// One client is idle and keeps its socket open whatever the broker says; nobody waits for it.
fn a_polite_stop_hands_over_at_once<D: DatabaseServer>() {
    let server = D::shared();
    let mut brokers = Brokers::start(server, 2, long_lease);
    let (master, mut idle) = brokers.master();
    let mut client = Raw::connect(brokers.addresses[master]);
    client.publish("/queue/kept", "before");
    brokers.brokers[master].ask_to_stop();
    let (_, mut other) = brokers.next_master(master, "polite stop");
    other.subscribe("/queue/kept", "client", &[]);
    assert_eq!(other.expect("MESSAGE").text(), "before");
    idle.closed();
    drop((idle, client));
    let (status, log) = brokers.brokers[master].ended();
    assert!(status.success(), "{log}");
    assert_eq!(brokers.reasons(server), ["it was stopped", "-"]);
    let signs = server.ask(&brokers.group, "SELECT count(*) FROM {group}broker WHERE name = 'broker-0'");
    assert_eq!(signs, "0", "it signed off");
    brokers.return_as_standby(master);
    brokers.stop();
}

/// R17: nothing that one master gave an id is found under the same id by the next.
fn r17_a_take_over_goes_on_in_a_higher_term<D: DatabaseServer>() {
    let server = D::shared();
    let mut brokers = Brokers::start(server, 2, |settings| settings);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "first");
    brokers.brokers[master].kill_9();
    let (next, mut client) = brokers.master();
    client.publish("/queue/kept", "second");
    let terms = server.ask(&brokers.group, "SELECT sequence >> 40 FROM {group}message ORDER BY sequence");
    assert_eq!(terms, "1\n2");
    client.subscribe("/queue/kept", "client-individual", &[]);
    for text in ["first", "second"] {
        let message = client.expect("MESSAGE");
        assert_eq!(message.text(), text);
        client.send(encode("ACK", &[("id", message.header("ack"))], b""));
    }
    client.disconnect();
    brokers.brokers[next].sigterm();
}
