use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    db::ConnectError,
    election::{Survey, database::Namesake},
    types::{FencingToken, Footing, Mandate, Term},
};

/// A database that does what the test says, and nothing else.
#[derive(Debug, Default)]
struct Faulty {
    /// What each connection attempt brings; later ones fail.
    connections: Mutex<VecDeque<Script>>,
    /// Why the baton was given back.
    released: Arc<Mutex<Option<String>>>,
}

/// A connection.
#[derive(Clone, Debug)]
struct Script {
    row: Option<BatonRow>,
    beats: VecDeque<Beat>,
    reclaims: VecDeque<bool>,
    end: CancellationToken,
}

#[derive(Clone, Debug)]
enum Beat {
    Answer(Option<BatonRow>),
    Late(Duration),
    Never,
}

struct FaultySession {
    released: Arc<Mutex<Option<String>>>,
    script: Script,
}

impl LockDatabase for Faulty {
    type Session = FaultySession;

    async fn connect(&self, _: Purpose) -> Result<FaultySession, LockError> {
        let script = self.connections.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let script = script.ok_or(ConnectError::Url { problem: "nobody is there".to_owned() })?;
        Ok(FaultySession { released: Arc::clone(&self.released), script })
    }

    fn what(&self) -> String {
        "nothing".to_owned()
    }
}

impl LockSession for FaultySession {
    async fn look(&mut self) -> Result<Option<BatonRow>, LockError> {
        Ok(self.script.row.clone())
    }

    async fn lock(&mut self, _: Duration) -> Result<bool, LockError> {
        unreachable!("a keeper does not wait for the lock")
    }

    async fn migrate(&mut self) -> Result<(), LockError> {
        unreachable!("a keeper makes no tables")
    }

    async fn take_over(&mut self, _: &HolderId, _: Tenure) -> Result<Option<Tenure>, LockError> {
        unreachable!("a keeper raises nothing")
    }

    async fn beat(&mut self, _: Tenure) -> Result<Option<BatonRow>, LockError> {
        match self.script.beats.pop_front().unwrap_or(Beat::Answer(self.script.row.clone())) {
            Beat::Answer(row) => Ok(row),
            Beat::Late(delay) => {
                sleep(delay).await;
                Ok(self.script.row.clone())
            }
            Beat::Never => std::future::pending().await,
        }
    }

    async fn reclaim(&mut self, _: &HolderId, _: Tenure) -> Result<bool, LockError> {
        Ok(self.script.reclaims.pop_front().unwrap_or(true))
    }

    async fn release(&mut self, _: &HolderId, _: Tenure, why: &str) -> Result<(), LockError> {
        *self.released.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
        Ok(())
    }

    async fn closed(&self) {
        self.script.end.cancelled().await;
    }

    fn is_closed(&self) -> bool {
        self.script.end.is_cancelled()
    }

    async fn sign(&mut self, _: &HolderId, _: &str, _: &str) -> Result<Vec<Namesake>, LockError> {
        unreachable!("a keeper gives no signs")
    }

    async fn leave(&mut self, _: &HolderId) -> Result<(), LockError> {
        unreachable!("a keeper gives no signs")
    }

    async fn survey(&mut self) -> Result<Option<Survey>, LockError> {
        unreachable!("a keeper wants to know nothing more")
    }
}

/// A term that has just begun.
struct Fixture {
    database: Arc<Faulty>,
    me: HolderId,
    end: CancellationToken,
    mandate: Mandate,
    keeping: Keeping,
}

const LEASE: Lease = Lease::new(Duration::from_secs(10));

const TENURE: Tenure = Tenure { term: Term(3), token: FencingToken(7) };

fn history(identity: &str, position: u64) -> History {
    History { identity: identity.to_owned(), position }
}

fn row_of(holder: &HolderId) -> BatonRow {
    BatonRow { tenure: TENURE, holder: Some(holder.clone()), released: false, history: history("a", 100) }
}

fn begin(beats: impl IntoIterator<Item = Beat>) -> Fixture {
    begin_with(beats, BootTime::now().after(LEASE.relied_on()))
}

fn begin_with(beats: impl IntoIterator<Item = Beat>, relied_until: BootTime) -> Fixture {
    let (database, me, end) = (Arc::new(Faulty::default()), HolderId::new("me"), CancellationToken::new());
    let script = Script {
        row: Some(row_of(&me)),
        beats: beats.into_iter().collect(),
        reclaims: VecDeque::new(),
        end: end.clone(),
    };
    let (told, mandate) = Mandate::until(relied_until);
    let keeper = Keeper {
        database: Arc::clone(&database),
        me: me.clone(),
        lease: LEASE,
        tenure: TENURE,
        history: history("a", 100),
        session: Some(FaultySession { released: Arc::clone(&database.released), script }),
        mandate: told,
        relied_until,
    };
    Fixture { database, me, end, mandate, keeping: Keeping::start(keeper) }
}

impl Fixture {
    fn next_connection(&self, row: Option<BatonRow>, reclaims: &[bool]) {
        let script = Script {
            row,
            beats: VecDeque::new(),
            reclaims: reclaims.iter().copied().collect(),
            end: CancellationToken::new(),
        };
        self.database.connections.lock().unwrap().push_back(script);
    }

    async fn becomes(&mut self, footing: &Footing) {
        while self.mandate.footing() != *footing {
            self.mandate.changed().await;
        }
    }

    async fn is_lost(&mut self) -> String {
        loop {
            if let Footing::Lost(why) = self.mandate.footing() {
                return why.to_string();
            }
            self.mandate.changed().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r24_a_heartbeat_that_is_late_leaves_a_doubt_until_it_is_answered() {
    let mut term = begin([Beat::Late(Duration::from_millis(999)), Beat::Late(Duration::from_millis(1_500))]);
    let began = Instant::now();
    term.becomes(&Footing::Doubtful).await;
    let seconds = began.elapsed().as_secs_f64();
    assert!((5.9..6.1).contains(&seconds), "the second heartbeat, and a second: {seconds}");
    term.becomes(&Footing::Firm).await;
    assert!(term.mandate.holds());
}

#[tokio::test(start_paused = true)]
async fn r18_a_lock_that_nobody_took_is_had_again_in_the_same_term() {
    let mut term = begin([]);
    term.next_connection(Some(row_of(&term.me)), &[false, false, true]);
    term.end.cancel();
    term.becomes(&Footing::Doubtful).await;
    let since = Instant::now();
    term.becomes(&Footing::Firm).await;
    assert_eq!(since.elapsed().as_millis(), 200, "every 100 ms");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_never_answers_is_given_up_after_a_lease() {
    let mut term = begin([Beat::Never]);
    term.next_connection(Some(row_of(&term.me)), &[]);
    term.becomes(&Footing::Doubtful).await;
    term.becomes(&Footing::Firm).await;
    assert!(term.database.connections.lock().unwrap().is_empty(), "a new session");
}

/// After a freeze of almost a lease, the server holds the lock for us still.
#[tokio::test(start_paused = true)]
async fn r18_who_was_frozen_asks_the_session_that_holds_the_lock_before_giving_it_up() {
    let mut term = begin_with([Beat::Late(Duration::from_millis(20))], BootTime::now());
    term.becomes(&Footing::Doubtful).await;
    term.becomes(&Footing::Firm).await;
    assert!(term.mandate.holds(), "over the session that it had: there is no other");
}

#[tokio::test(start_paused = true)]
async fn whoever_took_over_ends_the_term() {
    let other = HolderId::new("other");
    let mut term = begin([Beat::Answer(Some(row_of(&other)))]);
    assert!(term.is_lost().await.contains("broker other took over"));
    let mut term = begin([Beat::Answer(None)]);
    assert!(term.is_lost().await.contains("the lease ran out"));
    let mut term = begin([]);
    term.next_connection(Some(row_of(&other)), &[]);
    term.end.cancel();
    assert!(term.is_lost().await.contains("broker other took over"));
    assert!(!term.mandate.holds());
}

#[tokio::test(start_paused = true)]
async fn r21_another_history_ends_the_term() {
    for (now, says) in [(history("b", 200), "another way"), (history("a", 99), "older copy")] {
        let mut term = begin([]);
        term.next_connection(Some(BatonRow { history: now, ..row_of(&term.me) }), &[]);
        term.end.cancel();
        let why = term.is_lost().await;
        assert!(why.contains(says), "{why}");
    }
    let mut term = begin([]);
    term.next_connection(None, &[]);
    term.end.cancel();
    assert!(term.is_lost().await.contains("tables are gone"));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_does_not_come_back_ends_the_term() {
    let mut term = begin([]);
    term.end.cancel();
    let since = Instant::now();
    assert!(term.is_lost().await.contains("too long"));
    assert_eq!(since.elapsed(), OUTAGE_PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn a_polite_end_gives_the_baton_back_with_its_reason() {
    let term = begin([]);
    term.keeping.end("stopped by SIGTERM").await;
    assert_eq!(term.database.released.lock().unwrap().as_deref(), Some("stopped by SIGTERM"));
}
