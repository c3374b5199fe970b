//! A pooler between a broker and its database: Debian's PgBouncer.

use super::Found;
use crate::harness::{Broker, DatabaseServer as _, PgBouncer, PostgresServer, Raw, own_group};

/// In these modes a session of the database is lent to others, as soon as a transaction or a statement has ended.
const LENDING: [&str; 2] = ["transaction", "statement"];

#[test]
fn a_pooler_that_lends_sessions_is_found_by_what_it_does() {
    let server = PostgresServer::shared();
    for mode in LENDING {
        let pooler = PgBouncer::before(server, mode);
        let found = Found::with(pooler.settings(server, server.settings(&own_group())));
        assert_eq!(found.code, 9);
        found.says(
            "connection",
            "FAIL",
            &["a pooler in transaction mode", "the database's own address", "session mode"],
        );
    }
}

#[test]
fn a_broker_behind_a_pooler_that_lends_sessions_refuses_and_says_what_to_do() {
    let server = PostgresServer::shared();
    let pooler = PgBouncer::before(server, "transaction");
    for strategy in ["\"session-lock\"", "\"lease\""] {
        let settings = pooler.settings(server, server.settings(&own_group()));
        let said = Broker::prepare(settings.option("election.strategy", strategy)).refuses_to_start(3);
        for words in ["a pooler in transaction mode", "the database's own address", "let the pooler use session mode"] {
            assert!(said.contains(words), "{said}");
        }
    }
}

/// What it is told to do works.
#[test]
fn a_pooler_in_session_mode_serves() {
    let server = PostgresServer::shared();
    let pooler = PgBouncer::before(server, "session");
    for strategy in ["\"session-lock\"", "\"lease\""] {
        let settings = pooler.settings(server, server.settings(&own_group()));
        let mut broker = Broker::start_with(settings.option("election.strategy", strategy));
        Raw::connect(broker.address()).publish("/queue/kept", "by way of a pooler");
        Found::at(&broker).says("connection", "OK", &["sessions are the broker's own"]);
        broker.kill_9();
        broker.restart();
        let mut client = Raw::connect(broker.address());
        client.subscribe("/queue/kept", "client", &[]);
        assert_eq!(client.expect("MESSAGE").text(), "by way of a pooler");
        drop(client);
        broker.sigterm();
    }
}
