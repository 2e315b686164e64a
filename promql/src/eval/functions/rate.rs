//! How fast something grows: `rate` and its kin, and regression lines.

use model::Timestamp;

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
    let mut growth = Growth::of(window)?;
    if kind.is_counter() {
        let end = window.falls_from + window.values.len();
        let inside = window.falls.iter().take_while(|at| (**at as usize) < end);
        inside.for_each(|at| growth.add_fall(window, *at));
    }
    Some(growth.extrapolated(window, kind))
}

/// From the first sample of a window to the last one.
#[derive(Debug)]
pub(super) struct Growth {
    first: f64,
    growth: f64,
}

impl Growth {
    /// Without falls.
    pub fn of(window: &Window<'_>) -> Option<Self> {
        let [first, .., last] = *window.values else {
            return None;
        };
        Some(Self {
            first,
            growth: last - first,
        })
    }

    /// A counter began anew with the value at this place.
    pub fn add_fall(&mut self, window: &Window<'_>, at: u32) {
        self.growth += window.values[at as usize - window.falls_from - 1];
    }

    pub fn extrapolated(&self, window: &Window<'_>, kind: Kind) -> f64 {
        let counter = kind.is_counter().then_some((self.first, self.growth));
        self.growth * extrapolation(window, kind, counter)
    }
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
    Some(line(window, Regression::for_slope(window)?).slope)
}

/// Where the regression line will be in `seconds`.
pub(super) fn predict(window: &Window<'_>, seconds: f64) -> Option<f64> {
    Some(line(window, Regression::for_prediction(window)?).after(seconds))
}

fn line(window: &Window<'_>, mut regression: Regression) -> Line {
    let first = window.values[0];
    if window.values.iter().all(|&v| v == first) {
        return Line::level(first);
    }
    regression.add(window.times, window.values);
    regression.line()
}

/// Slope by second, and value at the origin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub slope: f64,
    intercept: f64,
}

impl Line {
    /// Through values that are all the same.
    pub fn level(value: f64) -> Self {
        let (slope, intercept) = match value.is_infinite() {
            true => (f64::NAN, f64::NAN),
            false => (0.0, value),
        };
        Self { slope, intercept }
    }

    pub fn after(self, seconds: f64) -> f64 {
        self.slope * seconds + self.intercept
    }
}

/// Least squares.
#[derive(Debug)]
pub(super) struct Regression {
    origin: i64,
    n: f64,
    x: Sum,
    y: Sum,
    xy: Sum,
    xx: Sum,
}

impl Regression {
    /// Any instant near the samples does for the origin; one far away would cost digits.
    pub fn for_slope(window: &Window<'_>) -> Option<Self> {
        Self::from(window, window.times.first()?.0)
    }

    pub fn for_prediction(window: &Window<'_>) -> Option<Self> {
        Self::from(window, window.now)
    }

    fn from(window: &Window<'_>, origin: i64) -> Option<Self> {
        (window.values.len() >= 2).then(|| Self {
            origin,
            n: 0.0,
            x: Sum::default(),
            y: Sum::default(),
            xy: Sum::default(),
            xx: Sum::default(),
        })
    }

    pub fn add(&mut self, times: &[Timestamp], values: &[f64]) {
        for (time, &y) in times.iter().zip(values) {
            let x = time.0.saturating_sub(self.origin) as f64 / 1000.0;
            self.n += 1.0;
            self.x.add(x);
            self.y.add(y);
            self.xy.add(x * y);
            self.xx.add(x * x);
        }
    }

    pub fn line(&self) -> Line {
        let (n, x, y) = (self.n, self.x.value(), self.y.value());
        let covariance = self.xy.value() - x * y / n;
        let variance = self.xx.value() - x * x / n;
        let slope = covariance / variance;
        Line {
            slope,
            intercept: y / n - slope * x / n,
        }
    }
}
