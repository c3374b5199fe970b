//! A store in MariaDB.

use std::path::Path;

use batonmq::{db::mysql::schema, types::Group};

use super::Found;
use crate::harness::{DatabaseServer as _, MariadbServer, own_group};

/// A group with fresh tables in the server that tests share.
fn fresh_group() -> Group {
    let group = own_group();
    MariadbServer::shared().client(&schema::script(&group));
    group
}

#[test]
fn a_store_that_is_well_is_well() {
    let server = MariadbServer::shared();
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
    let server = MariadbServer::start(&["innodb-flush-log-at-trx-commit=2", "max-allowed-packet=16M"]);
    let found = Found::with(server.settings(&own_group()));
    found.says("durability", "WARN", &["innodb_flush_log_at_trx_commit is 2", "set it to 1"]);
    found.says("durability", "WARN", &["max_allowed_packet"]);
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
