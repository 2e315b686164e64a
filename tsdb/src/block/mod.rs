//! Sealed samples: immutable, in memory until their file is durable, then on disk.
//!
//! docs/format/block.md draws the file. A block's id is the log index of the command that sealed
//! it or wrote it anew without what was deleted, and its bytes are a function of the samples alone, so replicas write equal files.

mod among;
mod check;
mod directory;
mod filter;
mod finding;
#[cfg(fuzzing)]
pub mod fuzzed;
mod ids;
mod index;
mod kept;
mod lookup;
mod merged;
mod page;
mod places;
mod raw;
mod reader;
mod segment;
mod table;
mod writer;

use std::num::NonZeroU32;
use std::sync::Arc;

use model::{Labels, SeriesId, Timestamp};

use crate::digest;
use crate::head::{Taken, join};
use crate::part::Part;

pub use among::Among;
pub use check::IndexCheck;
pub use directory::{Root, decode as decode_directory, decode_labels, decode_table};
pub use ids::Ids;
pub use index::IndexPage;
pub use lookup::add_text;
pub use merged::Merged;
pub use page::{LastTimes, Page};
pub use raw::decompress;
pub use reader::{LabelSets, Reader, Walk};
pub use table::{TABLE_SERIES, Table, Tables};
pub use writer::{Writer, write};

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

/// One series of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: SeriesId,
    pub labels: Labels,
    /// Those of floats, then those of histograms; each in time order.
    pub chunks: Vec<ChunkRef>,
}

/// Where a chunk stands in a block's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    pub min: Timestamp,
    pub max: Timestamp,
    pub count: u16,
    /// Of the bytes under its checksum: its own, or those of the page it stands in.
    pub offset: u64,
    pub len: u32,
    pub crc32c: u32,
    /// Its place in its page; `None` when it has bytes of its own.
    pub slot: Option<u16>,
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

    /// First and last instant of a series.
    pub fn range_of(&self, id: SeriesId) -> Option<(Timestamp, Timestamp)> {
        let found = self.series.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.series[found].1.range()
    }

    /// Adds handles on everything that may hold samples of a series in `start ..= end`.
    pub fn parts(&self, id: SeriesId, start: Timestamp, end: Timestamp, parts: &mut Vec<Part>) {
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
    Merged(Merged),
}

impl Sealed {
    pub fn id(&self) -> u64 {
        match self {
            Self::Frozen(frozen) => frozen.id,
            Self::Stored(reader) => reader.meta().id,
            Self::Merged(merged) => merged.id(),
        }
    }

    /// First and last instant.
    pub fn range(&self) -> (Timestamp, Timestamp) {
        match self {
            Self::Frozen(frozen) => frozen.range,
            Self::Stored(reader) => (reader.meta().min, reader.meta().max),
            Self::Merged(merged) => merged.range(),
        }
    }

    pub fn samples(&self) -> u64 {
        match self {
            Self::Frozen(frozen) => frozen.samples,
            Self::Stored(reader) => reader.meta().samples,
            Self::Merged(merged) => merged.blocks().iter().map(Self::samples).sum(),
        }
    }

    /// Bytes of its files; 0 before they are written.
    pub fn file_bytes(&self) -> u64 {
        match self {
            Self::Frozen(_) => 0,
            Self::Stored(reader) => reader.file().len,
            Self::Merged(merged) => merged.blocks().iter().map(Self::file_bytes).sum(),
        }
    }

    /// Sum over its samples. Decodes a block that is not written yet.
    pub fn digest(&self) -> u64 {
        match self {
            Self::Frozen(frozen) => frozen.digest(),
            Self::Stored(reader) => reader.meta().digest,
            Self::Merged(merged) => {
                let sums = merged.blocks().iter().map(Self::digest);
                sums.fold(0, u64::wrapping_add)
            }
        }
    }

    /// Whether it holds samples of a series; the same before and after its file is written.
    pub fn has(&self, id: SeriesId) -> bool {
        match self {
            Self::Frozen(frozen) => frozen.series.binary_search_by_key(&id, |s| s.0).is_ok(),
            Self::Stored(reader) => reader.ids().place(id).is_some(),
            Self::Merged(merged) => merged.blocks().iter().any(|block| block.has(id)),
        }
    }

    /// The blocks that have or get a file: of merged ones those that they are made of.
    pub fn leaves(&self) -> &[Self] {
        match self {
            Self::Frozen(_) | Self::Stored(_) => std::slice::from_ref(self),
            Self::Merged(merged) => merged.blocks(),
        }
    }

    /// Of the files that hold it.
    pub fn readers(&self) -> impl Iterator<Item = &Arc<Reader>> {
        self.leaves().iter().filter_map(|leaf| match leaf {
            Self::Stored(reader) => Some(reader),
            Self::Frozen(_) | Self::Merged(_) => None,
        })
    }

    /// The series it holds samples of, ascending.
    pub fn series(&self) -> Vec<SeriesId> {
        match self {
            Self::Frozen(frozen) => frozen.series.iter().map(|(id, _)| *id).collect(),
            Self::Stored(reader) => reader.ids().iter().collect(),
            Self::Merged(merged) => merged.series(),
        }
    }

    pub fn meets(&self, start: Timestamp, end: Timestamp) -> bool {
        let (min, max) = self.range();
        min <= end && max >= start
    }
}
