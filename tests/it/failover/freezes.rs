//! Brokers that stand still for longer than a lease, and then go on as if nothing had happened.

use std::{io::Write as _, process::Stdio, thread::sleep, time::Duration};

use super::{Brokers, DOUBTS, short_lease};
use crate::harness::{PostgresServer, encode};

#[test]
fn a_master_that_was_frozen_past_its_lease_confirms_nothing_any_more() {
    let server = PostgresServer::shared();
    for strategy in ["session-lock", "lease"] {
        let strategy = format!("{strategy:?}");
        let mut brokers = Brokers::start(server, 2, |s| short_lease(s).option("election.strategy", &strategy));
        brokers.announce(&DOUBTS);
        brokers.announce(&["the row of the baton is held"]);
        let (master, mut client) = brokers.master();
        client.publish("/queue/kept", "before");
        brokers.brokers[master].freeze();
        client.send(encode("SEND", &[("destination", "/queue/kept"), ("receipt", "late")], b"late"));
        let (next, mut other) = brokers.next_master(master, &format!("frozen, {strategy}, a lease of 2 s"));
        other.publish("/queue/kept", "after");
        brokers.brokers[master].thaw();
        let answer = client.reader.next();
        assert!(!matches!(answer, Ok(Some(_))), "nothing is confirmed: {answer:?}");
        brokers.brokers[master].logged("and this broker is a standby");
        other.subscribe("/queue/kept", "client", &[]);
        for text in ["before", "after"] {
            assert_eq!(other.expect("MESSAGE").text(), text);
        }
        let reasons = brokers.reasons(server);
        assert_eq!(reasons, ["nothing was heard of it any more: it was frozen, or cut off", "-"]);
        drop(other);
        brokers.brokers[next].kill_9();
        let (again, mut client) = brokers.next_master(next, "kill -9 of the one that took over");
        assert_eq!(again, master, "it waits for its turn again");
        client.publish("/queue/kept", "again");
        brokers.brokers[master].sigterm();
    }
}

/// The winner of the lock stands still before its first UPDATE: somebody holds the row for so long.
#[test]
fn r22_the_lease_covers_a_winner_that_is_frozen_before_it_takes_over() {
    let server = PostgresServer::shared();
    let mut brokers = Brokers::start(server, 3, short_lease);
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held", "this broker can't take part in the election"]);
    let (master, client) = brokers.master();
    drop(client);
    let mut stranger = server.psql_command().stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut says = stranger.stdin.take().unwrap();
    writeln!(says, "BEGIN; SELECT 1 FROM {}.baton FOR UPDATE;", brokers.group).unwrap();
    let holds =
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%FOR UPDATE%'";
    wait_for(|| server.psql(&format!("{holds} AND query LIKE '%{}%'", brokers.group)) == "1");
    brokers.brokers[master].kill_9();
    let winner = format!(
        "SELECT application_name FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
         AND query LIKE '%UPDATE%{}%baton%'",
        brokers.group
    );
    let mut name = String::new();
    wait_for(|| {
        name = server.psql(&winner);
        !name.is_empty()
    });
    let number: usize = name.trim_end_matches(" lock").rsplit('-').next().unwrap().parse().unwrap();
    brokers.brokers[number].freeze();
    drop(says);
    stranger.wait().unwrap();
    let (next, mut client) = brokers.next_master(number, "the winner frozen before its first UPDATE, a lease of 2 s");
    assert!(next != number && next != master, "neither the frozen one nor the dead one");
    client.publish("/queue/kept", "m");
    brokers.brokers[number].thaw();
    client.publish("/queue/kept", "n");
    assert_eq!(brokers.master().0, next, "the one that was frozen waits");
    brokers.brokers[next].sigterm();
    brokers.brokers[number].sigterm();
}

/// For what only the database knows.
fn wait_for(mut holds: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("it does not happen");
}
