//! SENDs that a full queue or durable subscription holds, over the real binary: who waits, who is told, and that
//! everybody else is served (R8).

use crate::harness::{Broker, Frame, Raw, Settings, encode};

/// A queue, or a durable subscription, takes one message of [`body`]'s size.
fn small_queues() -> Settings {
    Settings::new().option("limits.queue_bytes_max", "\"5KiB\"")
}

fn body(name: &str) -> String {
    format!("{name} {}", "x".repeat(3_000))
}

fn name_of(message: &Frame) -> &str {
    message.text().split(' ').next().unwrap()
}

/// Sends a message that the broker will hold; its receipt comes when it is taken.
fn send_held(client: &mut Raw, destination: &str, name: &str) {
    let headers = [("destination", destination), ("persistent", "true"), ("receipt", name)];
    client.send(encode("SEND", &headers, body(name).as_bytes()));
}

/// The broker says nothing but heart-beats; some of them prove that it had the time to say something.
fn hears_only_heart_beats(client: &mut Raw) {
    for _ in 0..3 {
        client.reader.heart_beat();
    }
}

const BEATS: [(&str, &str); 1] = [("heart-beat", "0,500")];

#[test]
fn r8_nacks_and_heart_beats_go_on_while_a_send_is_held() {
    let broker = Broker::start_with(small_queues());
    let mut client = Raw::connect_with(broker.address(), &BEATS);
    client.subscribe("/queue/full", "client-individual", &[]);
    client.publish("/queue/full", &body("first"));
    let first = client.expect("MESSAGE");
    send_held(&mut client, "/queue/full", "second");
    hears_only_heart_beats(&mut client);
    // Nothing but this makes room.
    client.send(encode("NACK", &[("id", first.header("ack"))], b""));
    let mut frames = [client.frame(), client.frame()];
    frames.sort_by(|one, other| one.command.cmp(&other.command));
    let [message, receipt] = frames;
    assert_eq!((message.command.as_str(), name_of(&message)), ("MESSAGE", "second"));
    assert_eq!((receipt.command.as_str(), receipt.header("receipt-id")), ("RECEIPT", "second"));
    client.ack(&message);
    client.subscribe("/queue/ActiveMQ.DLQ", "auto", &[("id", "dead")]);
    assert_eq!(name_of(&client.expect("MESSAGE")), "first");
    client.disconnect();
}

#[test]
fn r4_an_error_behind_a_held_send_waits_for_it_and_nothing_passes_it() {
    let broker = Broker::start_with(small_queues());
    let mut client = Raw::connect_with(broker.address(), &BEATS);
    client.publish("/queue/full", &body("first"));
    send_held(&mut client, "/queue/full", "second");
    client.send(encode("ACK", &[("id", "none"), ("receipt", "refused")], b""));
    send_held(&mut client, "/queue/other", "never");
    hears_only_heart_beats(&mut client);

    let mut consumer = Raw::connect(broker.address());
    consumer.subscribe("/queue/full", "auto", &[]);
    for name in ["first", "second"] {
        assert_eq!(name_of(&consumer.expect("MESSAGE")), name);
    }
    assert_eq!(client.expect("RECEIPT").header("receipt-id"), "second");
    assert_eq!(client.refused("Unexpected ACK").header("receipt-id"), "refused");
    consumer.subscribe("/queue/other", "auto", &[("id", "other")]);
    consumer.publish("/queue/other", "nothing before this");
    assert_eq!(consumer.expect("MESSAGE").text(), "nothing before this");
    consumer.disconnect();
}

#[test]
fn r8_a_full_durable_subscription_holds_its_topic_and_no_other() {
    let mut broker = Broker::start_with(small_queues());
    let client_id = [("client-id", "c")];
    let name = ("activemq.subscriptionName", "reader");
    let mut reader = Raw::connect_with(broker.address(), &client_id);
    reader.subscribe("/topic/news", "client-individual", &[name]);
    reader.disconnect();
    for restarted in [false, true] {
        if restarted {
            broker.kill_9(); // what it holds counts after a restart too
            broker.restart();
        } else {
            Raw::connect(broker.address()).publish("/topic/news", &body("first"));
        }
        let mut publisher = Raw::connect_with(broker.address(), &BEATS);
        send_held(&mut publisher, "/topic/news", "held");
        hears_only_heart_beats(&mut publisher);
        Raw::connect(broker.address()).publish("/topic/other", &body("free"));
        if !restarted {
            continue;
        }
        let mut reader = Raw::connect_with(broker.address(), &client_id);
        reader.subscribe("/topic/news", "client-individual", &[name]);
        for name in ["first", "held"] {
            let message = reader.expect("MESSAGE");
            assert_eq!(name_of(&message), name);
            reader.ack(&message);
        }
        assert_eq!(publisher.expect("RECEIPT").header("receipt-id"), "held");
        publisher.publish("/topic/news", "room");
        assert_eq!(reader.expect("MESSAGE").text(), "room");
        reader.disconnect();
    }
}

#[test]
fn r8_who_waits_for_a_full_durable_subscription_gets_error_after_ten_seconds() {
    let broker = Broker::start_with(small_queues());
    let mut reader = Raw::connect_with(broker.address(), &[("client-id", "c")]);
    reader.subscribe("/topic/news", "client-individual", &[("activemq.subscriptionName", "reader")]);
    reader.disconnect();
    let mut publisher = Raw::connect(broker.address());
    publisher.publish("/topic/news", &body("first"));
    send_held(&mut publisher, "/topic/news", "second");
    let error = publisher.refused("full");
    assert_eq!(error.header("receipt-id"), "second");
    assert!(error.text().contains("10 s"), "{}", error.text());
}
