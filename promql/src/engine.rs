//! Queries: parse, plan, select, evaluate, under limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use model::fragment::Fragment;
use model::limits::{QUERY_POINTS_MAX, QUERY_SAMPLES_MAX, QUERY_SELECTIONS_MAX};
use model::port::Clock;
use model::source::{Consistency, Selection, Source};
use model::{Labels, Samples, Series, Timestamp};

use crate::ast::{Expr, Type};
use crate::error::QueryError;
use crate::eval::{Columns, Data, Evaluation, Pace, Parts, value_at};
use crate::fragment::Features;
use crate::local::Numbers;
use crate::parser::{ParseOptions, parse_with};
use crate::plan::{Context, Grid, PartPlan, plan};

/// What all queries of an engine share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// How long a sample speaks for its series (Prometheus' `--query.lookback-delta`).
    pub lookback: Duration,
    /// How long a query may take (`--query.timeout`).
    pub timeout: Duration,
    /// How many samples a query may hold at once (`--query.max-samples`).
    pub samples_max: usize,
    /// The step of subqueries that name none: the global evaluation interval.
    pub subquery_step: Duration,
    /// Functions and aggregations Prometheus calls experimental.
    pub experimental_functions: bool,
    /// Metric names are dropped from the result only, not at every function
    /// (`promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            lookback: Duration::from_secs(300),
            timeout: Duration::from_secs(120),
            samples_max: QUERY_SAMPLES_MAX,
            subquery_step: Duration::from_secs(60),
            experimental_functions: false,
            delayed_name_removal: false,
        }
    }
}

/// What one query may ask for besides its text and times.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct QueryParams {
    pub consistency: Consistency,
    /// Instead of the engine's.
    pub lookback: Option<Duration>,
    /// Instead of the engine's; a longer one has no effect.
    pub timeout: Option<Duration>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryResult {
    pub value: Value,
    /// What the asker should know, in Prometheus' words; each once.
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Scalar(Timestamp, f64),
    String(Timestamp, String),
    /// In the order of evaluation, which `sort`, `topk` and their like decide.
    Vector(Vec<VectorSample>),
    /// Sorted by labels.
    Matrix(Vec<Series>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct VectorSample {
    pub labels: Labels,
    pub timestamp: Timestamp,
    pub value: f64,
}

/// Answers queries.
pub struct Engine {
    options: EngineOptions,
    clock: Arc<dyn Clock>,
    is_closed: AtomicBool,
}

impl Engine {
    pub fn new(options: EngineOptions, clock: Arc<dyn Clock>) -> Self {
        Self {
            options,
            clock,
            is_closed: AtomicBool::new(false),
        }
    }

    /// Cancels what is running and whatever comes later: for a node that stops.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// The value of `query` at one instant.
    pub async fn instant(
        &self,
        source: &dyn Source,
        query: &str,
        at: Timestamp,
        params: &QueryParams,
    ) -> Result<QueryResult, QueryError> {
        let expr = self.parse(query)?;
        let run = Run {
            engine: self,
            query,
            expr: &expr,
            grid: Grid::single(at.0),
            end: at,
            params,
        };
        let (columns, warnings, infos) = run.evaluate(source).await?;
        Ok(QueryResult {
            value: instant_value(columns, at),
            warnings,
            infos,
        })
    }

    /// The values of `query` from `start` to `end`, both included, every `step`.
    pub async fn range(
        &self,
        source: &dyn Source,
        query: &str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
        params: &QueryParams,
    ) -> Result<QueryResult, QueryError> {
        let grid = range_grid(start, end, step)?;
        let expr = self.parse(query)?;
        if !matches!(expr.ty(), Type::Scalar | Type::Vector) {
            let ty = expr.ty().documented();
            return Err(QueryError::Invalid(format!(
                "invalid expression type \"{ty}\" for range query, must be Scalar or instant Vector"
            )));
        }
        let run = Run {
            engine: self,
            query,
            expr: &expr,
            grid,
            end,
            params,
        };
        let (columns, warnings, infos) = run.evaluate(source).await?;
        Ok(QueryResult {
            value: Value::Matrix(range_value(columns, grid)),
            warnings,
            infos,
        })
    }

    fn parse(&self, query: &str) -> Result<Expr, QueryError> {
        let options = ParseOptions {
            experimental_functions: self.options.experimental_functions,
        };
        Ok(parse_with(query, options)?)
    }
}

/// Checks the times of a range query.
fn range_grid(start: Timestamp, end: Timestamp, step: Duration) -> Result<Grid, QueryError> {
    let invalid = |why: &str| Err(QueryError::Invalid(why.to_owned()));
    if end < start {
        return invalid("invalid parameter \"end\": end timestamp must not be before start time");
    }
    let Some(step_ms) = duration_ms(step).filter(|&ms| ms > 0) else {
        return invalid(
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        );
    };
    let points = end.0.checked_sub(start.0).map(|length| length / step_ms);
    if points.is_none_or(|points| points > QUERY_POINTS_MAX) {
        return invalid(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        );
    }
    Ok(Grid::between(start.0, end.0, step_ms))
}

fn duration_ms(duration: Duration) -> Option<i64> {
    i64::try_from(duration.as_millis()).ok()
}

/// One query on its way.
struct Run<'a> {
    engine: &'a Engine,
    query: &'a str,
    expr: &'a Expr,
    grid: Grid,
    end: Timestamp,
    params: &'a QueryParams,
}

impl Run<'_> {
    async fn evaluate(
        &self,
        source: &dyn Source,
    ) -> Result<(Columns, Vec<String>, Vec<String>), QueryError> {
        let options = &self.engine.options;
        let timeout = self
            .params
            .timeout
            .map_or(options.timeout, |t| t.min(options.timeout));
        let lookback = self.params.lookback.unwrap_or(options.lookback);
        let lookback_ms = duration_ms(lookback).unwrap_or(i64::MAX);
        let context = Context {
            grid: self.grid,
            start: self.grid.start,
            end: self.end.0,
            lookback_ms,
            subquery_step_ms: duration_ms(options.subquery_step)
                .unwrap_or(i64::MAX)
                .max(1),
            consistency: self.params.consistency,
            samples_max: options.samples_max,
        };
        let numbers = source.evaluates().then(|| Numbers::of(self.expr));
        let plan = plan(self.expr, context, numbers.as_ref())?;
        let clock = &*self.engine.clock;
        let deadline = clock.monotonic().saturating_add(timeout);
        let pace = Pace::new(clock, deadline, &self.engine.is_closed, options.samples_max);
        pace.check()?;
        let fetching = async {
            let selecting = select(source, &plan.selections, options.samples_max);
            let parts = self.fetch_parts(source, &plan.parts, context, timeout);
            futures::try_join!(selecting, parts)
        };
        let (data, parts) = tokio::time::timeout(timeout, fetching)
            .await
            .map_err(|_elapsed| QueryError::Timeout)??;
        let data = Data::new(data, parts, lookback_ms);
        let evaluation = Evaluation::new(self.query, data, pace, options.delayed_name_removal);
        let (columns, notes) = evaluation.run(&plan.steps).await?;
        let (warnings, infos) = notes.into_texts();
        Ok((columns, warnings, infos))
    }
}

impl Run<'_> {
    /// Has the shards compute their parts of the plan, all at once.
    async fn fetch_parts(
        &self,
        source: &dyn Source,
        plans: &[PartPlan],
        context: Context,
        timeout: Duration,
    ) -> Result<Vec<Parts>, QueryError> {
        let whole = Fragment {
            query: self.query.to_owned(),
            node: 0,
            fold: false,
            start: Timestamp(context.grid.start),
            step_ms: context.grid.step,
            steps: 0,
            query_start: Timestamp(context.start),
            query_end: Timestamp(context.end),
            query_step_ms: self.grid.step,
            lookback_ms: context.lookback_ms,
            subquery_step_ms: context.subquery_step_ms,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            samples_max: context.samples_max as u64,
            features: Features::of(&self.engine.options).0,
            consistency: context.consistency,
        };
        let fetches: Vec<_> = plans
            .iter()
            .map(|plan| fetch_part(source, &whole, plan))
            .collect();
        let fetched = futures::stream::iter(fetches).buffered(QUERY_SELECTIONS_MAX);
        fetched.try_collect().await
    }
}

async fn fetch_part(
    source: &dyn Source,
    whole: &Fragment,
    plan: &PartPlan,
) -> Result<Parts, QueryError> {
    let mut fragment = Fragment {
        node: plan.node,
        fold: plan.unfolded.is_some(),
        start: Timestamp(plan.grid.start),
        step_ms: plan.grid.step,
        steps: u32::try_from(plan.grid.steps).map_err(|_| QueryError::TooManySamples)?,
        ..whole.clone()
    };
    let mut parts = source.evaluate(&fragment).await?;
    if let Some(node) = plan
        .unfolded
        .filter(|_| parts.iter().any(|p| p.cannot_fold))
    {
        (fragment.node, fragment.fold) = (node, false);
        parts = source.evaluate(&fragment).await?;
    }
    Ok(Parts {
        parts,
        is_folded: fragment.fold,
    })
}

/// Makes all selections, a few at a time; results in their order. Stops as soon as they bring more
/// than `samples_max`.
pub(crate) async fn select(
    source: &dyn Source,
    selections: &[Selection],
    samples_max: usize,
) -> Result<Vec<Vec<Series>>, QueryError> {
    // A list, not the lazy map: through its closure the compiler cannot see that a query is Send.
    let fetches: Vec<_> = selections.iter().map(|s| source.select(s)).collect();
    let mut fetched = futures::stream::iter(fetches).buffered(QUERY_SELECTIONS_MAX);
    let (mut sets, mut samples) = (Vec::with_capacity(selections.len()), 0);
    while let Some(series) = fetched.try_next().await? {
        samples += series.iter().map(|s| s.samples.len()).sum::<usize>();
        if samples > samples_max {
            return Err(QueryError::TooManySamples);
        }
        sets.push(series);
    }
    Ok(sets)
}

fn instant_value(columns: Columns, at: Timestamp) -> Value {
    match columns {
        Columns::Scalar(values) => Value::Scalar(at, values.first().copied().unwrap_or(f64::NAN)),
        Columns::String { text, .. } => Value::String(at, text),
        Columns::Vector(columns) => Value::Vector(
            columns
                .into_iter()
                .filter_map(|column| {
                    Some(VectorSample {
                        value: value_at(&column.values, 0)?,
                        labels: column.labels,
                        timestamp: at,
                    })
                })
                .collect(),
        ),
        Columns::Ranges(ranges) => {
            let mut series = ranges.cut(at.0);
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            Value::Matrix(series)
        }
    }
}

fn range_value(columns: Columns, grid: Grid) -> Vec<Series> {
    let with_times = |values: &[f64]| {
        let present = (0..values.len()).filter_map(|step| Some((step, value_at(values, step)?)));
        let mut samples = Samples::default();
        for (step, value) in present {
            samples.push(Timestamp(grid.at(step)), value);
        }
        samples
    };
    match columns {
        Columns::Scalar(values) => vec![Series {
            labels: Labels::default(),
            samples: with_times(&values),
        }],
        Columns::Vector(columns) => {
            let mut series: Vec<_> = columns
                .into_iter()
                .map(|column| Series {
                    samples: with_times(&column.values),
                    labels: column.labels,
                })
                .filter(|series| !series.samples.is_empty())
                .collect();
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            series
        }
        Columns::String { .. } | Columns::Ranges(_) => {
            unreachable!("range queries of other types are refused before")
        }
    }
}
