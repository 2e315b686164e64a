//! Sums and means of windows side by side.
//!
//! Promise: the same values, to the last bit, as the functions of [`super::over_time`] give of one window
//! after the other. The order of additions in a window is Prometheus' and each waits for the one before;
//! those in windows of other steps do not.

use std::ops::Range;

use super::super::kahan::{LANES, Mean, Sum};

type OfLanes = fn([&[f64]; LANES]) -> [f64; LANES];

/// Windows of one series that wait for others.
pub(super) struct Lanes {
    compute: OfLanes,
    /// Of each its step, and where its values are.
    waiting: Vec<(usize, Range<usize>)>,
}

impl Lanes {
    /// Of the function of that name, if it is one of those.
    pub fn of(name: &str) -> Option<Self> {
        let compute: OfLanes = match name {
            "avg_over_time" => Mean::of_lanes,
            "sum_over_time" => |windows| Sum::of_lanes(windows).map(Sum::value),
            _ => return None,
        };
        Some(Self {
            compute,
            waiting: Vec::with_capacity(LANES),
        })
    }

    /// Takes a window of a value or more; writes what was computed to `results`, by step.
    pub fn add(&mut self, step: usize, window: Range<usize>, values: &[f64], results: &mut [f64]) {
        self.waiting.push((step, window));
        if self.waiting.len() == LANES {
            self.finish(values, results);
        }
    }

    /// Writes what waits.
    pub fn finish(&mut self, values: &[f64], results: &mut [f64]) {
        let Some((_, last)) = self.waiting.last() else {
            return;
        };
        let of_lane = |lane| self.waiting.get(lane).map_or(last, |(_, window)| window);
        let windows = std::array::from_fn(|lane| &values[of_lane(lane).clone()]);
        let computed = (self.compute)(windows);
        for ((step, _), value) in self.waiting.drain(..).zip(computed) {
            results[step] = value;
        }
    }
}
