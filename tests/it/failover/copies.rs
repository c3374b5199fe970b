//! R21: an older copy of the whole database is put in its place while a broker runs on it.

use super::{Brokers, DOUBTS, short_lease};
use crate::harness::{PATIENCE, PostgresServer};

/// The copy names the same master in the same term, so only the database's own history tells.
#[test]
fn r21_a_database_that_was_restored_from_an_older_copy_ends_the_term() {
    let mut server = PostgresServer::start(&[]);
    let mut brokers = Brokers::start(&server, 1, short_lease);
    brokers.announce(&DOUBTS);
    brokers.announce(&["this broker can't take part in the election", "cannot find who holds something"]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    server.stop("INT");
    server.copy_data();
    server.launch();
    client.publish("/queue/kept", "after the copy");
    server.psql("SELECT pg_switch_wal()"); // far ahead of what is written when the copy starts
    heartbeat(&server);
    server.stop("INT");
    server.restore_data();
    server.launch();
    let told = brokers.brokers[master].logged("the term is over");
    assert!(told.contains("the database was restored from an older copy"), "{told}");
    let gone = client.reader.next();
    assert!(!matches!(gone, Ok(Some(_))), "its clients are dropped: {gone:?}");
    let (_, mut client) = brokers.master();
    client.publish("/queue/kept", "after the restore");
    client.subscribe("/queue/kept", "client", &[]);
    for text in ["before", "after the restore"] {
        assert_eq!(client.expect("MESSAGE").text(), text, "memory of what the copy does not have is gone");
    }
    assert_eq!(brokers.baton(&server, "term"), "2");
    drop(client);
    brokers.stop();
}

/// Waits until the master has looked at the database once more.
fn heartbeat(server: &PostgresServer) {
    let now = server.psql("SELECT clock_timestamp()");
    let since = std::time::Instant::now();
    let asked = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE application_name = 'batonmq broker-0 lock' AND query_start > '{now}' AND state = 'idle'"
    );
    while server.psql(&asked) != "1" {
        assert!(since.elapsed() < PATIENCE, "the master says no word");
    }
}
