//! Series with their samples or exemplars, whole or in pieces.

use model::{ExemplarSeries, Samples, Series, Timestamp};
use proto::node as wire;

use super::writes::{
    exemplar_from_wire, exemplar_to_wire, histogram_to_wire, histograms_from_wire,
};
use super::{Malformed, labels_from_wire, labels_to_wire};

pub fn series_to_wire(series: &Series) -> wire::Series {
    wire::Series {
        labels: labels_to_wire(&series.labels),
        timestamps: series.samples.timestamps.iter().map(|t| t.0).collect(),
        values: series.samples.values.clone(),
        histogram_places: series.samples.histograms.iter().map(|h| h.0).collect(),
        histograms: series
            .samples
            .histograms
            .iter()
            .map(histogram_to_wire)
            .collect(),
    }
}

/// What one sample takes in a message, in floats.
fn weight(samples: &Samples, index: usize) -> usize {
    let histogram = samples.histogram(index);
    histogram.map_or(1, |histogram| 1 + histogram.size() / 16)
}

/// A series cut into pieces of about `weight_max` floats, none empty.
pub fn pieces(series: &Series, weight_max: usize) -> Vec<Series> {
    let samples = &series.samples;
    let mut pieces: Vec<Series> = Vec::new();
    let mut left = 0;
    for index in 0..samples.len() {
        if left == 0 {
            left = weight_max;
            pieces.push(Series {
                labels: series.labels.clone(),
                samples: Samples::default(),
            });
        }
        left = left.saturating_sub(weight(samples, index));
        let piece = pieces.last_mut().expect("just made sure");
        piece.samples.push_from(samples, index);
    }
    pieces
}

/// Puts a message's series behind those of the messages before; it may go on the last of them.
pub fn join_series(answer: &mut Vec<Series>, next: Series) -> Result<(), Malformed> {
    let Some(last) = answer.last_mut().filter(|last| last.labels == next.labels) else {
        answer.push(next);
        return Ok(());
    };
    let (samples, more) = (&mut last.samples, next.samples);
    if samples.timestamps.last() >= more.timestamps.first() {
        return Err(Malformed::new("a series goes back in time"));
    }
    let offset = u32::try_from(samples.len()).map_err(Malformed::new)?;
    let moved = more.histograms.into_iter().map(|(at, h)| (at + offset, h));
    samples.histograms.extend(moved);
    samples.timestamps.extend(more.timestamps);
    samples.values.extend(more.values);
    Ok(())
}

pub fn exemplars_to_wire(series: &ExemplarSeries) -> wire::ExemplarSeries {
    let exemplars = series.exemplars.iter();
    wire::ExemplarSeries {
        labels: labels_to_wire(&series.labels),
        exemplars: exemplars.map(|e| exemplar_to_wire(0, e)).collect(),
    }
}

pub fn exemplars_from_wire(series: wire::ExemplarSeries) -> Result<ExemplarSeries, Malformed> {
    let exemplars = series.exemplars.into_iter().map(exemplar_from_wire);
    Ok(ExemplarSeries {
        labels: labels_from_wire(&series.labels)?,
        exemplars: exemplars.collect::<Result<_, _>>()?,
    })
}

pub fn series_from_wire(series: wire::Series) -> Result<Series, Malformed> {
    let rising = series.timestamps.windows(2).all(|pair| pair[0] < pair[1]);
    if !rising || series.timestamps.len() != series.values.len() {
        return Err(Malformed::new("columns of a series"));
    }
    let histograms = histograms_from_wire(series.histogram_places, series.histograms)?;
    let ascending = histograms.is_sorted_by(|a, b| a.0 < b.0);
    let last = histograms.last().map(|(place, _)| *place as usize);
    if !ascending || last.is_some_and(|last| last >= series.values.len()) {
        return Err(Malformed::new("histograms of a series"));
    }
    Ok(Series {
        labels: labels_from_wire(&series.labels)?,
        samples: Samples {
            timestamps: series.timestamps.into_iter().map(Timestamp).collect(),
            values: series.values,
            histograms,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::Labels;

    use super::*;

    #[test]
    fn a_series_survives_the_wire_in_pieces() {
        let mut samples = Samples::default();
        samples.push(Timestamp(1), 1.0);
        samples.push_histogram(Timestamp(2), Arc::default());
        samples.push(Timestamp(3), 3.0);
        samples.push_histogram(Timestamp(4), Arc::default());
        let whole = Series {
            labels: Labels::from_pairs([("a", "b")]),
            samples,
        };
        let mut again = Vec::new();
        for piece in pieces(&whole, 2) {
            let piece = series_from_wire(series_to_wire(&piece)).unwrap();
            join_series(&mut again, piece).unwrap();
        }
        assert_eq!(again, std::slice::from_ref(&whole));
        assert!(join_series(&mut again, whole.clone()).is_err());
        let mut bad = series_to_wire(&whole);
        bad.histogram_places = vec![3, 1];
        assert!(series_from_wire(bad.clone()).is_err());
        bad.histogram_places = vec![1, 4];
        assert!(series_from_wire(bad).is_err());
    }
}
