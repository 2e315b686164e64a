//! Buckets and their spans: compaction, and one bucket for two by a lower schema.
//!
//! Promise: no observation is lost or moved to a bucket that does not contain it. Spans come out
//! as Prometheus lays them out, so that equal histograms have equal bytes.

use model::Histogram;
use model::histogram::{Integers, SCHEMA_MAX, SCHEMA_MIN, Span, indexed};

/// How much a bucket counts.
pub trait Count: Copy + Default + PartialEq {
    fn plus(self, more: Self) -> Self;
}

impl Count for f64 {
    fn plus(self, more: Self) -> Self {
        self + more
    }
}

/// Wraps, as in Prometheus: a count below zero is refused by the check to come.
impl Count for i64 {
    fn plus(self, more: Self) -> Self {
        self.wrapping_add(more)
    }
}

/// Collects buckets in ascending order into spans.
#[derive(Default)]
struct Layout<C> {
    spans: Vec<Span>,
    buckets: Vec<C>,
    /// Index of the last bucket.
    last: i64,
}

impl<C: Count> Layout<C> {
    /// Adds the count to the bucket at `index`, which is the last one or behind it. A gap of up to
    /// `gap_max` buckets is filled.
    fn add(&mut self, index: i64, count: C, gap_max: i64) {
        let gap = index - self.last - 1;
        match (self.spans.last_mut(), self.buckets.last_mut()) {
            (Some(_), Some(bucket)) if gap == -1 => *bucket = bucket.plus(count),
            (Some(span), Some(_)) if gap <= gap_max => {
                span.length = span.length.saturating_add(gap as u32 + 1);
                self.buckets.extend((0..gap).map(|_| C::default()));
                self.buckets.push(count);
            }
            (last, _) => {
                let offset = if last.is_some() { gap } else { index };
                let offset = i32::try_from(offset).unwrap_or(i32::MAX);
                self.spans.push(Span { offset, length: 1 });
                self.buckets.push(count);
            }
        }
        self.last = index;
    }
}

/// Spans and buckets of counts with ascending indexes; up to two empty buckets are kept where that
/// spares a span.
pub fn lay_out<C: Count>(counts: impl Iterator<Item = (i64, C)>) -> (Vec<Span>, Vec<C>) {
    let mut layout = Layout::default();
    for (index, count) in counts.filter(|(_, count)| *count != C::default()) {
        layout.add(index, count, 2);
    }
    (layout.spans, layout.buckets)
}

/// What buckets count that came as differences, each to the one before it.
pub fn absolute(mut deltas: Vec<i64>) -> Vec<i64> {
    let mut count = 0i64;
    for delta in &mut deltas {
        count = count.wrapping_add(*delta);
        *delta = count;
    }
    deltas
}

/// Drops empty buckets, but keeps up to `gap_max` of them where that spares a span.
pub fn compact(histogram: &mut Histogram, gap_max: u8) {
    let gap_max = gap_max.into();
    change(histogram, &Change::Compact { gap_max });
}

/// Merges buckets until the exponential schema is `schema`; a histogram of a lower one, or with
/// custom bounds, stays as it is.
pub fn reduce_resolution(histogram: &mut Histogram, schema: i32) {
    if histogram.uses_custom_buckets() || histogram.schema <= schema {
        return;
    }
    // Indexes have 32 bits: a shift by more finds every one in bucket 0 or 1.
    let shift = (i64::from(histogram.schema) - i64::from(schema)).min(40);
    histogram.schema = schema;
    change(histogram, &Change::Merge { shift });
}

/// What becomes of the buckets of a side.
enum Change {
    Compact { gap_max: i64 },
    Merge { shift: i64 },
}

impl Change {
    fn of<C: Count>(&self, counts: impl Iterator<Item = (i64, C)>) -> Layout<C> {
        let mut layout = Layout::default();
        for (index, count) in counts {
            match *self {
                Self::Compact { .. } if count == C::default() => {}
                Self::Compact { gap_max } => layout.add(index, count, gap_max),
                Self::Merge { shift } => layout.add(((index - 1) >> shift) + 1, count, 0),
            }
        }
        layout
    }
}

/// Integers are added as integers; where nothing is added, floats do as well if they tell them.
fn change(histogram: &mut Histogram, change: &Change) {
    let adds = matches!(change, Change::Merge { .. });
    if histogram.is_integer && (adds || histogram.integers.is_some()) {
        let positive = change.of(indexed(
            &histogram.positive_spans,
            histogram.whole_positive(),
        ));
        let negative = change.of(indexed(
            &histogram.negative_spans,
            histogram.whole_negative(),
        ));
        (histogram.positive_spans, histogram.negative_spans) = (positive.spans, negative.spans);
        histogram.set_integers(Integers {
            count: histogram.whole_count(),
            zero_count: histogram.whole_zero_count(),
            positive_buckets: positive.buckets,
            negative_buckets: negative.buckets,
        });
        return;
    }
    let side = |spans: &[Span], buckets: &[f64]| {
        let layout = change.of(indexed(spans, buckets.iter().copied()));
        (layout.spans, layout.buckets)
    };
    (histogram.positive_spans, histogram.positive_buckets) =
        side(&histogram.positive_spans, &histogram.positive_buckets);
    (histogram.negative_spans, histogram.negative_buckets) =
        side(&histogram.negative_spans, &histogram.negative_buckets);
}

/// Lowers the schema until at most `limit` buckets are left.
pub fn limit_buckets(histogram: &mut Histogram, limit: u64) -> Result<(), TooManyBuckets> {
    let count =
        |h: &Histogram| (h.positive_buckets.len() as u64) + (h.negative_buckets.len() as u64);
    while count(histogram) > limit {
        if histogram.uses_custom_buckets() || histogram.schema <= SCHEMA_MIN {
            return Err(TooManyBuckets);
        }
        let schema = histogram.schema - 1;
        reduce_resolution(histogram, schema);
    }
    Ok(())
}

/// More buckets than allowed, at the lowest resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("histogram bucket limit exceeded")]
pub struct TooManyBuckets;

/// The lowest schema whose buckets grow by no more than `factor`; at most 1: any schema.
pub fn schema_for_factor(factor: f64) -> i32 {
    if factor.is_nan() || factor <= 1.0 {
        return SCHEMA_MAX;
    }
    let exponent = factor.log2().log2().floor();
    (-exponent).clamp(SCHEMA_MIN.into(), SCHEMA_MAX.into()) as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram(schema: i32, spans: &[(i32, u32)], buckets: &[f64]) -> Histogram {
        let spans = spans
            .iter()
            .map(|&(offset, length)| Span { offset, length });
        Histogram {
            schema,
            positive_spans: spans.collect(),
            positive_buckets: buckets.to_vec(),
            ..Histogram::default()
        }
    }

    fn spans(histogram: &Histogram) -> Vec<(i32, u32)> {
        let spans = histogram.positive_spans.iter();
        spans.map(|s| (s.offset, s.length)).collect()
    }

    #[test]
    fn empty_buckets_go_where_a_span_costs_less() {
        let sparse = histogram(0, &[(-2, 3), (0, 0), (1, 4)], &[0., 1., 0., 2., 0., 0., 3.]);
        let mut tight = sparse.clone();
        compact(&mut tight, 0);
        assert_eq!(spans(&tight), [(-1, 1), (2, 1), (2, 1)]);
        assert_eq!(tight.positive_buckets, [1., 2., 3.]);
        let mut loose = sparse;
        compact(&mut loose, 2);
        assert_eq!(spans(&loose), [(-1, 7)]);
        assert_eq!(loose.positive_buckets, [1., 0., 0., 2., 0., 0., 3.]);
    }

    #[test]
    fn two_buckets_become_one() {
        // Bucket i of schema 1 ends at 2^(i/2): -1 and 0 are (0.5, 1], 1 and 2 are (1, 2].
        let mut fine = histogram(1, &[(-1, 4), (4, 1)], &[1., 2., 3., 4., 5.]);
        reduce_resolution(&mut fine, 0);
        assert_eq!(spans(&fine), [(0, 2), (2, 1)]);
        assert_eq!(fine.positive_buckets, [3., 7., 5.]);
    }

    #[test]
    fn limits_lower_the_schema_or_refuse() {
        let many = histogram(0, &[(0, 40)], &[1.0; 40]);
        let mut limited = many.clone();
        assert_eq!(limit_buckets(&mut limited, 11), Ok(()));
        assert_eq!((limited.schema, limited.positive_buckets.len()), (-2, 11));
        assert_eq!(limit_buckets(&mut many.clone(), 2), Err(TooManyBuckets));
        for (factor, schema) in [(0.0, 8), (1.001, 8), (1.1, 3), (2.0, 0), (1e9, -4)] {
            assert_eq!(schema_for_factor(factor), schema, "{factor}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(
            parts in prop::collection::vec((0i32..6, 0u32..4), 0..5),
            counts in prop::collection::vec(0u8..4, 20),
            start in -70i32..70,
            schema in -3i32..=8,
            gap in 0u8..4,
        ) {
            let mut parts = parts;
            if let Some(first) = parts.first_mut() { first.0 = start; }
            let length: u32 = parts.iter().map(|p| p.1).sum();
            let counts: Vec<f64> = counts.iter().take(length as usize).map(|c| f64::from(*c)).collect();
            let original = histogram(schema, &parts, &counts);
            prop_assert_eq!(original.validate(), Ok(()));
            let mut compacted = original.clone();
            compact(&mut compacted, gap);
            prop_assert_eq!(compacted.validate(), Ok(()));
            let full = |h: &Histogram| -> Vec<(i64, f64)> {
                indexed(&h.positive_spans, h.positive_buckets.iter().copied()).filter(|(_, c)| *c != 0.0).collect()
            };
            prop_assert_eq!(full(&compacted), full(&original));
            let mut reduced = original.clone();
            reduce_resolution(&mut reduced, schema - 1);
            prop_assert_eq!(reduced.validate(), Ok(()));
            let mut slow = std::collections::BTreeMap::new();
            for (index, count) in full(&original) {
                *slow.entry((index as f64 / 2.0).ceil() as i64).or_insert(0.0) += count;
            }
            prop_assert_eq!(full(&reduced), slow.into_iter().collect::<Vec<_>>());

            // Integers likewise, also those that are no floats.
            let large = |bucket: &f64| (*bucket as i64) << 54 | (*bucket as i64) >> 1;
            let mut exact = original.clone();
            exact.set_integers(Integers {
                count: u64::MAX,
                zero_count: 7,
                positive_buckets: original.positive_buckets.iter().map(large).collect(),
                negative_buckets: Vec::new(),
            });
            let whole = |h: &Histogram| -> Vec<(i64, i64)> {
                indexed(&h.positive_spans, h.whole_positive()).filter(|(_, c)| *c != 0).collect()
            };
            let mut compacted = exact.clone();
            compact(&mut compacted, gap);
            prop_assert_eq!(compacted.validate(), Ok(()));
            prop_assert_eq!(whole(&compacted), whole(&exact));
            let mut reduced = exact.clone();
            reduce_resolution(&mut reduced, schema - 1);
            prop_assert_eq!(reduced.validate(), Ok(()));
            let mut slow = std::collections::BTreeMap::new();
            for (index, count) in whole(&exact) {
                *slow.entry((index as f64 / 2.0).ceil() as i64).or_insert(0) += count;
            }
            prop_assert_eq!(whole(&reduced), slow.into_iter().collect::<Vec<_>>());
            prop_assert_eq!((reduced.whole_count(), reduced.whole_zero_count()), (u64::MAX, 7));
        }
    }

    #[test]
    fn what_two_floats_tell_may_be_no_float_together() {
        let mut fine = histogram(1, &[(1, 2)], &[]);
        fine.set_integers(Integers {
            count: (1 << 53) + 1,
            zero_count: 0,
            positive_buckets: vec![1 << 53, 1],
            negative_buckets: Vec::new(),
        });
        reduce_resolution(&mut fine, 0);
        assert!(fine.whole_positive().eq([(1 << 53) + 1]));
    }
}
