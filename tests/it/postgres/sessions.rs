//! What every session relies on.

use batonmq::db::{
    ConnectError,
    postgres::{Postgres, PostgresOptions},
};

use super::session;
use crate::harness::PostgresServer;

#[tokio::test]
async fn a_session_shows_who_it_is_and_brings_its_own_settings() {
    let server = PostgresServer::shared();
    let session = session(&server.connector("one"), "writer").await;
    for (setting, value) in [
        ("application_name", "batonmq one writer"),
        ("synchronous_commit", "on"),
        ("transaction_isolation", "read committed"),
        ("tcp_user_timeout", "8000"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("jit", "off"),
    ] {
        let shown = session.query_one_scalar::<String, _>(&format!("SHOW {setting}"), &[]).await.unwrap();
        assert_eq!(shown, value, "{setting}");
    }
}

#[tokio::test]
async fn r16_a_warning_is_seen_before_the_answer_behind_it() {
    let server = PostgresServer::shared();
    let session = session(&server.connector("one"), "writer").await;
    assert_eq!(session.take_warning(), None);
    for _ in 0..50 {
        session.batch_execute("DO $$ BEGIN RAISE WARNING 'not so sure'; END $$").await.unwrap();
        assert_eq!(session.take_warning().as_deref(), Some("not so sure"));
        session.batch_execute("DO $$ BEGIN RAISE NOTICE 'by the way'; END $$").await.unwrap();
        assert_eq!(session.take_warning(), None, "less than a warning");
    }
}

#[tokio::test]
async fn a_database_that_does_not_want_us_says_why_and_what_to_do() {
    let server = PostgresServer::shared();
    let good = Some(server.password());
    let elsewhere = "postgres://owner@127.0.0.1:1/postgres";
    for (url, password, says, fix) in [
        (server.url(), Some("wrong s3cret"), "password authentication failed", "store.password_file"),
        (server.url(), None, "password", "store.password_file"),
        (server.url_of("nobody", "postgres"), good, "password authentication failed", "store.password_file"),
        (server.url_of("owner", "nowhere"), good, "\"nowhere\" does not exist", "store.url"),
        (elsewhere.to_owned(), good, "127.0.0.1:1/postgres", "store.url"),
    ] {
        let options = PostgresOptions { url: &url, password, tls_ca_file: None, broker_name: "one" };
        let error = Postgres::new(&options).unwrap().connect("writer").await.err().unwrap();
        assert!(error.fix().contains(fix), "{error}; {}", error.fix());
        assert_eq!(error.needs_a_human(), url != elsewhere, "{error}: who is not there yet may come");
        let told = format!("{:#}", anyhow::Error::new(error));
        assert!(told.contains(says) && !told.contains("s3cret"), "{told}");
    }
}

/// It accepts connections, and says nothing.
#[tokio::test]
async fn a_host_that_hangs_costs_its_own_patience_once() {
    let server = PostgresServer::shared();
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = server.url().replace("@127.0.0.1", &format!("@{},127.0.0.1", hung.local_addr().unwrap()));
    let password = Some(server.password());
    let options = PostgresOptions { url: &url, password, tls_ca_file: None, broker_name: "one" };
    let postgres = Postgres::new(&options).unwrap();
    session(&postgres, "writer").await;
    hung.set_nonblocking(true).unwrap();
    assert!(hung.accept().is_ok(), "it was asked");
    session(&postgres, "another").await;
    assert!(hung.accept().is_err(), "and is not asked again while the other one answers");
    let (config, tls) = postgres.pooled("reader");
    assert!(config.connect(tls).await.is_ok(), "reads go where the last session is");
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    let server = PostgresServer::shared();
    server.psql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let url = server.url_of("owner", "latin");
    let password = Some(server.password());
    let options = PostgresOptions { url: &url, password, tls_ca_file: None, broker_name: "one" };
    let error = Postgres::new(&options).unwrap().connect("writer").await.err().unwrap();
    assert!(error.to_string().contains("its encoding is LATIN1, and UTF8 is needed"), "{error}");
    assert!(error.fix().contains("ENCODING 'UTF8'"), "{}", error.fix());
}

#[tokio::test]
async fn a_connection_is_encrypted_if_it_is_known_whose_certificates_are_good() {
    let (server, certificate) = PostgresServer::start_encrypted();
    let (_other, somebody_elses) = PostgresServer::start_encrypted();
    let (url, password) = (server.url(), Some(server.password()));
    let to = |tls_ca_file| Postgres::new(&PostgresOptions { url: &url, password, tls_ca_file, broker_name: "one" });
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    for (ca_file, expected) in [(Some(&*certificate), true), (None, false)] {
        let session = session(&to(ca_file).unwrap(), "writer").await;
        assert_eq!(session.query_one_scalar::<bool, _>(encrypted, &[]).await.unwrap(), expected);
    }
    let error = to(Some(&somebody_elses)).unwrap().connect("writer").await.err().unwrap();
    assert!(error.fix().contains("store.tls_ca_file"), "{error}; {}", error.fix());
    let plain = PostgresServer::shared();
    let options = PostgresOptions {
        url: &plain.url(),
        password: Some(plain.password()),
        tls_ca_file: Some(&certificate),
        broker_name: "one",
    };
    let error = Postgres::new(&options).unwrap().connect("writer").await.err().unwrap();
    assert!(error.fix().contains("store.tls_ca_file"), "{error}; {}", error.fix());
    assert!(matches!(to(Some("/nowhere".as_ref())).unwrap_err(), ConnectError::Certificates { .. }));
}
