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
    let is_before = |a: &T, b: &T| a.labels() < b.labels();
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
                Some(right) => merged(left, right, is_before, 0, pace).await?,
                None => left,
            });
        }
    }
    Ok(runs.pop().unwrap_or_default())
}

/// Two runs as one; of what neither is before, the left one's first. A comparison counts for so many values.
pub(super) async fn merged<T>(
    left: Vec<T>,
    right: Vec<T>,
    is_before: impl Fn(&T, &T) -> bool,
    cost: usize,
    pace: &mut Pace<'_>,
) -> Result<Vec<T>, QueryError> {
    let mut all = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        pace.spend(cost).await?;
        all.extend(match is_before(b, a) {
            true => right.next(),
            false => left.next(),
        });
    }
    all.extend(left);
    all.extend(right);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pace::tests::{at_ease, finish};
    use super::*;

    proptest! {
        #[test]
        fn it_is_the_order_of_a_stable_sort(numbers in prop::collection::vec(0u32..40, 0..3_000)) {
            let column = |(at, number): (usize, &u32)| {
                let labels = Labels::from_pairs([("n", number.to_string())]);
                Column::new(labels, false, vec![at as f64])
            };
            let columns: Vec<Column> = numbers.iter().enumerate().map(column).collect();
            let mut expected = columns.clone();
            expected.sort_by(|a, b| a.labels.cmp(&b.labels));
            let found = at_ease(|pace| finish(sorted(columns, pace))).unwrap();
            let all = |columns: &[Column]| -> Vec<f64> {
                columns.iter().flat_map(|column| column.values.clone()).collect()
            };
            prop_assert_eq!(all(&found), all(&expected));
        }
    }
}
