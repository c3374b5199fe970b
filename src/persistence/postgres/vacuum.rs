//! Cleans up behind the master: rows of consumed messages are given back when they can be, and not before.
//!
//! Autovacuum comes once a minute and looks at the whole table even if somebody's open transaction keeps every row of
//! it; that costs more each minute, and most of all when the transaction has ended. Here the server is asked first
//! what can be given back (`horizon.sql`); and a VACUUM works about twice as fast as rows are deleted, so that clients
//! hardly notice it.
//!
//! Owns the sessions that vacuum. Always true: nothing here changes what is stored, so a broker that was deposed may do
//! it too (R30). On failure: nothing is lost but room; it is tried again.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tokio_postgres::Error;
use tokio_util::sync::CancellationToken;

use super::{Store, garbage::Garbage};
use crate::{db::postgres::Session, persistence::sql::number, types::with_causes};

/// After so long in a term it is looked at what earlier ones left.
const FIRST_LOOK: Duration = Duration::from_secs(30);

/// How often it is looked whether something can be given back, while that is likely, and while anything was deleted.
const LOOK: Duration = Duration::from_secs(2);
const RARE_LOOK: Duration = Duration::from_secs(60);

/// Fewer rows, that are less than so many bytes, are not worth it while there is room; nor is less than this part of what
/// is stored, because a VACUUM looks at all indexes.
const ROWS_MIN: u64 = 20_000;
const BYTES_MIN: u64 = 64 << 20;
const PART_MIN: u64 = 5;

/// How long an answer may take, and a VACUUM; then the connection counts as lost.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
const VACUUM_PATIENCE: Duration = Duration::from_hours(6);

/// So many rows that can't be given back are told of.
const ROWS_TOLD: u64 = 1_000_000;

/// What a VACUUM may cost in each slice of two milliseconds, in the server's unit: per row that is deleted a second,
/// and at least. A row costs about seven if nothing of its page is in memory, and the server sleeps a bit longer than it
/// is told to, so this is nearly twice as fast as rows come.
const COST_PER_ROW: f64 = 0.04;
const COST_MIN: u32 = 200;
const COST_MAX: u32 = 10_000;

/// An index of a table with so few rows, that is not large itself, is made anew when it is larger than this. Unit: rows,
/// bytes.
const REINDEX_ROWS_MAX: f32 = 200_000.0;
const REINDEX_BYTES_MIN: i64 = 64 << 20;

/// See the module.
pub(super) struct Vacuum {
    store: Arc<Store>,
    garbage: Garbage,
    /// How many rows had been deleted at the last look, and when that was.
    last: (u64, Instant),
    /// What a row takes, large bodies with it, as it was found at the last look. Unit: bytes.
    row_bytes: u64,
    /// It was said that rows can't be given back.
    told: bool,
}

/// Somebody else vacuums: autovacuum, because the tables are not ours.
struct NotOurs;

/// Or why not.
type Looked<T> = Result<T, String>;

/// Runs until it is told to stop; then a VACUUM that is under way ends with its connection.
pub(super) async fn run(store: Arc<Store>, stop: CancellationToken) {
    let mut vacuum =
        Vacuum { store, garbage: Garbage::default(), last: (0, Instant::now()), row_bytes: 0, told: false };
    tokio::select! {
        () = stop.cancelled() => {}
        NotOurs = vacuum.work() => {}
    }
}

impl Vacuum {
    async fn work(&mut self) -> NotOurs {
        let (mut looked, mut last) = (false, Instant::now());
        loop {
            sleep(LOOK).await;
            let wants_room = self.store.seen().wants_room;
            let is_first = !looked && (wants_room || last.elapsed() >= FIRST_LOOK);
            let is_rare = self.store.seen().deleted > self.last.0 && last.elapsed() >= RARE_LOOK;
            if !is_first && !is_rare && !self.is_worth_it(self.waiting(), 0) {
                continue;
            }
            match self.connected(!looked).await {
                Ok(Some(NotOurs)) => return NotOurs,
                Ok(None) => looked = true,
                Err(why) => self.tell_of_failure(&why),
            }
            last = Instant::now();
        }
    }

    /// On a connection of its own, for as long as something waits. It is dropped with everything that runs on it.
    async fn connected(&mut self, is_first: bool) -> Looked<Option<NotOurs>> {
        let (session, driver) = self.store.postgres.connect("vacuum").await.map_err(|error| with_causes(&error))?;
        tokio::select! {
            done = self.clean(&session, is_first) => done,
            () = driver.run() => Err("the connection was lost".to_owned()),
        }
    }

    async fn clean(&mut self, session: &Session, is_first: bool) -> Looked<Option<NotOurs>> {
        let texts = &self.store.texts;
        let state = answer(session.query_one(&texts.may_vacuum.sql, &[])).await?;
        let (ours, left_alone, dead): (bool, bool, i64) =
            (state.get("ours"), state.get("left_alone"), state.get("dead"));
        if !ours {
            if left_alone {
                tracing::warn!(
                    "nobody vacuums the tables of group {}: autovacuum is off for them and this role does not own \
                     them; let their owner run ALTER TABLE … SET (autovacuum_enabled = on) for held and returned, and \
                     with toast.autovacuum_enabled = on for message",
                    self.store.group
                );
            }
            return Ok(Some(NotOurs));
        }
        if !left_alone {
            answer(session.batch_execute(&texts.leave_alone.sql)).await?;
        }
        if is_first {
            let mut seen = self.store.seen();
            seen.deleted = seen.deleted.max(number(dead)); // by earlier terms too
        }
        loop {
            self.look(session).await?;
            if !self.is_worth_it(self.waiting(), 0) {
                return Ok(None);
            }
            sleep(LOOK).await;
        }
    }

    async fn look(&mut self, session: &Session) -> Looked<()> {
        let (before, deleted) = (self.last.0, self.store.seen().deleted);
        let row = answer(session.query_one(&self.store.texts.horizon.sql, &[])).await?;
        let (next, oldest, messages): (i64, i64, i64) = (row.get("next"), row.get("oldest"), row.get("messages"));
        self.garbage.note(next, deleted);
        self.row_bytes = number(row.get("bytes")) / (number(messages.max(0)) + self.waiting()).max(1);
        let cost = self.cost_limit(deleted);
        let removable = self.garbage.removable(oldest);
        self.tell_who_keeps(before, removable, row.get("who"));
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
        let pace = format!("SET vacuum_cost_delay = 2; SET vacuum_cost_limit = {cost_limit}");
        answer(session.batch_execute(&pace)).await?;
        within(VACUUM_PATIENCE, session.batch_execute(&self.store.texts.vacuum.sql)).await?;
        let warning = session.take_warning();
        tracing::debug!(cost_limit, warning, "vacuumed in {} ms", began.elapsed().as_millis());
        Ok(!warning.is_some_and(|warning| warning.starts_with("skipping")))
    }

    /// Makes indexes anew that are far too large. Clients wait meanwhile, which is why there have to be few rows.
    async fn reindex(&self, session: &Session) -> Looked<()> {
        let slack = session.query(&self.store.texts.slack.sql, &[&REINDEX_ROWS_MAX, &REINDEX_BYTES_MIN]);
        for row in answer(slack).await? {
            let index: &str = row.get(0);
            answer(session.batch_execute("SET lock_timeout = '200ms'; SET statement_timeout = '3s'")).await?;
            let done = answer(session.batch_execute(&format!("REINDEX INDEX {index}"))).await;
            answer(session.batch_execute("SET lock_timeout = 0; SET statement_timeout = 0")).await?;
            tracing::debug!(index, ?done, "made an index anew");
        }
        Ok(())
    }

    /// Whether to clean away so many rows beside so many messages that stay.
    fn is_worth_it(&self, rows: u64, messages: u64) -> bool {
        let are_many = rows >= ROWS_MIN || rows.saturating_mul(self.row_bytes) >= BYTES_MIN;
        rows > 0 && (self.store.seen().wants_room || (are_many && rows >= messages / PART_MIN))
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

    fn tell_of_failure(&mut self, why: &str) {
        let waiting = self.waiting();
        if waiting >= ROWS_TOLD && !std::mem::replace(&mut self.told, true) {
            tracing::warn!("{waiting} rows of consumed messages are not given back, because a VACUUM fails: {why}");
        } else {
            tracing::debug!("rows of consumed messages are not given back now: {why}");
        }
    }

    /// What had been deleted `before`, at the last look, is kept by nobody who only does its work.
    fn tell_who_keeps(&mut self, before: u64, removable: u64, who: Option<&str>) {
        let kept = self.garbage.waiting(before).saturating_sub(removable);
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

async fn answer<T>(answer: impl Future<Output = Result<T, Error>>) -> Looked<T> {
    within(ANSWER_PATIENCE, answer).await
}

/// Whoever does not get an answer drops the connection.
async fn within<T>(patience: Duration, answer: impl Future<Output = Result<T, Error>>) -> Looked<T> {
    let answer = timeout(patience, answer).await;
    answer.map_err(|_| format!("no answer in {} s", patience.as_secs()))?.map_err(|error| with_causes(&error))
}
