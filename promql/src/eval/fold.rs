//! Aggregations in two halves: what a shard folds of its series, and what becomes of the folds of
//! all shards.
//!
//! Promise: the result does not depend on which shard holds which series. Sums travel exactly
//! ([`Sums`]); of equal extremes the sign of zero decides. Where that cannot be kept (native
//! histograms, values near the end of what floats hold) the shard says so.

use model::Labels;
use model::fragment::PartColumn;
use model::hash::Map;

use super::aggregate::{group_labels, is_grouping};
use super::exact::Sums;
use super::{ABSENT, Column, Columns, Evaluation, LABEL_COST, Pace, is_present};
use crate::ast::{Aggregate, AggregateOp};
use crate::error::QueryError;
use crate::plan::Grid;

/// One group's values so far, at every instant.
#[derive(Debug, Clone)]
enum Fold {
    /// Sum and count; the latter alone tells where there is a value.
    Sum(Sums, Vec<f64>),
    /// Any other: absent where there is no value.
    Plain(Vec<f64>),
}

impl Fold {
    fn new(op: AggregateOp, steps: usize) -> Self {
        match op {
            AggregateOp::Sum | AggregateOp::Avg => Self::Sum(Sums::new(steps), vec![0.0; steps]),
            _ => Self::Plain(vec![ABSENT; steps]),
        }
    }

    /// Adds a series' values; `false` when they cannot be added exactly.
    fn add(&mut self, op: AggregateOp, values: &[f64]) -> bool {
        match self {
            Self::Sum(sums, counts) => {
                for (count, value) in counts.iter_mut().zip(values) {
                    *count += f64::from(u8::from(is_present(*value)));
                }
                sums.add(values).is_ok()
            }
            Self::Plain(folded) => {
                let one = |value: f64| match op {
                    AggregateOp::Min | AggregateOp::Max => value,
                    _ => 1.0,
                };
                join(
                    op,
                    folded,
                    values.iter().map(|&v| match is_present(v) {
                        true => one(v),
                        false => ABSENT,
                    }),
                );
                true
            }
        }
    }

    /// Adds another shard's fold.
    fn add_part(&mut self, op: AggregateOp, part: &PartColumn) -> bool {
        match (self, part.rest.split_first()) {
            (Self::Sum(sums, counts), Some((count, rest))) => {
                for (count, more) in counts.iter_mut().zip(count) {
                    *count += more;
                }
                let mut columns = std::iter::once(&part.values).chain(rest);
                columns.all(|column| sums.add(column).is_ok())
            }
            (Self::Plain(folded), None) => {
                join(op, folded, part.values.iter().copied());
                true
            }
            _ => false,
        }
    }

    /// What travels: values, and the rest.
    fn into_parts(self) -> (Vec<f64>, Vec<Vec<f64>>) {
        match self {
            Self::Plain(values) => (values, Vec::new()),
            Self::Sum(sums, counts) => {
                let mut columns = sums.into_columns();
                let rest = columns.split_off(1);
                let values = columns.pop().expect("a sum is at least one column");
                (values, std::iter::once(counts).chain(rest).collect())
            }
        }
    }

    /// The aggregation's values.
    fn finish(self, op: AggregateOp) -> Vec<f64> {
        let (sums, counts) = match self {
            Self::Plain(values) => return values,
            Self::Sum(sums, counts) => (sums.rounded(), counts),
        };
        let value = |((sum, error), count): ((f64, f64), f64)| match (count > 0.0, op) {
            (false, _) => ABSENT,
            (true, AggregateOp::Avg) => sum / count + error / count,
            (true, _) => sum,
        };
        sums.into_iter().zip(counts).map(value).collect()
    }
}

/// Joins values into what is folded; both are absent where nothing is.
fn join(op: AggregateOp, folded: &mut [f64], values: impl Iterator<Item = f64>) {
    for (folded, value) in folded.iter_mut().zip(values) {
        *folded = match (is_present(*folded), is_present(value)) {
            (_, false) => *folded,
            (false, true) => value,
            (true, true) => match op {
                AggregateOp::Min => lower(*folded, value),
                AggregateOp::Max => -lower(-*folded, -value),
                AggregateOp::Count => *folded + value,
                _ => 1.0,
            },
        };
    }
}

/// The lower one; a number rather than NaN, −0 rather than 0.
fn lower(a: f64, b: f64) -> f64 {
    let is_lower = b < a || a.is_nan() || (a == b && b.is_sign_negative());
    if is_lower { b } else { a }
}

/// Folds of all groups of an aggregation, in the order in which they came up.
pub(crate) struct Folder<'e> {
    aggregate: &'e Aggregate,
    steps: usize,
    places: Map<Box<[u8]>, usize>,
    groups: Vec<(Labels, bool, Fold)>,
}

/// Floats that a fold of an instant may hold.
const PLANES: usize = 4;

impl<'e> Folder<'e> {
    pub fn new(aggregate: &'e Aggregate, grid: Grid) -> Self {
        Self {
            aggregate,
            steps: grid.steps,
            places: Map::default(),
            groups: Vec::new(),
        }
    }

    /// The fold of the group with this key, the canonical form of its labels.
    fn fold(
        &mut self,
        key: &[u8],
        labels: impl FnOnce() -> Labels,
        drop_name: bool,
        pace: &Pace<'_>,
    ) -> Result<&mut Fold, QueryError> {
        let next = self.groups.len();
        let place = match self.places.get(key) {
            Some(&place) => place,
            None => {
                pace.expect(PLANES * (next + 1), self.steps)?;
                let fold = Fold::new(self.aggregate.op, self.steps);
                let labels = labels();
                self.places.insert(key.into(), next);
                self.groups.push((labels, drop_name, fold));
                next
            }
        };
        Ok(&mut self.groups[place].2)
    }

    /// Adds series; `false` when they do not fold.
    pub async fn add_columns(
        &mut self,
        columns: Vec<Column>,
        pace: &mut Pace<'_>,
    ) -> Result<bool, QueryError> {
        let aggregate = self.aggregate;
        let op = aggregate.op;
        let mut key = Vec::new();
        for column in columns {
            pace.spend(self.steps + LABEL_COST).await?;
            if !column.histograms.is_empty() {
                return Ok(false);
            }
            key.clear();
            let labels = &column.labels;
            labels.write_kept(|name| is_grouping(aggregate, name), &mut key);
            let group = || group_labels(aggregate, labels);
            let fold = self.fold(&key, group, column.drop_name, pace)?;
            if !fold.add(op, &column.values) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds what another folder made; `false` when the sums go out of range.
    async fn add_part(
        &mut self,
        part: PartColumn,
        pace: &mut Pace<'_>,
    ) -> Result<bool, QueryError> {
        pace.spend(self.steps * (1 + part.rest.len())).await?;
        let op = self.aggregate.op;
        let key = part.labels.as_canonical();
        let fold = self.fold(key, || part.labels.clone(), part.drop_name, pace)?;
        Ok(fold.add_part(op, &part))
    }

    /// What travels.
    pub fn into_parts(self) -> Vec<PartColumn> {
        let part = |(labels, drop_name, fold): (Labels, bool, Fold)| {
            let (values, rest) = fold.into_parts();
            PartColumn {
                labels,
                drop_name,
                values,
                histograms: Vec::new(),
                rest,
            }
        };
        self.groups.into_iter().map(part).collect()
    }

    /// The aggregation's result, by labels.
    fn finish(mut self) -> Vec<Column> {
        self.groups.sort_by(|a, b| a.0.cmp(&b.0));
        let column = |(labels, drop_name, fold): (Labels, bool, Fold)| {
            Column::new(labels, drop_name, fold.finish(self.aggregate.op))
        };
        self.groups.into_iter().map(column).collect()
    }
}

impl Evaluation<'_> {
    /// Folds of all shards to the aggregation's result.
    pub(super) async fn join_folds(
        &mut self,
        aggregate: &Aggregate,
        parts: Vec<PartColumn>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let mut folder = Folder::new(aggregate, grid);
        for part in parts {
            if !folder.add_part(part, &mut self.pace).await? {
                let message = format!("{}: the sum is out of range", aggregate.op.as_str());
                return Err(QueryError::Execution(message));
            }
        }
        Ok(Columns::Vector(folder.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_extremes_the_sign_decides() {
        for (a, b, low) in [
            (1.0, 2.0, 1.0),
            (0.0, -0.0, -0.0),
            (-0.0, 0.0, -0.0),
            (f64::NAN, 1.0, 1.0),
            (1.0, f64::NAN, 1.0),
        ] {
            let found: f64 = lower(a, b);
            assert_eq!(found.to_bits(), f64::to_bits(low), "{a} {b}");
        }
        assert!(lower(f64::NAN, f64::NAN).is_nan());
    }
}
