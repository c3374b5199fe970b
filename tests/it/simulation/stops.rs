//! A master that is stopped at every step of what it writes, and goes on after another one took over.

use super::{
    database::{SessionNo, Weakness},
    mutations::failure,
    process::Strategy,
    world::{Mutation, World},
};

/// The steps of a statement: it is on its way, arrives, proves the token, settles, inserts, commits; its answer is on its
/// way. It is stopped before each, and after the last.
const STEPS: usize = 7;

/// A few different batches for each.
const SEEDS: u64 = 12;

/// What becomes of a master whose statement is stopped.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It does nothing for longer than a lease, and then goes on.
    Frozen,
    /// Its process is gone; the statement is not.
    Killed,
    /// The session that holds its lock is ended.
    LockEnded,
    /// Its sessions are cut off, and neither side knows.
    Cut,
}

const FATES: [Fate; 4] = [Fate::Frozen, Fate::Killed, Fate::LockEnded, Fate::Cut];

#[test]
fn promises_hold_wherever_a_master_is_stopped() {
    let (mut runs, mut take_overs) = (0, 0);
    for seed in 1..=SEEDS {
        for strategy in [Strategy::SessionLock, Strategy::Lease] {
            for fate in FATES {
                for steps in 0..=STEPS {
                    runs += 1;
                    take_overs += usize::from(stop(seed, strategy, fate, steps, None));
                }
            }
        }
    }
    assert!(take_overs * 2 > runs, "only {take_overs} take-overs in {runs} runs");
}

/// A batch that is not fenced is found wherever it was stopped before its COMMIT; one that read the token and holds no
/// lock, wherever it was stopped between the two.
#[test]
fn a_fence_that_does_not_hold_is_found_at_every_step() {
    for (weakness, steps) in [(Weakness::FenceNotChecked, 0..=5), (Weakness::FenceWithoutLock, 2..=5)] {
        let mutation = Some(Mutation::Database(weakness));
        let fails = |seed, steps| failure(|| stop(seed, Strategy::SessionLock, Fate::Frozen, steps, mutation));
        for step in steps {
            assert!((1..=SEEDS).any(|seed| fails(seed, step).is_some()), "{weakness:?}, stopped before step {step}");
        }
    }
}

/// Whether somebody else took over.
fn stop(seed: u64, strategy: Strategy, fate: Fate, steps: usize, mutation: Option<Mutation>) -> bool {
    let mut world = World::of(seed, strategy, mutation);
    let (master, writer) = when_it_writes(&mut world);
    let tenure = world.database.server().tenure();
    world.database.server().halt(writer, steps);
    for _ in 0..steps {
        world.step();
    }
    match fate {
        Fate::Frozen => world.freeze(master, 8_000),
        Fate::Killed => world.crash(master),
        Fate::LockEnded => world.database.server().end_lock_session(),
        Fate::Cut => world.cut(master),
    }
    for _ in 0..400 {
        world.step();
    }
    let is_taken_over = world.database.server().tenure().term > tenure.term;
    world.database.server().go_on();
    for _ in 0..200 {
        world.step();
    }
    world.calm();
    is_taken_over
}

/// Runs until a master that has done something writes a batch: which process it is, and its session.
fn when_it_writes(world: &mut World) -> (usize, SessionNo) {
    for step in 0..10_000 {
        world.step();
        let server = world.database.server();
        let writing = server.baton.writer_session.filter(|session| step > 150 && server.is_asked(*session));
        if let Some(session) = writing {
            return (server.process_of(session), session);
        }
    }
    panic!("somebody writes some time");
}
