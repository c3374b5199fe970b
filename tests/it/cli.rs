//! The command line of the built binary: exit codes, sentences, and the life of a broker as a script sees it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{ANY_PORT, PATIENCE, Running, assert_fails, batonmq, published, run, text};

#[test]
fn help_has_examples_and_exit_codes() {
    let directory = TempDir::new().unwrap();
    let help = text(&run(&directory, &["--help"]).stdout);
    assert!(help.contains("Examples:") && help.contains(batonmq::cli::EXIT_CODES), "{help}");
    assert_eq!(text(&run(&directory, &["--version"]).stdout), format!("batonmq {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(run(&directory, &["--nonsense"]).status.code(), Some(2));
}

#[test]
fn a_bad_configuration_is_code_3() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("batonmq.toml"), "[stomp]\nlenientt = true\n").unwrap();
    for arguments in [&["check-config"][..], &["start"], &[]] {
        assert_fails(&run(&directory, arguments), 3, &["stomp.lenientt", "batonmq.toml", "lenient,"]);
    }
    assert_fails(&run(&directory, &["start", "--config", "nowhere.toml"]), 3, &["nowhere.toml", "--config"]);
    let stray =
        batonmq(&directory).args(["check-config", "--config", "/dev/null"]).env("BATONMQ_NOTHING", "1").output();
    assert_fails(&stray.unwrap(), 3, &["BATONMQ_NOTHING"]);
    let uri = ["start", "--config", "/dev/null", "--listen", "stomp://127.0.0.1:0?trace=true"];
    assert_fails(&run(&directory, &uri), 3, &["--listen", "trace", "maximumConnections"]);
}

#[test]
fn a_good_configuration_is_told_what_it_amounts_to() {
    let directory = TempDir::new().unwrap();
    let output = run(&directory, &["check-config"]);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stdout);
    assert!(said.contains("the defaults: good") && said.contains("127.0.0.1:61613"), "{said}");
    assert!(said.contains("warning: no users"), "{said}");
    assert!(!directory.path().join("data").exists(), "nothing was started");
}

#[test]
fn a_taken_port_is_code_4() {
    let directory = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&directory, &["start", "--listen", &format!("stomp://{address}")]);
    assert_fails(&output, 4, &[&address, "choose another port"]);
    assert_eq!(published(&directory.path().join("data")), None);
}

#[test]
fn no_permission_is_code_7() {
    let directory = TempDir::new().unwrap();
    // Nobody can make a directory there, not even root, for whom permissions mean little.
    let output = run(&directory, &["start", "--data", "/sys/batonmq"]);
    assert_fails(&output, 7, &["/sys/batonmq", "access"]);
}

#[test]
fn a_held_data_directory_is_code_8_with_no_wait() {
    let directory = TempDir::new().unwrap();
    let master = Running::ready(&directory, &ANY_PORT);
    let output = run(&directory, &["start", "--no-wait", ANY_PORT[0], ANY_PORT[1]]);
    assert_fails(&output, 8, &["data", "--no-wait"]);
    drop(master);
}

#[test]
fn a_standby_keeps_its_ports_closed_and_takes_over() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    let master = Running::ready(&directory, &ANY_PORT);
    let first = published(&data).unwrap();
    let mut standby = Running::start(&directory, &ANY_PORT);
    standby.until("standby: another broker holds");
    assert_eq!(published(&data).unwrap(), first, "only the master is published");

    master.signal(Signal::KILL);
    let since = Instant::now();
    standby.until("ready");
    assert!(since.elapsed() < Duration::from_secs(4), "it asks every 5 s; took {:?} to take over", since.elapsed());
    let second = published(&data).unwrap();
    assert_ne!(first, second);
    TcpStream::connect(second).unwrap();
}

#[test]
fn a_standby_can_be_stopped() {
    let directory = TempDir::new().unwrap();
    let _master = Running::ready(&directory, &ANY_PORT);
    let mut standby = Running::start(&directory, &ANY_PORT);
    standby.until("standby");
    standby.signal(Signal::TERM);
    let (code, log) = standby.ended();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn sigterm_and_sigint_stop_politely() {
    for signal in [Signal::TERM, Signal::INT] {
        let directory = TempDir::new().unwrap();
        let data = directory.path().join("data");
        let running = Running::ready(&directory, &ANY_PORT);
        let address = published(&data).unwrap();
        TcpStream::connect(&address).unwrap();
        running.signal(signal);
        let (code, log) = running.ended();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("stopped"), "{log}");
        assert_eq!(published(&data), None, "nothing is open any more");
        TcpStream::connect(address).unwrap_err();
    }
}

#[test]
fn the_start_is_told_in_plain_sentences() {
    let directory = TempDir::new().unwrap();
    let mut running = Running::start(&directory, &["--log-level", "info", ANY_PORT[0], ANY_PORT[1]]);
    running.until(&format!("BatonMQ {} starts", env!("CARGO_PKG_VERSION")));
    running.until("name is batonmq");
    running.until(&directory.path().join("data").display().to_string());
    running.until("connector stomp listens on stomp://127.0.0.1:");
    running.until("stop with Ctrl-C or SIGTERM");
}

#[test]
fn a_json_log_is_one_object_a_line() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("batonmq.toml"), "log.format = \"json\"\n").unwrap();
    let mut running = Running::start(&directory, &ANY_PORT);
    let line = running.until("ready");
    let object = serde_json::from_str::<serde_json::Value>(&line).unwrap();
    assert_eq!(object["level"], "INFO");
}

#[test]
fn one_connection_too_many_is_told_so() {
    let directory = TempDir::new().unwrap();
    let mut running = Running::ready(&directory, &["--listen", "stomp://127.0.0.1:0?maximumConnections=2"]);
    let address = published(&directory.path().join("data")).unwrap();
    let kept = [TcpStream::connect(&address).unwrap(), TcpStream::connect(&address).unwrap()];
    let mut refused = TcpStream::connect(&address).unwrap();
    let mut said = String::new();
    refused.write_all(b"CONNECT\naccept-version:1.2\n\n\0").unwrap();
    refused.shutdown(std::net::Shutdown::Write).unwrap();
    refused.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("ERROR\nmessage:maximum number of connections (2) reached\n"), "{said}");
    running.until("maximumConnections is reached");

    // A place that is given back can be taken.
    drop(kept);
    let since = Instant::now();
    loop {
        let mut again = TcpStream::connect(&address).unwrap();
        again.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = [0; 9];
        let connect = again.write_all(b"CONNECT\naccept-version:1.2\nhost:h\n\n\0");
        if connect.and_then(|()| again.read_exact(&mut said)).is_ok() && said == *b"CONNECTED" {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "the places never came back: {}", said.escape_ascii());
    }
}

#[test]
fn passwd_hashes_what_is_piped_in() {
    let directory = TempDir::new().unwrap();
    let mut command = batonmq(&directory);
    let mut child = command.arg("passwd").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    let hash = text(&child.wait_with_output().unwrap().stdout);
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    fs::write(directory.path().join("hash"), hash).unwrap();
    fs::write(directory.path().join("u.toml"), "[[users]]\nname = \"u\"\npassword_hash_file = \"hash\"\n").unwrap();
    let checked = run(&directory, &["check-config", "--config", "u.toml"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert_fails(&run(&directory, &["passwd"]), 1, &["empty"]);
}

/// Sends persistent messages one by one, each after the receipt of the one before.
fn send(address: &str, bodies: &[&str]) {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut exchange = |frame: String, awaited: &str| {
        client.write_all(frame.as_bytes()).unwrap();
        let mut said = String::new();
        while !said.contains(awaited) {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap_or_else(|error| panic!("no {awaited}: {said}: {error}"));
            said.push(char::from(byte[0]));
        }
    };
    exchange("CONNECT\naccept-version:1.2\nhost:h\n\n\0".to_owned(), "CONNECTED");
    for body in bodies {
        let frame = format!("SEND\ndestination:/queue/kept\npersistent:true\nreceipt:{body}\n\n{body}\0");
        exchange(frame, &format!("receipt-id:{body}"));
    }
}

/// A data directory with messages in its journal, and the segment file that holds them.
fn with_messages(directory: &TempDir) -> (std::path::PathBuf, Vec<u8>) {
    let running = Running::ready(directory, &ANY_PORT);
    send(&published(&directory.path().join("data")).unwrap(), &["first-body", "second-body", "third-body"]);
    running.signal(Signal::TERM);
    assert_eq!(running.ended().0, Some(0));
    let files = fs::read_dir(directory.path().join("data/journal")).unwrap().map(|entry| entry.unwrap().path());
    let holds = |path: std::path::PathBuf| {
        let bytes = fs::read(&path).unwrap();
        bytes.windows(10).any(|window| window == b"first-body").then_some((path, bytes))
    };
    files.filter(|path| path.is_file()).find_map(holds).expect("a segment holds the first message")
}

#[test]
fn a_damaged_journal_is_code_5() {
    let directory = TempDir::new().unwrap();
    let (segment, mut bytes) = with_messages(&directory);
    assert_eq!(run(&directory, &["journal", "verify", "data"]).status.code(), Some(0));
    let at = bytes.windows(10).position(|window| window == b"first-body").unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap();
    for arguments in [&["start", ANY_PORT[0], ANY_PORT[1]][..], &["journal", "verify", "data"]] {
        assert_fails(&run(&directory, arguments), 5, &[name, "damaged at byte", "restore"]);
    }
}

/// Takes messages until this one has come; all that was said.
fn receive_until(address: &str, last: &str) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
        .write_all(b"CONNECT\naccept-version:1.2\nhost:h\n\n\0SUBSCRIBE\nid:1\ndestination:/queue/kept\n\n\0")
        .unwrap();
    let mut said = String::new();
    while !said.contains(last) {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap_or_else(|error| panic!("no {last}: {said}: {error}"));
        said.push(char::from(byte[0]));
    }
    said
}

/// What a command said with `--json`; `docs/journal.md` names every name in it.
fn json(output: &std::process::Output) -> serde_json::Value {
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_documented(&report);
    report
}

fn assert_documented(report: &serde_json::Value) {
    let document = include_str!("../../docs/journal.md");
    for (name, value) in report.as_object().into_iter().flatten() {
        assert!(document.contains(&format!("`{name}`")), "docs/journal.md lacks {name}");
        assert_documented(value);
        value.as_array().into_iter().flatten().for_each(assert_documented);
    }
}

#[test]
fn a_damaged_journal_is_repaired_and_served() {
    let directory = TempDir::new().unwrap();
    let (segment, mut bytes) = with_messages(&directory);
    let untouched = json(&run(&directory, &["journal", "repair", "data", "--json"]));
    assert_eq!(untouched["outcome"], "nothing to repair");
    let at = bytes.windows(11).position(|window| window == b"second-body").unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, &bytes).unwrap();

    let refused = run(&directory, &["start", ANY_PORT[0], ANY_PORT[1]]);
    assert_fails(&refused, 5, &["batonmq journal repair ./data"]);
    let verified = run(&directory, &["journal", "verify", "data", "--json"]);
    assert_fails(&verified, 5, &["damaged places in all: 1"]);
    let report = json(&verified);
    assert_eq!((&report["good"], &report["lost_records"], &report["messages"]), (&false.into(), &1.into(), &2.into()));
    assert_eq!(report["damage"][0]["first_lost_record"], report["damage"][0]["last_lost_record"]);

    let planned = run(&directory, &["journal", "repair", "--dry-run", "data"]);
    assert!(text(&planned.stdout).contains("messages to be saved: 2"), "{planned:?}");
    assert!(!directory.path().join("data/journal.damaged-1").exists());
    let repaired = run(&directory, &["journal", "repair", "data"]);
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    let said = text(&repaired.stdout);
    for part in ["messages saved: 2", "data/journal.damaged-1", "records that are gone: 1"] {
        assert!(said.contains(part), "{said}");
    }
    let kept = directory.path().join("data/journal.damaged-1").join(segment.file_name().unwrap());
    assert_eq!(fs::read(kept).unwrap(), bytes, "the damaged journal is kept as it was");

    assert_eq!(run(&directory, &["journal", "verify", "data"]).status.code(), Some(0));
    let _running = Running::ready(&directory, &ANY_PORT);
    let said = receive_until(&published(&directory.path().join("data")).unwrap(), "third-body");
    let first = said.find("first-body").unwrap();
    assert!(first < said.find("third-body").unwrap() && !said.contains("econd-body"), "{said}");
}

#[test]
fn a_journal_in_use_is_code_8() {
    let directory = TempDir::new().unwrap();
    let _running = Running::ready(&directory, &ANY_PORT);
    for command in ["inspect", "verify", "repair"] {
        assert_fails(&run(&directory, &["journal", command, "data"]), 8, &["a broker is running on data"]);
    }
}

#[test]
fn a_journal_is_shown_to_scripts() {
    let directory = TempDir::new().unwrap();
    let (segment, _) = with_messages(&directory);
    let report = json(&run(&directory, &["journal", "inspect", "data", "--json"]));
    assert_eq!((&report["health"], &report["messages"]), (&"good".into(), &3.into()));
    assert_eq!(report["segments"][0]["file"], segment.file_name().unwrap().to_str().unwrap());
    let queues = report["destinations"].as_array().unwrap();
    assert!(queues.iter().any(|queue| queue["destination"] == "queue://kept" && queue["messages"] == 3), "{report}");
}

#[test]
fn a_journal_of_a_newer_version_is_code_6() {
    let directory = TempDir::new().unwrap();
    let (segment, mut bytes) = with_messages(&directory);
    // The header: a magic number of 8 bytes, the format, other things, and at byte 60 a checksum of what is before it.
    bytes[8] = 2;
    let checksum = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&checksum);
    fs::write(&segment, bytes).unwrap();
    let output = run(&directory, &["start", ANY_PORT[0], ANY_PORT[1]]);
    assert_fails(&output, 6, &["format 2", "newer version"]);
    for command in ["verify", "repair"] {
        assert_fails(&run(&directory, &["journal", command, "data"]), 6, &["format 2", "newer version"]);
    }
}
