//! The real broker on a real database.

use std::fs;

use batonmq::{db::postgres::schema, types::Group};
use tempfile::NamedTempFile;

use super::{docs, session};
use crate::harness::{Broker, DatabaseServer as _, PostgresServer, Raw, Settings, own_group};

#[test]
fn a_broker_that_may_not_use_the_database_says_why_and_what_to_do() {
    let group = own_group();
    let wrong = NamedTempFile::new().unwrap();
    fs::write(wrong.path(), "wrong s3cret").unwrap();
    let server = PostgresServer::shared();
    server.psql(&format!("CREATE ROLE {group} LOGIN PASSWORD 'own'"));
    let own = NamedTempFile::new().unwrap();
    fs::write(own.path(), "own").unwrap();
    let settings = || PostgresServer::shared().settings(&group);
    let file = |file: &NamedTempFile| format!("{:?}", file.path());
    for (settings, code, says, fix) in [
        (settings().option("store.password_file", &file(&wrong)), 1, "password authentication failed", "password_file"),
        (
            settings()
                .option("store.url", &format!("{:?}", server.url_of(group.as_str(), "postgres")))
                .option("store.password_file", &file(&own)),
            7,
            "permission denied",
            "batonmq migrate",
        ),
        (
            settings().option("store.url", &format!("{:?}", server.url_of("owner", "nowhere"))),
            1,
            "\"nowhere\" does not exist",
            "create it",
        ),
        (settings().option("store.url", "\"postgres://me:s3cret@db/a?colour=blue\""), 3, "colour", "correct it"),
    ] {
        let said = Broker::prepare(settings).refuses_to_start(code);
        assert!(said.contains(says) && said.contains(fix), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}

/// A role with the rights that docs/databases.md says, the file with its password, and the settings of its brokers.
fn with_role_of_the_document(
    server: &'static PostgresServer,
    group: &Group,
) -> (NamedTempFile, impl Fn(&str) -> Settings) {
    server.psql(&format!("CREATE ROLE {group} LOGIN PASSWORD 'own'"));
    let statements = docs::statements(&docs::document(), group.as_str());
    let grants: Vec<_> = statements.iter().filter(|statement| statement.starts_with("GRANT ")).collect();
    assert_eq!(grants.len(), 2, "{grants:?}");
    grants.iter().for_each(|grant| drop(server.psql(&grant.replace(" broker;", &format!(" {group};")))));
    let own = NamedTempFile::new().unwrap();
    fs::write(own.path(), "own").unwrap();
    let (group, password) = (group.clone(), format!("{:?}", own.path()));
    let settings = move |name: &str| {
        let url = server.url_of(group.as_str(), "postgres");
        let settings = server.settings(&group).option("broker_name", &format!("{name:?}"));
        settings.option("store.url", &format!("{url:?}")).option("store.password_file", &password)
    };
    (own, settings)
}

/// docs/databases.md says which rights those are; nothing else is needed to be elected, and to take over.
#[tokio::test]
async fn r30_a_role_with_the_rights_of_the_document_is_enough() {
    let (server, group) = (PostgresServer::shared(), own_group());
    schema::migrate(&session(&server.connector("one"), "migrate").await, &group).await.unwrap();
    let (own, settings) = with_role_of_the_document(server, &group);
    let mut first = Broker::start_with(settings("first"));
    let mut second = Broker::prepare(settings("second"));
    second.launch();
    second.logged("standby: another broker holds");
    Raw::connect(first.address()).publish("/queue/orders", "order");
    // As if the writer of the one that is killed had not ended: it holds the row, and has to be ended first (R19).
    let writer = session(&server.connector_of(group.as_str(), "own"), "writer").await;
    let names_it = format!(
        "UPDATE {group}.baton SET writer_pid = pg_backend_pid(), writer_started = \
         (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())"
    );
    writer.batch_execute(&names_it).await.unwrap();
    writer.batch_execute(&format!("BEGIN; SELECT 1 FROM {group}.baton FOR UPDATE")).await.unwrap();
    second.announce("the row of the baton is held");
    first.kill_9();
    second.serving();
    writer.batch_execute("SELECT 1").await.unwrap_err();
    let mut client = Raw::connect(second.address());
    client.subscribe("/queue/orders", "client", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "order");
    drop((client, own));
    second.sigterm();
}

/// An owner's broker had turned it off.
#[tokio::test]
async fn a_role_that_may_not_vacuum_says_so_if_autovacuum_is_off() {
    let (server, group) = (PostgresServer::shared(), own_group());
    schema::migrate(&session(&server.connector("one"), "migrate").await, &group).await.unwrap();
    for table in ["message", "held", "returned"] {
        server.psql(&format!("ALTER TABLE {group}.{table} SET (autovacuum_enabled = off)"));
    }
    let (own, settings) = with_role_of_the_document(server, &group);
    let mut broker = Broker::start_with(settings("one"));
    broker.announce("nobody vacuums the tables of group");
    let told = broker.logged("nobody vacuums the tables of group");
    assert!(told.contains("SET (autovacuum_enabled = on)"), "{told}");
    broker.sigterm();
    drop(own);
}
