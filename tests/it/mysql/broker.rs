//! The real broker on a real database.

use std::fs;

use mysql_async::prelude::Queryable as _;

use crate::harness::{Broker, DatabaseServer as _, MariadbServer, Raw, own_group};

#[test]
fn a_broker_that_may_not_use_the_database_says_why_and_what_to_do() {
    let group = own_group();
    let wrong = tempfile::NamedTempFile::new().unwrap();
    fs::write(wrong.path(), "wrong s3cret").unwrap();
    let server = MariadbServer::shared();
    let database = server.database();
    server.client(&format!("CREATE USER {group} IDENTIFIED BY 'own'; GRANT SELECT ON {database}.* TO {group}"));
    let own = tempfile::NamedTempFile::new().unwrap();
    fs::write(own.path(), "own").unwrap();
    let settings = || MariadbServer::shared().settings(&group);
    let file = |file: &tempfile::NamedTempFile| format!("{:?}", file.path());
    for (settings, code, says, fix) in [
        (settings().option("store.password_file", &file(&wrong)), 1, "Access denied", "password_file"),
        (
            settings()
                .option("store.url", &format!("{:?}", server.url_of(group.as_str(), database)))
                .option("store.password_file", &file(&own)),
            7,
            "command denied",
            "batonmq migrate",
        ),
        (
            settings().option("store.url", &format!("{:?}", server.url_of("owner", "nowhere"))),
            1,
            "Unknown database 'nowhere'",
            "create it",
        ),
        (settings().option("store.url", "\"mysql://me:s3cret@db/a?colour=blue\""), 3, "colour", "correct it"),
        (settings().option("store.url", "\"postgres://me:s3cret@db/a\""), 3, "postgres", "correct it"),
    ] {
        let said = Broker::prepare(settings).refuses_to_start(code);
        assert!(said.contains(says) && said.contains(fix), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}

/// docs/databases.md says which rights those are; nothing else is needed to be elected, and to take over.
#[tokio::test]
async fn r30_a_user_with_the_rights_of_the_document_is_enough() {
    let (server, group) = (MariadbServer::shared(), own_group());
    server.client(&format!("CREATE USER {group} IDENTIFIED BY 'own'"));
    let own = tempfile::NamedTempFile::new().unwrap();
    fs::write(own.path(), "own").unwrap();
    let settings = |name: &str| {
        let url = server.url_of(group.as_str(), server.database());
        let settings = server.settings(&group).option("broker_name", &format!("{name:?}"));
        settings.option("store.url", &format!("{url:?}")).option("store.password_file", &format!("{:?}", own.path()))
    };
    let mut migrate = Broker::prepare(server.settings(&group));
    migrate.restart();
    migrate.sigterm();
    let tables = format!("SELECT table_name FROM information_schema.tables WHERE table_name LIKE '{group}\\_%'");
    for table in server.client(&format!("{tables} AND table_type = 'BASE TABLE'")).lines() {
        server.client(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {}.{table} TO {group}", server.database()));
    }
    let mut first = Broker::start_with(settings("first"));
    let mut second = Broker::prepare(settings("second"));
    second.launch();
    second.logged("standby: another broker holds");
    Raw::connect(first.address()).publish("/queue/orders", "order");
    // As if the writer of the one that is killed had not ended: it holds the row, and has to be ended first (R19).
    let mut writer = server.connector_of(group.as_str(), "own").connect("writer").await.unwrap();
    let names_it = format!("UPDATE {group}_baton SET writer_session = CONNECTION_ID(), writer_mark = '{group} writer'");
    for statement in [
        format!("DO GET_LOCK('{group} writer', 0)"),
        names_it,
        "BEGIN".to_owned(),
        format!("SELECT 1 FROM {group}_baton FOR UPDATE"),
    ] {
        writer.query_drop(statement).await.unwrap();
    }
    second.announce("the row of the baton is held");
    first.kill_9();
    second.serving();
    writer.query_drop("SELECT 1").await.unwrap_err();
    let mut client = Raw::connect(second.address());
    client.subscribe("/queue/orders", "client", &[]);
    assert_eq!(client.expect("MESSAGE").text(), "order");
    drop(client);
    second.sigterm();
}
