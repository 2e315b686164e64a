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
    Growths::new(kind).next(window)
}

/// Growths of windows in turn. Mostly samples and instants lie at even distances, and what the distances in
/// one window give holds for the next one.
#[derive(Debug)]
pub(super) struct Growths {
    kind: Kind,
    last: Option<(Distances, Extent)>,
}

impl Growths {
    pub fn new(kind: Kind) -> Self {
        Self { kind, last: None }
    }

    /// Of the next window; `None` when it needs more samples.
    pub fn next(&mut self, window: &Window<'_>) -> Option<f64> {
        let mut growth = Growth::of(window)?;
        if self.kind.is_counter() {
            let end = window.falls_from + window.values.len();
            let inside = window.falls.iter().take_while(|at| (**at as usize) < end);
            inside.for_each(|at| growth.add_fall(window, *at));
        }
        let distances = Distances::of(window)?;
        let extent = match self.last {
            Some((same, extent)) if same == distances => extent,
            _ => distances.extent(self.kind),
        };
        self.last = Some((distances, extent));
        Some(growth.over(&extent, self.kind))
    }
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

    pub fn extrapolated(&self, window: &Window<'_>, kind: Kind) -> Option<f64> {
        let extent = Distances::of(window)?.extent(kind);
        Some(self.over(&extent, kind))
    }

    fn over(&self, extent: &Extent, kind: Kind) -> f64 {
        let to_zero = match kind.is_counter() {
            true => extent.zero_before(self.first, self.growth),
            false => None,
        };
        self.growth * to_zero.map_or(extent.factor, |to_zero| extent.factor_from(to_zero))
    }
}

/// What growth between the first and the last sample is multiplied by, so that it is the growth of
/// the whole window, of something that is no counter.
pub(super) fn extrapolation(window: &Window<'_>, kind: Kind) -> f64 {
    Distances::of(window).map_or(f64::NAN, |distances| distances.extent(kind).factor)
}

/// Where in a window its samples lie, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Distances {
    to_start: i64,
    sampled: i64,
    to_end: i64,
    range: i64,
    samples: usize,
}

impl Distances {
    fn of(window: &Window<'_>) -> Option<Self> {
        let (first, last) = (window.times.first()?, window.times.last()?);
        Some(Self {
            to_start: first.0 - window.start,
            sampled: last.0 - first.0,
            to_end: window.end - last.0,
            range: window.range_ms,
            samples: window.times.len(),
        })
    }

    /// Samples close to an end of the window extend to it. Close means: not further than 1.1 times the
    /// average distance between samples. Further away, half a distance is added.
    fn extent(self, kind: Kind) -> Extent {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let sampled = seconds(self.sampled);
        let average = sampled / (self.samples - 1) as f64;
        let bounded = |distance: f64| match distance >= average * 1.1 {
            true => average / 2.0,
            false => distance,
        };
        let mut extent = Extent {
            sampled,
            to_start: bounded(seconds(self.to_start)),
            to_end: bounded(seconds(self.to_end)),
            divisor: (kind == Kind::Rate).then(|| seconds(self.range)),
            factor: 0.0,
        };
        extent.factor = extent.factor_from(extent.to_start);
        extent
    }
}

/// How far growth extends, in seconds.
#[derive(Debug, Clone, Copy)]
struct Extent {
    sampled: f64,
    to_start: f64,
    to_end: f64,
    /// Of a rate.
    divisor: Option<f64>,
    /// What growth is multiplied by.
    factor: f64,
}

impl Extent {
    fn factor_from(&self, to_start: f64) -> f64 {
        let factor = (self.sampled + to_start + self.to_end) / self.sampled;
        self.divisor.map_or(factor, |divisor| factor / divisor)
    }

    /// How far before its first sample a counter was zero, if growth would extend further than that.
    fn zero_before(&self, first: f64, growth: f64) -> Option<f64> {
        let may_be = growth > 0.0 && first >= 0.0;
        // Then the division need not be done: rounding keeps the order.
        let is_far = first >= growth && self.sampled >= self.to_start;
        if !may_be || is_far {
            return None;
        }
        let to_zero = self.sampled * (first / growth);
        (to_zero < self.to_start).then_some(to_zero)
    }
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
