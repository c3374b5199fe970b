//! The console port: what load balancers, Prometheus and people who probe it get.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use batonmq::console::{METRICS, MetricKind};

use crate::harness::{Broker, PATIENCE, Raw, Settings, encode, get, request};

fn statuses(console: SocketAddr) -> [u16; 3] {
    ["live", "ready", "master"].map(|path| get(console, &format!("/health/{path}")).status)
}

fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn health_says_who_is_the_master() {
    let mut master = Broker::start_with(Settings::new().console());
    let mut standby = master.sibling(Settings::new().console());
    let door = standby.reserve_port();
    standby.launch();
    standby.logged("standby");

    let console = master.console();
    assert_eq!(statuses(console), [200, 200, 200]);
    let body = get(console, "/health/master").body;
    assert!(body.starts_with("{\"role\":\"master\",\"since_ms\":") && body.ends_with(",\"term\":1}\n"), "{body}");

    let console = standby.console();
    assert_eq!(statuses(console), [200, 200, 503], "a standby lives, is ready, and gets no clients");
    assert_eq!(get(console, "/health/master").body, "{\"role\":\"standby\"}\n");
    assert!(refuses(door), "its client ports are closed");
    let metrics = get(console, "/metrics").body;
    assert!(metrics.contains("batonmq_role{role=\"standby\"} 1\n"), "{metrics}");
    assert!(metrics.contains("batonmq_terms_total 0\n") && !metrics.contains("batonmq_destinations"), "{metrics}");

    master.kill_9();
    standby.announce("the last write before the crash was torn");
    standby.serving();
    eventually(|| statuses(console) == [200, 200, 200]);
    assert!(get(console, "/health/master").body.contains("\"term\":2"));
    assert!(get(console, "/metrics").body.contains("batonmq_term 2\n"));
    Raw::connect(door).disconnect();
}

#[test]
fn a_master_that_stops_is_no_master_while_it_says_goodbye() {
    let mut broker = Broker::start_with(Settings::new().console());
    let console = broker.console();
    // A client that reads nothing makes the goodbye last.
    let mut deaf = Raw::connect(broker.address());
    deaf.subscribe("/queue/deaf", "client-individual", &[("activemq.prefetchSize", "1000")]);
    let mut producer = Raw::connect(broker.address());
    let body = vec![b'x'; 1 << 20];
    for _ in 0..32 {
        producer.confirmed("SEND", &[("destination", "/queue/deaf"), ("persistent", "false")], &body);
    }
    broker.ask_to_stop();
    eventually(|| TcpStream::connect(console).is_err() || statuses(console) == [200, 503, 503]);
    broker.announce("");
    broker.ended();
}

#[test]
fn anything_but_a_get_is_refused() {
    let mut broker = Broker::start_with(Settings::new().console());
    let console = broker.console();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let text = format!("{method} /health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        let answer = request(console, &text);
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("allow: get, head"), "{}", answer.head);
    }
    let lost = get(console, "/");
    assert_eq!(lost.status, 404);
    assert!(lost.body.contains("/health/master"), "{}", lost.body);
    let head = request(console, "HEAD /health/master HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(request(console, "this is no HTTP\r\n\r\n").status, 400);
    let long = format!("GET / HTTP/1.1\r\nlong: {}\r\n\r\n", "x".repeat(8 << 10));
    assert_eq!(request(console, &long).status, 431, "a head has a bound");
}

#[test]
fn who_is_slow_is_closed_and_holds_nobody_up() {
    let mut broker = Broker::start_with(Settings::new().console());
    let console = broker.console();
    let mut slow = TcpStream::connect(console).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.write_all(b"GET /health/live HTTP/1.1\r\n").unwrap();
    assert_eq!(statuses(console), [200, 200, 200]);
    let mut rest = String::new();
    slow.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains(" 200 "), "it never asked for anything: {rest}");
}

#[test]
fn a_console_that_was_asked_for_has_to_be_had() {
    let mut broker = Broker::start_with(Settings::new().console());
    let taken = format!("BATONMQ_CONSOLE__LISTEN={}", broker.console());
    let (name, address) = taken.split_once('=').unwrap();
    let said = Broker::prepare(Settings::new().variable(name, address)).refuses_to_start(4);
    assert!(said.contains(address) && said.contains("console.listen"), "{said}");
}

#[test]
fn metrics_follow_what_happens() {
    let mut broker = Broker::start_with(Settings::new().console());
    let console = broker.console();
    let mut client = Raw::connect_with(broker.address(), &[("client-id", "ann")]);
    for body in ["one", "two", "three"] {
        client.publish("/queue/orders", body);
    }
    client.subscribe("/queue/orders", "client-individual", &[]);
    let (first, second, third) = (client.expect("MESSAGE"), client.expect("MESSAGE"), client.expect("MESSAGE"));
    client.ack(&first);
    client.nack(&second);
    assert_eq!(third.text(), "three");
    client.subscribe("/topic/news", "auto", &[("id", "2"), ("activemq.subscriptionName", "daily")]);

    let page = scrape(console);
    let orders = "{kind=\"queue\",destination=\"orders\"}";
    for (line, value) in [
        ("batonmq_messages_received_total".to_owned(), 3.0),
        ("batonmq_messages_delivered_total".to_owned(), 3.0),
        ("batonmq_messages_acknowledged_total".to_owned(), 1.0),
        ("batonmq_messages_dead_lettered_total".to_owned(), 1.0),
        (format!("batonmq_destination_messages{orders}"), 1.0),
        (format!("batonmq_destination_in_flight{orders}"), 1.0),
        (format!("batonmq_destination_consumers{orders}"), 1.0),
        (format!("batonmq_destination_enqueued_total{orders}"), 3.0),
        (format!("batonmq_destination_dequeued_total{orders}"), 2.0),
        ("batonmq_destination_messages{kind=\"queue\",destination=\"ActiveMQ.DLQ\"}".to_owned(), 1.0),
        (
            "batonmq_durable_subscription_consumers{client_id=\"ann\",subscription=\"daily\",topic=\"news\"}"
                .to_owned(),
            1.0,
        ),
        ("batonmq_sessions{protocol=\"stomp\",version=\"1.2\"}".to_owned(), 1.0),
        ("batonmq_connections{connector=\"stomp\"}".to_owned(), 1.0),
        ("batonmq_connections_accepted_total{connector=\"stomp\"}".to_owned(), 1.0),
        ("batonmq_terms_total".to_owned(), 1.0),
    ] {
        assert_eq!(page.get(&line), Some(&value), "{line} of {page:#?}");
    }
    let commits = page["batonmq_store_commit_seconds_count"];
    assert!(commits > 0.0 && page["batonmq_store_answers_total{answer=\"committed\"}"] >= commits, "{page:#?}");
    assert!(page["batonmq_journal_bytes"] > 0.0);
    client.disconnect();
    eventually(|| scrape(console)["batonmq_connections{connector=\"stomp\"}"] == 0.0);
}

#[test]
fn one_connection_too_many_is_counted() {
    let mut broker = Broker::start_with(Settings::new().console().query("maximumConnections=1"));
    broker.announce("maximumConnections is reached");
    let first = Raw::connect(broker.address());
    let mut second = Raw::open(broker.address());
    second.send(encode("CONNECT", &[("accept-version", "1.2"), ("host", "x")], b""));
    second.expect("ERROR");
    let page = scrape(broker.console());
    assert_eq!(page["batonmq_connections_refused_total{connector=\"stomp\"}"], 1.0);
    assert_eq!(page["batonmq_connections_accepted_total{connector=\"stomp\"}"], 1.0);
    first.disconnect();
}

/// What a name on the page is: its type and the names of its labels.
type Kinds = BTreeMap<String, (String, BTreeSet<String>)>;

#[test]
fn the_document_and_a_running_broker_have_the_same_metrics() {
    let mut broker = Broker::start_with(Settings::new().console());
    let client = Raw::connect(broker.address());
    let page = get(broker.console(), "/metrics").body;
    client.disconnect();
    let documented = documented();
    assert_eq!(exported(&page), documented, "left: /metrics, right: docs/metrics.md");
    for metric in METRICS {
        let (kind, _) = &documented[metric.name];
        assert_eq!(*kind, format!("{:?}", metric.kind).to_lowercase(), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter, "{}", metric.name);
        assert!(page.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
    }
}

fn documented() -> Kinds {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `batonmq_"));
    let unquoted = |text: &str| text.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" |").collect();
        let labels = cells[3].split(',').map(unquoted).filter(|label| !label.is_empty()).collect();
        (format!("batonmq_{}", unquoted(cells[0])), (unquoted(cells[1]), labels))
    })
    .collect()
}

fn exported(page: &str) -> Kinds {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut kinds: Kinds = types.map(|(name, kind)| (name.to_owned(), (kind.to_owned(), BTreeSet::new()))).collect();
    for series in scraped(page).into_keys() {
        let Some((name, labels)) = series.split_once('{') else { continue };
        let Some((_, named)) = kinds.get_mut(name) else { continue }; // a histogram's own lines
        let labels = labels.trim_end_matches('}').split("\",");
        named.extend(labels.map(|label| label.split('=').next().unwrap().to_owned()));
    }
    kinds
}

fn scrape(console: SocketAddr) -> BTreeMap<String, f64> {
    let answer = get(console, "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    scraped(&answer.body)
}

fn scraped(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.into(), value.parse().unwrap()))
        .collect()
}

/// What is seen from outside has no event to wait for.
fn eventually(mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it never holds");
        thread::sleep(Duration::from_millis(5));
    }
}
