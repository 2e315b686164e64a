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

/// Series that are fetched from memory together: about as many as a core waits for at once.
const TOUCHED_SERIES: usize = 16;

/// The chosen series that are not read yet.
pub struct Pages {
    shard: Arc<Shard>,
    /// Everything up to this index of the log is in them, or in what the asker has.
    pub index: u64,
    /// Whether they hold all series, not only those written since an index.
    pub whole: bool,
    ids: std::vec::IntoIter<SeriesId>,
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
        self.newest_since(selection, None)
    }

    /// Of series whose newest sample an entry of the log behind `since` wrote, and of a few more: of
    /// all whose newest sample is not older than the oldest that such an entry wrote.
    pub fn newest_since(
        self: &Arc<Self>,
        selection: &NewestSelection,
        since: Option<u64>,
    ) -> Pages {
        self.read(|state| {
            let written = match since {
                None => Some(Timestamp::MIN),
                // Of another log than ours: nothing it says can be relied on.
                Some(index) if index > state.applied_index() => Some(Timestamp::MIN),
                Some(index) => state.touched().since(index),
            };
            let order = |ids: Vec<_>| state.table().sorted_by_name(&ids).into_iter();
            let ids = match (&selection.any_of[..], written) {
                ([], _) | (_, None) => Vec::new().into_iter(),
                (any_of, Some(_)) => order(state.select_any(any_of)),
            };
            Pages {
                shard: self.clone(),
                index: state.applied_index(),
                whole: written == Some(Timestamp::MIN),
                ids,
                start: written.map_or(selection.start, |at| at.max(selection.start)),
                end: selection.end,
            }
        })
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
        let page = self.ids.len().min(NEWEST_PAGE_SERIES);
        let ids: Vec<SeriesId> = self.ids.by_ref().take(page).collect();
        self.shard.read(|state| {
            let found = ids.chunks(TOUCHED_SERIES).flat_map(|ids| {
                state.touch_newest(ids);
                ids.iter().filter_map(|&id| {
                    let standing = state.standing(id, start, end);
                    let labels = state.table().labels(id)?;
                    match standing {
                        Standing::Nowhere => None,
                        Standing::Here(at, value) => Some(Found::Ready(labels.clone(), at, value)),
                        Standing::Among(parts) => Some(Found::Among(labels.clone(), parts)),
                    }
                })
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
