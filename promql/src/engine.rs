//! Queries: parse, plan, select, evaluate, under limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::fragment::Fragment;
use model::limits::{
    QUERY_BYTES_HELD_MAX, QUERY_POINTS_MAX, QUERY_SAMPLES_MAX, QUERY_SELECTION_LARGE_BYTES,
    QUERY_SELECTION_LARGE_SAMPLES, QUERY_SELECTIONS_FIRST, QUERY_SELECTIONS_MAX,
};
use model::port::Clock;
use model::source::{Consistency, Selection, Source};
use model::{Labels, Series, Timestamp, Value as Point};

use crate::ast::{Expr, Type};
use crate::error::QueryError;
use crate::eval::{
    Bounds, Columns, Counts, Data, Entry, Evaluation, Notes, Pace, Parts, Rules, entries,
    samples_bytes,
};
use crate::fragment::Features;
use crate::in_order::InOrder;
use crate::local::{self, Numbers};
use crate::matrix::Matrix;
use crate::parsed::Parsed;
use crate::parser::ParseOptions;
use crate::plan::{Context, Grid, PartPlan, plan};

/// What all queries of an engine share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// How long a sample speaks for its series (Prometheus' `--query.lookback-delta`).
    pub lookback: Duration,
    /// How long a query may take (`--query.timeout`).
    pub timeout: Duration,
    /// How many samples a query may hold at once (`--query.max-samples`), counted as Prometheus
    /// does.
    pub samples_max: usize,
    /// How many bytes of samples a query may really hold: whole selections and whole results.
    pub bytes_max: usize,
    /// The step of subqueries that name none: the global evaluation interval.
    pub subquery_step: Duration,
    /// Functions and aggregations Prometheus calls experimental.
    pub experimental_functions: bool,
    /// Arithmetic on durations (`promql-duration-expr`).
    pub duration_expressions: bool,
    /// `fill` and its like (`promql-binop-fill-modifiers`); read, not computed yet.
    pub fill_modifiers: bool,
    /// `anchored` and `smoothed` (`promql-extended-range-selectors`); read, not computed yet.
    pub extended_ranges: bool,
    /// Metric names are dropped from the result only, not at every function
    /// (`promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// `__type__` and `__unit__` belong to the metric name (`type-and-unit-labels`).
    pub type_and_unit_labels: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            lookback: Duration::from_secs(300),
            timeout: Duration::from_secs(120),
            samples_max: QUERY_SAMPLES_MAX,
            bytes_max: QUERY_BYTES_HELD_MAX,
            subquery_step: Duration::from_secs(60),
            experimental_functions: false,
            duration_expressions: false,
            fill_modifiers: false,
            extended_ranges: false,
            delayed_name_removal: false,
            type_and_unit_labels: false,
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
    pub stats: Stats,
}

/// What a query took: the numbers of the API's `stats`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Stats {
    pub timings: Timings,
    /// Samples read (`totalQueryableSamples`), a histogram counting for several.
    pub samples_read: u64,
    /// The same for each instant of the query (`totalQueryableSamplesPerStep`).
    pub samples_read_at: Vec<(Timestamp, u64)>,
    /// The most samples Prometheus would have held at a time (`peakSamples`).
    pub samples_peak: u64,
}

/// How long the parts of a query took. Waiting for a slot is not the engine's.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Planning and fetching (`queryPreparationTime`).
    pub preparation: Duration,
    /// Computing (`innerEvalTime`).
    pub inner_eval: Duration,
    /// Putting the result in order (`resultSortTime`).
    pub result_sort: Duration,
}

impl Timings {
    /// All of it (`evalTotalTime`).
    pub fn total(&self) -> Duration {
        self.preparation + self.inner_eval + self.result_sort
    }
}

/// An answer's points are floats or native histograms: [`VectorSample::value`], and
/// [`model::Samples::value`] in the series of a matrix. What an API shows of a histogram's buckets is
/// [`crate::native::buckets()`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Scalar(Timestamp, f64),
    String(Timestamp, String),
    /// In the order of evaluation, which `sort`, `topk` and their like decide.
    Vector(Vec<VectorSample>),
    Matrix(Matrix),
}

#[derive(Debug, Clone, PartialEq)]
pub struct VectorSample {
    pub labels: Labels,
    pub timestamp: Timestamp,
    pub value: Point,
}

/// Answers queries.
pub struct Engine {
    options: EngineOptions,
    clock: Arc<dyn Clock>,
    is_closed: AtomicBool,
    parsed: Parsed,
}

impl Engine {
    pub fn new(options: EngineOptions, clock: Arc<dyn Clock>) -> Self {
        Self {
            options,
            clock,
            is_closed: AtomicBool::new(false),
            parsed: Parsed::default(),
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
            step_ms: 0,
            params,
        };
        let evaluated = run.evaluate(source).await?;
        Ok(run.finish(evaluated))
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
            step_ms: grid.step,
            params,
        };
        let evaluated = run.evaluate(source).await?;
        Ok(run.finish(evaluated))
    }

    fn parse(&self, query: &str) -> Result<Arc<Expr>, QueryError> {
        let options = ParseOptions {
            experimental_functions: self.options.experimental_functions,
            duration_expressions: self.options.duration_expressions,
            fill_modifiers: self.options.fill_modifiers,
            extended_ranges: self.options.extended_ranges,
        };
        Ok(self.parsed.get(query, options)?)
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
    /// None for a query at one instant.
    step_ms: i64,
    params: &'a QueryParams,
}

/// A result, and what is told besides.
struct Evaluated {
    result: Computed,
    notes: Notes,
    counts: Counts,
    timings: Timings,
}

enum Computed {
    /// At one instant.
    Columns(Columns),
    Matrix(Matrix),
}

impl Run<'_> {
    async fn evaluate(&self, source: &dyn Source) -> Result<Evaluated, QueryError> {
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
            query_step_ms: self.step_ms,
            lookback_ms,
            subquery_step_ms: duration_ms(options.subquery_step)
                .unwrap_or(i64::MAX)
                .max(1),
            consistency: self.params.consistency,
            samples_max: options.samples_max,
        };
        crate::lengths::check(self.expr, context.query_times())?;
        let clock = &*self.engine.clock;
        let began = clock.monotonic();
        let numbers = source.evaluates().then(|| Numbers::of(self.expr));
        let plan = plan(self.expr, context, numbers.as_ref())?;
        let bounds = Bounds {
            deadline: began.saturating_add(timeout),
            samples_max: options.samples_max,
            bytes_max: options.bytes_max,
        };
        let pace = Pace::new(clock, &self.engine.is_closed, bounds);
        pace.check()?;
        let fetching = async {
            let selecting = select(source, &plan.selections, options.bytes_max);
            let parts = self.fetch_parts(source, &plan.parts, context, timeout);
            futures::try_join!(selecting, parts)
        };
        let (data, parts) = tokio::time::timeout(timeout, fetching)
            .await
            .map_err(|_elapsed| QueryError::Timeout)??;
        let fetched = clock.monotonic();
        let data = Data::new(data, parts, lookback_ms);
        let rules = Rules {
            delayed_names: options.delayed_name_removal,
            type_and_unit_labels: options.type_and_unit_labels,
        };
        let evaluation = Evaluation::new(data, pace, rules);
        let (result, notes, counts) = match self.step_ms {
            0 => {
                let (columns, notes, counts) = evaluation.run(&plan.steps).await?;
                (Computed::Columns(columns), notes, counts)
            }
            _ => {
                let ranged = evaluation.run_range(&plan.steps, self.grid).await?;
                let (matrix, notes, counts) = ranged;
                (Computed::Matrix(matrix), notes, counts)
            }
        };
        let timings = Timings {
            preparation: fetched.saturating_sub(began),
            inner_eval: clock.monotonic().saturating_sub(fetched),
            result_sort: Duration::ZERO,
        };
        Ok(Evaluated {
            result,
            notes,
            counts,
            timings,
        })
    }

    fn finish(&self, evaluated: Evaluated) -> QueryResult {
        let clock = &*self.engine.clock;
        let began = clock.monotonic();
        let value = match evaluated.result {
            Computed::Columns(columns) => instant_value(columns, self.end),
            Computed::Matrix(mut matrix) => {
                matrix.sort();
                Value::Matrix(matrix)
            }
        };
        let (warnings, infos) = evaluated.notes.into_texts(self.query);
        let timings = Timings {
            result_sort: clock.monotonic().saturating_sub(began),
            ..evaluated.timings
        };
        let read = evaluated.counts.read;
        let at = |(step, read)| (Timestamp(self.grid.at(step)), read);
        QueryResult {
            value,
            warnings,
            infos,
            stats: Stats {
                timings,
                samples_read: read.iter().sum(),
                samples_read_at: read.into_iter().enumerate().map(at).collect(),
                samples_peak: evaluated.counts.peak,
            },
        }
    }
}

impl Run<'_> {
    /// The steps by which shards compute a part.
    fn entries(&self, part: &PartPlan, context: Context) -> Result<Vec<Entry>, QueryError> {
        let number = part.unfolded.unwrap_or(part.node);
        let operand = local::node(self.expr, number).expect("a plan names nodes of its tree");
        let context = Context {
            grid: part.grid,
            ..context
        };
        Ok(entries(&plan(operand, context, None)?.steps))
    }

    /// Has the shards compute their parts of the plan, a few at a time. Stops as soon as they bring more
    /// than the query may hold.
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
            chosen_by: None,
            start: Timestamp(context.grid.start),
            step_ms: context.grid.step,
            steps: 0,
            end: Timestamp(context.grid.end),
            query_start: Timestamp(context.start),
            query_end: Timestamp(context.end),
            query_step_ms: self.step_ms,
            lookback_ms: context.lookback_ms,
            subquery_step_ms: context.subquery_step_ms,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            samples_max: context.samples_max as u64,
            features: Features::of(&self.engine.options).0,
            consistency: context.consistency,
        };
        // A list, not the lazy map: through its closure the compiler cannot see that this is Send.
        let fetches: Vec<_> = plans
            .iter()
            .map(|part| fetch_part(source, &whole, part, self.entries(part, context)))
            .collect();
        let mut fetched = InOrder::new(fetches, QUERY_SELECTIONS_FIRST);
        let (mut all, mut bytes) = (Vec::with_capacity(plans.len()), 0);
        while let Some(parts) = fetched.next().await {
            let parts = parts?;
            bytes += parts.bytes;
            fetched.allow(beside(parts.bytes, parts.samples()));
            if bytes > self.engine.options.bytes_max {
                return Err(QueryError::TooManySamples);
            }
            all.push(parts);
        }
        Ok(all)
    }
}

async fn fetch_part(
    source: &dyn Source,
    whole: &Fragment,
    plan: &PartPlan,
    entries: Result<Vec<Entry>, QueryError>,
) -> Result<Parts, QueryError> {
    let entries = entries?;
    let mut fragment = Fragment {
        node: plan.node,
        fold: plan.unfolded.is_some(),
        chosen_by: plan.chosen_by,
        start: Timestamp(plan.grid.start),
        step_ms: plan.grid.step,
        steps: u32::try_from(plan.grid.steps).map_err(|_| QueryError::TooManySamples)?,
        end: Timestamp(plan.grid.end),
        ..whole.clone()
    };
    let mut parts = source.evaluate(&fragment).await?;
    let unfolded = plan
        .unfolded
        .filter(|_| parts.iter().any(|p| p.cannot_fold));
    if let Some(node) = unfolded {
        (fragment.node, fragment.fold) = (node, false);
        parts = source.evaluate(&fragment).await?;
    }
    Ok(Parts::new(parts, fragment.fold, entries))
}

/// How many selections may be under way when the last one brought so much: whatever computes that much has
/// all threads busy.
fn beside(bytes: usize, samples: u64) -> usize {
    let is_large = bytes > QUERY_SELECTION_LARGE_BYTES || samples > QUERY_SELECTION_LARGE_SAMPLES;
    if is_large { 1 } else { QUERY_SELECTIONS_MAX }
}

/// Makes all selections, a few at a time; results in their order. Stops as soon as they bring more
/// than `bytes_max`.
async fn select(
    source: &dyn Source,
    selections: &[Selection],
    bytes_max: usize,
) -> Result<Vec<Vec<Series>>, QueryError> {
    // A list, not the lazy map: through its closure the compiler cannot see that a query is Send.
    let fetches: Vec<_> = selections.iter().map(|s| source.select(s)).collect();
    let mut fetched = InOrder::new(fetches, QUERY_SELECTIONS_FIRST);
    let (mut sets, mut bytes) = (Vec::with_capacity(selections.len()), 0);
    while let Some(series) = fetched.next().await {
        let series = series?;
        let brought = series.iter().map(|s| samples_bytes(&s.samples));
        let brought = brought.sum::<usize>();
        bytes += brought;
        fetched.allow(beside(brought, 0));
        if bytes > bytes_max {
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
                        value: column.value_at(0)?,
                        labels: column.labels,
                        timestamp: at,
                    })
                })
                .collect(),
        ),
        Columns::Ranges(ranges) => {
            let mut series = ranges.cut(at.0);
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            Value::Matrix(series.into())
        }
    }
}
