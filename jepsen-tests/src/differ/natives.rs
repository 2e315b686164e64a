//! How native histograms run: each is the one before with observations added, sometimes after a
//! reset, with buckets that come, schemas that change, and staleness markers between.

use model::Histogram;
use model::histogram::{CUSTOM_SCHEMA, ResetHint, Span};

use super::shapes::stale_histogram;
use crate::splitmix::SplitMix64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Float,
    Gauge,
    Custom,
    /// Custom buckets with other bounds.
    CustomOther,
}

/// Dense buckets from index -6 on: what every side has at most.
const WIDTH: usize = 12;
const FIRST: i32 = -6;

/// From the coarsest to the finest, those that clients choose more often.
const SCHEMAS: [i32; 10] = [-4, -2, -1, -1, 0, 0, 1, 2, 3, 8];
/// None, the least, what client_golang chooses, and one that buckets lie in.
const THRESHOLDS: [f64; 5] = [0.0, 1e-128, 2.938735877055719e-39, 0.001, 0.6];

/// One series' histograms, one after the other.
pub struct Run {
    kind: Kind,
    /// What the writer says of resets, which need not be right.
    said: ResetHint,
    schema: i32,
    zero_threshold: f64,
    positive: [f64; WIDTH],
    negative: [f64; WIDTH],
    zero: f64,
    sum: f64,
}

impl Run {
    pub fn new(dice: &mut SplitMix64, kind: Kind) -> Self {
        Self {
            kind,
            said: ResetHint::Unknown,
            schema: one_of(dice, &SCHEMAS),
            zero_threshold: one_of(dice, &THRESHOLDS),
            positive: [0.0; WIDTH],
            negative: [0.0; WIDTH],
            zero: 0.0,
            sum: 0.0,
        }
    }

    pub fn next(&mut self, dice: &mut SplitMix64) -> Histogram {
        match dice.between(0, 100) {
            0 => return stale_histogram(),
            1 | 2 => self.reset(dice),
            3 if !self.is_custom() => self.schema = one_of(dice, &SCHEMAS),
            _ => {}
        }
        if self.kind == Kind::Gauge {
            self.reset(dice);
        }
        for _ in 0..dice.between(0, 6) {
            self.observe(dice);
        }
        // One that says "reset" would make Prometheus begin a chunk, with other buckets of nothing.
        self.said = match dice.between(0, 20) {
            0 => ResetHint::NotCounterReset,
            _ => ResetHint::Unknown,
        };
        self.histogram()
    }

    fn is_custom(&self) -> bool {
        matches!(self.kind, Kind::Custom | Kind::CustomOther)
    }

    fn reset(&mut self, dice: &mut SplitMix64) {
        *self = Self {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            ..Self::new(dice, self.kind)
        };
    }

    fn observe(&mut self, dice: &mut SplitMix64) {
        let weight = match self.kind {
            Kind::Float | Kind::Gauge => dice.between(1, 9) as f64 / 4.0,
            _ => 1.0,
        };
        let bucket = dice.between(0, WIDTH as u64) as usize;
        let custom_width = self.bounds().len() + 1;
        self.sum += (bucket as f64 - 3.0) * weight * 0.7;
        match (self.is_custom(), dice.between(0, 10)) {
            (true, _) => self.positive[bucket % custom_width] += weight,
            (false, 0) => self.zero += weight,
            (false, 1 | 2) => self.negative[bucket] += weight,
            (false, _) => self.positive[bucket] += weight,
        }
    }

    fn bounds(&self) -> Vec<f64> {
        match self.kind {
            Kind::Custom => vec![0.1, 0.5, 1.0, 2.5, 10.0],
            Kind::CustomOther => vec![-1.0, 0.5, 2.0, 10.0],
            _ => Vec::new(),
        }
    }

    fn histogram(&self) -> Histogram {
        let first = if self.is_custom() { 0 } else { FIRST };
        let (positive_spans, positive_buckets) = sparse(&self.positive, first);
        let (negative_spans, negative_buckets) = sparse(&self.negative, first);
        let buckets = positive_buckets.iter().chain(&negative_buckets);
        Histogram {
            is_integer: !matches!(self.kind, Kind::Float | Kind::Gauge),
            reset_hint: match self.kind {
                Kind::Gauge => ResetHint::Gauge,
                _ => self.said,
            },
            schema: match self.is_custom() {
                true => CUSTOM_SCHEMA,
                false => self.schema,
            },
            zero_threshold: if self.is_custom() {
                0.0
            } else {
                self.zero_threshold
            },
            zero_count: self.zero,
            count: buckets.sum::<f64>() + self.zero,
            sum: self.sum,
            positive_spans,
            positive_buckets,
            negative_spans,
            negative_buckets,
            custom_values: self.bounds(),
            integers: None,
        }
    }
}

fn one_of<T: Copy>(dice: &mut SplitMix64, all: &[T]) -> T {
    all[dice.between(0, all.len() as u64) as usize]
}

/// Spans over what is not empty.
fn sparse(counts: &[f64; WIDTH], first: i32) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut buckets = Vec::new();
    let mut end = 0;
    for (index, count) in (first..).zip(counts).filter(|(_, count)| **count != 0.0) {
        buckets.push(*count);
        match spans.last_mut() {
            Some(last) if index == end => last.length += 1,
            _ => spans.push(Span {
                offset: index - end,
                length: 1,
            }),
        }
        end = index + 1;
    }
    (spans, buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_describe_what_is_not_empty() {
        let mut counts = [0.0; WIDTH];
        (counts[0], counts[1], counts[5]) = (1.0, 2.0, 3.0);
        let (spans, buckets) = sparse(&counts, -6);
        let spans: Vec<_> = spans.iter().map(|s| (s.offset, s.length)).collect();
        assert_eq!(spans, [(-6, 2), (3, 1)]);
        assert_eq!(buckets, [1.0, 2.0, 3.0]);
    }

    #[test]
    fn every_kind_makes_valid_histograms() {
        use Kind::{Custom, CustomOther, Float, Gauge, Integer};
        let mut dice = SplitMix64::new(5);
        for kind in [Integer, Float, Gauge, Custom, CustomOther] {
            let mut run = Run::new(&mut dice, kind);
            for _ in 0..500 {
                run.next(&mut dice).validate().unwrap();
            }
        }
    }
}
