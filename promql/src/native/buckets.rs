//! A histogram's buckets one by one, with their bounds.

use model::Histogram;
use model::histogram::Span;

use super::bounds;

/// How many observations lie between two bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    pub lower: f64,
    pub upper: f64,
    pub lower_inclusive: bool,
    pub upper_inclusive: bool,
    pub count: f64,
}

impl Bucket {
    /// Which bounds belong to the bucket, as the HTTP API numbers it: 0 the upper one, 1 the lower
    /// one, 2 neither, 3 both.
    pub fn boundary_rule(&self) -> u8 {
        match (self.lower_inclusive, self.upper_inclusive) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        }
    }
}

/// The buckets that counted something, from the lowest to the highest: what the HTTP API shows as
/// `buckets: [[boundary_rule, lower, upper, count], …]`.
pub fn buckets(histogram: &Histogram) -> Vec<Bucket> {
    let mut buckets = all(histogram);
    buckets.retain(|bucket| bucket.count != 0.0);
    buckets
}

/// Negative buckets, the zero bucket if it counted something, positive buckets; also empty ones.
/// Where a bucket reaches into the zero bucket it begins behind it.
pub(super) fn all(histogram: &Histogram) -> Vec<Bucket> {
    let threshold = histogram.zero_threshold;
    let mut buckets = overlapping(histogram);
    if histogram.zero_count.is_nan() || histogram.zero_count < 0.0 {
        buckets.retain(|bucket| bucket.lower != -threshold || bucket.upper != threshold);
    }
    for bucket in &mut buckets {
        if bucket.upper < 0.0 && bucket.upper > -threshold {
            bucket.upper = -threshold;
        } else if bucket.lower > 0.0 && bucket.lower < threshold {
            bucket.lower = threshold;
        }
    }
    buckets
}

/// The same with each bucket's own bounds, and with a zero bucket below zero.
pub(super) fn overlapping(histogram: &Histogram) -> Vec<Bucket> {
    let threshold = histogram.zero_threshold;
    let negative = indexed(&histogram.negative_spans, &histogram.negative_buckets);
    let positive = indexed(&histogram.positive_spans, &histogram.positive_buckets);
    let mut buckets = Vec::with_capacity(negative.len() + positive.len() + 1);
    for &(index, count) in negative.iter().rev() {
        buckets.push(negative_bucket(histogram, index, count));
    }
    if histogram.zero_count != 0.0 {
        buckets.push(Bucket {
            lower: -threshold,
            upper: threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: histogram.zero_count,
        });
    }
    for &(index, count) in &positive {
        buckets.push(positive_bucket(histogram, index, count));
    }
    buckets
}

fn positive_bucket(histogram: &Histogram, index: i32, count: f64) -> Bucket {
    let upper = upper_bound(histogram, index);
    let lower = upper_bound(histogram, index.saturating_sub(1));
    let is_custom = histogram.uses_custom_buckets();
    Bucket {
        lower,
        upper,
        lower_inclusive: if is_custom { index == 0 } else { lower < 0.0 },
        upper_inclusive: is_custom || upper > 0.0,
        count,
    }
}

fn negative_bucket(histogram: &Histogram, index: i32, count: f64) -> Bucket {
    let mirrored = positive_bucket(histogram, index, count);
    let (lower, upper) = (-mirrored.upper, -mirrored.lower);
    Bucket {
        lower,
        upper,
        lower_inclusive: lower < 0.0,
        upper_inclusive: upper > 0.0,
        count,
    }
}

/// Where a positive bucket ends.
fn upper_bound(histogram: &Histogram, index: i32) -> f64 {
    if !histogram.uses_custom_buckets() {
        return bounds::exponential(index, histogram.schema);
    }
    let bound = |index: usize| histogram.custom_values.get(index).copied();
    match usize::try_from(index) {
        Ok(index) => bound(index).unwrap_or(f64::INFINITY),
        Err(_) => f64::NEG_INFINITY,
    }
}

/// Counts with the index of their bucket, ascending.
pub(super) fn indexed(spans: &[Span], counts: &[f64]) -> Vec<(i32, f64)> {
    let mut indexed = Vec::with_capacity(counts.len());
    let mut counts = counts.iter();
    let mut index = 0_i32;
    for span in spans {
        index = index.saturating_add(span.offset);
        for &count in counts.by_ref().take(span.length as usize) {
            indexed.push((index, count));
            index = index.saturating_add(1);
        }
    }
    indexed
}

/// Spans and counts of buckets by ascending index; empty buckets are left out.
pub(super) fn spanned(indexed: &[(i32, f64)]) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut counts) = (Vec::<Span>::new(), Vec::with_capacity(indexed.len()));
    let mut end = 0_i32;
    for &(index, count) in indexed.iter().filter(|(_, count)| *count != 0.0) {
        match spans.last_mut() {
            Some(span) if index == end => span.length += 1,
            _ => spans.push(Span {
                offset: index.saturating_sub(end),
                length: 1,
            }),
        }
        counts.push(count);
        end = index.saturating_add(1);
    }
    (spans, counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(offset: i32, length: u32) -> Span {
        Span { offset, length }
    }

    #[test]
    fn buckets_ascend_from_negative_to_positive() {
        let histogram = Histogram {
            zero_threshold: 0.001,
            zero_count: 1.0,
            count: 8.0,
            sum: 3.0,
            positive_spans: vec![span(0, 2), span(1, 1)],
            positive_buckets: vec![1.0, 0.0, 2.0],
            negative_spans: vec![span(-1, 1)],
            negative_buckets: vec![4.0],
            ..Histogram::default()
        };
        let shown: Vec<_> = buckets(&histogram)
            .iter()
            .map(|b| (b.boundary_rule(), b.lower, b.upper, b.count))
            .collect();
        assert_eq!(
            shown,
            [
                (1, -0.5, -0.25, 4.0),
                (3, -0.001, 0.001, 1.0),
                (0, 0.5, 1.0, 1.0),
                (0, 4.0, 8.0, 2.0)
            ]
        );
    }

    #[test]
    fn custom_bounds_begin_and_end_at_infinity() {
        let histogram = Histogram {
            schema: model::histogram::CUSTOM_SCHEMA,
            custom_values: vec![5.0, 10.0],
            positive_spans: vec![span(0, 3)],
            positive_buckets: vec![1.0, 2.0, 3.0],
            ..Histogram::default()
        };
        let shown: Vec<_> = buckets(&histogram)
            .iter()
            .map(|b| (b.boundary_rule(), b.lower, b.upper, b.count))
            .collect();
        assert_eq!(
            shown,
            [
                (3, f64::NEG_INFINITY, 5.0, 1.0),
                (0, 5.0, 10.0, 2.0),
                (0, 10.0, f64::INFINITY, 3.0)
            ]
        );
    }

    #[test]
    fn spans_are_told_without_empty_buckets() {
        let indexed = [(-2, 1.0), (-1, 2.0), (0, 0.0), (1, 3.0), (7, 4.0)];
        let (spans, counts) = spanned(&indexed);
        assert_eq!(spans, [span(-2, 2), span(1, 1), span(5, 1)]);
        assert_eq!(counts, [1.0, 2.0, 3.0, 4.0]);
        let again = super::indexed(&spans, &counts);
        assert_eq!(again, [(-2, 1.0), (-1, 2.0), (1, 3.0), (7, 4.0)]);
    }
}
