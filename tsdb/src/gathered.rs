//! What a question finds in a shard: under the state's lock what is in memory and which blocks may hold more,
//! behind it where in their files that stands.
//!
//! A series that rests is in no memory: it is found in the files, with its labels.
//!
//! Sealed content changes by commands alone, and a file stays while somebody holds its reader: what is found
//! after the lock was given back is what was there before.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Labels, Matcher, SeriesId, Timestamp};

use crate::block::{Reader, TABLE_SERIES, Walk};
use crate::error::StorageError;
use crate::part::Part;
use crate::resting::SAMPLES_OF_LABELS;
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
    /// Whether it may hold series that rest.
    pub rests: bool,
}

/// Which series that rest are wanted too.
#[derive(Debug, Default)]
pub enum Others {
    #[default]
    None,
    /// All that any of the lists chooses, but for those that are known already, ascending.
    Chosen {
        any_of: Vec<Vec<Matcher>>,
        known: Vec<SeriesId>,
    },
    /// These, ascending.
    These(Vec<SeriesId>),
}

impl Others {
    /// Those of a file.
    async fn of(&self, reader: &Reader) -> Result<Vec<SeriesId>, StorageError> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::Chosen { any_of, known } => {
                let mut chosen = reader.select_any(any_of).await?;
                chosen.retain(|id| known.binary_search(id).is_err());
                Ok(chosen)
            }
            Self::These(ids) => {
                let has = |id: &&SeriesId| reader.ids().place(**id).is_some();
                Ok(ids.iter().filter(has).copied().collect())
            }
        }
    }
}

/// Series by id, and where in `start ..= end` more of them may stand.
#[derive(Debug)]
pub struct Gathered {
    pub series: Vec<Handles>,
    pub files: Vec<InFile>,
    pub others: Others,
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Gathered {
    pub fn nothing() -> Self {
        Self {
            series: Vec::new(),
            files: Vec::new(),
            others: Others::None,
            start: Timestamp::MIN,
            end: Timestamp::MIN,
        }
    }

    /// The series that have samples, as far as handles tell.
    pub async fn found(mut self) -> Result<Vec<Handles>, StorageError> {
        self.add_others().await?;
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

    /// Series that rest join the others.
    async fn add_others(&mut self) -> Result<(), StorageError> {
        if matches!(self.others, Others::None) {
            return Ok(());
        }
        let mut met: BTreeSet<SeriesId> = BTreeSet::new();
        let mut turn = Turn::default();
        for InFile { reader, .. } in self.files.iter().filter(|file| file.rests) {
            let mut ids = self.others.of(reader).await?;
            ids.retain(|id| met.insert(*id));
            turn.spend(ids.len() * SAMPLES_OF_LABELS).await;
            let labels = reader.labels_of(&ids).await?;
            let handles = ids.into_iter().zip(labels).map(|(id, labels)| Handles {
                id,
                labels,
                parts: Vec::new(),
                in_files: true,
            });
            self.series.extend(handles);
        }
        if !met.is_empty() {
            self.series.sort_by_key(|series| series.id);
        }
        Ok(())
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

/// Adds those of `parts` whose samples in `start ..= end` are not deleted for certain. All reach into it.
pub fn add_left(
    deleted: Option<&Arc<Intervals>>,
    (start, end): (Timestamp, Timestamp),
    parts: impl IntoIterator<Item = Part>,
    to: &mut Vec<Part>,
) {
    match deleted {
        None => to.extend(parts),
        Some(deleted) if deleted.cover(start, end) => {}
        Some(deleted) => {
            let is_left = |part: &Part| {
                let (min, max) = part.range();
                !deleted.cover(min.max(start), max.min(end))
            };
            let left = parts.into_iter().filter(is_left);
            to.extend(left.filter_map(|part| part.masked(deleted)));
        }
    }
}
