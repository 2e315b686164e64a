//! A shard's half of a query: one node of its tree, over the shard's own series.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use model::fragment::{Evaluator, Fragment, FragmentError, Part, PartColumn};
use model::port::Clock;
use model::source::Source;

use crate::ast::{Aggregate, Expr};
use crate::engine::{EngineOptions, select};
use crate::error::QueryError;
use crate::eval::{Columns, Data, Evaluation, Pace};
use crate::local;
use crate::parser::{ParseOptions, parse_with};
use crate::plan::{Context, Grid, plan};

/// Computes fragments for this node and for others.
pub struct Fragments {
    clock: Arc<dyn Clock>,
    /// A fragment ends by its time limit, or when nobody waits for it any more.
    is_closed: AtomicBool,
}

impl Fragments {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            is_closed: AtomicBool::new(false),
        }
    }

    async fn part(&self, source: &dyn Source, fragment: &Fragment) -> Result<Part, QueryError> {
        let features = Features(fragment.features);
        let expr = parse_with(&fragment.query, features.parse_options())?;
        let node = local::node(&expr, fragment.node).ok_or_else(|| {
            QueryError::Execution(format!("the query has no node {}", fragment.node))
        })?;
        let aggregate = match (fragment.fold, node) {
            (true, Expr::Aggregate(aggregate)) => Some(aggregate),
            (true, _) => {
                return Err(QueryError::Execution("only aggregations fold".to_owned()));
            }
            (false, _) => None,
        };
        let context = context(fragment);
        let plan = plan(aggregate.map_or(node, |a| &a.expr), context, None)?;
        let timeout = Duration::from_millis(fragment.timeout_ms);
        let deadline = self.clock.monotonic().saturating_add(timeout);
        let pace = Pace::new(&*self.clock, deadline, &self.is_closed, context.samples_max);
        pace.check()?;
        let data = select(source, &plan.selections, context.samples_max).await?;
        let data = Data::new(data, Vec::new(), fragment.lookback_ms);
        let (series, samples) = (data.series(), data.size());
        let mut evaluation =
            Evaluation::new(&fragment.query, data, pace, features.delayed_name_removal());
        let columns = evaluation.compute(&plan.steps).await?;
        let mut part = match aggregate {
            Some(aggregate) => fold(&mut evaluation, aggregate, columns, context.grid).await?,
            None => whole(columns),
        };
        part.notes = evaluation.into_notes().into_parts();
        part.series = series as u64;
        part.samples = vec![samples as u64];
        Ok(part)
    }
}

async fn fold(
    evaluation: &mut Evaluation<'_>,
    aggregate: &Aggregate,
    columns: Columns,
    grid: Grid,
) -> Result<Part, QueryError> {
    let folded = evaluation
        .fold_columns(aggregate, columns.into_vector(), grid)
        .await?;
    Ok(Part {
        cannot_fold: folded.is_none(),
        columns: folded.unwrap_or_default(),
        ..Part::default()
    })
}

fn whole(columns: Columns) -> Part {
    let columns = columns.into_vector().into_iter();
    Part {
        columns: columns.map(PartColumn::from).collect(),
        ..Part::default()
    }
}

fn context(fragment: &Fragment) -> Context {
    Context {
        grid: Grid {
            start: fragment.start.0,
            step: fragment.step_ms.max(1),
            steps: fragment.steps as usize,
        },
        start: fragment.query_start.0,
        end: fragment.query_end.0,
        lookback_ms: fragment.lookback_ms,
        subquery_step_ms: fragment.subquery_step_ms.max(1),
        consistency: fragment.consistency,
        samples_max: usize::try_from(fragment.samples_max).unwrap_or(usize::MAX),
    }
}

#[async_trait]
impl Evaluator for Fragments {
    async fn evaluate(
        &self,
        source: &dyn Source,
        fragment: &Fragment,
    ) -> Result<Part, FragmentError> {
        self.part(source, fragment)
            .await
            .map_err(|error| match error {
                QueryError::Source(error) => FragmentError::Source(error),
                QueryError::TooManySamples => FragmentError::TooManySamples,
                QueryError::Timeout => FragmentError::Timeout,
                QueryError::Canceled => FragmentError::Canceled,
                QueryError::Parse(_) | QueryError::Invalid(_) | QueryError::Execution(_) => {
                    FragmentError::Execution(error.to_string())
                }
            })
    }
}

impl From<FragmentError> for QueryError {
    fn from(error: FragmentError) -> Self {
        match error {
            FragmentError::Source(error) => Self::Source(error),
            FragmentError::Execution(text) => Self::Execution(text),
            FragmentError::TooManySamples => Self::TooManySamples,
            FragmentError::Timeout => Self::Timeout,
            FragmentError::Canceled => Self::Canceled,
            FragmentError::Unsupported => Self::Execution(
                "a node of the cluster cannot compute this query: it runs another version"
                    .to_owned(),
            ),
        }
    }
}

/// Switches of the language as bits, the same in every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features(pub u32);

impl Features {
    const EXPERIMENTAL_FUNCTIONS: u32 = 1;
    const DELAYED_NAME_REMOVAL: u32 = 2;

    pub fn of(options: &EngineOptions) -> Self {
        let bit = |is_on: bool, bit: u32| if is_on { bit } else { 0 };
        Self(
            bit(options.experimental_functions, Self::EXPERIMENTAL_FUNCTIONS)
                | bit(options.delayed_name_removal, Self::DELAYED_NAME_REMOVAL),
        )
    }

    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    fn parse_options(self) -> ParseOptions {
        ParseOptions {
            experimental_functions: self.has(Self::EXPERIMENTAL_FUNCTIONS),
        }
    }

    fn delayed_name_removal(self) -> bool {
        self.has(Self::DELAYED_NAME_REMOVAL)
    }
}
