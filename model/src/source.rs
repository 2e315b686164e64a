//! The way out: something that answers a selection.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::fragment::{Fragment, FragmentError, Part};
use crate::newest::{self, NewestSelection, Pages};
use crate::sample::ExemplarSeries;
use crate::trail::Trail;
use crate::{Labels, Matcher, Series, ShardId, Timestamp};

/// How fresh an answer must be.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Contains everything acknowledged anywhere before the request began.
    #[default]
    Strong,
    /// Whatever this node's replicas have applied.
    Local,
}

/// Which samples of a chosen series are wanted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Take {
    /// Every sample in the range.
    #[default]
    All,
    /// The newest one in the range.
    Last,
}

/// Series that match every matcher, and their samples with `start <= t <= end`.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    pub matchers: Vec<Matcher>,
    pub start: Timestamp,
    pub end: Timestamp,
    pub take: Take,
    pub consistency: Consistency,
}

/// Label sets that match any of the matcher lists (all, when there is none) and may have a sample in
/// `start ..= end`. An empty list of lists means every series.
///
/// As in Prometheus no samples are looked at: series are chosen by the ranges of their chunks, names
/// and values by those of the blocks and the head in which they stand.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataSelection {
    pub any_of: Vec<Vec<Matcher>>,
    pub start: Timestamp,
    pub end: Timestamp,
    pub consistency: Consistency,
}

/// Why there is no answer. There is never half of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("no answer from {}", crate::id::shard_list(.0))]
    Unavailable(Vec<ShardId>),
    #[error("too much data: {0}")]
    TooLarge(String),
    /// Others have what this would take; later it may do.
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Internal(String),
}

/// Answers selections. Implementations wrap one another: one shard, a peer, the whole cluster.
#[async_trait]
pub trait Source: Send + Sync {
    /// Chosen series sorted by labels, each once, each with at least one sample.
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError>;

    /// As [`Source::select`], in pieces: each series in one of them, in no order. A source that can
    /// decodes a piece only when it is asked for, so that not all samples are held at once.
    fn stream<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> BoxStream<'a, Result<Vec<Series>, SourceError>> {
        futures::stream::once(self.select(selection)).boxed()
    }

    /// The newest sample of each chosen series, page by page in the order of their names. When this
    /// returns, everything that must answer has begun to; an error later on is the last page.
    async fn newest(&self, selection: &NewestSelection) -> Result<Pages, SourceError> {
        newest::by_select(self, selection).await
    }

    /// Chosen label sets, sorted, each once.
    async fn series(&self, selection: &MetadataSelection) -> Result<Vec<Labels>, SourceError>;

    /// Names of labels on chosen series, sorted, each once. By whole blocks.
    async fn label_names(&self, selection: &MetadataSelection) -> Result<Vec<String>, SourceError>;

    /// Values of one label on chosen series, sorted, each once. By whole blocks.
    async fn label_values(
        &self,
        name: &str,
        selection: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError>;

    /// The parts of a fragment, one a shard, in the order of the shards.
    async fn evaluate(&self, _fragment: &Fragment) -> Result<Vec<Part>, FragmentError> {
        Err(FragmentError::Unsupported)
    }

    /// Whether [`Source::evaluate`] is supported.
    fn evaluates(&self) -> bool {
        false
    }

    /// The same source, noting whom it asks for what; none where nothing is known of that.
    fn noting(&self, _trail: Arc<Trail>) -> Option<Arc<dyn Source>> {
        None
    }

    /// Exemplars in `start ..= end` of series that any of the matcher lists chooses: by labels, each
    /// series once and with at least one. A source that keeps none has none to tell.
    async fn exemplars(
        &self,
        _selection: &MetadataSelection,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        Ok(Vec::new())
    }
}
