//! The tables of a group: how they come to be, and what is said when they can't.

use batonmq::db::{SchemaError, postgres::schema};
use tokio::task::JoinSet;

use super::session;
use crate::harness::{PostgresServer, own_group};

#[tokio::test]
async fn the_tables_are_made_once() {
    let server = PostgresServer::shared();
    let (group, connector) = (own_group(), server.connector("one"));
    let session = session(&connector, "migrate").await;
    assert_eq!(schema::version(&session, &group).await.unwrap(), 0);
    assert_eq!(schema::migrate(&session, &group).await.unwrap(), [1]);
    assert_eq!(schema::version(&session, &group).await.unwrap(), schema::SUPPORTED);
    assert_eq!(schema::migrate(&session, &group).await.unwrap(), [0; 0]);
    assert_eq!(server.psql(&format!("SELECT term, token, released FROM {group}.baton")), "0|0|t");
    assert_eq!(session.take_warning(), None);
}

#[tokio::test]
async fn many_that_make_the_tables_at_once_make_them_once() {
    let server = PostgresServer::shared();
    let (group, connector) = (own_group(), server.connector("one"));
    let mut migrations = JoinSet::new();
    for _ in 0..4 {
        let (group, connector) = (group.clone(), connector.clone());
        migrations.spawn(async move {
            let session = session(&connector, "migrate").await;
            schema::migrate(&session, &group).await.unwrap().len()
        });
    }
    let made: usize = migrations.join_all().await.into_iter().sum();
    assert_eq!(made, 1);
}

#[tokio::test]
async fn the_printed_script_makes_the_same_tables() {
    let server = PostgresServer::shared();
    let (by_us, by_hand) = (own_group(), own_group());
    let session = session(&server.connector("one"), "migrate").await;
    schema::migrate(&session, &by_us).await.unwrap();
    server.psql(&schema::script(&by_hand));
    assert_eq!(schema::version(&session, &by_hand).await.unwrap(), schema::SUPPORTED);
    let columns = |group| {
        server.psql(&format!(
            "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns \
             WHERE table_schema = '{group}' ORDER BY 1, ordinal_position"
        ))
    };
    let indexes = |group| {
        let all = format!("SELECT indexdef FROM pg_indexes WHERE schemaname = '{group}' ORDER BY indexname");
        server.psql(&all).replace(&format!("{group}."), "")
    };
    assert_eq!(columns(&by_us), columns(&by_hand));
    assert_eq!(indexes(&by_us), indexes(&by_hand));
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_alone() {
    let server = PostgresServer::shared();
    let group = own_group();
    let session = session(&server.connector("one"), "migrate").await;
    schema::migrate(&session, &group).await.unwrap();
    server.psql(&format!("INSERT INTO {group}.schema_version (version) VALUES (99)"));
    for error in
        [schema::version(&session, &group).await.unwrap_err(), { schema::migrate(&session, &group).await.unwrap_err() }]
    {
        assert!(matches!(error, SchemaError::Newer { found: 99, supported: schema::SUPPORTED, .. }), "{error}");
        assert!(error.to_string().contains(group.as_str()) && error.fix().contains("newer version"), "{error}");
    }
}

#[tokio::test]
async fn a_role_that_may_not_make_tables_is_told_who_may() {
    let server = PostgresServer::shared();
    let group = own_group();
    let session = session(&server.connector("one"), "migrate").await;
    session.batch_execute(&format!("CREATE ROLE {group}; SET ROLE {group}")).await.unwrap();
    let error = schema::migrate(&session, &group).await.unwrap_err();
    assert!(matches!(error, SchemaError::Denied { .. }) && error.fix().contains("batonmq migrate"), "{error}");
    session.batch_execute("RESET ROLE").await.unwrap();
    assert_eq!(schema::migrate(&session, &group).await.unwrap(), [1], "the session is fit for use");
}
