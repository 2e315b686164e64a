//! Sealed samples: immutable, in memory until their file is durable, then on disk.
//!
//! docs/format/block.md draws the file. A block's id is the log index of the command that sealed
//! it or wrote it anew without what was deleted, and its bytes are a function of the samples alone, so replicas write equal files.

mod reader;
mod writer;

use std::num::NonZeroU32;
use std::sync::Arc;

use model::{SeriesId, Timestamp};

use crate::digest;
use crate::head::{Taken, join};
use crate::part::Part;

pub use reader::Reader;
pub use writer::{Entry, write};

/// What a block's footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub id: u64,
    pub min: Timestamp,
    pub max: Timestamp,
    pub series: u64,
    pub samples: u64,
    /// Sum over its samples ([`digest::samples`]).
    pub digest: u64,
}

/// Where a chunk stands in a block's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    pub series: SeriesId,
    pub min: Timestamp,
    pub max: Timestamp,
    pub count: u16,
    pub offset: u64,
    pub len: u32,
    pub crc32c: u32,
    /// Of histograms: the length after decompression. `None` says floats.
    pub histograms: Option<NonZeroU32>,
}

/// A sealed block whose file is not durable yet.
#[derive(Debug)]
pub struct Frozen {
    id: u64,
    range: (Timestamp, Timestamp),
    samples: u64,
    /// By id, none empty.
    series: Vec<(SeriesId, Taken)>,
}

impl Frozen {
    /// `series` by id, none empty; `None` when there is none.
    pub fn new(id: u64, series: Vec<(SeriesId, Taken)>) -> Option<Self> {
        let ranges = series.iter().map(|(_, taken)| taken.range());
        let range = ranges.fold(None, join)?;
        let samples = series.iter().map(|(_, taken)| taken.samples()).sum();
        Some(Self {
            id,
            range,
            samples,
            series,
        })
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn series(&self) -> &[(SeriesId, Taken)] {
        &self.series
    }

    fn parts(&self, id: SeriesId, start: Timestamp, end: Timestamp, parts: &mut Vec<Part>) {
        let Ok(found) = self.series.binary_search_by_key(&id, |(id, _)| *id) else {
            return;
        };
        let taken = &self.series[found].1;
        let chunks = taken.chunks.iter().filter(|c| c.overlaps(start, end));
        parts.extend(chunks.cloned().map(Part::Chunk));
        parts.extend(Part::points(&taken.late, start, end));
        parts.extend(Part::histograms(&taken.histograms, start, end));
    }

    fn digest(&self) -> u64 {
        let sums = self.series.iter().map(|(id, taken)| {
            let histograms = digest::histograms(*id, &taken.histograms);
            digest::samples(*id, &taken.points()).wrapping_add(histograms)
        });
        sums.fold(0, u64::wrapping_add)
    }
}

/// A sealed block, wherever it is. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Sealed {
    Frozen(Arc<Frozen>),
    Stored(Arc<Reader>),
}

impl Sealed {
    pub fn id(&self) -> u64 {
        match self {
            Self::Frozen(frozen) => frozen.id,
            Self::Stored(reader) => reader.meta().id,
        }
    }

    /// First and last instant.
    pub fn range(&self) -> (Timestamp, Timestamp) {
        match self {
            Self::Frozen(frozen) => frozen.range,
            Self::Stored(reader) => (reader.meta().min, reader.meta().max),
        }
    }

    pub fn samples(&self) -> u64 {
        match self {
            Self::Frozen(frozen) => frozen.samples,
            Self::Stored(reader) => reader.meta().samples,
        }
    }

    /// Bytes of the file; 0 before it is written.
    pub fn file_bytes(&self) -> u64 {
        match self {
            Self::Frozen(_) => 0,
            Self::Stored(reader) => reader.file().len,
        }
    }

    /// Sum over its samples. Decodes a block that is not written yet.
    pub fn digest(&self) -> u64 {
        match self {
            Self::Frozen(frozen) => frozen.digest(),
            Self::Stored(reader) => reader.meta().digest,
        }
    }

    /// Whether it holds samples of a series; the same before and after its file is written.
    pub fn has(&self, id: SeriesId) -> bool {
        match self {
            Self::Frozen(frozen) => frozen.series.binary_search_by_key(&id, |s| s.0).is_ok(),
            Self::Stored(reader) => !reader.chunks(id).is_empty(),
        }
    }

    /// The series it holds samples of, ascending.
    pub fn series(&self) -> Vec<SeriesId> {
        let mut ids: Vec<SeriesId> = match self {
            Self::Frozen(frozen) => frozen.series.iter().map(|(id, _)| *id).collect(),
            Self::Stored(reader) => reader.all_chunks().iter().map(|c| c.series).collect(),
        };
        ids.dedup();
        ids
    }

    /// Adds handles on everything that may hold samples of a series in `start ..= end`.
    pub fn parts(&self, id: SeriesId, start: Timestamp, end: Timestamp, parts: &mut Vec<Part>) {
        let (min, max) = self.range();
        if min > end || max < start {
            return;
        }
        match self {
            Self::Frozen(frozen) => frozen.parts(id, start, end, parts),
            Self::Stored(reader) => {
                let chunks = reader.chunks(id).iter();
                let chunks = chunks.filter(|c| c.min <= end && c.max >= start);
                parts.extend(chunks.map(|&c| Part::Stored(reader.clone(), c)));
            }
        }
    }
}
