//! Chance that can be repeated: the same seed, the same faults.

use std::env;

const VARIABLE: &str = "FAULT_SEED";

/// SplitMix64: small, and good enough to break networks with.
pub(crate) struct Random(u64);

impl Random {
    /// Seeded from `FAULT_SEED`, or else anew, and told on standard error, which is shown when the test fails.
    #[expect(clippy::print_stderr, reason = "a failure must say how to repeat it")]
    pub(crate) fn seeded() -> Self {
        let seed = match env::var(VARIABLE) {
            Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("{VARIABLE} is {seed:?}; a number is expected")),
            Err(_) => u64::from(uuid::Uuid::new_v4().as_fields().0),
        };
        eprintln!("to repeat these faults: {VARIABLE}={seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
