//! Series of several shards, chosen but not read yet: what can be weighed and cut before anything
//! is decoded, so that a large question can be worked on by several tasks.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use model::source::{MetadataSelection, Selection, Source, SourceError};
use model::{Labels, Series};

use crate::part::Part;
use crate::pieces::Pieces;
use crate::shard::Shard;

type Handles = Vec<(Labels, Vec<Part>)>;

/// Handles on the samples of a selection, by shard.
pub struct Chosen(Mutex<Vec<(Arc<Shard>, Handles)>>);

impl Chosen {
    /// What `shards`, each of which was made sure to be fresh enough, hold of a selection.
    pub fn of(shards: impl IntoIterator<Item = Arc<Shard>>, selection: &Selection) -> Self {
        let gathered = shards.into_iter().map(|shard| gather(shard, selection));
        Self(Mutex::new(
            gathered.filter(|(_, h)| !h.is_empty()).collect(),
        ))
    }

    /// The same, unless it is more than about `samples_max` samples: then no more shards are looked at.
    pub fn within(
        shards: impl IntoIterator<Item = Arc<Shard>>,
        selection: &Selection,
        samples_max: usize,
    ) -> Option<Self> {
        let mut left = samples_max;
        let mut chosen = Vec::new();
        for shard in shards {
            let (shard, handles) = gather(shard, selection);
            let here: usize = handles.iter().map(|(_, parts)| samples(parts)).sum();
            left = left.checked_sub(here)?;
            if !handles.is_empty() {
                chosen.push((shard, handles));
            }
        }
        Some(Self(Mutex::new(chosen)))
    }

    fn take(&self) -> Vec<(Arc<Shard>, Handles)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// About how many samples will be decoded.
    pub fn samples(&self) -> usize {
        let shards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = shards.iter().flat_map(|(_, handles)| handles);
        series.map(|(_, parts)| samples(parts)).sum()
    }

    /// The same in at most `pieces` pieces of about equal size; at least one.
    pub fn cut(self, pieces: usize) -> Vec<Self> {
        let each = self.samples().div_ceil(pieces.max(1)).max(1);
        let (mut cut, mut current, mut held) = (Vec::new(), Vec::new(), 0);
        for (shard, handles) in self.take() {
            let mut own: Handles = Vec::new();
            for one in handles {
                held += samples(&one.1);
                own.push(one);
                if held >= each {
                    current.push((shard.clone(), std::mem::take(&mut own)));
                    cut.push(Self(Mutex::new(std::mem::take(&mut current))));
                    held = 0;
                }
            }
            if !own.is_empty() {
                current.push((shard, own));
            }
        }
        if cut.is_empty() || !current.is_empty() {
            cut.push(Self(Mutex::new(current)));
        }
        cut
    }
}

fn gather(shard: Arc<Shard>, selection: &Selection) -> (Arc<Shard>, Handles) {
    let (start, end, take) = (selection.start, selection.end, selection.take);
    let found = shard.read(|state| state.gather(&selection.matchers, start, end, take));
    (shard, found)
}

fn samples(parts: &[Part]) -> usize {
    parts.iter().map(Part::count).sum()
}

/// Answers the selection it was made for, once.
#[async_trait]
impl Source for Chosen {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        let mut pieces = self.stream(selection);
        let mut series = Vec::new();
        while let Some(piece) = pieces.next().await {
            series.extend(piece?);
        }
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Ok(series)
    }

    fn stream<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> BoxStream<'a, Result<Vec<Series>, SourceError>> {
        let shards = futures::stream::iter(self.take());
        let of_shard = |(shard, handles): (Arc<Shard>, Handles)| {
            let pieces = Pieces::new(handles, selection);
            futures::stream::try_unfold((shard, pieces), async |(shard, mut pieces)| {
                let piece = pieces.next().await.map_err(|e| shard.source_error(e))?;
                Ok(piece.map(|piece| (piece, (shard, pieces))))
            })
        };
        shards.flat_map(of_shard).boxed()
    }

    async fn series(&self, _: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        Err(only_selects())
    }

    async fn label_names(&self, _: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        Err(only_selects())
    }

    async fn label_values(
        &self,
        _: &str,
        _: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        Err(only_selects())
    }
}

fn only_selects() -> SourceError {
    SourceError::Internal("chosen series were asked for something else".to_owned())
}
