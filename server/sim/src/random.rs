//! Where everything that a seed decides comes from.
//!
//! The generator is xoshiro256++, started by SplitMix64: small, fast, and written out here, so that a seed means the same
//! for as long as this file does. It is not for secrets.
//!
//! A simulation draws from one stream per concern. [`Random::fork`] derives a stream from the *seed* of its parent and a
//! label, not from how much was drawn before: whoever adds a draw to the network does not shift what the workload
//! does, and a seed that found something stays useful while the simulator changes around it.
//!
//! ```
//! use holdfast_sim::random::Random;
//! let root = Random::new(7);
//! let (mut network, mut again) = (root.fork("network"), root.fork("network"));
//! assert_eq!(network.next_u64(), again.next_u64());
//! assert_ne!(root.fork("disks").next_u64(), root.fork("clients").next_u64());
//! ```

use std::ops::RangeInclusive;

/// A stream of numbers that belongs to a seed.
#[derive(Debug, Clone)]
pub struct Random {
    /// What forks derive from.
    seed: u64,
    state: [u64; 4],
}

impl Random {
    /// Starts the stream of a seed. Any seed is as good as another.
    pub fn new(seed: u64) -> Random {
        let mut filler = seed;
        let state = [(); 4].map(|()| split_mix(&mut filler));
        Random { seed, state }
    }

    /// The stream that belongs to this stream's seed and the label; the same label gives the same stream each time.
    pub fn fork(&self, label: &str) -> Random {
        // FNV-1a; SplitMix64 below spreads what it leaves close together.
        let hash = label
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Random::new(mix(self.seed ^ mix(hash)))
    }

    /// The stream of one of many of a kind: of node 3, of client 17.
    pub fn fork_numbered(&self, label: &str, number: u64) -> Random {
        let kind = self.fork(label);
        Random::new(mix(kind.seed.wrapping_add(mix(number))))
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number below `bound`, each as likely as the others (up to one part in 2^64 of `bound`).
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no number in it");
        // The high half of the product: no division, and the bias is far below what a simulation could notice.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number of the range.
    ///
    /// # Panics
    /// If the range is empty.
    pub fn range(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = range.into_inner();
        assert!(low <= high, "an empty range has no number in it");
        match (high - low).checked_add(1) {
            Some(size) => low + self.below(size),
            None => self.next_u64(),
        }
    }

    /// A number between `-limit` and `limit`.
    pub fn within(&mut self, limit: u64) -> i64 {
        let limit = limit.min(i64::MAX as u64 / 2);
        self.range(0..=2 * limit) as i64 - limit as i64
    }

    /// True in `per_mille` of a thousand cases. Draws one number whatever the chance is, so that changing a chance shifts
    /// nothing else.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// A place in a list of `length`.
    ///
    /// # Panics
    /// If `length` is zero.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// One of the items; `None` if there are none.
    pub fn choose<'items, T>(&mut self, items: &'items [T]) -> Option<&'items T> {
        if items.is_empty() { None } else { items.get(self.index(items.len())) }
    }

    /// A place in a list of weights, each as likely as its weight says.
    ///
    /// # Panics
    /// If no weight is above zero.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut drawn = self.below(weights.iter().map(|weight| u64::from(*weight)).sum());
        for (place, weight) in weights.iter().enumerate() {
            match drawn.checked_sub(u64::from(*weight)) {
                Some(rest) => drawn = rest,
                None => return place,
            }
        }
        unreachable!("the drawn number is below the sum of the weights")
    }

    /// Puts the items into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let other = self.index(end + 1);
            items.swap(end, other);
        }
    }
}

/// The next number of SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix(*state)
}

/// SplitMix64's finisher: numbers that are close come far apart.
pub(crate) fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_means_the_same_for_ever() {
        let mut random = Random::new(42);
        let drawn: Vec<u64> = (0..4).map(|_| random.next_u64()).collect();
        assert_eq!(drawn, [0xd076_4d4f_4476_689f, 0x519e_4174_576f_3791, 0xfbe0_7cfb_0c24_ed8c, 0xb37d_9f60_0cd8_35b8]);
    }

    #[test]
    fn generator_is_xoshiro256_plus_plus() {
        // From the state 1, 2, 3, 4 the algorithm's definition gives these by hand.
        let mut random = Random { seed: 0, state: [1, 2, 3, 4] };
        assert_eq!(random.next_u64(), 5_u64.rotate_left(23) + 1);
        assert_eq!(random.state, [1 ^ 4 ^ 2, 2 ^ 3 ^ 1, 3 ^ 1 ^ (2 << 17), (4_u64 ^ 2).rotate_left(45)]);
    }

    #[test]
    fn forks_do_not_depend_on_what_was_drawn() {
        let (fresh, mut used) = (Random::new(1), Random::new(1));
        for _ in 0..10 {
            used.next_u64();
        }
        assert_eq!(fresh.fork("a").next_u64(), used.fork("a").next_u64());
        let firsts: std::collections::BTreeSet<u64> =
            (0..1000).map(|number| fresh.fork_numbered("node", number).next_u64()).collect();
        assert_eq!(firsts.len(), 1000);
        assert_ne!(fresh.fork("a").fork("b").next_u64(), fresh.fork("b").fork("a").next_u64());
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_them() {
        let mut random = Random::new(3);
        let drawn: Vec<u64> = (0..1000).map(|_| random.range(5..=8)).collect();
        assert_eq!(drawn.iter().min(), Some(&5));
        assert_eq!(drawn.iter().max(), Some(&8));
        assert!((0..1000).all(|_| random.within(3).abs() <= 3));
        assert_eq!(random.range(9..=9), 9);
        random.range(0..=u64::MAX);
        assert_eq!((0..1000).filter(|_| random.chance(0)).count(), 0);
        assert_eq!((0..1000).filter(|_| random.chance(1000)).count(), 1000);
        let rare = (0..10_000).filter(|_| random.chance(100)).count();
        assert!((800..1200).contains(&rare), "{rare}");
    }

    #[test]
    fn weights_and_shuffles_are_fair() {
        let mut random = Random::new(4);
        let mut counts = [0; 3];
        for _ in 0..4000 {
            counts[random.weighted(&[1, 0, 3])] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((800..1200).contains(&counts[0]), "{counts:?}");
        let mut firsts = [0; 4];
        for _ in 0..4000 {
            let mut items = [0, 1, 2, 3];
            random.shuffle(&mut items);
            firsts[items[0]] += 1;
        }
        assert!(firsts.iter().all(|count| (800..1200).contains(count)), "{firsts:?}");
        assert_eq!(random.choose::<u8>(&[]), None);
    }
}
