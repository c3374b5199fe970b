//! Brokers that are killed, or stopped.

use super::Brokers;
use crate::harness::{DatabaseServer, Raw, Script, Settings, encode};

on_each_database! {
    ten_kills_in_a_row_lose_nothing
    a_polite_stop_hands_over_at_once
    r17_a_take_over_goes_on_in_a_higher_term
}

/// Longer than a test waits for anything: nobody who takes over waited for its end.
fn long_lease(settings: Settings) -> Settings {
    settings.option("election.lease", "\"5m\"")
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
