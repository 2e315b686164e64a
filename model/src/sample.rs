//! Samples, and columns of them.

use crate::{Labels, Timestamp};

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

/// Observations of one series as two columns of equal length, timestamps strictly increasing.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Samples {
    pub timestamps: Vec<Timestamp>,
    pub values: Vec<f64>,
}

impl Samples {
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    pub fn push(&mut self, timestamp: Timestamp, value: f64) {
        debug_assert!(
            self.timestamps.last().is_none_or(|last| *last < timestamp),
            "out of order"
        );
        self.timestamps.push(timestamp);
        self.values.push(value);
    }

    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        self.timestamps
            .iter()
            .zip(&self.values)
            .map(|(&timestamp, &value)| Sample { timestamp, value })
    }

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
