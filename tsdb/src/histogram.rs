//! Histogram samples of one series, by their canonical bytes (docs/format/histogram.md): a run of
//! them in time order, and such a run as a chunk's bytes.
//!
//! The engine compares, hashes and keeps bytes; what they mean is looked at when somebody reads
//! them. Whoever puts bytes in has made sure that they decode.

use bytes::Bytes;
use model::{Histogram, Timestamp};

use crate::error::StorageError;
use crate::fields::{Fields, Malformed, put_bytes, put_zigzag};

/// One histogram of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramPoint {
    pub at: Timestamp,
    /// Canonical.
    pub bytes: Bytes,
}

impl HistogramPoint {
    pub fn of(at: Timestamp, histogram: &Histogram) -> Self {
        let bytes = canonical(histogram);
        Self { at, bytes }
    }

    /// Bytes from a disk that passed their checksum and do not decode are damage all the same.
    pub fn decode(&self) -> Result<Histogram, StorageError> {
        let what = || format!("of instant {}", self.at.0);
        Histogram::decode(&self.bytes).map_err(|e| StorageError::corrupt(what(), "histogram", e))
    }

    /// What it holds in memory, in bytes, about.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }
}

pub fn canonical(histogram: &Histogram) -> Bytes {
    let mut bytes = Vec::new();
    histogram.encode(&mut bytes);
    bytes.into()
}

/// Histograms whose instants strictly increase.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Run(Vec<HistogramPoint>);

impl Run {
    /// `None` unless instants strictly increase.
    pub fn new(points: Vec<HistogramPoint>) -> Option<Self> {
        let ordered = points.windows(2).all(|w| w[0].at < w[1].at);
        ordered.then_some(Self(points))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn points(&self) -> &[HistogramPoint] {
        &self.0
    }

    pub fn into_points(self) -> Vec<HistogramPoint> {
        self.0
    }

    pub fn find(&self, at: Timestamp) -> Option<&Bytes> {
        find_in(&self.0, at)
    }

    /// Adds a sample at an instant that the run does not have.
    pub fn insert(&mut self, point: HistogramPoint) {
        match self.0.binary_search_by_key(&point.at, |p| p.at) {
            Ok(_) => unreachable!("a sample is inserted once"),
            Err(place) => self.0.insert(place, point),
        }
    }

    /// Takes out what lies before `before`.
    pub fn take_before(&mut self, before: Timestamp) -> Vec<HistogramPoint> {
        let cut = self.0.partition_point(|p| p.at < before);
        let kept = self.0.split_off(cut);
        std::mem::replace(&mut self.0, kept)
    }

    /// Takes out what lies in `start ..= end`.
    pub fn remove(&mut self, start: Timestamp, end: Timestamp) -> Vec<HistogramPoint> {
        let inside = |p: &mut HistogramPoint| p.at >= start && p.at <= end;
        self.0.extract_if(.., inside).collect()
    }

    /// First and last instant.
    pub fn range(&self) -> Option<(Timestamp, Timestamp)> {
        range_of(&self.0)
    }
}

/// The bytes at `at` among sorted points.
pub fn find_in(points: &[HistogramPoint], at: Timestamp) -> Option<&Bytes> {
    let found = points.binary_search_by_key(&at, |p| p.at).ok()?;
    points.get(found).map(|p| &p.bytes)
}

/// First and last instant of sorted points.
pub fn range_of(points: &[HistogramPoint]) -> Option<(Timestamp, Timestamp)> {
    let ends = points.first().zip(points.last());
    ends.map(|(first, last)| (first.at, last.at))
}

/// Those of sorted `points` that lie in `start ..= end`.
pub fn within(points: &[HistogramPoint], start: Timestamp, end: Timestamp) -> &[HistogramPoint] {
    let from = points.partition_point(|p| p.at < start);
    let to = points.partition_point(|p| p.at <= end);
    points.get(from..to).unwrap_or_default()
}

/// The bytes of a chunk before they are compressed (docs/format/block.md).
pub fn encode(points: &[HistogramPoint]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last = 0;
    for point in points {
        put_zigzag(&mut out, point.at.0.wrapping_sub(last));
        put_bytes(&mut out, &point.bytes);
        last = point.at.0;
    }
    out
}

/// Reads what [`encode`] wrote: exactly `count` samples, instants strictly increasing.
pub fn decode(bytes: &[u8], count: u16) -> Result<Vec<HistogramPoint>, Malformed> {
    let mut fields = Fields::new(bytes);
    let mut points: Vec<HistogramPoint> = Vec::new();
    for _ in 0..count {
        let base = points.last().map_or(0, |p| p.at.0);
        let at = Timestamp(base.wrapping_add(fields.zigzag()?));
        if points.last().is_some_and(|last| last.at >= at) {
            return Err(Malformed("histograms out of order"));
        }
        let bytes = Bytes::copy_from_slice(fields.bytes()?);
        points.push(HistogramPoint { at, bytes });
    }
    fields.end()?;
    Ok(points)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points() -> impl Strategy<Value = Vec<HistogramPoint>> {
        let bytes = prop::collection::vec(any::<u8>(), 0..9);
        prop::collection::btree_map(any::<i64>(), bytes, 0..9).prop_map(|map| {
            let point = |(at, bytes): (i64, Vec<u8>)| HistogramPoint {
                at: Timestamp(at),
                bytes: bytes.into(),
            };
            map.into_iter().map(point).collect()
        })
    }

    proptest! {
        #[test]
        fn decodes_to_what_was_encoded(points in points(), before in any::<i64>()) {
            let bytes = encode(&points);
            prop_assert_eq!(decode(&bytes, points.len() as u16), Ok(points.clone()));
            prop_assert!(decode(&bytes, points.len() as u16 + 1).is_err());

            let mut run = Run::default();
            points.iter().rev().for_each(|p| run.insert(p.clone()));
            prop_assert_eq!(run.points(), &points[..]);
            let taken = run.take_before(Timestamp(before));
            prop_assert!(taken.iter().all(|p| p.at.0 < before));
            prop_assert!(run.points().iter().all(|p| p.at.0 >= before));
            prop_assert_eq!(taken.len() + run.points().len(), points.len());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 0u16..9) {
            let _ = decode(&bytes, count);
        }
    }
}
