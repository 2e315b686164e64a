//! One form for native histograms that mean the same.
//!
//! Prometheus gives the histograms of a chunk one layout, and so some of them buckets that count
//! nothing; its log has them as they came. Without empty buckets both are the same bytes, and a
//! sample that is met twice, in a chunk and in the log, counts as stored.

use proto::remote::{BucketSpan, Histogram};

/// Takes the buckets out that count nothing.
pub fn compact(histogram: &mut Histogram) {
    let h = histogram;
    compact_side(
        &mut h.positive_spans,
        &mut h.positive_deltas,
        &mut h.positive_counts,
    );
    compact_side(
        &mut h.negative_spans,
        &mut h.negative_deltas,
        &mut h.negative_counts,
    );
}

/// Spans that do not fit their buckets are left alone: the node says what is wrong with them.
fn compact_side(spans: &mut Vec<BucketSpan>, deltas: &mut Vec<i64>, counts: &mut Vec<f64>) {
    let described: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if described != (deltas.len() + counts.len()) as u64 {
        return;
    }
    let integers = deltas.iter().scan(0i64, |count, delta| {
        *count = count.wrapping_add(*delta);
        Some(*count)
    });
    let integers: Vec<i64> = integers.collect();
    let is_empty = |place: usize| match integers.get(place) {
        Some(count) => *count == 0,
        None => counts.get(place).is_none_or(|count| *count == 0.0),
    };
    let kept: Vec<(i64, usize)> = indices(spans)
        .enumerate()
        .filter(|(place, _)| !is_empty(*place))
        .map(|(place, index)| (index, place))
        .collect();
    let Some(shorter) = runs(kept.iter().map(|(index, _)| *index)) else {
        return;
    };
    let mut before = 0;
    *deltas = match integers.is_empty() {
        true => Vec::new(),
        false => kept
            .iter()
            .map(|(_, place)| {
                let delta = integers[*place].wrapping_sub(before);
                before = integers[*place];
                delta
            })
            .collect(),
    };
    *counts = kept
        .iter()
        .filter_map(|(_, place)| counts.get(*place).copied())
        .collect();
    *spans = shorter;
}

/// Of each bucket.
fn indices(spans: &[BucketSpan]) -> impl Iterator<Item = i64> {
    let mut next = 0i64;
    spans.iter().flat_map(move |span| {
        let first = next + i64::from(span.offset);
        next = first + i64::from(span.length);
        first..next
    })
}

/// `None` where two are too far apart for a span.
fn runs(indices: impl Iterator<Item = i64>) -> Option<Vec<BucketSpan>> {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut end = 0i64;
    for index in indices {
        match spans.last_mut().filter(|_| index == end) {
            Some(span) => span.length += 1,
            None => spans.push(BucketSpan {
                offset: i32::try_from(index - end).ok()?,
                length: 1,
            }),
        }
        end = index + 1;
    }
    Some(spans)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(spans: &[BucketSpan], deltas: &[i64]) -> Vec<(i64, i64)> {
        let counts = deltas.iter().scan(0, |count, delta| {
            *count += delta;
            Some(*count)
        });
        let all = indices(spans).zip(counts);
        all.filter(|(_, count)| *count != 0).collect()
    }

    #[test]
    fn a_gap_that_no_span_has_stays_two() {
        let far = BucketSpan {
            offset: i32::MAX,
            length: 1,
        };
        let (mut spans, mut deltas) = (vec![far, far], vec![0, 3]);
        compact_side(&mut spans, &mut deltas, &mut Vec::new());
        assert_eq!((spans, deltas), (vec![far, far], vec![0, 3]));
    }

    proptest! {
        #[test]
        fn what_is_counted_stays_and_nothing_else(
            raw in prop::collection::vec((0i32..5, 0u32..4), 0..5),
            counts in prop::collection::vec(0i64..3, 20),
        ) {
            let mut spans: Vec<BucketSpan> = raw
                .iter()
                .map(|(offset, length)| BucketSpan { offset: *offset - 2, length: *length })
                .collect();
            let buckets: usize = spans.iter().map(|s| s.length as usize).sum();
            spans.iter_mut().skip(1).for_each(|s| s.offset = s.offset.abs());
            let floats: Vec<f64> = counts[..buckets].iter().map(|c| *c as f64).collect();
            let mut before = 0;
            let mut deltas: Vec<i64> = counts[..buckets]
                .iter()
                .map(|count| {
                    let delta = count - before;
                    before = *count;
                    delta
                })
                .collect();
            let expected = counted(&spans, &deltas);
            let mut float_spans = spans.clone();
            let mut floats = floats;
            compact_side(&mut spans, &mut deltas, &mut Vec::new());
            prop_assert_eq!(counted(&spans, &deltas), expected.clone());
            prop_assert_eq!(deltas.len(), expected.len());
            compact_side(&mut float_spans, &mut Vec::new(), &mut floats);
            prop_assert_eq!(&float_spans, &spans);
            prop_assert_eq!(floats.len(), expected.len());
            let once = (spans.clone(), deltas.clone());
            compact_side(&mut spans, &mut deltas, &mut Vec::new());
            prop_assert_eq!((spans, deltas), once);
        }
    }
}
