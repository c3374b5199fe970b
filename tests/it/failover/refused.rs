//! A message that the database refuses: its sender gets ERROR, and whoever else is in the same batch does not notice
//! (R13).

use super::Brokers;
#[cfg(feature = "mysql")]
use super::DOUBTS;
use crate::harness::{DatabaseServer, Frame, Raw, encode};

on_each_database! {
    r13_only_the_sender_of_what_the_database_refuses_gets_error
    r13_a_destination_that_the_database_refuses_is_refused_to_who_sends_there
    what_no_text_of_a_database_takes_is_refused_at_the_door_and_everything_else_comes_back
}

const QUEUE: &str = "/queue/orders";

/// Tells that everything which its sender sent before was taken.
const PROBE: &str = "/queue/probe";

/// A SEND with its text as receipt, and a word to somebody who counts what was taken.
fn send_and_tell(client: &mut Raw, text: &str, body: &str) {
    let headers = [("destination", QUEUE), ("persistent", "true"), ("receipt", text)];
    let probe = encode("SEND", &[("destination", PROBE), ("persistent", "false")], b"taken");
    client.send([encode("SEND", &headers, body.as_bytes()), probe].concat());
}

/// Clients whose messages are in one batch: the one that is under way waits until all of them are taken.
fn in_one_batch<D: DatabaseServer>(brokers: &Brokers, server: &D, bodies: &[String]) -> Vec<Raw> {
    let connect = || brokers.master().1;
    let (mut first, mut counter) = (connect(), connect());
    counter.subscribe(PROBE, "auto", &[]);
    let mut clients: Vec<Raw> = bodies.iter().map(|_| connect()).collect();
    let stranger = server.hold_baton(&brokers.group);
    send_and_tell(&mut first, "first", "first");
    counter.expect("MESSAGE");
    for (number, (client, body)) in clients.iter_mut().zip(bodies).enumerate() {
        send_and_tell(client, &number.to_string(), body);
        counter.expect("MESSAGE");
    }
    stranger.leave();
    assert_eq!(first.expect("RECEIPT").header("receipt-id"), "first");
    clients
}

fn r13_only_the_sender_of_what_the_database_refuses_gets_error<D: DatabaseServer>() {
    const BAD: usize = 4;
    let server = D::shared();
    let mut brokers = Brokers::start(server, 1, |settings| settings);
    brokers.announce(&["the store refuses an operation", "the store takes more than", "the database has taken"]);
    server.ask(&brokers.group, "ALTER TABLE {group}message ADD CHECK (size < 2000)");
    let body = |number| format!("{number} {}", if number == BAD { "x".repeat(5_000) } else { String::new() });
    let bodies: Vec<String> = (0..8).map(body).collect();
    for (number, mut client) in in_one_batch(&brokers, server, &bodies).into_iter().enumerate() {
        if number == BAD {
            assert_eq!(client.refused("refused the message").header("receipt-id"), number.to_string());
        } else {
            assert_eq!(client.expect("RECEIPT").header("receipt-id"), number.to_string());
            client.publish(PROBE, "it goes on");
        }
    }
    brokers.brokers[0].kill_9();
    brokers.brokers[0].restart();
    let (_, mut client) = brokers.master();
    client.subscribe(QUEUE, "client-individual", &[]);
    let expected = ["first".to_owned()].into_iter().chain(bodies.into_iter().filter(|body| body.len() < 2_000));
    for body in expected {
        assert_eq!(client.expect("MESSAGE").text(), body);
    }
    drop(client);
    brokers.stop();
}

/// Nothing is stored that a take-over would not find; when the database takes the name, it serves.
fn r13_a_destination_that_the_database_refuses_is_refused_to_who_sends_there<D: DatabaseServer>() {
    const FORBIDDEN: &str = "/queue/forbidden";
    let server = D::shared();
    let mut brokers = Brokers::start(server, 1, |settings| settings);
    brokers.announce(&["the store refuses an operation"]);
    let (_, mut good) = brokers.master();
    server.ask(&brokers.group, "ALTER TABLE {group}destination ADD CONSTRAINT allowed CHECK (name <> 'forbidden')");
    for text in ["once", "twice"] {
        let (_, mut client) = brokers.master();
        send_and_tell(&mut client, text, text);
        client.expect("RECEIPT");
        let headers = [("destination", FORBIDDEN), ("persistent", "true"), ("receipt", text)];
        client.send(encode("SEND", &headers, b"nobody gets it"));
        assert_eq!(client.refused("refused to make the destination").header("receipt-id"), text);
    }
    server.ask(&brokers.group, "ALTER TABLE {group}destination DROP CONSTRAINT allowed");
    good.publish(FORBIDDEN, "taken");
    drop(good);
    brokers.brokers[0].kill_9();
    brokers.brokers[0].restart();
    let (_, mut client) = brokers.master();
    client.subscribe(FORBIDDEN, "client-individual", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "taken");
    drop(client);
    brokers.stop();
}

/// Texts are UTF-8 of up to four bytes without NUL; a body is anything.
fn what_no_text_of_a_database_takes_is_refused_at_the_door_and_everything_else_comes_back<D: DatabaseServer>() {
    let mut brokers = Brokers::start(D::shared(), 1, |settings| settings);
    let send = |header: &[u8]| [b"SEND\ndestination:/queue/orders\ncustomer:", header, b"\n\nbody\0"].concat();
    for impossible in [&b"a\0b"[..], b"a\xffb", b"a\xed\xa0\x80b"] {
        let (_, mut client) = brokers.master();
        client.send(send(impossible));
        client.expect("ERROR");
    }
    const QUEER: &str = "/queue/\u{1f98a} and \u{1f33b}";
    const BODY: &[u8] = b"\0\xff\xed\xa0\x80";
    let texts =
        [("customer", "\u{1f98a} \\ \" ' \u{7f}"), ("correlation-id", "\u{10ffff}\u{1}"), ("type", "\u{1f33b}")];
    let (_, mut client) = brokers.master();
    let headers = [&[("destination", QUEER), ("persistent", "true"), ("reply-to", QUEER)], &texts[..]].concat();
    client.confirmed("SEND", &headers, BODY);
    brokers.brokers[0].kill_9();
    brokers.brokers[0].restart();
    let (_, mut client) = brokers.master();
    client.subscribe(QUEER, "client-individual", &[]);
    let message: Frame = client.expect("MESSAGE");
    assert_eq!(message.body, BODY);
    for (name, value) in [&texts[..], &[("destination", QUEER), ("reply-to", QUEER)]].concat() {
        assert_eq!(message.header(name), value, "{name}");
    }
    drop(client);
    brokers.stop();
}

/// A server sends what it would not take any more, so nothing that is stored waits for somebody to raise the limit again.
#[cfg(feature = "mysql")]
#[test]
fn what_is_stored_is_read_whatever_packets_the_server_takes_by_now() {
    use crate::harness::MariadbServer;

    const OTHER: &str = "/queue/other";
    let server = MariadbServer::start(&[]);
    let mut brokers = Brokers::start(&server, 1, |settings| settings);
    brokers.announce(&["max_allowed_packet is 1048576, so larger messages are refused"]);
    let large = "x".repeat(3 << 20);
    let (_, mut client) = brokers.master();
    for (queue, text) in [(QUEUE, &*large), (QUEUE, "behind it"), (OTHER, "elsewhere")] {
        client.publish(queue, text);
    }
    drop(client);
    server.ask(&brokers.group, "SET GLOBAL max_allowed_packet = 1048576");
    brokers.brokers[0].kill_9();
    brokers.brokers[0].restart();
    let (_, mut client) = brokers.master();
    for (id, queue, texts) in [("1", QUEUE, &[&*large, "behind it"][..]), ("2", OTHER, &["elsewhere"])] {
        client.subscribe(queue, "client-individual", &[("id", id)]);
        for text in texts {
            let message = client.expect("MESSAGE");
            assert!(message.text() == *text, "{} bytes", message.body.len());
            client.ack(&message);
        }
    }
    client.publish(OTHER, "it goes on");
    assert_eq!(client.expect("MESSAGE").text(), "it goes on");
    assert_eq!(server.ask(&brokers.group, "SELECT count(*) FROM {group}message"), "1", "what was taken is gone");
    drop(client);
    brokers.stop();
}

/// Somebody makes it smaller while a broker runs, which notices when it has a new session.
#[cfg(feature = "mysql")]
#[test]
fn r13_what_a_smaller_packet_does_not_take_any_more_is_refused_and_nothing_else() {
    use crate::harness::MariadbServer;

    let server = MariadbServer::start(&[]);
    let mut brokers = Brokers::start(&server, 1, |settings| settings);
    brokers.announce(&DOUBTS);
    brokers.announce(&["the store refuses an operation"]);
    let (_, mut good) = brokers.master();
    let (_, mut bad) = brokers.master();
    server.ask(&brokers.group, "SET GLOBAL max_allowed_packet = 1048576");
    server.end_sessions(&brokers.group);
    good.publish(QUEUE, "before");
    let body = "x".repeat(2 << 20);
    bad.send(encode("SEND", &[("destination", QUEUE), ("persistent", "true"), ("receipt", "large")], body.as_bytes()));
    assert_eq!(bad.refused("refused the message").header("receipt-id"), "large");
    good.publish(QUEUE, "after");
    good.subscribe(QUEUE, "client-individual", &[]);
    for text in ["before", "after"] {
        assert_eq!(good.expect("MESSAGE").text(), text);
    }
    drop(good);
    brokers.stop();
}
