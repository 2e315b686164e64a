//! Which series a block has, asked of its own file: by labels, and the labels of those that are known by id.
//!
//! A block of a version without an index answers from the labels of all of its series, which is right and slow.

use std::sync::Arc;

use model::{Labels, Matcher, SeriesId};

use super::Reader;
use super::filter;
use super::segment::OpenSegment;
use super::table::{Decoded, Piece, TABLE_SERIES};
use crate::error::StorageError;
use crate::index::{self, Index};
use crate::select::Turn;

#[cfg(test)]
mod tests;

/// Reading the labels of a table's series takes about as long as decoding so many samples.
const SAMPLES_OF_LABELS: usize = 16 << 10;

impl Reader {
    /// Its segments; none of a version without an index.
    fn segments(&self) -> Option<impl DoubleEndedIterator<Item = OpenSegment<'_>> + Send> {
        let segments = self.segments.as_ref()?.iter().enumerate();
        Some(segments.map(|(nth, segment)| OpenSegment::new(self, segment, nth)))
    }

    /// Its series that any of the lists chooses, ascending; all when there is no list.
    pub async fn select_any(&self, any_of: &[Vec<Matcher>]) -> Result<Vec<SeriesId>, StorageError> {
        if any_of.is_empty() || any_of.iter().any(Vec::is_empty) {
            return Ok(self.ids().iter().collect());
        }
        let mut chosen = Vec::new();
        let Some(segments) = self.segments() else {
            let select = |index: &Index| chosen.append(&mut index::select_any(index, any_of));
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
            chosen.extend(segment.ids(&places));
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
    async fn labels(&self, nth: usize) -> Result<Arc<[Labels]>, StorageError> {
        if let Some(Decoded::Labels(labels)) = self.kept_piece(Piece::Labels(nth)) {
            return Ok(labels);
        }
        let labels: Arc<[Labels]> = self.read_labels(nth).await?.into();
        self.keep_piece(Piece::Labels(nth), Decoded::Labels(labels.clone()));
        Ok(labels)
    }

    /// Whether it may have a series of these labels: never false when it has. Looks at memory alone. Of a version
    /// without an index it is always true until [`Reader::find`] has read all labels once.
    pub fn may_have(&self, labels: &Labels) -> bool {
        let filter = self.filter.get();
        filter.is_none_or(|filter| filter.may_have(labels))
    }

    /// Its series of exactly these labels, if it has it.
    pub async fn find(&self, labels: &Labels) -> Result<Option<SeriesId>, StorageError> {
        if !self.may_have(labels) {
            return Ok(None);
        }
        let Some(segments) = self.segments() else {
            return self.find_in_all(labels).await;
        };
        // Who comes back was seen lately: his id is high.
        let mut turn = Turn::default();
        for segment in segments.rev() {
            let places = segment.candidates(labels).await?.into_iter();
            let places: Vec<usize> = places.map(|at| segment.first() + at as usize).collect();
            for some in places.chunk_by(|a, b| a / TABLE_SERIES == b / TABLE_SERIES) {
                let of_table = self.labels(some[0] / TABLE_SERIES).await?;
                let mut some = some.iter().copied();
                if let Some(found) = some.find(|at| of_table[at % TABLE_SERIES] == *labels) {
                    return Ok(self.ids().at(std::iter::once(found)).next());
                }
                turn.spend(SAMPLES_OF_LABELS).await;
            }
        }
        Ok(None)
    }

    /// Reads the labels of all, and remembers which it may have.
    async fn find_in_all(&self, wanted: &Labels) -> Result<Option<SeriesId>, StorageError> {
        let (mut sets, mut ids) = (self.label_sets(), self.ids().iter());
        let (mut filter, mut found) = (filter::Builder::default(), None);
        let mut turn = Turn::default();
        for _ in 0..self.tables() {
            for (labels, id) in sets.next().await?.iter().zip(ids.by_ref()) {
                filter.add(labels);
                if labels == wanted {
                    found = Some(id);
                }
            }
            turn.spend(SAMPLES_OF_LABELS).await;
        }
        self.filter.get_or_init(|| filter.finish());
        Ok(found)
    }

    /// Tells of the values of a label, each with the ids of its series, ascending and not none. Goes through the
    /// series in runs, by id: of each run every value comes once, sorted; in the next run it may come again, with
    /// higher ids.
    pub async fn each_value(
        &self,
        name: &str,
        tell: &mut (dyn FnMut(&str, &[SeriesId]) + Send),
    ) -> Result<(), StorageError> {
        let Some(segments) = self.segments() else {
            let values =
                |index: &Index| index.values(name).for_each(|(value, ids)| tell(value, ids));
            return self.each_stretch(values).await;
        };
        let mut turn = Turn::default();
        for segment in segments {
            segment.each_value(name, tell, &mut turn).await?;
        }
        Ok(())
    }

    /// Tells of the names of labels, each with the ids of series that have it, ascending and not none, in runs as
    /// [`Reader::each_value`] does. Within a run names come sorted, each several times one behind the other, with the
    /// series of one value after the other. `tell` says whether it wants to be told of more series of this name: what it
    /// does not want to know need not be read. In the next run the name comes again, though.
    pub async fn each_name(
        &self,
        tell: &mut (dyn FnMut(&str, &[SeriesId]) -> bool + Send),
    ) -> Result<(), StorageError> {
        let Some(segments) = self.segments() else {
            let names = |index: &Index| {
                for name in index.names() {
                    let _more = index.values(name).all(|(_, ids)| tell(name, ids));
                }
            };
            return self.each_stretch(names).await;
        };
        let mut turn = Turn::default();
        for segment in segments {
            segment.each_name(tell, &mut turn).await?;
        }
        Ok(())
    }

    /// Tells of the series of each table, where there is no index.
    async fn each_stretch(&self, mut tell: impl FnMut(&Index) + Send) -> Result<(), StorageError> {
        let (mut sets, mut ids) = (self.label_sets(), self.ids().iter());
        let mut turn = Turn::default();
        for _ in 0..self.tables() {
            let labels = sets.next().await?;
            let mut index = Index::default();
            // In this order: a zip takes one too many of what it asks first.
            let series = labels.iter().zip(ids.by_ref());
            let series: Vec<(SeriesId, &Labels)> =
                series.map(|(labels, id)| (id, labels)).collect();
            index.add_all(&series);
            tell(&index);
            turn.spend(SAMPLES_OF_LABELS).await;
        }
        Ok(())
    }
}
