//! How fast something grows: `rate` and its kin, and regression lines.

use super::super::kahan::Sum;
use super::over_time::Window;

/// Which growth is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of a counter, by second.
    Rate,
    /// Of a counter.
    Increase,
    /// Of anything.
    Delta,
}

impl Kind {
    pub fn is_counter(self) -> bool {
        self != Self::Delta
    }
}

/// The growth over a window, extrapolated to its ends.
pub(super) fn extrapolated(window: &Window<'_>, kind: Kind) -> Option<f64> {
    let (&first, &last) = (window.values.first()?, window.values.last()?);
    if window.values.len() < 2 {
        return None;
    }
    let mut growth = last - first;
    if kind.is_counter() {
        let end = window.falls_from + window.values.len();
        let inside = window.falls.iter().map(|at| *at as usize);
        for at in inside.take_while(|at| *at < end) {
            growth += window.values[at - window.falls_from - 1];
        }
    }
    let counter = kind.is_counter().then_some((first, growth));
    Some(growth * extrapolation(window, kind, counter))
}

/// What growth between the first and the last sample is multiplied by, so that it is the growth of
/// the whole window; of a counter with its first value and its growth.
///
/// Samples close to an end of the window extend to it. Close means: not further than 1.1 times the
/// average distance between samples. Further away, half a distance is added, and for counters never
/// beyond the instant at which they were zero.
pub(super) fn extrapolation(window: &Window<'_>, kind: Kind, counter: Option<(f64, f64)>) -> f64 {
    let (Some(first_time), Some(last_time)) = (window.times.first(), window.times.last()) else {
        return f64::NAN;
    };
    let mut to_start = (first_time.0 - window.start) as f64 / 1000.0;
    let mut to_end = (window.end - last_time.0) as f64 / 1000.0;
    let sampled = (last_time.0 - first_time.0) as f64 / 1000.0;
    let average = sampled / (window.times.len() - 1) as f64;
    let close = average * 1.1;
    if to_start >= close {
        to_start = average / 2.0;
    }
    if let Some((first, growth)) = counter {
        let mut to_zero = to_start;
        if growth > 0.0 && first >= 0.0 {
            to_zero = sampled * (first / growth);
        }
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    if to_end >= close {
        to_end = average / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if kind == Kind::Rate {
        factor /= window.range_ms as f64 / 1000.0;
    }
    factor
}

/// The growth between the last two samples: by second for counters, plain otherwise.
pub(super) fn last_two(window: &Window<'_>, is_counter: bool) -> Option<f64> {
    let (&[.., before, last], &[.., before_time, last_time]) = (window.values, window.times) else {
        return None;
    };
    if !is_counter {
        return Some(last - before);
    }
    // After a reset the counter has grown from zero.
    let growth = if last < before { last } else { last - before };
    let interval_ms = last_time.0 - before_time.0;
    Some(growth / (interval_ms as f64 / 1000.0))
}

/// The slope of the regression line, by second.
pub(super) fn slope(window: &Window<'_>) -> Option<f64> {
    if window.values.len() < 2 {
        return None;
    }
    // Any instant near the samples does; one far away would cost digits.
    Some(regression(window, window.times.first()?.0).0)
}

/// Where the regression line will be in `seconds`.
pub(super) fn predict(window: &Window<'_>, seconds: f64) -> Option<f64> {
    if window.values.len() < 2 {
        return None;
    }
    let (slope, intercept) = regression(window, window.now);
    Some(slope * seconds + intercept)
}

/// Least squares: slope, and value at `origin`.
fn regression(window: &Window<'_>, origin: i64) -> (f64, f64) {
    let first = window.values[0];
    if window.values.iter().all(|&v| v == first) {
        return if first.is_infinite() {
            (f64::NAN, f64::NAN)
        } else {
            (0.0, first)
        };
    }
    let (mut n, mut x_sum, mut y_sum) = (0.0, Sum::default(), Sum::default());
    let (mut xy_sum, mut xx_sum) = (Sum::default(), Sum::default());
    for (time, &y) in window.times.iter().zip(window.values) {
        let x = time.0.saturating_sub(origin) as f64 / 1000.0;
        n += 1.0;
        x_sum.add(x);
        y_sum.add(y);
        xy_sum.add(x * y);
        xx_sum.add(x * x);
    }
    let (x, y) = (x_sum.value(), y_sum.value());
    let covariance = xy_sum.value() - x * y / n;
    let variance = xx_sum.value() - x * x / n;
    let slope = covariance / variance;
    (slope, y / n - slope * x / n)
}
