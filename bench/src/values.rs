//! Series whose values are all of one kind: what the bytes of a sample depend on.

use std::sync::LazyLock;

use jepsen_tests::splitmix::SplitMix64;

use crate::shape::{PLAIN, Population, value};

/// Buckets of one histogram, each holding those below.
const BUCKETS: u32 = 12;
/// How long the walk is of which every series takes a piece.
const WALK: usize = 1 << 20;

/// Name and series of every kind; all of them together come first.
pub const KINDS: [(&str, Population); 7] = [
    ("mix", PLAIN),
    ("counters", of(|series, round| value(series * 10, round))),
    ("random walk, 2 decimals", of(walk)),
    ("integers", of(integer)),
    ("constants", of(|series, _| f64::from(series))),
    ("noise as float32", of(noise)),
    ("histogram buckets", of(bucket)),
];

const fn of(value: fn(u32, u32) -> f64) -> Population {
    Population { value, ..PLAIN }
}

/// A twentieth of the time it is another one.
fn integer(series: u32, round: u32) -> f64 {
    let own = u64::from(series);
    let change = |round: &u32| SplitMix64::new(own << 32 | u64::from(*round)).between(0, 20) == 0;
    let since = (0..=round).rev().find(change).unwrap_or(0);
    SplitMix64::new(!(own << 32 | u64::from(since))).between(0, 50) as f64
}

fn noise(series: u32, round: u32) -> f64 {
    let share = SplitMix64::new(u64::from(series) << 32 | u64::from(round)).word() as f64;
    f64::from((20.0 + share / u64::MAX as f64) as f32)
}

/// From any place on, so that series have nothing in common.
fn walk(series: u32, round: u32) -> f64 {
    static STEPS: LazyLock<Vec<i32>> = LazyLock::new(|| {
        let mut dice = SplitMix64::new(1);
        let mut at = 50_000;
        let step = |_| {
            at += dice.between(0, 41) as i32 - 20;
            at
        };
        (0..WALK).map(step).collect()
    });
    let from = SplitMix64::new(u64::from(series)).between(0, WALK as u64) as usize;
    f64::from(STEPS[(from + round as usize) % WALK]) / 100.0
}

/// So many observations a round, fewer above each bound.
fn bucket(series: u32, round: u32) -> f64 {
    let (histogram, place) = (u64::from(series / BUCKETS), series % BUCKETS);
    let below = (0..=place).map(|le| {
        let rate = 1 + (60 >> le);
        let dice = SplitMix64::new(histogram << 32 | u64::from(round) << 4 | u64::from(le));
        u64::from(round) * rate + { dice }.between(0, rate)
    });
    below.sum::<u64>() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_their_kind_says() {
        for round in 1..200 {
            for series in [0, 11, 12, 499] {
                let step = walk(series, round) - walk(series, round - 1);
                assert!(step.abs() <= 0.201, "{step}");
                assert!(bucket(series, round) >= bucket(series, round - 1));
                assert_eq!(integer(series, round).fract(), 0.0);
                let noise = noise(series, round);
                assert_eq!(f64::from(noise as f32).to_bits(), noise.to_bits());
            }
            assert!(bucket(11, round) >= bucket(0, round));
        }
        let changes = (1..2_000).filter(|round| integer(3, *round) != integer(3, *round - 1));
        assert!((50..200).contains(&changes.count()));
    }
}
