//! Windows of so many values that others must run while one is looked at.
//!
//! Promise: the same value, to the last bit, as the functions of [`super::over_time`] give of a window as a
//! whole. A quantile is not sorted for: which value has a rank is found digit by digit, by counting, so that
//! nothing is copied.

use super::super::Pace;
use super::super::kahan::{Mean, Sum};
use super::super::pace::turns;
use super::super::quantile::Rank;
use super::over_time::{Best, Smoothing, Spread, Window, count_pairs, has_changed, has_fallen};
use super::rate::{Growth, Kind, Line, Regression};
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
    Ok(match name {
        "min_over_time" => best(window, f64::lt, pace).await?.map(|best| best.value),
        "max_over_time" => best(window, f64::gt, pace).await?.map(|best| best.value),
        "ts_of_min_over_time" => seconds(best(window, f64::le, pace).await?),
        "ts_of_max_over_time" => seconds(best(window, f64::ge, pace).await?),
        "changes" => Some(pairs(values, has_changed, pace).await?),
        "resets" => Some(pairs(values, has_fallen, pace).await?),
        "rate" => extrapolated(window, Kind::Rate, pace).await?,
        "increase" => extrapolated(window, Kind::Increase, pace).await?,
        "deriv" => {
            let line = line(window, Regression::for_slope(window), pace).await?;
            line.map(|line| line.slope)
        }
        "predict_linear" => {
            let line = line(window, Regression::for_prediction(window), pace).await?;
            line.map(|line| line.after(window.first_scalar()))
        }
        "double_exponential_smoothing" => smoothed(window, pace).await?,
        "quantile_over_time" => Some(quantile(window.first_scalar(), values, |v| v, pace).await?),
        "mad_over_time" => {
            let median = quantile(0.5, values, |v| v, pace).await?;
            Some(quantile(0.5, values, |v| (v - median).abs(), pace).await?)
        }
        "sum_over_time" => Some(sum(values, pace).await?),
        "avg_over_time" => {
            let mut mean = Mean::default();
            each(values, |value| mean.add(value), pace).await?;
            Some(mean.value())
        }
        "stddev_over_time" => Some(spread(values, pace).await?.variance().sqrt()),
        "stdvar_over_time" => Some(spread(values, pace).await?.variance()),
        _ => None,
    })
}

async fn best(
    window: &Window<'_>,
    wins: fn(&f64, &f64) -> bool,
    pace: &mut Pace<'_>,
) -> Result<Option<Best>, QueryError> {
    let Some(mut best) = Best::first(window) else {
        return Ok(None);
    };
    for turn in turns(window.values.len()) {
        pace.spend(turn.len()).await?;
        // The first one may win against itself, which changes nothing.
        best = best.against(&window.times[turn.clone()], &window.values[turn], wins);
    }
    Ok(Some(best))
}

fn seconds(best: Option<Best>) -> Option<f64> {
    best.map(|best| best.time.seconds())
}

async fn pairs(
    values: &[f64],
    counts: fn(f64, f64) -> bool,
    pace: &mut Pace<'_>,
) -> Result<f64, QueryError> {
    let mut all = 0.0;
    for turn in turns(values.len()) {
        pace.spend(turn.len()).await?;
        // With the one before the first.
        let begin = turn.start.saturating_sub(1);
        all += count_pairs(&values[begin..turn.end], counts);
    }
    Ok(all)
}

async fn extrapolated(
    window: &Window<'_>,
    kind: Kind,
    pace: &mut Pace<'_>,
) -> Result<Option<f64>, QueryError> {
    let Some(mut growth) = Growth::of(window) else {
        return Ok(None);
    };
    let end = window.falls_from + window.values.len();
    let inside = window.falls.partition_point(|at| (*at as usize) < end);
    for turn in turns(inside) {
        pace.spend(turn.len()).await?;
        let falls = window.falls[turn].iter();
        falls.for_each(|at| growth.add_fall(window, *at));
    }
    Ok(growth.extrapolated(window, kind))
}

async fn line(
    window: &Window<'_>,
    regression: Option<Regression>,
    pace: &mut Pace<'_>,
) -> Result<Option<Line>, QueryError> {
    let (Some(mut regression), Some(&first)) = (regression, window.values.first()) else {
        return Ok(None);
    };
    let mut is_level = true;
    for turn in turns(window.values.len()) {
        pace.spend(turn.len()).await?;
        is_level = is_level && window.values[turn.clone()].iter().all(|v| *v == first);
        regression.add(&window.times[turn.clone()], &window.values[turn]);
    }
    Ok(Some(match is_level {
        true => Line::level(first),
        false => regression.line(),
    }))
}

async fn smoothed(window: &Window<'_>, pace: &mut Pace<'_>) -> Result<Option<f64>, QueryError> {
    let Some(mut smoothing) = Smoothing::of(window) else {
        return Ok(None);
    };
    let later = &window.values[Smoothing::FIRST..];
    each(later, |value| smoothing.add(value), pace).await?;
    Ok(Some(smoothing.level))
}

async fn sum(values: &[f64], pace: &mut Pace<'_>) -> Result<f64, QueryError> {
    let mut sum = Sum::default();
    if run(&mut sum, values, pace).await? {
        return Ok(sum.value());
    }
    let mut sum = Sum::default();
    each(values, |value| sum.add(value), pace).await?;
    Ok(sum.value())
}

async fn spread(values: &[f64], pace: &mut Pace<'_>) -> Result<Spread, QueryError> {
    let mut spread = Spread::default();
    each(values, |value| spread.add(value), pace).await?;
    Ok(spread)
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
    use model::Timestamp;
    use proptest::prelude::*;

    use super::super::over_time::{falls, of_windows};
    use super::*;
    use crate::eval::pace::tests::{at_ease, finish};

    fn one() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -1e3..1e3,
            3 => (-2i32..3).prop_map(f64::from),
            2 => prop_oneof![Just(0.0), Just(-0.0)],
            1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(f64::NAN)],
            1 => prop_oneof![Just(f64::MAX), Just(f64::MIN_POSITIVE), Just(-5e-324)],
        ]
    }

    /// All of them that look at more than an end of the window.
    const NAMES: [&str; 17] = [
        "min_over_time",
        "max_over_time",
        "ts_of_min_over_time",
        "ts_of_max_over_time",
        "changes",
        "resets",
        "rate",
        "increase",
        "deriv",
        "predict_linear",
        "double_exponential_smoothing",
        "quantile_over_time",
        "mad_over_time",
        "sum_over_time",
        "avg_over_time",
        "stddev_over_time",
        "stdvar_over_time",
    ];

    /// Both ways of `window`, as bits; all NaNs are the same.
    fn both(name: &str, window: &Window<'_>) -> [Option<u64>; 2] {
        let whole = of_windows(name).unwrap()(window);
        let found = at_ease(|pace| finish(value(name, window, pace)));
        [whole, found.unwrap()].map(|value| {
            value.map(|value| match value.is_nan() {
                true => f64::NAN.to_bits(),
                false => value.to_bits(),
            })
        })
    }

    fn window<'a>(
        times: &'a [Timestamp],
        values: &'a [f64],
        falls: &'a [u32],
        scalars: &'a [f64],
    ) -> Window<'a> {
        Window {
            times,
            values,
            falls,
            falls_from: 0,
            start: -7,
            end: times.last().map_or(0, |time| time.0),
            now: 3_000,
            range_ms: 60_000,
            scalars,
        }
    }

    proptest! {
        #[test]
        fn a_long_window_gives_what_a_short_one_does(
            values in prop::collection::vec(one(), 1..60),
            is_level in any::<bool>(),
            q in -0.2..1.2,
        ) {
            let values = match is_level {
                true => vec![values[0]; values.len()],
                false => values,
            };
            let times: Vec<_> = (0..).map(|at| Timestamp(at * 1_003)).take(values.len()).collect();
            let falls = falls(&values);
            for name in NAMES {
                let scalars = match name {
                    "double_exponential_smoothing" => &[q, 0.3][..],
                    _ => &[q],
                };
                let [whole, found] = both(name, &window(&times, &values, &falls, scalars));
                prop_assert_eq!(whole, found, "{}", name);
            }
        }
    }

    /// Where one turn ends and the next one begins nothing is left out or seen twice.
    #[test]
    fn turns_meet() {
        let values: Vec<f64> = (0..LONG + 50_001)
            .map(|at| [3.0, 1.5, 1.5, 7.25][at % 4])
            .collect();
        let times: Vec<_> = (0..)
            .map(|at| Timestamp(at * 15))
            .take(values.len())
            .collect();
        let falls = falls(&values);
        for name in NAMES {
            let scalars = match name {
                "double_exponential_smoothing" => &[0.4, 0.3][..],
                _ => &[0.3],
            };
            let [whole, found] = both(name, &window(&times, &values, &falls, scalars));
            assert_eq!(whole, found, "{name}");
        }
    }
}
