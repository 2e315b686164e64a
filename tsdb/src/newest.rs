//! The newest sample of each series of a shard, page by page.
//!
//! Where a series' newest sample stands in the head, as it nearly always does, it is taken from
//! there as it is; chunks are decoded for the others alone. Between two pages the shard goes on:
//! what is written meanwhile may be in later pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::hash::Map;
use model::histogram::Histogram;
use model::limits::NEWEST_PAGE_SERIES;
use model::{Labels, Newest, NewestSelection, SeriesId, Timestamp};

use crate::error::StorageError;
use crate::gathered::{Gathered, Handles};
use crate::histogram::HistogramPoint;
use crate::part;
use crate::resting::{Rest, RestAlone};
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
    /// Those that rest, and are to be put among the others.
    resting: Option<RestAlone>,
    start: Timestamp,
    end: Timestamp,
}

/// A series' newest sample.
enum Found {
    Ready(Labels, Timestamp, Value),
    /// It has to be looked for: that of the next series of those gathered, if that is this one.
    Among(SeriesId),
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
            let start = written.map_or(selection.start, |at| at.max(selection.start));
            let (ids, resting) = match (&selection.any_of[..], written) {
                ([], _) | (_, None) => (Vec::new(), Rest::default().without(Vec::new)),
                (any_of, Some(_)) => {
                    let registered = state.select_registered(any_of);
                    let by_name = state.table().sorted_by_name(&registered);
                    let rest = state.rest(any_of, start, selection.end);
                    (by_name, rest.without(|| registered))
                }
            };
            Pages {
                shard: self.clone(),
                index: state.applied_index(),
                whole: written == Some(Timestamp::MIN),
                ids: ids.into_iter(),
                resting: Some(resting).filter(|resting| !resting.is_nowhere()),
                start,
                end: selection.end,
            }
        })
    }
}

impl Pages {
    /// The next page, not empty; none at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Newest>>, StorageError> {
        if let Some(resting) = self.resting.take() {
            let resting = resting.series().await.map_err(|e| self.shard.note(e))?;
            self.take_in(resting);
        }
        while self.ids.len() > 0 {
            let mut page = Vec::with_capacity(self.ids.len().min(NEWEST_PAGE_SERIES));
            let (found, among) = self.look();
            let among = among.found().await.map_err(|e| self.shard.note(e))?;
            let mut among: Map<SeriesId, Handles> = among
                .into_iter()
                .map(|series| (series.id, series))
                .collect();
            for found in found {
                let newest = match found {
                    Found::Ready(labels, at, value) => newest(labels, at, value).map(Some),
                    Found::Among(id) => self.find(among.remove(&id)).await,
                };
                let newest = newest.map_err(|e| self.shard.note(e))?;
                page.extend(newest.filter(Newest::is_shown));
            }
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    /// Puts series that rest where their names belong.
    fn take_in(&mut self, resting: BTreeMap<SeriesId, Labels>) {
        let mut resting: Vec<(SeriesId, Labels)> = resting.into_iter().collect();
        resting.retain(|(_, labels)| !labels.metric_name().is_empty());
        resting.sort_by(|a, b| a.1.cmp_by_name(&b.1));
        let mut resting = resting.into_iter().peekable();
        let mut ids = Vec::with_capacity(self.ids.len() + resting.len());
        self.shard.read(|state| {
            for id in self.ids.by_ref() {
                if let Some(labels) = state.labels(id) {
                    let before = |(_, other): &(_, Labels)| other.cmp_by_name(labels).is_lt();
                    while let Some((id, _)) = resting.next_if(before) {
                        ids.push(id);
                    }
                }
                ids.push(id);
            }
        });
        ids.extend(resting.map(|(id, _)| id));
        self.ids = ids.into_iter();
    }

    fn look(&mut self) -> (Vec<Found>, Gathered) {
        let (start, end) = (self.start, self.end);
        let page = self.ids.len().min(NEWEST_PAGE_SERIES);
        let ids: Vec<SeriesId> = self.ids.by_ref().take(page).collect();
        self.shard.read(|state| {
            let (mut found, mut among) = (Vec::with_capacity(ids.len()), Vec::new());
            let mut resting = Vec::new();
            for ids in ids.chunks(TOUCHED_SERIES) {
                state.touch_newest(ids);
                for &id in ids {
                    match (state.standing(id, start, end), state.labels(id)) {
                        (Standing::Nowhere, _) => {}
                        (Standing::Here(at, value), Some(labels)) => {
                            found.push(Found::Ready(labels.clone(), at, value));
                        }
                        (Standing::Among(parts), Some(_)) => {
                            found.push(Found::Among(id));
                            among.extend(state.handles(id, parts, true));
                        }
                        // It rests, or nothing of it is stored.
                        (_, None) => {
                            found.push(Found::Among(id));
                            resting.push(id);
                        }
                    }
                }
            }
            among.sort_unstable_by_key(|series| series.id);
            resting.sort_unstable();
            (found, state.gathered_in(among, resting, (start, end)))
        })
    }

    async fn find(&self, among: Option<Handles>) -> Result<Option<Newest>, StorageError> {
        let Some(Handles { labels, parts, .. }) = among else {
            return Ok(None);
        };
        let column = part::last(parts, self.start, self.end).await?;
        let float = column.floats.last();
        let float = float.map(|p| (p.at, Value::Float(p.bits)));
        let histogram = column.histograms.last();
        let histogram = histogram.map(|p| (p.at, Value::Histogram(p.bytes.clone())));
        let found = float.or(histogram);
        found
            .map(|(at, value)| newest(labels, at, value))
            .transpose()
    }
}

fn newest(labels: Labels, at: Timestamp, value: Value) -> Result<Newest, StorageError> {
    let (value, histogram) = match value {
        Value::Float(bits) => (f64::from_bits(bits), None),
        Value::Histogram(bytes) => {
            let histogram: Histogram = HistogramPoint { at, bytes }.decode()?;
            (histogram.sum, Some(Arc::new(histogram)))
        }
    };
    Ok(Newest {
        labels,
        at,
        value,
        histogram,
    })
}
