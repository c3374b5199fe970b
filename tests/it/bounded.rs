//! What one client may take of the broker, over the real binary: it is stopped or told, and everybody else is served.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::harness::{Broker, PATIENCE, Raw, Settings, encode};

/// What one client may make the broker grow by that reads nothing: 16 MiB of requests, of which each has a receipt as
/// large as itself, the answers in its outbox, and what an allocator keeps.
const GROWN_MIB_MAX: u64 = 64;

/// A client that asks for receipts and never reads them: its socket is not read any more, the broker stays small, and
/// the client is closed as slow.
#[test]
fn who_never_reads_its_receipts_is_not_listened_to_and_closed() {
    let settings = Settings::new().option("limits.slow_consumer_timeout", "\"8s\"");
    let mut broker = Broker::start_with(settings);
    broker.announce("slow consumer");
    let before = broker.memory_peak_mib();
    let served = Served::begin(broker.address());

    // A window of a few kilobytes, so that the kernel takes in few of the answers.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&broker.address().into()).unwrap();
    let mut deaf = TcpStream::from(socket);
    deaf.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    deaf.write_all(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0").unwrap();
    let receipt = "r".repeat(500);
    let frame = encode("SEND", &[("destination", "/topic/nobody"), ("receipt", &receipt)], b"x");
    let frames = frame.repeat(100);
    let (mut sent, most) = (0_u64, 1 << 30);
    let stopped = loop {
        match deaf.write(&frames[(sent % frame.len() as u64) as usize..]) {
            Ok(taken) => sent += taken as u64,
            Err(error) => break error,
        }
        assert!(sent < most, "the broker takes all there is and keeps the answers");
    };
    assert_eq!(stopped.kind(), io::ErrorKind::WouldBlock, "its socket takes nothing more: {stopped}");
    println!("blocked after {} MiB", sent >> 20);
    broker.logged("its socket took nothing");
    served.end();
    let grown = broker.memory_peak_mib() - before;
    println!("the broker grew by {grown} MiB");
    assert!(grown < GROWN_MIB_MAX, "the broker grew by {grown} MiB");
}

/// Somebody whom the broker serves all the while.
struct Served {
    enough: Arc<AtomicBool>,
    client: thread::JoinHandle<u64>,
}

impl Served {
    fn begin(address: SocketAddr) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&enough);
        let client = thread::spawn(move || {
            let mut client = Raw::connect(address);
            client.subscribe("/queue/served", "client-individual", &[]);
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                client.publish("/queue/served", "m");
                let message = client.expect("MESSAGE");
                client.ack(&message);
                rounds += 1;
            }
            client.disconnect();
            rounds
        });
        Self { enough, client }
    }

    fn end(self) {
        self.enough.store(true, Ordering::Relaxed);
        let rounds = self.client.join().unwrap();
        println!("another client was served {rounds} times");
        assert!(rounds > 0);
    }
}

/// A topic subscription that settles nothing: what it is behind is spooled up to its bound, more than memory holds; then
/// its topic's producers wait until it is told and closed. Everybody else is served all the while.
#[test]
fn r32_a_topic_subscription_that_is_too_slow_is_told_so_and_closed() {
    const MESSAGES: usize = 9_000; // 140 MiB
    let settings = Settings::new()
        .option("limits.memory_bytes_max", "\"32MiB\"")
        .option("limits.topic_backlog_bytes_max", "\"128MiB\"")
        .option("limits.slow_consumer_timeout", "\"3s\"");
    let mut broker = Broker::start_with(settings);
    broker.announce("slow consumer");
    let mut slow = Raw::connect(broker.address());
    slow.subscribe("/topic/news", "client-individual", &[("activemq.prefetchSize", "1")]);
    let mut keeps_up = Raw::connect(broker.address());
    keeps_up.subscribe("/topic/news", "auto", &[]);
    let reading = thread::spawn(move || {
        (0..MESSAGES).for_each(|number| assert_eq!(keeps_up.expect("MESSAGE").header("number"), number.to_string()));
        keeps_up
    });
    let served = Served::begin(broker.address());

    let mut producer = Raw::connect(broker.address());
    for number in 0..MESSAGES {
        let headers = [("destination", "/topic/news"), ("number", &number.to_string())];
        producer.confirmed("SEND", &headers, &[b'x'; 16 << 10]);
    }
    broker.logged("slow consumer");
    assert!(broker.data().join("spool/journal").exists(), "what it was behind was spooled");
    assert_eq!(slow.expect("MESSAGE").header("number"), "0");
    let error = slow.refused("is too slow");
    assert_eq!(error.header("message"), "The subscription to topic://news is too slow.");
    served.end();
    reading.join().unwrap().disconnect();
    producer.disconnect();
    let peak = broker.memory_peak_mib();
    assert!(peak <= 96, "{peak} MiB of which 32 are for messages");
}

#[test]
fn its_limit_of_open_files_is_raised() {
    let mut broker = Broker::start_with(Settings::new().open_files(256));
    let limits = broker.proc("limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("Linux tells it");
    let mut numbers = line.split_whitespace();
    let (soft, hard) = (numbers.next().unwrap(), numbers.next().unwrap());
    assert_eq!(soft, hard, "{limits}");
    assert_ne!(soft, "256", "this machine's hard limit is too low for the test");
    broker.logged(&format!("up to {soft} files and connections may be open"));
    broker.sigterm();
}

/// REFUSALS_MAX: so many are told why they are refused at a time; one more is closed without a word.
#[test]
fn a_storm_of_refused_connections_is_not_told_one_by_one() {
    let mut broker = Broker::start_with(Settings::new().query("maximumConnections=1"));
    broker.announce("maximumConnections is reached");
    let mut only = Raw::connect(broker.address());
    // They stay, so that each refusal lasts its second.
    let refused: Vec<_> = (0..200).map(|_| TcpStream::connect(broker.address()).unwrap()).collect();
    let told: Vec<bool> = refused
        .into_iter()
        .map(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            said.starts_with("ERROR\nmessage:maximum number of connections (1) reached\n")
        })
        .collect();
    let first_untold = told.iter().position(|told| !told).expect("200 refusals do not fit into one second");
    assert!(first_untold >= 64, "only {first_untold} were told");
    only.publish("/queue/a", "unharmed");
    only.disconnect();
}

/// HASHES_AT_ONCE: each hash of this user takes 64 MiB, and two are computed at a time.
#[test]
fn a_storm_of_wrong_passwords_does_not_take_the_memory() {
    let hash = format!("$argon2id$v=19$m=65536,t=1,p=1${}${}", "A".repeat(22), "A".repeat(43));
    let broker =
        Broker::start_with(Settings::new().table(&format!("[[users]]\nname = \"ann\"\npassword_hash = {hash:?}")));
    let before = broker.memory_peak_mib();
    let mut clients: Vec<_> = (0..12).map(|_| Raw::open(broker.address())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("CONNECT\naccept-version:1.2\nhost:x\nlogin:ann\npasscode:wrong {number}\n\n\0"));
    }
    clients.into_iter().for_each(|mut client| drop(client.refused("password")));
    let grown = broker.memory_peak_mib() - before;
    assert!((64..64 * 4).contains(&grown), "the broker grew by {grown} MiB for hashes of 64 MiB");
}
