//! The tables of a group: how they come to be, and what is said when they can't.

use batonmq::db::{SchemaError, mysql::schema};
use mysql_async::prelude::Queryable as _;
use tokio::task::JoinSet;

use crate::harness::{MariadbServer, own_group};

#[tokio::test]
async fn the_tables_are_made_once() {
    let server = MariadbServer::shared();
    let (group, connector) = (own_group(), server.connector("one"));
    let mut session = connector.connect("migrate").await.unwrap();
    assert_eq!(schema::version(&mut session, &group).await.unwrap(), 0);
    assert_eq!(schema::migrate(&connector, &mut session, &group).await.unwrap(), [1]);
    assert_eq!(schema::version(&mut session, &group).await.unwrap(), schema::SUPPORTED);
    assert_eq!(schema::migrate(&connector, &mut session, &group).await.unwrap(), [0; 0]);
    assert_eq!(server.client(&format!("SELECT term, token, released FROM {group}_baton")), "0\t0\t1");
}

#[tokio::test]
async fn what_was_begun_and_cut_short_is_finished() {
    let server = MariadbServer::shared();
    let (group, connector) = (own_group(), server.connector("one"));
    let mut session = connector.connect("migrate").await.unwrap();
    schema::migrate(&connector, &mut session, &group).await.unwrap();
    server.client(&format!(
        "DELETE FROM {group}_schema_version; DROP TABLE {group}_held; UPDATE {group}_baton SET term = 7"
    ));
    assert_eq!(schema::version(&mut session, &group).await.unwrap(), 0, "it is noted last");
    assert_eq!(schema::migrate(&connector, &mut session, &group).await.unwrap(), [1]);
    assert_eq!(server.client(&format!("SELECT term FROM {group}_baton")), "7", "what was there is left alone");
    assert_eq!(server.client(&format!("SELECT COUNT(*) FROM {group}_held")), "0");
}

#[tokio::test]
async fn many_that_make_the_tables_at_once_make_them_once() {
    let server = MariadbServer::shared();
    let (group, connector) = (own_group(), server.connector("one"));
    let mut migrations = JoinSet::new();
    for _ in 0..4 {
        let (group, connector) = (group.clone(), connector.clone());
        migrations.spawn(async move {
            let mut session = connector.connect("migrate").await.unwrap();
            schema::migrate(&connector, &mut session, &group).await.unwrap().len()
        });
    }
    let made: usize = migrations.join_all().await.into_iter().sum();
    assert_eq!(made, 1);
}

#[tokio::test]
async fn the_printed_script_makes_the_same_tables() {
    let server = MariadbServer::shared();
    let (by_us, by_hand) = (own_group(), own_group());
    let connector = server.connector("one");
    let mut session = connector.connect("migrate").await.unwrap();
    schema::migrate(&connector, &mut session, &by_us).await.unwrap();
    server.client(&schema::script(&by_hand));
    assert_eq!(schema::version(&mut session, &by_hand).await.unwrap(), schema::SUPPORTED);
    let columns = |group: &batonmq::types::Group| {
        let all = format!(
            "SELECT table_name, column_name, column_type, is_nullable, column_key, collation_name \
             FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name LIKE '{group}\\_%' \
             ORDER BY 1, ordinal_position"
        );
        server.client(&all).replace(&format!("{group}_"), "")
    };
    assert_eq!(columns(&by_us), columns(&by_hand));
    assert!(columns(&by_us).contains("body\tlongblob"), "{}", columns(&by_us));
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_alone() {
    let server = MariadbServer::shared();
    let (group, connector) = (own_group(), server.connector("one"));
    let mut session = connector.connect("migrate").await.unwrap();
    schema::migrate(&connector, &mut session, &group).await.unwrap();
    server.client(&format!("INSERT INTO {group}_schema_version (version, applied) VALUES (99, NOW())"));
    let looked = schema::version(&mut session, &group).await.unwrap_err();
    let migrated = schema::migrate(&connector, &mut session, &group).await.unwrap_err();
    for error in [looked, migrated] {
        assert!(matches!(error, SchemaError::Newer { found: 99, supported: schema::SUPPORTED, .. }), "{error}");
        assert!(error.to_string().contains(group.as_str()) && error.fix().contains("newer version"), "{error}");
    }
}

#[tokio::test]
async fn a_role_that_may_not_make_tables_is_told_who_may() {
    let server = MariadbServer::shared();
    let (group, database) = (own_group(), server.database());
    server.client(&format!("CREATE USER {group} IDENTIFIED BY 'own'; GRANT SELECT ON {database}.* TO {group}"));
    let connector = server.connector_of(group.as_str(), "own");
    let mut session = connector.connect("migrate").await.unwrap();
    let error = schema::migrate(&connector, &mut session, &group).await.unwrap_err();
    assert!(matches!(error, SchemaError::Denied { .. }) && error.fix().contains("batonmq migrate"), "{error}");
    let lock = connector.lock_name("migrate", &group);
    let free: Option<i64> = session.exec_first("SELECT IS_FREE_LOCK(?)", (lock,)).await.unwrap();
    assert_eq!(free, Some(1), "the next one need not wait");
}
