//! Databases that survive the loss of a machine: what takes over there has all that was confirmed.

use std::time::Instant;

use super::{Brokers, DOUBTS, short_lease};
use crate::harness::{Broker, DatabaseServer as _, Frame, PATIENCE, Raw, Script, encode, own_group};
#[cfg(feature = "mysql")]
use crate::harness::{Galera, Stop};
#[cfg(feature = "postgres")]
use crate::harness::{PostgresServer, Settings};

/// What brokers say while their database is not there, or another one.
const OUTAGE: [&str; 2] =
    ["this broker can't take part in the election", "the database warned: terminating connection"];

/// A client of a foreign library is in the middle of its work when the primary is killed, and an administrator makes a
/// primary of the standby that every commit waited for.
#[cfg(feature = "postgres")]
#[test]
fn r16_a_synchronous_standby_that_is_promoted_has_all_that_was_confirmed() {
    let mut primary = PostgresServer::start(&["synchronous_standby_names=standby"]);
    let standby = primary.standby();
    let brokers = on_both(&primary, &standby, |settings| settings);
    let mut script = under_way(&brokers);
    primary.kill_9();
    standby.promote();
    serving_again(&brokers, "the primary was killed and the standby promoted");
    go_on(&mut script);
    println!("{:?}", script.finish());
    assert_eq!(brokers.baton(&standby, "term"), "2", "another timeline is another history (R21)");
    brokers.stop();
}

/// The same when nothing says that the primary is gone: it does not answer any more.
#[cfg(feature = "postgres")]
#[test]
fn a_primary_that_does_not_answer_keeps_nobody_from_the_standby_that_is_promoted() {
    let primary = PostgresServer::start(&["synchronous_standby_names=standby"]);
    let standby = primary.standby();
    let brokers = on_both(&primary, &standby, short_lease);
    let mut script = under_way(&brokers);
    let _dark = primary.go_dark();
    standby.promote();
    serving_again(&brokers, "the primary was frozen and the standby promoted, with a lease of 2 s");
    go_on(&mut script);
    println!("{:?}", script.finish());
    brokers.stop();
}

#[cfg(feature = "postgres")]
fn on_both(primary: &PostgresServer, standby: &PostgresServer, own: impl Fn(Settings) -> Settings) -> Brokers {
    let either = format!("{:?}", primary.url_with(standby));
    let mut brokers = Brokers::start(primary, 2, |settings| own(settings).option("store.url", &either));
    brokers.announce(&DOUBTS);
    brokers.announce(&OUTAGE);
    brokers
}

/// Nothing is confirmed without it, so nobody becomes master before it is there, and the log says why.
#[cfg(feature = "postgres")]
#[test]
fn r16_a_take_over_waits_for_the_synchronous_standby_and_says_so() {
    let server = PostgresServer::start(&["synchronous_standby_names=standby"]);
    let mut broker = Broker::prepare(short_lease(server.settings(&own_group())));
    broker.announce("the take-over takes long");
    broker.launch();
    broker.logged("the take-over takes long");
    let _standby = server.standby();
    broker.serving();
    broker.sigterm();
}

/// Every commit is on all nodes, so that the master goes on in its term, with its clients, on another one.
#[cfg(feature = "mysql")]
#[test]
fn r15_the_other_nodes_of_a_cluster_have_all_that_was_confirmed() {
    let mut cluster = Galera::start();
    let mut brokers = Brokers::start_each(2, |_, group| cluster.settings(group));
    brokers.announce(&DOUBTS);
    brokers.announce(&OUTAGE);
    let mut script = under_way(&brokers);
    cluster.nodes[0].stop(Stop::Crash);
    cluster.is_there_again();
    serving_again(&brokers, "a node was killed, and the others took a write");
    go_on(&mut script);
    let told = script.finish();
    assert!(told.iter().any(|line| line == "connected 2 times"), "{told:?}");
    assert_eq!(brokers.baton(&cluster.nodes[1], "term"), "1");
    brokers.stop();
}

/// What the old master still writes on its node is refused there, although that node takes its time to hear of the new one.
#[cfg(feature = "mysql")]
#[test]
fn r15_brokers_on_different_nodes_take_over_from_each_other() {
    let cluster = Galera::shared();
    let mut brokers = Brokers::start_each(3, |number, group| short_lease(cluster.settings_from(number, group)));
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held", "the store asks to try again"]);
    let mut script = under_way(&brokers);
    for _ in 0..3 {
        let (master, client) = brokers.master();
        drop(client);
        brokers.brokers[master].freeze();
        brokers.next_master(master, "frozen on one node, replaced on another, with a lease of 2 s");
        brokers.brokers[master].thaw();
        go_on(&mut script);
    }
    println!("{:?}", script.finish());
    let terms = cluster.nodes.each_ref().map(|node| brokers.baton(node, "term"));
    assert!(terms.iter().all(|term| *term == terms[0]), "{terms:?}");
    brokers.stop();
}

/// Each node has session locks of its own.
#[cfg(feature = "mysql")]
#[test]
fn a_broker_on_a_cluster_refuses_session_locks() {
    let cluster = Galera::shared();
    for strategy in ["\"auto\"", "\"session-lock\""] {
        let settings = cluster.settings(&own_group()).option("election.strategy", strategy);
        let said = Broker::prepare(settings).refuses_to_start(1);
        assert!(said.contains("a session lock is known to one of its nodes only"), "{said}");
        assert!(said.contains("set election.strategy to \"lease\""), "{said}");
    }
}

fn under_way(brokers: &Brokers) -> Script {
    let mut script = Script::python_with("failover.py", &brokers.addresses, &[]);
    script.wait_for("under way");
    go_on(&mut script);
    script
}

fn go_on(script: &mut Script) {
    script.tell("go on");
    script.wait_for("it goes on");
}

/// Waits for a first receipt, and tells how long that takes.
fn serving_again(brokers: &Brokers, since_what: &str) {
    let since = Instant::now();
    while first_receipt(brokers.master().1).is_none() {
        assert!(since.elapsed() < PATIENCE, "nothing is confirmed any more");
    }
    println!("{since_what}: a receipt {:?} later", since.elapsed());
}

/// `None`: the broker is not the master any more.
fn first_receipt(mut client: Raw) -> Option<Frame> {
    let headers = [("destination", "/queue/another"), ("persistent", "true"), ("receipt", "first")];
    client.writer.send(encode("SEND", &headers, b"the first one")).ok()?;
    client.reader.next().ok()?
}
