//! Dice that fall the same way for the same seed and the same order of rolls.

use std::sync::atomic::{AtomicU64, Ordering};

use model::hash::{SPLIT_MIX_STEP, split_mix};
use model::port::Dice;

/// SplitMix64 behind a shared reference.
#[derive(Debug)]
pub struct SimDice(AtomicU64);

impl SimDice {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Dice that go on from here independently, as a copied world needs.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::new(self.roll())
    }

    /// True once in `n` rolls on average.
    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Uniform in `0 ..= max`.
    pub fn up_to(&self, max: usize) -> usize {
        self.below(max as u64 + 1) as usize
    }
}

impl Dice for SimDice {
    fn roll(&self) -> u64 {
        let before = self.0.fetch_add(SPLIT_MIX_STEP, Ordering::Relaxed);
        split_mix(before.wrapping_add(SPLIT_MIX_STEP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_every_roll() {
        let rolls = |seed| {
            let dice = SimDice::new(seed);
            (0..100).map(|_| dice.roll()).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
    }

    #[test]
    fn bounded_rolls_stay_below_and_reach_every_value() {
        let dice = SimDice::new(1);
        let mut seen = [0u32; 6];
        for _ in 0..600 {
            seen[dice.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n > 50), "{seen:?}");
    }
}
