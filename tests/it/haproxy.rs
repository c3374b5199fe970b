//! `config/haproxy.cfg` in Debian's HAProxy: one address, wherever the master is.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::harness::{Broker, Script, Settings};
#[cfg(feature = "postgres")]
use crate::harness::{DatabaseServer as _, PostgresServer, own_group};

/// HAProxy with our configuration, in front of two brokers. Dropping it ends it.
struct Balancer {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Balancer {
    fn start(brokers: [(SocketAddr, SocketAddr); 2]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let documented = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/haproxy.cfg");
        let mut config = fs::read_to_string(documented).unwrap();
        let mut replace = |what: &str, with: String| {
            assert!(config.contains(what), "config/haproxy.cfg lacks {what}");
            config = config.replace(what, &with);
        };
        replace("bind :61613", format!("bind {address}"));
        for (number, (stomp, console)) in (1..).zip(brokers) {
            let with = format!("{stomp} check addr {} port {}", console.ip(), console.port());
            replace(&format!("192.0.2.{number}:61613 check port 8161"), with);
        }
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        let checked = haproxy().arg("-c").arg("-f").arg(&file).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        let child = haproxy().arg("-db").arg("-f").arg(&file).stderr(Stdio::null()).spawn().unwrap();
        Self { child, address, _directory: directory }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Debian has it where a user's PATH may not lead.
fn haproxy() -> Command {
    let path = Path::new("/usr/sbin/haproxy");
    assert!(path.exists(), "HAProxy is not installed: run tests/run, which installs it");
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_client_that_knows_one_address_survives_a_take_over() {
    let master = Broker::start_with(Settings::new().console());
    let mut standby = master.sibling(Settings::new().console());
    standby.announce("the last write before the crash was torn");
    take_turns(master, standby);
}

#[cfg(feature = "postgres")]
#[test]
fn a_client_that_knows_one_address_survives_a_take_over_on_postgres() {
    let (server, group) = (PostgresServer::shared(), own_group());
    let settings = |name| server.settings(&group).console().option("broker_name", name);
    let mut brokers = ["\"one\"", "\"two\""].map(|name| Broker::prepare(settings(name)));
    brokers.iter_mut().for_each(|broker| broker.announce("the row of the baton is held"));
    let [mut master, standby] = brokers;
    master.restart();
    take_turns(master, standby);
}

/// Whoever serves is killed, twice; a client of HAProxy's address finds its messages with the other one.
fn take_turns(mut master: Broker, mut standby: Broker) {
    standby.reserve_port();
    standby.launch();
    standby.logged("standby");
    let brokers = [(master.address(), master.console()), (standby.address(), standby.console())];
    let balancer = Balancer::start(brokers);
    for version in ["1.1", "1.2"] {
        let mut script = Script::python("reconnect.py", balancer.address, &["--version", version]);
        script.wait_for("restart the broker");
        master.kill_9();
        standby.serving();
        script.finish();
        // The one that was killed is the next standby, and HAProxy finds it again.
        master.launch();
        master.logged("standby");
        std::mem::swap(&mut master, &mut standby);
    }
}
