//! `batonmq demo` shows what it says, and leaves nothing behind.

use std::{
    fs::{Permissions, read_dir, set_permissions},
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{DatabaseServer as _, PostgresServer};

/// Its own temporary directory is in `place`, where a database server of another user finds it.
fn demo(place: &TempDir, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_batonmq"));
    command.arg("demo").args(flags).env("TMPDIR", place.path());
    command
}

fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    set_permissions(place.path(), Permissions::from_mode(0o711)).unwrap();
    place
}

fn is_empty(place: &Path) -> bool {
    read_dir(place).unwrap().next().is_none()
}

fn told(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    for words in ["broker-1 is the master", "kill -9 of broker-1: broker-", "All of them arrived, in order."] {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(told.matches("was started again, and waits").count(), 2, "{told}");
    println!("{told}");
    told
}

#[test]
fn it_takes_over_on_a_private_server() {
    let place = place();
    assert!(told(&mut demo(&place, &["--kills", "2"])).contains("A private PostgreSQL"));
    assert!(is_empty(place.path()), "nothing stays");
}

/// The groups of demonstrations, in a server of a test's own.
const GROUPS: &str = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'demo\\_%'";

#[test]
fn it_leaves_a_database_as_it_was() {
    let server = PostgresServer::start(&[]);
    let (place, url, password_file) = (place(), server.url(), server.password_file());
    let flags = ["--kills", "2", "--url", &url, "--password-file", password_file.to_str().unwrap()];
    told(&mut demo(&place, &flags));
    assert_eq!(server.psql(GROUPS), "0");
    assert!(is_empty(place.path()), "nothing stays");
}

#[cfg(feature = "mysql")]
#[test]
fn it_takes_over_on_mariadb_too() {
    let server = crate::harness::MariadbServer::shared();
    let (place, url, password_file) = (place(), server.url(), server.password_file());
    let flags = ["--kills", "2", "--url", &url, "--password-file", password_file.to_str().unwrap()];
    told(&mut demo(&place, &flags));
    assert_eq!(server.client("SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 'demo\\_%'"), "0");
    assert!(is_empty(place.path()), "nothing stays");
}

/// Reads its words until these come.
fn wait_for(child: &mut Child, words: &str) {
    let mut said = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains(words)), "it ended before it said {words:?}");
}

#[test]
fn ctrl_c_takes_everything_back() {
    let server = PostgresServer::start(&[]);
    let (place, url, password_file) = (place(), server.url(), server.password_file());
    let flags = ["--kills", "1000", "--url", &url, "--password-file", password_file.to_str().unwrap()];
    let mut child = demo(&place, &flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&mut child, "kill -9 of");
    assert_eq!(server.psql(GROUPS), "1");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the demonstration was stopped"), "{output:?}");
    assert_eq!(server.psql(GROUPS), "0");
    assert!(is_empty(place.path()), "nothing stays");
}

#[test]
fn a_url_that_makes_no_sense_is_told() {
    let place = place();
    let output = demo(&place, &["--url", "oracle://db"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("neither postgres://") && said.contains("write where the database is"), "{said}");
    assert!(is_empty(place.path()), "nothing stays");
}
