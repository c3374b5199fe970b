//! Brokers that stand still for longer than a lease, and then go on as if nothing had happened.

use super::{Brokers, DOUBTS, short_lease};
use crate::harness::{DatabaseServer, encode};

on_each_database! {
    a_master_that_was_frozen_past_its_lease_confirms_nothing_any_more
    r22_the_lease_covers_a_winner_that_is_frozen_before_it_takes_over
}

fn a_master_that_was_frozen_past_its_lease_confirms_nothing_any_more<D: DatabaseServer>() {
    let server = D::shared();
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
        let mut texts = [(); 2].map(|()| other.expect("MESSAGE").text().to_owned());
        if texts[1] == "late" {
            texts[1] = other.expect("MESSAGE").text().to_owned(); // stored before it stood still, and not confirmed
        }
        assert_eq!(texts, ["before", "after"]);
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
fn r22_the_lease_covers_a_winner_that_is_frozen_before_it_takes_over<D: DatabaseServer>() {
    let server = D::shared();
    let mut brokers = Brokers::start(server, 3, short_lease);
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held", "this broker can't take part in the election"]);
    let (master, client) = brokers.master();
    drop(client);
    let stranger = server.hold_baton(&brokers.group);
    brokers.brokers[master].kill_9();
    let number = brokers.who_says("the row of the baton is held");
    brokers.brokers[number].freeze();
    stranger.leave();
    let (next, mut client) = brokers.next_master(number, "the winner frozen before its first UPDATE, a lease of 2 s");
    assert!(next != number && next != master, "neither the frozen one nor the dead one");
    client.publish("/queue/kept", "m");
    brokers.brokers[number].thaw();
    client.publish("/queue/kept", "n");
    assert_eq!(brokers.master().0, next, "the one that was frozen waits");
    brokers.brokers[next].sigterm();
    brokers.brokers[number].sigterm();
}
