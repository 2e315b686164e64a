//! Samples, and columns of them.

use std::sync::Arc;

use crate::{Histogram, Labels, Timestamp};

/// The NaN that marks a series as gone. Told from other NaNs by its bits (Prometheus,
/// `model/value`).
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Whether `value` is the staleness marker.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN.to_bits()
}

/// One observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub timestamp: Timestamp,
    pub value: f64,
}

/// Histograms of a column of samples: index in the column and the histogram there, by index.
/// Nearly always empty.
pub type Histograms = Vec<(u32, Arc<Histogram>)>;

/// The histogram at `index` of a column.
pub fn histogram_at(histograms: &Histograms, index: usize) -> Option<&Arc<Histogram>> {
    if histograms.is_empty() {
        return None;
    }
    let index = u32::try_from(index).ok()?;
    let found = histograms
        .binary_search_by_key(&index, |(at, _)| *at)
        .ok()?;
    histograms.get(found).map(|(_, histogram)| histogram)
}

/// What a sample holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Float(f64),
    Histogram(Arc<Histogram>),
}

/// Observations of one series as columns of equal length, timestamps strictly increasing.
///
/// Where a sample is a histogram, `histograms` has it and `values` its sum, so that
/// `is_stale(values[i])` tells of both whether the series ended there.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Samples {
    pub timestamps: Vec<Timestamp>,
    pub values: Vec<f64>,
    pub histograms: Histograms,
}

impl Samples {
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Adds a float.
    pub fn push(&mut self, timestamp: Timestamp, value: f64) {
        debug_assert!(
            self.timestamps.last().is_none_or(|last| *last < timestamp),
            "out of order"
        );
        self.timestamps.push(timestamp);
        self.values.push(value);
    }

    pub fn push_histogram(&mut self, timestamp: Timestamp, histogram: Arc<Histogram>) {
        let index = u32::try_from(self.len()).expect("a column is bounded far below 2^32");
        self.push(timestamp, histogram.sum);
        self.histograms.push((index, histogram));
    }

    /// Adds the sample at `index` of `from`.
    pub fn push_from(&mut self, from: &Self, index: usize) {
        match from.histogram(index) {
            Some(histogram) => self.push_histogram(from.timestamps[index], histogram.clone()),
            None => self.push(from.timestamps[index], from.values[index]),
        }
    }

    /// The histogram at `index`; `None` where a float stands.
    pub fn histogram(&self, index: usize) -> Option<&Arc<Histogram>> {
        histogram_at(&self.histograms, index)
    }

    pub fn value(&self, index: usize) -> Value {
        match self.histogram(index) {
            Some(histogram) => Value::Histogram(histogram.clone()),
            None => Value::Float(self.values[index]),
        }
    }

    /// Floats, and the sums of histograms.
    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        self.timestamps
            .iter()
            .zip(&self.values)
            .map(|(&timestamp, &value)| Sample { timestamp, value })
    }

    /// The newest float, or the newest histogram's sum.
    pub fn last(&self) -> Option<Sample> {
        Some(Sample {
            timestamp: *self.timestamps.last()?,
            value: *self.values.last()?,
        })
    }
}

/// A series with the samples that were asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub samples: Samples,
}

/// An observation that a trace or the like is known of (OpenMetrics 1.0, Exemplars).
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    pub labels: Labels,
    pub value: f64,
    pub timestamp: Timestamp,
}

/// A series with its exemplars, by time.
#[derive(Debug, Clone, PartialEq)]
pub struct ExemplarSeries {
    pub labels: Labels,
    pub exemplars: Vec<Exemplar>,
}
