//! What only PostgreSQL has: sessions, how they are known again, the schema of a group, and what a DBA sees of it. The
//! behaviour suite runs in `persistence`.

mod broker;
mod docs;
mod election;
mod schema;
mod sessions;

use batonmq::{
    db::postgres::{Postgres, Session},
    tasks::Tasks,
};

/// A session whose driver runs.
async fn session(postgres: &Postgres, purpose: &str) -> Session {
    let (session, driver) = postgres.connect(purpose).await.unwrap();
    Tasks::new().spawn("session", driver.run());
    session
}
