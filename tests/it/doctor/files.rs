//! The data directory.

use super::{Found, ask, doctor};
use crate::harness::{Broker, Settings, SmallDisk};

#[test]
fn a_journal_that_is_well_is_told_a_line_for_each_thing() {
    let mut broker = Broker::prepare(Settings::new());
    let found = Found::at(&broker);
    found.says("data", "OK", &["is not there yet"]);
    assert!(!broker.data().exists(), "asking makes nothing");
    broker.launch();
    broker.serving();
    let (code, told) = doctor(&broker, &[]);
    assert_eq!(code, 0, "{told}");
    for line in ["OK    data ", "OK    files       sync, rename and locks work in "] {
        assert!(told.lines().any(|told| told.starts_with(line)), "{told}");
    }
    assert!(told.contains("is held by process "), "{told}");
    let left = std::fs::read_dir(broker.data()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| name != ".batonmq-doctor"), "nothing stays");
}

#[test]
fn a_disk_without_room_for_a_journal_is_told() {
    let disk = SmallDisk::new(8 << 20);
    let data = disk.root().join("data");
    let broker = Broker::prepare(Settings::new().option("store.segment_bytes", "\"8MiB\""));
    let asks = disk.command(env!("CARGO_BIN_EXE_batonmq"));
    let found = Found::told(ask(asks, &broker, &["--json", "--data", data.to_str().unwrap()]));
    assert_eq!(found.code, 9);
    found.says("space", "FAIL", &["a new journal needs 2 segments of 8MiB", "lower store.segment_bytes"]);
    found.says("files", "WARN", &["tmpfs", "local file system"]);
}
