//! One decoded write: columns of samples that point into a list of series.

use std::ops::Range;
use std::sync::Arc;

use crate::sample::{Exemplar, Histograms};
use crate::{Histogram, Labels, Timestamp, Value};

/// Rows of a write as columns of equal length. `series` indexes [`Batch::series`].
///
/// Where a row is a histogram, `histograms` has it under the row's index and `values` its sum.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Rows {
    pub series: Vec<u32>,
    pub timestamps: Vec<Timestamp>,
    pub values: Vec<f64>,
    pub histograms: Histograms,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.series.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    pub fn push(&mut self, series: u32, timestamp: Timestamp, value: f64) {
        self.series.push(series);
        self.timestamps.push(timestamp);
        self.values.push(value);
    }

    /// Adds rows of one series: those of `other` in `range`, none of which is a histogram.
    pub fn extend_of(&mut self, series: u32, other: &Self, range: Range<usize>) {
        self.series.extend(std::iter::repeat_n(series, range.len()));
        self.timestamps
            .extend_from_slice(&other.timestamps[range.clone()]);
        self.values.extend_from_slice(&other.values[range]);
    }

    /// Makes room for so many rows more.
    pub fn reserve(&mut self, rows: usize) {
        self.series.reserve(rows);
        self.timestamps.reserve(rows);
        self.values.reserve(rows);
    }

    pub fn push_histogram(&mut self, series: u32, at: Timestamp, histogram: Arc<Histogram>) {
        let row = u32::try_from(self.len()).expect("a batch is bounded far below 2^32");
        self.push(series, at, histogram.sum);
        self.histograms.push((row, histogram));
    }

    /// The histogram of a row; `None` where it is a float.
    pub fn histogram(&self, row: usize) -> Option<&Arc<Histogram>> {
        crate::sample::histogram_at(&self.histograms, row)
    }
}

/// Who may write a scrape target's samples: the node that holds the lease of this epoch. A shard
/// refuses an epoch lower than the highest it has applied for the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Hash of the target's identity (job, URL, labels).
    pub target: u64,
    pub epoch: u64,
}

/// What time a difference covers, in nanoseconds since 1970.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DeltaSpan {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl DeltaSpan {
    /// The instant at which a series stands at what it was and the difference.
    pub fn end(self) -> Timestamp {
        Timestamp((self.end_ns / 1_000_000) as i64)
    }
}

/// A write as the edge hands it on: every series named once, samples in order of arrival.
///
/// Invariants: all columns of [`Rows`] have one length; each `rows.series[i]` is a valid index.
/// A series may stand twice in `series` (the shard merges them). Exemplars belong to series of the
/// batch; one that cannot be kept is dropped without a word, as Prometheus does.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Batch {
    pub series: Vec<Labels>,
    pub rows: Rows,
    /// Index of the series, and what was seen of it.
    pub exemplars: Vec<(u32, Exemplar)>,
    pub fence: Option<Fence>,
    /// However old a row is, it is taken: what another cluster has accepted before.
    pub backfill: bool,
    /// For each row what it covers, if the rows are differences to what the series stood at; else
    /// empty. The shard adds them up and stores the sums.
    pub deltas: Vec<DeltaSpan>,
}

impl Batch {
    /// Adds a series and returns the index its rows use.
    pub fn add_series(&mut self, labels: Labels) -> u32 {
        let index = u32::try_from(self.series.len()).expect("a batch is bounded far below 2^32");
        self.series.push(labels);
        index
    }

    /// Adds a series with a single sample.
    pub fn add_sample(&mut self, labels: Labels, timestamp: Timestamp, value: f64) {
        let series = self.add_series(labels);
        self.rows.push(series, timestamp, value);
    }

    /// Adds a series with a single value, a float or a histogram.
    pub fn add_value(&mut self, labels: Labels, timestamp: Timestamp, value: Value) {
        match value {
            Value::Float(value) => self.add_sample(labels, timestamp, value),
            Value::Histogram(histogram) => {
                let series = self.add_series(labels);
                self.rows.push_histogram(series, timestamp, histogram);
            }
        }
    }

    /// Adds the rows and exemplars of another batch behind its own; what else the other one says of
    /// its rows must be the same.
    pub fn append(&mut self, other: Self) {
        assert!(
            self.fence == other.fence && self.backfill == other.backfill,
            "batches of one kind"
        );
        assert!(
            self.deltas.is_empty() && other.deltas.is_empty(),
            "differences are written alone"
        );
        let series = self.series.len() as u32;
        let row = self.rows.len() as u32;
        self.series.extend(other.series);
        let rows = other.rows;
        self.rows
            .series
            .extend(rows.series.iter().map(|s| s + series));
        self.rows.timestamps.extend(rows.timestamps);
        self.rows.values.extend(rows.values);
        let histograms = rows.histograms.into_iter();
        let histograms = histograms.map(|(place, histogram)| (place + row, histogram));
        self.rows.histograms.extend(histograms);
        let exemplars = other.exemplars.into_iter();
        self.exemplars
            .extend(exemplars.map(|(s, e)| (s + series, e)));
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.exemplars.is_empty()
    }

    /// Checks the invariants of the type; for tests and for batches that came over a wire.
    pub fn validate(&self) -> Result<(), String> {
        let rows = self.rows.series.len();
        if self.rows.timestamps.len() != rows || self.rows.values.len() != rows {
            return Err("columns of different length".to_owned());
        }
        if !self.deltas.is_empty() && self.deltas.len() != rows {
            return Err("spans of other rows".to_owned());
        }
        let places = self.rows.histograms.iter().map(|(row, _)| *row);
        if !places.clone().is_sorted_by(|a, b| a < b)
            || places.clone().any(|row| row as usize >= rows)
        {
            return Err("histograms out of order or beyond the rows".to_owned());
        }
        let exemplars = self.exemplars.iter().map(|(series, _)| series);
        match self
            .rows
            .series
            .iter()
            .chain(exemplars)
            .find(|&&s| s as usize >= self.series.len())
        {
            Some(s) => Err(format!("row points at series {s} of {}", self.series.len())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_rows_keep_their_series_and_histograms() {
        let one = |name: &str, value| {
            let mut batch = Batch::default();
            batch.add_sample(
                Labels::from_pairs([("__name__", name)]),
                Timestamp(1),
                value,
            );
            let histogram = Arc::new(Histogram::default());
            batch.rows.push_histogram(0, Timestamp(2), histogram);
            batch
        };
        let mut batch = one("a", 1.0);
        batch.append(one("b", 2.0));
        batch.validate().unwrap();
        assert_eq!(batch.rows.series, [0, 0, 1, 1]);
        assert!(batch.rows.histogram(3).is_some() && batch.rows.histogram(2).is_none());
    }
}
