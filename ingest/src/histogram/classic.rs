//! A classic histogram's buckets, count and sum as one histogram with custom bounds.
//!
//! Rules: prometheus.io/docs/specs/native_histograms (NHCB), and what Prometheus 3.5 makes of
//! series that do not fit one another: nothing.

use model::Histogram;
use model::histogram::{CUSTOM_SCHEMA, Span};

use super::buckets::compact;
use super::check::check;

/// Collects the series of one histogram.
#[derive(Debug, Default, Clone)]
pub struct Classic {
    /// Upper bound and cumulative count, by bound.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
    /// Whether counts were negative or not cumulative.
    broken: bool,
}

impl Classic {
    /// Adds a bucket; the first of one bound stays.
    pub fn set_bucket(&mut self, bound: f64, count: f64) {
        let behind = self.buckets.partition_point(|(b, _)| *b < bound);
        if self.buckets.get(behind).is_some_and(|(b, _)| *b == bound) {
            return;
        }
        let before = behind.checked_sub(1).and_then(|at| self.buckets.get(at));
        let next = self.buckets.get(behind);
        let cumulative =
            before.is_none_or(|(_, c)| *c <= count) && next.is_none_or(|(_, c)| count <= *c);
        if count < 0.0 || !cumulative {
            self.broken = true;
        }
        self.buckets.insert(behind, (bound, count));
    }

    pub fn set_count(&mut self, count: f64) {
        self.broken |= count < 0.0;
        self.count = Some(count);
    }

    pub fn set_sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// The histogram; `None` when the parts make none.
    pub fn convert(mut self) -> Option<Histogram> {
        let highest = self.buckets.last().map_or(0.0, |(_, count)| *count);
        let count = self.count.unwrap_or(highest);
        if self.buckets.last().is_none_or(|(b, _)| *b != f64::INFINITY) {
            self.set_bucket(f64::INFINITY, count);
        }
        let (_, highest) = *self.buckets.last()?;
        if self.broken || highest != count {
            return None;
        }
        let whole = |count: f64| count.round() == count && count < 9e15;
        let is_integer = self.buckets.iter().all(|(_, count)| whole(*count));
        let mut before = 0.0;
        let counts = self
            .buckets
            .iter()
            .map(|(_, count)| count - std::mem::replace(&mut before, *count));
        let mut histogram = Histogram {
            is_integer,
            schema: CUSTOM_SCHEMA,
            count,
            sum: self.sum,
            positive_buckets: counts.collect(),
            positive_spans: vec![Span {
                offset: 0,
                length: u32::try_from(self.buckets.len()).ok()?,
            }],
            ..Histogram::default()
        };
        self.buckets.pop();
        histogram.custom_values = self.buckets.iter().map(|(bound, _)| *bound).collect();
        // As Prometheus: integers keep gaps of two.
        compact(&mut histogram, if is_integer { 2 } else { 0 });
        check(&histogram).is_ok().then_some(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classic(buckets: &[(f64, f64)], count: Option<f64>) -> Option<Histogram> {
        let mut classic = Classic::default();
        for &(bound, count) in buckets {
            classic.set_bucket(bound, count);
        }
        if let Some(count) = count {
            classic.set_count(count);
        }
        classic.set_sum(12.5);
        classic.convert()
    }

    /// Bounds, buckets and kind as prometheus 3.5.3 shows them for the same series.
    #[test]
    fn cumulative_counts_become_buckets() {
        let inf = f64::INFINITY;
        let histogram = classic(&[(5.0, 4.0), (1.0, 2.0), (inf, 5.0)], Some(5.0)).unwrap();
        assert!(histogram.is_integer);
        assert_eq!(histogram.custom_values, [1.0, 5.0]);
        assert_eq!(histogram.positive_buckets, [2.0, 2.0, 1.0]);
        assert_eq!((histogram.count, histogram.sum), (5.0, 12.5));
        let no_top = classic(&[(1.0, 2.0)], Some(5.0)).unwrap();
        assert_eq!(no_top.positive_buckets, [2.0, 3.0]);
        let no_count = classic(&[(1.0, 2.0), (inf, 3.0)], None).unwrap();
        assert_eq!(no_count.count, 3.0);
        let floats = classic(&[(1.0, 2.5), (2.0, 2.5), (inf, 3.0)], Some(3.0)).unwrap();
        assert!(!floats.is_integer);
        assert_eq!(floats.positive_buckets, [2.5, 0.5]);
    }

    #[test]
    fn what_does_not_fit_is_no_histogram() {
        let inf = f64::INFINITY;
        assert_eq!(classic(&[(1.0, 2.0), (inf, 5.0)], Some(6.0)), None);
        assert_eq!(
            classic(&[(1.0, 3.0), (2.0, 2.0), (inf, 5.0)], Some(5.0)),
            None
        );
        assert_eq!(
            classic(&[(2.0, 2.0), (1.0, 3.0), (inf, 5.0)], Some(5.0)),
            None
        );
        assert_eq!(classic(&[(1.0, -1.0), (inf, 5.0)], Some(5.0)), None);
    }
}
