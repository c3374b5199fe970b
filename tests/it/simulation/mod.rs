//! The proof of the fence: brokers on one database, in which everything that can go wrong does, from one seed.
//!
//! Real are the elector, the keeper, the engine with its writer, and the core, on as many runtimes as there are broker
//! processes; simulated are the database with its sessions, locks, network, standby and copies (`database.rs`, seen
//! through `line.rs` and `adapter.rs`), and the time. One thread does all of it, and every choice comes from one seed:
//! `BATONMQ_SEED=… BATONMQ_RUNS=1` repeats a failure.
//!
//! `world.rs` is a run, `process.rs` a broker, `client.rs` a client; `ledger.rs` is what they were promised.
//! `stops.rs` stops a master at every step of what it writes; `mutations.rs` breaks the rules one by one, and each has
//! to be found.

mod adapter;
mod client;
mod database;
mod ledger;
mod line;
mod mutations;
mod process;
mod stops;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::world::{Outcome, run};
use crate::harness::number;

/// Seeds of the usual tests.
const RUNS: u64 = 1_000;

#[test]
fn promises_hold_whatever_goes_wrong() {
    let (first, runs) = (number("BATONMQ_SEED").unwrap_or(1), number("BATONMQ_RUNS").unwrap_or(RUNS));
    let mut all = Outcome::default();
    for seed in first..first + runs {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, None)));
        all.add(outcome.unwrap_or_else(|_| panic!("repeat it with BATONMQ_SEED={seed} BATONMQ_RUNS=1")));
    }
    println!("{runs} runs: {all:?}");
    assert!(runs < 100 || all.is_eventful(runs), "{all:?}");
}

#[test]
fn a_seed_repeats_a_run() {
    for seed in 1..=20 {
        assert_eq!(run(seed, None), run(seed, None), "seed {seed}");
    }
}
