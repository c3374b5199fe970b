//! What the election asks of a session, and whom it ends.

use std::time::Duration;

use batonmq::{
    db::mysql::QueuedSession,
    election::{
        HolderId, Lease, LockError, SessionLock,
        database::{LockDatabase as _, LockSession as _, Purpose},
        mysql::MysqlElection,
    },
    tasks::Tasks,
    types::{Group, Tenure},
};
use mysql_async::prelude::Queryable as _;
use tokio::time::timeout;

use crate::harness::{DatabaseServer as _, MariadbServer, PATIENCE, own_group};

fn election(group: &Group) -> SessionLock<MysqlElection> {
    let connector = MariadbServer::shared().connector("one");
    SessionLock(MysqlElection::new(connector, group.clone(), Lease::new(Duration::from_secs(60))))
}

/// A session that is asked by way of a queue, and what drives it.
async fn queued(listens: Option<Duration>) -> (QueuedSession, Tasks) {
    let session = MariadbServer::shared().connector("one").connect("lock").await.unwrap();
    let ((session, driver), tasks) = (session.queued(listens), Tasks::new());
    tasks.spawn("driver", driver.run());
    (session, tasks)
}

async fn number_of(session: &QueuedSession) -> u64 {
    let answer = session.ask("SELECT CONNECTION_ID()", ()).await.unwrap();
    answer.rows[0].get(0).unwrap()
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_any_more_leaves_the_session_fit() {
    let (session, _tasks) = queued(None).await;
    let given_up = timeout(Duration::from_millis(1), session.ask("SELECT SLEEP(0.2)", ())).await;
    given_up.unwrap_err();
    let answer = session.ask("SELECT ? + 1", (6,)).await.unwrap();
    assert_eq!(answer.rows[0].get::<i64, _>(0), Some(7), "its own answer, and not that of the first question");
    assert!(!session.is_closed());
}

#[tokio::test]
async fn an_idle_session_that_is_ended_is_noticed() {
    let (session, _tasks) = queued(Some(Duration::from_millis(10))).await;
    MariadbServer::shared().client(&format!("KILL {}", number_of(&session).await));
    timeout(PATIENCE, session.closed()).await.unwrap();
    session.ask("SELECT 1", ()).await.unwrap_err();
}

/// The number of a session that ended may be somebody else's by now.
#[tokio::test]
async fn r19_a_take_over_ends_nobody_whose_mark_does_not_fit() {
    let (server, group) = (MariadbServer::shared(), own_group());
    let election = election(&group);
    let mut waiting = election.connect(Purpose::Lock).await.unwrap();
    assert!(waiting.lock(Duration::ZERO).await.unwrap());
    waiting.migrate().await.unwrap();
    assert!(waiting.take_over(&HolderId::new("first"), Tenure::default()).await.unwrap().is_some());
    drop(waiting);
    let mut stranger = server.connector("nobody").connect("stranger").await.unwrap();
    let names_it =
        format!("UPDATE {group}_baton SET writer_session = CONNECTION_ID(), writer_mark = 'batonmq writer of old'");
    stranger.query_drop(names_it).await.unwrap();
    stranger.query_drop("SET SESSION idle_transaction_timeout = 0; BEGIN").await.unwrap();
    stranger.query_drop(format!("SELECT 1 FROM {group}_baton FOR UPDATE")).await.unwrap();
    let mut waiting = election.connect(Purpose::Lock).await.unwrap();
    while !waiting.lock(Duration::from_secs(1)).await.unwrap() {}
    let stuck = waiting.take_over(&HolderId::new("second"), Tenure::default()).await.unwrap_err();
    assert!(matches!(stuck, LockError::Stuck) && stuck.fix().contains("innodb_trx"), "{stuck}");
    stranger.query_drop("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn r18_a_process_ends_its_own_old_session_and_takes_the_lock() {
    let (server, group) = (MariadbServer::shared(), own_group());
    let (election, me) = (election(&group), HolderId::new("me"));
    let mut old = election.connect(Purpose::Lock).await.unwrap();
    assert!(old.lock(Duration::ZERO).await.unwrap());
    old.migrate().await.unwrap();
    let tenure = old.take_over(&me, Tenure::default()).await.unwrap().unwrap();
    let mut new = election.connect(Purpose::Lock).await.unwrap();
    let other = HolderId::new("other");
    assert!(!new.reclaim(&other, tenure).await.unwrap(), "it is not the other's");
    assert!(!old.is_closed());
    while !new.reclaim(&me, tenure).await.unwrap() {}
    timeout(PATIENCE, old.closed()).await.unwrap();
    let row = new.beat(tenure).await.unwrap().unwrap();
    assert_eq!((row.holder, row.tenure), (Some(me), tenure), "nothing was raised");
    assert_ne!(server.ask(&group, "SELECT lock_session FROM {group}baton"), "NULL");
}
