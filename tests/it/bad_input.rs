//! What a broker meets that should not be: each is answered by words a human can act on, and harms nobody else.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use crate::harness::{Broker, Frame, Raw, Settings, encode};

/// A frame that is refused on a connection where CONNECT was answered, and a word of the answer.
type Case<'a> = (&'a str, &'a [u8], &'a str);

/// Each case on a connection of its own: ERROR, then an orderly end. The broker serves others all the while.
fn all_refused(broker: &Broker, cases: &[Case<'_>]) {
    let mut witness = Raw::connect(broker.address());
    witness.subscribe("/queue/witness", "client-individual", &[("id", "w")]);
    for (name, bytes, says) in cases {
        println!("case: {name}");
        let mut client = Raw::connect(broker.address());
        client.send(bytes);
        client.refused(says);
        // A connection of its own sends, so that nothing but the message arrives at the witness.
        let mut other = Raw::connect(broker.address());
        other.publish("/queue/witness", name);
        other.disconnect();
        let message = witness.expect("MESSAGE");
        assert_eq!(message.text(), *name);
        witness.ack(&message);
    }
    witness.disconnect();
}

#[test]
fn malformed_frames_are_refused() {
    let broker = Broker::start();
    all_refused(
        &broker,
        &[
            ("header without a colon", b"SEND\ndestination\n\nx\0", "header"),
            ("header without a name", b"SEND\n:value\n\nx\0", "header"),
            ("undefined escape", b"SEND\ndestination:/queue/a\nx:a\\tb\n\nx\0", "escape"),
            ("escape cut off", b"SEND\ndestination:/queue/a\nx:a\\\n\nx\0", "escape"),
            ("header is not UTF-8", b"SEND\ndestination:/queue/a\nx:\xff\xfe\n\nx\0", "utf-8"),
            ("content-length is no number", b"SEND\ndestination:/queue/a\ncontent-length:ten\n\nx\0", "content-length"),
            ("content-length is negative", b"SEND\ndestination:/queue/a\ncontent-length:-1\n\nx\0", "content-length"),
            (
                "content-length beyond any number",
                b"SEND\ndestination:/queue/a\ncontent-length:99999999999999999999999\n\nx\0",
                "maximum data length",
            ),
            ("no NUL behind the body", b"SEND\ndestination:/queue/a\ncontent-length:1\n\nxyz\0", "content-length"),
            ("unknown command", b"SHOUT\n\n\0", "SHOUT"),
            ("a command of the server's", b"MESSAGE\n\n\0", "MESSAGE"),
            ("a command cut short", b"SUB\ndestination:/queue/a\nid:1\n\n\0", "SUB"),
            ("a command in lower case", b"send\ndestination:/queue/a\n\nx\0", "send"),
        ],
    );
}

#[test]
fn frames_beyond_a_limit_are_refused() {
    let long_command = vec![b'A'; 2000];
    let long_header = [b"SEND\ndestination:/queue/a\nlong:", vec![b'x'; 11_000].as_slice()].concat();
    let mut many_headers = b"SEND\ndestination:/queue/a\n".to_vec();
    for number in 0..1001 {
        many_headers.extend_from_slice(format!("h{number}:v\n").as_bytes());
    }
    let scanned_body = [b"SEND\ndestination:/queue/a\n\n", vec![b'x'; 5000].as_slice()].concat();

    let broker = Broker::start_with(Settings::new().option("stomp.body_bytes_max", "\"4KiB\""));
    all_refused(
        &broker,
        &[
            ("command", &long_command, "command"),
            ("header line", &long_header, "header"),
            ("number of headers", &many_headers, "header"),
            // Refused by what it announces: the body does not come.
            ("body by content-length", b"SEND\ndestination:/queue/a\ncontent-length:4097\n\n", "4096"),
            ("body by scanning", &scanned_body, "4096"),
        ],
    );
    let mut client = Raw::connect(broker.address());
    client.publish("/queue/fits", &"x".repeat(4096));
    client.disconnect();

    // As an option, and as ActiveMQ's users write it; what stands in the URI counts.
    for settings in [
        Settings::new().query("wireFormat.maxFrameSize=2048"),
        Settings::new().option("stomp.frame_bytes_max", "\"2KiB\""),
        Settings::new().query("wireFormat.maxFrameSize=2048").option("stomp.frame_bytes_max", "\"1KiB\""),
    ] {
        let broker = Broker::start_with(settings);
        let frame = encode("SEND", &[("destination", "/queue/a")], &[b'x'; 2100]);
        all_refused(&broker, &[("frame", &frame, "2048")]);
        Raw::connect(broker.address()).publish("/queue/fits", &"x".repeat(1_900));
    }
    for settings in [
        Settings::new().query("wireFormat.maxDataLength=2048"),
        Settings::new().query("wireFormat.maxDataLength=2048").option("stomp.body_bytes_max", "\"1KiB\""),
    ] {
        let broker = Broker::start_with(settings);
        let frame = encode("SEND", &[("destination", "/queue/a")], &[b'x'; 2049]);
        all_refused(&broker, &[("body", &frame, "2048")]);
        Raw::connect(broker.address()).publish("/queue/fits", &"x".repeat(2_048));
    }
}

#[test]
fn frames_in_the_wrong_order_are_refused() {
    let broker = Broker::start();
    for first in [encode("SEND", &[("destination", "/queue/a")], b"x"), encode("DISCONNECT", &[], b"")] {
        let mut client = Raw::open(broker.address());
        client.send(first);
        client.refused("CONNECT");
    }
    let mut client = Raw::connect(broker.address());
    client.send(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0");
    client.refused("CONNECT");
}

#[test]
fn a_connect_that_asks_for_the_impossible_is_refused() {
    let broker = Broker::start();
    for (frame, says) in [
        (&b"CONNECT\naccept-version:2.0\nhost:x\n\n\0"[..], "version"),
        (b"CONNECT\naccept-version:1.2\nhost:x\nheart-beat:soon\n\n\0", "heart-beat"),
        (b"CONNECT\naccept-version:1.2\nhost:x\nheart-beat:1\n\n\0", "heart-beat"),
        (b"CONNECT\naccept-version:1.2\nhost:x\nheart-beat:-1,0\n\n\0", "heart-beat"),
    ] {
        let mut client = Raw::open(broker.address());
        client.send(frame);
        client.refused(says);
    }
    // Another protocol at our port.
    let mut client = Raw::open(broker.address());
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.expect("ERROR");
    client.closed();
    let mut client = Raw::open(broker.address());
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    client.writer.finish();
    assert!(client.reader.next().unwrap().is_none_or(|frame| frame.command == "ERROR"));
}

#[test]
fn what_does_not_exist_is_refused() {
    let broker = Broker::start();
    let twice = [&b"BEGIN\ntransaction:t\n\n\0"[..], b"BEGIN\ntransaction:t\n\n\0"].concat();
    let closed =
        [&b"BEGIN\ntransaction:t\n\n\0"[..], b"COMMIT\ntransaction:t\n\n\0", b"COMMIT\ntransaction:t\n\n\0"].concat();
    let subscribe = b"SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\n\n\0";
    let same_id = [&subscribe[..], subscribe].concat();
    all_refused(
        &broker,
        &[
            ("SEND without destination", b"SEND\n\nx\0", "destination"),
            ("SEND to nowhere", b"SEND\ndestination:\n\nx\0", "destination"),
            (
                "SEND in an unknown transaction",
                b"SEND\ndestination:/queue/a\ntransaction:t\n\nx\0",
                "transaction id: t",
            ),
            ("COMMIT of an unknown transaction", b"COMMIT\ntransaction:t\n\n\0", "transaction id: t"),
            ("ABORT of an unknown transaction", b"ABORT\ntransaction:t\n\n\0", "transaction id: t"),
            ("COMMIT once more", &closed, "transaction id: t"),
            ("BEGIN without a name", b"BEGIN\n\n\0", "transaction"),
            ("BEGIN twice", &twice, "transaction"),
            ("SUBSCRIBE without id", b"SUBSCRIBE\ndestination:/queue/a\n\n\0", "subscription id"),
            ("SUBSCRIBE without destination", b"SUBSCRIBE\nid:1\n\n\0", "destination"),
            ("SUBSCRIBE with an id in use", &same_id, "already"),
            (
                "durable SUBSCRIBE without client-id",
                b"SUBSCRIBE\nid:1\ndestination:/topic/a\nactivemq.subscriptionName:x\n\n\0",
                "client-id",
            ),
            ("UNSUBSCRIBE of nothing", b"UNSUBSCRIBE\nid:9\n\n\0", "No subscription matched"),
            ("UNSUBSCRIBE without id", b"UNSUBSCRIBE\n\n\0", "id"),
            ("ACK without id", b"ACK\n\n\0", "ack id"),
            ("ACK of nothing", b"ACK\nid:9\n\n\0", "Unexpected ACK"),
            ("NACK of nothing", b"NACK\nid:9\n\n\0", "Unexpected NACK"),
        ],
    );
}

#[test]
fn a_durable_subscription_to_a_queue_is_refused() {
    let broker = Broker::start();
    let mut client = Raw::connect_with(broker.address(), &[("client-id", "c")]);
    let headers = [("destination", "/queue/a"), ("id", "1"), ("activemq.subscriptionName", "x")];
    client.send(encode("SUBSCRIBE", &headers, b""));
    client.refused("queue");
}

#[test]
fn an_ack_in_an_unknown_transaction_is_refused_and_changes_nothing() {
    let broker = Broker::start();
    for verb in ["ACK", "NACK"] {
        let mut client = Raw::connect(broker.address());
        client.publish("/queue/a", verb);
        client.subscribe("/queue/a", "client-individual", &[]);
        let message = client.expect("MESSAGE");
        client.send(encode(verb, &[("id", message.header("ack")), ("transaction", "t")], b""));
        client.refused("transaction id: t");
        let mut client = Raw::connect(broker.address());
        client.subscribe("/queue/a", "auto", &[]);
        assert_eq!(client.expect("MESSAGE").text(), verb);
        client.disconnect();
    }
}

#[test]
fn r7_a_second_ack_is_refused_and_changes_nothing() {
    let broker = Broker::start();
    let mut client = Raw::connect(broker.address());
    client.publish("/queue/twice", "m1");
    client.publish("/queue/twice", "m2");
    client.subscribe("/queue/twice", "client-individual", &[]);
    let first = client.expect("MESSAGE");
    client.expect("MESSAGE");
    client.ack(&first);
    client.send(encode("ACK", &[("id", first.header("ack"))], b""));
    client.refused("Unexpected ACK");

    let mut client = Raw::connect(broker.address());
    client.subscribe("/queue/twice", "auto", &[]);
    let message = client.expect("MESSAGE");
    assert_eq!((message.text(), message.redelivered()), ("m2", true));
    client.disconnect();
}

#[test]
fn r4_error_names_its_receipt_and_keeps_its_place_in_the_order() {
    let broker = Broker::start();
    let mut client = Raw::connect(broker.address());
    let mut bytes = Vec::new();
    for receipt in ["1", "2", "3"] {
        let headers = [("destination", "/queue/a"), ("persistent", "true"), ("receipt", receipt)];
        bytes.extend(encode("SEND", &headers, b"x"));
    }
    bytes.extend(encode("ACK", &[("id", "none"), ("receipt", "4")], b""));
    client.send(bytes);
    for receipt in ["1", "2", "3"] {
        assert_eq!(client.expect("RECEIPT").header("receipt-id"), receipt);
    }
    let error = client.refused("Unexpected ACK");
    assert_eq!(error.header("receipt-id"), "4");
    assert!(!error.body.is_empty(), "the body says what to do");
}

#[test]
fn r4_the_receipt_of_subscribe_comes_before_its_messages() {
    let mut broker = Broker::start();
    for restarted in [false, true] {
        if restarted {
            broker.kill_9();
            broker.restart();
        }
        let mut client = Raw::connect(broker.address());
        client.publish("/queue/a", "m");
        let headers = [("destination", "/queue/a"), ("id", "1"), ("ack", "client"), ("receipt", "s")];
        client.send(encode("SUBSCRIBE", &headers, b""));
        assert_eq!(client.expect("RECEIPT").header("receipt-id"), "s");
        assert_eq!(client.expect("MESSAGE").text(), "m");
    }
}

#[test]
fn error_arrives_although_the_client_goes_on_sending() {
    let broker = Broker::start();
    let Raw { reader, mut writer } = Raw::connect(broker.address());
    let sender = thread::spawn(move || {
        writer.send(b"SHOUT\n\n\0").unwrap();
        // The broker may close before all of it is written.
        let more = encode("SEND", &[("destination", "/queue/a")], &[b'x'; 100_000]);
        for _ in 0..20 {
            if writer.send(&more).is_err() {
                break;
            }
        }
        writer
    });
    let writer = sender.join().unwrap();
    let mut client = Raw { reader, writer };
    let error = client.expect("ERROR");
    assert!(error.header("message").contains("SHOUT"), "{error:?}");
}

#[test]
fn silent_connections_are_closed() {
    // Long enough for one that does connect, on a machine that is busy.
    let broker = Broker::start_with(Settings::new().option("stomp.connect_timeout", "\"2s\""));
    let silent = ["", "CONNECT\naccept-version:1.2\nhost:x\n"].map(|said| {
        let mut client = Raw::open(broker.address());
        client.send(said);
        client
    });
    for mut client in silent {
        client.refused("CONNECT");
    }
    let mut client = Raw::connect(broker.address());
    client.publish("/queue/a", "in time");
    client.disconnect();
}

#[test]
fn a_client_that_breaks_its_promise_of_heart_beats_is_closed() {
    let broker = Broker::start();
    let mut client = Raw::connect_with(broker.address(), &[("heart-beat", "2000,500")]);
    client.subscribe("/queue/held", "client-individual", &[]);
    client.reader.heart_beat();
    let mut other = Raw::connect(broker.address());
    other.publish("/queue/held", "m");
    client.expect("MESSAGE");
    // From here on it is silent; its message goes to who is there.
    other.subscribe("/queue/held", "auto", &[]);
    let message = other.expect("MESSAGE");
    assert!(message.redelivered());
    other.disconnect();
    client.cut_off();
}

#[test]
fn a_client_that_never_reads_is_closed_and_its_messages_go_to_others() {
    // The witness may be slow too, on a machine that is busy, but not for so long.
    let mut broker = Broker::start_with(Settings::new().option("limits.slow_consumer_timeout", "\"4s\""));
    broker.announce("slow consumer");
    let count = 1000;
    let mut producer = Raw::connect(broker.address());
    let body = "x".repeat(30_000);
    for number in 0..count {
        producer.send(encode("SEND", &[("destination", "/queue/heavy")], format!("{number} {body}").as_bytes()));
    }
    producer.disconnect();

    let mut slow = Raw::connect(broker.address());
    slow.subscribe("/queue/heavy", "client-individual", &[("activemq.prefetchSize", "1000")]);
    let mut witness = Raw::connect(broker.address());
    witness.subscribe("/queue/heavy", "client-individual", &[("activemq.prefetchSize", "1000")]);
    // Some came here at once, the others when the slow one was closed; both in order, and each once.
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let message = witness.expect("MESSAGE");
        let number: u32 = message.text().split(' ').next().unwrap().parse().unwrap();
        if message.redelivered() {
            again.push(number)
        } else {
            first.push(number)
        }
        witness.ack(&message);
    }
    assert!(!again.is_empty() && first.is_sorted() && again.is_sorted(), "{first:?} {again:?}");
    let all: BTreeSet<u32> = first.into_iter().chain(again).collect();
    assert_eq!(all, (0..count).collect());
    broker.logged("slow consumer");
    witness.disconnect();
}

#[test]
fn what_is_not_supported_yet_is_refused_by_name() {
    let broker = Broker::start();
    all_refused(
        &broker,
        &[
            ("selector", b"SUBSCRIBE\nid:1\ndestination:/queue/a\nselector:x = 1\n\n\0", "selector"),
            ("wildcard *", b"SUBSCRIBE\nid:1\ndestination:/queue/a.*\n\n\0", "wildcard"),
            ("wildcard >", b"SUBSCRIBE\nid:1\ndestination:/topic/a.>\n\n\0", "wildcard"),
            ("composite", b"SEND\ndestination:/queue/a,/queue/b\n\nx\0", "composite"),
            ("virtual topic", b"SEND\ndestination:/topic/VirtualTopic.a\n\nx\0", "virtual"),
            ("virtual consumer", b"SUBSCRIBE\nid:1\ndestination:/queue/Consumer.a.VirtualTopic.b\n\n\0", "virtual"),
            ("delay of SEND", b"SEND\ndestination:/queue/a\nAMQ_SCHEDULED_DELAY:1000\n\nx\0", "AMQ_SCHEDULED_DELAY"),
            ("cron", b"SEND\ndestination:/queue/a\nAMQ_SCHEDULED_CRON:0 * * * *\n\nx\0", "AMQ_SCHEDULED_CRON"),
            ("group", b"SEND\ndestination:/queue/a\nJMSXGroupID:g\n\nx\0", "JMSXGroupID"),
            ("duplicate detection", b"SEND\ndestination:/queue/a\ndedup-id:1\n\nx\0", "dedup-id"),
            ("the same in Artemis' words", b"SEND\ndestination:/queue/a\n_AMQ_DUPL_ID:1\n\nx\0", "_AMQ_DUPL_ID"),
            ("exclusive", b"SUBSCRIBE\nid:1\ndestination:/queue/a\nactivemq.exclusive:true\n\n\0", "exclusive"),
            ("noLocal", b"SUBSCRIBE\nid:1\ndestination:/topic/a\nactivemq.noLocal:true\n\n\0", "noLocal"),
            ("retroactive", b"SUBSCRIBE\nid:1\ndestination:/topic/a\nactivemq.retroactive:true\n\n\0", "retroactive"),
            ("requeue", b"NACK\nid:1\nrequeue:true\n\n\0", "requeue"),
            ("delay of NACK", b"NACK\nid:1\ndelay:1000\n\n\0", "delay"),
        ],
    );
}

#[test]
fn what_can_not_be_browsed_is_refused() {
    let broker = Broker::start();
    Raw::connect(broker.address()).publish("/queue/seen", "m1");
    all_refused(
        &broker,
        &[
            ("a topic", b"SUBSCRIBE\nid:1\ndestination:/topic/a\nbrowser:true\n\n\0", "Cannot browse"),
            ("neither yes nor no", b"SUBSCRIBE\nid:1\ndestination:/queue/seen\nbrowser:yes\n\n\0", "browser"),
            (
                "NACK of what was shown",
                b"SUBSCRIBE\nid:1\ndestination:/queue/seen\nack:client\nbrowser:true\n\n\0NACK\nid:1-1\n\n\0",
                "Cannot Nack",
            ),
            (
                "ACK of what is settled by itself",
                b"SUBSCRIBE\nid:1\ndestination:/queue/seen\nbrowser:true\n\n\0ACK\nid:1-1\n\n\0",
                "Unexpected ACK",
            ),
        ],
    );
    let mut consumer = Raw::connect(broker.address());
    consumer.subscribe("/queue/seen", "auto", &[]);
    assert_eq!(consumer.expect("MESSAGE").text(), "m1");
    consumer.disconnect();
}

#[test]
fn a_lenient_broker_keeps_the_connection() {
    let broker = Broker::start_with(Settings::new().option("stomp.lenient", "true"));
    let mut client = Raw::connect(broker.address());
    for (frame, says) in [
        (&b"ACK\nid:none\nreceipt:r\n\n\0"[..], "Unexpected ACK"),
        (b"SEND\ndestination:/queue/a\ntransaction:none\nreceipt:r\n\nx\0", "transaction id: none"),
        (b"UNSUBSCRIBE\nid:none\nreceipt:r\n\n\0", "No subscription matched"),
        (b"SUBSCRIBE\nid:1\ndestination:/queue/a\nselector:x = 1\nreceipt:r\n\n\0", "selector"),
    ] {
        client.send(frame);
        let error = client.expect("ERROR");
        assert!(error.header("message").contains(says), "{error:?}");
        assert_eq!(error.header("receipt-id"), "r");
    }
    client.publish("/queue/still", "here");
    client.subscribe("/queue/still", "auto", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "here");
    // What breaks the protocol itself ends a lenient connection too.
    client.send(b"SHOUT\n\n\0");
    client.refused("SHOUT");
}

#[test]
fn a_lenient_client_may_try_again_what_was_declined() {
    let broker = Broker::start_with(Settings::new().option("stomp.lenient", "true"));
    let mut client = Raw::connect_with(broker.address(), &[("client-id", "c")]);
    let durably = |id| [("id", id), ("destination", "/topic/a"), ("activemq.subscriptionName", "d")];
    client.confirmed("SUBSCRIBE", &durably("1"), b"");
    client.send(encode("SUBSCRIBE", &durably("2"), b""));
    assert!(client.expect("ERROR").header("message").contains("in use"));
    client.confirmed("UNSUBSCRIBE", &[("id", "1")], b"");
    client.confirmed("SUBSCRIBE", &durably("2"), b"");
    client.confirmed("SEND", &[("destination", "/topic/a")], b"once more");
    assert_eq!(client.expect("MESSAGE").text(), "once more");

    client.confirmed("SUBSCRIBE", &[("id", "3"), ("destination", "/queue/a")], b"");
    client.send(encode("UNSUBSCRIBE", &[("id", "3"), ("activemq.subscriptionName", "unknown")], b""));
    client.expect("ERROR");
    client.send(encode("SEND", &[("destination", "/queue/a")], b"still there"));
    assert_eq!(client.expect("MESSAGE").text(), "still there");
}

#[test]
fn wrong_passwords_are_refused() {
    let broker = Broker::start_with(Settings::new().user("ann", "right"));
    let connect = |login: &str, passcode: &str| {
        let mut client = Raw::open(broker.address());
        client.send(format!("CONNECT\naccept-version:1.2\nhost:x\nlogin:{login}\npasscode:{passcode}\n\n\0"));
        client
    };
    let wrong = connect("ann", "wrong").refused("password");
    // Nothing tells who exists.
    let nobody = connect("nobody", "right").refused("password");
    let without_names = |frame: &Frame| frame.header("message").replace("ann", "").replace("nobody", "");
    assert_eq!(without_names(&wrong), without_names(&nobody));
    let mut nameless = Raw::open(broker.address());
    nameless.send(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0");
    nameless.expect("ERROR");
    nameless.closed();
    connect("ann", "right").expect("CONNECTED");
    // The password that was sent is nowhere in the log: `Broker` keeps it, and so can we.
    let mut broker = broker;
    assert!(!broker.sigterm().contains("wrong"));
}

#[test]
fn a_new_connection_with_the_same_client_id_takes_the_others_place() {
    let broker = Broker::start();
    let name = ("activemq.subscriptionName", "reader");
    let mut old = Raw::connect_with(broker.address(), &[("client-id", "c")]);
    old.subscribe("/topic/news", "client-individual", &[name]);
    let mut publisher = Raw::connect(broker.address());
    publisher.publish("/topic/news", "1");
    old.expect("MESSAGE");
    let mut new = Raw::connect_with(broker.address(), &[("client-id", "c")]);
    new.subscribe("/topic/news", "client-individual", &[name]);
    let message = new.expect("MESSAGE");
    assert_eq!((message.text(), message.redelivered()), ("1", true));
    old.refused("connected again");
}

#[test]
fn connections_beyond_the_maximum_are_refused() {
    let mut broker = Broker::start_with(Settings::new().query("maximumConnections=2"));
    broker.announce("maximumConnections is reached");
    let first = Raw::connect(broker.address());
    let mut second = Raw::connect(broker.address());
    Raw::open(broker.address()).refused("maximum");
    second.publish("/queue/a", "unharmed");
    first.disconnect();
    // The place is free once the broker has seen the end of the first.
    let mut third = loop {
        let mut client = Raw::open(broker.address());
        if client.writer.send(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0").is_err() {
            continue;
        }
        match client.reader.next() {
            Ok(Some(frame)) if frame.command == "CONNECTED" => break client,
            Ok(Some(frame)) => assert!(frame.header("message").contains("maximum"), "{frame:?}"),
            Ok(None) | Err(_) => {}
        }
    };
    third.publish("/queue/a", "welcome");
}

#[test]
fn a_damaged_journal_is_refused_with_file_and_byte() {
    let mut broker = Broker::start();
    let mut client = Raw::connect(broker.address());
    client.publish("/queue/a", "here is the damage to come");
    client.publish("/queue/a", "behind it");
    client.publish("/queue/a", "further behind it");
    broker.kill_9();

    let (file, offset) = find_in(&broker, b"the damage to come");
    change(&file, offset, b"T");
    let log = broker.refuses_to_start(5);
    let path = file.to_str().unwrap();
    assert!(log.contains(path) && log.contains("is damaged at byte "), "{log}");
    let at = log.split("is damaged at byte ").nth(1).unwrap().split(':').next().unwrap();
    let at: u64 = at.parse().unwrap();
    assert!(at <= offset && offset - at < 500, "the record at byte {at} does not hold byte {offset}");

    // Nothing was changed: with the byte as it was, all is there.
    change(&file, offset, b"t");
    broker.restart();
    let mut client = Raw::connect(broker.address());
    client.subscribe("/queue/a", "auto", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "here is the damage to come");
}

#[test]
fn a_journal_of_a_newer_version_is_refused() {
    let mut broker = Broker::start();
    Raw::connect(broker.address()).publish("/queue/a", "from the future");
    broker.kill_9();

    // Magic, format and checksum stand at these places in every format there will be.
    let (file, _) = find_in(&broker, b"from the future");
    let mut header = fs::read(&file).unwrap();
    header.truncate(60);
    header[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let checksum = crc32c::crc32c(&header);
    header.extend_from_slice(&checksum.to_le_bytes());
    change(&file, 0, &header);
    let log = broker.refuses_to_start(6);
    assert!(log.contains(file.to_str().unwrap()) && log.contains("format 2"), "{log}");
}

#[test]
fn a_data_directory_that_is_a_file_is_refused() {
    let mut broker = Broker::prepare(Settings::new());
    fs::write(broker.data(), "not a directory").unwrap();
    let log = broker.refuses_to_start(1);
    assert!(log.contains(broker.data().to_str().unwrap()), "{log}");
}

#[test]
fn a_data_directory_without_permission_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o000)).unwrap();
    let broker = Path::new(env!("CARGO_BIN_EXE_batonmq"));
    let mut command = if rustix::process::geteuid().is_root() {
        // Root may do everything, so nobody does it, with a copy that nobody can reach.
        let copy = directory.path().join("batonmq");
        fs::copy(broker, &copy).unwrap();
        let mut command = Command::new(copy);
        command.uid(65534).gid(65534);
        command
    } else {
        Command::new(broker)
    };
    let command = command.arg("start").arg("--data").arg(&data).args(["--listen", "stomp://127.0.0.1:0"]);
    let output = command.current_dir("/").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains(data.to_str().unwrap()), "{said}");
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let mut broker = Broker::prepare(Settings::new());
    let address = broker.reserve_port();
    let _taken = TcpListener::bind(address).unwrap();
    let log = broker.refuses_to_start(4);
    assert!(log.contains(&address.to_string()), "{log}");
}

#[test]
fn a_second_broker_on_the_same_data_waits_and_takes_over() {
    let mut first = Broker::start();
    let mut client = Raw::connect(first.address());
    client.publish("/queue/a", "m1");

    let mut second = first.sibling(Settings::new());
    let address = second.reserve_port();
    second.launch();
    second.logged("standby");
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    client.publish("/queue/a", "m2");
    first.kill_9();
    second.serving();
    let mut client = Raw::connect(second.address());
    client.subscribe("/queue/a", "auto", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "m1");
    assert_eq!(client.expect("MESSAGE").text(), "m2");
    client.disconnect();
}

#[test]
fn a_second_broker_that_shall_not_wait_ends() {
    let first = Broker::start();
    let mut second = first.sibling(Settings::new().flag("--no-wait"));
    let log = second.refuses_to_start(8);
    assert!(log.contains(first.data().to_str().unwrap()), "{log}");
}

#[test]
fn a_frozen_broker_goes_on_where_it_was() {
    let broker = Broker::start();
    let mut client = Raw::connect(broker.address());
    client.publish("/queue/a", "before");
    broker.freeze();
    client.send(encode("SEND", &[("destination", "/queue/a"), ("receipt", "r")], b"meanwhile"));
    broker.thaw();
    assert_eq!(client.expect("RECEIPT").header("receipt-id"), "r");
    client.subscribe("/queue/a", "auto", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "before");
    assert_eq!(client.expect("MESSAGE").text(), "meanwhile");
    client.disconnect();
}

fn change(file: &Path, offset: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

/// The file of the data directory that holds these bytes, and where.
fn find_in(broker: &Broker, needle: &[u8]) -> (PathBuf, u64) {
    let mut directories = vec![broker.data().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let mut bytes = Vec::new();
            fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
            if let Some(offset) = memchr::memmem::find(&bytes, needle) {
                return (path, offset as u64);
            }
        }
    }
    panic!("{:?} is in no file of the journal", String::from_utf8_lossy(needle));
}
