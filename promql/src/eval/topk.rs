//! `topk` and `bottomk`: the extreme series of each group, with their labels.
//!
//! A bounded heap sees the series in order and lets a new one in only if it is strictly more
//! extreme than the least extreme inside. Which of several equal ones stay is decided by the
//! heap's own order, so it is the same textbook binary heap that Prometheus uses.

use super::aggregate::Groups;
use super::pace::turns;
use super::{ABSENT, Column, Columns, Evaluation, Pace, is_present, with_values};
use crate::ast::{Aggregate, AggregateOp};
use crate::error::QueryError;
use crate::plan::Grid;

impl Evaluation<'_> {
    pub(super) async fn extremes(
        &mut self,
        aggregate: &Aggregate,
        k: &[f64],
        columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        if k.iter().any(|&k| k >= 1.0) {
            self.inform_of_ignored(aggregate, &columns);
        }
        let counts = counts(k, &columns, &mut self.pace).await?;
        let mut columns = columns;
        columns.iter_mut().for_each(Column::drop_histograms);
        let members = Groups::of(aggregate, &columns, &mut self.pace)
            .await?
            .members();
        let is_top = aggregate.op == AggregateOp::Topk;
        self.pace.expect(columns.len(), grid.steps)?;
        let mut kept = Vec::with_capacity(columns.len());
        for _ in &columns {
            self.pace.spend(grid.steps).await?;
            kept.push(self.pace.filled(ABSENT, grid.steps).await?);
        }
        let mut order = Vec::new();
        for step in 0..grid.steps {
            let k = counts[step];
            for members in &members {
                self.pace.spend(members.len()).await?;
                let mut heap = Heap::new(is_top, k.min(members.len()));
                for &at in members {
                    let value = columns[at].values[step];
                    if is_present(value) {
                        heap.offer(value, at);
                    }
                }
                for (value, at) in heap.into_sorted() {
                    kept[at][step] = value;
                    if grid.steps == 1 {
                        order.push(at);
                    }
                }
            }
        }
        let mut chosen = Vec::with_capacity(columns.len());
        for (column, values) in columns.into_iter().zip(kept) {
            self.pace.spend(0).await?;
            chosen.push(Some(Column { values, ..column }));
        }
        // At a single instant the order is part of the answer.
        if grid.steps != 1 {
            order = (0..chosen.len()).collect();
        }
        let ordered = order.into_iter().filter_map(|at| chosen[at].take());
        let ordered = with_values(ordered.collect(), &mut self.pace).await?;
        Ok(Columns::Vector(ordered))
    }
}

/// `k` at each instant as a number of series. One that is no number is an error only where any
/// series could be wanted: there are some at that instant, and another `k` is one at least.
pub(super) async fn counts(
    k: &[f64],
    columns: &[Column],
    pace: &mut Pace<'_>,
) -> Result<Vec<usize>, QueryError> {
    if k.iter().all(|&k| k < 1.0) {
        return Ok(vec![0; k.len()]);
    }
    let used = used_steps(columns, k.len(), pace).await?;
    let mut counts = pace.filled(0, k.len()).await?;
    for steps in turns(k.len()) {
        pace.spend(steps.len()).await?;
        for step in steps.filter(|&step| used[step]) {
            counts[step] = count(k[step])?;
        }
    }
    Ok(counts)
}

/// At which instants any series has a value.
pub(super) async fn used_steps(
    columns: &[Column],
    steps: usize,
    pace: &mut Pace<'_>,
) -> Result<Vec<bool>, QueryError> {
    let mut used = pace.filled(false, steps).await?;
    for column in columns {
        let mut values = column.values.iter();
        let noted = pace.each(&mut used, |_, used| {
            *used |= values.next().copied().is_some_and(is_present);
        });
        noted.await?;
    }
    Ok(used)
}

/// `k` as a number of series: none below one.
fn count(k: f64) -> Result<usize, QueryError> {
    let limit = i64::MAX as f64;
    if k.is_nan() || k >= limit || k <= -limit {
        let shown = super::short_float(k);
        return Err(QueryError::Execution(format!(
            "Scalar value {shown} overflows int64"
        )));
    }
    Ok(k.max(0.0) as usize)
}

struct Heap {
    is_top: bool,
    capacity: usize,
    /// The least extreme value first; every parent before its children.
    entries: Vec<(f64, usize)>,
}

impl Heap {
    fn new(is_top: bool, capacity: usize) -> Self {
        Self {
            is_top,
            capacity,
            entries: Vec::with_capacity(capacity),
        }
    }

    /// Whether `a` is less extreme than `b`. NaN is less extreme than anything.
    fn is_less(&self, a: f64, b: f64) -> bool {
        a.is_nan() || if self.is_top { a < b } else { a > b }
    }

    fn offer(&mut self, value: f64, at: usize) {
        if self.entries.len() < self.capacity {
            self.entries.push((value, at));
            return self.sift_up(self.entries.len() - 1);
        }
        let Some(&(least, _)) = self.entries.first() else {
            return;
        };
        let is_better = if self.is_top {
            least < value
        } else {
            least > value
        };
        if is_better || (least.is_nan() && !value.is_nan()) {
            self.entries[0] = (value, at);
            self.sift_down(0);
        }
    }

    fn sift_up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.is_less(self.entries[at].0, self.entries[parent].0) {
                break;
            }
            self.entries.swap(at, parent);
            at = parent;
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let left = 2 * at + 1;
            if left >= self.entries.len() {
                break;
            }
            let mut child = left;
            if let Some(&(right, _)) = self.entries.get(left + 1)
                && self.is_less(right, self.entries[left].0)
            {
                child = left + 1;
            }
            if !self.is_less(self.entries[child].0, self.entries[at].0) {
                break;
            }
            self.entries.swap(at, child);
            at = child;
        }
    }

    /// The most extreme value first, NaNs last.
    fn into_sorted(mut self) -> Vec<(f64, usize)> {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_by(|&(a, _), &(b, _)| match (a.is_nan(), b.is_nan()) {
            (true, true) => std::cmp::Ordering::Equal,
            (true, false) => std::cmp::Ordering::Greater,
            (false, true) => std::cmp::Ordering::Less,
            (false, false) if self.is_less(a, b) => std::cmp::Ordering::Greater,
            (false, false) if self.is_less(b, a) => std::cmp::Ordering::Less,
            (false, false) => std::cmp::Ordering::Equal,
        });
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extremes(is_top: bool, k: usize, values: &[f64]) -> Vec<usize> {
        let mut heap = Heap::new(is_top, k);
        let offers = values.iter().enumerate();
        offers.for_each(|(at, &value)| heap.offer(value, at));
        heap.into_sorted().into_iter().map(|(_, at)| at).collect()
    }

    #[test]
    fn the_most_extreme_come_first_and_nan_last() {
        let values = [1.0, f64::NAN, 3.0, 2.0, -1.0];
        assert_eq!(extremes(true, 2, &values), [2, 3]);
        assert_eq!(extremes(false, 2, &values), [4, 0]);
        assert_eq!(extremes(true, 9, &values), [2, 3, 0, 4, 1]);
        assert_eq!(extremes(true, 0, &values), []);
    }

    #[test]
    fn of_equal_ones_the_first_stay() {
        assert_eq!(extremes(true, 2, &[5.0, 5.0, 5.0]), [0, 1]);
        assert_eq!(extremes(false, 1, &[5.0, 5.0]), [0]);
    }

    #[test]
    fn k_must_be_countable() {
        assert_eq!(count(2.9), Ok(2));
        assert_eq!(count(-3.0), Ok(0));
        assert!(count(f64::NAN).is_err() && count(1e19).is_err());
    }
}
