//! Whether a counter began anew between two histograms, and whether two are the same.

use model::Histogram;
use model::histogram::Span;

use super::arithmetic::{Sum, reduced};
use super::bounds;
use super::buckets::indexed;

/// Whether the counter behind `current` was reset after `previous`: something has become smaller
/// that never does. What the writer said of resets does not matter: Prometheus' chunks keep of the
/// hints only whether it is a gauge, and its queries compare the counts.
pub fn detects_reset(current: &Histogram, previous: &Histogram) -> bool {
    let is_other = current.count < previous.count
        || current.uses_custom_buckets() != previous.uses_custom_buckets()
        || current.custom_values != previous.custom_values
        || current.schema > previous.schema
        || current.zero_threshold < previous.zero_threshold;
    if is_other {
        return true;
    }
    let (zero_count, threshold) = Sum::zero_up_to(previous, current.zero_threshold);
    if threshold != current.zero_threshold || current.zero_count < zero_count {
        return true;
    }
    let sides = |h: &Histogram| {
        [
            indexed(&h.positive_spans, &h.positive_buckets),
            indexed(&h.negative_spans, &h.negative_buckets),
        ]
    };
    let compared = |h: &Histogram, side: Vec<(i32, f64)>| comparable(h, side, current);
    let pairs = sides(current).into_iter().zip(sides(previous));
    pairs
        .map(|(now, before)| (compared(current, now), compared(previous, before)))
        .any(|(now, before)| has_lost(&now, &before))
}

/// The buckets outside the zero bucket, in the schema of `like`.
fn comparable(histogram: &Histogram, side: Vec<(i32, f64)>, like: &Histogram) -> Vec<(i32, f64)> {
    if like.uses_custom_buckets() {
        return side;
    }
    let mut side = match histogram.schema > like.schema {
        true => reduced(&side, histogram.schema, like.schema),
        false => side,
    };
    side.retain(|(index, _)| bounds::exponential(*index, like.schema) > like.zero_threshold);
    side
}

/// Whether a bucket counts less now than before. Behind the end of `now` Prometheus looks at the
/// first bucket only, and so do we.
fn has_lost(now: &[(i32, f64)], before: &[(i32, f64)]) -> bool {
    let mut now = now.iter().copied().peekable();
    for &(index, count) in before {
        while now.next_if(|(i, _)| *i < index).is_some() {}
        match now.peek() {
            None => return count != 0.0,
            Some(&(i, counted)) if i == index => {
                if counted < count {
                    return true;
                }
            }
            Some(_) if count != 0.0 => return true,
            Some(_) => {}
        }
    }
    false
}

/// Whether both have the same layout and counts; reset hints do not matter, and NaN counts equal
/// themselves by their bits.
pub(crate) fn equal(a: &Histogram, b: &Histogram) -> bool {
    same_beside_buckets(a, b)
        && same_spans(&a.positive_spans, &b.positive_spans)
        && same_spans(&a.negative_spans, &b.negative_spans)
        && all_same(&a.positive_buckets, &b.positive_buckets)
        && all_same(&a.negative_buckets, &b.negative_buckets)
}

/// Whether both counted the same, empty buckets aside: what a series' own histograms are compared
/// by. Prometheus reads those of a chunk with the same buckets, however each was written.
pub(crate) fn counted_same(a: &Histogram, b: &Histogram) -> bool {
    same_beside_buckets(a, b)
        && full(&a.positive_spans, &a.positive_buckets)
            .eq(full(&b.positive_spans, &b.positive_buckets))
        && full(&a.negative_spans, &a.negative_buckets)
            .eq(full(&b.negative_spans, &b.negative_buckets))
}

/// Whether all is the same but what stands in buckets with a sign.
fn same_beside_buckets(a: &Histogram, b: &Histogram) -> bool {
    a.schema == b.schema
        && same(a.count, b.count)
        && same(a.sum, b.sum)
        && a.zero_threshold == b.zero_threshold
        && same(a.zero_count, b.zero_count)
        && all_same(&a.custom_values, &b.custom_values)
}

/// Index and bits of the buckets that counted something.
fn full(spans: &[Span], buckets: &[f64]) -> impl Iterator<Item = (i32, u64)> {
    let counted = indexed(spans, buckets).into_iter();
    counted
        .filter(|(_, count)| *count != 0.0)
        .map(|(index, count)| (index, count.to_bits()))
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}

fn all_same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| same(a, b))
}

/// Whether spans describe the same buckets, spans of no buckets aside.
fn same_spans(a: &[Span], b: &[Span]) -> bool {
    let full = |spans: &[Span]| {
        let mut full = Vec::with_capacity(spans.len());
        let mut gap = 0_i64;
        for span in spans {
            gap += i64::from(span.offset);
            if span.length > 0 {
                full.push((std::mem::take(&mut gap), span.length));
            }
        }
        full
    };
    a == b || full(a) == full(b)
}

#[cfg(test)]
mod tests {
    use model::histogram::ResetHint;

    use super::*;

    fn of(schema: i32, offset: i32, counts: &[f64]) -> Histogram {
        Histogram {
            schema,
            count: counts.iter().sum(),
            positive_spans: vec![Span {
                offset,
                length: counts.len() as u32,
            }],
            positive_buckets: counts.to_vec(),
            ..Histogram::default()
        }
    }

    #[test]
    fn what_a_counter_never_does_is_a_reset() {
        let before = of(1, 0, &[1.0, 2.0, 3.0]);
        assert!(!detects_reset(&of(1, 0, &[1.0, 2.0, 3.0]), &before));
        assert!(!detects_reset(&of(1, 0, &[2.0, 2.0, 4.0, 1.0]), &before));
        assert!(detects_reset(&of(1, 0, &[0.0, 9.0, 9.0]), &before));
        assert!(detects_reset(&of(1, 0, &[1.0, 2.0]), &before));
        // Coarser buckets may come without a reset, finer ones never do.
        assert!(!detects_reset(&of(0, 0, &[3.0, 5.0]), &before));
        assert!(detects_reset(&of(2, 0, &[9.0, 9.0, 9.0]), &before));
    }

    #[test]
    fn what_a_writer_says_of_resets_does_not_matter() {
        let before = of(0, 1, &[2.0]);
        let hinted = |reset_hint, count| Histogram {
            reset_hint,
            ..of(0, 1, &[count])
        };
        assert!(!detects_reset(
            &hinted(ResetHint::CounterReset, 3.0),
            &before
        ));
        assert!(detects_reset(
            &hinted(ResetHint::NotCounterReset, 1.0),
            &before
        ));
        assert!(detects_reset(&hinted(ResetHint::Gauge, 1.0), &before));
    }

    #[test]
    fn an_empty_bucket_is_no_change() {
        let whole = of(0, 1, &[2.0, 0.0, 1.0, 0.0]);
        let cut = Histogram {
            positive_spans: [(1, 1), (1, 1)]
                .map(|(offset, length)| Span { offset, length })
                .to_vec(),
            positive_buckets: vec![2.0, 1.0],
            ..whole.clone()
        };
        assert!(counted_same(&whole, &cut) && !equal(&whole, &cut));
        assert!(!counted_same(&whole, &of(0, 1, &[2.0, 1.0, 0.0, 0.0])));
    }

    #[test]
    fn spans_of_nothing_do_not_matter() {
        let whole = of(0, 1, &[1.0, 2.0]);
        let cut = Histogram {
            positive_spans: [(0, 0), (1, 2), (5, 0)]
                .map(|(offset, length)| Span { offset, length })
                .to_vec(),
            ..whole.clone()
        };
        assert!(equal(&whole, &cut));
        assert!(!equal(&whole, &of(0, 0, &[1.0, 2.0])));
        assert!(!equal(&whole, &of(0, 1, &[1.0, 3.0])));
    }
}
