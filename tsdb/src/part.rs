//! A handle on some samples of one series, wherever they are: taken under the lock, decoded
//! outside it.

use std::sync::Arc;

use model::Timestamp;

use crate::block::{ChunkRef, Reader};
use crate::chunk::{Chunk, Point};
use crate::error::StorageError;

#[derive(Debug, Clone)]
pub enum Part {
    Chunk(Chunk),
    /// Sorted, not empty.
    Points(Vec<Point>),
    Stored(Arc<Reader>, ChunkRef),
}

impl Part {
    /// Those of sorted `points` that lie in `start ..= end`, if any.
    pub fn points(points: &[Point], start: Timestamp, end: Timestamp) -> Option<Self> {
        let from = points.partition_point(|p| p.at < start);
        let to = points.partition_point(|p| p.at <= end);
        let inside = points.get(from..to).filter(|inside| !inside.is_empty())?;
        Some(Self::Points(inside.to_vec()))
    }

    /// First and last instant.
    pub fn range(&self) -> (Timestamp, Timestamp) {
        match self {
            Self::Chunk(chunk) => (chunk.min, chunk.max),
            Self::Points(points) => (points[0].at, points[points.len() - 1].at),
            Self::Stored(_, chunk) => (chunk.min, chunk.max),
        }
    }

    /// Decodes all samples, in time order.
    pub async fn decode(&self) -> Result<Vec<Point>, StorageError> {
        match self {
            Self::Chunk(chunk) => Ok(chunk.points()),
            Self::Points(points) => Ok(points.clone()),
            Self::Stored(reader, chunk) => reader.read(chunk).await,
        }
    }
}

/// Samples of `start ..= end` from all `parts` of one series, in time order.
pub async fn collect(
    parts: &[Part],
    start: Timestamp,
    end: Timestamp,
) -> Result<Vec<Point>, StorageError> {
    let mut points: Vec<Point> = Vec::new();
    for part in parts {
        let decoded = part.decode().await?;
        points.extend(decoded.into_iter().filter(|p| p.at >= start && p.at <= end));
    }
    if !points.is_sorted() {
        points.sort_unstable();
    }
    debug_assert!(
        points.windows(2).all(|w| w[0].at < w[1].at),
        "a sample stands in one place"
    );
    Ok(points)
}

/// The newest sample of `start ..= end`; decodes no part that cannot hold it.
pub async fn last(
    mut parts: Vec<Part>,
    start: Timestamp,
    end: Timestamp,
) -> Result<Option<Point>, StorageError> {
    parts.sort_by_key(|part| std::cmp::Reverse(part.range().1));
    let mut best: Option<Point> = None;
    for part in &parts {
        if best.is_some_and(|best| part.range().1 < best.at) {
            break;
        }
        let decoded = part.decode().await?;
        let newest = decoded.into_iter().rfind(|p| p.at >= start && p.at <= end);
        best = best.max(newest);
    }
    Ok(best)
}

/// Whether any sample lies in `start ..= end`; decodes only where the ranges do not tell.
pub async fn any(parts: &[Part], start: Timestamp, end: Timestamp) -> Result<bool, StorageError> {
    let inside = |at: Timestamp| at >= start && at <= end;
    let ends_tell = |part: &&Part| inside(part.range().0) || inside(part.range().1);
    if parts.iter().any(|part| ends_tell(&part)) {
        return Ok(true);
    }
    for part in parts {
        if part.decode().await?.iter().any(|p| inside(p.at)) {
            return Ok(true);
        }
    }
    Ok(false)
}
