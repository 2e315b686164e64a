//! One decoded write: columns of samples that point into a list of series.

use crate::{Labels, Timestamp};

/// Rows of a write as columns of equal length. `series` indexes [`Batch::series`].
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Rows {
    pub series: Vec<u32>,
    pub timestamps: Vec<Timestamp>,
    pub values: Vec<f64>,
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
}

/// Who may write a scrape target's samples: the node that holds the lease of this epoch. A shard
/// refuses an epoch lower than the highest it has applied for the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Hash of the target's identity (job, URL, labels).
    pub target: u64,
    pub epoch: u64,
}

/// A write as the edge hands it on: every series named once, samples in order of arrival.
///
/// Invariants: all columns of [`Rows`] have one length; each `rows.series[i]` is a valid index.
/// A series may stand twice in `series` (the shard merges them).
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Batch {
    pub series: Vec<Labels>,
    pub rows: Rows,
    pub fence: Option<Fence>,
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

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Checks the invariants of the type; for tests and for batches that came over a wire.
    pub fn validate(&self) -> Result<(), String> {
        let rows = self.rows.series.len();
        if self.rows.timestamps.len() != rows || self.rows.values.len() != rows {
            return Err("columns of different length".to_owned());
        }
        match self
            .rows
            .series
            .iter()
            .find(|&&s| s as usize >= self.series.len())
        {
            Some(s) => Err(format!("row points at series {s} of {}", self.series.len())),
            None => Ok(()),
        }
    }
}
