//! What becomes of the room of consumed messages in PostgreSQL.

use batonmq::{
    db::postgres::Session,
    persistence::{CommitError, PersistenceAdapter as _, PostgresAdapter},
    types::{Sequence, Term},
};

use tokio::time::timeout;

use super::{
    Broker, insert,
    postgres_rules::{becomes_true, session_of},
    settle,
};
use crate::{
    full_disk::MIB,
    harness::{DatabaseServer as _, PATIENCE, PostgresServer, SmallDisk, own_group},
};

/// More than a VACUUM waits for.
const MESSAGES: u64 = 30_000;
const BATCH: u64 = 5_000;

/// Sends and consumes messages, those behind `from`.
async fn consume(broker: &mut Broker<PostgresAdapter>, from: u64) {
    let sequence = |counter| Sequence::new(Term(1), from + counter);
    for first in (0..MESSAGES).step_by(usize::try_from(BATCH).unwrap()) {
        broker.commit((first..first + BATCH).map(|counter| insert(sequence(counter), 100)).collect()).await;
        broker.commit((first..first + BATCH).map(|counter| settle(sequence(counter))).collect()).await;
    }
}

/// When the session that vacuums was last asked something.
async fn last_look(stranger: &Session) -> Option<String> {
    let look = "SELECT query_start::text FROM pg_stat_activity WHERE application_name LIKE '% vacuum'";
    stranger.query_opt(look, &[]).await.unwrap().map(|row| row.get(0))
}

#[tokio::test]
async fn the_room_of_consumed_messages_is_given_back_when_nobody_can_see_them_any_more() {
    let (server, group) = (PostgresServer::own(), own_group());
    let mut broker = Broker::on(PostgresAdapter::new(server.connector("one"), group.clone()).unwrap()).await;
    let (stranger, foreign) = (session_of(&server).await, session_of(&server).await);
    foreign.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    consume(&mut broker, 1).await;
    for _ in 0..3 {
        let before = last_look(&stranger).await.unwrap_or_default();
        let another = format!(
            "EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE '% vacuum' AND query LIKE '%pg_snapshot%' \
             AND query_start::text <> '{before}')"
        );
        becomes_true(&stranger, &another).await;
    }
    let vacuumed = |times: u64| format!("pg_stat_get_vacuum_count('{group}.message'::regclass) = {times}");
    becomes_true(&stranger, &vacuumed(0)).await; // there was nothing that it could have given back
    foreign.batch_execute("COMMIT").await.unwrap();
    becomes_true(&stranger, &format!("pg_relation_size('{group}.message') = 0")).await;
    becomes_true(&stranger, &vacuumed(1)).await;
    consume(&mut broker, MESSAGES + 1).await;
    becomes_true(&stranger, &vacuumed(2)).await;
    broker.adapter.close().await.unwrap();
}

#[tokio::test]
async fn an_index_that_is_far_too_large_is_made_anew() {
    let (server, group) = (PostgresServer::own(), own_group());
    let mut broker = Broker::on(PostgresAdapter::new(server.connector("one"), group.clone()).unwrap()).await;
    let stranger = session_of(&server).await;
    let swollen = format!(
        "INSERT INTO {group}.held (sequence, durable, priority, size) \
         SELECT n, 1, 4, 1 FROM generate_series(1, 3500000) AS n; DELETE FROM {group}.held"
    );
    stranger.batch_execute(&swollen).await.unwrap();
    let is_large = format!("pg_relation_size('{group}.held_pkey') > 64 << 20");
    becomes_true(&stranger, &is_large).await;
    consume(&mut broker, 1).await;
    becomes_true(&stranger, &format!("pg_relation_size('{group}.held_pkey') < 1 << 20")).await;
    broker.adapter.close().await.unwrap();
}

/// They are few and large: nobody waits until there are many of them.
#[tokio::test]
async fn a_full_disk_gets_the_room_of_what_was_consumed_at_once() {
    let (server, group) = (PostgresServer::own_with_tables_on(SmallDisk::new(48 * MIB)), own_group());
    let mut broker = Broker::on(PostgresAdapter::new(server.connector("one"), group.clone()).unwrap()).await;
    let sequence = |counter| Sequence::new(Term(1), counter);
    let full = |answer: &Result<(), CommitError>| matches!(answer, Err(CommitError::Full));
    let mut stored = 0;
    let answer = loop {
        let answer = broker.try_commit(vec![insert(sequence(stored + 1), 1 << 20)]).await;
        if answer.is_err() {
            break answer;
        }
        stored += 1;
    };
    assert!(full(&answer) && stored > 10, "{answer:?} after {stored}");
    broker.commit((1..=stored).map(|counter| settle(sequence(counter))).collect()).await;
    let refill = async {
        loop {
            match broker.try_commit(vec![insert(sequence(stored + 2), 1 << 20)]).await {
                Ok(()) => return,
                answer => assert!(full(&answer), "{answer:?}"),
            }
        }
    };
    timeout(PATIENCE, refill).await.expect("the room of what was consumed was not given back");
}
