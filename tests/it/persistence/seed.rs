//! Seeded choices. A failure shows its seed, and `BATONMQ_SEED` repeats it.

use std::hash::{BuildHasher, RandomState};

/// A sequence of choices (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub(super) struct Rng {
    seed: u64,
    state: u64,
}

impl Rng {
    /// From `BATONMQ_SEED`, or a new seed.
    pub(super) fn from_env() -> Self {
        let seed = number("BATONMQ_SEED").unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
        println!("repeat with BATONMQ_SEED={seed}"); // the test runner shows it if the test fails
        Self::new(seed)
    }

    pub(super) fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A variable of the tests.
pub(super) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}
