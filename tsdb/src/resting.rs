//! Series that rest: which of them a question or a deletion chooses, found in the files of their blocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Labels, Matcher, SeriesId, Timestamp};

use crate::block::Reader;
use crate::error::StorageError;
use crate::select::Turn;
use crate::tombstones::Tombstones;

/// What was found of them under the state's lock.
#[derive(Debug, Default)]
pub struct Rest {
    /// Those that blocks without a file hold, by id.
    pub unwritten: BTreeMap<SeriesId, Labels>,
    /// Where there may be more.
    pub files: Vec<RestIn>,
    pub any_of: Vec<Vec<Matcher>>,
    /// Those that are registered and chosen, ascending.
    pub registered: Vec<SeriesId>,
}

/// A file in which some may rest.
#[derive(Debug)]
pub struct RestIn {
    pub reader: Arc<Reader>,
    /// What of the block counts no longer, if anything is deleted.
    pub deleted: Option<Tombstones>,
    /// Of the block that counts: it may have other files.
    pub range: (Timestamp, Timestamp),
}

/// Reading the labels of a series takes about as long as decoding so many samples.
pub const SAMPLES_OF_LABELS: usize = 64;

impl Rest {
    pub fn is_nowhere(&self) -> bool {
        self.unwritten.is_empty() && self.files.is_empty()
    }

    /// Those that are chosen, with their labels; none of which all that its blocks hold is deleted.
    pub async fn series(mut self) -> Result<BTreeMap<SeriesId, Labels>, StorageError> {
        let (mut found, mut turn) = (std::mem::take(&mut self.unwritten), Turn::default());
        for file in &self.files {
            let ids = file.chosen(&self.any_of, &self.registered, |id| found.contains_key(id));
            let ids = ids.await?;
            turn.spend(ids.len() * SAMPLES_OF_LABELS).await;
            let labels = file.reader.labels_of(&ids).await?;
            found.extend(ids.into_iter().zip(labels));
        }
        Ok(found)
    }

    /// As [`Rest::series`], without their labels; ascending.
    pub async fn ids(self) -> Result<Vec<SeriesId>, StorageError> {
        let mut found: Vec<SeriesId> = self.unwritten.into_keys().collect();
        for file in &self.files {
            let ids = file.chosen(&self.any_of, &self.registered, |_| false);
            found.extend(ids.await?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

impl RestIn {
    async fn chosen(
        &self,
        any_of: &[Vec<Matcher>],
        registered: &[SeriesId],
        known: impl Fn(&SeriesId) -> bool,
    ) -> Result<Vec<SeriesId>, StorageError> {
        let mut chosen = self.reader.select_any(any_of).await?;
        let (min, max) = self.range;
        let is_deleted = |id: SeriesId| {
            let deleted = self.deleted.as_ref().and_then(|all| all.of(id));
            deleted.is_some_and(|deleted| deleted.cover(min, max))
        };
        chosen.retain(|id| registered.binary_search(id).is_err() && !known(id) && !is_deleted(*id));
        Ok(chosen)
    }
}
