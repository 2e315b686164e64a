//! Counts of values by size, four classes for each doubling: what openraft counts its batches with.
//!
//! It stands in for the crate of this name, which makes tables of all sixteen precisions it knows when it is
//! first used: 26 MB in every process, of which openraft needs one kilobyte. Here are the names that
//! openraft says without its feature `runtime-stats`, and no others; written anew, nothing is copied.
//! docs/adr/0034-memory-of-a-series.md tells when this goes.

use std::fmt;
use std::marker::PhantomData;

/// Classes of a doubling.
const PARTS_LOG2: u32 = 2;
const PARTS: u64 = 1 << PARTS_LOG2;

/// How often values of each class were recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// By class, as far as there are any.
    counts: Vec<u64>,
    of: PhantomData<T>,
}

/// Values that so many of all do not exceed, each to a quarter of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

/// Histograms with their names, a line for each.
#[derive(Debug, Default, Clone)]
pub struct AsciiChart(Vec<(String, Histogram)>);

impl<T> Histogram<T> {
    pub fn new() -> Self {
        Self {
            counts: Vec::new(),
            of: PhantomData,
        }
    }

    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// The same value so many times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let class = class_of(value);
        if class >= self.counts.len() {
            self.counts.resize(class + 1, 0);
        }
        self.counts[class] += count;
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The least value of the class in which the `per_mille`th part of all values ends; 0 of none.
    fn part(&self, per_mille: u64) -> u64 {
        let wanted = (self.total() * per_mille).div_ceil(1_000).max(1);
        let mut sum = 0;
        let ends = |count: &u64| {
            sum += count;
            sum >= wanted
        };
        self.counts.iter().position(ends).map_or(0, least_of)
    }

    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.part(1),
            p1: self.part(10),
            p5: self.part(50),
            p10: self.part(100),
            p50: self.part(500),
            p90: self.part(900),
            p99: self.part(990),
            p99_9: self.part(999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl AsciiChart {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "the name that is called")]
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.0.push((name.to_owned(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.0 {
            writeln!(f, "{name}: {}", histogram.percentile_stats())?;
        }
        Ok(())
    }
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            samples,
            p50,
            p90,
            p99,
            p99_9,
            ..
        } = self;
        write!(
            f,
            "{samples} values, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}"
        )
    }
}

/// Below [`PARTS`] a value is its own class; behind it the highest bit and the two below it say which.
fn class_of(value: u64) -> usize {
    let class = match value.checked_ilog2() {
        Some(highest) if highest >= PARTS_LOG2 => {
            let doubling = u64::from(highest - PARTS_LOG2 + 1);
            doubling * PARTS + (value >> (highest - PARTS_LOG2)) % PARTS
        }
        _ => value,
    };
    class as usize
}

fn least_of(class: usize) -> u64 {
    let (doubling, part) = (class as u64 / PARTS, class as u64 % PARTS);
    match doubling.checked_sub(1) {
        None => part,
        Some(shift) => (PARTS + part) << shift,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_begins_with_its_least_value() {
        let all = (0..5_000).chain([u64::MAX, 1 << 63, (1 << 40) - 1]);
        for value in all {
            let (class, least) = (class_of(value), least_of(class_of(value)));
            assert!(least <= value && value - least <= value / 4, "{value}");
            assert_eq!(class_of(least), class);
            assert!(least == 0 || class_of(least - 1) + 1 == class, "{value}");
        }
    }

    #[test]
    fn parts_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        (1..=1_000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p1), (1_000, 1, 10));
        assert_eq!((stats.p50, stats.p99_9), (448, 896));
        let chart = AsciiChart::new().add("batches", histogram).to_string();
        assert_eq!(
            chart,
            "batches: 1000 values, p50 448, p90 896, p99 896, p99.9 896\n"
        );
    }
}
