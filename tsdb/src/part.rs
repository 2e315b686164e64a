//! A handle on some samples of one series, wherever they are: taken under the lock, decoded
//! outside it.

use std::sync::Arc;

use model::Timestamp;

use crate::block::{ChunkRef, Reader};
use crate::chunk::{Chunk, Point};
use crate::error::StorageError;
use crate::head::find_in;
use crate::histogram::{self, HistogramPoint};
use crate::tombstones::Intervals;
use crate::value::Value;

#[derive(Debug, Clone)]
pub enum Part {
    Chunk(Chunk),
    /// Sorted, not empty.
    Points(Vec<Point>),
    /// Sorted, not empty.
    Histograms(Vec<HistogramPoint>),
    Stored(Arc<Reader>, ChunkRef),
    /// Of which some is deleted.
    Masked(Box<Part>, Arc<Intervals>),
}

/// Samples of one series, each kind in time order; no instant stands twice.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Column {
    pub floats: Vec<Point>,
    pub histograms: Vec<HistogramPoint>,
}

impl Column {
    pub fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn find(&self, at: Timestamp) -> Option<Value> {
        let float = find_in(&self.floats, at).map(Value::Float);
        let histogram = || histogram::find_in(&self.histograms, at).cloned();
        float.or_else(|| histogram().map(Value::Histogram))
    }

    /// Keeps the samples whose instant is `wanted`.
    pub fn retain(&mut self, wanted: impl Fn(Timestamp) -> bool) {
        self.floats.retain(|p| wanted(p.at));
        self.histograms.retain(|p| wanted(p.at));
    }

    fn keep(&mut self, start: Timestamp, end: Timestamp) {
        self.retain(|at| at >= start && at <= end);
    }

    fn extend(&mut self, other: Self) {
        self.floats.extend(other.floats);
        self.histograms.extend(other.histograms);
    }

    fn sort(&mut self) {
        if !self.floats.is_sorted() {
            self.floats.sort_unstable();
        }
        if !self.histograms.is_sorted_by_key(|p| p.at) {
            self.histograms.sort_unstable_by_key(|p| p.at);
        }
        debug_assert!(
            self.floats.windows(2).all(|w| w[0].at < w[1].at)
                && self.histograms.windows(2).all(|w| w[0].at < w[1].at),
            "a sample stands in one place"
        );
    }

    /// The newest instant of either kind.
    fn newest(&self) -> Option<Timestamp> {
        let float = self.floats.last().map(|p| p.at);
        float.max(self.histograms.last().map(|p| p.at))
    }

    /// Only the newest sample.
    fn keep_newest(&mut self) {
        if let Some(newest) = self.newest() {
            self.keep(newest, newest);
        }
    }
}

impl Part {
    /// Those of sorted `points` that lie in `start ..= end`, if any.
    pub fn points(points: &[Point], start: Timestamp, end: Timestamp) -> Option<Self> {
        let from = points.partition_point(|p| p.at < start);
        let to = points.partition_point(|p| p.at <= end);
        let inside = points.get(from..to).filter(|inside| !inside.is_empty())?;
        Some(Self::Points(inside.to_vec()))
    }

    /// As [`Part::points`], of histograms.
    pub fn histograms(points: &[HistogramPoint], start: Timestamp, end: Timestamp) -> Option<Self> {
        let inside = histogram::within(points, start, end);
        (!inside.is_empty()).then(|| Self::Histograms(inside.to_vec()))
    }

    /// First and last instant.
    pub fn range(&self) -> (Timestamp, Timestamp) {
        match self {
            Self::Chunk(chunk) => (chunk.min, chunk.max),
            Self::Points(points) => (points[0].at, points[points.len() - 1].at),
            Self::Histograms(points) => (points[0].at, points[points.len() - 1].at),
            Self::Stored(_, chunk) => (chunk.min, chunk.max),
            Self::Masked(part, _) => part.range(),
        }
    }

    /// How many samples are decoded to read it.
    pub fn count(&self) -> usize {
        match self {
            Self::Chunk(chunk) => usize::from(chunk.count),
            Self::Points(points) => points.len(),
            Self::Histograms(points) => points.len(),
            Self::Stored(_, chunk) => usize::from(chunk.count),
            Self::Masked(part, _) => part.count(),
        }
    }

    /// What is left of a part of which `deleted` is deleted, if anything may be.
    pub fn masked(self, deleted: &Arc<Intervals>) -> Option<Self> {
        let (min, max) = self.range();
        match deleted.cover(min, max) {
            true => None,
            false => Some(Self::Masked(Box::new(self), deleted.clone())),
        }
    }

    /// Decodes all samples.
    pub async fn decode(&self) -> Result<Column, StorageError> {
        let floats = match self {
            Self::Chunk(chunk) => chunk.points(),
            Self::Points(points) => points.clone(),
            Self::Histograms(points) => {
                return Ok(Column {
                    histograms: points.clone(),
                    ..Column::default()
                });
            }
            Self::Stored(reader, chunk) => return reader.read(chunk).await,
            Self::Masked(part, deleted) => {
                let mut column = Box::pin(part.decode()).await?;
                deleted.apply(&mut column);
                return Ok(column);
            }
        };
        Ok(Column {
            floats,
            ..Column::default()
        })
    }
}

/// Samples of `start ..= end` from all `parts` of one series.
pub async fn collect(
    parts: &[Part],
    start: Timestamp,
    end: Timestamp,
) -> Result<Column, StorageError> {
    let mut column = Column::default();
    for part in parts {
        let mut decoded = part.decode().await?;
        decoded.keep(start, end);
        column.extend(decoded);
    }
    column.sort();
    Ok(column)
}

/// The newest sample of `start ..= end`; decodes no part that cannot hold it.
pub async fn last(
    mut parts: Vec<Part>,
    start: Timestamp,
    end: Timestamp,
) -> Result<Column, StorageError> {
    parts.sort_by_key(|part| std::cmp::Reverse(part.range().1));
    let mut best = Column::default();
    for part in &parts {
        if best.newest().is_some_and(|best| part.range().1 < best) {
            break;
        }
        let mut decoded = part.decode().await?;
        decoded.keep(start, end);
        decoded.keep_newest();
        if decoded.newest() > best.newest() {
            best = decoded;
        }
    }
    Ok(best)
}
