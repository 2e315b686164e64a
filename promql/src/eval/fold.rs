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
use super::exact::{Sums, is_plain};
use super::{ABSENT, Column, Columns, Evaluation, LABEL_COST, Pace, is_present};
use crate::ast::{Aggregate, AggregateOp};
use crate::error::QueryError;
use crate::plan::Grid;

/// One group's values so far, at every instant.
#[derive(Debug, Clone)]
enum Fold {
    /// Sum and count; the latter alone tells where there is a value.
    Sum(Sums, Vec<f64>),
    /// The same of one series or part alone, in the form that travels, all of it plain: many groups
    /// get no second one.
    Lone(Vec<f64>, Vec<Vec<f64>>),
    /// Any other: absent where there is no value.
    Plain(Vec<f64>),
}

impl Fold {
    fn new(op: AggregateOp, steps: usize) -> Self {
        match op {
            op if is_sum(op) => Self::Sum(Sums::new(steps), vec![0.0; steps]),
            _ => Self::Plain(vec![ABSENT; steps]),
        }
    }

    /// The fold of a group's first series; `None` when it cannot be added exactly.
    fn of_series(op: AggregateOp, mut values: Vec<f64>) -> Option<Self> {
        let fits = |&value: &f64| is_plain(value) || !is_present(value);
        if !is_sum(op) || !values.iter().all(fits) {
            let mut fold = Self::new(op, values.len());
            return fold.add(op, &values).then_some(fold);
        }
        let mut counts = vec![0.0; values.len()];
        for (value, count) in values.iter_mut().zip(&mut counts) {
            // Added to nothing, as any other one is: a sum is never minus zero.
            (*value, *count) = match is_present(*value) {
                true => (0.0 + *value, 1.0),
                false => (0.0, 0.0),
            };
        }
        Some(Self::Lone(values, vec![counts]))
    }

    /// The fold of a group's first part, of `steps` instants; `None` when it cannot be added
    /// exactly.
    fn of_part(
        op: AggregateOp,
        steps: usize,
        values: Vec<f64>,
        rest: Vec<Vec<f64>>,
    ) -> Option<Self> {
        let mut columns = std::iter::once(&values).chain(rest.iter().skip(1));
        let is_whole = !rest.is_empty() && rest.iter().all(|column| column.len() == steps);
        let all_plain = columns.all(|column| column.iter().copied().all(is_plain));
        if is_sum(op) && is_whole && all_plain && values.len() == steps {
            return Some(Self::Lone(values, rest));
        }
        let mut fold = Self::new(op, steps);
        fold.add_part(op, &values, &rest).then_some(fold)
    }

    /// Makes room for a second one.
    fn open(&mut self) {
        if let Self::Lone(values, rest) = self {
            let mut sums = Sums::new(values.len());
            let counts = rest.remove(0);
            for column in std::iter::once(&*values).chain(&*rest) {
                sums.add(column).expect("what stands alone is plain");
            }
            *self = Self::Sum(sums, counts);
        }
    }

    /// Adds a series' values; `false` when they cannot be added exactly.
    fn add(&mut self, op: AggregateOp, values: &[f64]) -> bool {
        self.open();
        match self {
            Self::Lone(..) => unreachable!("it was opened"),
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
    fn add_part(&mut self, op: AggregateOp, values: &[f64], rest: &[Vec<f64>]) -> bool {
        self.open();
        match (self, rest.split_first()) {
            (Self::Sum(sums, counts), Some((count, rest))) => {
                for (count, more) in counts.iter_mut().zip(count) {
                    *count += more;
                }
                let rest = rest.iter().map(Vec::as_slice);
                let mut columns = std::iter::once(values).chain(rest);
                columns.all(|column| sums.add(column).is_ok())
            }
            (Self::Plain(folded), None) => {
                join(op, folded, values.iter().copied());
                true
            }
            _ => false,
        }
    }

    /// What travels: values, and the rest.
    fn into_parts(self) -> (Vec<f64>, Vec<Vec<f64>>) {
        match self {
            Self::Plain(values) => (values, Vec::new()),
            Self::Lone(values, rest) => (values, rest),
            Self::Sum(sums, counts) => {
                let mut columns = sums.into_columns();
                let rest = columns.split_off(1);
                let values = columns.pop().expect("a sum is at least one column");
                (values, std::iter::once(counts).chain(rest).collect())
            }
        }
    }

    /// The aggregation's values.
    fn finish(mut self, op: AggregateOp) -> Vec<f64> {
        // A sum that is one float needs no rounding.
        if let Self::Lone(values, rest) = &mut self
            && let [counts] = rest.as_slice()
        {
            let sums = values.iter().zip(counts);
            return sums
                .map(|(&sum, &count)| value(op, sum, 0.0, count))
                .collect();
        }
        self.open();
        let (sums, counts) = match self {
            Self::Lone(..) => unreachable!("it was opened"),
            Self::Plain(values) => return values,
            Self::Sum(sums, counts) => (sums.rounded(), counts),
        };
        let sums = sums.into_iter().zip(counts);
        sums.map(|((sum, error), count)| value(op, sum, error, count))
            .collect()
    }
}

fn is_sum(op: AggregateOp) -> bool {
    matches!(op, AggregateOp::Sum | AggregateOp::Avg)
}

/// What an aggregation that sums gives at an instant.
fn value(op: AggregateOp, sum: f64, error: f64, count: f64) -> f64 {
    match (count > 0.0, op) {
        (false, _) => ABSENT,
        (true, AggregateOp::Avg) => sum / count + error / count,
        (true, _) => sum,
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

    /// Makes room for the next group; its key is the canonical form of its labels.
    fn begin(&mut self, key: &[u8], pace: &Pace<'_>) -> Result<(), QueryError> {
        let next = self.groups.len();
        pace.expect(PLANES * (next + 1), self.steps)?;
        self.places.insert(key.into(), next);
        Ok(())
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
            if let Some(&place) = self.places.get(key.as_slice()) {
                if !self.groups[place].2.add(op, &column.values) {
                    return Ok(false);
                }
                continue;
            }
            self.begin(&key, pace)?;
            let labels = group_labels(aggregate, labels);
            match Fold::of_series(op, column.values) {
                Some(fold) => self.groups.push((labels, column.drop_name, fold)),
                None => return Ok(false),
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
        if let Some(&place) = self.places.get(part.labels.as_canonical()) {
            return Ok(self.groups[place].2.add_part(op, &part.values, &part.rest));
        }
        self.begin(part.labels.as_canonical(), pace)?;
        let fold = Fold::of_part(op, self.steps, part.values, part.rest);
        let Some(fold) = fold else {
            return Ok(false);
        };
        self.groups.push((part.labels, part.drop_name, fold));
        Ok(true)
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

    /// Whether a group has one series or part, or more, does not show.
    #[test]
    fn what_stands_alone_is_as_what_is_added_to_nothing() {
        let bits = |values: Vec<f64>| -> Vec<u64> { values.iter().map(|v| v.to_bits()).collect() };
        for values in [
            vec![1.5, ABSENT, -0.0, 0.1],
            vec![f64::INFINITY, 1.0, f64::NAN, ABSENT],
            vec![1e-300, 1e289, ABSENT, -3.0],
        ] {
            for op in [AggregateOp::Sum, AggregateOp::Avg, AggregateOp::Max] {
                let mut added = Fold::new(op, 4);
                assert!(added.add(op, &values));
                let lone = Fold::of_series(op, values.clone()).unwrap();
                assert_eq!(
                    bits(lone.clone().finish(op)),
                    bits(added.clone().finish(op))
                );
                assert_eq!(
                    lone.clone().into_parts().1.len(),
                    added.clone().into_parts().1.len()
                );
                let (values, rest) = lone.into_parts();
                let mut twice = Fold::of_part(op, 4, values.clone(), rest.clone()).unwrap();
                let once = twice.clone().finish(op);
                assert_eq!(bits(once), bits(added.clone().finish(op)));
                assert!(twice.add_part(op, &values, &rest));
                let mut both = Fold::new(op, 4);
                assert!(both.add_part(op, &values, &rest) && both.add_part(op, &values, &rest));
                assert_eq!(bits(twice.finish(op)), bits(both.finish(op)));
            }
        }
        assert!(Fold::of_series(AggregateOp::Sum, vec![1e300]).is_none());
        assert!(Fold::of_part(AggregateOp::Sum, 1, vec![1e300], vec![vec![1.0]]).is_none());
        assert!(Fold::of_part(AggregateOp::Sum, 1, vec![1.0], Vec::new()).is_none());
    }
}
