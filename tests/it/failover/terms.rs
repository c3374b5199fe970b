//! A term is a value: one process holds several, one for each group of a database.

use std::{
    env::{current_exe, join_paths, split_paths, var_os},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
};

use batonmq::{
    config::{Config, Sources},
    node::{self, Standby},
    types::Group,
};
use rustix::process::{Pid, Signal, kill_process};

use super::{one_that_serves, short_lease};
use crate::harness::{Broker, DatabaseServer, Raw, own_group};

on_each_database! {
    one_process_holds_the_terms_of_two_groups
}

/// Tells the process of two nodes which configurations are theirs.
const CHILD: &str = "BATONMQ_TEST_TWO_NODES";

/// What happens to one of them is nothing to the other: its doubt, and its end.
fn one_process_holds_the_terms_of_two_groups<D: DatabaseServer>() {
    if let Some(configs) = var_os(CHILD) {
        return live(&split_paths(&configs).collect::<Vec<_>>());
    }
    let server = D::shared();
    let groups = [own_group(), own_group()];
    let settings =
        |group: &Group, name: &str| short_lease(server.settings(group)).option("broker_name", &format!("{name:?}"));
    let mut nodes = groups.each_ref().map(|group| Broker::prepare(settings(group, "one-of-two")));
    let addresses = nodes.each_mut().map(Broker::reserve_port);
    let mut process = Process::start(nodes.each_ref().map(Broker::write_config));
    let [mut one, mut other] = addresses.map(|address| one_that_serves(&[address], None).1);
    one.publish("/queue/orders", "of one");
    other.publish("/queue/orders", "of the other");

    let baton = |group: &Group| server.ask(group, "SELECT term, token, holder FROM {group}baton");
    let undisturbed = baton(&groups[1]);
    let mut standby = Broker::prepare(settings(&groups[0], "standby"));
    standby.launch();
    standby.logged("standby: another broker holds");
    standby.announce("the row of the baton is held");
    server.end_lock_session(&groups[0]);
    standby.serving();
    one.closed();
    one = Raw::connect(standby.address());
    for (client, address, text) in [(&mut one, standby.address(), "of one"), (&mut other, addresses[1], "of the other")]
    {
        client.publish("/queue/orders", "after");
        let mut consumer = Raw::connect(address);
        consumer.subscribe("/queue/orders", "client", &[]);
        assert_eq!([consumer.expect("MESSAGE").text(), consumer.expect("MESSAGE").text()], [text, "after"]);
    }
    assert_eq!(baton(&groups[1]), undisturbed, "its term went on");

    // The first group's node stands by in that process, and serves its next term there.
    standby.sigterm();
    drop(one_that_serves(&addresses[..1], None));
    process.stops();
    let ended = "SELECT reason FROM {group}tenure ORDER BY token DESC LIMIT 1";
    assert_eq!(groups.each_ref().map(|group| server.ask(group, ended)), ["it was stopped"; 2]);
}

/// The process of two nodes. It ends as other brokers do.
fn live(configs: &[PathBuf]) {
    let [one, other] = [0, 1].map(|number| {
        let sources = Sources { file: Some(configs[number].clone()), environment: Vec::new(), flags: Vec::new() };
        Box::pin(node::run(Config::load(&sources).unwrap(), Standby::Wait))
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (one, other) = runtime.block_on(async { tokio::join!(one, other) });
    one.unwrap();
    other.unwrap();
}

/// Dropping it ends it.
struct Process(Child);

impl Process {
    /// This test once more, which finds the configurations.
    fn start(configs: [&Path; 2]) -> Self {
        let mut child = Command::new(current_exe().unwrap());
        let this = thread::current();
        child.args(["--exact", this.name().expect("a test's thread has its name"), "--nocapture"]);
        Self(child.env(CHILD, join_paths(configs).unwrap()).spawn().unwrap())
    }

    fn stops(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
