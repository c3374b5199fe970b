//! Cleans up behind the master: rows of consumed messages are given back when they can be, and not before.
//!
//! Autovacuum comes once a minute and looks at the whole table even if somebody's open transaction keeps every row of
//! it; that costs more each minute, and most of all when the transaction has ended. Here the server is asked first
//! what can be given back (`horizon.sql`); and a VACUUM works no more than twice as fast as rows are deleted, so that
//! clients do not notice it.
//!
//! Owns the sessions that vacuum. Always true: nothing here changes what is stored, so a broker that was deposed may do
//! it too (R30). On failure: nothing is lost but room; it is tried again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Store, garbage::Garbage};
use crate::{db::postgres::Session, persistence::sql::number, types::with_causes};

/// After so long in a term it is looked at what earlier ones left.
const FIRST_LOOK: Duration = Duration::from_secs(30);

/// How often it is looked whether something can be given back.
const LOOK: Duration = Duration::from_secs(2);

/// Fewer rows are not worth it while there is room; nor is less than this part of what is stored, because a VACUUM looks
/// at all indexes.
const ROWS_MIN: u64 = 20_000;
const PART_MIN: u64 = 5;

/// So many rows that can't be given back are told of.
const ROWS_TOLD: u64 = 1_000_000;

/// What a VACUUM may cost in each slice of two milliseconds, in the server's unit: per row that is deleted a second,
/// and at least. A row costs about five if nothing of its page is in memory, so this is twice as fast as rows come.
const COST_PER_ROW: f64 = 0.02;
const COST_MIN: u32 = 200;
const COST_MAX: u32 = 10_000;

/// An index of a table with so few rows is made anew when it is larger than this. Unit: rows, bytes.
const REINDEX_ROWS_MAX: f32 = 200_000.0;
const REINDEX_BYTES_MIN: i64 = 64 << 20;

/// See the module.
pub(super) struct Vacuum {
    store: Arc<Store>,
    garbage: Garbage,
    /// How many rows had been deleted at the last look, and when that was.
    last: (u64, Instant),
    /// It was said that rows can't be given back.
    told: bool,
}

/// Somebody else vacuums: autovacuum, because the tables are not ours.
struct NotOurs;

type Looked<T> = Result<T, tokio_postgres::Error>;

/// Runs until it is told to stop; then a VACUUM that is under way ends with its connection.
pub(super) async fn run(store: Arc<Store>, stop: CancellationToken) {
    let mut vacuum = Vacuum { store, garbage: Garbage::default(), last: (0, Instant::now()), told: false };
    tokio::select! {
        () = stop.cancelled() => {}
        NotOurs = vacuum.work() => {}
    }
}

impl Vacuum {
    async fn work(&mut self) -> NotOurs {
        let began = Instant::now();
        let mut looked = false;
        loop {
            sleep(LOOK).await;
            let is_first = !looked && began.elapsed() >= FIRST_LOOK;
            if !is_first && !self.is_worth_it(self.waiting(), 0) {
                continue;
            }
            match self.connected().await {
                Ok(Some(NotOurs)) => return NotOurs,
                Ok(None) => looked = true,
                Err(why) => tracing::debug!("rows of consumed messages are not cleaned up now: {why}"),
            }
        }
    }

    /// On a connection of its own, for as long as something waits. It is dropped with everything that runs on it.
    async fn connected(&mut self) -> Result<Option<NotOurs>, String> {
        let (session, driver) = self.store.postgres.connect("vacuum").await.map_err(|error| with_causes(&error))?;
        tokio::select! {
            done = self.clean(&session) => done.map_err(|error| with_causes(&error)),
            () = driver.run() => Err("the connection was lost".to_owned()),
        }
    }

    async fn clean(&mut self, session: &Session) -> Looked<Option<NotOurs>> {
        let texts = &self.store.texts;
        let state = session.query_one(&texts.may_vacuum.sql, &[]).await?;
        let (ours, left_alone, dead): (bool, bool, i64) =
            (state.get("ours"), state.get("left_alone"), state.get("dead"));
        if !ours {
            if left_alone {
                tracing::warn!(
                    "nobody vacuums the tables of group {}: autovacuum is off for them and this role does not own \
                     them; let their owner run ALTER TABLE … SET (autovacuum_enabled = on) for message, held and \
                     returned",
                    self.store.group
                );
            }
            return Ok(Some(NotOurs));
        }
        if !left_alone {
            session.batch_execute(&texts.leave_alone.sql).await?;
        }
        if self.waiting() == 0 && number(dead) >= ROWS_MIN {
            self.vacuum(session, COST_MIN).await?;
        }
        while self.is_worth_it(self.waiting(), 0) {
            self.look(session).await?;
            sleep(LOOK).await;
        }
        Ok(None)
    }

    async fn look(&mut self, session: &Session) -> Looked<()> {
        let deleted = self.store.seen().deleted;
        let row = session.query_one(&self.store.texts.horizon.sql, &[]).await?;
        let (next, oldest, messages): (i64, i64, i64) = (row.get("next"), row.get("oldest"), row.get("messages"));
        self.garbage.note(next, deleted);
        let cost = self.cost_limit(deleted);
        let removable = self.garbage.removable(oldest);
        self.tell_who_keeps(deleted, removable, row.get("who"));
        if !self.is_worth_it(removable, number(messages.max(0))) {
            return Ok(());
        }
        if self.vacuum(session, cost).await? {
            self.garbage.cleaned(oldest);
            self.store.seen().wants_room = false;
            self.reindex(session).await?;
        }
        Ok(())
    }

    /// `false`: somebody else held a table.
    async fn vacuum(&self, session: &Session, cost_limit: u32) -> Looked<bool> {
        let began = Instant::now();
        drop(session.take_warning());
        session.batch_execute(&format!("SET vacuum_cost_delay = 2; SET vacuum_cost_limit = {cost_limit}")).await?;
        session.batch_execute(&self.store.texts.vacuum.sql).await?;
        let skipped = session.take_warning();
        tracing::debug!(cost_limit, skipped, "vacuumed in {} ms", began.elapsed().as_millis());
        Ok(skipped.is_none())
    }

    /// Makes indexes anew that are far too large. Clients wait meanwhile, which is why there have to be few rows.
    async fn reindex(&self, session: &Session) -> Looked<()> {
        let slack = session.query(&self.store.texts.slack.sql, &[&REINDEX_ROWS_MAX, &REINDEX_BYTES_MIN]).await?;
        for row in slack {
            let index: &str = row.get(0);
            session.batch_execute("SET lock_timeout = 200").await?;
            let done = session.batch_execute(&format!("REINDEX INDEX {index}")).await;
            tracing::debug!(index, ?done, "made an index anew");
        }
        Ok(())
    }

    /// Whether to clean away so many rows beside so many messages that stay.
    fn is_worth_it(&self, rows: u64, messages: u64) -> bool {
        rows > 0 && (self.store.seen().wants_room || rows >= ROWS_MIN.max(messages / PART_MIN))
    }

    fn waiting(&self) -> u64 {
        self.garbage.waiting(self.store.seen().deleted)
    }

    /// By how fast rows were deleted since the last look.
    fn cost_limit(&mut self, deleted: u64) -> u32 {
        let (before, at) = std::mem::replace(&mut self.last, (deleted, Instant::now()));
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = deleted.saturating_sub(before) as f64 / at.elapsed().as_secs_f64().max(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
        let limit = (rate * COST_PER_ROW).clamp(f64::from(COST_MIN), f64::from(COST_MAX)) as u32;
        limit
    }

    fn tell_who_keeps(&mut self, deleted: u64, removable: u64, who: Option<&str>) {
        let kept = self.garbage.waiting(deleted).saturating_sub(removable);
        if kept < ROWS_TOLD {
            self.told = false;
        } else if let Some(who) = who
            && !std::mem::replace(&mut self.told, true)
        {
            tracing::warn!(
                "{kept} rows of consumed messages can't be given back because of an old snapshot of {who}; their room \
                 grows until it ends"
            );
        }
    }
}
