//! Evaluation: a plan's steps over columns.
//!
//! A [`Column`] holds one series' value at every instant of a grid. Each operator walks whole
//! columns, so no instant is ever fetched or decoded on its own. Operators that run long give the
//! runtime a turn now and then, see [`Pace`].

mod aggregate;
mod binary;
mod exact;
mod fold;
mod functions;
mod kahan;
mod matching;
mod notes;
mod pace;
mod part;
mod quantile;
mod selector;
mod set;
mod topk;

use model::hash::Map;
use model::labels::METRIC_NAME;
use model::sample::{STALE_NAN, is_stale};
use model::{Labels, Samples, Series};

pub(crate) use notes::Notes;
pub(crate) use pace::Pace;
pub(crate) use part::Parts;
pub(crate) use selector::Data;

use crate::error::QueryError;
use crate::plan::{Grid, Look, Op, Step};

/// What stands in a column where the series has no value. No computation yields these bits:
/// staleness markers are never selected, and arithmetic makes quiet NaNs.
const ABSENT: f64 = STALE_NAN;

/// What building one series' labels costs, in values.
const LABEL_COST: usize = 100;

fn is_present(value: f64) -> bool {
    !is_stale(value)
}

/// The value at `step`, if there is one.
pub(crate) fn value_at(values: &[f64], step: usize) -> Option<f64> {
    values.get(step).copied().filter(|&v| is_present(v))
}

/// One series at every instant of a grid.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub labels: Labels,
    /// The metric name goes when the result is handed out (delayed name removal only).
    drop_name: bool,
    pub values: Vec<f64>,
}

impl Column {
    fn has_values(&self) -> bool {
        self.values.iter().copied().any(is_present)
    }
}

/// Samples of series, cut to a window at each instant.
#[derive(Debug)]
pub(crate) struct Ranges {
    series: Vec<RangeSeries>,
    look: Look,
    range_ms: i64,
}

#[derive(Debug)]
struct RangeSeries {
    labels: Labels,
    drop_name: bool,
    samples: Samples,
}

impl Ranges {
    /// What the window sees from `now`; series it sees nothing of are left out.
    pub fn cut(self, now: i64) -> Vec<Series> {
        let end = self.look.from(now);
        let start = end.saturating_sub(self.range_ms);
        let cut = |samples: &Samples| {
            let mut kept = Samples::default();
            let inside = samples
                .iter()
                .filter(|s| s.timestamp.0 > start && s.timestamp.0 <= end);
            inside.for_each(|s| kept.push(s.timestamp, s.value));
            kept
        };
        let series = self.series.into_iter().map(|series| Series {
            samples: cut(&series.samples),
            labels: series.labels,
        });
        series.filter(|s| !s.samples.is_empty()).collect()
    }
}

/// What a step yields.
#[derive(Debug)]
pub(crate) enum Columns {
    /// A value at every instant.
    Scalar(Vec<f64>),
    String {
        text: String,
        not_utf8: Option<Vec<u8>>,
    },
    Vector(Vec<Column>),
    Ranges(Ranges),
}

impl Columns {
    /// How many samples it holds.
    fn size(&self) -> usize {
        match self {
            Self::Scalar(values) => values.len(),
            Self::String { .. } => 0,
            Self::Vector(columns) => columns.iter().map(|c| c.values.len()).sum(),
            Self::Ranges(ranges) => ranges.series.iter().map(|s| s.samples.len()).sum(),
        }
    }

    fn into_scalar(self) -> Vec<f64> {
        match self {
            Self::Scalar(values) => values,
            other => unreachable!("the parser checked that this is a scalar: {other:?}"),
        }
    }

    pub fn into_vector(self) -> Vec<Column> {
        match self {
            Self::Vector(columns) => columns,
            other => unreachable!("the parser checked that this is a vector: {other:?}"),
        }
    }

    fn into_ranges(self) -> Ranges {
        match self {
            Self::Ranges(ranges) => ranges,
            other => unreachable!("the parser checked that this is a range: {other:?}"),
        }
    }

    fn into_string(self) -> (String, Option<Vec<u8>>) {
        match self {
            Self::String { text, not_utf8 } => (text, not_utf8),
            other => unreachable!("the parser checked that this is a string: {other:?}"),
        }
    }
}

/// One query being computed.
pub(crate) struct Evaluation<'a> {
    query: &'a str,
    data: Data,
    pace: Pace<'a>,
    notes: Notes,
    delayed_names: bool,
}

impl<'a> Evaluation<'a> {
    pub fn new(query: &'a str, data: Data, pace: Pace<'a>, delayed_names: bool) -> Self {
        Self {
            query,
            data,
            pace,
            notes: Notes::default(),
            delayed_names,
        }
    }

    /// Computes all steps; the last one's result.
    pub async fn run(mut self, steps: &[Step<'_>]) -> Result<(Columns, Notes), QueryError> {
        let result = self.compute(steps).await?;
        let result = self.remove_names(result)?;
        Ok((result, self.notes))
    }

    /// As [`Self::run`]; names whose removal was put off are still there.
    pub async fn compute(&mut self, steps: &[Step<'_>]) -> Result<Columns, QueryError> {
        self.data.count_uses(steps);
        self.pace.hold(self.data.size())?;
        let mut stack = Vec::new();
        for step in steps {
            let columns = self.execute(step, &mut stack).await?;
            stack.push(columns);
            let held: usize = stack.iter().map(Columns::size).sum();
            self.pace.hold(held + self.data.size())?;
        }
        let result = stack.pop();
        assert!(stack.is_empty(), "every operand was used");
        Ok(result.expect("a plan has a last step"))
    }

    pub fn into_notes(self) -> Notes {
        self.notes
    }

    async fn execute(
        &mut self,
        step: &Step<'_>,
        stack: &mut Vec<Columns>,
    ) -> Result<Columns, QueryError> {
        let grid = step.grid;
        match &step.op {
            Op::Number(value) => Ok(Columns::Scalar(vec![*value; grid.steps])),
            Op::String(text, not_utf8) => Ok(Columns::String {
                text: (*text).to_owned(),
                not_utf8: not_utf8.map(<[u8]>::to_vec),
            }),
            Op::Select { selection, look } => self.select(*selection, *look, grid).await,
            Op::SelectTime { selection, look } => self.select_time(*selection, *look, grid).await,
            Op::Range {
                selection,
                look,
                range_ms,
            } => Ok(self.range(*selection, *look, *range_ms)),
            Op::Subquery {
                inner,
                look,
                range_ms,
            } => {
                let columns = pop(stack).into_vector();
                self.subquery(columns, *inner, *look, *range_ms).await
            }
            Op::Call(call) => {
                let args = stack.split_off(stack.len() - call.args.len());
                self.call(call, args, grid).await
            }
            Op::Aggregate(aggregate) => {
                let columns = pop(stack).into_vector();
                let param = aggregate.param.as_ref().map(|_| pop(stack));
                self.aggregate(aggregate, param, columns, grid).await
            }
            Op::Binary(binary) => {
                let right = pop(stack);
                let left = pop(stack);
                self.binary(binary, left, right, grid).await
            }
            Op::Part(part) => {
                let parts = self.data.take_parts(*part);
                self.join_parts(parts).await
            }
            Op::Combine { part, aggregate } => {
                let parts = self.data.take_parts(*part);
                self.combine(aggregate, parts, grid).await
            }
            Op::Negate => self.negate(pop(stack)).await,
            Op::Spread => self.spread(pop(stack), grid).await,
        }
    }

    async fn negate(&mut self, columns: Columns) -> Result<Columns, QueryError> {
        match columns {
            Columns::Scalar(values) => Ok(Columns::Scalar(values.iter().map(|v| -v).collect())),
            other => self.map(other.into_vector(), |v| -v).await,
        }
    }

    /// Applies `f` to every value; names go.
    async fn map(
        &mut self,
        mut columns: Vec<Column>,
        f: impl Fn(f64) -> f64,
    ) -> Result<Columns, QueryError> {
        for column in &mut columns {
            self.pace.spend(column.values.len()).await?;
            for value in column.values.iter_mut().filter(|v| is_present(**v)) {
                *value = f(*value);
            }
            self.drop_name(column);
        }
        Ok(Columns::Vector(merge(columns)?))
    }

    async fn spread(&mut self, columns: Columns, grid: Grid) -> Result<Columns, QueryError> {
        match columns {
            Columns::Scalar(values) => {
                let value = values.first().copied().unwrap_or(f64::NAN);
                Ok(Columns::Scalar(vec![value; grid.steps]))
            }
            Columns::Vector(columns) => {
                self.pace.expect(columns.len(), grid.steps)?;
                let mut spread = Vec::with_capacity(columns.len());
                for column in columns {
                    self.pace.spend(grid.steps).await?;
                    let value = column.values.first().copied().unwrap_or(ABSENT);
                    let values = vec![value; grid.steps];
                    spread.push(Column { values, ..column });
                }
                Ok(Columns::Vector(spread))
            }
            other => Ok(other),
        }
    }

    /// Takes the name off the column, now or when the result is handed out.
    fn drop_name(&self, column: &mut Column) {
        if self.delayed_names {
            column.drop_name = true;
        } else {
            column.labels = column.labels.without(METRIC_NAME);
        }
    }

    /// Takes off the names whose removal was put off.
    fn remove_names(&self, columns: Columns) -> Result<Columns, QueryError> {
        match columns {
            Columns::Vector(mut columns) => {
                columns.retain(Column::has_values);
                for column in columns.iter_mut().filter(|c| c.drop_name) {
                    column.labels = column.labels.without(METRIC_NAME);
                }
                Ok(Columns::Vector(if self.delayed_names {
                    distinct(columns)?
                } else {
                    columns
                }))
            }
            Columns::Ranges(mut ranges) => {
                for series in ranges.series.iter_mut().filter(|s| s.drop_name) {
                    series.labels = series.labels.without(METRIC_NAME);
                }
                Ok(Columns::Ranges(ranges))
            }
            other => Ok(other),
        }
    }
}

fn pop(stack: &mut Vec<Columns>) -> Columns {
    stack
        .pop()
        .expect("the plan puts operands before operators")
}

fn same_labelset() -> QueryError {
    QueryError::Execution("vector cannot contain metrics with the same labelset".to_owned())
}

/// The columns, if no two have the same labels.
fn distinct(columns: Vec<Column>) -> Result<Vec<Column>, QueryError> {
    let mut seen = model::hash::Set::default();
    let all_new = columns.iter().all(|column| seen.insert(&column.labels));
    if all_new {
        Ok(columns)
    } else {
        Err(same_labelset())
    }
}

/// Joins columns with the same labels, which may not both have a value at one instant.
fn merge(columns: Vec<Column>) -> Result<Vec<Column>, QueryError> {
    let mut places: Map<Labels, usize> = Map::default();
    let mut merged: Vec<Column> = Vec::with_capacity(columns.len());
    for column in columns {
        match places.get(&column.labels) {
            Some(&place) => fill(&mut merged[place], &column)?,
            None => {
                places.insert(column.labels.clone(), merged.len());
                merged.push(column);
            }
        }
    }
    Ok(merged)
}

fn fill(into: &mut Column, from: &Column) -> Result<(), QueryError> {
    for (into, &from) in into.values.iter_mut().zip(&from.values) {
        match (is_present(*into), is_present(from)) {
            (true, true) => return Err(same_labelset()),
            (false, true) => *into = from,
            _ => {}
        }
    }
    Ok(())
}
