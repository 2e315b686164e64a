//! Evaluation: a plan's steps over columns.
//!
//! A [`Column`] holds one series' value at every instant of a grid. Each operator walks whole
//! columns, so no instant is ever fetched or decoded on its own. Operators that run long give the
//! runtime a turn now and then, see [`Pace`].
//!
//! In reading order: `column`; `selector` brings samples in; `functions`, `aggregate` and its kin,
//! `binary`, `set`; `notes` are what an answer says besides; `pace` and `account` keep it bounded.

mod account;
mod aggregate;
mod binary;
mod column;
mod edge;
mod element;
mod exact;
mod fold;
mod functions;
mod histogram_fold;
mod info;
mod kahan;
mod limit;
mod matching;
mod notes;
mod pace;
mod part;
mod quantile;
mod runs;
mod selector;
mod set;
mod sorted;
mod topk;

use model::Labels;
use model::fragment::StepCount;
use model::hash::Map;
use model::labels::METRIC_NAME;
use model::limits::PART_COUNTS_MAX;

pub(crate) use account::Entry;
pub(crate) use column::{Column, Columns, put_samples, samples_bytes};
pub(crate) use fold::Folder;
pub(crate) use functions::{log2, scale};
pub(crate) use info::info_matchers;
pub(crate) use kahan::Sum as KahanSum;
pub(crate) use notes::{Notes, short_float};
pub(crate) use pace::{Bounds, Pace};
pub(crate) use part::Parts;
pub(crate) use selector::{Data, split};

use account::{HeldByShards, Made, Tally};
use column::{ABSENT, Point, RangeSeries, Ranges, index, is_present};
use pace::turns;
use runs::Runs;

use crate::ast::Aggregate;
use crate::error::QueryError;
use crate::matrix::Matrix;
use crate::native;
use crate::plan::{Grid, Op, Step};

/// What building one series' labels costs, in values.
const LABEL_COST: usize = 100;

/// Of each sample that a step made no more than so many are held at once, whatever the plan.
const HELD_PER_COUNT: u64 = 4;

/// Labels that tell of a metric's type and unit. They go with the name, whoever wrote them:
/// `type-and-unit-labels` says only who sets them and what `rate` tells of them.
const TYPE: &str = "__type__";
const UNIT: &str = "__unit__";

/// Whether a label goes with the metric name.
fn is_of_name(name: &str) -> bool {
    [METRIC_NAME, TYPE, UNIT].contains(&name)
}

/// What the engine was told that evaluation depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub delayed_names: bool,
    pub type_and_unit_labels: bool,
}

/// Samples read, and the most held at a time.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub read: Vec<u64>,
    pub peak: u64,
}

/// One query being computed.
pub(crate) struct Evaluation<'a> {
    data: Data,
    pace: Pace<'a>,
    notes: Notes,
    rules: Rules,
    /// Samples read by the step that is being computed.
    read: Vec<u64>,
    /// What the step that is being computed made of windows: see [`Made`].
    windows: u64,
    results: u64,
    /// What shards held for it.
    shards: Option<HeldByShards>,
    /// What the steps have made of one piece of the series after the other, instead of booking it.
    pieces: Option<Vec<Made>>,
    /// What they had made when that was booked last.
    booked: u64,
    /// Nobody looks at the names of the last step's result.
    ignores_names: bool,
    /// The same, of the step that is being computed.
    keeps_names: bool,
    /// What is being computed is the last step.
    is_last: bool,
}

impl<'a> Evaluation<'a> {
    pub fn new(data: Data, pace: Pace<'a>, rules: Rules) -> Self {
        Self {
            data,
            pace,
            notes: Notes::default(),
            rules,
            read: Vec::new(),
            windows: 0,
            results: 0,
            shards: None,
            pieces: None,
            booked: 0,
            ignores_names: false,
            keeps_names: false,
            is_last: false,
        }
    }

    /// Its result is folded by `aggregate`: names that go with the last step need not be taken off
    /// each series, when groups have none and all series are of one.
    pub fn for_fold(mut self, aggregate: &Aggregate) -> Self {
        let is_listed = aggregate.grouping.iter().any(|name| is_of_name(name));
        self.ignores_names = aggregate.without || !is_listed;
        self
    }

    /// Computes all steps; the last one's result.
    pub async fn run(self, steps: &[Step<'_>]) -> Result<(Columns, Notes, Counts), QueryError> {
        let (columns, notes, counts, _) = self.run_on(steps).await?;
        Ok((columns, notes, counts))
    }

    async fn run_on(
        mut self,
        steps: &[Step<'_>],
    ) -> Result<(Columns, Notes, Counts, Pace<'a>), QueryError> {
        let (result, tally) = self.compute(steps).await?;
        let result = self.remove_names(result).await?;
        let read = self.read_in_all(tally, &result, steps)?;
        let peak = self.pace.peak;
        Ok((result, self.notes, Counts { read, peak }, self.pace))
    }

    /// As [`Self::run`], for a query over a range. A selector's columns are made of a few series at a
    /// time: most of them may be instants at which a series has no value.
    pub async fn run_range(
        mut self,
        steps: &[Step<'_>],
        grid: Grid,
    ) -> Result<(Matrix, Notes, Counts), QueryError> {
        let mut matrix = Matrix::default();
        let [
            Step {
                op: Op::Select { selection, .. },
                ..
            },
        ] = steps
        else {
            let (columns, notes, counts, mut pace) = self.run_on(steps).await?;
            let columns = match columns {
                Columns::Scalar(values) => vec![Column::new(Labels::default(), false, values)],
                columns => columns.into_vector(),
            };
            for column in columns {
                pace.spend(grid.steps).await?;
                matrix.push(column, grid);
            }
            return Ok((matrix, notes, counts));
        };
        let mut data = std::mem::take(&mut self.data);
        let series = data.take_all(*selection);
        let lookback_ms = data.lookback_ms();
        self.foresee_piece(&series, steps, lookback_ms).await?;
        for piece in split(series, grid.steps) {
            let data = Data::new(vec![piece], Vec::new(), lookback_ms);
            for column in self.compute_piece(data, steps).await? {
                self.pace.spend(grid.steps).await?;
                matrix.push(column, grid);
            }
            self.pace.hold(matrix.bytes())?;
        }
        let (notes, counts, _) = self.end(steps).await?;
        Ok((matrix, notes, counts))
    }

    /// As [`Self::run`]; names whose removal was put off are still there.
    async fn compute(&mut self, steps: &[Step<'_>]) -> Result<(Columns, Tally), QueryError> {
        self.data.count_uses(steps);
        self.pace.hold(self.data.bytes())?;
        let (mut stack, mut tallies) = (Vec::new(), Vec::new());
        let mut bytes: Vec<usize> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            self.is_last = at + 1 == steps.len();
            self.keeps_names = self.ignores_names && self.is_last;
            let operands: Vec<Tally> = tallies.split_off(tallies.len() - operands(&step.op));
            let before = self.pace.current;
            let columns = self.execute(step, &mut stack).await?;
            // What was noticed on the way is booked as a whole.
            self.pace.current = before;
            let made = self.take_count(step, &columns).await?;
            tallies.push(match &mut self.pieces {
                Some(counts) => {
                    match counts.get_mut(at) {
                        Some(all) => all.add(&made),
                        None => counts.push(made),
                    }
                    Tally::default()
                }
                None => {
                    let shards = self.shards.take();
                    let entry = Entry::of(step);
                    self.pace.book(entry, operands, made, shards).await?
                }
            });
            // Operands are gone, the others are what they were.
            bytes.truncate(stack.len());
            bytes.push(columns.bytes());
            stack.push(columns);
            let held: usize = bytes.iter().sum();
            let counts: usize = tallies.iter().map(Tally::bytes).sum();
            let pieces = self.pieces.iter().flatten().map(Made::bytes);
            let counts = counts + pieces.sum::<usize>();
            self.pace.hold(held + counts + self.data.bytes())?;
        }
        let result = stack.pop().expect("a plan has a last step");
        let tally = tallies.pop().unwrap_or_default();
        assert!(stack.is_empty(), "every operand was used");
        Ok((result, tally))
    }

    /// Computes all steps over other data than before: the last one's result. What all pieces so far
    /// come to is booked as if they were one.
    pub async fn compute_piece(
        &mut self,
        data: Data,
        steps: &[Step<'_>],
    ) -> Result<Vec<Column>, QueryError> {
        self.data = data;
        self.pieces.get_or_insert_default();
        let (columns, _) = self.compute(steps).await?;
        (self.pace.current, self.pace.peak) = (0, 0);
        self.book_pieces(steps).await?;
        Ok(columns.into_vector())
    }

    /// Books what all pieces so far come to, if it may be too much, and is an eighth more than when that
    /// was looked at last: booking costs as much as the steps have instants.
    async fn book_pieces(&mut self, steps: &[Step<'_>]) -> Result<(), QueryError> {
        let counts = self.pieces.as_deref().unwrap_or_default();
        let made: u64 = counts.iter().map(Made::total).sum();
        let may_exceed = made.saturating_mul(HELD_PER_COUNT) > self.pace.samples_max();
        if may_exceed && made >= self.booked.saturating_add(self.booked / 8) {
            self.booked = made.max(1);
            let counts = counts.to_vec();
            self.pace.replay(&entries(steps), counts).await?;
            (self.pace.current, self.pace.peak) = (0, 0);
        }
        Ok(())
    }

    pub fn pace(&mut self) -> &mut Pace<'a> {
        &mut self.pace
    }

    /// What is to be told of the pieces: notes, samples read, the most held, and what steps made, unless
    /// that is a lot.
    pub async fn end(
        mut self,
        steps: &[Step<'_>],
    ) -> Result<(Notes, Counts, Vec<StepCount>), QueryError> {
        let pieces = self.pieces.unwrap_or_default();
        let told: usize = pieces.iter().map(Made::told).sum();
        let told = match told <= PART_COUNTS_MAX {
            true => pieces.iter().cloned().map(StepCount::from).collect(),
            false => Vec::new(),
        };
        (self.pace.current, self.pace.peak) = (0, 0);
        let read = self.pace.replay(&entries(steps), pieces).await?.read;
        let read = read.to_vec(steps.last().map_or(0, |step| step.grid.steps));
        let peak = self.pace.peak;
        Ok((self.notes, Counts { read, peak }, told))
    }

    /// What the whole query read. Ranges that are the result themselves were no function's window.
    fn read_in_all(
        &mut self,
        tally: Tally,
        result: &Columns,
        steps: &[Step<'_>],
    ) -> Result<Vec<u64>, QueryError> {
        let Columns::Ranges(ranges) = result else {
            return Ok(tally
                .read
                .to_vec(steps.last().map_or(0, |step| step.grid.steps)));
        };
        let mut read = tally.read_within;
        if let Some(Step {
            op: Op::Range { .. },
            grid,
        }) = steps.last()
        {
            read = ranges.window_samples(grid.at(0));
            self.pace.current += read;
            self.pace.notice()?;
        }
        Ok(vec![read])
    }

    /// What the step that was just computed made.
    async fn take_count(&mut self, step: &Step<'_>, columns: &Columns) -> Result<Made, QueryError> {
        let steps = step.grid.steps;
        if u32::try_from(steps).is_err() {
            return Err(QueryError::TooManySamples);
        }
        let (counts, mut read) = (std::mem::take(&mut self.read), Runs::default());
        for steps in turns(counts.len()) {
            self.pace.spend(0).await?;
            read.extend(&counts[steps]);
        }
        let mut made = Made {
            read,
            windows: std::mem::take(&mut self.windows),
            results: std::mem::take(&mut self.results),
            ..Made::default()
        };
        match columns {
            Columns::Scalar(_) => {
                made.sizes = Runs::each(1, steps);
                made.is_scalar = true;
            }
            Columns::Vector(columns) => self.count(columns, steps, &mut made).await?,
            // Counted where their windows are looked at.
            Columns::String { .. } | Columns::Ranges(_) => made.sizes = Runs::each(0, steps),
        }
        Ok(made)
    }

    async fn count(
        &mut self,
        columns: &[Column],
        steps: usize,
        made: &mut Made,
    ) -> Result<(), QueryError> {
        let pace = &mut self.pace;
        made.sizes = Runs::counted(columns, steps, Column::count_samples, pace).await?;
        if columns.iter().all(|column| column.histograms.is_empty()) {
            return Ok(());
        }
        made.points = Runs::counted(columns, steps, Column::count_points, pace).await?;
        made.rounded = Runs::counted(columns, steps, Column::count_rounded, pace).await?;
        if made.rounded.total() == 0 {
            made.rounded = Runs::default();
        }
        Ok(())
    }

    async fn execute(
        &mut self,
        step: &Step<'_>,
        stack: &mut Vec<Columns>,
    ) -> Result<Columns, QueryError> {
        let grid = step.grid;
        match &step.op {
            Op::Number(value) => self.scalars(grid, |_| *value).await,
            Op::String(text, not_utf8) => Ok(Columns::String {
                text: (*text).to_owned(),
                not_utf8: not_utf8.map(<[u8]>::to_vec),
            }),
            Op::Select { selection, look } => self.select(*selection, *look, grid).await,
            Op::SelectTime { selection, look } => self.select_time(*selection, *look, grid).await,
            Op::SelectInfo { selection, look } => self.select_info(*selection, *look, grid).await,
            Op::Range {
                selection,
                look,
                range_ms,
            } => self.range(*selection, *look, *range_ms).await,
            Op::Subquery {
                inner,
                look,
                range_ms,
            } => {
                let columns = pop(stack).into_vector();
                self.subquery(columns, *inner, *look, *range_ms, grid).await
            }
            Op::Call(call) => {
                let args = stack.split_off(stack.len() - call.args.len());
                self.call(call, args, grid).await
            }
            Op::Info(call) => {
                let infos = pop(stack).into_vector();
                let base = pop(stack).into_vector();
                self.info(call, base, infos, grid).await
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
            Op::Part { part, expr } => {
                let parts = self.data.take_parts(*part, &mut self.pace).await?;
                self.join_parts(expr, parts).await
            }
            Op::Combine { part, aggregate } => {
                let parts = self.data.take_parts(*part, &mut self.pace).await?;
                self.combine(aggregate, parts, grid).await
            }
            Op::Negate => self.negate(pop(stack)).await,
            Op::Spread => self.spread(pop(stack), grid).await,
        }
    }

    /// A number at each instant. That many samples are held when it is booked, beside what is held now.
    async fn scalars(
        &mut self,
        grid: Grid,
        value: impl Fn(usize) -> f64,
    ) -> Result<Columns, QueryError> {
        self.pace.glimpse(grid.steps as u64)?;
        self.pace.expect(1, grid.steps)?;
        let mut values = Vec::with_capacity(grid.steps);
        for steps in turns(grid.steps) {
            self.pace.spend(steps.len()).await?;
            values.extend(steps.map(&value));
        }
        Ok(Columns::Scalar(values))
    }

    async fn negate(&mut self, columns: Columns) -> Result<Columns, QueryError> {
        let mut columns = match columns {
            Columns::Scalar(mut values) => {
                self.pace.each(&mut values, |_, v| *v = -*v).await?;
                return Ok(Columns::Scalar(values));
            }
            other => other.into_vector(),
        };
        for column in &mut columns {
            let negate = |value: &mut f64| *value = if_present(*value, |v| -v);
            let negated = self.pace.each(&mut column.values, |_, v| negate(v));
            negated.await?;
            for (_, histogram) in &mut column.histograms {
                *histogram = native::scaled(histogram, -1.0).into();
            }
            self.drop_name(column);
        }
        // Unlike a function, it takes no label set twice, not even at different instants.
        let columns = with_values(columns, &mut self.pace).await?;
        Ok(Columns::Vector(match self.rules.delayed_names {
            true => columns,
            false => distinct(columns, &mut self.pace).await?,
        }))
    }

    /// Applies `f` to every float; histograms are left out, and names go.
    async fn map(
        &mut self,
        mut columns: Vec<Column>,
        f: impl Fn(f64) -> f64,
    ) -> Result<Columns, QueryError> {
        for column in &mut columns {
            column.drop_histograms();
            let mapped = self.pace.each(&mut column.values, |_, value| {
                *value = if_present(*value, &f);
            });
            mapped.await?;
            self.drop_name(column);
        }
        Ok(Columns::Vector(merge(columns, &mut self.pace).await?))
    }

    /// Samples are counted before any is made: as many as will be booked.
    async fn spread(&mut self, columns: Columns, grid: Grid) -> Result<Columns, QueryError> {
        let again = (grid.steps as u64).saturating_sub(1);
        match columns {
            Columns::Scalar(values) => {
                self.pace.glimpse(again)?;
                let value = values.first().copied().unwrap_or(f64::NAN);
                Ok(Columns::Scalar(self.pace.filled(value, grid.steps).await?))
            }
            Columns::Vector(columns) => {
                self.pace.expect(columns.len(), grid.steps)?;
                let mut once = [0];
                let all = columns.iter();
                all.for_each(|column| column.count_samples(0..1, &mut once));
                self.pace.glimpse(again.saturating_mul(once[0]))?;
                let mut spread = Vec::with_capacity(columns.len());
                for column in columns {
                    self.pace.spend(grid.steps).await?;
                    let value = column.values.first().copied().unwrap_or(ABSENT);
                    let values = self.pace.filled(value, grid.steps).await?;
                    let first = column.histogram(0).cloned();
                    let repeated =
                        first.map(|h| (0..index(grid.steps)).map(move |i| (i, h.clone())));
                    let histograms = repeated.into_iter().flatten().collect();
                    spread.push(Column {
                        values,
                        histograms,
                        ..column
                    });
                }
                Ok(Columns::Vector(spread))
            }
            other => Ok(other),
        }
    }

    /// Takes the name off the column, now or when the result is handed out.
    fn drop_name(&self, column: &mut Column) {
        if self.rules.delayed_names {
            column.drop_name = true;
        } else if !self.keeps_names || is_typed(&column.labels) {
            column.labels = without_name(&column.labels);
        }
    }

    /// Takes off the names whose removal was put off.
    async fn remove_names(&mut self, columns: Columns) -> Result<Columns, QueryError> {
        match columns {
            Columns::Vector(mut columns) => {
                columns.retain(Column::has_values);
                for column in columns.iter_mut().filter(|c| c.drop_name) {
                    column.labels = without_name(&column.labels);
                }
                Ok(Columns::Vector(if self.rules.delayed_names {
                    distinct(columns, &mut self.pace).await?
                } else {
                    columns
                }))
            }
            Columns::Ranges(mut ranges) => {
                for series in ranges.series.iter_mut().filter(|s| s.drop_name) {
                    series.labels = without_name(&series.labels);
                }
                Ok(Columns::Ranges(ranges))
            }
            other => Ok(other),
        }
    }
}

/// Labels without the metric name and what belongs to it.
fn without_name(labels: &Labels) -> Labels {
    match is_typed(labels) {
        true => labels.kept(|name| {
            let of_name = [METRIC_NAME, TYPE, UNIT];
            of_name.iter().all(|other| other.as_bytes() != name)
        }),
        false => labels.without(METRIC_NAME),
    }
}

/// Whether the labels tell of the type or the unit.
fn is_typed(labels: &Labels) -> bool {
    labels.get(TYPE).is_some() || labels.get(UNIT).is_some()
}

/// What booking the steps of a plan needs to know of them.
pub(crate) fn entries(steps: &[Step<'_>]) -> Vec<Entry> {
    steps.iter().map(Entry::of).collect()
}

/// How many results of earlier steps an operator takes.
fn operands(op: &Op<'_>) -> usize {
    match op {
        Op::Number(_)
        | Op::String(..)
        | Op::Select { .. }
        | Op::SelectTime { .. }
        | Op::SelectInfo { .. }
        | Op::Range { .. }
        | Op::Part { .. }
        | Op::Combine { .. } => 0,
        Op::Subquery { .. } | Op::Negate | Op::Spread => 1,
        Op::Binary(_) | Op::Info(_) => 2,
        Op::Call(call) => call.args.len(),
        Op::Aggregate(aggregate) => 1 + usize::from(aggregate.param.is_some()),
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

/// What `f` makes of a value, where there is one.
fn if_present(value: f64, f: impl Fn(f64) -> f64) -> f64 {
    match is_present(value) {
        true => f(value),
        false => value,
    }
}

/// The columns that have a value at some instant.
async fn with_values(columns: Vec<Column>, pace: &mut Pace<'_>) -> Result<Vec<Column>, QueryError> {
    let mut kept = Vec::with_capacity(columns.len());
    for column in columns {
        if column.has_values() {
            kept.push(column);
        } else {
            pace.spend(column.values.len()).await?;
        }
    }
    Ok(kept)
}

/// Whether no two columns have the same labels.
async fn are_distinct(columns: &[Column], pace: &mut Pace<'_>) -> Result<bool, QueryError> {
    let mut seen = model::hash::Set::default();
    for column in columns {
        pace.spend(0).await?;
        if !seen.insert(&column.labels) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The columns, if no two have the same labels.
async fn distinct(columns: Vec<Column>, pace: &mut Pace<'_>) -> Result<Vec<Column>, QueryError> {
    match are_distinct(&columns, pace).await? {
        true => Ok(columns),
        false => Err(same_labelset()),
    }
}

/// Joins columns with the same labels, which may not both have a value at one instant.
async fn merge(columns: Vec<Column>, pace: &mut Pace<'_>) -> Result<Vec<Column>, QueryError> {
    if are_distinct(&columns, pace).await? {
        return Ok(columns);
    }
    let mut places: Map<Labels, usize> = Map::default();
    let mut merged: Vec<Column> = Vec::with_capacity(columns.len());
    for column in columns {
        pace.spend(column.values.len()).await?;
        match places.get(&column.labels) {
            Some(&place) => fill(&mut merged[place], column)?,
            None => {
                places.insert(column.labels.clone(), merged.len());
                merged.push(column);
            }
        }
    }
    Ok(merged)
}

fn fill(into: &mut Column, from: Column) -> Result<(), QueryError> {
    for (into, &from) in into.values.iter_mut().zip(&from.values) {
        match (is_present(*into), is_present(from)) {
            (true, true) => return Err(same_labelset()),
            (false, true) => *into = from,
            _ => {}
        }
    }
    if !from.histograms.is_empty() {
        into.histograms.extend(from.histograms);
        into.histograms.sort_by_key(|(step, _)| *step);
    }
    Ok(())
}
