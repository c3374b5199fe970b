//! kill -9: what was confirmed is there, what was acknowledged is gone, whatever the moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
};

use crate::{
    harness::{Broker, Frame, PATIENCE, Raw, Rng, Script, Settings, Writer, encode},
    stomp_py::with_policy,
};

/// The story of the README.
#[test]
fn the_main_job_stomp_py_loses_nothing_and_gets_nothing_twice() {
    let mut seed = Rng::of("the main job");
    for version in ["1.2", "1.1", "1.0"] {
        let moment = seed.range(50, 1500);
        println!("version {version}, killed after {moment} receipts");
        let mut broker = Broker::start();
        let mut consumer = Script::python("consume.py", broker.address(), &["--version", version]);
        consumer.wait_for("subscribed");
        let mut producer = Script::python("produce.py", broker.address(), &["--version", version]);
        let mut story = Vec::new();
        while (story.len() as u64) < moment {
            story.push(producer.line().expect("it goes on until the broker is gone"));
        }
        broker.kill_9();
        story.extend(producer.finish());
        story.extend(consumer.finish());
        broker.restart();
        let found = Script::python("drain.py", broker.address(), &["--version", version]).finish();

        let told = |what: &str| numbers(&story, what);
        let (confirmed, received) = (told("confirmed"), told("received"));
        // An ACK may have arrived from the moment it is sent.
        let (ack_sent, acked) = (told("acking"), told("acked"));
        println!("{} confirmed, {} received, {} acked", confirmed.len(), received.len(), acked.len());
        let order: Vec<u64> = found.iter().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
        assert!(order.is_sorted_by(|one, next| one < next), "in order, each once: {order:?}");
        let found: BTreeMap<u64, bool> =
            order.into_iter().zip(found.iter().map(|line| line.ends_with("true"))).collect();
        for number in &acked {
            assert!(!found.contains_key(number), "{number} was acknowledged, and that confirmed, but came back");
        }
        for number in confirmed.difference(&ack_sent) {
            assert!(found.contains_key(number), "{number} was confirmed and not acknowledged, but is lost");
        }
        for (number, redelivered) in &found {
            assert!(*redelivered || !received.contains(number), "{number} came before, and is not marked");
        }
    }
}

fn numbers(story: &[String], what: &str) -> BTreeSet<u64> {
    story.iter().filter_map(|line| line.strip_prefix(what)).map(|number| number.trim().parse().unwrap()).collect()
}

#[test]
fn r4_several_producers_and_consumers_over_many_kills() {
    let mut seed = Rng::of("r4 many kills");
    let mut broker = Broker::start();
    for round in 0..10 {
        let moment = seed.range(1, 2500) as usize;
        let consumers = seed.range(1, 4);
        println!("round {round}: {consumers} consumers, killed after {moment} receipts");
        let ledger = Arc::new(Ledger::default());
        let mut threads = Vec::new();
        for consumer in 0..consumers {
            let cumulative = seed.range(0, 2) == 0;
            let prefetch = seed.range(1, 200).to_string();
            println!("  consumer {consumer}: cumulative {cumulative}, prefetch {prefetch}");
            threads.push(consume(broker.address(), &ledger, cumulative, &prefetch));
        }
        for producer in 0..3 {
            let window = seed.range(1, 100) as usize;
            threads.extend(produce(broker.address(), &ledger, &format!("{round}-{producer}"), window));
        }
        ledger.wait_until(|facts| facts.confirmed.len() >= moment);
        broker.kill_9();
        for thread in threads {
            thread.join().unwrap();
        }
        broker.restart();
        ledger.check(&drain(broker.address(), "/queue/load"));
    }
}

/// What the clients of one round know for certain.
#[derive(Default)]
struct Facts {
    sent: BTreeSet<String>,
    confirmed: BTreeSet<String>,
    received: BTreeSet<String>,
    /// What an ACK speaks of that may or may not have arrived.
    ack_sent: BTreeSet<String>,
    acked: BTreeSet<String>,
}

#[derive(Default)]
struct Ledger {
    facts: Mutex<Facts>,
    news: Condvar,
}

impl Ledger {
    fn note<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        let changed = change(&mut self.facts.lock().unwrap());
        self.news.notify_all();
        changed
    }

    fn wait_until(&self, condition: impl Fn(&Facts) -> bool) {
        let facts = self.facts.lock().unwrap();
        let waited = self.news.wait_timeout_while(facts, PATIENCE, |facts| !condition(facts)).unwrap();
        assert!(!waited.1.timed_out(), "the load does not come to its moment");
    }

    fn check(&self, found: &[Frame]) {
        let facts = self.facts.lock().unwrap();
        println!(
            "  {} sent, {} confirmed, {} received, {} acked, {} found",
            facts.sent.len(),
            facts.confirmed.len(),
            facts.received.len(),
            facts.acked.len(),
            found.len()
        );
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        let mut there = BTreeSet::new();
        for message in found {
            let name = message.text();
            assert!(facts.sent.contains(name), "{name} was never sent");
            assert!(!facts.acked.contains(name), "{name} was acknowledged, and that confirmed, but came back");
            assert!(message.redelivered() || !facts.received.contains(name), "{name} came before, and is not marked");
            let (producer, number) = name.rsplit_once('.').unwrap();
            let number = number.parse().unwrap();
            let before = last.insert(producer, number);
            assert!(before < Some(number), "{name} came after {before:?}: out of order, or twice");
            there.insert(name);
        }
        for name in &facts.confirmed {
            let kept = there.contains(name.as_str()) || facts.ack_sent.contains(name);
            assert!(kept, "{name} was confirmed and not acknowledged, but is lost");
        }
    }
}

fn produce(address: SocketAddr, ledger: &Arc<Ledger>, name: &str, window: usize) -> [JoinHandle<()>; 2] {
    let Raw { mut reader, mut writer } = Raw::connect(address);
    let (permit, permits) = std::sync::mpsc::sync_channel::<()>(window);
    let sender = {
        let (ledger, name) = (Arc::clone(ledger), name.to_owned());
        move || {
            for number in 0_u64.. {
                let body = format!("{name}.{number}");
                // The channel holds the window; its other end takes one out for each receipt.
                if permit.send(()).is_err() {
                    return;
                }
                ledger.note(|facts| facts.sent.insert(body.clone()));
                let headers = [("destination", "/queue/load"), ("persistent", "true"), ("receipt", &body)];
                if writer.send(encode("SEND", &headers, body.as_bytes())).is_err() {
                    return;
                }
            }
        }
    };
    let ledger = Arc::clone(ledger);
    let receiver = move || {
        let mut number = 0;
        while let Ok(Some(frame)) = reader.next() {
            assert_eq!(frame.command, "RECEIPT", "{frame:?}");
            let receipt = frame.header("receipt-id").to_owned();
            assert!(receipt.ends_with(&format!(".{number}")), "receipts in order: {receipt} is not number {number}");
            number += 1;
            ledger.note(|facts| facts.confirmed.insert(receipt));
            permits.recv().unwrap();
        }
    };
    [thread::spawn(sender), thread::spawn(receiver)]
}

fn consume(address: SocketAddr, ledger: &Arc<Ledger>, cumulative: bool, prefetch: &str) -> JoinHandle<()> {
    let mut client = Raw::connect(address);
    let mode = if cumulative { "client" } else { "client-individual" };
    client.subscribe("/queue/load", mode, &[("activemq.prefetchSize", prefetch)]);
    let every = if cumulative { 7.min(prefetch.parse().unwrap()) } else { 1 };
    let ledger = Arc::clone(ledger);
    thread::spawn(move || {
        // What the next ACK speaks of, and what each ACK under way does.
        let mut open = Vec::new();
        let mut under_way: BTreeMap<String, Vec<String>> = BTreeMap::new();
        while let Ok(Some(frame)) = client.reader.next() {
            match frame.command.as_str() {
                "MESSAGE" => {
                    let name = frame.text().to_owned();
                    ledger.note(|facts| facts.received.insert(name.clone()));
                    open.push(name.clone());
                    if open.len() < every {
                        continue;
                    }
                    let acked = std::mem::take(&mut open);
                    ledger.note(|facts| facts.ack_sent.extend(acked.iter().cloned()));
                    under_way.insert(name.clone(), acked);
                    let headers = [("id", frame.header("ack")), ("receipt", name.as_str())];
                    if client.writer.send(encode("ACK", &headers, b"")).is_err() {
                        return;
                    }
                }
                "RECEIPT" => {
                    let acked = under_way.remove(frame.header("receipt-id")).unwrap();
                    ledger.note(|facts| facts.acked.extend(acked));
                }
                _ => panic!("{frame:?}"),
            }
        }
    })
}

/// Takes everything out of a queue.
fn drain(address: SocketAddr, queue: &str) -> Vec<Frame> {
    let mut client = Raw::connect(address);
    client.publish(queue, "end");
    client.subscribe(queue, "client", &[("activemq.prefetchSize", "10000")]);
    let mut found = Vec::new();
    loop {
        let message = client.expect("MESSAGE");
        if message.text() == "end" {
            client.ack(&message);
            client.disconnect();
            return found;
        }
        // Within the credit, whatever the backlog.
        if found.len() % 1000 == 999 {
            client.send(encode("ACK", &[("id", message.header("ack"))], b""));
        }
        found.push(message);
    }
}

#[test]
fn r5_transactions_survive_whole_or_not_at_all() {
    let mut seed = Rng::of("r5 transactions");
    let mut broker = Broker::start();
    for round in 0..5 {
        let moment = seed.range(1, 300);
        println!("round {round}: killed after {moment} commits");
        let Raw { mut reader, mut writer } = Raw::connect(broker.address());
        let sender = thread::spawn(move || {
            for number in 0_u64.. {
                if send_transaction(&mut writer, number).is_err() {
                    return;
                }
            }
        });
        let mut confirmed = 0;
        while let Ok(Some(frame)) = reader.next() {
            assert_eq!(frame.header("receipt-id"), confirmed.to_string(), "receipts in order");
            confirmed += 1;
            if confirmed == moment {
                broker.kill_9();
            }
        }
        sender.join().unwrap();

        broker.restart();
        let found = drain(broker.address(), "/queue/units");
        let found: Vec<&str> = found.iter().map(Frame::text).collect();
        let whole = found.len() / UNIT;
        let expected: Vec<String> =
            (0..whole).flat_map(|number| (0..UNIT).map(move |part| format!("{number}.{part}"))).collect();
        assert_eq!(found, expected, "whole transactions, in order");
        assert!(whole as u64 >= confirmed, "{confirmed} commits were confirmed, {whole} are there");
    }
}

/// Messages in one transaction.
const UNIT: usize = 5;

fn send_transaction(writer: &mut Writer, number: u64) -> std::io::Result<()> {
    let name = number.to_string();
    let mut bytes = encode("BEGIN", &[("transaction", &name)], b"");
    for part in 0..UNIT {
        let headers = [("destination", "/queue/units"), ("persistent", "true"), ("transaction", name.as_str())];
        bytes.extend(encode("SEND", &headers, format!("{number}.{part}").as_bytes()));
    }
    bytes.extend(encode("COMMIT", &[("transaction", &name), ("receipt", &name)], b""));
    writer.send(bytes)
}

/// Each piece of work is taken from one queue and its result given to another, in one transaction.
#[test]
fn r5_a_transaction_over_ack_and_send_moves_each_message_once() {
    const ROUNDS: u64 = 4;
    const COUNT: u64 = 100;
    let mut seed = Rng::of("r5 moves");
    let mut broker = Broker::start();
    let mut moved = BTreeSet::new();
    for round in 0..ROUNDS {
        let moment = seed.range(1, COUNT); // it comes: at least COUNT are there to be moved, whatever was moved before
        println!("round {round}: killed after {moment} commits");
        let mut producer = Raw::connect(broker.address());
        for number in 0..COUNT {
            let number = (round * COUNT + number).to_string();
            producer.send(encode("SEND", &[("destination", "/queue/in")], number.as_bytes()));
        }
        producer.disconnect();
        let mut client = Raw::connect(broker.address());
        client.subscribe("/queue/in", "client-individual", &[]);
        let mut commits = 0;
        while let Ok(Some(frame)) = client.reader.next() {
            if frame.command == "RECEIPT" {
                moved.insert(frame.header("receipt-id").to_owned());
                commits += 1;
                if commits == moment {
                    broker.kill_9();
                }
                continue;
            }
            let name = frame.text();
            assert!(!moved.contains(name), "{name} was moved, and that confirmed, but came back");
            let mut bytes = encode("BEGIN", &[("transaction", name)], b"");
            bytes.extend(encode("ACK", &[("id", frame.header("ack")), ("transaction", name)], b""));
            bytes.extend(encode("SEND", &[("destination", "/queue/out"), ("transaction", name)], name.as_bytes()));
            bytes.extend(encode("COMMIT", &[("transaction", name), ("receipt", name)], b""));
            // It may be dead already; what it said before is still to be read.
            drop(client.writer.send(bytes));
        }
        broker.restart();
    }
    let left = drain(broker.address(), "/queue/in");
    let results = drain(broker.address(), "/queue/out");
    let left: BTreeSet<u64> = left.iter().map(|message| message.text().parse().unwrap()).collect();
    let done: BTreeSet<u64> = results.iter().map(|message| message.text().parse().unwrap()).collect();
    assert_eq!(done.len(), results.len(), "each result once");
    assert_eq!(left.intersection(&done).count(), 0, "in one of the queues, never in both");
    assert_eq!(left.len() + done.len(), (ROUNDS * COUNT) as usize, "nothing is lost");
    assert!(moved.iter().all(|name| done.contains(&name.parse().unwrap())), "what was confirmed is done");
}

#[test]
fn r3_auto_mode_loses_nothing_that_was_confirmed() {
    let mut seed = Rng::of("r3 auto mode");
    let mut broker = Broker::start();
    for round in 0..5 {
        let moment = seed.range(1, 1500) as usize;
        println!("round {round}: killed after {moment} receipts");
        let ledger = Arc::new(Ledger::default());
        let mut client = Raw::connect(broker.address());
        client.subscribe("/queue/load", "auto", &[]);
        let consumer = {
            let ledger = Arc::clone(&ledger);
            // Also what was under way when the broker died.
            thread::spawn(move || {
                while let Ok(Some(frame)) = client.reader.next() {
                    let name = frame.text().to_owned();
                    ledger.note(|facts| (facts.received.insert(name.clone()), facts.ack_sent.insert(name)));
                }
            })
        };
        let producer = produce(broker.address(), &ledger, &round.to_string(), 100);
        ledger.wait_until(|facts| facts.confirmed.len() >= moment);
        broker.kill_9();
        consumer.join().unwrap();
        for thread in producer {
            thread.join().unwrap();
        }
        broker.restart();
        ledger.check(&drain(broker.address(), "/queue/load"));
    }
}

#[test]
fn r9_redelivered_tells_what_may_have_been_delivered() {
    let mut broker = Broker::start();
    let mut client = Raw::connect(broker.address());
    for body in ["1", "2", "3"] {
        client.publish("/queue/untouched", body);
        client.publish("/queue/seen", body);
    }
    client.subscribe("/queue/seen", "client-individual", &[]);
    for body in ["1", "2", "3"] {
        assert_eq!(client.expect("MESSAGE").text(), body);
    }
    broker.kill_9();
    broker.restart();

    for (queue, redelivered) in [("/queue/untouched", false), ("/queue/seen", true)] {
        let found = drain(broker.address(), queue);
        assert_eq!(found.iter().map(Frame::text).collect::<Vec<_>>(), ["1", "2", "3"]);
        for message in found {
            assert_eq!(message.redelivered(), redelivered, "{queue} {message:?}");
        }
    }
}

#[test]
fn r9_a_delivery_count_survives() {
    let mut broker = Broker::start_with(with_policy());
    let mut client = Raw::connect(broker.address());
    client.subscribe("/queue/tried.again", "client-individual", &[]);
    client.publish("/queue/tried.again", "poison");
    let first = client.expect("MESSAGE");
    assert_eq!((first.header("JMSXDeliveryCount"), first.redelivered()), ("1", false));
    client.nack(&first);
    let second = client.expect("MESSAGE");
    assert_eq!((second.header("JMSXDeliveryCount"), second.redelivered()), ("2", true));
    broker.kill_9();
    broker.restart();

    // Two redeliveries are allowed; the count goes on, so the last one comes now.
    let mut client = Raw::connect(broker.address());
    client.subscribe("/queue/tried.again", "client-individual", &[]);
    let mut message = client.expect("MESSAGE");
    let mut counts = vec![message.header("JMSXDeliveryCount").parse::<u32>().unwrap()];
    assert!(counts[0] >= 2 && message.redelivered(), "{message:?}");
    assert_eq!(message.header("message-id"), first.header("message-id"));
    while counts[counts.len() - 1] < 3 {
        client.nack(&message);
        message = client.expect("MESSAGE");
        counts.push(message.header("JMSXDeliveryCount").parse().unwrap());
    }
    client.nack(&message);
    client.disconnect();
    let dead = drain(broker.address(), "/queue/ActiveMQ.DLQ");
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].header("message-id"), first.header("message-id"));
}

#[test]
fn r17_the_term_rises_at_each_start() {
    let mut broker = Broker::start();
    let mut terms = Vec::new();
    for start in 0..4 {
        let line = broker.logged("this broker is the master");
        let term = line.split("term=").nth(1).unwrap().split(' ').next().unwrap();
        terms.push(term.parse::<u32>().unwrap());
        // Whether or not something is written, and however it ends.
        match start {
            0 => broker.kill_9(),
            1 => drop(broker.sigterm()),
            _ => {
                Raw::connect(broker.address()).publish("/queue/a", "m");
                broker.kill_9();
            }
        }
        broker.restart();
    }
    assert!(terms.is_sorted_by(|one, next| one < next), "{terms:?}");
}

#[test]
fn r6_dead_letters_survive_with_origin_and_reason() {
    let mut broker = Broker::start();
    let mut client = Raw::connect(broker.address());
    client.subscribe("/queue/refused", "client-individual", &[]);
    client.publish("/queue/refused", "poison");
    let message = client.expect("MESSAGE");
    client.nack(&message);
    broker.kill_9();
    broker.restart();

    assert!(drain(broker.address(), "/queue/refused").is_empty());
    let dead = drain(broker.address(), "/queue/ActiveMQ.DLQ");
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].text(), "poison");
    assert_eq!(dead[0].header("original-destination"), "/queue/refused");
    assert_eq!(dead[0].header("message-id"), message.header("message-id"));
    assert!(!dead[0].header("dlqDeliveryFailureCause").is_empty());
}

#[test]
fn durable_subscriptions_survive() {
    let mut broker = Broker::start();
    let name = ("activemq.subscriptionName", "reader");
    let client_id = [("client-id", "c")];
    let mut reader = Raw::connect_with(broker.address(), &client_id);
    reader.subscribe("/topic/news", "client-individual", &[name]);
    let mut publisher = Raw::connect(broker.address());
    for body in ["1", "2", "3"] {
        publisher.publish("/topic/news", body);
    }
    let first = reader.expect("MESSAGE");
    reader.ack(&first);
    broker.kill_9();
    broker.restart();

    // What comes before the reader is back is kept too.
    let mut publisher = Raw::connect(broker.address());
    publisher.publish("/topic/news", "4");
    let mut reader = Raw::connect_with(broker.address(), &client_id);
    reader.subscribe("/topic/news", "client-individual", &[name]);
    for body in ["2", "3", "4"] {
        let message = reader.expect("MESSAGE");
        assert_eq!(message.text(), body);
        reader.ack(&message);
    }
    reader.confirmed("UNSUBSCRIBE", &[("id", "1"), name], b"");
    broker.kill_9();
    broker.restart();

    // It is deleted, and stays so.
    let mut publisher = Raw::connect(broker.address());
    publisher.publish("/topic/news", "5");
    let mut reader = Raw::connect_with(broker.address(), &client_id);
    reader.subscribe("/topic/news", "client-individual", &[name]);
    publisher.publish("/topic/news", "6");
    assert_eq!(reader.expect("MESSAGE").text(), "6");
}

#[test]
fn what_is_not_persistent_does_not_survive() {
    let mut broker = Broker::start();
    let mut client = Raw::connect(broker.address());
    client.confirmed("SEND", &[("destination", "/queue/a"), ("persistent", "false")], b"passing");
    client.confirmed("SEND", &[("destination", "/queue/a")], b"kept by default");
    broker.kill_9();
    broker.restart();
    let found = drain(broker.address(), "/queue/a");
    assert_eq!(found.iter().map(Frame::text).collect::<Vec<_>>(), ["kept by default"]);
}

/// One message that nobody acknowledges, and many times a segment through the queue beside it.
#[test]
fn r34_one_old_message_pins_no_segment() {
    let mut broker = Broker::start_with(Settings::new().option("store.segment_bytes", "\"1MiB\""));
    let mut client = Raw::connect(broker.address());
    client.publish("/queue/old", "old");
    client.subscribe("/queue/busy", "client-individual", &[]);
    let body = "x".repeat(100_000);
    for _ in 0..400 {
        client.publish("/queue/busy", &body);
        let message = client.expect("MESSAGE");
        client.ack(&message);
    }
    client.disconnect();
    let files = fs::read_dir(broker.data().join("journal")).unwrap();
    let segments = files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "journal"));
    let segments = segments.count();
    assert!(segments <= 3, "{segments} segments for one small message");

    broker.kill_9();
    broker.restart();
    let found = drain(broker.address(), "/queue/old");
    assert_eq!(found.iter().map(Frame::text).collect::<Vec<_>>(), ["old"]);
    assert!(drain(broker.address(), "/queue/busy").is_empty());
}
