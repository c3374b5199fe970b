//! R2 and R4 where they meet: who acknowledges has sends of its own under way.

use crate::harness::{Broker, Raw, encode};

const KEPT: [(&str, &str); 2] = [("persistent", "true"), ("content-type", "text/plain")];

fn send(client: &mut Raw, destination: &str, receipt: &str) {
    let headers = [KEPT[0], KEPT[1], ("destination", destination), ("receipt", receipt)];
    client.send(encode("SEND", &headers, receipt.as_bytes()));
}

/// Reads a MESSAGE and a RECEIPT, in whatever order they come; the receipt's id.
fn message_and_receipt(client: &mut Raw) -> String {
    let mut frames = [client.frame(), client.frame()];
    frames.sort_by(|one, other| one.command.cmp(&other.command));
    assert_eq!([&*frames[0].command, &*frames[1].command], ["MESSAGE", "RECEIPT"]);
    frames[1].header("receipt-id").to_owned()
}

#[test]
fn r2_who_consumes_what_it_sends_gets_its_receipts() {
    let broker = Broker::start();
    let mut client = Raw::connect(broker.address());
    client.subscribe("/queue/own", "auto", &[]);
    for number in 0..20 {
        let receipt = format!("receipt-{number}");
        send(&mut client, "/queue/own", &receipt);
        assert_eq!(message_and_receipt(&mut client), receipt);
    }
    client.disconnect();
}

#[test]
fn r2_two_that_consume_each_others_messages_get_their_receipts() {
    let broker = Broker::start();
    let (mut one, mut other) = (Raw::connect(broker.address()), Raw::connect(broker.address()));
    one.subscribe("/queue/to-one", "auto", &[]);
    other.subscribe("/queue/to-other", "auto", &[]);
    for number in 0..20 {
        let receipt = format!("receipt-{number}");
        send(&mut one, "/queue/to-other", &receipt);
        send(&mut other, "/queue/to-one", &receipt);
        assert_eq!(message_and_receipt(&mut one), receipt);
        assert_eq!(message_and_receipt(&mut other), receipt);
    }
    one.disconnect();
    other.disconnect();
}
