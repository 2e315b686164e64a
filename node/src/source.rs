//! The whole cluster as one source.

use std::sync::Arc;

use async_trait::async_trait;
use cluster::Cluster;
use federation::FanOut;
use model::fragment::{Fragment, FragmentError, Part};
use model::newest::Pages;
use model::source::{MetadataSelection, Selection, Source, SourceError};
use model::trail::Trail;
use model::{ExemplarSeries, Labels, NewestSelection, Series, ShardId};

/// Asks every shard there is at the moment of the question. Before the cluster is formed there is
/// no answer rather than an empty one.
pub struct ClusterSource {
    pub cluster: Arc<Cluster>,
    /// How many shards a cluster formed by this node would have: those that do not answer yet.
    pub shards: u32,
}

impl ClusterSource {
    fn all(&self) -> Result<Arc<dyn Source>, SourceError> {
        self.cluster.source().ok_or_else(|| self.none())
    }

    fn none(&self) -> SourceError {
        SourceError::Unavailable((0..self.shards).map(ShardId).collect())
    }
}

#[async_trait]
impl Source for ClusterSource {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        self.all()?.select(selection).await
    }

    async fn series(&self, selection: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        self.all()?.series(selection).await
    }

    async fn label_names(&self, selection: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        self.all()?.label_names(selection).await
    }

    async fn label_values(
        &self,
        name: &str,
        selection: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        self.all()?.label_values(name, selection).await
    }

    async fn newest(&self, selection: &NewestSelection) -> Result<Pages, SourceError> {
        let shards = self.cluster.shard_sources();
        match shards.is_empty() {
            true => Err(self.none()),
            false => FanOut::new(shards).newest(selection).await,
        }
    }

    async fn evaluate(&self, fragment: &Fragment) -> Result<Vec<Part>, FragmentError> {
        self.all()?.evaluate(fragment).await
    }

    fn noting(&self, trail: Arc<Trail>) -> Option<Arc<dyn Source>> {
        self.all().ok()?.noting(trail)
    }

    fn evaluates(&self) -> bool {
        self.all().is_ok_and(|sources| sources.evaluates())
    }

    async fn exemplars(
        &self,
        selection: &MetadataSelection,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        self.all()?.exemplars(selection).await
    }
}
