//! What systemd is told, by a socket that stands for it; and the unit that is in config/.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::harness::{Broker, PATIENCE, Settings};

/// A service manager's end.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path, _directory: directory }
    }

    /// A service's settings.
    fn settings(&self) -> Settings {
        Settings::new().variable("NOTIFY_SOCKET", self.path.to_str().unwrap())
    }

    /// The next thing that it is told.
    fn told(&self) -> String {
        let mut buffer = [0; 1_024];
        let bytes = self.socket.recv(&mut buffer).expect("it is told something");
        String::from_utf8(buffer[..bytes].to_vec()).unwrap()
    }
}

#[test]
fn a_standby_is_ready_and_says_when_it_takes_over() {
    let of_master = Manager::new();
    let mut master = Broker::start_with(of_master.settings());
    assert_eq!(of_master.told(), "READY=1\nSTATUS=master in term 1");
    let of_standby = Manager::new();
    let mut standby = master.sibling(of_standby.settings());
    standby.launch();
    assert_eq!(of_standby.told(), "READY=1\nSTATUS=standby: another broker is the master");
    master.sigterm();
    assert_eq!(of_master.told(), "STOPPING=1\nSTATUS=stopping");
    assert_eq!(of_standby.told(), "STATUS=starting: reading the store");
    assert_eq!(of_standby.told(), "READY=1\nSTATUS=master in term 2");
    standby.serving();
    standby.sigterm();
    assert_eq!(of_standby.told(), "STOPPING=1\nSTATUS=stopping");
}

#[test]
fn a_standby_that_is_stopped_says_so() {
    let master = Broker::start();
    let manager = Manager::new();
    let mut standby = master.sibling(manager.settings());
    standby.launch();
    assert!(manager.told().starts_with("READY=1\n"));
    standby.sigterm();
    assert_eq!(manager.told(), "STOPPING=1\nSTATUS=stopping");
}

#[test]
fn a_watchdog_hears_that_the_process_lives() {
    let manager = Manager::new();
    let _broker = Broker::start_with(manager.settings().variable("WATCHDOG_USEC", "20000"));
    let told: Vec<_> = (0..6).map(|_| manager.told()).collect();
    assert!(told.iter().filter(|told| *told == "WATCHDOG=1").count() >= 3, "{told:?}");
}

#[test]
fn the_unit_is_one() {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/batonmq.service")).unwrap();
    for line in ["Type=notify", "Restart=on-failure", "WatchdogSec=30s"] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/batonmq ")).unwrap();
    let flags = start.split(' ').filter(|word| word.starts_with("--"));
    let help = Command::new(env!("CARGO_BIN_EXE_batonmq")).args(["start", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    flags.for_each(|flag| assert!(help.contains(flag), "{flag}"));

    // systemd's own opinion, where it is installed; the program has to be where the unit says.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("batonmq.service");
    fs::write(&file, unit.replace("/usr/bin/batonmq", env!("CARGO_BIN_EXE_batonmq"))).unwrap();
    match Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&file).output() {
        Err(error) => println!("systemd-analyze is not here, so the unit was not verified: {error}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let ours: Vec<_> = said.lines().filter(|line| line.contains("batonmq.service")).collect();
            assert!(output.status.success() && ours.is_empty(), "{said}");
        }
    }
}
