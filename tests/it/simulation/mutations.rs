//! Each rule that can be broken in one place is broken there, and the simulation finds it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use batonmq::types::Rule;

use super::{
    database::Weakness,
    world::{Mutation, run},
};

/// Each mutation, and in how many seeds it has to be found.
const MUTATIONS: &[(Mutation, u64)] = &[
    (Mutation::Database(Weakness::FenceNotChecked), 3_000),
    (Mutation::Database(Weakness::FenceWithoutLock), 3_000),
    (Mutation::LeaseIgnored, 300),
    (Mutation::Rule(Rule::RepeatsWithoutRaise), 3_000),
    (Mutation::Rule(Rule::ConfirmsAtOnce), 3_000),
    (Mutation::Rule(Rule::ForgetsResults), 3_000),
    (Mutation::Rule(Rule::ConfirmsWithFirstHolder), 3_000),
    (Mutation::Rule(Rule::SettlesBeforeCommit), 3_000),
    (Mutation::Rule(Rule::SettlesBeforeBurial), 3_000),
    (Mutation::Rule(Rule::NeverCancels), 3_000),
    (Mutation::Rule(Rule::SettlesBeforeInsert), 3_000),
    (Mutation::Rule(Rule::ShowsTransactions), 3_000),
    (Mutation::Rule(Rule::NumbersAtSend), 3_000),
    (Mutation::Rule(Rule::LetsAnythingLeave), 3_000),
    (Mutation::Rule(Rule::ForgetsPending), 3_000),
];

#[test]
fn every_broken_rule_is_found() {
    let mut table = String::new();
    let mut not_found = Vec::new();
    // A release build keeps the broker's rules whatever it is told.
    let is_broken = |mutation: &Mutation| cfg!(debug_assertions) || !matches!(mutation, Mutation::Rule(_));
    for (mutation, seeds_max) in MUTATIONS.iter().copied().filter(|(mutation, _)| is_broken(mutation)) {
        let found = (1..=seeds_max).find_map(|seed| Some((seed, failure(|| run(seed, Some(mutation)))?)));
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
