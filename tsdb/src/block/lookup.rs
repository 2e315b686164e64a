//! Which series a block has, asked of its own file: by labels, and the labels of those that are known by id.
//!
//! A block of a version without an index answers from the labels of all of its series, which is right and slow.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Labels, Matcher, SeriesId};

use super::segment::OpenSegment;
use super::table::{Decoded, Piece, TABLE_SERIES};
use super::{Among, Reader};
use crate::error::StorageError;
use crate::index::{self, Index};
use crate::select::Turn;

#[cfg(test)]
mod tests;

/// Reading the labels of a table's series takes about as long as decoding so many samples.
pub const SAMPLES_OF_LABELS: usize = 16 << 10;

impl Reader {
    /// Its segments; none of a version without an index.
    pub(super) fn segments(
        &self,
    ) -> Option<impl DoubleEndedIterator<Item = OpenSegment<'_>> + Send> {
        let segments = self.segments.as_ref()?.iter().enumerate();
        Some(segments.map(|(nth, segment)| OpenSegment::new(self, segment, nth)))
    }

    /// Its series that any of the lists chooses, ascending; all when there is no list.
    pub async fn select_any(&self, any_of: &[Vec<Matcher>]) -> Result<Vec<SeriesId>, StorageError> {
        if index::is_all(any_of) {
            return Ok(self.ids().iter().collect());
        }
        let places = self.places_of_any(any_of).await?;
        Ok(self.ids().at(places.into_iter()).collect())
    }

    /// The same, but for some of them, to ask for their names and values.
    pub async fn among(
        &self,
        any_of: &[Vec<Matcher>],
        without: impl Iterator<Item = SeriesId>,
    ) -> Result<Among, StorageError> {
        let mut without: Vec<usize> = without.filter_map(|id| self.ids().place(id)).collect();
        if index::is_all(any_of) && without.is_empty() {
            return Ok(Among::All);
        }
        without.sort_unstable();
        let mut places = self.places_of_any(any_of).await?;
        places.retain(|place| without.binary_search(place).is_err());
        Ok(Among::these(self.ids().count(), places))
    }

    /// Where those stand that any of the lists chooses, ascending.
    async fn places_of_any(&self, any_of: &[Vec<Matcher>]) -> Result<Vec<usize>, StorageError> {
        if index::is_all(any_of) {
            return Ok((0..self.ids().count()).collect());
        }
        let mut chosen = Vec::new();
        let Some(segments) = self.segments() else {
            let select = |index: &Index| {
                let places = index::select_any(index, any_of).into_iter();
                chosen.extend(places.map(place));
            };
            self.each_stretch(select).await?;
            return Ok(chosen);
        };
        let mut turn = Turn::default();
        for segment in segments {
            let mut places = Vec::new();
            for matchers in any_of {
                places.append(&mut segment.select(matchers, &mut turn).await?);
            }
            if any_of.len() > 1 {
                places.sort();
                places.dedup();
            }
            turn.spend(places.len()).await;
            let first = segment.first();
            chosen.extend(places.into_iter().map(|place| first + place as usize));
        }
        Ok(chosen)
    }

    /// The labels of these of its series, which ascend, in their order. Reads those of the tables that tell of them.
    pub async fn labels_of(&self, ids: &[SeriesId]) -> Result<Vec<Labels>, StorageError> {
        let places = ids.iter().map(|id| self.ids().place(*id));
        let places = places.collect::<Option<Vec<usize>>>();
        let places = places.ok_or_else(|| self.corrupt("a series that it does not have"))?;
        let mut found = Vec::with_capacity(ids.len());
        let mut sets = self.label_sets();
        let mut turn = Turn::default();
        for some in places.chunk_by(|a, b| a / TABLE_SERIES == b / TABLE_SERIES) {
            let nth = some[0] / TABLE_SERIES;
            let labels = match self.has_label_pieces() {
                true => self.labels(nth).await?,
                false => sets.nth(nth).await?.into(),
            };
            found.extend(some.iter().map(|at| labels[at % TABLE_SERIES].clone()));
            turn.spend(SAMPLES_OF_LABELS).await;
        }
        Ok(found)
    }

    /// Of the series that a table tells of; what was read lately is kept.
    pub(super) async fn labels(&self, nth: usize) -> Result<Arc<[Labels]>, StorageError> {
        if let Some(labels) = self.kept_labels(nth) {
            return Ok(labels);
        }
        let labels: Arc<[Labels]> = self.read_labels(nth).await?.into();
        self.keep_piece(Piece::Labels(nth), Decoded::Labels(labels.clone()));
        Ok(labels)
    }

    /// The same, of one that was read lately.
    pub(super) fn kept_labels(&self, nth: usize) -> Option<Arc<[Labels]>> {
        match self.kept_piece(Piece::Labels(nth)) {
            Some(Decoded::Labels(labels)) => Some(labels),
            _ => None,
        }
    }

    /// Whether it may have a series of these labels: never false when it has. Looks at memory alone. Of a version
    /// without an index it is always true until [`Reader::find`] has read all labels once.
    pub fn may_have(&self, labels: &Labels) -> bool {
        let filter = self.filter.get();
        filter.is_none_or(|filter| filter.may_have(labels))
    }

    /// Adds the values of a label that any `among` its series has.
    pub async fn add_values(
        &self,
        name: &str,
        among: &Among,
        to: &mut BTreeSet<String>,
    ) -> Result<(), StorageError> {
        let Some(segments) = self.segments() else {
            let add = |index: &Index| {
                let values = index.values(name).filter(|(_, ids)| meet(among, ids));
                values.for_each(|(value, _)| add_text(to, value));
            };
            return self.each_stretch(add).await;
        };
        let mut turn = Turn::default();
        for segment in segments {
            segment.add_values(name, among, to, &mut turn).await?;
        }
        Ok(())
    }

    /// Adds the names of labels that any `among` its series has.
    pub async fn add_names(
        &self,
        among: &Among,
        to: &mut BTreeSet<String>,
    ) -> Result<(), StorageError> {
        let Some(segments) = self.segments() else {
            let add = |index: &Index| {
                let has = |name: &&str| index.values(name).any(|(_, ids)| meet(among, ids));
                index
                    .names()
                    .filter(has)
                    .for_each(|name| add_text(to, name));
            };
            return self.each_stretch(add).await;
        };
        let mut turn = Turn::default();
        for segment in segments {
            segment.add_names(among, to, &mut turn).await?;
        }
        Ok(())
    }

    /// Tells of the series of each table, where there is no index. What stands for an id is a place.
    async fn each_stretch(&self, mut tell: impl FnMut(&Index) + Send) -> Result<(), StorageError> {
        let mut sets = self.label_sets();
        let mut turn = Turn::default();
        for nth in 0..self.tables() {
            let labels = sets.next().await?;
            let places = (nth * TABLE_SERIES..).map(|place| SeriesId(place as u64));
            let series: Vec<(SeriesId, &Labels)> = places.zip(&labels).collect();
            let mut index = Index::default();
            index.add_all(&series);
            tell(&index);
            turn.spend(SAMPLES_OF_LABELS).await;
        }
        Ok(())
    }
}

/// What [`Reader::each_stretch`] tells of.
fn place(id: SeriesId) -> usize {
    id.0 as usize
}

fn meet(among: &Among, places: &[SeriesId]) -> bool {
    let mut places = places.iter().map(|id| place(*id));
    places.any(|place| among.meets(place..place + 1))
}

/// Without allocating one that is there.
pub fn add_text(texts: &mut BTreeSet<String>, text: &str) {
    if !texts.contains(text) {
        texts.insert(text.to_owned());
    }
}
