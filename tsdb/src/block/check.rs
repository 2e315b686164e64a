//! Whether a block's index says of its series what their labels say: it is built again and compared.

use model::Labels;

use super::index::{self, SEGMENT_SERIES};
use super::segment::SAMPLES_OF_PAGE;
use super::{Reader, filter};
use crate::error::StorageError;
use crate::select::Turn;

/// Goes through the labels of a block; holds the index of one segment.
pub struct IndexCheck<'r> {
    reader: &'r Reader,
    /// How many segments were compared.
    segments: usize,
    index: index::Builder,
    filter: filter::Builder,
}

impl<'r> IndexCheck<'r> {
    pub fn new(reader: &'r Reader) -> Self {
        Self {
            reader,
            segments: 0,
            index: index::Builder::default(),
            filter: filter::Builder::default(),
        }
    }

    /// Takes the labels of the series that the next table tells of. A segment is compared with the last of its
    /// series, the filter with the last of all. Of a version without an index there is nothing to compare.
    pub async fn add(&mut self, labels: &[Labels]) -> Result<(), StorageError> {
        if self.reader.segments.is_none() {
            return Ok(());
        }
        labels.iter().for_each(|labels| self.filter.add(labels));
        self.index.add(labels);
        let added = self.segments * SEGMENT_SERIES + self.index.series();
        let is_last = added == self.reader.ids().count();
        if is_last || self.index.series() == SEGMENT_SERIES {
            self.compare_segment().await?;
        }
        if is_last && self.reader.filter.get() != Some(&self.filter.finish()) {
            return Err(self.corrupt("the filter is not that of the labels"));
        }
        Ok(())
    }

    async fn compare_segment(&mut self) -> Result<(), StorageError> {
        let mut segments = self.reader.segments.iter().flatten();
        let segment = segments.nth(self.segments);
        self.segments += 1;
        let mut written = segment.into_iter().flat_map(|segment| &segment.pages);
        let mut turn = Turn::default();
        for (first, raw) in self.index.finish() {
            let page = written.next().filter(|page| page.first == first);
            let page = page.ok_or_else(|| self.corrupt(DIFFERS))?;
            if self.reader.raw().unpack(&page.packed, "index").await? != raw {
                return Err(self.corrupt(DIFFERS));
            }
            turn.spend(SAMPLES_OF_PAGE).await;
        }
        match written.next() {
            None => Ok(()),
            Some(_) => Err(self.corrupt(DIFFERS)),
        }
    }

    fn corrupt(&self, reason: &str) -> StorageError {
        self.reader.raw().corrupt("index", reason)
    }
}

const DIFFERS: &str = "not what the labels say";
