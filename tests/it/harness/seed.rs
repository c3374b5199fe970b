//! Random choices that `BATONMQ_SEED` repeats.

use std::{
    hash::{BuildHasher, RandomState},
    sync::OnceLock,
};

/// A small generator (SplitMix64); each test mixes its own name in.
pub(crate) struct Seed(u64);

impl Seed {
    /// The generator of one test. Prints the seed; the test runner shows that if the test fails.
    pub(crate) fn of(test: &str) -> Self {
        static SEED: OnceLock<u64> = OnceLock::new();
        let seed = *SEED.get_or_init(|| match std::env::var("BATONMQ_SEED") {
            Ok(text) => text.parse().expect("BATONMQ_SEED is a number"),
            Err(_) => RandomState::new().hash_one("seed") % 1_000_000_000,
        });
        println!("{test}: repeat with BATONMQ_SEED={seed}");
        let mixed = test.bytes().fold(seed, |mixed, byte| (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(mixed)
    }

    /// One of `from..to`.
    pub(crate) fn range(&mut self, from: u64, to: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        from + (mixed ^ (mixed >> 31)) % (to - from)
    }
}
