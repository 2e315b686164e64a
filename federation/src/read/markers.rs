//! Staleness markers as what they end.
//!
//! Whoever ends a series writes a float, whatever the series holds. Prometheus stores it as a histogram
//! without observations where one stood before it, of the same kind; so it reads as one. A marker whose
//! sample before was not selected stays a float.

use std::sync::Arc;

use model::sample::is_stale;
use model::{Histogram, Samples};

/// Makes markers behind histograms histograms.
pub fn fit(samples: &mut Samples) {
    if samples.histograms.is_empty() {
        return;
    }
    let mut fitted = Vec::with_capacity(samples.histograms.len());
    let mut own = std::mem::take(&mut samples.histograms)
        .into_iter()
        .peekable();
    // Of the sample before, where that was a histogram.
    let mut is_integer = None;
    for (index, &value) in (0u32..).zip(&samples.values) {
        let histogram = match own.next_if(|(at, _)| *at == index) {
            Some((_, histogram)) => Some(histogram),
            None => is_integer.filter(|_| is_stale(value)).map(|is_integer| {
                Arc::new(Histogram {
                    is_integer,
                    sum: value,
                    ..Histogram::default()
                })
            }),
        };
        is_integer = histogram.as_ref().map(|histogram| histogram.is_integer);
        fitted.extend(histogram.map(|histogram| (index, histogram)));
    }
    samples.histograms = fitted;
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use model::sample::STALE_NAN;

    use super::*;

    #[test]
    fn markers_are_of_the_kind_of_the_sample_before() {
        let mut samples = Samples::default();
        let histogram = |is_integer| {
            Arc::new(Histogram {
                is_integer,
                ..Histogram::default()
            })
        };
        samples.push(Timestamp(1), STALE_NAN);
        samples.push_histogram(Timestamp(2), histogram(true));
        samples.push(Timestamp(3), STALE_NAN);
        samples.push(Timestamp(4), STALE_NAN);
        samples.push_histogram(Timestamp(5), histogram(false));
        samples.push(Timestamp(6), STALE_NAN);
        samples.push(Timestamp(7), 1.0);
        samples.push(Timestamp(8), STALE_NAN);
        fit(&mut samples);
        let kinds = (0..samples.len()).map(|i| samples.histogram(i).map(|h| h.is_integer));
        let (whole, float) = (Some(true), Some(false));
        let expected = [None, whole, whole, whole, float, float, None, None];
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
        let stale = (0..8).filter(|&i| samples.histogram(i).is_some_and(|h| h.is_stale()));
        assert_eq!(stale.collect::<Vec<_>>(), [2, 3, 5]);
    }
}
