//! Frames in, requests out; answers in, bytes out. No socket.

use std::time::Duration;

use bytes::{BufMut, Bytes};

use super::{super::options::tests::options, super::output::Output, *};
use crate::{
    broker::{Ack, AckMode, AckTarget, Browse, Delivery, Outgoing, Send, Subscribe, Unsubscribe, Verdict},
    codec::stomp::{DecodeLimits, Decoder, Sender},
    engine::Written,
    types::{
        BodyKind, ConsumerNo, DeliveryTag, Destination, DestinationKind, Message, MessageDraft, Priority, PropertyValue,
    },
};

const NOW: Timestamp = Timestamp(1_700_000_100_000);

/// A session with a client that says what a test wants said.
struct Client {
    decoder: Decoder,
    translator: Translator,
    renderer: Renderer,
}

impl Client {
    fn new(version: Version) -> Self {
        Self::with(version, options(), "\nclient-id:billing", SessionId(7))
    }

    fn with(version: Version, options: SessionOptions, connect_headers: &str, session: SessionId) -> Self {
        let mut decoder = Decoder::new(Sender::Client, DecodeLimits::default());
        decoder.room().put_slice(format!("CONNECT\naccept-version:{version}{connect_headers}\n\n\0").as_bytes());
        let hello = Hello::read(&decoder.next_frame().unwrap().unwrap(), Duration::ZERO).unwrap();
        decoder.speak(version);
        let options = Arc::new(options);
        let subscribers = Arc::new(Subscribers::default());
        let name = session_name(&options, session);
        let connected = connected_frame(&hello, &name);
        Self {
            decoder,
            translator: Translator::new(options, &hello, session, Arc::clone(&subscribers)),
            renderer: Renderer::new(version, &name, connected, subscribers),
        }
    }

    /// Everything that `frames` ask for. `^` stands for NUL.
    fn say(&mut self, frames: &str) -> Vec<Request> {
        self.decoder.room().put_slice(frames.replace('^', "\0").as_bytes());
        let mut requests = Vec::new();
        self.translator.forget_declined();
        while let Some(frame) = self.decoder.next_frame().unwrap() {
            self.translator.translate(NOW, frame, &mut requests);
        }
        requests
    }

    /// The one command of `frame`.
    fn command(&mut self, frame: &str) -> Command {
        let mut requests = self.say(frame);
        assert_eq!(requests.len(), 1, "one request for {frame}");
        requests.remove(0).command
    }

    fn sent(&mut self, frame: &str) -> Send {
        match self.command(frame) {
            Command::Send(send) => send,
            other => panic!("no SEND but {other:?}"),
        }
    }

    fn subscribed(&mut self, frame: &str) -> Subscribe {
        match self.command(frame) {
            Command::Subscribe(subscribe) => subscribe,
            other => panic!("no SUBSCRIBE but {other:?}"),
        }
    }

    fn browses(&mut self, frame: &str) -> Browse {
        match self.command(frame) {
            Command::Browse(browse) => browse,
            other => panic!("no browser but {other:?}"),
        }
    }

    fn acked(&mut self, frame: &str) -> Ack {
        match self.command(frame) {
            Command::Ack(ack) => ack,
            other => panic!("no ACK but {other:?}"),
        }
    }

    fn refused(&mut self, frame: &str) -> Refusal {
        match self.command(frame) {
            Command::Refuse(refusal) => refusal,
            other => panic!("{frame} was not refused but is {other:?}"),
        }
    }

    /// The bytes of these answers.
    fn render(&mut self, answers: impl IntoIterator<Item = Outgoing>) -> String {
        self.render_and_count(answers).0
    }

    fn render_and_count(&mut self, answers: impl IntoIterator<Item = Outgoing>) -> (String, Written) {
        use bytes::Buf;
        let (mut out, mut written) = (Output::default(), Written::default());
        let mut answers = answers.into_iter().peekable();
        while answers.peek().is_some() {
            self.renderer.render_chunk(&mut answers, &mut out, &mut written);
        }
        let bytes = out.copy_to_bytes(out.remaining());
        (String::from_utf8(bytes.to_vec()).unwrap().replace('\0', "^"), written)
    }
}

fn delivery(consumer: u32, tag: u64, message: MessageDraft) -> Delivery {
    Delivery {
        consumer: ConsumerNo(consumer),
        tag: DeliveryTag(tag),
        message: Arc::new(Message::new(message)),
        redelivered: false,
        deliveries: 1,
        shared: false,
    }
}

fn draft() -> MessageDraft {
    MessageDraft {
        id: "ID-b-1-2-3".into(),
        timestamp: Timestamp(5),
        body_kind: BodyKind::Text,
        body: Bytes::from_static(b"hello"),
        ..MessageDraft::default()
    }
}

// --- SEND

#[test]
fn a_send_becomes_a_message_with_all_its_headers() {
    let mut client = Client::new(Version::V1_2);
    let send = client.sent(
        "SEND\ndestination:/queue/orders\npersistent:true\npriority:7\nexpires:1800000000000\ntimestamp:1600000000000\n\
         correlation-id:c-1\ntype:order\nreply-to:/topic/answers\ncolour:red\\cblue\ntransaction:t1\nreceipt:r\n\nhello^",
    );
    let message = &send.message;
    assert_eq!(send.destination, Destination::queue("orders"));
    assert_eq!(send.transaction.as_deref(), Some("t1"));
    assert!(message.persistent);
    assert_eq!(message.priority, Priority::clamped(7));
    assert_eq!(message.expires, Some(Timestamp(1_800_000_000_000)));
    assert_eq!(message.timestamp, Timestamp(1_600_000_000_000));
    assert_eq!(message.correlation_id.as_ref().unwrap().as_str(), "c-1");
    assert_eq!(message.message_type.as_ref().unwrap().as_str(), "order");
    assert_eq!(message.reply_to, Some(Destination::topic("answers")));
    assert_eq!(message.properties.iter().collect::<Vec<_>>(), [("colour", PropertyValue::Text("red:blue"))]);
    assert_eq!((message.body_kind, &*message.body), (BodyKind::Text, &b"hello"[..]));
    assert_eq!(message.id.as_str(), "ID-test-broker-1700000000000-7-1");
}

#[test]
fn defaults_of_a_send() {
    let mut client = Client::new(Version::V1_2);
    let queue = client.sent("SEND\ndestination:/queue/a\n\n^");
    assert!(queue.message.persistent, "to a queue, by option");
    assert_eq!(
        (queue.message.priority, queue.message.timestamp, queue.message.expires),
        (Priority::default(), NOW, None)
    );
    assert!(!client.sent("SEND\ndestination:/topic/a\n\n^").message.persistent);
    assert!(!client.sent("SEND\ndestination:/queue/a\npersistent:no\n\n^").message.persistent);
    let mut options = options();
    options.stomp.default_persistent = false;
    let mut transient = Client::with(Version::V1_2, options, "", SessionId(1));
    assert!(!transient.sent("SEND\ndestination:/queue/a\n\n^").message.persistent);
    assert!(transient.sent("SEND\ndestination:/queue/a\npersistent:TRUE\n\n^").message.persistent);
}

#[test]
fn message_ids_are_unique_over_sessions_and_have_no_colon() {
    let mut seen = std::collections::HashSet::new();
    for session in [1, 11] {
        let mut client = Client::with(Version::V1_1, options(), "", SessionId(session));
        for _ in 0..12 {
            let id = client.sent("SEND\ndestination:/queue/a\n\n^").message.id.to_string();
            assert!(!id.contains(':'));
            assert!(seen.insert(id));
        }
    }
}

#[test]
fn a_message_owns_exactly_its_bytes() {
    let mut client = Client::new(Version::V1_2);
    let send = client.sent("SEND\ndestination:/queue/a\ncolour:red\n\nhello^");
    let message = &send.message;
    let start = message.properties.as_bytes().as_ptr() as usize;
    let end = message.body.as_ptr() as usize + message.body.len();
    let parts = message.properties.as_bytes().len() + message.body.len();
    assert_eq!(end - start, parts, "properties and body lie together, and nothing else does");
}

#[test]
fn message_ids_go_on_whatever_was_made_ahead() {
    let mut client = Client::new(Version::V1_2);
    for number in 1..=1_100 {
        let id = client.sent("SEND\ndestination:/queue/a\n\n^").message.id.to_string();
        assert_eq!(id, format!("ID-test-broker-1700000000000-7-{number}"));
    }
}

#[test]
fn a_large_body_is_not_copied() {
    let mut client = Client::new(Version::V1_2);
    let head = format!("SEND\ndestination:/queue/a\ncontent-length:{}\n\n", 100_000);
    client.decoder.room().put_slice(head.as_bytes());
    assert!(client.decoder.next_frame().unwrap().is_none());
    let mut room = client.decoder.room();
    assert_eq!(room.remaining_mut(), 100_000, "the body is read straight into its own allocation");
    let place = room.chunk_mut().as_mut_ptr() as usize;
    room.put_slice(&[b'x'; 100_000]);
    let send = client.sent("^");
    assert_eq!(send.message.body.as_ptr() as usize, place);
}

#[test]
fn content_length_makes_bytes_unless_told_otherwise() {
    let mut client = Client::new(Version::V1_2);
    let mut kind = |headers: &str, body: &str| {
        client.sent(&format!("SEND\ndestination:/queue/a\n{headers}\n{body}^")).message.body_kind
    };
    assert_eq!(kind("", "abc"), BodyKind::Text);
    assert_eq!(kind("content-length:3\n", "abc"), BodyKind::Bytes);
    assert_eq!(kind("content-length:3\namq-msg-type:text\n", "abc"), BodyKind::Text);
    assert_eq!(kind("amq-msg-type:bytes\n", "abc"), BodyKind::Bytes);
    let refusal = client.refused("SEND\ndestination:/queue/a\namq-msg-type:map\n\n^");
    assert!(refusal.message.contains("amq-msg-type"));
}

#[test]
fn a_content_type_makes_text_if_the_operator_lets_it() {
    let kind = |on: bool, headers: &str| {
        let mut options = options();
        options.stomp.text_by_content_type = on;
        let mut client = Client::with(Version::V1_2, options, "", SessionId(1));
        let message = client.sent(&format!("SEND\ndestination:/queue/a\ncontent-length:3\n{headers}\n\nabc^")).message;
        assert_eq!(message.properties.iter().count(), 1, "content-type travels with it");
        message.body_kind
    };
    assert_eq!(kind(false, "content-type:text/plain"), BodyKind::Bytes);
    assert_eq!(kind(true, "content-type:text/plain"), BodyKind::Text);
    assert_eq!(kind(true, "content-type:TEXT/html; charset=utf-8"), BodyKind::Text);
    assert_eq!(kind(true, "content-type:text/plain\namq-msg-type:bytes"), BodyKind::Bytes);
    for other in ["application/json", "text", "größe", ""] {
        assert_eq!(kind(true, &format!("content-type:{other}")), BodyKind::Bytes, "{other}");
    }
    let mut options = options();
    options.stomp.text_by_content_type = true;
    let mut client = Client::with(Version::V1_2, options, "", SessionId(1));
    client
        .decoder
        .room()
        .put_slice(b"SEND\ndestination:/queue/a\ncontent-type:text/plain\ncontent-length:2\n\n\xff\xfe\0");
    match client.command("") {
        Command::Send(send) => assert_eq!(send.message.body_kind, BodyKind::Bytes, "text holds UTF-8"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_text_message_holds_utf8() {
    let mut client = Client::new(Version::V1_2);
    let mut say = |frame: &[u8]| {
        client.decoder.room().put_slice(frame);
        let mut requests = Vec::new();
        client.translator.translate(NOW, client.decoder.next_frame().unwrap().unwrap(), &mut requests);
        requests.remove(0).command
    };
    match say(b"SEND\ndestination:/queue/a\n\n\xff\xfe\0") {
        Command::Send(send) => {
            assert_eq!((send.message.body_kind, &*send.message.body), (BodyKind::Bytes, &b"\xff\xfe"[..]));
        }
        other => panic!("{other:?}"),
    }
    match say(b"SEND\ndestination:/queue/a\namq-msg-type:text\n\n\xff\xfe\0") {
        Command::Refuse(refusal) => assert!(refusal.message.contains("UTF-8")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_the_brokers_to_set_is_stripped() {
    let mut client = Client::new(Version::V1_2);
    let send = client.sent(
        "SEND\ndestination:/queue/a\nmessage-id:forged\nredelivered:true\nsubscription:s\nJMSXUserID:root\nreceipt:r\n\
         ack:1-1\nJMSXDeliveryCount:9\noriginal-destination:/queue/x\n\n^",
    );
    assert_eq!(send.message.properties.iter().count(), 0);
    assert_ne!(send.message.id.as_str(), "forged");
}

#[test]
fn of_repeated_headers_the_first_counts() {
    let mut client = Client::new(Version::V1_2);
    let send = client.sent("SEND\ndestination:/queue/a\ndestination:/queue/b\nx:1\nx:2\npriority:1\npriority:9\n\n^");
    assert_eq!(send.destination, Destination::queue("a"));
    assert_eq!(send.message.priority, Priority::clamped(1));
    assert_eq!(send.message.properties.find("x"), Some(PropertyValue::Text("1")));
}

#[test]
fn expiry_is_absolute_or_relative() {
    let mut client = Client::new(Version::V1_2);
    let mut expires = |header: &str| client.sent(&format!("SEND\ndestination:/queue/a\n{header}\n\n^")).message.expires;
    assert_eq!(expires("expires:0"), None);
    assert_eq!(expires("expires:123"), Some(Timestamp(123)));
    assert_eq!(expires("expiration:1500"), Some(Timestamp(NOW.0 + 1_500)));
    assert_eq!(expires("expiration:0"), None);
}

#[test]
fn a_number_that_is_none_is_refused_by_name() {
    let mut client = Client::new(Version::V1_2);
    for header in ["priority", "expires", "expiration", "timestamp"] {
        let refusal = client.refused(&format!("SEND\ndestination:/queue/a\n{header}:soon\n\n^"));
        assert_eq!(refusal.message, format!("Invalid {header} header: [soon]"));
        assert!(!refusal.fatal);
    }
    assert_eq!(client.sent("SEND\ndestination:/queue/a\npriority:99\n\n^").message.priority.level(), 9);
    assert_eq!(client.sent("SEND\ndestination:/queue/a\npriority:-3\n\n^").message.priority.level(), 0);
}

#[test]
fn a_send_counts_its_message_and_carries_its_receipt() {
    let mut client = Client::new(Version::V1_2);
    let requests =
        client.say("SEND\ndestination:/queue/a\nreceipt:r-1\n\nhello^BEGIN\ntransaction:t\nreceipt:r-2\n\n^");
    let Command::Send(send) = &requests[0].command else { panic!("{requests:?}") };
    assert_eq!(requests[0].bytes, send.message.size());
    assert!(requests[1].bytes > 0);
    assert_eq!(requests.iter().map(|request| request.receipt.as_deref().unwrap()).collect::<Vec<_>>(), ["r-1", "r-2"]);
}

#[test]
fn every_command_takes_a_receipt() {
    let mut client = Client::new(Version::V1_2);
    for frame in [
        "SUBSCRIBE\ndestination:/queue/a\nid:1\nreceipt:r\n\n^",
        "SEND\ndestination:/queue/a\nreceipt:r\n\n^",
        "ACK\nid:1-1\nreceipt:r\n\n^",
        "NACK\nid:1-1\nreceipt:r\n\n^",
        "BEGIN\ntransaction:t\nreceipt:r\n\n^",
        "COMMIT\ntransaction:t\nreceipt:r\n\n^",
        "ABORT\ntransaction:t\nreceipt:r\n\n^",
        "UNSUBSCRIBE\nid:1\nreceipt:r\n\n^",
        "SEND\nreceipt:r\n\n^", // refused
        "DISCONNECT\nreceipt:r\n\n^",
    ] {
        assert_eq!(client.say(frame)[0].receipt.as_deref(), Some("r"), "{frame}");
    }
}

// --- destinations

#[test]
fn destinations_have_activemqs_spellings() {
    let mut client = Client::new(Version::V1_2);
    let mut sent = |name: &str| client.sent(&format!("SEND\ndestination:{name}\n\n^")).destination;
    assert_eq!(sent("/queue/a.b"), Destination::queue("a.b"));
    assert_eq!(sent("queue\\c//a"), Destination::queue("a"));
    assert_eq!(sent("/topic/a"), Destination::topic("a"));
    assert_eq!(sent("topic\\c//a"), Destination::topic("a"));
    assert_eq!(sent("/remote-temp-queue/x-1"), Destination::new(DestinationKind::TemporaryQueue, "x-1"));
    assert_eq!(sent("/remote-temp-topic/x-1"), Destination::new(DestinationKind::TemporaryTopic, "x-1"));
}

#[test]
fn a_name_without_a_prefix_is_refused() {
    let mut client = Client::new(Version::V1_2);
    for name in ["orders", "/orders", "/queue/", "/exchange/a/b", "/queue/a\\nb"] {
        let refusal = client.refused(&format!("SEND\ndestination:{name}\n\n^"));
        assert!(refusal.message.starts_with("Illegal destination name: ["), "{name}: {refusal}");
        assert!(refusal.advice.contains("/queue/"));
    }
    let refusal = client.refused("SEND\n\nbody^");
    assert_eq!(refusal.message, "SEND received without a Destination specified!");
    let refusal = client.refused("SUBSCRIBE\nid:1\ndestination:\n\n^");
    assert_eq!(refusal.message, "Invalid empty or null Destination header");
}

#[test]
fn names_with_a_meaning_that_is_not_there_yet_are_refused() {
    let mut client = Client::new(Version::V1_2);
    for (name, feature) in [
        ("/queue/a.*", "wildcards"),
        ("/topic/a.>", "wildcards"),
        ("/queue/a,b", "composite destinations"),
        ("/queue/a?consumer.prefetchSize=1", "destination options"),
        ("/topic/VirtualTopic.Orders", "virtual topics"),
        ("/queue/Consumer.A.VirtualTopic.Orders", "virtual topics"),
        ("/topic/ActiveMQ.Advisory.Connection", "advisory messages"),
        ("/queue/ActiveMQ.Statistics.Broker", "statistics"),
        ("/topic/ActiveMQ.Scheduler.Management", "scheduled delivery"),
    ] {
        for frame in [format!("SEND\ndestination:{name}\n\n^"), format!("SUBSCRIBE\nid:1\ndestination:{name}\n\n^")] {
            let refusal = client.refused(&frame);
            assert!(refusal.message.contains(feature), "{name}: {refusal}");
            assert!(refusal.message.contains(name), "{name}: {refusal}");
        }
    }
    assert_eq!(
        client.sent("SEND\ndestination:/queue/ActiveMQ.DLQ\n\n^").destination,
        Destination::queue("ActiveMQ.DLQ")
    );
}

#[test]
fn a_temporary_queue_is_made_once_and_answers_find_its_owner() {
    let mut owner = Client::with(Version::V1_2, options(), "", SessionId(1));
    let mut other = Client::with(Version::V1_2, options(), "", SessionId(11));
    let request = "SEND\ndestination:/queue/service\nreply-to:/temp-queue/x\n\n?^";
    let mut requests = owner.say(request);
    assert_eq!(requests.len(), 2, "the temporary queue is made first: {requests:?}");
    let Command::Send(sent) = requests.remove(1).command else { panic!("{requests:?}") };
    let Command::CreateTemporary(made) = requests.remove(0).command else { panic!("{requests:?}") };
    assert_eq!(sent.message.reply_to.as_ref(), Some(&made));
    assert_eq!(owner.say(request).len(), 1, "only once");

    other.subscribed("SUBSCRIBE\nid:s\ndestination:/queue/service\n\n^");
    let seen = other.render([Outgoing::Delivery(delivery(1, 1, sent.message.to_draft()))]);
    let reply_to = seen.lines().find_map(|line| line.strip_prefix("reply-to:")).unwrap();
    assert_eq!(reply_to, format!("/remote-temp-queue/{}", made.name()));
    assert_eq!(other.sent(&format!("SEND\ndestination:{reply_to}\n\n!^")).destination, made);

    let subscribe = owner.subscribed("SUBSCRIBE\nid:s\ndestination:/temp-queue/x\n\n^");
    assert_eq!(subscribe.destination, made);
    let seen = owner.render([Outgoing::Delivery(delivery(1, 1, sent.message.to_draft()))]);
    assert!(seen.contains("\ndestination:/temp-queue/x\n"), "{seen}");
    assert!(seen.contains("\nreply-to:/temp-queue/x\n"), "{seen}");
}

#[test]
fn two_connections_never_mean_the_same_temporary_queue() {
    let mut destinations = Vec::new();
    for session in [1, 11] {
        let mut client = Client::with(Version::V1_2, options(), "", SessionId(session));
        for name in ["x", "1-x"] {
            let Command::CreateTemporary(made) =
                client.say(&format!("SEND\ndestination:/temp-queue/{name}\n\n^")).remove(0).command
            else {
                panic!("nothing was made")
            };
            destinations.push(made);
        }
    }
    destinations.sort();
    destinations.dedup();
    assert_eq!(destinations.len(), 4);
}

#[test]
fn only_the_owner_may_consume_from_a_temporary_destination() {
    let mut client = Client::new(Version::V1_2);
    let refusal =
        client.refused("SUBSCRIBE\nid:1\ndestination:/remote-temp-queue/ID-test-broker-1700000000000-8-x\n\n^");
    assert!(refusal.message.contains("temporary destination"));
}

#[test]
fn a_reply_to_that_is_no_destination_travels_as_it_is() {
    let mut client = Client::new(Version::V1_2);
    let send = client.sent("SEND\ndestination:/queue/a\nreply-to:mailbox 7\n\n^");
    assert_eq!(send.message.reply_to, None);
    assert_eq!(send.message.properties.find("reply-to"), Some(PropertyValue::Text("mailbox 7")));
}

#[test]
fn the_memory_of_names_is_bounded() {
    let mut client = Client::new(Version::V1_2);
    for number in 0..5_000 {
        let sent = client.sent(&format!("SEND\ndestination:/queue/q{number}\n\n^"));
        assert_eq!(sent.destination.name(), format!("q{number}"));
    }
    assert!(format!("{:?}", client.translator.names).len() < 200_000);
}

// --- what is not there yet

#[test]
fn headers_of_features_that_are_not_there_yet_are_refused_by_name() {
    let mut client = Client::new(Version::V1_2);
    for header in [
        "JMSXGroupID:a",
        "JMSXGroupSeq:1",
        "dedup-id:1",
        "_AMQ_DUPL_ID:1",
        "transformation:jms-json",
        "AMQ_SCHEDULED_DELAY:1000",
        "AMQ_SCHEDULED_CRON:* * * * *",
        "AMQ_SCHEDULED_PERIOD:1",
        "AMQ_SCHEDULED_REPEAT:1",
    ] {
        let refusal = client.refused(&format!("SEND\ndestination:/queue/a\n{header}\n\n^"));
        assert!(refusal.message.contains(header.split(':').next().unwrap()), "{refusal}");
        assert!(!refusal.fatal);
    }
    for header in [
        "selector:a = 1",
        "transformation:jms-json",
        "activemq.exclusive:true",
        "activemq.noLocal:true",
        "no-local:true",
        "activemq.retroactive:true",
        "activemq.maximumPendingMessageLimit:10",
        "activemq.noRangeAcks:true",
        "activemq.subcriptionName:x",
    ] {
        let refusal = client.refused(&format!("SUBSCRIBE\nid:1\ndestination:/queue/a\n{header}\n\n^"));
        assert!(refusal.message.contains(header.split(':').next().unwrap()), "{refusal}");
    }
    for header in ["requeue:true", "requeue:false", "delay:5"] {
        let refusal = client.refused(&format!("NACK\nid:1-1\n{header}\n\n^"));
        assert!(refusal.message.contains(header.split(':').next().unwrap()), "{refusal}");
    }
}

#[test]
fn a_subscription_may_ask_to_browse() {
    for version in [Version::V1_1, Version::V1_2] {
        let mut client = Client::new(version);
        let Browse { consumer, destination, ack, prefetch } =
            client.browses("SUBSCRIBE\nid:a\ndestination:/queue/a\nbrowser:true\n\n^");
        assert_eq!((consumer, destination), (ConsumerNo(1), Destination::queue("a")));
        assert_eq!((ack, prefetch), (AckMode::Auto, 500));
        let browse = client
            .browses("SUBSCRIBE\nid:b\ndestination:/queue/a\nack:client\nbrowser:TRUE\nactivemq.prefetchSize:7\n\n^");
        assert_eq!((browse.consumer, browse.ack, browse.prefetch), (ConsumerNo(2), AckMode::Cumulative, 7));
        let shown = delivery(2, 3, draft());
        let seen = client.render([Outgoing::Delivery(shown), Outgoing::BrowseEnd(ConsumerNo(2))]);
        assert_eq!(seen.contains("ack:2-3\n"), version == Version::V1_2, "{seen}");
        let end = "MESSAGE\nsubscription:b\ndestination:/queue/a\nmessage-id:0\nbrowser:end\n\n^";
        assert!(seen.ends_with(end) && seen.matches("browser").count() == 1, "{seen}");
        client.command("UNSUBSCRIBE\nid:b\n\n^");
        assert_eq!(client.render([Outgoing::BrowseEnd(ConsumerNo(2))]), "", "nobody waits for it");
    }
}

#[test]
fn what_can_not_be_browsed_is_refused_and_never_consumed_from() {
    let mut client = Client::new(Version::V1_2);
    for (frame, says) in [
        ("destination:/topic/a\nbrowser:true", "Cannot browse [/topic/a]"),
        ("destination:/temp-topic/a\nbrowser:true", "Cannot browse"),
        ("destination:/queue/a\nbrowser:yes", "Invalid browser header: [yes]"),
        ("destination:/queue/a\nbrowser:true\nselector:a = 1", "selector"),
    ] {
        let mut requests = client.say(&format!("SUBSCRIBE\nid:1\n{frame}\n\n^"));
        let Some(Command::Refuse(refusal)) = requests.pop().map(|last| last.command) else { panic!("{frame}") };
        assert!(refusal.message.contains(says), "{refusal}");
    }
    let refusal = Client::new(Version::V1_0).refused("SUBSCRIBE\ndestination:/queue/a\nbrowser:true\n\n^");
    assert_eq!(refusal.message, "Queue Browser feature only valid for Stomp v1.1+ clients!");
}

#[test]
fn a_value_that_means_off_is_fine() {
    let mut client = Client::new(Version::V1_2);
    client.sent("SEND\ndestination:/queue/a\nAMQ_SCHEDULED_DELAY:0\nJMSXGroupID:\n\n^");
    client.refused("SEND\ndestination:/queue/a\n_AMQ_DUPL_ID:0\n\n^");
    client.subscribed(
        "SUBSCRIBE\nid:1\ndestination:/queue/a\nselector:\nbrowser:false\nactivemq.exclusive:FALSE\nno-local:false\n\
         activemq.retroactive:false\nactivemq.maximumPendingMessageLimit:0\nactivemq.dispatchAsync:true\ndurable:false\n\n^",
    );
}

#[test]
fn what_holds_text_is_off_only_if_it_is_empty() {
    let mut client = Client::new(Version::V1_2);
    for value in ["false", "FALSE", "0", " "] {
        for header in ["selector", "transformation"] {
            let refusal = client.refused(&format!("SUBSCRIBE\nid:1\ndestination:/queue/a\n{header}:{value}\n\n^"));
            assert!(refusal.message.contains(header), "{refusal}");
        }
        for header in ["AMQ_SCHEDULED_CRON", "transformation"] {
            let refusal = client.refused(&format!("SEND\ndestination:/queue/a\n{header}:{value}\n\n^"));
            assert!(refusal.message.contains(header), "{refusal}");
        }
    }
    client.subscribed("SUBSCRIBE\nid:1\ndestination:/queue/a\nselector:\ntransformation:\n\n^");
    client.sent("SEND\ndestination:/queue/a\nAMQ_SCHEDULED_CRON:\ntransformation:\n\n^");
}

// --- SUBSCRIBE, UNSUBSCRIBE

#[test]
fn prefetch_follows_activemq() {
    let mut client = Client::new(Version::V1_2);
    let mut id = 0;
    let mut prefetch = |headers: &str| {
        id += 1;
        client.subscribed(&format!("SUBSCRIBE\nid:{id}\n{headers}\n\n^")).prefetch
    };
    assert_eq!(prefetch("destination:/queue/a"), 1_000);
    assert_eq!(prefetch("destination:/topic/a"), 32_767);
    assert_eq!(prefetch("destination:/topic/a\nactivemq.subscriptionName:d"), 100);
    assert_eq!(prefetch("destination:/queue/a\nactivemq.prefetchSize:5"), 5);
    assert_eq!(prefetch("destination:/queue/a\nprefetch-count:65535"), 65_535);
    for value in ["0", "65536", "-1", "many"] {
        let refusal =
            client.refused(&format!("SUBSCRIBE\nid:x\ndestination:/queue/a\nactivemq.prefetchSize:{value}\n\n^"));
        assert_eq!(refusal.message, format!("Invalid activemq.prefetchSize header: [{value}]"));
    }
}

#[test]
fn ack_modes_and_priorities_are_read_or_refused() {
    let mut client = Client::new(Version::V1_2);
    let subscribe = client.subscribed("SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\nactivemq.priority:127\n\n^");
    assert_eq!((subscribe.ack, subscribe.priority), (AckMode::Cumulative, 127));
    assert_eq!(
        client.subscribed("SUBSCRIBE\nid:2\ndestination:/queue/a\nack:client-individual\n\n^").ack,
        AckMode::Individual
    );
    assert_eq!(client.subscribed("SUBSCRIBE\nid:3\ndestination:/queue/a\n\n^").ack, AckMode::Auto);
    assert!(client.refused("SUBSCRIBE\nid:4\ndestination:/queue/a\nack:manual\n\n^").message.contains("[manual]"));
    assert!(
        client.refused("SUBSCRIBE\nid:4\ndestination:/queue/a\nactivemq.priority:128\n\n^").message.contains("[128]")
    );
}

#[test]
fn a_subscription_has_an_id_of_its_own() {
    let mut client = Client::new(Version::V1_1);
    let refusal = client.refused("SUBSCRIBE\ndestination:/queue/a\n\n^");
    assert_eq!(refusal.message, "SUBSCRIBE received without a subscription id!");
    let first = client.subscribed("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^").consumer;
    assert!(client.refused("SUBSCRIBE\nid:1\ndestination:/queue/b\n\n^").message.contains("[1]"));
    client.command("UNSUBSCRIBE\nid:1\n\n^");
    let second = client.subscribed("SUBSCRIBE\nid:1\ndestination:/queue/b\n\n^").consumer;
    assert_ne!(first, second, "a consumer's number is not used again");
}

#[test]
fn subscriptions_of_a_connection_are_bounded() {
    let mut client = Client::new(Version::V1_2);
    for id in 0..10 {
        client.subscribed(&format!("SUBSCRIBE\nid:{id}\ndestination:/queue/a\n\n^"));
    }
    let refusal = client.refused("SUBSCRIBE\nid:10\ndestination:/queue/a\n\n^");
    assert_eq!(refusal.message, "The maximum number of subscriptions of a connection was exceeded: 10");
}

#[test]
fn a_durable_subscription_needs_a_client_id_and_a_topic() {
    let mut nobody = Client::with(Version::V1_2, options(), "", SessionId(1));
    let refusal = nobody.refused("SUBSCRIBE\nid:1\ndestination:/topic/a\nactivemq.subscriptionName:d\n\n^");
    assert!(refusal.message.contains("client-id"));
    let mut client = Client::new(Version::V1_2);
    let refusal = client.refused("SUBSCRIBE\nid:1\ndestination:/queue/a\nactivemq.subscriptionName:d\n\n^");
    assert!(refusal.message.contains("Cannot durably subscribe to a Queue"));
    for (id, header) in
        ["activemq.subscriptionName", "durable-subscription-name", "durable-subscriber-name"].iter().enumerate()
    {
        let subscribe = client.subscribed(&format!("SUBSCRIBE\nid:{id}\ndestination:/topic/a\n{header}:d{id}\n\n^"));
        assert_eq!(subscribe.durable.unwrap().as_str(), format!("d{id}"));
    }
}

#[test]
fn a_durable_subscription_may_be_asked_for_in_rabbitmqs_words() {
    let mut client = Client::new(Version::V1_2);
    let mut durable = |headers: &str| {
        let subscribe = client.subscribed(&format!("SUBSCRIBE\n{headers}\n\n^"));
        subscribe.durable.map(|name| name.to_string())
    };
    assert_eq!(durable("id:1\ndestination:/topic/a\ndurable:true\nauto-delete:false").as_deref(), Some("1"));
    assert_eq!(durable("id:2\ndestination:/topic/a\npersistent:true").as_deref(), Some("2"));
    assert_eq!(durable("id:3\ndestination:/topic/a\ndurable:true\nactivemq.subscriptionName:d").as_deref(), Some("d"));
    assert_eq!(durable("id:4\ndestination:/topic/a\ndurable:false"), None);
    assert_eq!(durable("id:5\ndestination:/queue/a\ndurable:true"), None, "a queue is durable anyway");

    let mut deleted = |headers: &str| match client.command(&format!("UNSUBSCRIBE\n{headers}\n\n^")) {
        Command::Unsubscribe(Unsubscribe { consumer, durable }) => {
            (consumer.map(|consumer| consumer.0), durable.map(|name| name.to_string()))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(deleted("id:1"), (Some(1), None), "it only detaches");
    assert_eq!(deleted("id:1\ndurable:true"), (None, Some("1".into())), "nobody consumes from it any more");
    assert_eq!(deleted("id:2\ndurable:true"), (Some(2), Some("2".into())));
    assert_eq!(deleted("id:3\ndurable:true"), (Some(3), Some("d".into())), "what its id stands for");
    assert_eq!(deleted("id:5\ndurable:true"), (Some(5), None), "a queue's consumer has nothing durable");

    let refusal = client.refused("SUBSCRIBE\nid:9\ndestination:/topic/a\ndurable:true\nauto-delete:true\n\n^");
    assert!(refusal.message.contains("auto-delete"), "{refusal}");
    let temporary = client.say("SUBSCRIBE\nid:9\ndestination:/temp-topic/a\ndurable:true\n\n^").pop().unwrap().command;
    assert!(matches!(&temporary, Command::Refuse(refusal) if refusal.message.contains("Cannot durably subscribe")));
    let mut nobody = Client::with(Version::V1_2, options(), "", SessionId(1));
    let refusal = nobody.refused("SUBSCRIBE\nid:1\ndestination:/topic/a\ndurable:true\n\n^");
    assert!(refusal.message.contains("client-id"), "{refusal}");
    let mut old = Client::with(Version::V1_0, options(), "\nclient-id:billing", SessionId(1));
    let refusal = old.refused("SUBSCRIBE\ndestination:/topic/a\ndurable:true\n\n^");
    assert!(refusal.message.contains("needs a name"), "{refusal}");
}

#[test]
fn unsubscribe_detaches_or_deletes() {
    let mut client = Client::new(Version::V1_2);
    let mut unsubscribed = |subscribe: &str, unsubscribe: &str| {
        client.subscribed(subscribe);
        match client.command(unsubscribe) {
            Command::Unsubscribe(Unsubscribe { consumer, durable }) => {
                (consumer.is_some(), durable.map(|name| name.to_string()))
            }
            other => panic!("{other:?}"),
        }
    };
    let durable = "SUBSCRIBE\nid:1\ndestination:/topic/a\nactivemq.subscriptionName:d\n\n^";
    assert_eq!(unsubscribed(durable, "UNSUBSCRIBE\nid:1\n\n^"), (true, None), "it only detaches");
    let deleted = (true, Some("d".to_owned()));
    assert_eq!(unsubscribed(durable, "UNSUBSCRIBE\nid:1\nactivemq.subscriptionName:d\n\n^"), deleted);
    assert_eq!(
        unsubscribed(durable, "UNSUBSCRIBE\nactivemq.subscriptionName:d\n\n^"),
        deleted,
        "its own consumer ends too"
    );
    match client.command("UNSUBSCRIBE\nid:gone\nactivemq.subscriptionName:d\n\n^") {
        Command::Unsubscribe(Unsubscribe { consumer: None, durable: Some(_) }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn unsubscribe_finds_by_destination_in_1_0() {
    let mut client = Client::new(Version::V1_0);
    let consumer = client.subscribed("SUBSCRIBE\ndestination:/queue/a\n\n^").consumer;
    match client.command("UNSUBSCRIBE\ndestination:/queue/a\n\n^") {
        Command::Unsubscribe(unsubscribe) => assert_eq!(unsubscribe.consumer, Some(consumer)),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.refused("UNSUBSCRIBE\ndestination:/queue/a\n\n^").message, "No subscription matched.");
    assert!(
        client.refused("UNSUBSCRIBE\n\n^").message.starts_with("Must specify the subscriptionId or the destination")
    );
}

// --- ACK, NACK, transactions

#[test]
fn each_version_names_a_delivery_its_way() {
    let by_tag = AckTarget::Tag { consumer: ConsumerNo(3), tag: DeliveryTag(9) };
    let by_message = |consumer| AckTarget::MessageId { consumer, id: "m".into() };
    let first = Some(ConsumerNo(1));

    let mut v12 = Client::new(Version::V1_2);
    v12.subscribed("SUBSCRIBE\nid:s\ndestination:/queue/a\nack:client\n\n^");
    assert_eq!(v12.acked("ACK\nid:3-9\n\n^").target, by_tag);
    assert_eq!(v12.acked("ACK\nmessage-id:m\nsubscription:s\n\n^").target, by_message(first));
    assert_eq!(v12.acked("ACK\nid:m\nsubscription:s\n\n^").target, by_message(first));

    let mut v11 = Client::new(Version::V1_1);
    v11.subscribed("SUBSCRIBE\nid:s\ndestination:/queue/a\nack:client\n\n^");
    assert_eq!(v11.acked("ACK\nmessage-id:m\nsubscription:s\n\n^").target, by_message(first));
    assert_eq!(v11.acked("ACK\nmessage-id:m\n\n^").target, by_message(first), "nothing else can be meant");
    assert_eq!(v11.acked("ACK\nid:3-9\n\n^").target, by_tag);

    let mut v10 = Client::new(Version::V1_0);
    v10.subscribed("SUBSCRIBE\ndestination:/queue/a\nack:client\n\n^");
    assert_eq!(v10.acked("ACK\nmessage-id:m\n\n^").target, by_message(None));
}

#[test]
fn verdict_and_transaction_of_an_ack() {
    let mut client = Client::new(Version::V1_2);
    let ack = client.acked("ACK\nid:1-1\ntransaction:t\n\n^");
    assert_eq!((ack.verdict, ack.transaction.as_deref()), (Verdict::Accepted, Some("t")));
    let nack = client.acked("NACK\nid:1-1\n\n^");
    assert_eq!((nack.verdict, nack.transaction), (Verdict::Rejected, None));
}

#[test]
fn an_ack_without_its_key_is_refused_in_activemqs_words() {
    let cases = [
        (Version::V1_2, "ACK received without an ack id to acknowledge!"),
        (Version::V1_1, "ACK received without a message-id to acknowledge!"),
        (Version::V1_0, "ACK received without a message-id to acknowledge!"),
    ];
    for (version, expected) in cases {
        assert_eq!(Client::new(version).refused("ACK\n\n^").message, expected);
    }
    let mut v11 = Client::new(Version::V1_1);
    assert_eq!(v11.refused("ACK\nmessage-id:m\n\n^").message, "ACK received without a subscription id to acknowledge!");
    let refusal = v11.refused("ACK\nmessage-id:m\nsubscription:none\n\n^");
    assert_eq!(refusal.message, "Unexpected ACK received for message-id [m]");
    assert_eq!(
        Client::new(Version::V1_0).refused("NACK\nmessage-id:m\n\n^").message,
        "NACK received but connection is in v1.0 mode."
    );
}

#[test]
fn transactions_have_names() {
    let mut client = Client::new(Version::V1_2);
    assert!(matches!(client.command("BEGIN\ntransaction:t\n\n^"), Command::Begin(name) if name == "t"));
    assert!(matches!(client.command("COMMIT\ntransaction:t\n\n^"), Command::Commit(name) if name == "t"));
    assert!(matches!(client.command("ABORT\ntransaction:t\n\n^"), Command::Abort(name) if name == "t"));
    for verb in ["BEGIN", "COMMIT", "ABORT"] {
        assert!(client.refused(&format!("{verb}\n\n^")).message.starts_with("Must specify the transaction you are "));
    }
}

// --- strict and lenient

#[test]
fn after_a_refusal_a_strict_session_looks_at_nothing_more() {
    for (lenient, expected) in [(false, Flow::Finished), (true, Flow::Continue)] {
        let mut options = options();
        options.stomp.lenient = lenient;
        let mut client = Client::with(Version::V1_2, options, "", SessionId(1));
        client.decoder.room().put_slice(b"SEND\n\n\0");
        let mut requests = Vec::new();
        let flow = client.translator.translate(NOW, client.decoder.next_frame().unwrap().unwrap(), &mut requests);
        assert_eq!(flow, expected);
    }
}

/// A lenient session.
fn lenient() -> Client {
    let mut options = options();
    options.stomp.lenient = true;
    Client::with(Version::V1_2, options, "\nclient-id:billing", SessionId(7))
}

/// The core's answer to a request that it declines.
fn declined(request: Request) -> Outgoing {
    Outgoing::Error { refusal: Refusal::new("The maximum", "Less."), receipt: request.receipt }
}

#[test]
fn a_subscription_that_the_core_declined_may_be_tried_again() {
    let mut client = lenient();
    for receipt in ["", "receipt:r\n"] {
        let subscribe = format!("SUBSCRIBE\nid:1\ndestination:/queue/a\n{receipt}\n^");
        let first = client.say(&subscribe).remove(0);
        let Command::Subscribe(Subscribe { consumer: first_consumer, .. }) = first.command else { panic!("{first:?}") };
        let refusal = client.refused("SUBSCRIBE\nid:1\ndestination:/queue/b\n\n^");
        assert!(refusal.message.contains("[1]"), "nothing is declined yet");
        let seen = client.render([declined(first)]);
        let wanted = if receipt.is_empty() { "" } else { "receipt-id:r\n" };
        assert_eq!(seen, format!("ERROR\nmessage:The maximum\ncontent-type:text/plain\n{wanted}\nLess.^"));
        assert_eq!(client.refused("UNSUBSCRIBE\nid:1\n\n^").message, "No subscription matched.");

        let again = client.say(&subscribe).remove(0);
        let Command::Subscribe(Subscribe { consumer, .. }) = again.command else { panic!("{again:?}") };
        assert_ne!(consumer, first_consumer, "a consumer's number is not used again");
        let seen = client.render(again.receipt.map(Outgoing::Receipt));
        assert_eq!(seen, if receipt.is_empty() { "" } else { "RECEIPT\nreceipt-id:r\n\n^" });
        let seen = client.render([Outgoing::Delivery(delivery(consumer.0, 1, draft()))]);
        assert!(seen.contains("\nsubscription:1\n"), "{seen}");
        client.command("UNSUBSCRIBE\nid:1\n\n^");
    }
}

#[test]
fn r5_a_send_that_the_session_declines_names_its_transaction() {
    let mut client = lenient();
    let declined = "SEND\ndestination:\ntransaction:t\n\n^";
    assert_eq!(client.refused(declined).transaction.as_deref(), Some("t"));
    assert_eq!(client.refused("ACK\ntransaction:t\n\n^").transaction, None, "it changes nothing (R7)");
}

#[test]
fn a_late_no_of_the_core_leaves_a_later_subscription_alone() {
    let mut client = lenient();
    let first = client.say("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^").remove(0);
    client.command("UNSUBSCRIBE\nid:1\n\n^");
    let second = client.subscribed("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^").consumer;
    client.render([declined(first)]);
    assert!(client.refused("SUBSCRIBE\nid:1\ndestination:/queue/b\n\n^").message.contains("[1]"));
    let seen = client.render([Outgoing::Delivery(delivery(second.0, 1, draft()))]);
    assert!(seen.contains("\nsubscription:1\n"), "{seen}");
}

#[test]
fn a_temporary_destination_that_the_core_declined_is_asked_for_again() {
    let mut client = lenient();
    let request = "SEND\ndestination:/queue/service\nreply-to:/temp-queue/x\n\n?^";
    let made = client.say(request).remove(0);
    assert!(matches!(made.command, Command::CreateTemporary(_)), "{made:?}");
    assert_eq!(client.say(request).len(), 1);
    assert!(!client.render([declined(made)]).contains("receipt-id"));
    let again = client.say(request).remove(0);
    assert!(matches!(again.command, Command::CreateTemporary(_)), "{again:?}");
    assert_eq!(client.render(again.receipt.map(Outgoing::Receipt)), "");
}

#[test]
fn an_unsubscribe_that_does_not_fit_together_changes_nothing() {
    let mut client = lenient();
    let plain = client.subscribed("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^").consumer;
    let durable = client.subscribed("SUBSCRIBE\nid:2\ndestination:/topic/a\nactivemq.subscriptionName:d\n\n^").consumer;
    for (id, name) in [("1", "gone"), ("1", "d"), ("2", "gone")] {
        let refusal = client.refused(&format!("UNSUBSCRIBE\nid:{id}\nactivemq.subscriptionName:{name}\n\n^"));
        assert!(refusal.message.contains(&format!("[{name}]")), "{refusal}");
    }
    let deliveries = [plain, durable].map(|consumer| Outgoing::Delivery(delivery(consumer.0, 1, draft())));
    let (_, written) = client.render_and_count(deliveries);
    assert_eq!(written.last.len(), 2, "both are still there");
    match client.command("UNSUBSCRIBE\nid:gone\nactivemq.subscriptionName:d\n\n^") {
        Command::Unsubscribe(unsubscribe) => {
            assert_eq!(unsubscribe.consumer, Some(durable), "it ends with its consumer")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_follows_a_disconnect() {
    let mut client = Client::new(Version::V1_2);
    client.decoder.room().put_slice(b"DISCONNECT\nreceipt:1\n\n\0");
    let mut requests = Vec::new();
    let flow = client.translator.translate(NOW, client.decoder.next_frame().unwrap().unwrap(), &mut requests);
    assert_eq!(flow, Flow::Finished);
    assert!(matches!(requests[0].command, Command::Disconnect));
}

// --- CONNECT

fn hello(frame: &str, min: Duration) -> Result<Hello, Refusal> {
    let mut decoder = Decoder::new(Sender::Client, DecodeLimits::default());
    decoder.room().put_slice(frame.replace('^', "\0").as_bytes());
    Hello::read(&decoder.next_frame().unwrap().unwrap(), min)
}

#[test]
fn connect_is_answered_in_full() {
    let hello = hello(
        "STOMP\naccept-version:1.1,1.2\nhost:anything\nclient-id:billing\nheart-beat:500,20000\nreceipt:r1\n\n^",
        Duration::from_secs(1),
    );
    let connected = String::from_utf8(connected_frame(&hello.unwrap(), "ID-s")).unwrap();
    let expected = format!(
        "CONNECTED\nserver:BatonMQ/{}\nsession:billing\nheart-beat:20000,1000\nversion:1.2\nresponse-id:r1\nreceipt-id:r1\n\n\0",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(connected, expected);
}

#[test]
fn no_common_version_is_fatal_and_names_ours() {
    let refusal = hello("CONNECT\naccept-version:3.0\n\n^", Duration::ZERO).unwrap_err();
    assert_eq!(refusal.message, "Invalid Protocol version, supported versions are 1.0,1.1,1.2");
    assert!(refusal.fatal);
}

#[test]
fn heart_beats_are_negotiated_with_a_floor() {
    let min = Duration::from_secs(1);
    let seconds = |number| Some(Duration::from_secs(number));
    let beats = |header: &str| {
        hello(&format!("CONNECT\naccept-version:1.2\nheart-beat:{header}\n\n^"), min).map(|hello| hello.heart_beat)
    };
    assert_eq!(beats("0,0").unwrap(), HeartBeat { sends: None, hears: None });
    assert_eq!(beats("10000,0").unwrap(), HeartBeat { sends: None, hears: seconds(10) });
    assert_eq!(beats("0, 5000").unwrap(), HeartBeat { sends: seconds(5), hears: None });
    assert_eq!(beats("10,10").unwrap(), HeartBeat { sends: seconds(1), hears: seconds(1) });
    for wrong in ["", "5", "a,b", "1,2,3", "-1,0"] {
        let refusal = beats(wrong).unwrap_err();
        assert_eq!(refusal.message, format!("Invalid heart-beat header: [{wrong}]"));
        assert!(refusal.fatal);
    }
    let old = hello("CONNECT\nheart-beat:10,10\n\n^", min).unwrap();
    assert_eq!(old.heart_beat, HeartBeat::default(), "1.0 knows none");
}

#[test]
fn in_1_0_a_login_may_follow_a_space() {
    let old = hello("CONNECT\nlogin: guest\npasscode: secret \n\n^", Duration::ZERO).unwrap();
    assert_eq!((old.login.as_deref(), &*old.passcode.0), (Some("guest"), "secret"));
    let new = hello("CONNECT\naccept-version:1.2\npasscode: secret\n\n^", Duration::ZERO).unwrap();
    assert_eq!(new.passcode.0, " secret");
    assert!(!format!("{new:?}").contains("secret"));
}

#[test]
fn an_option_of_a_connection_that_is_not_there_is_refused_by_name() {
    for header in ["activemq.prefetchSize:1", "activemq.clientId:billing", "activemq.anything:true"] {
        let refusal = hello(&format!("CONNECT\n{header}\n\n^"), Duration::ZERO).unwrap_err();
        assert!(refusal.message.contains(header.split(':').next().unwrap()), "{refusal}");
        assert!(refusal.fatal);
    }
    for header in ["activemq.faultTolerant:true", "activemq.clientMaster:true", "activemq.anything:false"] {
        hello(&format!("CONNECT\n{header}\n\n^"), Duration::ZERO).unwrap();
    }
}

// --- MESSAGE, RECEIPT, ERROR

#[test]
fn a_message_has_activemqs_headers() {
    let mut client = Client::new(Version::V1_2);
    client.subscribed("SUBSCRIBE\nid:s:1\ndestination:/queue/a\nack:client\n\n^");
    let mut message = draft();
    message.persistent = true;
    message.correlation_id = Some("c:1".into());
    message.message_type = Some("t".into());
    message.reply_to = Some(Destination::queue("answers"));
    message.original_destination = Some(Destination::topic("first"));
    let mut delivered = delivery(1, 42, message);
    (delivered.redelivered, delivered.deliveries) = (true, 3);
    let expected = "MESSAGE\nsubscription:s\\c1\ndestination:/queue/a\nack:1-42\nredelivered:true\nJMSXDeliveryCount:3\n\
                    message-id:ID-b-1-2-3\ntimestamp:5\npriority:4\nexpires:0\npersistent:true\ncorrelation-id:c\\c1\n\
                    type:t\nreply-to:/queue/answers\noriginal-destination:/topic/first\n\nhello^";
    assert_eq!(client.render([Outgoing::Delivery(delivered)]), expected);
}

#[test]
fn only_1_2_and_only_client_modes_have_an_ack_header() {
    for (version, mode, expected) in
        [(Version::V1_2, "client-individual", true), (Version::V1_2, "auto", false), (Version::V1_1, "client", false)]
    {
        let mut client = Client::new(version);
        client.subscribed(&format!("SUBSCRIBE\nid:s\ndestination:/queue/a\nack:{mode}\n\n^"));
        let seen = client.render([Outgoing::Delivery(delivery(1, 1, draft()))]);
        assert_eq!(seen.contains("\nack:1-1\n"), expected, "{version} {mode}");
        assert!(seen.contains("\nredelivered:false\nJMSXDeliveryCount:1\n"));
    }
}

#[test]
fn content_length_is_for_bytes_and_for_text_with_nul() {
    let mut client = Client::new(Version::V1_2);
    client.subscribed("SUBSCRIBE\nid:s\ndestination:/queue/a\n\n^");
    let mut length = |kind, body: &'static [u8]| {
        let message = MessageDraft { body_kind: kind, body: Bytes::from_static(body), ..draft() };
        let seen = client.render([Outgoing::Delivery(delivery(1, 1, message))]);
        seen.lines().find_map(|line| line.strip_prefix("content-length:").map(str::to_owned))
    };
    assert_eq!(length(BodyKind::Text, b"abc"), None);
    assert_eq!(length(BodyKind::Bytes, b"abc").as_deref(), Some("3"));
    assert_eq!(length(BodyKind::Text, b"a\0c").as_deref(), Some("3"));
    assert_eq!(length(BodyKind::Bytes, b"").as_deref(), Some("0"));
}

#[test]
fn a_shared_message_is_rendered_once_and_patched_for_each() {
    let message = Arc::new(Message::new(draft()));
    let shared = |consumer| {
        let mut delivered = delivery(consumer, u64::from(consumer), draft());
        delivered.message = Arc::clone(&message);
        delivered.shared = true;
        delivered.redelivered = consumer == 2;
        Outgoing::Delivery(delivered)
    };
    let mut client = Client::new(Version::V1_2);
    client.subscribed("SUBSCRIBE\nid:one\ndestination:/topic/a\nack:client\n\n^");
    client.subscribed("SUBSCRIBE\nid:two\ndestination:topic\\c//a\nack:client\n\n^");
    let seen = client.render([shared(1), shared(2)]);
    let common = "message-id:ID-b-1-2-3\ntimestamp:5\npriority:4\nexpires:0\n\nhello^";
    let expected = format!(
        "MESSAGE\nsubscription:one\ndestination:/topic/a\nack:1-1\nredelivered:false\nJMSXDeliveryCount:1\n{common}\
         MESSAGE\nsubscription:two\ndestination:topic\\c//a\nack:2-2\nredelivered:true\nJMSXDeliveryCount:1\n{common}"
    );
    assert_eq!(seen, expected);
    let kept = message.rendering(Version::V1_2.dialect(), || panic!("it is rendered already")).unwrap();
    assert_eq!(kept.len(), common.len());

    let mut older = Client::new(Version::V1_1);
    older.subscribed("SUBSCRIBE\nid:one\ndestination:/topic/a\n\n^");
    assert!(older.render([shared(1)]).ends_with(common), "another dialect renders for itself");
}

#[test]
fn a_large_body_is_written_beside_the_frame() {
    use bytes::Buf;
    let mut client = Client::new(Version::V1_2);
    client.subscribed("SUBSCRIBE\nid:s\ndestination:/queue/a\n\n^");
    let body = Bytes::from(vec![b'x'; 20_000]);
    for shared in [false, true] {
        let mut delivered = delivery(1, 1, MessageDraft { body: body.clone(), ..draft() });
        delivered.shared = shared;
        let (mut out, mut written) = (Output::default(), Written::default());
        client.renderer.render_chunk(&mut [Outgoing::Delivery(delivered)].into_iter(), &mut out, &mut written);
        assert!(out.buffer().len() < 1_000, "no copy of the body");
        let bytes = out.copy_to_bytes(out.remaining());
        assert!(bytes.ends_with(&[&b"\n\n"[..], &body, b"\0"].concat()));
    }
}

#[test]
fn what_was_written_is_counted_by_consumer() {
    let mut client = Client::new(Version::V1_2);
    client.subscribed("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^");
    client.subscribed("SUBSCRIBE\nid:2\ndestination:/queue/b\n\n^");
    let deliveries = [delivery(1, 1, draft()), delivery(2, 1, draft()), delivery(1, 2, draft())];
    let bytes: usize = deliveries.iter().map(|delivery| delivery.message.size()).sum();
    let (_, written) = client.render_and_count(deliveries.map(Outgoing::Delivery));
    assert_eq!(written.bytes, bytes);
    let mut last = written.last.to_vec();
    last.sort();
    assert_eq!(last, [(ConsumerNo(1), DeliveryTag(2)), (ConsumerNo(2), DeliveryTag(1))]);
}

#[test]
fn r3_what_a_gone_subscription_does_not_get_is_not_reported_as_written() {
    let mut client = Client::new(Version::V1_2);
    client.subscribed("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^");
    client.command("UNSUBSCRIBE\nid:1\n\n^");
    let (seen, written) = client.render_and_count([Outgoing::Delivery(delivery(1, 1, draft()))]);
    assert_eq!((seen.as_str(), written.last.len()), ("", 0));
    assert!(written.bytes > 0, "its room in the outbox is free again");
}

#[test]
fn r4_answers_keep_their_order_and_errors_their_place() {
    let mut client = Client::new(Version::V1_2);
    let error = Outgoing::Error { refusal: Refusal::new("No: way", "Try\notherwise."), receipt: Some("2".into()) };
    let seen =
        client.render([Outgoing::Connected, Outgoing::Receipt("1".into()), error, Outgoing::Receipt("3".into())]);
    let (connected, rest) = seen.split_once('^').unwrap();
    assert!(connected.starts_with("CONNECTED\n"));
    let expected = "RECEIPT\nreceipt-id:1\n\n^ERROR\nmessage:No\\c way\ncontent-type:text/plain\nreceipt-id:2\n\nTry\notherwise.^\
                    RECEIPT\nreceipt-id:3\n\n^";
    assert_eq!(rest, expected);
    assert_eq!(client.renderer.refused(), Some("No: way"));
}

#[test]
fn a_chunk_ends_at_64_kib() {
    let mut client = Client::new(Version::V1_2);
    client.subscribed("SUBSCRIBE\nid:1\ndestination:/queue/a\n\n^");
    let mut waiting = (1..=1_000).map(|tag| {
        Outgoing::Delivery(delivery(1, tag, MessageDraft { body: Bytes::from(vec![b'x'; 1_000]), ..draft() }))
    });
    let (mut out, mut written) = (Output::default(), Written::default());
    client.renderer.render_chunk(&mut waiting, &mut out, &mut written);
    assert!((64 << 10..66 << 10).contains(&out.len()));
    assert!(waiting.next().is_some());
}
