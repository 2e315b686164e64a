//! The newest sample of each series of a shard, page by page.
//!
//! Where a series' newest sample stands in the head, as it nearly always does, it is taken from
//! there as it is; chunks are decoded for the others alone. Between two pages the shard goes on:
//! what is written meanwhile may be in later pages.

use std::sync::Arc;

use model::histogram::Histogram;
use model::limits::NEWEST_PAGE_SERIES;
use model::{Labels, Newest, NewestSelection, SeriesId, Timestamp};

use crate::error::StorageError;
use crate::histogram::HistogramPoint;
use crate::part::{self, Part};
use crate::shard::Shard;
use crate::state::Standing;
use crate::value::Value;

/// The chosen series that are not read yet.
pub struct Pages {
    shard: Arc<Shard>,
    ids: std::vec::IntoIter<u32>,
    start: Timestamp,
    end: Timestamp,
}

/// A series whose newest sample may have to be looked for.
enum Found {
    Ready(Labels, Timestamp, Value),
    Among(Labels, Vec<Part>),
}

impl Shard {
    /// As the selection says; its consistency is the caller's concern.
    pub fn newest(self: &Arc<Self>, selection: &NewestSelection) -> Pages {
        let ids = self.read(|state| match &selection.any_of[..] {
            [] => Vec::new(),
            [matchers] => state
                .table()
                .by_name()
                .sorted(state.table().select(matchers)),
            any_of => state.table().by_name().sorted(state.select_any(any_of)),
        });
        Pages {
            shard: self.clone(),
            ids: ids.into_iter(),
            start: selection.start,
            end: selection.end,
        }
    }
}

impl Pages {
    /// The next page, not empty; none at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Newest>>, StorageError> {
        while self.ids.len() > 0 {
            let mut page = Vec::with_capacity(self.ids.len().min(NEWEST_PAGE_SERIES));
            for found in self.look() {
                let newest = self.read(found).await;
                let newest = newest.map_err(|e| self.shard.note(e))?;
                page.extend(newest.filter(Newest::is_shown));
            }
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    fn look(&mut self) -> Vec<Found> {
        let (start, end) = (self.start, self.end);
        let ids = self.ids.by_ref().take(NEWEST_PAGE_SERIES);
        self.shard.read(|state| {
            let found = ids.filter_map(|id| {
                let id = SeriesId(u64::from(id));
                let labels = state.table().labels(id)?.clone();
                match state.standing(id, start, end) {
                    Standing::Nowhere => None,
                    Standing::Here(at, value) => Some(Found::Ready(labels, at, value)),
                    Standing::Among(parts) => Some(Found::Among(labels, parts)),
                }
            });
            found.collect()
        })
    }

    async fn read(&self, found: Found) -> Result<Option<Newest>, StorageError> {
        let (labels, at, value) = match found {
            Found::Ready(labels, at, value) => (labels, at, value),
            Found::Among(labels, parts) => {
                let column = part::last(parts, self.start, self.end).await?;
                let float = column.floats.last();
                let float = float.map(|p| (p.at, Value::Float(p.bits)));
                let histogram = column.histograms.last();
                let histogram = histogram.map(|p| (p.at, Value::Histogram(p.bytes.clone())));
                let Some((at, value)) = float.or(histogram) else {
                    return Ok(None);
                };
                (labels, at, value)
            }
        };
        let (value, histogram) = match value {
            Value::Float(bits) => (f64::from_bits(bits), None),
            Value::Histogram(bytes) => {
                let histogram: Histogram = HistogramPoint { at, bytes }.decode()?;
                (histogram.sum, Some(Arc::new(histogram)))
            }
        };
        Ok(Some(Newest {
            labels,
            at,
            value,
            histogram,
        }))
    }
}
