//! One question to all shards: asked of each node once, for all the shards it probably leads.
//!
//! Promise: a strong answer holds everything acknowledged before the question. Who leads is confirmed
//! by votes that travel with the question and the answer ([`crate::raft::standing`]), so that nobody
//! is asked twice: the asker tells what it has seen of the shards it asks about, and is told what the
//! others have seen of those it leads itself. Where that does not do, Raft's own read index does.
//!
//! Whatever a node would not answer is asked for again shard by shard, the way the router looks for
//! leaders.
//!
//! A small question is answered by the replicas here where they have applied all there is ([`near`]).
//!
//! In reading order: [`ask`], [`near`], [`votes`], [`link`] and [`frame`] (the way to a peer), [`connection`],
//! [`answer`], [`wire`].

mod answer;
mod ask;
mod connection;
mod frame;
mod link;
mod near;
mod votes;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use model::fragment::{Fragment, FragmentError, Part};
use model::source::{Consistency, MetadataSelection, Selection, Source, SourceError};
use model::trail::{Asked, Trail};
use model::{ExemplarSeries, Labels, Series, ShardId};

use crate::router::Router;

pub use answer::{Answering, Server};
pub use connection::{Answerer, answer_all};
pub use frame::MAGIC;
pub use link::ReadLink;
pub use near::Near;

/// What is asked of every shard.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Select(Selection),
    Series(MetadataSelection),
    LabelNames(MetadataSelection),
    LabelValues(String, MetadataSelection),
    Exemplars(MetadataSelection),
    Evaluate(Fragment),
}

impl Question {
    /// As a trail has it, where it is a query's.
    fn asked(&self) -> Option<Asked> {
        match self {
            Self::Select(selection) => Some(Asked::Series(selection.clone())),
            Self::Evaluate(fragment) => Some(Asked::Part(fragment.clone())),
            Self::Series(_) | Self::LabelNames(_) | Self::LabelValues(..) | Self::Exemplars(_) => {
                None
            }
        }
    }

    fn consistency(&self) -> Consistency {
        match self {
            Self::Select(selection) => selection.consistency,
            Self::Evaluate(fragment) => fragment.consistency,
            Self::Series(selection)
            | Self::LabelNames(selection)
            | Self::LabelValues(_, selection)
            | Self::Exemplars(selection) => selection.consistency,
        }
    }
}

/// What was found on some shards; only what was asked for is filled. In no order.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub series: Vec<Series>,
    pub label_sets: Vec<Labels>,
    pub texts: Vec<String>,
    pub exemplars: Vec<ExemplarSeries>,
    pub parts: Vec<Part>,
}

impl Found {
    /// How many series and samples were read for it.
    fn read(&self) -> (u64, u64) {
        let parts = self.parts.iter();
        let in_parts = parts.map(|p| (p.series, p.samples.iter().sum::<u64>()));
        let series = self.series.iter();
        let whole = series.map(|s| (1, s.samples.len() as u64));
        in_parts
            .chain(whole)
            .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    fn extend(&mut self, other: Self) {
        self.series.extend(other.series);
        self.label_sets.extend(other.label_sets);
        self.texts.extend(other.texts);
        self.exemplars.extend(other.exemplars);
        self.parts.extend(other.parts);
    }
}

/// All shards of the cluster as one source. A series is on one shard only.
pub struct AllShards {
    pub router: Arc<Router>,
    pub shards: Vec<ShardId>,
    /// Where it is noted who was asked for what, if anybody wants to know.
    pub trail: Option<Arc<Trail>>,
}

impl AllShards {
    async fn find(&self, question: Question) -> Result<Found, SourceError> {
        ask::all(self, &question)
            .await
            .map_err(|error| match error {
                FragmentError::Source(error) => error,
                error => SourceError::Internal(error.to_string()),
            })
    }
}

#[async_trait]
impl Source for AllShards {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        let mut found = self.find(Question::Select(selection.clone())).await?.series;
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(found)
    }

    async fn series(&self, selection: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        let found = self.find(Question::Series(selection.clone())).await?;
        Ok(sorted(found.label_sets))
    }

    async fn label_names(&self, selection: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        let found = self.find(Question::LabelNames(selection.clone())).await?;
        Ok(sorted(found.texts))
    }

    async fn label_values(
        &self,
        name: &str,
        selection: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        let question = Question::LabelValues(name.to_owned(), selection.clone());
        Ok(sorted(self.find(question).await?.texts))
    }

    async fn evaluate(&self, fragment: &Fragment) -> Result<Vec<Part>, FragmentError> {
        let found = ask::all(self, &Question::Evaluate(fragment.clone())).await?;
        Ok(found.parts)
    }

    fn noting(&self, trail: Arc<Trail>) -> Option<Arc<dyn Source>> {
        Some(Arc::new(Self {
            router: self.router.clone(),
            shards: self.shards.clone(),
            trail: Some(trail),
        }))
    }

    fn evaluates(&self) -> bool {
        !self.shards.is_empty() && self.router.evaluator.get().is_some()
    }

    async fn exemplars(
        &self,
        selection: &MetadataSelection,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        let question = Question::Exemplars(selection.clone());
        let mut found = self.find(question).await?.exemplars;
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(found)
    }
}

/// Ascending runs into one, each item once. What one node found is that already.
fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    if !items.is_sorted_by(|a, b| a < b) {
        items.sort();
        items.dedup();
    }
    items
}
