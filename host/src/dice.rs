//! Dice that differ in every process.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use model::hash::{SPLIT_MIX_STEP, split_mix};
use model::port::Dice;

/// SplitMix64, seeded by the system through the standard library's hash keys.
#[derive(Debug)]
pub struct SystemDice(AtomicU64);

impl SystemDice {
    pub fn new() -> Self {
        let seed = RandomState::new().hash_one(std::process::id());
        Self(AtomicU64::new(seed))
    }
}

impl Default for SystemDice {
    fn default() -> Self {
        Self::new()
    }
}

impl Dice for SystemDice {
    fn roll(&self) -> u64 {
        let before = self.0.fetch_add(SPLIT_MIX_STEP, Ordering::Relaxed);
        split_mix(before.wrapping_add(SPLIT_MIX_STEP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_sets_of_dice_fall_alike() {
        let rolls = || {
            let dice = SystemDice::new();
            [dice.roll(), dice.roll(), dice.roll()]
        };
        assert_ne!(rolls(), rolls());
    }
}
