//! Each rule that can be broken in one place is broken there, and the simulation finds it.
//!
//! A message that is numbered at its SEND (R6) is found by the core's own check, that sequences rise in a queue, and
//! can't come further: its place in memory is found by its sequence, and rules are broken only in builds that have the
//! check.
//!
//! Rules that are not broken here, and why:
//! - R7: what an open transaction holds is not with its consumer any more, so there is no place to break it in;
//!   `core::acks`, `core::transactions`.
//! - R8: who waits for a passing cause waits for the end of a term's sequences or 16 MiB, which no run comes to;
//!   `engine::errors`, `engine::limits`.
//! - R10: it says where the code is.
//! - R13: this database refuses nothing; `core::rejections`, `engine::errors`, `engine::simulation`.
//! - R18, R19, R20, R22, R23: broken, they cost time or the mastership, and the fence keeps the promises all the same;
//!   `failover`, `postgres::election`, `mysql::election`, and the keeper's and the elector's own tests.
//! - R28, R31: limits, not promises; `core::paging`, `engine::limits`, `memory`.
//! - R30: rows lie in one table, so there are no segments.
//! - R32: what is sent here is persistent; `engine::spool`, `persistence::spool`.
//! - R33 to R36: the journal's; `persistence::lives` breaks R33 and R34 in the same way, `persistence::full` holds it
//!   to R35, `persistence::summaries` to R36.

use std::panic::{AssertUnwindSafe, catch_unwind};

use batonmq::types::Rule;

use super::{
    database::Weakness,
    world::{Mutation, run},
};

/// Each mutation, and how many seeds it took to find it, on 2026-11-24. Whatever changes what happens in a run changes
/// these numbers; `seeds_max` is how far they may.
const MUTATIONS: &[(Mutation, u64)] = &[
    (Mutation::Database(Weakness::FenceNotChecked), 2),
    (Mutation::Database(Weakness::FenceWithoutLock), 22),
    (Mutation::Rule(Rule::ConfirmsAtOnce), 1),
    // R1
    (Mutation::Rule(Rule::NeverCancels), 1),
    // R2
    (Mutation::Rule(Rule::ForgetsResults), 735),
    (Mutation::Rule(Rule::ConfirmsWithFirstHolder), 774),
    (Mutation::Rule(Rule::SettlesBeforeCommit), 2),
    (Mutation::Rule(Rule::SettlesBeforeBurial), 2),
    // R3, R4, R5, R6
    (Mutation::WrittenTooEarly, 44),
    (Mutation::Rule(Rule::AnswersOutOfTurn), 1),
    (Mutation::Rule(Rule::ShowsTransactions), 1),
    (Mutation::Rule(Rule::NumbersAtSend), 1),
    // R9
    (Mutation::Rule(Rule::DeliversBeforeMark), 28),
    // R11, R12, R14
    (Mutation::Rule(Rule::RepeatsWithoutRaise), 3),
    (Mutation::Rule(Rule::RepeatsBehindNext), 3),
    (Mutation::Rule(Rule::SettlesBeforeInsert), 13),
    // R15, R16, R17, R21
    (Mutation::Database(Weakness::UnknownIsAgain), 14),
    (Mutation::Database(Weakness::WarningConfirms), 1_533),
    (Mutation::Database(Weakness::TermStays), 1),
    (Mutation::Database(Weakness::HistoryIgnored), 18),
    // R24
    (Mutation::LeaseIgnored, 56),
    (Mutation::Rule(Rule::ServesInDoubt), 2),
    // R25, R26, R27
    (Mutation::Rule(Rule::LetsAnythingLeave), 6),
    (Mutation::Rule(Rule::ForgetsPending), 1_241),
    (Mutation::Rule(Rule::ForgetsSettled), 582),
    (Mutation::Database(Weakness::ReadsFromReplica), 3),
    (Mutation::Rule(Rule::ForgetsWhatIsOut), 43),
    // R29
    (Mutation::Rule(Rule::ConfirmsPurgesAtOnce), 56),
    (Mutation::Rule(Rule::PurgesWhatIsHidden), 458),
    (Mutation::Rule(Rule::DeletesLater), 332),
];

/// Chance has its part in what a mutation took.
fn seeds_max(took: u64) -> u64 {
    (20 * took).max(500)
}

#[test]
fn every_broken_rule_is_found() {
    let mut table = String::new();
    let mut not_found = Vec::new();
    // A release build keeps the broker's rules whatever it is told.
    let is_broken = |mutation: &Mutation| cfg!(debug_assertions) || !matches!(mutation, Mutation::Rule(_));
    for (mutation, took) in MUTATIONS.iter().copied().filter(|(mutation, _)| is_broken(mutation)) {
        let found = (1..=seeds_max(took)).find_map(|seed| Some((seed, failure(|| run(seed, Some(mutation)))?)));
        match found {
            Some((seeds, how)) => table += &format!("{seeds:>5}  {mutation:?}: {how}\n"),
            None => not_found.push(mutation),
        }
    }
    println!("seeds  mutation: what is found\n{table}");
    assert!(not_found.is_empty(), "the simulation is too weak for {not_found:?}");
}

/// What is broken in a run, if it is noticed.
pub(super) fn failure<T>(run: impl FnOnce() -> T) -> Option<String> {
    let panicked = catch_unwind(AssertUnwindSafe(run)).err()?;
    let text = panicked.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panicked.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    Some(text.lines().next().unwrap_or_default().chars().take(100).collect())
}
