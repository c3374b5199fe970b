//! Seeded choices. A failure shows its seed, and `BATONMQ_SEED` repeats it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::OnceLock,
};

/// A sequence of choices (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    seed: u64,
    state: u64,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// From `BATONMQ_SEED`, or a new seed.
    pub(crate) fn from_env() -> Self {
        static SEED: OnceLock<u64> = OnceLock::new();
        let new = || RandomState::new().hash_one("seed") >> 32;
        let seed = *SEED.get_or_init(|| number("BATONMQ_SEED").unwrap_or_else(new));
        println!("repeat with BATONMQ_SEED={seed}"); // the test runner shows it if the test fails
        Self::new(seed)
    }

    /// That of one test, which mixes its own name in.
    pub(crate) fn of(test: &str) -> Self {
        let seed = Self::from_env().seed;
        Self::new(test.bytes().fold(seed, |mixed, byte| (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of `from..to`.
    pub(crate) fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A variable of the tests.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}
