//! Random numbers of a soak.

use std::time::Duration;

/// SplitMix64: the same faults for the same seed, whatever version of whatever library.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        // The remainder is below an usize.
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    /// Up to so long.
    pub(super) fn time(&mut self, most: Duration) -> Duration {
        most * u32::try_from(self.below(1000)).unwrap_or(0) / 1000
    }
}
