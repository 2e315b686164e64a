//! What each histogram of a series is to the one before it.
//!
//! A reader takes every histogram of a chunk but the first for one whose counts did not fall; of
//! the first it compares the counts itself. So the cuts of chunks and the hints of plain samples
//! follow from these steps. Rules: `appendable` of Prometheus' histogram chunks
//! (tsdb/chunkenc, 3.5).

use std::cmp::Ordering;

use model::Histogram;
use model::histogram::{ResetHint, indexed};

/// From one histogram to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing fell (or it is a gauge, like the one before): they may share a chunk.
    Continues,
    /// Not comparable.
    Parts,
    /// The counter began anew.
    Resets,
}

/// The step from `previous` to `next`.
pub fn step(previous: &Histogram, next: &Histogram) -> Step {
    let is_gauge = |h: &Histogram| h.reset_hint == ResetHint::Gauge;
    let same_scale =
        previous.schema == next.schema && same(previous.zero_threshold, next.zero_threshold);
    if previous.is_integer != next.is_integer || is_gauge(previous) != is_gauge(next) {
        return Step::Parts;
    }
    if is_gauge(next) {
        let same_bounds = all_same(&previous.custom_values, &next.custom_values);
        let alive = !previous.is_stale() || next.is_stale();
        return match alive && same_scale && same_bounds {
            true => Step::Continues,
            false => Step::Parts,
        };
    }
    match next.reset_hint == ResetHint::CounterReset {
        true => return Step::Resets,
        false if next.is_stale() => return Step::Continues,
        false if previous.is_stale() => return Step::Parts,
        false => {}
    }
    // Of two integer histograms, as of here.
    let exact = previous.integers.is_some() || next.integers.is_some();
    let count_falls = match exact {
        true => next.whole_count() < previous.whole_count(),
        false => next.count < previous.count,
    };
    if count_falls {
        return Step::Resets;
    }
    if !same_scale {
        return Step::Parts;
    }
    let bounds_change = !all_same(&previous.custom_values, &next.custom_values);
    let falls = match exact {
        true => {
            next.whole_zero_count() < previous.whole_zero_count()
                || any_falls(
                    indexed(&previous.positive_spans, previous.whole_positive()),
                    indexed(&next.positive_spans, next.whole_positive()),
                )
                || any_falls(
                    indexed(&previous.negative_spans, previous.whole_negative()),
                    indexed(&next.negative_spans, next.whole_negative()),
                )
        }
        false => {
            next.zero_count < previous.zero_count
                || any_falls(
                    indexed(&previous.positive_spans, floats(&previous.positive_buckets)),
                    indexed(&next.positive_spans, floats(&next.positive_buckets)),
                )
                || any_falls(
                    indexed(&previous.negative_spans, floats(&previous.negative_buckets)),
                    indexed(&next.negative_spans, floats(&next.negative_buckets)),
                )
        }
    };
    match bounds_change || falls {
        true => Step::Resets,
        false => Step::Continues,
    }
}

/// Whether a reader may be told the two with one description of their buckets.
pub fn same_layout(a: &Histogram, b: &Histogram) -> bool {
    a.schema == b.schema
        && same(a.zero_threshold, b.zero_threshold)
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && all_same(&a.custom_values, &b.custom_values)
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}

fn all_same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(*a, *b))
}

/// Whether a bucket of `previous` has fewer observations in `next`.
fn any_falls<C: PartialOrd + Default + Copy>(
    previous: impl Iterator<Item = (i64, C)>,
    next: impl Iterator<Item = (i64, C)>,
) -> bool {
    let mut next = next.peekable();
    for (index, count) in previous {
        while next
            .next_if(|(i, _)| i.cmp(&index) == Ordering::Less)
            .is_some()
        {}
        let now = match next.peek() {
            Some((i, now)) if *i == index => *now,
            _ => C::default(),
        };
        if now < count {
            return true;
        }
    }
    false
}

fn floats(buckets: &[f64]) -> impl Iterator<Item = f64> {
    buckets.iter().copied()
}

#[cfg(test)]
mod tests {
    use model::histogram::{Integers, Span};
    use model::sample::STALE_NAN;

    use super::*;

    fn histogram(counts: &[(i32, f64)]) -> Histogram {
        let mut end = 0;
        let mut spans = Vec::new();
        for (index, _) in counts {
            spans.push(Span {
                offset: index - end,
                length: 1,
            });
            end = index + 1;
        }
        Histogram {
            is_integer: true,
            count: counts.iter().map(|(_, c)| c).sum(),
            positive_spans: spans,
            positive_buckets: counts.iter().map(|(_, c)| *c).collect(),
            ..Histogram::default()
        }
    }

    #[test]
    fn steps_are_told_apart() {
        let base = histogram(&[(0, 2.0), (3, 1.0)]);
        let stale = Histogram {
            is_integer: true,
            sum: STALE_NAN,
            ..Histogram::default()
        };
        let gauge = |h: &Histogram| Histogram {
            reset_hint: ResetHint::Gauge,
            ..h.clone()
        };
        let reset = Histogram {
            reset_hint: ResetHint::CounterReset,
            ..base.clone()
        };
        let other_schema = Histogram {
            schema: 1,
            ..base.clone()
        };
        let float = Histogram {
            is_integer: false,
            ..base.clone()
        };
        for (previous, next, expected) in [
            (&base, &base, Step::Continues),
            (
                &base,
                &histogram(&[(0, 2.0), (1, 1.0), (3, 1.0)]),
                Step::Continues,
            ),
            (&base, &histogram(&[(0, 5.0)]), Step::Resets),
            (&base, &histogram(&[(0, 1.0), (3, 5.0)]), Step::Resets),
            (&base, &histogram(&[(0, 2.0)]), Step::Resets),
            (&base, &reset, Step::Resets),
            (&base, &other_schema, Step::Parts),
            (&base, &float, Step::Parts),
            (&base, &stale, Step::Continues),
            (&stale, &stale, Step::Continues),
            (&stale, &base, Step::Parts),
            (&gauge(&base), &gauge(&histogram(&[])), Step::Continues),
            (&gauge(&base), &base, Step::Parts),
            (&base, &gauge(&base), Step::Parts),
        ] {
            assert_eq!(step(previous, next), expected, "{previous:?} {next:?}");
        }
    }

    #[test]
    fn integers_fall_where_floats_stay() {
        let of = |count: u64, zero_count, positive, negative| {
            let mut histogram = histogram(&[(0, 1.0)]);
            histogram.negative_spans = histogram.positive_spans.clone();
            histogram.set_integers(Integers {
                count,
                zero_count,
                positive_buckets: vec![positive],
                negative_buckets: vec![negative],
            });
            histogram
        };
        let (large, most) = ((1 << 53) + 2, u64::MAX);
        let base = of(most, 1 << 60, large, large);
        assert_eq!(step(&base, &base), Step::Continues);
        for fallen in [
            of(most - 1, 1 << 60, large, large),
            of(most, (1 << 60) - 1, large, large),
            of(most, 1 << 60, large - 1, large),
            of(most, 1 << 60, large, large - 1),
        ] {
            assert_eq!(step(&base, &fallen), Step::Resets, "{fallen:?}");
            assert_eq!(step(&fallen, &base), Step::Continues, "{fallen:?}");
        }
    }
}
