//! Aggregations that fold each group to one value: `sum`, `avg`, `count`, … and `count_values`.

use model::Labels;
use model::hash::Map;
use model::labels::METRIC_NAME;

use super::column::index;
use super::histogram_fold::HistogramFold;
use super::kahan::{Mean, Sum};
use super::pace::turns;
use super::quantile::quantile;
use super::{ABSENT, Column, Columns, Evaluation, LABEL_COST, Pace, is_present};
use crate::ast::{Aggregate, AggregateOp, Expr};
use crate::error::QueryError;
use crate::native;
use crate::plan::Grid;
use crate::printer::format_float;
use model::quote::{quote, quote_bytes};

impl Evaluation<'_> {
    pub(super) async fn aggregate(
        &mut self,
        aggregate: &Aggregate,
        param: Option<Columns>,
        columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        match (aggregate.op, param) {
            (AggregateOp::Limitk, Some(k)) => {
                self.limit(aggregate, &k.into_scalar(), columns, grid).await
            }
            (AggregateOp::LimitRatio, Some(ratio)) => {
                self.limit_ratio(aggregate, &ratio.into_scalar(), columns, grid)
                    .await
            }
            (AggregateOp::Topk | AggregateOp::Bottomk, Some(k)) => {
                self.extremes(aggregate, &k.into_scalar(), columns, grid)
                    .await
            }
            (AggregateOp::CountValues, Some(label)) => {
                let (label, not_utf8) = label.into_string();
                if label.is_empty() || not_utf8.is_some() {
                    let shown = not_utf8.map_or_else(|| quote(&label), |bytes| quote_bytes(&bytes));
                    let message = format!("invalid label name {shown}");
                    return Err(QueryError::Execution(message));
                }
                self.count_values(aggregate, &label, columns, grid).await
            }
            (AggregateOp::Quantile, Some(q)) => {
                self.quantiles(aggregate, &q.into_scalar(), columns, grid)
                    .await
            }
            (op, _) => self.fold(op, aggregate, columns, grid).await,
        }
    }

    async fn fold(
        &mut self,
        op: AggregateOp,
        aggregate: &Aggregate,
        columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let groups = Groups::of(aggregate, &columns, &mut self.pace).await?;
        self.pace.expect(groups.count(), grid.steps)?;
        let mut are_mixed = vec![false; groups.count()];
        for (column, &group) in columns.iter().zip(&groups.numbers) {
            are_mixed[group] |= !column.histograms.is_empty();
        }
        let mut results = self
            .fold_floats(op, &groups, &are_mixed, &columns, grid)
            .await?;
        let mut folds: Vec<Vec<Fold>> = vec![Vec::new(); groups.count()];
        let mut histograms: Vec<Vec<HistogramFold>> = vec![Vec::new(); groups.count()];
        for (column, &group) in columns.iter().zip(&groups.numbers) {
            if are_mixed[group] {
                self.pace.spend(grid.steps).await?;
                folds[group].resize(grid.steps, Fold::new(op));
                histograms[group].resize(grid.steps, HistogramFold::Empty);
                let both = (&mut folds[group][..], &mut histograms[group][..]);
                self.fold_points(op, aggregate, column, both);
            }
        }
        for (values, folds) in results.iter_mut().zip(folds) {
            values.extend(folds.iter().map(Fold::value));
        }
        let mut columns = groups.columns(results.into_iter());
        for (column, histograms) in columns.iter_mut().zip(histograms) {
            self.settle_histograms(aggregate, column, histograms);
        }
        Ok(Columns::Vector(columns))
    }

    /// The values of all groups in which there are floats only; none of the others yet. One group after the
    /// other, and of many instants a turn at a time: what is known of a value on the way takes several times
    /// its room.
    async fn fold_floats(
        &mut self,
        op: AggregateOp,
        groups: &Groups,
        are_mixed: &[bool],
        columns: &[Column],
        grid: Grid,
    ) -> Result<Vec<Vec<f64>>, QueryError> {
        let (begins, members) = groups.listed();
        let mut folds = Vec::new();
        let mut results = vec![Vec::new(); groups.count()];
        let all = results.iter_mut().zip(begins.windows(2)).zip(are_mixed);
        for ((values, bounds), _) in all.filter(|(_, is_mixed)| !**is_mixed) {
            values.reserve_exact(grid.steps);
            for steps in turns(grid.steps) {
                folds.clear();
                folds.resize(steps.len(), Fold::new(op));
                for &at in &members[bounds[0]..bounds[1]] {
                    self.pace.spend(steps.len()).await?;
                    let values = columns[at].values.get(steps.clone()).unwrap_or_default();
                    for (fold, &value) in folds.iter_mut().zip(values) {
                        if is_present(value) {
                            fold.add(value);
                        }
                    }
                }
                values.extend(folds.iter().map(Fold::value));
            }
        }
        Ok(results)
    }

    /// Folds a column into a group in which there are histograms.
    fn fold_points(
        &mut self,
        op: AggregateOp,
        aggregate: &Aggregate,
        column: &Column,
        (folds, histograms): (&mut [Fold], &mut [HistogramFold]),
    ) {
        let mut next = column.histograms.iter().peekable();
        for (step, &value) in column.values.iter().enumerate() {
            if !is_present(value) {
                continue;
            }
            let found = next.next_if(|(at, _)| *at as usize == step);
            let (fold, group) = (&mut folds[step], &mut histograms[step]);
            match (op, found) {
                _ if group.is_failed() => {}
                (_, None) => fold.add(value),
                (AggregateOp::Sum | AggregateOp::Avg, Some((_, histogram))) => {
                    if !matches!(fold, Fold::Empty(_)) && matches!(group, HistogramFold::Empty) {
                        *group = HistogramFold::Mixed;
                    }
                    if let Err(why) = group.add(histogram, op == AggregateOp::Avg) {
                        let name = column.labels.metric_name();
                        let place = &aggregate.expr;
                        self.notes.warn_incompatible(place, name, why);
                    }
                }
                (AggregateOp::Count | AggregateOp::Group, Some(_)) => fold.add(0.0),
                (_, Some(_)) => {
                    self.notes.inform_ignored_in_aggregation(aggregate);
                }
            }
        }
    }

    /// Puts the histograms of a group into its column. Where there are floats too there is no
    /// result.
    fn settle_histograms(
        &mut self,
        aggregate: &Aggregate,
        column: &mut Column,
        histograms: Vec<HistogramFold>,
    ) {
        for (step, fold) in histograms.into_iter().enumerate() {
            let has_float = is_present(column.values[step]);
            match fold {
                HistogramFold::Empty => {}
                HistogramFold::Failed if !has_float => {}
                _ if has_float => {
                    column.values[step] = ABSENT;
                    let place = &aggregate.expr;
                    self.notes.warn_mixed_in_aggregation(place);
                }
                fold => {
                    if let Some(point) = fold.point() {
                        column.set(step, point);
                    }
                }
            }
        }
    }

    async fn quantiles(
        &mut self,
        aggregate: &Aggregate,
        q: &[f64],
        columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        if let Some(place) = aggregate.param.as_deref() {
            self.warn_quantiles(place.unwrap_parens(), q).await?;
        }
        let groups = Groups::of(aggregate, &columns, &mut self.pace).await?;
        let members = groups.members();
        self.inform_of_ignored(aggregate, &columns);
        self.pace.expect(members.len(), grid.steps)?;
        let mut results = Vec::with_capacity(members.len());
        for members in &members {
            let mut values = self.pace.filled(ABSENT, grid.steps).await?;
            for (step, value) in values.iter_mut().enumerate() {
                self.pace.spend(members.len()).await?;
                let floats = members.iter().map(|&at| &columns[at]);
                let floats = floats.filter(|c| c.histogram(step).is_none());
                let at_step = floats.map(|c| c.values[step]);
                let mut at_step: Vec<f64> = at_step.filter(|&v| is_present(v)).collect();
                if !at_step.is_empty() {
                    *value = quantile(q[step], &mut at_step);
                }
            }
            results.push(values);
        }
        Ok(Columns::Vector(groups.columns(results.into_iter())))
    }

    /// Tells if there are histograms that an aggregation leaves out.
    pub(super) fn inform_of_ignored(&mut self, aggregate: &Aggregate, columns: &[Column]) {
        if columns.iter().any(|column| !column.histograms.is_empty()) {
            self.notes.inform_ignored_in_aggregation(aggregate);
        }
    }

    /// Tells of NaN, or else of the furthest quantile outside 0 to 1 on either side.
    async fn warn_quantiles(&mut self, place: &Expr, q: &[f64]) -> Result<(), QueryError> {
        let (mut most, mut least) = (f64::NEG_INFINITY, f64::INFINITY);
        for steps in turns(q.len()) {
            self.pace.spend(0).await?;
            for &q in &q[steps] {
                if q.is_nan() {
                    self.notes.warn_quantile(place, f64::NAN);
                    return Ok(());
                }
                (most, least) = (most.max(q), least.min(q));
            }
        }
        let outside = [
            Some(most).filter(|_| most > 1.0),
            Some(least).filter(|_| least < 0.0),
        ];
        for q in outside.into_iter().flatten() {
            self.notes.warn_quantile(place, q);
        }
        Ok(())
    }

    async fn count_values(
        &mut self,
        aggregate: &Aggregate,
        label: &str,
        columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let mut places: Map<Labels, usize> = Map::default();
        // The instants at which each value was met, one for each series: most values are met but seldom,
        // and all of them at every instant may be more than can be held.
        let mut met: Vec<(Labels, Vec<u32>)> = Vec::new();
        let is_listed = aggregate.grouping.iter().any(|name| name == label);
        let is_taken = aggregate.without && (is_listed || label == METRIC_NAME);
        for column in &columns {
            self.pace.spend(grid.steps).await?;
            let group = group_labels(aggregate, &column.labels);
            // Neighbouring instants mostly hold the same value.
            let mut last = None;
            for (step, &value) in column.values.iter().enumerate() {
                if !is_present(value) {
                    continue;
                }
                let histogram = column.histogram(step);
                let place = match last {
                    Some((bits, place)) if bits == value.to_bits() && histogram.is_none() => place,
                    _ => {
                        let text =
                            histogram.map_or_else(|| format_float(value), |h| native::text(h));
                        // `without` takes away this label too, where it names it or it is the name.
                        let labels = match is_taken {
                            true => group.clone(),
                            false => group.to_builder().set(label, &text).build(),
                        };
                        let next = met.len();
                        let place = *places.entry(labels.clone()).or_insert(next);
                        if place == next {
                            self.pace.expect(met.len() + 1, grid.steps)?;
                            met.push((labels, Vec::new()));
                        }
                        place
                    }
                };
                last = histogram.is_none().then_some((value.to_bits(), place));
                met[place].1.push(index(step));
            }
        }
        drop((places, columns));
        let mut counts = Vec::with_capacity(met.len());
        for (labels, steps) in met {
            self.pace.spend(grid.steps + steps.len()).await?;
            let mut values = vec![ABSENT; grid.steps];
            for step in steps {
                let count = &mut values[step as usize];
                *count = if is_present(*count) {
                    *count + 1.0
                } else {
                    1.0
                };
            }
            counts.push(Column::new(labels, false, values));
        }
        Ok(Columns::Vector(counts))
    }
}

/// The labels of the group a series belongs to.
pub(super) fn group_labels(aggregate: &Aggregate, labels: &Labels) -> Labels {
    labels.kept(|name| is_grouping(aggregate, name))
}

/// Whether a label of a series is one of its group's.
pub(super) fn is_grouping(aggregate: &Aggregate, name: &[u8]) -> bool {
    let is_listed = aggregate.grouping.iter().any(|l| l.as_bytes() == name);
    match aggregate.without {
        true => !is_listed && name != METRIC_NAME.as_bytes(),
        false => is_listed,
    }
}

/// Which group each column belongs to; groups are numbered as they come up.
pub(super) struct Groups {
    pub numbers: Vec<usize>,
    labels: Vec<Labels>,
    drop_name: Vec<bool>,
}

impl Groups {
    pub async fn of(
        aggregate: &Aggregate,
        columns: &[Column],
        pace: &mut Pace<'_>,
    ) -> Result<Self, QueryError> {
        let mut places: Map<Box<[u8]>, usize> = Map::default();
        let mut groups = Self {
            numbers: Vec::with_capacity(columns.len()),
            labels: Vec::new(),
            drop_name: Vec::new(),
        };
        let mut key = Vec::new();
        for column in columns {
            pace.spend(LABEL_COST).await?;
            key.clear();
            let labels = &column.labels;
            labels.write_kept(|name| is_grouping(aggregate, name), &mut key);
            let known = places.get(key.as_slice()).copied();
            groups.numbers.push(known.unwrap_or_else(|| {
                let next = groups.labels.len();
                let labels = group_labels(aggregate, labels);
                places.insert(key.as_slice().into(), next);
                groups.labels.push(labels);
                groups.drop_name.push(column.drop_name);
                next
            }));
        }
        Ok(groups)
    }

    pub fn count(&self) -> usize {
        self.labels.len()
    }

    /// The columns by group, each group's in their order, and where in them every group begins and the last
    /// one ends.
    fn listed(&self) -> (Vec<usize>, Vec<usize>) {
        let mut begins = vec![0; self.count() + 1];
        for &group in &self.numbers {
            begins[group + 1] += 1;
        }
        for group in 0..self.count() {
            begins[group + 1] += begins[group];
        }
        let (mut next, mut members) = (begins.clone(), vec![0; self.numbers.len()]);
        for (column, &group) in self.numbers.iter().enumerate() {
            members[next[group]] = column;
            next[group] += 1;
        }
        (begins, members)
    }

    /// The columns of each group.
    pub fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.count()];
        for (column, &group) in self.numbers.iter().enumerate() {
            members[group].push(column);
        }
        members
    }

    /// One column for each group.
    fn columns(self, values: impl Iterator<Item = Vec<f64>>) -> Vec<Column> {
        let labels = self.labels.into_iter().zip(self.drop_name);
        labels
            .zip(values)
            .map(|((labels, drop_name), values)| Column::new(labels, drop_name, values))
            .collect()
    }

    /// Columns, some of those the groups were made of, group by group.
    pub fn sorted(&self, mut columns: Vec<Column>, aggregate: &Aggregate) -> Vec<Column> {
        let places: Map<&Labels, usize> = self.labels.iter().zip(0..).collect();
        let place = |column: &Column| {
            let labels = group_labels(aggregate, &column.labels);
            places.get(&labels).copied().unwrap_or(usize::MAX)
        };
        columns.sort_by_cached_key(place);
        columns
    }
}

/// What an aggregation knows of the values so far.
#[derive(Debug, Clone, Copy)]
enum Fold {
    Empty(AggregateOp),
    Sum(Sum),
    Avg(Mean),
    Count(f64),
    Group,
    Min(f64),
    Max(f64),
    Spread(Spread),
}

/// Mean and summed squares of distances from it, updated value by value (B. P. Welford, 1962).
#[derive(Debug, Clone, Copy)]
struct Spread {
    count: f64,
    mean: f64,
    squares: f64,
    is_deviation: bool,
}

impl Fold {
    fn new(op: AggregateOp) -> Self {
        Self::Empty(op)
    }

    fn add(&mut self, value: f64) {
        match self {
            Self::Empty(op) => *self = Self::first(*op, value),
            Self::Sum(sum) => sum.add(value),
            Self::Avg(mean) => mean.add(value),
            Self::Count(count) => *count += 1.0,
            Self::Group => {}
            Self::Min(min) if *min > value || min.is_nan() => *min = value,
            Self::Max(max) if *max < value || max.is_nan() => *max = value,
            Self::Min(_) | Self::Max(_) => {}
            Self::Spread(spread) => {
                spread.count += 1.0;
                let distance = value - spread.mean;
                spread.mean += distance / spread.count;
                spread.squares += distance * (value - spread.mean);
            }
        }
    }

    fn first(op: AggregateOp, value: f64) -> Self {
        match op {
            AggregateOp::Sum => Self::Sum(Sum {
                sum: value,
                error: 0.0,
            }),
            AggregateOp::Avg => {
                let mut mean = Mean::default();
                mean.add(value);
                Self::Avg(mean)
            }
            AggregateOp::Count => Self::Count(1.0),
            AggregateOp::Group => Self::Group,
            AggregateOp::Min => Self::Min(value),
            AggregateOp::Max => Self::Max(value),
            _ => Self::Spread(Spread {
                count: 1.0,
                mean: value,
                squares: if value.is_finite() { 0.0 } else { f64::NAN },
                is_deviation: op == AggregateOp::Stddev,
            }),
        }
    }

    fn value(&self) -> f64 {
        match *self {
            Self::Empty(_) => ABSENT,
            Self::Sum(sum) => sum.value(),
            Self::Avg(mean) => mean.value(),
            Self::Count(count) => count,
            Self::Group => 1.0,
            Self::Min(value) | Self::Max(value) => value,
            Self::Spread(spread) => {
                let variance = spread.squares / spread.count;
                if spread.is_deviation {
                    variance.sqrt()
                } else {
                    variance
                }
            }
        }
    }
}
