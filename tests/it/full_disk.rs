//! A full disk, over the real binary on a small file system: who waits, who is told, that everybody else is served, and
//! that it passes.

use std::{fs, net::SocketAddr, thread};

use crate::harness::{Broker, Frame, Raw, Settings, SmallDisk, encode};

pub(crate) const MIB: u64 = 1 << 20;

/// What a message holds beside its number: 62 of them fill a segment of 4 MiB. Unit: bytes.
const BODY_BYTES: usize = 64 << 10;
const PER_SEGMENT: usize = 62;

/// A broker with segments of 4 MiB on a disk of 24.
fn start() -> Broker {
    let mut broker = Broker::start_on(SmallDisk::new(24 * MIB), Settings::new());
    broker.announce("the store is full");
    broker.announce("there is no room to publish the addresses"); // a start may find the disk full to the last block
    broker
}

fn body(number: usize) -> String {
    format!("{number} {}", "x".repeat(BODY_BYTES))
}

pub(crate) fn number_of(message: &Frame) -> usize {
    message.text().split(' ').next().unwrap().parse().unwrap()
}

fn send(number: usize, queue: &str) -> Vec<u8> {
    let receipt = number.to_string();
    let headers = [("destination", queue), ("persistent", "true"), ("receipt", receipt.as_str())];
    encode("SEND", &headers, body(number).as_bytes())
}

/// Sends numbered messages, one at a time, until the broker refuses one: how many it confirmed, and what it said.
fn fill(address: SocketAddr, queue: &str) -> (usize, Frame) {
    fill_with(address, |number| send(number, queue))
}

/// The same with frames of the caller's, whose receipts are their numbers.
pub(crate) fn fill_with(address: SocketAddr, send: impl Fn(usize) -> Vec<u8>) -> (usize, Frame) {
    let mut client = Raw::connect(address);
    for number in 0.. {
        client.send(send(number));
        let frame = client.frame();
        if frame.command == "ERROR" {
            return (number, frame);
        }
        assert_eq!((frame.command.as_str(), frame.header("receipt-id")), ("RECEIPT", number.to_string().as_str()));
    }
    unreachable!("the disk can't take them all")
}

/// Takes these messages, which come in this order, and acknowledges them together in one transaction.
pub(crate) fn drain(consumer: &mut Raw, numbers: impl Iterator<Item = usize>) {
    consumer.send(encode("BEGIN", &[("transaction", "drain")], b""));
    for number in numbers {
        let message = consumer.expect("MESSAGE");
        assert_eq!(number_of(&message), number);
        consumer.send(encode("ACK", &[("id", message.header("ack")), ("transaction", "drain")], b""));
    }
    consumer.confirmed("COMMIT", &[("transaction", "drain")], b"");
}

#[test]
fn r35_a_full_disk_holds_what_adds_and_serves_the_rest() {
    let mut broker = start();
    let address = broker.address();
    let filler = thread::spawn(move || fill(address, "/queue/backlog"));
    broker.logged("the store is full");

    let mut consumer = Raw::connect_with(address, &[("heart-beat", "0,500")]);
    consumer.subscribe("/queue/backlog", "client-individual", &[("activemq.prefetchSize", "8")]);
    for number in 0..3 {
        let message = consumer.expect("MESSAGE");
        assert_eq!(number_of(&message), number);
        consumer.ack(&message);
    }
    drain(&mut consumer, 3..6);
    let mut other = Raw::connect_with(address, &[("heart-beat", "0,500")]);
    other.subscribe("/queue/fast", "auto", &[]);
    for _ in 0..3 {
        other.confirmed("SEND", &[("destination", "/queue/fast"), ("persistent", "false")], b"not for the disk");
        assert_eq!(other.expect("MESSAGE").text(), "not for the disk");
        other.reader.heart_beat();
    }

    let (confirmed, error) = filler.join().unwrap();
    assert!(error.header("message").contains("full"), "{error:?}");
    assert_eq!(error.header("receipt-id"), confirmed.to_string());
    assert!(confirmed > 2 * PER_SEGMENT, "only {confirmed} messages fit");

    let last = encode("SEND", &[("destination", "/queue/backlog"), ("receipt", "last")], b"there is room again");
    other.send(last);
    drain(&mut consumer, 6..confirmed);
    let message = consumer.expect("MESSAGE");
    assert_eq!(message.text(), "there is room again", "and not what was refused");
    consumer.ack(&message);
    assert_eq!(other.expect("RECEIPT").header("receipt-id"), "last");
    broker.logged("the store has room again");
    broker.kill_9();
    broker.restart();
    let mut consumer = Raw::connect(broker.address());
    consumer.subscribe("/queue/backlog", "auto", &[]);
    consumer.publish("/queue/backlog", "nothing before this");
    assert_eq!(consumer.expect("MESSAGE").text(), "nothing before this");
    consumer.disconnect();
}

#[test]
fn r8_an_ack_behind_ten_mib_of_sends_that_a_full_disk_holds_is_settled() {
    const HELD: usize = 160;
    let mut broker = start();
    let address = broker.address();
    let mut client = Raw::connect(address);
    client.publish("/queue/mine", "first");
    client.publish("/queue/mine", "second");
    client.subscribe("/queue/mine", "client-individual", &[("activemq.prefetchSize", "1")]);
    let first = client.expect("MESSAGE");
    let filler = thread::spawn(move || fill(address, "/queue/backlog"));
    broker.logged("the store is full");

    for number in 0..HELD {
        client.send(send(number, "/queue/results"));
    }
    client.send(encode("ACK", &[("id", first.header("ack"))], b""));
    assert_eq!(client.expect("MESSAGE").text(), "second", "the ACK made room for it, before any ERROR");
    let (confirmed, _) = filler.join().unwrap();
    let error = client.expect("ERROR");
    assert_eq!(error.header("receipt-id"), "0", "nothing was added meanwhile");

    broker.kill_9();
    broker.restart();
    let mut client = Raw::connect(broker.address());
    client.subscribe("/queue/mine", "auto", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "second");
    client.subscribe("/queue/backlog", "client-individual", &[("id", "backlog")]);
    drain(&mut client, 0..confirmed);
}

#[test]
fn r35_segments_with_one_live_message_each_are_moved_together() {
    let mut broker = start();
    let (confirmed, _) = fill(broker.address(), "/queue/backlog");
    let mut consumer = Raw::connect(broker.address());
    consumer.subscribe("/queue/backlog", "client-individual", &[("activemq.prefetchSize", "1000")]);
    consumer.send(encode("BEGIN", &[("transaction", "most")], b""));
    for number in 0..confirmed {
        let message = consumer.expect("MESSAGE");
        assert_eq!(number_of(&message), number);
        if number % PER_SEGMENT != 0 {
            consumer.send(encode("ACK", &[("id", message.header("ack")), ("transaction", "most")], b""));
        }
    }
    consumer.confirmed("COMMIT", &[("transaction", "most")], b"");
    let mut producer = Raw::connect(broker.address());
    for number in 0..PER_SEGMENT {
        producer.publish("/queue/more", &body(number)); // a disk of pinned segments could take none of these
    }
    broker.kill_9();
    broker.restart();
    let mut consumer = Raw::connect(broker.address());
    consumer.subscribe("/queue/more", "client-individual", &[]);
    drain(&mut consumer, 0..PER_SEGMENT);
    consumer.subscribe("/queue/backlog", "client-individual", &[("id", "backlog")]);
    drain(&mut consumer, (0..confirmed).step_by(PER_SEGMENT));
}

#[test]
fn a_send_that_waits_goes_on_when_somebody_else_makes_room() {
    let broker = start();
    broker.disk().occupy_all_but(0);
    let mut client = Raw::connect(broker.address());
    for number in 0..2 * PER_SEGMENT {
        client.send(send(number, "/queue/backlog"));
    }
    broker.logged("the store is full");
    broker.disk().free();
    for number in 0..2 * PER_SEGMENT {
        assert_eq!(client.expect("RECEIPT").header("receipt-id"), number.to_string());
    }
    client.disconnect();
}

#[test]
fn r35_a_start_without_room_for_a_reserve_lets_consumers_make_it() {
    let mut broker = start();
    let mut client = Raw::connect(broker.address());
    for number in 0..10 {
        client.publish("/queue/backlog", &body(number));
    }
    broker.kill_9();
    let journal = broker.data().join("journal");
    fs::remove_file(broker.disk().file(&journal.join("reserve"))).unwrap();
    broker.disk().occupy_all_but(MIB);
    broker.announce("no room for the journal's reserve");
    broker.restart();
    broker.logged("4 MiB are free below");

    let mut client = Raw::connect_with(broker.address(), &[("heart-beat", "0,500")]);
    client.subscribe("/queue/backlog", "client-individual", &[]);
    drain(&mut client, 0..10);
    client.send(send(10, "/queue/backlog"));
    assert_eq!(number_of(&client.expect("MESSAGE")), 10, "its consumer need not wait for a disk");
    broker.logged("the store is full");
    client.reader.heart_beat();
    broker.disk().free();
    assert_eq!(client.expect("RECEIPT").header("receipt-id"), "10");
    client.disconnect();
}
