//! A store in MariaDB.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::Stdio,
    time::Instant,
};

use batonmq::{db::mysql::schema, election::LOCK_PURPOSE, types::Group};

use super::Found;
use crate::harness::{Broker, DatabaseServer as _, Galera, MariadbServer, PATIENCE, own_group};

/// A group with fresh tables in the server that tests share.
fn fresh_group() -> Group {
    let group = own_group();
    MariadbServer::shared().client(&schema::script(&group));
    group
}

#[test]
fn a_store_that_is_well_is_well() {
    let server = MariadbServer::start(&["innodb-flush-method=fsync"]);
    let group = own_group();
    let found = Found::with(server.settings(&group));
    found.is_well();
    found.says("tables", "OK", &["has none yet"]);
    server.client(&schema::script(&group));
    let found = Found::with(server.settings(&group));
    found.is_well();
    found.says("connection", "OK", &["MariaDB"]);
    found.says("tables", "OK", &["version 1, as batonmq made them"]);
    found.says("rights", "OK", &[]);
}

/// The doctor knows the tables by heart.
#[test]
fn the_shape_of_fresh_tables_is_known() {
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/mysql");
    let [statement, known] =
        ["doctor/shape.sql", "shape.txt"].map(|file| std::fs::read_to_string(sql.join(file)).unwrap());
    let found =
        MariadbServer::shared().client(&statement.replace("? AS name", &format!("'{}' AS name", fresh_group())));
    let mut lines: Vec<&str> = found.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.join("\n"), known.trim_end(), "left: sql/mysql/migrations, right: sql/mysql/shape.txt");
}

#[test]
fn settings_that_lose_what_was_confirmed_are_found() {
    let server = MariadbServer::start(&[
        "innodb-flush-log-at-trx-commit=2",
        "innodb-doublewrite=OFF",
        "max-allowed-packet=16M",
        "max-connections=10",
        "log-bin",
    ]);
    let found = Found::with(server.settings(&own_group()));
    found.says("durability", "WARN", &["innodb_flush_log_at_trx_commit is 2", "set it to 1"]);
    found.says("durability", "WARN", &["sync_binlog is 0", "set it to 1"]);
    found.says("durability", "WARN", &["innodb_doublewrite is OFF", "set it to ON"]);
    found.says("durability", "FAIL", &["innodb_flush_method is nosync", "take it out"]);
    found.says("durability", "WARN", &["max_allowed_packet"]);
    found.says("room", "WARN", &["connections are free", "raise max_connections"]);
    assert_eq!(found.code, 9);
}

#[test]
fn replicas_that_nobody_waits_for_long_enough_are_found() {
    let server = MariadbServer::start(&["log-bin", "server-id=1"]);
    let replica = MariadbServer::start(&["server-id=2"]);
    replica.client(&format!(
        "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'owner', MASTER_PASSWORD = '{}', \
         MASTER_USE_GTID = slave_pos; START SLAVE",
        server.port(),
        server.password().replace('\'', "''")
    ));
    let group = own_group();
    let has_status = |name: &str, expected: &str| {
        let since = Instant::now();
        let status = format!("SHOW GLOBAL STATUS LIKE '{name}'");
        while server.client(&status) != format!("{name}\t{expected}") {
            assert!(since.elapsed() < PATIENCE, "{} is not {expected}", server.client(&status));
        }
    };
    has_status("Slaves_connected", "1");
    Found::with(server.settings(&group)).says("durability", "WARN", &["it has replicas and waits for none"]);
    server.client("SET GLOBAL rpl_semi_sync_master_enabled = ON");
    replica.client("SET GLOBAL rpl_semi_sync_slave_enabled = ON; STOP SLAVE; START SLAVE");
    has_status("Rpl_semi_sync_master_clients", "1");
    let found = Found::with(server.settings(&group));
    found.says("durability", "WARN", &["it waits for a replica for 10s and then goes on alone", "_timeout"]);
    server.client("SET GLOBAL rpl_semi_sync_master_timeout = 4294967295");
    let told = Found::with(server.settings(&group)).about("durability");
    assert!(!told.iter().any(|told| told.contains("replica ")), "{told:?}");
}

#[test]
fn a_cluster_that_can_not_be_relied_on_is_found() {
    let cluster = Galera::shared();
    let group = own_group();
    let settings = |strategy: &str| cluster.settings(&group).option("election.strategy", &format!("{strategy:?}"));
    let found = Found::with(settings("auto"));
    found.says("cluster", "FAIL", &["known to one of its nodes only", "set election.strategy to \"lease\""]);
    Found::with(settings("lease")).says("cluster", "OK", &["3 nodes"]);
    for (dangerous, harmless, says) in [
        (
            "wsrep_provider_options = 'pc.ignore_sb=true'",
            "wsrep_provider_options = 'pc.ignore_sb=false'",
            "pc.ignore_sb",
        ),
        ("wsrep_OSU_method = RSU", "wsrep_OSU_method = TOI", "wsrep_OSU_method is RSU"),
    ] {
        cluster.nodes[0].client(&format!("SET GLOBAL {dangerous}"));
        let found = Found::with(settings("lease"));
        cluster.nodes[0].client(&format!("SET GLOBAL {harmless}"));
        found.says("cluster", "FAIL", &[says]);
    }
}

/// As when somebody else's program has a lock of the same name, or another group by mistake.
#[test]
fn a_stranger_that_holds_the_lock_is_found() {
    let server = MariadbServer::shared();
    let group = fresh_group();
    let lock = server.connector("one").lock_name(LOCK_PURPOSE, &group);
    let mut stranger = server.client_command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut says = stranger.stdin.take().unwrap();
    writeln!(says, "SELECT CONNECTION_ID(), GET_LOCK('{lock}', 0);").unwrap();
    let mut answer = String::new();
    BufReader::new(stranger.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    let session = answer.strip_suffix("\t1\n").unwrap();
    let found = Found::with(server.settings(&group));
    let kill = format!("end it (KILL {session}), or choose another store.group");
    found.says("lock", "FAIL", &[&format!("held by session {session}, which is not the master's"), &kill]);
    drop(says);
    stranger.wait().unwrap();
    let mut broker = Broker::start_with(server.settings(&group));
    assert_eq!(Found::with(server.settings(&group)).about("lock"), [""; 0], "it is the master's");
    broker.sigterm();
}

/// Two installations that took the same group by mistake are one group: one serves, and the other waits, and is told of.
#[test]
fn two_groups_of_one_name_are_told_who_they_are() {
    let server = MariadbServer::shared();
    let group = own_group();
    let mut shop = Broker::start_with(server.settings(&group).option("broker_name", "\"shop\""));
    let mut billing = Broker::prepare(server.settings(&group).option("broker_name", "\"billing\""));
    billing.launch();
    billing.logged("standby: another broker holds");
    let found = Found::at(&billing);
    let address = shop.address().to_string();
    found.says("brokers", "OK", &["shop is the master", &address, "billing on", "has your store.group by mistake"]);
    billing.sigterm();
    shop.sigterm();
}

#[test]
fn tables_that_were_altered_by_hand_are_found() {
    let server = MariadbServer::shared();
    for (change, verdict, says) in [
        ("DROP INDEX message_expiring ON {}_message", "FAIL", "missing: index message.message_expiring"),
        ("ALTER TABLE {}_message MODIFY size BIGINT NOT NULL", "FAIL", "not ours: column message.size bigint"),
        ("ALTER TABLE {}_lease ENGINE = Aria", "FAIL", "not ours: table lease Aria"),
        ("DROP TABLE {}_returned", "FAIL", "missing: column returned.deliveries int not null"),
        ("ALTER TABLE {}_returned RENAME COLUMN sequence TO number", "FAIL", "missing: column returned.sequence"),
        ("ALTER TABLE {}_message ADD COLUMN note TEXT", "WARN", "added to them: column message.note text"),
    ] {
        let group = fresh_group();
        server.client(&change.replace("{}", group.as_str()));
        Found::with(server.settings(&group)).says("tables", verdict, &[says, "batonmq migrate --print"]);
    }
}

#[test]
fn rights_that_a_user_lacks_are_found() {
    let server = MariadbServer::shared();
    let group = fresh_group();
    server.client(&format!(
        "CREATE USER {group} IDENTIFIED BY 'own'; GRANT SELECT, INSERT, UPDATE, DELETE ON {0}.* TO {group}",
        server.database()
    ));
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "own").unwrap();
    let settings = |of: &Group| {
        server
            .settings(of)
            .option("store.url", &format!("{:?}", server.url_of(group.as_str(), server.database())))
            .option("store.password_file", &format!("{:?}", password.path()))
    };
    Found::with(settings(&group)).says("rights", "OK", &[]);
    let found = Found::with(settings(&own_group()));
    found.says("tables", "FAIL", &["it may make none", "run batonmq migrate as a user that may"]);
    server.client(&format!("REVOKE DELETE ON {}.* FROM {group}", server.database()));
    let found = Found::with(settings(&group));
    found.says("rights", "FAIL", &[&format!("this user lacks DELETE on {group}_baton"), "docs/databases.md"]);
}
