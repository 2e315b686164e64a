//! What the observations in a histogram's buckets probably were: quantiles, fractions, spread.
//!
//! Inside a bucket observations are taken to lie evenly, on a logarithmic scale where buckets are
//! exponential and linearly where they are custom or around zero.

use model::Histogram;

use super::buckets::{Bucket, all};
use super::exp2::exp2;
use crate::eval::{KahanSum, log2};

/// Whether NaN was observed, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nans {
    No,
    /// The quantile is among them.
    Result,
    /// They count as larger than everything else.
    Skew,
}

/// The φ-quantile.
pub(crate) fn quantile(q: f64, histogram: &Histogram) -> (f64, Nans) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, Nans::No);
    }
    if q > 1.0 {
        return (f64::INFINITY, Nans::No);
    }
    if histogram.count == 0.0 || q.is_nan() {
        return (f64::NAN, Nans::No);
    }
    // Observed NaNs are in no bucket and count as the largest, so ranks go up from the smallest.
    let is_forward = histogram.sum.is_nan() || q < 0.5;
    let mut buckets = all(histogram);
    if !is_forward {
        buckets.reverse();
    }
    let rank = histogram.count * if is_forward { q } else { 1.0 - q };
    let (mut count, mut bucket, mut left) = (0.0, None, buckets.iter());
    for found in left.by_ref() {
        if found.count == 0.0 {
            continue;
        }
        bucket = Some(*found);
        count += found.count;
        if count >= rank {
            break;
        }
    }
    let mut bucket = bucket.or(buckets.last().copied()).unwrap_or(EMPTY);
    if histogram.uses_custom_buckets() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, Nans::No);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, Nans::No);
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        one_sided(histogram, &mut bucket);
    }
    // Rounding may have counted more than there are.
    count = count.min(histogram.count);
    if count < rank {
        return match histogram.sum.is_nan() {
            true => (f64::NAN, Nans::Result),
            false => (bucket.upper, Nans::No),
        };
    }
    let rank = if is_forward {
        rank - (count - bucket.count)
    } else {
        count - rank
    };
    let mut nans = Nans::No;
    if histogram.sum.is_nan() {
        let in_buckets = left.fold(count, |count, bucket| count + bucket.count);
        if in_buckets < histogram.count {
            nans = Nans::Skew;
        }
    }
    (interpolate(histogram, &bucket, rank / bucket.count), nans)
}

const EMPTY: Bucket = Bucket {
    lower: 0.0,
    upper: 0.0,
    lower_inclusive: false,
    upper_inclusive: false,
    count: 0.0,
};

/// A zero bucket reaches to one side only where there are no buckets on the other.
fn one_sided(histogram: &Histogram, bucket: &mut Bucket) {
    let (negative, positive) = (&histogram.negative_buckets, &histogram.positive_buckets);
    if negative.is_empty() && !positive.is_empty() {
        bucket.lower = 0.0;
    } else if positive.is_empty() && !negative.is_empty() {
        bucket.upper = 0.0;
    }
}

fn interpolate(histogram: &Histogram, bucket: &Bucket, fraction: f64) -> f64 {
    let &Bucket { lower, upper, .. } = bucket;
    if histogram.uses_custom_buckets() || lower <= 0.0 && upper >= 0.0 {
        return lower + (upper - lower) * fraction;
    }
    let (log_lower, log_upper) = (log2(lower.abs()), log2(upper.abs()));
    if lower > 0.0 {
        exp2(log_lower + (log_upper - log_lower) * fraction)
    } else {
        -exp2(log_upper + (log_lower - log_upper) * (1.0 - fraction))
    }
}

/// How many of all observations lie between `lower` and `upper`, and whether some were NaN.
pub(crate) fn fraction(lower: f64, upper: f64, histogram: &Histogram) -> (f64, bool) {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    if lower >= upper {
        return (0.0, false);
    }
    let (mut rank, mut counted) = (0.0, 0.0);
    let (mut lower_rank, mut upper_rank) = (None, None);
    let buckets = all(histogram);
    let mut left = buckets.iter();
    for bucket in left.by_ref() {
        let mut bucket = *bucket;
        counted += bucket.count;
        let is_zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
        if is_zero {
            one_sided(histogram, &mut bucket);
        }
        let is_linear = is_zero || histogram.uses_custom_buckets();
        for (bound, at) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if at.is_none() {
                *at = rank_in(&bucket, bound, rank, is_linear);
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += bucket.count;
    }
    let mut has_nans = false;
    if histogram.sum.is_nan() {
        counted = left.fold(counted, |count, bucket| count + bucket.count);
        has_nans = counted < histogram.count;
    } else {
        // Buckets may hold fewer: some are lost where one inside the zero bucket was added.
        counted = histogram.count;
    }
    let [lower_rank, upper_rank] = [lower_rank, upper_rank]
        .map(|at| at.map_or(counted, |at| if at > counted { counted } else { at }));
    ((upper_rank - lower_rank) / histogram.count, has_nans)
}

/// How many observations are below `bound`, if that is before the bucket's end; `rank` of them are
/// in the buckets before.
fn rank_in(bucket: &Bucket, bound: f64, rank: f64, is_linear: bool) -> Option<f64> {
    let &Bucket {
        lower,
        upper,
        count,
        ..
    } = bucket;
    if lower >= bound {
        return Some(rank);
    }
    if upper <= bound {
        return None;
    }
    if is_linear {
        return Some(rank + count * (bound - lower) / (upper - lower));
    }
    let (log_lower, log_upper) = (log2(lower.abs()), log2(upper.abs()));
    let log = log2(bound.abs());
    let fraction = if bound > 0.0 {
        (log - log_lower) / (log_upper - log_lower)
    } else {
        1.0 - (log - log_upper) / (log_lower - log_upper)
    };
    Some(rank + count * fraction)
}

/// The variance, every observation taken for the middle of its bucket.
pub(crate) fn variance(histogram: &Histogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let mut variance = KahanSum::default();
    for bucket in all(histogram) {
        if bucket.count == 0.0 {
            continue;
        }
        let delta = middle(histogram, &bucket) - mean;
        variance.add(bucket.count * delta * delta);
    }
    variance.value() / histogram.count
}

fn middle(histogram: &Histogram, bucket: &Bucket) -> f64 {
    let &Bucket { lower, upper, .. } = bucket;
    if histogram.uses_custom_buckets() {
        return (upper + lower) / 2.0;
    }
    if lower <= 0.0 && upper >= 0.0 {
        return 0.0;
    }
    let middle = (upper * lower).sqrt();
    if upper < 0.0 { -middle } else { middle }
}

#[cfg(test)]
mod tests {
    use model::histogram::Span;

    use super::*;

    /// Beside the observations in its buckets it counted two more.
    fn lacking(sum: f64) -> Histogram {
        Histogram {
            count: 10.0,
            sum,
            positive_spans: vec![Span {
                offset: 1,
                length: 2,
            }],
            positive_buckets: vec![4.0, 4.0],
            ..Histogram::default()
        }
    }

    #[test]
    fn what_is_in_no_bucket_counts_as_the_largest() {
        let infinite = f64::NEG_INFINITY;
        assert_eq!(fraction(infinite, 1e9, &lacking(1.0)), (1.0, false));
        assert_eq!(fraction(infinite, 2.0, &lacking(1.0)), (0.4, false));
        // Far inside the bucket that has no end the numbers overflow, as in Prometheus.
        let custom = Histogram {
            schema: model::histogram::CUSTOM_SCHEMA,
            custom_values: vec![1.0],
            positive_spans: vec![Span {
                offset: 0,
                length: 2,
            }],
            ..lacking(1.0)
        };
        assert!(fraction(0.0, 1e308, &custom).0.is_nan());
        // Unless it was NaN, which is told.
        assert_eq!(fraction(infinite, 1e9, &lacking(f64::NAN)), (0.8, true));
    }
}
