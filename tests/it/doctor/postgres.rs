//! A store in PostgreSQL.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::Stdio,
    time::Instant,
};

use batonmq::{
    db::{lock_key, postgres::schema},
    types::Group,
};

use super::Found;
use crate::harness::{Broker, DatabaseServer as _, PATIENCE, PostgresServer, own_group};

/// A group with fresh tables in the server that tests share.
fn fresh_group() -> Group {
    let group = own_group();
    PostgresServer::shared().psql(&schema::script(&group));
    group
}

#[test]
fn a_store_that_is_well_is_well() {
    let server = PostgresServer::start(&["fsync=on"]);
    let group = own_group();
    let mut broker = Broker::prepare(server.settings(&group));
    let found = Found::at(&broker);
    found.is_well();
    found.says("tables", "OK", &["has none yet"]);
    assert_eq!(server.psql(&format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{group}'")), "0");
    broker.launch();
    broker.serving();
    let found = Found::at(&broker);
    found.is_well();
    found.says("connection", "OK", &["PostgreSQL", "as owner", "sessions are the broker's own"]);
    found.says("tables", "OK", &["version 1, as batonmq made them"]);
    found.says("rights", "OK", &[]);
    found.says("clock", "OK", &["ms"]);
    found.says("lease", "OK", &["10s: a heartbeat every 2s, relied on for 8s"]);
    found.says("brokers", "OK", &["batonmq is the master", &broker.address().to_string()]);
    broker.sigterm();
}

/// The doctor knows the tables by heart.
#[test]
fn the_shape_of_fresh_tables_is_known() {
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/postgres");
    let [statement, known] =
        ["doctor/shape.sql", "shape.txt"].map(|file| std::fs::read_to_string(sql.join(file)).unwrap());
    let found = PostgresServer::shared().psql(&statement.replace("$1", &format!("'{}'", fresh_group())));
    let mut lines: Vec<&str> = found.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.join("\n"), known.trim_end(), "left: sql/postgres/migrations, right: sql/postgres/shape.txt");
}

#[test]
fn settings_that_lose_what_was_confirmed_are_found() {
    let server = PostgresServer::start(&["full_page_writes=off", "max_connections=12"]);
    let found = Found::with(server.settings(&own_group()));
    assert_eq!(found.code, 9);
    found.says("durability", "FAIL", &["fsync is off", "set it to on"]);
    found.says("durability", "WARN", &["full_page_writes is off"]);
    found.says("room", "WARN", &["connections are free", "raise max_connections"]);
}

/// Wherever it is said; the nearest counts.
#[test]
fn commits_that_wait_for_no_disk_are_found() {
    let server = PostgresServer::start(&["synchronous_commit=off"]);
    let of_url = format!("{:?}", format!("{}?options=-c%20synchronous_commit%3Doff", server.url()));
    let off = "SET synchronous_commit = off";
    for (change, place) in [
        ("SELECT 1", "in the server's configuration"),
        (&format!("ALTER DATABASE postgres {off}"), "for this database"),
        (&format!("ALTER ROLE {} {off}", server.owner()), "for this role"),
        (&format!("ALTER ROLE {} IN DATABASE postgres {off}", server.owner()), "for this role in this database"),
    ] {
        server.psql(change);
        let says = format!("synchronous_commit is off {place}: a broker sets it to on");
        Found::with(server.settings(&own_group())).says("durability", "WARN", &[&says, "set it to on there"]);
    }
    let found = Found::with(server.settings(&own_group()).option("store.url", &of_url));
    found.says("durability", "WARN", &["synchronous_commit is off in store.url"]);
}

#[test]
fn standbys_that_nobody_waits_for_and_that_are_not_there_are_found() {
    let server = PostgresServer::start(&["fsync=on"]);
    let standby = server.standby();
    let found = |verdict: &str, says: &[&str]| {
        Found::with(server.settings(&own_group())).says("durability", verdict, says);
    };
    let sees_standbys = |expected: &str| {
        let states = "SELECT coalesce(string_agg(sync_state, ','), 'none') FROM pg_stat_replication";
        let since = Instant::now();
        while server.psql(states) != expected {
            assert!(since.elapsed() < PATIENCE, "{} is not {expected}", server.psql(states));
        }
    };
    sees_standbys("async");
    found("WARN", &["it has standbys and waits for none", "synchronous_standby_names"]);
    server.psql("ALTER SYSTEM SET synchronous_standby_names = 'standby'");
    server.psql("SELECT pg_reload_conf()");
    sees_standbys("sync");
    found("OK", &["a standby is waited for"]);
    for anybody in ["*", "ANY 1 (*)", "FIRST 1 (\"*\")"] {
        server.psql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{anybody}'"));
        server.psql("SELECT pg_reload_conf()");
        let is_set = || server.psql("SHOW synchronous_standby_names") == anybody;
        let since = Instant::now();
        while !is_set() {
            assert!(since.elapsed() < PATIENCE, "{anybody} is not set");
        }
        found("WARN", &[&format!("synchronous_standby_names is {anybody}: a pg_basebackup"), "name the standbys"]);
    }
    drop(standby);
    sees_standbys("none");
    found("FAIL", &["none is connected: nothing is confirmed", "start the standby"]);
}

#[test]
fn tables_that_were_altered_by_hand_are_found() {
    let server = PostgresServer::shared();
    for (change, verdict, says) in [
        ("DROP INDEX {}.message_expiring", "FAIL", "missing: index message_expiring btree (expires, sequence)"),
        (
            "ALTER TABLE {}.returned ALTER COLUMN failures SET DEFAULT 0",
            "FAIL",
            "missing: column returned.failures integer",
        ),
        ("ALTER TABLE {}.message ADD COLUMN note text NOT NULL", "FAIL", "not ours: column message.note text not null"),
        ("ALTER TABLE {}.message ADD COLUMN note text", "WARN", "added to them: column message.note text"),
        ("ALTER TABLE {}.dispatch_mark SET UNLOGGED", "FAIL", "not ours: table dispatch_mark unlogged"),
    ] {
        let group = fresh_group();
        server.psql(&change.replace("{}", group.as_str()));
        Found::with(server.settings(&group)).says("tables", verdict, &[says, "batonmq migrate --print"]);
    }
}

#[test]
fn tables_of_another_version_are_found() {
    let server = PostgresServer::shared();
    let group = fresh_group();
    server.psql(&format!("INSERT INTO {group}.schema_version (version) VALUES (99)"));
    Found::with(server.settings(&group)).says("tables", "FAIL", &["have version 99", "start the newer version"]);
}

#[test]
fn rights_that_a_role_lacks_are_found() {
    let server = PostgresServer::shared();
    let group = fresh_group();
    server.psql(&format!("CREATE ROLE {group} LOGIN PASSWORD 'own'"));
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "own").unwrap();
    let settings = |of: &Group| {
        server
            .settings(of)
            .option("store.url", &format!("{:?}", server.url_of(group.as_str(), "postgres")))
            .option("store.password_file", &format!("{:?}", password.path()))
    };
    let found = Found::with(settings(&own_group()));
    found.says("tables", "FAIL", &["this role may not make them", "run batonmq migrate as a role that may"]);
    let found = Found::with(settings(&group));
    found.says("rights", "FAIL", &[&format!("USAGE on schema {group}"), "SELECT, INSERT, UPDATE, DELETE on message"]);
    server.psql(&format!(
        "GRANT USAGE ON SCHEMA {group} TO {group}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {group} TO {group}; \
         REVOKE DELETE ON {group}.message FROM {group}"
    ));
    let found = Found::with(settings(&group));
    found.says("rights", "FAIL", &["this role lacks DELETE on message; grant what docs/databases.md lists"]);
    server.psql(&format!("GRANT DELETE ON {group}.message TO {group}"));
    Found::with(settings(&group)).says("rights", "OK", &[]);
}

#[test]
fn a_server_that_can_only_be_read_is_found() {
    let server = PostgresServer::start(&["default_transaction_read_only=on"]);
    let found = Found::with(server.settings(&own_group()));
    found.says("connection", "FAIL", &["does not allow writes", "name the primary in store.url"]);
}

#[test]
fn a_password_that_is_wrong_is_found() {
    let server = PostgresServer::shared();
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong.path(), "wrong s3cret").unwrap();
    let settings = server.settings(&own_group()).option("store.password_file", &format!("{:?}", wrong.path()));
    let found = Found::with(settings);
    found.says("connection", "FAIL", &["password authentication failed", "store.password_file"]);
    assert!(!format!("{:?}", found.findings).contains("s3cret"));
}

/// As when somebody else's program locks the same number.
#[test]
fn a_stranger_that_holds_the_lock_is_found() {
    let server = PostgresServer::shared();
    let group = fresh_group();
    let mut stranger = server.psql_command();
    stranger.env("PGAPPNAME", "somebody else").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut stranger = stranger.spawn().unwrap();
    let mut says = stranger.stdin.take().unwrap();
    writeln!(says, "SELECT 'has it' FROM pg_advisory_lock({});", lock_key("baton", &group)).unwrap();
    BufReader::new(stranger.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let found = Found::with(server.settings(&group));
    found.says("lock", "FAIL", &["no broker's", "\"somebody else\"", "end it, or choose another store.group"]);
    drop(says);
    stranger.wait().unwrap();
    assert_eq!(Found::with(server.settings(&group)).about("lock"), [""; 0]);
}

#[test]
fn two_brokers_of_one_name_are_found() {
    let server = PostgresServer::shared();
    let group = own_group();
    let mut one = Broker::start_with(server.settings(&group));
    let mut two = Broker::prepare(server.settings(&group));
    for broker in [&mut one, &mut two] {
        broker.announce("another running broker is called batonmq too");
    }
    two.launch();
    two.logged("standby: another broker holds");
    let found = Found::with(server.settings(&group));
    found.says("brokers", "WARN", &["two that run are called batonmq", "a broker_name of its own"]);
    two.sigterm();
    one.sigterm();
}

/// Two installations that took the same group by mistake are one group: one serves, and the other waits, and is told of.
#[test]
fn two_groups_of_one_name_are_told_who_they_are() {
    let server = PostgresServer::shared();
    let group = own_group();
    let mut shop = Broker::start_with(server.settings(&group).option("broker_name", "\"shop\""));
    let mut billing = Broker::prepare(server.settings(&group).option("broker_name", "\"billing\""));
    billing.launch();
    let told = billing.logged("standby: another broker holds");
    assert!(told.contains(&format!("the baton of group {group} in")), "{told}");
    let found = Found::at(&billing);
    let address = shop.address().to_string();
    found.says("brokers", "OK", &["shop is the master", &address, "billing on", "has your store.group by mistake"]);
    billing.sigterm();
    shop.sigterm();
}
