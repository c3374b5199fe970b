//! The proof of the fence: brokers on one database, in which everything that can go wrong does, from one seed.
//!
//! Real are the elector, the keeper, the engine with its writer, and the core, on as many runtimes as there are broker
//! processes; simulated are the database with its sessions, locks and network (`database.rs`, seen through `line.rs` and
//! `adapter.rs`), and the time. One thread does all of it, and every choice comes from one seed: `BATONMQ_SEED=…
//! BATONMQ_RUNS=1` repeats a failure.

mod adapter;
mod client;
mod database;
mod ledger;
mod line;
mod process;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::world::Broken;
use crate::harness::number;

/// Seeds of the usual tests.
const RUNS: u64 = 1_000;

#[test]
fn promises_hold_whatever_goes_wrong() {
    let (first, runs) = (number("BATONMQ_SEED").unwrap_or(1), number("BATONMQ_RUNS").unwrap_or(RUNS));
    let mut heard = 0;
    let mut take_overs = 0;
    for seed in first..first + runs {
        let world = catch_unwind(AssertUnwindSafe(|| world::run(seed, Broken::default())));
        let world = world.unwrap_or_else(|_| panic!("repeat it with BATONMQ_SEED={seed} BATONMQ_RUNS=1"));
        heard += world.ledger.heard;
        take_overs += world.database.server().take_overs.len();
    }
    println!("{runs} runs: {heard} receipts and deliveries, {take_overs} take-overs");
}
