//! What every session relies on.

use batonmq::db::{
    ConnectError,
    mysql::{Mysql, MysqlOptions},
};
use mysql_async::prelude::Queryable as _;

use crate::harness::{Galera, MariadbServer};

#[tokio::test]
async fn a_session_brings_its_own_settings() {
    let server = MariadbServer::shared();
    let mut session = server.connector("one").connect("writer").await.unwrap();
    for (setting, value) in [
        ("tx_isolation", "READ-COMMITTED"),
        ("autocommit", "ON"),
        ("collation_connection", "utf8mb4_bin"),
        ("idle_transaction_timeout", "10"),
        ("time_zone", "+00:00"),
    ] {
        let shown: Option<String> = session.query_first(format!("SELECT CONCAT(@@{setting})")).await.unwrap();
        assert_eq!(shown.as_deref(), Some(value), "{setting}");
    }
    let mode: Option<String> = session.query_first("SELECT @@sql_mode").await.unwrap();
    assert!(mode.as_ref().is_some_and(|mode| mode.contains("STRICT_ALL_TABLES")), "{mode:?}");
    assert_eq!(session.server().packet_bytes_max(), 256 << 20);
}

#[tokio::test]
async fn an_encrypted_session_is_one_with_whom_the_certificate_names() {
    let (server, certificate) = MariadbServer::start_encrypted();
    let connector = |url: &str, tls_ca_file| {
        let options = MysqlOptions { url, password: Some(server.password()), tls_ca_file, broker_name: "one" };
        Mysql::new(&options).unwrap()
    };
    let mut session = connector(&server.url(), Some(&*certificate)).connect("writer").await.unwrap();
    let (_, cipher): (String, String) = session.query_first("SHOW STATUS LIKE 'Ssl_cipher'").await.unwrap().unwrap();
    assert_ne!(cipher, "");
    let elsewhere = tempfile::tempdir().unwrap();
    let other = elsewhere.path().join("ca.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&other, parameters.self_signed(&key).unwrap().pem()).unwrap();
    let error = connector(&server.url(), Some(&*other)).connect("writer").await.unwrap_err();
    assert!(error.fix().contains("store.tls_ca_file"), "{error}: {}", error.fix());
    let error = Mysql::new(&MysqlOptions {
        url: &server.url(),
        password: None,
        tls_ca_file: Some(&elsewhere.path().join("none.pem")),
        broker_name: "one",
    })
    .unwrap_err();
    assert!(matches!(error, ConnectError::Certificates { .. }), "{error}");
}

#[tokio::test]
async fn a_replica_is_refused() {
    let server = MariadbServer::start(&["read-only=1"]);
    let error = server.connector("one").connect("writer").await.unwrap_err();
    assert!(matches!(error, ConnectError::Unfit { .. }) && error.to_string().contains("read-only"), "{error}");
    assert!(error.fix().contains("the primary"), "{}", error.fix());
}

/// Without it a node answers with what it has, which is what others had a moment ago.
#[tokio::test]
async fn r15_a_session_reads_what_was_committed_on_another_node_of_its_cluster() {
    let cluster = Galera::shared();
    let [mut writes, mut reads] = [
        cluster.nodes[0].connector("one").connect("writer").await.unwrap(),
        cluster.nodes[1].connector("one").connect("reader").await.unwrap(),
    ];
    writes.query_drop("CREATE TABLE read_elsewhere (id INT PRIMARY KEY, body LONGTEXT)").await.unwrap();
    for number in 0..100 {
        let insert = "INSERT INTO read_elsewhere VALUES (?, REPEAT('x', 100000))";
        writes.exec_drop(insert, (number,)).await.unwrap();
        let read: Option<i32> = reads.query_first("SELECT MAX(id) FROM read_elsewhere").await.unwrap();
        assert_eq!(read, Some(number));
    }
}
