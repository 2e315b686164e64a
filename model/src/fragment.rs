//! Parts of a query that are computed where the series are.
//!
//! A [`Fragment`] names one node of a query's tree that a shard can compute from its own series
//! alone; the answer, a [`Part`], is that node's value over the shard's series, or what an
//! aggregation has folded them to. Joining the parts of all shards gives what one place would have
//! computed from all series, to the last bit: sums travel exactly, as [`PartColumn::rest`].
//!
//! Nothing here knows the language: who computes is an [`Evaluator`], handed down by the node.

use async_trait::async_trait;

use crate::sample::Histograms;
use crate::source::{Consistency, Selection, Source, SourceError};
use crate::{Labels, Timestamp};

/// One node of a query, and the instants it is wanted at.
#[derive(Debug, Clone, PartialEq)]
pub struct Fragment {
    /// The whole query: positions in messages are positions in it.
    pub query: String,
    /// The node, counted from the root in the order in which the text names them.
    pub node: u32,
    /// The node is an aggregation: fold what it aggregates, do not finish.
    pub fold: bool,
    /// Another node, an aggregation that chooses among this one's series: those that it would not
    /// choose of the series here need not be told. Whoever does not know this tells all.
    pub chosen_by: Option<u32>,
    /// `steps` instants from `start` on, `step_ms` apart.
    pub start: Timestamp,
    pub step_ms: i64,
    pub steps: u32,
    /// What `start()`, `end()` and `step()` mean in the query.
    pub query_start: Timestamp,
    pub query_end: Timestamp,
    pub query_step_ms: i64,
    pub lookback_ms: i64,
    pub subquery_step_ms: i64,
    /// Time left.
    pub timeout_ms: u64,
    /// Samples that may be held at once.
    pub samples_max: u64,
    /// Features of the language that are switched on; the evaluator's own numbering.
    pub features: u32,
    pub consistency: Consistency,
}

/// One series, or one group of an aggregation, at every instant of a fragment.
#[derive(Debug, Clone, PartialEq)]
pub struct PartColumn {
    pub labels: Labels,
    /// The metric name goes when the result is handed out.
    pub drop_name: bool,
    /// A staleness marker where there is no value.
    pub values: Vec<f64>,
    pub histograms: Histograms,
    /// What an unfinished aggregation knows besides, column by column of the same length.
    pub rest: Vec<Vec<f64>>,
}

/// A message about the query that an answer carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartNote {
    pub is_warning: bool,
    pub text: String,
    /// Where in the query, in bytes.
    pub offset: u32,
}

/// One shard's share of a fragment.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Part {
    pub columns: Vec<PartColumn>,
    /// A fold was asked for and the series do not allow it (native histograms are among them):
    /// nothing else is told, ask for what the aggregation works on instead.
    pub cannot_fold: bool,
    pub notes: Vec<PartNote>,
    /// Samples read, by instant; or one number for all.
    pub samples: Vec<u64>,
    /// Most samples held at once.
    pub peak: u64,
    /// Series read.
    pub series: u64,
    /// What bringing this part here took, in bytes; 0 where nothing crossed a wire.
    pub bytes: u64,
}

/// Why there is no part.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FragmentError {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The query is at fault, in the words the asker of the query shall see.
    #[error("{0}")]
    Execution(String),
    #[error("too many samples")]
    TooManySamples,
    #[error("timed out")]
    Timeout,
    #[error("canceled")]
    Canceled,
    /// Nobody computes here: select the series instead.
    #[error("nobody computes here")]
    Unsupported,
}

/// Computes fragments over a source of series.
#[async_trait]
pub trait Evaluator: Send + Sync {
    /// Dropping the future ends the work.
    async fn evaluate(
        &self,
        source: &dyn Source,
        fragment: &Fragment,
    ) -> Result<Part, FragmentError>;

    /// What [`Evaluator::evaluate`] will select, for a source that wants to have it chosen; none
    /// where that fails.
    fn selection(&self, _fragment: &Fragment) -> Option<Selection> {
        None
    }
}
