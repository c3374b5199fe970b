//! R21: an older copy of the whole database is put in its place while a broker runs on it.

use std::time::Instant;

use super::{Brokers, DOUBTS, short_lease};
use crate::harness::{DatabaseServer, PATIENCE, Stop};

on_each_database! {
    r21_a_database_that_was_restored_from_an_older_copy_ends_the_term
}

/// The copy names the same master in the same term, so only the database's own history tells.
fn r21_a_database_that_was_restored_from_an_older_copy_ends_the_term<D: DatabaseServer>() {
    let mut server = D::own();
    let mut brokers = Brokers::start(&server, 1, short_lease);
    brokers.announce(&DOUBTS);
    brokers.announce(&["this broker can't take part in the election", "an older copy was restored"]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    server.stop(Stop::Polite);
    server.copy_data();
    server.launch();
    let (kept, sent) = ("/queue/kept", 500);
    for number in 0..sent {
        client.publish(kept, &format!("after the copy {number}: {}", "x".repeat(10_000)));
    }
    signs_of_life(&server, &brokers);
    server.stop(Stop::Polite);
    server.restore_data();
    server.launch();
    let told = brokers.brokers[master].logged("the term is over");
    println!("{told}");
    let gone = client.reader.next();
    assert!(!matches!(gone, Ok(Some(_))), "its clients are dropped: {gone:?}");
    let (_, mut client) = brokers.master();
    client.publish(kept, "after the restore");
    client.subscribe(kept, "client", &[]);
    for text in ["before", "after the restore"] {
        assert_eq!(client.expect("MESSAGE").text(), text, "memory of what the copy does not have is gone");
    }
    assert_eq!(brokers.baton(&server, "term"), "2");
    drop(client);
    brokers.stop();
}

/// Waits for a few signs of life. There are as many heartbeats: the master has seen how far the database is by now.
fn signs_of_life(server: &impl DatabaseServer, brokers: &Brokers) {
    let since = Instant::now();
    let sign = || server.ask(&brokers.group, "SELECT max(seen) FROM {group}broker");
    let mut last = sign();
    for _ in 0..3 {
        while sign() == last {
            assert!(since.elapsed() < PATIENCE, "the master gives no sign of life");
        }
        last = sign();
    }
}
