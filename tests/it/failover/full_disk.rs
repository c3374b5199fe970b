//! The disk of the database is full, as far as its tables go: what would need room waits and is refused, what gives
//! room goes on, and it passes without anybody's doing at the broker (R14).

use std::thread;

use super::Brokers;
use crate::{
    full_disk::{MIB, drain, fill_with, number_of},
    harness::{DatabaseServer, Raw, Rng, SmallDisk, encode},
};

on_each_database! {
    r14_a_full_disk_of_the_database_holds_what_adds_and_serves_the_rest
}

const QUEUE: &str = "/queue/backlog";

/// As much as MariaDB keeps within a row: a larger body on a full disk ends the whole server (10.11). Unit: bytes.
const BODY_BYTES: usize = 3_000;

/// A numbered message that no database makes smaller.
fn send(number: usize) -> Vec<u8> {
    let mut rng = Rng::new(number as u64);
    let noise: String = (0..BODY_BYTES).map(|_| char::from(b'!' + rng.below(90) as u8)).collect();
    let headers = [("destination", QUEUE), ("persistent", "true"), ("receipt", &number.to_string())];
    encode("SEND", &headers, format!("{number} {noise}").as_bytes())
}

/// Nobody took anything from the queue before, so its dispatch mark has to be written on the full disk.
fn r14_a_full_disk_of_the_database_holds_what_adds_and_serves_the_rest<D: DatabaseServer>() {
    let server = D::own_with_tables_on(SmallDisk::new(48 * MIB));
    let mut brokers = Brokers::start(&server, 1, |settings| settings);
    brokers.announce(&["the store is full"]);
    server.disk().occupy_all_but(4 * MIB);
    let address = brokers.addresses[0];
    let filler = thread::spawn(move || fill_with(address, send));
    brokers.brokers[0].logged("the store is full");

    let mut consumer = Raw::connect(address);
    // A few at a time, so that it never has what is refused in the end.
    consumer.subscribe(QUEUE, "client-individual", &[("activemq.prefetchSize", "8")]);
    for number in 0..3 {
        let message = consumer.expect("MESSAGE");
        assert_eq!(number_of(&message), number);
        consumer.ack(&message);
    }
    drain(&mut consumer, 3..6);

    let (confirmed, error) = filler.join().unwrap();
    assert!(error.header("message").contains("full"), "{error:?}");
    assert_eq!(error.header("receipt-id"), confirmed.to_string());
    assert!(confirmed > 50, "only {confirmed} messages fit");

    server.disk().free();
    let mut producer = Raw::connect(address);
    producer.send(send(confirmed));
    assert_eq!(producer.expect("RECEIPT").header("receipt-id"), confirmed.to_string());
    drain(&mut consumer, 6..confirmed + 1);
    assert_eq!(brokers.baton(&server, "term"), "1");
    assert_eq!(server.ask(&brokers.group, "SELECT count(*) FROM {group}message"), "0");
    drop((consumer, producer));
    brokers.stop();
}
