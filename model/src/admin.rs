//! What operators ask of the whole store beside reading and writing: Prometheus' TSDB admin API
//! and the numbers of its status page.

use async_trait::async_trait;

use crate::sink::WriteError;
use crate::source::SourceError;
use crate::{Matcher, Timestamp};

/// A name and how much of it there is.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    pub name: String,
    pub value: u64,
}

/// Cardinality of the head: every list by value, largest first, then by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HeadStatistics {
    pub series: u64,
    pub label_pairs: u64,
    pub chunks: u64,
    /// `None` without a sample.
    pub min_time: Option<Timestamp>,
    pub max_time: Option<Timestamp>,
    pub series_by_metric_name: Vec<Count>,
    pub values_by_label_name: Vec<Count>,
    /// Bytes of the pairs with this name in all series' label blocks, as Prometheus 3.5 counts.
    pub memory_by_label_name: Vec<Count>,
    /// Names are `label=value`.
    pub series_by_label_pair: Vec<Count>,
}

/// Changes what is stored, on every replica alike.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Forgets samples with `start <= t <= end` of series that any of the matcher lists chooses.
    /// `Ok` means that no later read anywhere sees them. Repeating it is safe.
    async fn delete_series(
        &self,
        any_of: Vec<Vec<Matcher>>,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<(), WriteError>;

    /// Rewrites blocks so that deleted samples take no room.
    async fn clean_tombstones(&self) -> Result<(), WriteError>;

    /// Pins what was stored when it began as files in a directory `name` on every node, from
    /// which it can be restored. Without `with_head` only sealed blocks are in it.
    async fn snapshot(&self, name: &str, with_head: bool) -> Result<(), WriteError>;

    /// The head of all shards together; lists are cut to `limit`.
    async fn head_statistics(&self, limit: usize) -> Result<HeadStatistics, SourceError>;
}
