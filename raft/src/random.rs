//! A small deterministic source of numbers.
//!
//! Elections need numbers that differ between replicas; a simulator needs the same numbers again on replay. So the
//! seed is an input ([`Config::seed`](crate::Config::seed)) and the generator is ours: SplitMix64, whose whole state
//! is one word and whose sequence will never change under us with a dependency's release.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// Starts the sequence that belongs to `seed`.
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`. The slight bias of the remainder doesn't matter for timeouts.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no number in it");
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_same_sequence() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        let drawn: Vec<u64> = (0..8).map(|_| a.next()).collect();
        assert_eq!(drawn, (0..8).map(|_| b.next()).collect::<Vec<_>>());
        assert_ne!(drawn[0], Random::new(8).next());
    }
}
