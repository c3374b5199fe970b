//! Others on the same database server: who keeps it from cleaning up, takes its connections, or ends those of a broker.
//! Whatever they do, messages go on, in the same term, and each arrives once and in order.
//!
//! `benches/pressure` does the same for minutes, and measures.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{Brokers, DOUBTS, wait_for};
use crate::harness::{DatabaseServer, Raw, encode};

on_each_database! {
    messages_go_on_beside_an_open_transaction_and_overlapping_readers
    r18_messages_go_on_in_the_same_term_whenever_sessions_are_ended
    r18_messages_go_on_in_the_same_term_when_others_took_all_connections
}

/// So many queues are busy.
const QUEUES: usize = 4;

/// So many messages of a queue wait at any time: what is settled was written before.
const BACKLOG: usize = 100;

/// So many are sent and settled in a round, each half with one receipt.
const ROUND: usize = 20;

/// Messages on their way through queues, numbered in each.
struct Load {
    is_over: Arc<AtomicBool>,
    queues: Vec<(Arc<AtomicUsize>, JoinHandle<()>)>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let busy = |number| {
            let (rounds, is_over) = (Arc::<AtomicUsize>::default(), Arc::clone(&is_over));
            let done = Arc::clone(&rounds);
            (rounds, thread::spawn(move || keep_busy(address, &format!("/queue/{number}"), &done, &is_over)))
        };
        let queues = (0..QUEUES).map(busy).collect();
        Self { is_over, queues }
    }

    /// Waits until each queue had some rounds more.
    fn goes_on(&self) {
        for (rounds, queue) in &self.queues {
            let before = rounds.load(Ordering::SeqCst);
            wait_for(|| {
                assert!(!queue.is_finished(), "it ended");
                rounds.load(Ordering::SeqCst) > before + 2
            });
        }
    }

    /// Ends; all that was sent has arrived and is settled.
    fn ends(self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.queues.into_iter().for_each(|(_, queue)| queue.join().unwrap());
    }
}

fn keep_busy(address: SocketAddr, queue: &str, rounds: &AtomicUsize, is_over: &AtomicBool) {
    let (mut producer, mut consumer) = (Raw::connect(address), Raw::connect(address));
    send(&mut producer, queue, 0..BACKLOG);
    consumer.subscribe(queue, "client-individual", &[]);
    let mut settled = 0;
    while !is_over.load(Ordering::SeqCst) {
        send(&mut producer, queue, settled + BACKLOG..settled + BACKLOG + ROUND);
        take(&mut consumer, settled..settled + ROUND);
        settled += ROUND;
        rounds.fetch_add(1, Ordering::SeqCst);
    }
    take(&mut consumer, settled..settled + BACKLOG);
}

/// All of them are stored when this returns.
fn send(producer: &mut Raw, queue: &str, numbers: Range<usize>) {
    let headers = [("destination", queue), ("persistent", "true")];
    let last = numbers.end - 1;
    numbers.for_each(|number| {
        let body = number.to_string();
        if number == last {
            producer.publish(queue, &body);
        } else {
            producer.send(encode("SEND", &headers, body.as_bytes()));
        }
    });
}

/// They come in this order, and are settled when this returns.
fn take(consumer: &mut Raw, numbers: Range<usize>) {
    let last = numbers.end - 1;
    for number in numbers {
        let message = consumer.expect("MESSAGE");
        assert_eq!(message.text(), number.to_string());
        if number == last {
            consumer.ack(&message);
        } else {
            consumer.send(encode("ACK", &[("id", message.header("ack"))], b""));
        }
    }
}

/// What others do to a database while a broker is busy on it, which serves on in its term, with all its clients.
fn while_busy<D: DatabaseServer>(server: &D, pressure: impl FnOnce(&Brokers, &Load)) {
    let mut brokers = Brokers::start(server, 1, |settings| settings);
    brokers.announce(&DOUBTS);
    let load = Load::on(brokers.addresses[0]);
    load.goes_on();
    pressure(&brokers, &load);
    load.goes_on();
    load.ends();
    assert_eq!(brokers.baton(server, "term"), "1");
    assert_eq!(server.ask(&brokers.group, "SELECT count(*) FROM {group}message"), "0");
    brokers.stop();
}

fn messages_go_on_beside_an_open_transaction_and_overlapping_readers<D: DatabaseServer>() {
    const READERS: usize = 4;
    let server = D::shared();
    while_busy(server, |brokers, load| {
        let open = server.read_at_leisure(&brokers.group);
        let mut readers = VecDeque::new();
        for _ in 0..2 * READERS {
            readers.push_back(server.read_at_leisure(&brokers.group));
            load.goes_on();
            if readers.len() == READERS {
                readers.pop_front().unwrap().leave();
            }
        }
        readers.into_iter().chain([open]).for_each(|reader| reader.leave());
    });
}

fn r18_messages_go_on_in_the_same_term_whenever_sessions_are_ended<D: DatabaseServer>() {
    let server = D::shared();
    while_busy(server, |brokers, load| {
        for _ in 0..4 {
            server.end_sessions(&brokers.group);
            load.goes_on();
        }
    });
}

fn r18_messages_go_on_in_the_same_term_when_others_took_all_connections<D: DatabaseServer>() {
    const CLIENTS: u32 = 16;
    let server = D::own_for(CLIENTS);
    while_busy(&server, |brokers, load| {
        let end = server.end_of_sessions(&brokers.group);
        let mut crowd = server.crowd();
        load.goes_on(); // it has the connections that it needs
        crowd.pop().unwrap().leave_saying(&end);
        crowd.extend(server.crowd()); // they may be quicker than the broker
        crowd.into_iter().for_each(|stranger| stranger.leave());
    });
}

/// Somebody stopped reading the changes of the database, which keeps them, and old rows, until somebody does.
#[cfg(feature = "postgres")]
#[test]
fn messages_go_on_beside_an_abandoned_replication_slot() {
    let server = crate::harness::PostgresServer::start(&["wal_level=logical"]);
    while_busy(&server, |_, load| {
        server.psql("SELECT pg_create_logical_replication_slot('abandoned', 'pgoutput')");
        load.goes_on();
        let slots = "SELECT active, wal_status FROM pg_replication_slots";
        assert_eq!(server.psql(slots), "f|reserved");
    });
}
