//! Series that rest: which of them a question or a deletion chooses, found in the files of their blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Labels, Matcher, SeriesId, Timestamp};

use crate::block::{Among, Reader, add_text};
use crate::error::StorageError;
use crate::select::Turn;
use crate::tombstones::Tombstones;

/// What was found of them under the state's lock.
#[derive(Debug, Default)]
pub struct Rest {
    /// Those that blocks without a file hold, by id.
    pub unwritten: BTreeMap<SeriesId, Labels>,
    /// Where there may be more, beside registered series.
    pub files: Vec<RestIn>,
    pub any_of: Vec<Vec<Matcher>>,
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

    /// Names of labels that they have, sorted, each once; and of those that registered series had in the same blocks.
    pub async fn names(self) -> Result<BTreeSet<String>, StorageError> {
        let mut names = BTreeSet::new();
        for labels in self.unwritten.values() {
            labels
                .iter()
                .for_each(|(name, _)| add_text(&mut names, name));
        }
        for file in &self.files {
            let among = file.among(&self.any_of).await?;
            if !among.is_none() {
                file.reader.add_names(&among, &mut names).await?;
            }
        }
        Ok(names)
    }

    /// Values of a label, likewise.
    pub async fn values(self, name: &str) -> Result<BTreeSet<String>, StorageError> {
        let mut values = BTreeSet::new();
        let unwritten = self.unwritten.values();
        let unwritten = unwritten.filter_map(|labels| labels.get(name));
        unwritten.for_each(|value| add_text(&mut values, value));
        for file in &self.files {
            let among = file.among(&self.any_of).await?;
            if !among.is_none() {
                file.reader.add_values(name, &among, &mut values).await?;
            }
        }
        Ok(values)
    }

    /// But for these, which are registered.
    pub fn without(self, registered: impl FnOnce() -> Vec<SeriesId>) -> RestAlone {
        // Mostly there is no file to look into.
        let registered = match self.files.is_empty() {
            true => Vec::new(),
            false => registered(),
        };
        RestAlone {
            rest: self,
            registered,
        }
    }
}

impl RestIn {
    /// Those of it that are chosen and stand in it, to ask it for their names and values.
    async fn among(&self, any_of: &[Vec<Matcher>]) -> Result<Among, StorageError> {
        let (min, max) = self.range;
        let deleted = self.deleted.iter().flat_map(|all| all.covering(min, max));
        self.reader.among(any_of, deleted).await
    }
}

/// Without those that are registered as well.
#[derive(Debug)]
pub struct RestAlone {
    rest: Rest,
    /// Ascending.
    registered: Vec<SeriesId>,
}

impl RestAlone {
    pub fn is_nowhere(&self) -> bool {
        self.rest.is_nowhere()
    }

    /// Those that are chosen, with their labels; none of which all that its blocks hold is deleted.
    pub async fn series(mut self) -> Result<BTreeMap<SeriesId, Labels>, StorageError> {
        let (mut found, mut turn) = (std::mem::take(&mut self.rest.unwritten), Turn::default());
        for file in &self.rest.files {
            let mut ids = self.chosen(file).await?;
            ids.retain(|id| !found.contains_key(id));
            turn.spend(ids.len() * SAMPLES_OF_LABELS).await;
            let labels = file.reader.labels_of(&ids).await?;
            found.extend(ids.into_iter().zip(labels));
        }
        Ok(found)
    }

    /// The same, without their labels; ascending.
    pub async fn ids(self) -> Result<Vec<SeriesId>, StorageError> {
        let mut found: Vec<SeriesId> = self.rest.unwritten.keys().copied().collect();
        for file in &self.rest.files {
            found.append(&mut self.chosen(file).await?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Those of a file, ascending.
    async fn chosen(&self, file: &RestIn) -> Result<Vec<SeriesId>, StorageError> {
        let mut chosen = file.reader.select_any(&self.rest.any_of).await?;
        let (min, max) = file.range;
        let is_deleted = |id: SeriesId| {
            let deleted = file.deleted.as_ref().and_then(|all| all.of(id));
            deleted.is_some_and(|deleted| deleted.cover(min, max))
        };
        chosen.retain(|id| self.registered.binary_search(id).is_err() && !is_deleted(*id));
        Ok(chosen)
    }
}
