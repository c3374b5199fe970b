//! The real broker on a real database.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use batonmq::db::{lock_key, postgres::schema};

use super::{docs, session};
use crate::harness::{Broker, DatabaseServer as _, PostgresServer, Raw, own_group};

#[test]
fn what_was_confirmed_survives_kill_9_and_nothing_acknowledged_comes_back() {
    let group = own_group();
    let mut broker = Broker::start_with(PostgresServer::shared().settings(&group));
    let mut client = Raw::connect(broker.address());
    for number in 0..20 {
        client.publish("/queue/orders", &format!("order {number}"));
    }
    let take = |client: &mut Raw, numbers: std::ops::Range<u32>| {
        client.subscribe("/queue/orders", "client-individual", &[("prefetch-count", "1")]);
        for number in numbers {
            let next = client.expect("MESSAGE");
            assert_eq!(next.body, format!("order {number}").as_bytes());
            client.ack(&next);
        }
    };
    take(&mut client, 0..5);
    broker.kill_9();
    broker.restart();
    let mut client = Raw::connect(broker.address());
    take(&mut client, 5..20);
    let depth = format!("SELECT name, messages FROM {group}.queue_depth");
    assert_eq!(PostgresServer::shared().psql(&depth), "orders|0");
    client.disconnect();
}

#[test]
fn the_tables_are_made_by_migrate_or_printed() {
    let (server, group) = (PostgresServer::shared(), own_group());
    let mut broker = Broker::prepare(PostgresServer::shared().settings(&group));
    let config = broker.write_config().to_owned();
    let migrate = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_batonmq"));
        let output = command.arg("migrate").arg("--config").arg(&config).args(flags).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = migrate(&["--print"]);
    assert!(printed.contains(&format!("CREATE TABLE \"{group}\".message (")), "{printed}");
    let exists = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{group}'");
    assert_eq!(server.psql(&exists), "0", "printing changes nothing");
    assert_eq!(migrate(&[]), format!("the tables of group {group} were brought to version 1\n"));
    assert_eq!(migrate(&[]), format!("the tables of group {group} have version 1; nothing to do\n"));
    server.psql(&format!("INSERT INTO {group}.schema_version (version) VALUES (2)"));
    let said = broker.refuses_to_start(6);
    assert!(said.contains("have version 2") && said.contains("start the newer version"), "{said}");
}

#[test]
fn a_broker_that_waits_makes_no_tables() {
    let (server, group) = (PostgresServer::shared(), own_group());
    let mut somebody = server.psql_command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut says = somebody.stdin.take().unwrap();
    writeln!(says, "SELECT 'has it' FROM pg_advisory_lock({});", lock_key("baton", &group)).unwrap();
    let mut answer = String::new();
    BufReader::new(somebody.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    assert_eq!(answer, "has it\n");
    let mut waiting = Broker::prepare(server.settings(&group));
    waiting.launch();
    waiting.logged("standby: another broker holds");
    assert_eq!(server.psql(&format!("SELECT nspname FROM pg_namespace WHERE nspname = '{group}'")), "");
    drop(says);
    somebody.wait().unwrap();
    waiting.serving();
    assert_eq!(server.psql(&format!("SELECT holder FROM {group}.baton")), "batonmq");
}

#[test]
fn a_broker_that_may_not_use_the_database_says_why_and_what_to_do() {
    let group = own_group();
    let wrong = tempfile::NamedTempFile::new().unwrap();
    fs::write(wrong.path(), "wrong s3cret").unwrap();
    let server = PostgresServer::shared();
    server.psql(&format!("CREATE ROLE {group} LOGIN PASSWORD 'own'"));
    let own = tempfile::NamedTempFile::new().unwrap();
    fs::write(own.path(), "own").unwrap();
    let settings = || PostgresServer::shared().settings(&group);
    let file = |file: &tempfile::NamedTempFile| format!("{:?}", file.path());
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

/// docs/databases.md says which rights those are; nothing else is needed to be elected, and to take over.
#[tokio::test]
async fn r30_a_role_with_the_rights_of_the_document_is_enough() {
    let (server, group) = (PostgresServer::shared(), own_group());
    schema::migrate(&session(&server.connector("one"), "migrate").await, &group).await.unwrap();
    server.psql(&format!("CREATE ROLE {group} LOGIN PASSWORD 'own'"));
    let statements = docs::statements(&docs::document(), group.as_str());
    let grants: Vec<_> = statements.iter().filter(|statement| statement.starts_with("GRANT ")).collect();
    assert_eq!(grants.len(), 2, "{grants:?}");
    grants.iter().for_each(|grant| drop(server.psql(&grant.replace(" broker;", &format!(" {group};")))));
    let own = tempfile::NamedTempFile::new().unwrap();
    fs::write(own.path(), "own").unwrap();
    let settings = |name: &str| {
        let url = server.url_of(group.as_str(), "postgres");
        let settings = server.settings(&group).option("broker_name", &format!("{name:?}"));
        settings.option("store.url", &format!("{url:?}")).option("store.password_file", &format!("{:?}", own.path()))
    };
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
    drop(client);
    second.sigterm();
}
