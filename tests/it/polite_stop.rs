//! SIGTERM: the broker ends well and soon, and what it confirmed is there afterwards, however it ends.

use std::thread;

use crate::harness::{Broker, Raw, Settings, encode};

#[test]
fn what_was_confirmed_is_there_after_sigterm() {
    let mut broker = Broker::start();
    let mut client = Raw::connect(broker.address());
    for number in 0..100 {
        client.publish("/queue/kept", &number.to_string());
    }
    client.subscribe("/queue/kept", "client-individual", &[]);
    for number in 0..40 {
        let message = client.expect("MESSAGE");
        assert_eq!(message.text(), number.to_string());
        client.send(encode("ACK", &[("id", message.header("ack"))], b""));
    }
    client.confirmed("UNSUBSCRIBE", &[("id", "1")], b"");
    broker.sigterm();
    while let Some(frame) = client.reader.next().unwrap() {
        assert_eq!(frame.command, "MESSAGE", "only what was under way: {frame:?}");
    }

    broker.restart();
    let mut client = Raw::connect(broker.address());
    client.subscribe("/queue/kept", "auto", &[]);
    for number in 40..100 {
        assert_eq!(client.expect("MESSAGE").text(), number.to_string());
    }
    client.disconnect();
}

#[test]
fn sigterm_under_load_confirms_no_more_than_it_keeps() {
    let mut broker = Broker::start();
    let address = broker.address();
    let mut confirmed = Vec::new();
    let (tell, told) = std::sync::mpsc::channel();
    let producer = thread::spawn(move || {
        let Raw { mut reader, mut writer } = Raw::connect(address);
        let sender = thread::spawn(move || {
            for number in 0_u32.. {
                let number = number.to_string();
                let headers = [("destination", "/queue/load"), ("persistent", "true"), ("receipt", &number)];
                if writer.send(encode("SEND", &headers, number.as_bytes())).is_err() {
                    return;
                }
            }
        });
        // The broker may end while it is being written to: then the end is a reset, and no receipt follows it.
        while let Ok(Some(frame)) = reader.next() {
            assert_eq!(frame.command, "RECEIPT", "{frame:?}");
            tell.send(frame.header("receipt-id").to_owned()).unwrap();
        }
        sender.join().unwrap();
    });
    while confirmed.len() < 500 {
        confirmed.push(told.recv().unwrap());
    }
    broker.sigterm();
    producer.join().unwrap();
    confirmed.extend(told);

    broker.restart();
    let mut client = Raw::connect(address);
    client.publish("/queue/load", "end");
    client.subscribe("/queue/load", "auto", &[]);
    let mut found = Vec::new();
    while let message = client.expect("MESSAGE")
        && message.text() != "end"
    {
        found.push(message.text().to_owned());
    }
    assert!(found.len() >= confirmed.len(), "{} found, {} confirmed", found.len(), confirmed.len());
    assert_eq!(found[..confirmed.len()], confirmed, "all that was confirmed, in order");
    client.disconnect();
}

#[test]
fn sigterm_of_an_idle_broker_ends_well() {
    let mut broker = Broker::start();
    broker.sigterm();
}

#[test]
fn a_second_signal_ends_a_stop_at_once() {
    let mut broker = Broker::start();
    let mut client = Raw::connect(broker.address());
    client.publish("/queue/kept", "m");
    // Frozen, so that both are there when it looks. The client stays, and so a polite stop would wait for it.
    broker.freeze();
    broker.ask_to_stop();
    broker.sigint();
    broker.thaw();
    let (status, said) = broker.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("a second signal stops at once"), "it was told before: {said}");
    assert!(said.contains("batonmq: stopped at once by a second signal; what was confirmed is safe"), "{said}");
    assert!(!said.contains("took longer"), "{said}");

    broker.restart();
    let mut client = Raw::connect(broker.address());
    client.subscribe("/queue/kept", "auto", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "m");
}

/// Megabytes are on their way to the disk when a millisecond is all that there is.
#[test]
fn a_stop_that_takes_longer_than_it_may_is_cut_short_and_says_so() {
    let mut broker = Broker::start_with(Settings::new().option("stop_timeout", "\"1ms\""));
    let mut body = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        let address = broker.address();
        let (tell, told) = std::sync::mpsc::channel();
        let producer = thread::spawn(move || {
            let Raw { mut reader, mut writer } = Raw::connect(address);
            let sender = thread::spawn(move || {
                for number in 0_u32.. {
                    let number = number.to_string();
                    let headers = [("destination", "/queue/load"), ("persistent", "true"), ("receipt", &number)];
                    if writer.send(encode("SEND", &headers, &body)).is_err() {
                        return body;
                    }
                }
                unreachable!("the broker stops before");
            });
            while let Ok(Some(_)) = reader.next() {
                tell.send(()).unwrap();
            }
            sender.join().unwrap()
        });
        for _ in 0..5 {
            told.recv().unwrap();
        }
        broker.ask_to_stop();
        let (status, said) = broker.ended();
        body = producer.join().unwrap();
        let confirmed = 5 + told.iter().count();

        broker.restart();
        let mut client = Raw::connect(address);
        client.subscribe("/queue/load", "client-individual", &[("activemq.prefetchSize", "1")]);
        for _ in 0..confirmed {
            let message = client.expect("MESSAGE");
            client.ack(&message);
        }
        client.confirmed("UNSUBSCRIBE", &[("id", "1")], b"");
        drop(client);
        if status.code() == Some(1) {
            assert!(said.contains("batonmq: the stop took longer than stop_timeout: still running"), "{said}");
            assert!(said.contains("what was confirmed is safe; raise stop_timeout"), "{said}");
            return;
        }
        assert_eq!(status.code(), Some(0), "{said}");
        println!("it was faster than a millisecond; once more");
    }
    panic!("no stop takes longer than a millisecond");
}
