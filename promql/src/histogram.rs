//! The φ-quantile of a classic histogram: cumulative buckets, interpolated linearly.

use std::cmp::Ordering;

/// How many observations are at most `upper_bound`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bucket {
    pub upper_bound: f64,
    pub count: f64,
}

/// Relative difference below which counts of neighbouring buckets are taken for equal.
const SMALL_DIFFERENCE: f64 = 1e-12;

/// The quantile, and whether counts that fell from one bucket to the next had to be lifted.
pub(crate) fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, bool) {
    if q.is_nan() {
        return (f64::NAN, false);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, false);
    }
    if q > 1.0 {
        return (f64::INFINITY, false);
    }
    buckets.sort_by(|a, b| a.upper_bound.total_cmp(&b.upper_bound));
    if buckets
        .last()
        .is_none_or(|b| b.upper_bound != f64::INFINITY)
    {
        return (f64::NAN, false);
    }
    join_equal(buckets);
    let was_fixed = lift_falling(buckets);
    (interpolate(q, buckets), was_fixed)
}

fn interpolate(q: f64, buckets: &[Bucket]) -> f64 {
    let [.., before_last, last] = buckets else {
        return f64::NAN;
    };
    if last.count == 0.0 {
        return f64::NAN;
    }
    let mut rank = q * last.count;
    let finite = &buckets[..buckets.len() - 1];
    let reaches = |b: &Bucket| b.count.partial_cmp(&rank).is_some_and(Ordering::is_ge);
    let at = finite.partition_point(|b| !reaches(b));
    if at == finite.len() {
        return before_last.upper_bound;
    }
    let bucket = buckets[at];
    let Some(below) = at.checked_sub(1).map(|below| buckets[below]) else {
        // Nothing is known of how far below zero the first bucket reaches.
        if bucket.upper_bound <= 0.0 {
            return bucket.upper_bound;
        }
        return bucket.upper_bound * (rank / bucket.count);
    };
    rank -= below.count;
    let count = bucket.count - below.count;
    below.upper_bound + (bucket.upper_bound - below.upper_bound) * (rank / count)
}

/// The share of observations between `lower` and `upper`.
pub(crate) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    buckets.sort_by(|a, b| a.upper_bound.total_cmp(&b.upper_bound));
    join_equal(buckets);
    let Some(last) = buckets.last().filter(|b| b.upper_bound == f64::INFINITY) else {
        return f64::NAN;
    };
    let count = last.count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    // Not known within the lowest bucket, which has no lower bound: NaN, which stays.
    let rank = |bound: f64| match rank(bound, buckets) {
        Some(rank) if rank > count => count,
        Some(rank) => rank,
        None => count,
    };
    (rank(upper) - rank(lower)) / count
}

/// How many observations are below `bound`, if a bucket reaches behind it.
fn rank(bound: f64, buckets: &[Bucket]) -> Option<f64> {
    let (mut start, mut before) = (f64::NEG_INFINITY, 0.0);
    for bucket in buckets {
        if start >= bound {
            return Some(before);
        }
        if bucket.upper_bound > bound {
            // In this order: Prometheus' numbers overflow far inside the last bucket, and ours.
            let counted = (bucket.count - before) * (bound - start);
            return Some(before + counted / (bucket.upper_bound - start));
        }
        (start, before) = (bucket.upper_bound, bucket.count);
    }
    None
}

/// Adds up buckets with the same bound.
fn join_equal(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|next, kept| {
        let is_same = next.upper_bound == kept.upper_bound;
        if is_same {
            kept.count += next.count;
        }
        is_same
    });
}

/// Makes counts rise. Differences of rounding are evened out in silence.
fn lift_falling(buckets: &mut [Bucket]) -> bool {
    let mut was_fixed = false;
    let mut before = buckets.first().map_or(0.0, |b| b.count);
    for bucket in buckets.iter_mut().skip(1) {
        if bucket.count == before {
            continue;
        }
        if almost_equal(before, bucket.count) {
            bucket.count = before;
        } else if bucket.count < before {
            bucket.count = before;
            was_fixed = true;
        } else {
            before = bucket.count;
        }
    }
    was_fixed
}

fn almost_equal(a: f64, b: f64) -> bool {
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < SMALL_DIFFERENCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < SMALL_DIFFERENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        let bucket = |&(upper_bound, count): &(f64, f64)| Bucket { upper_bound, count };
        pairs.iter().map(bucket).collect()
    }

    #[test]
    fn ranks_inside_a_bucket_are_interpolated() {
        let all = [(f64::INFINITY, 12.0), (1.0, 5.0), (2.0, 10.0)];
        let at = |q| quantile(q, &mut buckets(&all)).0;
        assert_eq!(at(0.5), 1.2);
        assert_eq!(at(0.25), 0.6);
        assert_eq!(at(0.9), 2.0);
        assert_eq!(at(2.0), f64::INFINITY);
        assert!(at(f64::NAN).is_nan());
    }

    #[test]
    fn without_the_last_bucket_nothing_is_known() {
        assert!(quantile(0.5, &mut buckets(&[(1.0, 5.0)])).0.is_nan());
        assert!(
            quantile(0.5, &mut buckets(&[(f64::INFINITY, 5.0)]))
                .0
                .is_nan()
        );
        let empty = [(1.0, 0.0), (f64::INFINITY, 0.0)];
        assert!(quantile(0.5, &mut buckets(&empty)).0.is_nan());
    }

    #[test]
    fn falling_counts_are_lifted_and_told() {
        let falling = [(1.0, 5.0), (2.0, 3.0), (f64::INFINITY, 10.0)];
        assert_eq!(quantile(0.5, &mut buckets(&falling)), (1.0, true));
        let rounding = [(1.0, 5.0), (2.0, 5.0 - 1e-14), (f64::INFINITY, 10.0)];
        assert_eq!(quantile(0.5, &mut buckets(&rounding)), (1.0, false));
    }

    #[test]
    fn equal_bounds_are_one_bucket() {
        let twice = [(1.0, 2.0), (1.0, 3.0), (f64::INFINITY, 5.0)];
        assert_eq!(quantile(0.2, &mut buckets(&twice)).0, 0.2);
    }
}
