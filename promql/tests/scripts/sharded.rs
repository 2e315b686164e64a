//! Series on shards, each of which computes its parts.
//!
//! A series is where the hash of its labels says, and every series a piece of its own: as little as
//! possible is computed in one place.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use model::fragment::{Evaluator, Fragment, FragmentError, Part};
use model::port::Clock;
use model::source::{MetadataSelection, Selection, Source, SourceError};
use model::{Labels, Series};
use promql::fragment::Fragments;

use crate::memory::Memory;

/// Every series a piece of its own.
struct OneByOne<'a>(&'a Memory);

#[async_trait]
impl Source for OneByOne<'_> {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        self.0.select(selection).await
    }

    fn stream<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> BoxStream<'a, Result<Vec<Series>, SourceError>> {
        let all = futures::stream::once(self.0.select(selection));
        let pieces = all.map_ok(|all| futures::stream::iter(all.into_iter().map(|s| Ok(vec![s]))));
        pieces.try_flatten().boxed()
    }

    async fn series(&self, _: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        unreachable!("queries select")
    }

    async fn label_names(&self, _: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        unreachable!("queries select")
    }

    async fn label_values(
        &self,
        _: &str,
        _: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        unreachable!("queries select")
    }
}

/// Series on shards, each computing its parts.
pub struct Shards {
    shards: Vec<Memory>,
    evaluator: Fragments,
}

impl Shards {
    pub fn of(memory: &Memory, count: usize, clock: Arc<dyn Clock>) -> Self {
        let mut shards: Vec<Memory> = (0..count).map(|_| Memory::default()).collect();
        for (labels, samples) in &memory.series {
            let home = model::hash::xxh3(7, labels.as_canonical()) % count as u64;
            let shard = &mut shards[home as usize];
            shard.series.insert(labels.clone(), samples.clone());
        }
        Self {
            shards,
            evaluator: Fragments::new(clock),
        }
    }

    /// How many shards hold nothing.
    pub fn empty(&self) -> usize {
        self.shards.iter().filter(|s| s.series.is_empty()).count()
    }
}

#[async_trait]
impl Source for Shards {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.select(selection).await?);
        }
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(all)
    }

    async fn series(&self, _: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        unreachable!("queries select")
    }

    async fn label_names(&self, _: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        unreachable!("queries select")
    }

    async fn label_values(
        &self,
        _: &str,
        _: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        unreachable!("queries select")
    }

    async fn evaluate(&self, fragment: &Fragment) -> Result<Vec<Part>, FragmentError> {
        let mut parts = Vec::new();
        for shard in &self.shards {
            let pieces = OneByOne(shard);
            parts.push(self.evaluator.evaluate(&pieces, fragment).await?);
        }
        Ok(parts)
    }

    fn evaluates(&self) -> bool {
        true
    }
}
