//! Series that rest: which of them a question or a deletion chooses, found in the files of their blocks.

use std::collections::{BTreeMap, BTreeSet};
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
            let mut ids = self.chosen(file).await?;
            ids.retain(|id| !found.contains_key(id));
            turn.spend(ids.len() * SAMPLES_OF_LABELS).await;
            let labels = file.reader.labels_of(&ids).await?;
            found.extend(ids.into_iter().zip(labels));
        }
        Ok(found)
    }

    /// Names of labels that they have, sorted, each once.
    pub async fn names(self) -> Result<BTreeSet<String>, StorageError> {
        let mut names = BTreeSet::new();
        for labels in self.unwritten.values() {
            labels.iter().for_each(|(name, _)| add(&mut names, name));
        }
        for file in &self.files {
            let chosen = self.chosen(file).await?;
            if chosen.is_empty() {
                continue;
            }
            let mut tell = |name: &str, ids: &[SeriesId]| {
                if !names.contains(name) && meet(ids, &chosen) {
                    add(&mut names, name);
                }
                !names.contains(name)
            };
            file.reader.each_name(&mut tell).await?;
        }
        Ok(names)
    }

    /// Values of a label that they have, sorted, each once.
    pub async fn values(self, name: &str) -> Result<BTreeSet<String>, StorageError> {
        let mut values = BTreeSet::new();
        let unwritten = self.unwritten.values();
        let unwritten = unwritten.filter_map(|labels| labels.get(name));
        unwritten.for_each(|value| add(&mut values, value));
        for file in &self.files {
            let chosen = self.chosen(file).await?;
            if chosen.is_empty() {
                continue;
            }
            let mut tell = |value: &str, ids: &[SeriesId]| {
                if !values.contains(value) && meet(ids, &chosen) {
                    add(&mut values, value);
                }
            };
            file.reader.each_value(name, &mut tell).await?;
        }
        Ok(values)
    }

    /// As [`Rest::series`], without their labels; ascending.
    pub async fn ids(self) -> Result<Vec<SeriesId>, StorageError> {
        let mut found: Vec<SeriesId> = self.unwritten.keys().copied().collect();
        for file in &self.files {
            found.append(&mut self.chosen(file).await?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Those of a file, ascending.
    async fn chosen(&self, file: &RestIn) -> Result<Vec<SeriesId>, StorageError> {
        let mut chosen = file.reader.select_any(&self.any_of).await?;
        let (min, max) = file.range;
        let is_deleted = |id: SeriesId| {
            let deleted = file.deleted.as_ref().and_then(|all| all.of(id));
            deleted.is_some_and(|deleted| deleted.cover(min, max))
        };
        chosen.retain(|id| self.registered.binary_search(id).is_err() && !is_deleted(*id));
        Ok(chosen)
    }
}

/// Without allocating one that is there.
fn add(texts: &mut BTreeSet<String>, text: &str) {
    if !texts.contains(text) {
        texts.insert(text.to_owned());
    }
}

/// Whether two ascending lists have anything in common; of one, most are mostly in the other.
fn meet(ids: &[SeriesId], chosen: &[SeriesId]) -> bool {
    let (few, many) = match ids.len() < chosen.len() {
        true => (ids, chosen),
        false => (chosen, ids),
    };
    few.iter().any(|id| many.binary_search(id).is_ok())
}
