//! Columns in the order of their labels.

use model::Labels;
use model::fragment::PartColumn;

use super::{Column, LABEL_COST, Pace};
use crate::error::QueryError;

/// What is told apart by labels.
pub(super) trait Labelled {
    fn labels(&self) -> &Labels;
}

impl Labelled for Column {
    fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Labelled for PartColumn {
    fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// Columns that are sorted in one go.
const RUN: usize = 512;

/// Sorted by labels, those with the same labels as they stood; others run in between.
pub(super) async fn sorted<T: Labelled>(
    mut columns: Vec<T>,
    pace: &mut Pace<'_>,
) -> Result<Vec<T>, QueryError> {
    if columns.is_sorted_by(|a, b| a.labels() <= b.labels()) {
        return Ok(columns);
    }
    let mut runs = Vec::with_capacity(columns.len().div_ceil(RUN));
    while !columns.is_empty() {
        let mut run = columns.split_off(columns.len().saturating_sub(RUN));
        pace.spend(run.len() * LABEL_COST).await?;
        run.sort_by(|a, b| a.labels().cmp(b.labels()));
        runs.push(run);
    }
    runs.reverse();
    while runs.len() > 1 {
        let mut pairs = std::mem::take(&mut runs).into_iter();
        while let Some(left) = pairs.next() {
            runs.push(match pairs.next() {
                Some(right) => merged(left, right, pace).await?,
                None => left,
            });
        }
    }
    Ok(runs.pop().unwrap_or_default())
}

async fn merged<T: Labelled>(
    left: Vec<T>,
    right: Vec<T>,
    pace: &mut Pace<'_>,
) -> Result<Vec<T>, QueryError> {
    let mut all = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        pace.spend(0).await?;
        all.extend(match b.labels() < a.labels() {
            true => right.next(),
            false => left.next(),
        });
    }
    all.extend(left);
    all.extend(right);
    Ok(all)
}
