//! What an operator sees of a group, and what is said when it is set up wrongly.

use std::{path::Path, process::Command, time::Instant};

use super::Brokers;
use crate::harness::{Broker, DatabaseServer, PATIENCE, own_group, run};

on_each_database! {
    status_tells_who_is_the_master_and_who_waits
    two_brokers_of_one_name_are_told_to_take_two
    brokers_on_one_data_directory_are_told_to_take_two
    an_unsafe_lease_is_refused_and_says_why
    r22_a_broker_whose_port_is_taken_steps_back
    r22_a_broker_that_finds_altered_tables_steps_back_and_says_what_to_do
    the_tables_are_made_by_migrate_or_printed
    a_broker_that_waits_makes_no_tables
    no_wait_ends_while_another_is_the_master
}

/// What a command says of this configuration.
fn told(command: &str, config: &Path, flags: &[&str]) -> String {
    let mut batonmq = Command::new(env!("CARGO_BIN_EXE_batonmq"));
    let output = run(batonmq.arg(command).arg("--config").arg(config).args(flags));
    String::from_utf8(output.stdout).unwrap()
}

fn status(config: &Path, flags: &[&str]) -> String {
    told("status", config, flags)
}

fn status_tells_who_is_the_master_and_who_waits<D: DatabaseServer>() {
    let server = D::shared();
    let fresh = Broker::prepare(server.settings(&own_group()));
    assert!(status(fresh.write_config(), &[]).contains("has no tables yet"));
    let brokers = Brokers::start(server, 2, |settings| settings);
    let (master, _client) = brokers.master();
    assert_eq!(master, 0);
    let observer = Broker::prepare(server.settings(&brokers.group));
    let config = observer.write_config();
    let mut told = status(config, &[]);
    assert!(told.contains("broker-0 is the master") && told.contains("term 1, token"), "{told}");
    assert!(told.contains("lease: 10 s"), "{told}");
    // A sign of life is on its way when the log says the same.
    let since = Instant::now();
    while !["broker-0             master", "broker-1             standby"].iter().all(|line| told.contains(line)) {
        assert!(since.elapsed() < PATIENCE, "{told}");
        told = status(config, &[]);
    }
    let json: serde_json::Value = serde_json::from_str(&status(config, &["--json"])).unwrap();
    let survey = &json["survey"];
    assert_eq!((&survey["holder"], &survey["held"]), (&"broker-0".into(), &true.into()), "{json:#}");
    let brokers_seen = survey["brokers"].as_array().unwrap();
    assert!(brokers_seen.iter().all(|broker| broker["seen_ms_ago"].as_i64().unwrap() < 60_000), "{json:#}");
    let addresses = brokers_seen[0]["addresses"].as_str().unwrap();
    assert!(addresses.contains(&brokers.addresses[0].to_string()), "{addresses}");
    brokers.stop();
    let told = status(config, &[]);
    assert!(told.contains("there is no master at the moment") && told.contains("it was stopped"), "{told}");
}

#[test]
fn status_of_a_journal_tells_who_holds_its_directory() {
    let mut broker = Broker::start();
    let config = broker.write_config().to_owned();
    let told = status(&config, &[]);
    assert!(told.starts_with("process ") && told.contains(" holds "), "{told}");
    broker.sigterm();
    assert!(status(&config, &[]).starts_with("no broker holds"));
}

fn two_brokers_of_one_name_are_told_to_take_two<D: DatabaseServer>() {
    let server = D::shared();
    let group = own_group();
    let mut one = Broker::start_with(server.settings(&group));
    let mut two = Broker::prepare(server.settings(&group));
    for broker in [&mut one, &mut two] {
        broker.announce("another running broker is called batonmq too");
    }
    two.launch();
    for broker in [&one, &two] {
        let told = broker.logged("another running broker is called batonmq too");
        assert!(told.contains("give each broker of a group a broker_name of its own"), "{told}");
    }
    two.sigterm();
    one.sigterm();
}

fn brokers_on_one_data_directory_are_told_to_take_two<D: DatabaseServer>() {
    let server = D::shared();
    let group = own_group();
    let one = Broker::start_with(server.settings(&group));
    let said = one.sibling(server.settings(&group)).refuses_to_start(8);
    assert!(said.contains("give each broker one of its own"), "{said}");
}

fn an_unsafe_lease_is_refused_and_says_why<D: DatabaseServer>() {
    let server = D::shared();
    for lease in ["\"1s\"", "\"1h\""] {
        let settings = server.settings(&own_group()).option("election.lease", lease);
        let said = Broker::prepare(settings).refuses_to_start(3);
        assert!(said.contains("election.lease") && said.contains("is unsafe; write 2s to 5m"), "{said}");
    }
}

/// R22: whoever can't open its doors lets others try, and says why.
fn r22_a_broker_whose_port_is_taken_steps_back<D: DatabaseServer>() {
    let server = D::shared();
    let group = own_group();
    let mut one = Broker::prepare(server.settings(&group).option("broker_name", "\"one\""));
    let taken = std::net::TcpListener::bind(one.reserve_port()).unwrap();
    one.announce("this broker has the baton and cannot serve");
    one.launch();
    let told = one.logged("this broker has the baton and cannot serve");
    assert!(told.contains("cannot listen on") && told.contains("steps back"), "{told}");
    assert!(told.contains("choose another port"), "{told}");
    let mut two = Broker::start_with(server.settings(&group).option("broker_name", "\"two\""));
    drop(taken);
    two.sigterm();
    one.serving();
    one.sigterm();
}

fn r22_a_broker_that_finds_altered_tables_steps_back_and_says_what_to_do<D: DatabaseServer>() {
    let server = D::shared();
    let group = own_group();
    let mut broker = Broker::start_with(server.settings(&group));
    broker.sigterm();
    broker.announce("this broker has the baton and cannot serve");
    for (change, says, undo) in [
        (
            "ALTER TABLE {group}message RENAME COLUMN size TO bytes",
            "table message lacks the column size",
            "ALTER TABLE {group}message RENAME COLUMN bytes TO size",
        ),
        (
            "ALTER TABLE {group}held RENAME COLUMN durable TO holder",
            "table held lacks the column durable",
            "ALTER TABLE {group}held RENAME COLUMN holder TO durable",
        ),
        (
            "ALTER TABLE {group}returned ADD COLUMN note INT NOT NULL",
            "table returned has a column note that is not batonmq's and must be filled",
            "ALTER TABLE {group}returned DROP COLUMN note",
        ),
    ] {
        server.ask(&group, change);
        broker.launch();
        let told = broker.logged("this broker has the baton and cannot serve");
        assert!(told.contains("not as batonmq made them") && told.contains(says), "{told}");
        assert!(told.contains("batonmq migrate --print"), "{told}");
        broker.sigterm();
        server.ask(&group, undo);
    }
    broker.restart();
    broker.sigterm();
}

fn the_tables_are_made_by_migrate_or_printed<D: DatabaseServer>() {
    let (server, group) = (D::shared(), own_group());
    let mut broker = Broker::prepare(server.settings(&group));
    let config = broker.write_config().to_owned();
    let printed = told("migrate", &config, &["--print"]);
    assert!(printed.contains("CREATE TABLE ") && printed.contains(group.as_str()), "{printed}");
    assert!(status(&config, &[]).contains("has no tables yet"), "printing changes nothing");
    let made = told("migrate", &config, &[]);
    assert_eq!(made, format!("the tables of group {group} were brought to version 1\n"));
    let made = told("migrate", &config, &[]);
    assert_eq!(made, format!("the tables of group {group} have version 1; nothing to do\n"));
    server.ask(&group, "INSERT INTO {group}schema_version (version, applied) VALUES (2, NOW())");
    let said = broker.refuses_to_start(6);
    assert!(said.contains("have version 2") && said.contains("start the newer version"), "{said}");
}

fn a_broker_that_waits_makes_no_tables<D: DatabaseServer>() {
    let (server, group) = (D::shared(), own_group());
    let stranger = server.hold_lock(&group);
    let mut waiting = Broker::prepare(server.settings(&group));
    let config = waiting.write_config().to_owned();
    waiting.launch();
    waiting.logged("standby: another broker holds");
    assert!(status(&config, &[]).contains("has no tables yet"));
    stranger.leave();
    waiting.serving();
    assert_eq!(server.ask(&group, "SELECT holder FROM {group}baton"), "batonmq");
    waiting.sigterm();
}

fn no_wait_ends_while_another_is_the_master<D: DatabaseServer>() {
    let server = D::shared();
    let brokers = Brokers::start(server, 1, |settings| settings);
    let settings = server.settings(&brokers.group).option("broker_name", "\"other\"").flag("--no-wait");
    let said = Broker::prepare(settings).refuses_to_start(8);
    assert!(said.contains(&format!("another broker holds the baton of group {}", brokers.group)), "{said}");
    brokers.stop();
}
