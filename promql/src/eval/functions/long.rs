//! Windows of so many values that others must run while one is looked at.
//!
//! Promise: the same value, to the last bit, as the functions of [`super::over_time`] give of a window as a
//! whole. A quantile is not sorted for: which value has a rank is found digit by digit, by counting, so that
//! nothing is copied.

use super::super::Pace;
use super::super::kahan::{Mean, Sum};
use super::super::pace::turns;
use super::super::quantile::Rank;
use super::over_time::{Spread, Window};
use crate::error::QueryError;

/// Values of a window that is long.
pub(super) const LONG: usize = 200_000;

/// What the function of that name makes of a long window; `None` where it is looked at as a whole.
pub(super) async fn value(
    name: &str,
    window: &Window<'_>,
    pace: &mut Pace<'_>,
) -> Result<Option<f64>, QueryError> {
    let values = window.values;
    Ok(Some(match name {
        "quantile_over_time" => quantile(window.first_scalar(), values, |v| v, pace).await?,
        "mad_over_time" => {
            let median = quantile(0.5, values, |v| v, pace).await?;
            quantile(0.5, values, |v| (v - median).abs(), pace).await?
        }
        "sum_over_time" => {
            let mut sum = Sum::default();
            match run(&mut sum, values, pace).await? {
                true => sum.value(),
                false => {
                    let mut sum = Sum::default();
                    each(values, |value| sum.add(value), pace).await?;
                    sum.value()
                }
            }
        }
        "avg_over_time" => {
            let mut mean = Mean::default();
            each(values, |value| mean.add(value), pace).await?;
            mean.value()
        }
        "stddev_over_time" | "stdvar_over_time" => {
            let mut spread = Spread::default();
            each(values, |value| spread.add(value), pace).await?;
            match name {
                "stddev_over_time" => spread.variance().sqrt(),
                _ => spread.variance(),
            }
        }
        _ => return Ok(None),
    }))
}

async fn each(
    values: &[f64],
    mut f: impl FnMut(f64),
    pace: &mut Pace<'_>,
) -> Result<(), QueryError> {
    for turn in turns(values.len()) {
        pace.spend(turn.len()).await?;
        values[turn].iter().for_each(|&value| f(value));
    }
    Ok(())
}

/// Adds all values without a branch; `false` where that cannot be done.
async fn run(sum: &mut Sum, values: &[f64], pace: &mut Pace<'_>) -> Result<bool, QueryError> {
    for turn in turns(values.len()) {
        pace.spend(turn.len()).await?;
        match sum.run_on(&values[turn]) {
            Some(more) => *sum = more,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// As [`super::super::quantile::quantile`], of what `f` makes of each value.
async fn quantile(
    q: f64,
    values: &[f64],
    f: impl Fn(f64) -> f64 + Copy,
    pace: &mut Pace<'_>,
) -> Result<f64, QueryError> {
    let rank = match Rank::of(q, values.len()) {
        Ok(rank) => rank,
        Err(whatever) => return Ok(whatever),
    };
    let low = nth(values, rank.lower, f, pace).await?;
    let high = nth(values, rank.upper, f, pace).await?;
    Ok(rank.between(low, high))
}

/// A digit of a value's key.
const DIGIT_BITS: u32 = 16;
const DIGITS: u32 = u64::BITS / DIGIT_BITS;
const DIGIT_MAX: u64 = (1 << DIGIT_BITS) - 1;

/// The value that `n` others stand before when all are sorted, NaNs before all, equal ones as they came.
async fn nth(
    values: &[f64],
    mut n: usize,
    f: impl Fn(f64) -> f64 + Copy,
    pace: &mut Pace<'_>,
) -> Result<f64, QueryError> {
    let mut found = 0_u64;
    for digit in (0..DIGITS).rev() {
        let shift = digit * DIGIT_BITS;
        let mut counts = vec![0_usize; 1 << DIGIT_BITS];
        let count = |value: f64| {
            let key = key(f(value)) >> shift;
            if key >> DIGIT_BITS == found {
                counts[(key & DIGIT_MAX) as usize] += 1;
            }
        };
        each(values, count, pace).await?;
        let mut place = 0;
        while n >= counts[place] {
            n -= counts[place];
            place += 1;
        }
        found = found << DIGIT_BITS | place as u64;
    }
    if found != key(0.0) {
        return Ok(value_of(found));
    }
    // Zeros are equal, but not the same: as many stand before it as are left.
    let mut zero = None;
    let look = |value: f64| {
        let value = f(value);
        if value == 0.0 && zero.is_none() {
            zero = (n == 0).then_some(value);
            n = n.saturating_sub(1);
        }
    };
    each(values, look, pace).await?;
    Ok(zero.unwrap_or_default())
}

/// A number that ascends with the value, NaNs first.
fn key(value: f64) -> u64 {
    if value.is_nan() {
        return 0;
    }
    // Of both zeros the same.
    let bits = (value + 0.0).to_bits();
    match bits >> 63 {
        0 => bits | 1 << 63,
        _ => !bits,
    }
}

fn value_of(key: u64) -> f64 {
    match (key, key >> 63) {
        (0, _) => f64::NAN,
        (_, 1) => f64::from_bits(key ^ 1 << 63),
        _ => f64::from_bits(!key),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::super::over_time::of_windows;
    use super::*;
    use crate::eval::pace::tests::at_ease;

    fn one() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -1e3..1e3,
            3 => (-2i32..3).prop_map(f64::from),
            2 => prop_oneof![Just(0.0), Just(-0.0)],
            1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(f64::NAN)],
            1 => prop_oneof![Just(f64::MAX), Just(f64::MIN_POSITIVE), Just(-5e-324)],
        ]
    }

    proptest! {
        #[test]
        fn a_long_window_gives_what_a_short_one_does(
            values in prop::collection::vec(one(), 1..60),
            q in -0.2..1.2,
        ) {
            let window = Window {
                times: &[],
                values: &values,
                falls: &[],
                falls_from: 0,
                start: 0,
                end: 0,
                now: 0,
                range_ms: 0,
                scalars: &[q],
            };
            for name in [
                "quantile_over_time", "mad_over_time", "sum_over_time", "avg_over_time",
                "stddev_over_time", "stdvar_over_time",
            ] {
                let whole = of_windows(name).unwrap()(&window).unwrap();
                let found = at_ease(|pace| value(name, &window, pace).now_or_never());
                let found = found.unwrap().unwrap().unwrap();
                let is_same = whole.to_bits() == found.to_bits() || whole.is_nan() && found.is_nan();
                prop_assert!(is_same, "{name}: {whole} {found}");
            }
        }
    }
}
