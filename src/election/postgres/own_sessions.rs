//! Whether sessions are a broker's own.
//!
//! A pooler in transaction mode lends a session of the database to one client after the other, transaction by
//! transaction. A lock, a setting or a prepared statement of "one's" session is then everybody's, and nobody says so.
//! It is found by what it does, whatever its name is: two clients are on one session, or one client changes sessions.
//! Always true: nothing is set, locked or prepared here, because it might stay with a stranger.
//! On failure: it is not known, and to be asked again.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Error, SimpleQueryMessage};

use crate::{
    db::{
        ConnectError,
        postgres::{Postgres, Session},
    },
    election::LockError,
    tasks::Tasks,
};

/// How many clients keep a session busy, one after the other, so that a pooler has to give another one to the first
/// client, whoever else uses it meanwhile.
const RIVALS: usize = 3;

/// How long an answer may take. A pooler without a free session lets its clients wait for minutes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes sure of it.
///
/// # Errors
/// [`ConnectError::Pooled`] if they are shared; others if it can't be told.
pub async fn require_own_sessions(postgres: &Postgres) -> Result<(), LockError> {
    let drivers = Tasks::new();
    let told = timeout(PATIENCE, are_shared(postgres, &drivers)).await;
    drivers.abort();
    match told {
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => Err(ConnectError::Pooled { address: postgres.address().to_owned() }.into()),
        Ok(Err(error)) => Err(error),
        Err(late) => Err(LockError::Database { action: "tell whose sessions these are", source: late.into() }),
    }
}

async fn are_shared(postgres: &Postgres, drivers: &Tasks) -> Result<bool, LockError> {
    let client = connect(postgres, drivers).await?;
    let own = session_of(&client, "").await.map_err(failed)?;
    let mut rivals = Vec::with_capacity(RIVALS);
    for _ in 0..RIVALS {
        let rival = connect(postgres, drivers).await?;
        let theirs = match session_of(&rival, "BEGIN;").await {
            Err(error) if error.code().is_some() => return Ok(true), // no server refuses this; a pooler by statement does
            answered => answered.map_err(failed)?,
        };
        rivals.push(rival);
        if theirs == own || session_of(&client, "").await.map_err(failed)? != own {
            leave(&rivals).await.map_err(failed)?;
            return Ok(true);
        }
    }
    leave(&rivals).await.map_err(failed)?;
    Ok(false)
}

async fn connect(postgres: &Postgres, drivers: &Tasks) -> Result<Session, LockError> {
    let (session, driver) = postgres.connect_bare("check").await?;
    drivers.spawn("check", driver.run());
    Ok(session)
}

/// The process that serves this client at the moment, as PostgreSQL numbers it.
async fn session_of(client: &Session, begin: &str) -> Result<Option<String>, Error> {
    let said = client.simple_query(&format!("{begin} SELECT pg_catalog.pg_backend_pid()")).await?;
    Ok(said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    }))
}

/// A client that just leaves a transaction would cost a pooler the session.
async fn leave(rivals: &[Session]) -> Result<(), Error> {
    for rival in rivals {
        rival.batch_execute("ROLLBACK").await?;
    }
    Ok(())
}

fn failed(error: Error) -> LockError {
    LockError::Database { action: "tell whose sessions these are", source: error.into() }
}
