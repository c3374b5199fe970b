//! A backlog that memory has no room for, over the real binary: it waits on disk, survives kills, and comes back in
//! order.

use std::{collections::BTreeSet, net::SocketAddr, thread};

use crate::harness::{Broker, Frame, Raw, Settings, encode};

/// What the broker may take for messages and buffers.
const LIMIT_MIB: u64 = 32;

/// What the process may take beside: its code, its stacks, the journal's sets, what an allocator keeps.
const BESIDE_MIB: u64 = 64;

/// Of one message. Unit: bytes.
const BODY_BYTES: usize = 16 << 10;

/// So many messages are sent to one process: 140 MiB, half as much again as a broker may take that pages.
pub(crate) const MANY: usize = 9_000;

fn with_little_memory() -> Broker {
    Broker::start_with(Settings::new().option("limits.memory_bytes_max", &format!("\"{LIMIT_MIB}MiB\"")))
}

fn body(number: usize) -> Vec<u8> {
    let mut body = format!("{number} ").into_bytes();
    body.resize(BODY_BYTES, b'x');
    body
}

fn number_of(message: &Frame) -> usize {
    message.text().split(' ').next().unwrap().parse().unwrap()
}

/// Sends these messages, each with a receipt, as fast as the broker takes them; calls `confirmed` for each receipt
/// until the last, or until the broker is gone.
pub(crate) fn fill(
    address: SocketAddr,
    queue: &'static str,
    persistent: &'static str,
    numbers: std::ops::Range<usize>,
    mut confirmed: impl FnMut(usize),
) {
    let Raw { mut reader, mut writer } = Raw::connect(address);
    let count = numbers.len();
    let sending = thread::spawn(move || {
        for number in numbers {
            let receipt = number.to_string();
            let headers = [("destination", queue), ("persistent", persistent), ("receipt", receipt.as_str())];
            if writer.send(encode("SEND", &headers, &body(number))).is_err() {
                return; // killed
            }
        }
    });
    for _ in 0..count {
        let Ok(Some(frame)) = reader.next() else { break };
        assert_eq!(frame.command, "RECEIPT", "{frame:?}");
        confirmed(frame.header("receipt-id").parse().unwrap());
    }
    drop(reader);
    sending.join().unwrap();
}

/// Takes so many messages, in the order in which they come.
pub(crate) fn drain(address: SocketAddr, queue: &str, count: usize) -> Vec<usize> {
    let mut consumer = Raw::connect(address);
    consumer.subscribe(queue, "client-individual", &[("activemq.prefetchSize", "100")]);
    let mut numbers = Vec::new();
    for _ in 0..count {
        let message = consumer.expect("MESSAGE");
        numbers.push(number_of(&message));
        consumer.ack(&message);
    }
    consumer.disconnect();
    numbers
}

#[test]
fn r25_a_backlog_beyond_memory_survives_kills_and_is_drained_in_order() {
    const QUEUE: &str = "/queue/backlog";
    let mut broker = with_little_memory();
    let mut confirmed = BTreeSet::new();
    let address = broker.address();
    fill(address, QUEUE, "true", 0..4_000, |number| {
        confirmed.insert(number);
        if confirmed.len() == 2_000 {
            broker.kill_9();
        }
    });
    assert!(confirmed.len() < 4_000, "killed in the middle");
    broker.restart();
    fill(broker.address(), QUEUE, "true", 4_000..4_000 + MANY, |number| assert!(confirmed.insert(number)));
    let grown = broker.memory_peak_mib();
    assert!(grown <= LIMIT_MIB + BESIDE_MIB, "{grown} MiB while it was filled");
    broker.kill_9();
    broker.restart();

    let mut consumers: Vec<Raw> = (0..4).map(|_| Raw::connect(broker.address())).collect();
    for consumer in &mut consumers {
        consumer.subscribe(QUEUE, "client-individual", &[("activemq.prefetchSize", "10")]);
    }
    let threads: Vec<_> = consumers
        .into_iter()
        .map(|mut consumer| {
            thread::spawn(move || {
                let mut numbers = Vec::new();
                while let Ok(Some(message)) = consumer.reader.next() {
                    if message.command != "MESSAGE" {
                        continue;
                    }
                    numbers.push(number_of(&message));
                    drop(consumer.writer.send(encode("ACK", &[("id", message.header("ack"))], b"")));
                    if message.find("last").is_some() {
                        break;
                    }
                }
                numbers
            })
        })
        .collect();
    let mut end = Raw::connect(broker.address());
    for _ in 0..4 {
        // Behind the backlog, one for each consumer: the one before must be acknowledged to get another.
        end.confirmed("SEND", &[("destination", QUEUE), ("last", "yes"), ("persistent", "true")], b"999999 last");
    }
    let mut all = BTreeSet::new();
    for thread in threads {
        let numbers = thread.join().unwrap();
        assert!(numbers.is_sorted(), "each consumer gets them in order");
        for number in numbers.into_iter().filter(|number| *number != 999_999) {
            assert!(all.insert(number), "{number} came twice");
        }
    }
    assert!(confirmed.is_subset(&all), "nothing that was confirmed is lost");
    let grown = broker.memory_peak_mib();
    assert!(grown <= LIMIT_MIB + BESIDE_MIB, "{grown} MiB while it was drained");
}

#[test]
fn r32_what_is_not_persistent_is_spooled_and_the_next_process_clears_it_away() {
    let mut broker = with_little_memory();
    let spool = broker.data().join("spool");
    assert!(!spool.exists(), "it is made when it is needed");
    let mut confirmed = 0;
    fill(broker.address(), "/queue/fleeting", "false", 0..MANY, |_| confirmed += 1);
    assert_eq!(confirmed, MANY);
    assert!(spool.join("journal").exists());
    let grown = broker.memory_peak_mib();
    assert!(grown <= LIMIT_MIB + BESIDE_MIB, "{grown} MiB");
    assert_eq!(drain(broker.address(), "/queue/fleeting", MANY), Vec::from_iter(0..MANY));

    fill(broker.address(), "/queue/fleeting", "false", 0..3_000, |_| {});
    fill(broker.address(), "/queue/kept", "true", 0..10, |_| {});
    broker.kill_9();
    assert!(spool.exists());
    broker.restart();
    broker.logged("removed what an earlier process had spooled");
    assert!(!spool.exists());
    assert_eq!(drain(broker.address(), "/queue/kept", 10), Vec::from_iter(0..10));
}
