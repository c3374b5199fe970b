//! The database restarts, crashes, goes away, or ends a session.

use super::{Brokers, DOUBTS, short_lease};
use crate::harness::{Broker, DatabaseServer, Script, Stop, encode, own_group};

on_each_database! {
    r18_a_master_whose_lock_session_is_ended_goes_on_if_nobody_took_over
    a_standby_takes_over_when_the_masters_lock_session_is_ended
    r20_a_master_whose_database_restarts_goes_on_in_the_same_term
    r20_clients_under_load_stay_connected_while_the_database_restarts
    r20_a_broker_that_starts_while_the_database_restarts_lets_the_master_go_on
    a_master_whose_database_stays_away_drops_its_clients_and_waits
    a_row_that_names_somebody_else_ends_the_term
    a_group_begins_with_several_brokers_at_once
}

fn r18_a_master_whose_lock_session_is_ended_goes_on_if_nobody_took_over<D: DatabaseServer>() {
    let server = D::shared();
    for strategy in ["\"session-lock\"", "\"lease\""] {
        let mut brokers = Brokers::start(server, 1, |s| short_lease(s).option("election.strategy", strategy));
        brokers.announce(&DOUBTS);
        let (master, mut client) = brokers.master();
        client.publish("/queue/kept", "before");
        server.end_lock_session(&brokers.group);
        brokers.brokers[master].logged("the lock is held again");
        client.publish("/queue/kept", "after");
        assert_eq!(brokers.baton(server, "term"), "1", "the same term, the same connection");
        brokers.stop();
    }
}

fn a_standby_takes_over_when_the_masters_lock_session_is_ended<D: DatabaseServer>() {
    let server = D::shared();
    let mut brokers = Brokers::start(server, 2, |settings| settings);
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held"]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    server.end_lock_session(&brokers.group);
    brokers.brokers[master].logged("and this broker is a standby");
    let gone = client.reader.next();
    assert!(!matches!(gone, Ok(Some(_))), "its clients are dropped: {gone:?}");
    let (_, mut client) = brokers.next_master(master, "the lock session ended by an administrator");
    client.subscribe("/queue/kept", "client", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "before");
    brokers.stop();
}

fn r20_a_master_whose_database_restarts_goes_on_in_the_same_term<D: DatabaseServer>() {
    let mut server = D::own();
    let mut brokers = Brokers::start(&server, 3, |settings| settings);
    brokers.announce(&DOUBTS);
    brokers.announce(&["this broker can't take part in the election"]);
    let (master, mut client) = brokers.master();
    client.subscribe("/queue/kept", "client-individual", &[]);
    for (round, how) in [Stop::Polite, Stop::Crash, Stop::Polite].into_iter().enumerate() {
        client.publish("/queue/kept", &format!("before {round}"));
        server.stop(how);
        // It is on its way while nobody can store it; the receipt comes late, over the same connection.
        let headers = [("destination", "/queue/kept"), ("persistent", "true"), ("receipt", "late")];
        client.send(encode("SEND", &headers, format!("during {round}").as_bytes()));
        server.launch();
        let mut bodies = Vec::new();
        let mut is_confirmed = false;
        while bodies.len() < 2 || !is_confirmed {
            let frame = client.frame();
            match &*frame.command {
                "MESSAGE" => {
                    bodies.push(frame.text().to_owned());
                    client.send(encode("ACK", &[("id", frame.header("ack"))], b""));
                }
                "RECEIPT" => is_confirmed |= frame.header("receipt-id") == "late",
                other => panic!("{other}: {frame:?}"),
            }
        }
        assert_eq!(bodies, [format!("before {round}"), format!("during {round}")]);
    }
    assert_eq!(brokers.baton(&server, "term"), "1");
    assert_eq!(brokers.master().0, master);
    drop(client);
    brokers.stop();
}

/// A foreign library is in the middle of its work, and would give up a broker whose heart-beats do not go on (R24).
fn r20_clients_under_load_stay_connected_while_the_database_restarts<D: DatabaseServer>() {
    let mut server = D::own();
    let mut brokers = Brokers::start(&server, 3, |settings| settings);
    brokers.announce(&DOUBTS);
    brokers.announce(&["this broker can't take part in the election"]);
    brokers.announce(&["the database warned: terminating connection"]); // a batch may be under way when it crashes
    let mut script = Script::python_with("failover.py", &brokers.addresses, &["--heart-beat", "500"]);
    script.wait_for("under way");
    for how in [Stop::Polite, Stop::Crash] {
        script.tell("go on");
        script.wait_for("it goes on");
        server.stop(how);
        script.tell("heart-beats");
        script.wait_for("heard them");
        server.launch();
    }
    script.tell("go on");
    script.wait_for("it goes on");
    let told = script.finish();
    assert!(told.iter().any(|line| line == "connected 2 times"), "{told:?}");
    assert_eq!(brokers.baton(&server, "term"), "1");
    brokers.stop();
}

fn r20_a_broker_that_starts_while_the_database_restarts_lets_the_master_go_on<D: DatabaseServer>() {
    let mut server = D::own();
    let mut brokers = Brokers::start(&server, 1, |settings| settings);
    brokers.announce(&DOUBTS);
    let (_, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    server.stop(Stop::Polite);
    let settings = server.settings(&brokers.group).option("broker_name", "\"eager\"");
    let mut eager = Broker::prepare(settings);
    eager.announce("this broker can't take part in the election");
    eager.launch();
    eager.logged("this broker can't take part in the election");
    server.launch();
    eager.logged("standby: another broker holds");
    client.publish("/queue/kept", "after");
    assert_eq!(brokers.baton(&server, "term"), "1", "the same term, the same connection");
    eager.sigterm();
    brokers.stop();
}

fn a_master_whose_database_stays_away_drops_its_clients_and_waits<D: DatabaseServer>() {
    let mut server = D::own();
    let mut brokers = Brokers::start(&server, 1, |settings| settings);
    brokers.announce(&DOUBTS);
    brokers.announce(&["this broker can't take part in the election"]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    server.stop(Stop::Crash);
    let gone = client.reader.next();
    assert!(!matches!(gone, Ok(Some(_))), "its clients are dropped: {gone:?}");
    brokers.brokers[master].logged("and this broker is a standby");
    server.launch();
    let (_, mut client) = brokers.master();
    client.subscribe("/queue/kept", "client", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "before");
    assert_eq!(brokers.baton(&server, "term"), "2");
    let reasons = brokers.reasons(&server);
    assert!(reasons[0].contains("it lost the lock, and took over again"), "{reasons:?}");
    brokers.stop();
}

/// R21: somebody puts an older copy of the tables back while a broker runs.
fn a_row_that_names_somebody_else_ends_the_term<D: DatabaseServer>() {
    let server = D::shared();
    let mut brokers = Brokers::start(server, 1, short_lease);
    brokers.announce(&DOUBTS);
    brokers.announce(&["cannot serve"]);
    let (master, client) = brokers.master();
    drop(client);
    server.ask(&brokers.group, "UPDATE {group}baton SET holder = 'stranger', instance = 'other'");
    brokers.brokers[master].logged("broker stranger took over");
    let (_, mut client) = brokers.master();
    client.publish("/queue/kept", "after");
    assert_eq!(brokers.baton(server, "term"), "2");
    brokers.stop();
}

fn a_group_begins_with_several_brokers_at_once<D: DatabaseServer>() {
    let server = D::shared();
    let group = own_group();
    let mut brokers = Vec::new();
    for number in 0..3 {
        let name = format!("\"broker-{number}\"");
        let mut broker = Broker::prepare(server.settings(&group).option("broker_name", &name));
        broker.launch();
        brokers.push(broker);
    }
    let settled = |broker: &Broker| broker.logged_one_of(&["ready", "standby: another broker holds"]);
    let masters = brokers.iter().map(settled).filter(|line| line.contains("ready")).count();
    assert_eq!(masters, 1);
    assert_eq!(server.ask(&group, "SELECT count(*) FROM {group}tenure"), "1");
    // At once, so that nobody takes over from who ends first.
    brokers.iter().for_each(Broker::ask_to_stop);
    for broker in &mut brokers {
        let (status, log) = broker.ended();
        assert!(status.success(), "{log}");
    }
}
