//! What a question finds in a shard: under the state's lock what is in memory and which blocks may hold more,
//! behind it where in their files that stands.
//!
//! Sealed content changes by commands alone, and a file stays while somebody holds its reader: what is found
//! after the lock was given back is what was there before.

use std::sync::Arc;

use model::{Labels, SeriesId, Timestamp};

use crate::block::{Reader, TABLE_SERIES, Walk};
use crate::error::StorageError;
use crate::part::Part;
use crate::select::Turn;
use crate::tombstones::{Intervals, Tombstones};

/// One series and handles on its samples, in no order.
#[derive(Debug)]
pub struct Handles {
    pub id: SeriesId,
    pub labels: Labels,
    pub parts: Vec<Part>,
    /// Whether blocks may hold more of them.
    pub in_files: bool,
}

/// A block's file in which some may stand.
#[derive(Debug)]
pub struct InFile {
    pub reader: Arc<Reader>,
    /// What of the block counts no longer, if anything is deleted.
    pub deleted: Option<Tombstones>,
}

/// Series by id, and where in `start ..= end` more of them may stand.
#[derive(Debug)]
pub struct Gathered {
    pub series: Vec<Handles>,
    pub files: Vec<InFile>,
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Gathered {
    pub fn nothing() -> Self {
        Self {
            series: Vec::new(),
            files: Vec::new(),
            start: Timestamp::MIN,
            end: Timestamp::MIN,
        }
    }

    /// The series that have samples, as far as handles tell.
    pub async fn found(mut self) -> Result<Vec<Handles>, StorageError> {
        for file in &self.files {
            let mut turn = Turn::default();
            let mut walk = Walk::new(&file.reader);
            for (nth, series) in self.series.iter_mut().enumerate() {
                if series.in_files {
                    file.find(&mut walk, (self.start, self.end), series).await?;
                }
                if nth.is_multiple_of(TABLE_SERIES) {
                    turn.spend(SAMPLES_OF_TABLE).await;
                }
            }
        }
        self.series.retain(|series| !series.parts.is_empty());
        Ok(self.series)
    }

    /// As [`Gathered::found`], without the ids.
    pub async fn parts(self) -> Result<Vec<(Labels, Vec<Part>)>, StorageError> {
        let found = self.found().await?.into_iter();
        Ok(found.map(|series| (series.labels, series.parts)).collect())
    }
}

/// Reading a table takes about as long as decoding so many samples.
const SAMPLES_OF_TABLE: usize = 16 << 10;

impl InFile {
    async fn find(
        &self,
        walk: &mut Walk<'_>,
        (start, end): (Timestamp, Timestamp),
        series: &mut Handles,
    ) -> Result<(), StorageError> {
        let chunks = walk.chunks(series.id).await?;
        let meets = chunks.iter().filter(|c| c.min <= end && c.max >= start);
        let parts = meets.map(|&chunk| Part::Stored(self.reader.clone(), chunk));
        let deleted = self.deleted.as_ref();
        add_left(
            deleted.and_then(|all| all.of(series.id)),
            (start, end),
            parts,
            &mut series.parts,
        );
        Ok(())
    }
}

/// Adds those of `parts`, which hold samples in `start ..= end`, that are not deleted for certain.
pub fn add_left(
    deleted: Option<&Arc<Intervals>>,
    (start, end): (Timestamp, Timestamp),
    parts: impl IntoIterator<Item = Part>,
    to: &mut Vec<Part>,
) {
    match deleted {
        None => to.extend(parts),
        Some(deleted) if deleted.cover(start, end) => {}
        Some(deleted) => to.extend(parts.into_iter().filter_map(|part| part.masked(deleted))),
    }
}
