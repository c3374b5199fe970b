//! What the election asks of a session, whom it ends, and what it takes for confirmed.

use std::time::Duration;

use batonmq::{
    db::postgres::Session,
    election::{
        HolderId, Lease, LockError, SessionLock,
        database::{LockDatabase, LockSession as _, Purpose},
        postgres::PostgresElection,
    },
    types::{Group, Tenure, Term},
};
use tokio::time::timeout;

use super::session;
use crate::harness::{DatabaseServer as _, PATIENCE, PostgresServer, own_group};

type Election = SessionLock<PostgresElection>;

/// Writes the session that asks for it into the row of the baton, as a master's writer does.
const THIS_WRITES: &str = "writer_pid = pg_backend_pid(), writer_started = \
                           (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())";

fn election(group: &Group) -> Election {
    let connector = PostgresServer::shared().connector("one");
    SessionLock(PostgresElection::new(connector, group.clone(), Lease::new(Duration::from_secs(60))))
}

/// The same, after a first take-over by a broker that is gone.
async fn election_of_old(group: &Group) -> Election {
    let election = election(group);
    let taken = winner(&election).await.take_over(&HolderId::new("first"), Tenure::default()).await;
    assert!(taken.unwrap().is_some());
    election
}

/// A session that has the lock, and finds the tables.
async fn winner(election: &Election) -> <Election as LockDatabase>::Session {
    let mut session = election.connect(Purpose::Lock).await.unwrap();
    while !session.lock(Duration::from_secs(1)).await.unwrap() {}
    session.migrate().await.unwrap();
    session
}

/// A session that changes the row of the baton so, and then holds it in a transaction that does not end.
async fn holder_of_the_row(group: &Group, change: &str) -> Session {
    let session = session(&PostgresServer::shared().connector("one"), "writer").await;
    for statements in [
        format!("UPDATE {group}.baton SET {change}"),
        format!(
            "SET idle_in_transaction_session_timeout = 0; BEGIN; SELECT 1 FROM {group}.baton WHERE id = 1 FOR UPDATE"
        ),
    ] {
        session.batch_execute(&statements).await.unwrap();
    }
    session
}

#[tokio::test]
async fn r18_a_process_ends_its_own_old_session_and_takes_the_lock() {
    let (server, group) = (PostgresServer::shared(), own_group());
    let (election, me) = (election(&group), HolderId::new("me"));
    let mut old = winner(&election).await;
    let tenure = old.take_over(&me, Tenure::default()).await.unwrap().unwrap();
    let mut new = election.connect(Purpose::Lock).await.unwrap();
    let other = HolderId::new("other");
    assert!(!new.reclaim(&other, tenure).await.unwrap(), "it is not the other's");
    assert!(!old.is_closed());
    while !new.reclaim(&me, tenure).await.unwrap() {}
    timeout(PATIENCE, old.closed()).await.unwrap();
    let row = new.beat(tenure).await.unwrap().unwrap();
    assert_eq!((row.holder, row.tenure), (Some(me), tenure), "nothing was raised");
    let session_of_lock = "SELECT application_name FROM pg_stat_activity, {group}baton WHERE pid = lock_pid";
    assert_eq!(server.ask(&group, session_of_lock), "batonmq one lock");
}

#[tokio::test]
async fn r19_a_take_over_ends_the_writer_that_the_row_names() {
    let group = own_group();
    let election = election_of_old(&group).await;
    let writer = holder_of_the_row(&group, THIS_WRITES).await;
    let tenure = winner(&election).await.take_over(&HolderId::new("second"), Tenure::default()).await.unwrap();
    assert_eq!(tenure.map(|tenure| tenure.term), Some(Term(2)));
    writer.batch_execute("SELECT 1").await.unwrap_err();
}

/// A process id alone may be somebody else's by now, and a session that both fit may be lent to others by a pooler.
#[tokio::test]
async fn r19_a_take_over_ends_nobody_whom_the_row_does_not_name() {
    for change in [
        "writer_pid = NULL",
        "writer_pid = pg_backend_pid(), writer_started = '2020-01-01'",
        "lock_pid = pg_backend_pid(), lock_started = '2020-01-01'",
        &format!("{THIS_WRITES}; SET application_name = 'somebody else'"),
    ] {
        let group = own_group();
        let election = election_of_old(&group).await;
        let stranger = holder_of_the_row(&group, change).await;
        let stuck = winner(&election).await.take_over(&HolderId::new("second"), Tenure::default()).await.unwrap_err();
        assert!(matches!(stuck, LockError::Stuck) && stuck.fix().contains("pg_blocking_pids"), "{change}: {stuck}");
        stranger.batch_execute("SELECT 1").await.unwrap();
    }
}

/// As when the wait for a synchronous standby is cancelled: it is committed here, and a failure may undo it.
#[tokio::test]
async fn r16_a_take_over_that_the_database_warns_of_is_not_confirmed() {
    let (server, group, me) = (PostgresServer::shared(), own_group(), HolderId::new("second"));
    let election = election_of_old(&group).await;
    server.psql(&format!(
        "CREATE FUNCTION {group}.warn() RETURNS trigger LANGUAGE plpgsql \
             AS $$ BEGIN RAISE WARNING 'not replicated'; RETURN NEW; END $$; \
         CREATE TRIGGER warns BEFORE INSERT ON {group}.tenure FOR EACH ROW EXECUTE FUNCTION {group}.warn()"
    ));
    let doubted = winner(&election).await.take_over(&me, Tenure::default()).await.unwrap_err();
    let LockError::Database { action: "commit", source } = doubted else { panic!("{doubted}") };
    assert_eq!(source.to_string(), "not replicated");
    server.psql(&format!("DROP TRIGGER warns ON {group}.tenure"));
    let tenure = winner(&election).await.take_over(&me, Tenure::default()).await.unwrap().unwrap();
    assert_eq!(tenure.term, Term(3), "above the one in doubt");
}
