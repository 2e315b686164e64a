//! Windows of one series in turn.
//!
//! Promise: the same values, to the last bit, as the functions of [`super::over_time`] give of each window
//! alone. They take less, because windows are computed side by side or what one tells holds for the next.

use std::ops::Range;

use super::super::kahan::{LANES, Mean, Sum};
use super::over_time::Window;
use super::rate::{Growths, Kind};

/// How a function goes through the windows of a series.
pub(super) enum InTurn {
    Lanes(Lanes),
    Growths(Growths),
}

impl InTurn {
    /// Of the function of that name, if there is such a way.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "avg_over_time" => Self::Lanes(Lanes::new(Mean::of_lanes)),
            "sum_over_time" => {
                Self::Lanes(Lanes::new(|windows| Sum::of_lanes(windows).map(Sum::value)))
            }
            "rate" => Self::Growths(Growths::new(Kind::Rate)),
            "increase" => Self::Growths(Growths::new(Kind::Increase)),
            "delta" => Self::Growths(Growths::new(Kind::Delta)),
            _ => return None,
        })
    }

    /// Takes the window of a step, of floats alone, and writes to `results`, by step, what is known then.
    /// `values` are those of the whole series. Returns how many values the window has: one or none.
    pub fn take(
        &mut self,
        step: usize,
        window: &Window<'_>,
        values: &[f64],
        results: &mut [f64],
    ) -> u64 {
        match self {
            Self::Lanes(lanes) => {
                let from = window.falls_from;
                lanes.take(step, from..from + window.values.len(), values, results);
                1
            }
            Self::Growths(growths) => match growths.next(window) {
                Some(value) => {
                    results[step] = value;
                    1
                }
                None => 0,
            },
        }
    }

    /// Writes what is left, of the same series.
    pub fn finish(self, values: &[f64], results: &mut [f64]) {
        if let Self::Lanes(mut lanes) = self {
            lanes.write(values, results);
        }
    }
}

type OfLanes = fn([&[f64]; LANES]) -> [f64; LANES];

/// Windows that wait for others. The order of additions in one is Prometheus' and each waits for the one
/// before; those of other steps do not.
pub(super) struct Lanes {
    compute: OfLanes,
    /// Of each its step, and where its values are.
    waiting: Vec<(usize, Range<usize>)>,
}

impl Lanes {
    fn new(compute: OfLanes) -> Self {
        Self {
            compute,
            waiting: Vec::with_capacity(LANES),
        }
    }

    fn take(&mut self, step: usize, window: Range<usize>, values: &[f64], results: &mut [f64]) {
        self.waiting.push((step, window));
        if self.waiting.len() == LANES {
            self.write(values, results);
        }
    }

    fn write(&mut self, values: &[f64], results: &mut [f64]) {
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

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use proptest::prelude::*;

    use super::super::over_time::{falls, of_windows};
    use super::*;

    const NAMES: [&str; 5] = [
        "avg_over_time",
        "sum_over_time",
        "rate",
        "increase",
        "delta",
    ];

    fn one() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => 0.0..1e3,
            4 => (0u32..9).prop_map(f64::from),
            1 => -1e3..0.0,
            1 => prop_oneof![Just(-0.0), Just(f64::MAX), Just(f64::INFINITY), Just(f64::NAN)],
        ]
    }

    /// Prometheus' definition, step by step, of two samples or more.
    fn plainly(name: &str, window: &Window<'_>) -> f64 {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let (times, values) = (window.times, window.values);
        let (first, last) = (times[0].0, times[times.len() - 1].0);
        let mut growth = values[values.len() - 1] - values[0];
        if name != "delta" {
            for pair in values.windows(2).filter(|pair| pair[1] < pair[0]) {
                growth += pair[0];
            }
        }
        let (mut to_start, mut to_end) =
            (seconds(first - window.start), seconds(window.end - last));
        let sampled = seconds(last - first);
        let average = sampled / (times.len() - 1) as f64;
        if to_start >= average * 1.1 {
            to_start = average / 2.0;
        }
        if name != "delta" && growth > 0.0 && values[0] >= 0.0 {
            let to_zero = sampled * (values[0] / growth);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        if to_end >= average * 1.1 {
            to_end = average / 2.0;
        }
        let mut factor = (sampled + to_start + to_end) / sampled;
        if name == "rate" {
            factor /= seconds(window.range_ms);
        }
        growth * factor
    }

    proptest! {
        #[test]
        fn windows_in_turn_give_what_each_alone_does(
            samples in prop::collection::vec((prop_oneof![6 => Just(15_000), 1 => 1i64..90_000], one()), 1..60),
            range_ms in 1_000i64..200_000,
            step_ms in prop_oneof![Just(30_000i64), 1i64..90_000],
        ) {
            let mut at = 0;
            let times = samples.iter().map(|(gap, _)| { at += gap; Timestamp(at) });
            let times: Vec<_> = times.collect();
            let values: Vec<_> = samples.iter().map(|(_, value)| *value).collect();
            let falls = falls(&values);
            for name in NAMES {
                let mut in_turn = InTurn::of(name).unwrap();
                let mut found = vec![None; 80];
                let mut results = vec![0.0; 80];
                let mut alone = vec![None; 80];
                for step in 0..80 {
                    let end = step as i64 * step_ms;
                    let to = times.partition_point(|time| time.0 <= end);
                    let from = times.partition_point(|time| time.0 <= end - range_ms);
                    if from == to {
                        continue;
                    }
                    let first_fall = falls.partition_point(|fall| *fall as usize <= from);
                    let window = Window {
                        times: &times[from..to],
                        values: &values[from..to],
                        falls: &falls[first_fall..],
                        falls_from: from,
                        start: end - range_ms,
                        end,
                        now: end,
                        range_ms,
                        scalars: &[],
                    };
                    let taken = in_turn.take(step, &window, &values, &mut results);
                    found[step] = (taken == 1).then_some(step);
                    alone[step] = of_windows(name).unwrap()(&window);
                    if !name.ends_with("_over_time") && to - from > 1 {
                        alone[step] = Some(plainly(name, &window));
                    }
                }
                in_turn.finish(&values, &mut results);
                let bits = |value: f64| if value.is_nan() { 0 } else { value.to_bits() };
                let found: Vec<_> = found.iter().map(|at| at.map(|at| bits(results[at]))).collect();
                let alone: Vec<_> = alone.iter().map(|value| value.map(bits)).collect();
                prop_assert_eq!(found, alone, "{}", name);
            }
        }
    }
}
