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
use crate::{Labels, Series, Timestamp};

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
    /// What was asked for: the last instant or less than a step after it.
    pub end: Timestamp,
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

/// How many samples one step of computing a fragment made, a histogram counting for several. Adds
/// up over series, and so over shards.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StepCount {
    /// Held at each instant.
    pub sizes: Vec<u64>,
    /// The same, a histogram counting once; empty where there are none.
    pub points: Vec<u64>,
    /// Histograms that count for one more while they stand in a vector; empty where there are none.
    pub rounded: Vec<u64>,
    /// Read for each instant. Of a part, [`Part::samples`] tells it.
    pub read: Vec<u64>,
    /// Of a function of windows: the most that the windows of a series held while those of all
    /// others had become results, and how many results there are.
    pub windows: u64,
    pub results: u64,
    /// It is a number, of which there is one however many series there are.
    pub is_scalar: bool,
}

impl StepCount {
    /// All samples that are told of.
    pub fn total(&self) -> u64 {
        let lists = [&self.sizes, &self.points, &self.rounded, &self.read];
        let listed = lists.iter().flat_map(|list| list.iter()).copied();
        listed
            .chain([self.windows, self.results])
            .fold(0, u64::saturating_add)
    }

    /// Adds what the same step made of other series.
    pub fn add(&mut self, other: &Self) {
        add_up(&mut self.read, &other.read);
        if self.is_scalar || other.is_scalar {
            self.sizes.clone_from(&other.sizes);
            self.is_scalar = true;
            return;
        }
        if !self.points.is_empty() || !other.points.is_empty() {
            let points = |count: &Self| match count.points.is_empty() {
                true => count.sizes.clone(),
                false => count.points.clone(),
            };
            let mut all = points(self);
            add_up(&mut all, &points(other));
            self.points = all;
        }
        add_up(&mut self.sizes, &other.sizes);
        add_up(&mut self.rounded, &other.rounded);
        // Nothing is held beside the results of whichever comes last.
        self.windows = self.windows.max(other.windows);
        self.results = self.results.saturating_add(other.results);
    }
}

fn add_up(all: &mut Vec<u64>, more: &[u64]) {
    all.resize(all.len().max(more.len()), 0);
    for (all, more) in all.iter_mut().zip(more) {
        *all = all.saturating_add(*more);
    }
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
    /// What each step of computing it held; empty where that is not told.
    pub counts: Vec<StepCount>,
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

    /// The series of a selection, for somebody who computes elsewhere; sorted by labels.
    async fn select(
        &self,
        source: &dyn Source,
        selection: &Selection,
    ) -> Result<Vec<Series>, SourceError> {
        source.select(selection).await
    }

    /// What [`Evaluator::evaluate`] will select, for a source that wants to have it chosen; none
    /// where that fails.
    fn selection(&self, _fragment: &Fragment) -> Option<Selection> {
        None
    }
}
