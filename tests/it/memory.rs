//! A broker with little memory, over the real binary: it keeps within it, and serves those who need none (R31).

use std::{
    sync::mpsc::{Receiver, channel},
    thread,
};

use crate::harness::{Broker, Frame, PATIENCE, Raw, Settings, encode};

/// What the broker of these tests may take for messages and buffers.
const LIMIT_MIB: u64 = 32;

/// What clients try to have it take.
const ATTACK_MIB: usize = 160;

/// What the process may take beside: its code, its stacks, what an allocator keeps, and the buffers that do not count.
const BESIDE_MIB: u64 = 64;

fn with_little_memory() -> Broker {
    Broker::start_with(Settings::new().option("limits.memory_bytes_max", &format!("\"{LIMIT_MIB}MiB\"")))
}

/// A consumer that has one message to acknowledge.
fn with_a_delivery(broker: &Broker) -> (Raw, Frame) {
    let mut consumer = Raw::connect(broker.address());
    consumer.subscribe("/queue/work", "client-individual", &[]);
    consumer.publish("/queue/work", "to do");
    let message = consumer.expect("MESSAGE");
    (consumer, message)
}

/// Has each client say this, whether the broker reads it or not. The messages of the ERRORs that they get.
fn attack(clients: Vec<Raw>, says: Vec<u8>) -> Receiver<String> {
    let (sender, errors) = channel();
    for Raw { mut reader, mut writer } in clients {
        let (sender, says) = (sender.clone(), says.clone());
        thread::spawn(move || drop(writer.send(says))); // it fails when the broker has had enough
        thread::spawn(move || {
            if let Ok(Some(error)) = reader.next() {
                drop(sender.send(error.header("message").to_owned()));
            }
        });
    }
    errors
}

fn others_are_served(broker: &Broker, mut consumer: Raw, message: &Frame) {
    consumer.ack(message);
    consumer.publish("/queue/work", "more to do");
    let message = consumer.expect("MESSAGE");
    assert_eq!(message.text(), "more to do");
    consumer.ack(&message);
    consumer.disconnect();
    let grown = broker.memory_peak_mib();
    assert!(grown <= LIMIT_MIB + BESIDE_MIB, "{grown} MiB");
}

#[test]
fn r31_frames_that_never_end_take_no_more_than_the_memory_there_is() {
    const HALF_BYTES: usize = 1 << 20;
    let broker = with_little_memory();
    let (consumer, message) = with_a_delivery(&broker);
    let clients = (0..ATTACK_MIB).map(|_| Raw::connect(broker.address())).collect();
    let length = (2 * HALF_BYTES).to_string();
    let mut half = encode("SEND", &[("destination", "/queue/never"), ("content-length", &length)], b"");
    half.pop(); // the NUL
    half.resize(HALF_BYTES, b'x');
    let errors = attack(clients, half);
    assert_eq!(errors.recv_timeout(PATIENCE).unwrap(), "The broker's memory is full.");
    others_are_served(&broker, consumer, &message);
}

#[test]
fn r31_what_fills_memory_is_drained_by_who_comes_then() {
    let settings = Settings::new().option("limits.memory_bytes_max", &format!("\"{LIMIT_MIB}MiB\""));
    let broker = Broker::start_with(settings.option("store.backend", "\"memory\""));
    let clients = vec![Raw::connect(broker.address())];
    let many = encode("SEND", &[("destination", "/queue/work"), ("persistent", "true")], &[b'x'; 1 << 20]);
    let errors = attack(clients, many.repeat(2 * LIMIT_MIB as usize));
    broker.logged("memory is full");
    let mut consumer = Raw::connect(broker.address());
    consumer.subscribe("/queue/work", "client-individual", &[]);
    for _ in 0..2 * LIMIT_MIB {
        let message = consumer.expect("MESSAGE");
        consumer.ack(&message);
    }
    assert!(errors.try_recv().is_err(), "the producer only had to wait");
    consumer.disconnect();
}

#[test]
fn r31_transactions_take_no_more_than_the_memory_there_is() {
    let broker = with_little_memory();
    let (consumer, message) = with_a_delivery(&broker);
    let clients = (0..2).map(|_| Raw::connect(broker.address())).collect();
    let mut large = encode("BEGIN", &[("transaction", "t")], b"");
    for _ in 0..ATTACK_MIB / 2 {
        let headers = [("destination", "/queue/never"), ("transaction", "t")];
        large.extend_from_slice(&encode("SEND", &headers, &[b'x'; 1 << 20]));
    }
    let errors = attack(clients, large);
    broker.logged("memory is full");
    assert_eq!(errors.recv_timeout(PATIENCE).unwrap(), "The broker's memory is full.");
    others_are_served(&broker, consumer, &message);
}
