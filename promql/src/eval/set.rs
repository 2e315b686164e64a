//! `and`, `or`, `unless`: series kept or not for the company they have at each instant.

use super::matching::Signatures;
use super::{ABSENT, Column, Columns, Evaluation, is_present, merge};
use crate::ast::{BinaryOp, Matching};
use crate::error::QueryError;
use crate::plan::Grid;

impl Evaluation<'_> {
    pub(super) async fn set(
        &mut self,
        op: BinaryOp,
        matching: &Matching,
        mut left: Vec<Column>,
        right: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        left.retain(Column::has_values);
        let mut signatures = Signatures::default();
        let left_numbers = signatures.number(matching, &left, &mut self.pace).await?;
        let right_numbers = signatures.number(matching, &right, &mut self.pace).await?;
        let count = signatures.len();
        match op {
            BinaryOp::Or => {
                let there = self.presence(&left, &left_numbers, count, grid).await?;
                left.reserve(right.len());
                let absent = self.masked(right, &right_numbers, &there, false);
                left.extend(absent.await?);
            }
            _ => {
                let there = self.presence(&right, &right_numbers, count, grid).await?;
                drop(right);
                let keep_when_there = op == BinaryOp::And;
                let kept = self.masked(left, &left_numbers, &there, keep_when_there);
                left = kept.await?;
            }
        }
        Ok(Columns::Vector(merge(left, &mut self.pace).await?))
    }

    /// For each signature, at which instants any of its series has a value; empty for never.
    async fn presence(
        &mut self,
        columns: &[Column],
        numbers: &[usize],
        count: usize,
        grid: Grid,
    ) -> Result<Vec<Vec<bool>>, QueryError> {
        let mut there = vec![Vec::new(); count];
        self.pace
            .expect_bytes(count.min(columns.len()).saturating_mul(grid.steps))?;
        for (column, &number) in columns.iter().zip(numbers) {
            let there = &mut there[number];
            if there.is_empty() {
                *there = self.pace.filled(false, grid.steps).await?;
            }
            let mut values = column.values.iter();
            let noted = self.pace.each(there, |_, there: &mut bool| {
                *there |= values.next().copied().is_some_and(is_present);
            });
            noted.await?;
        }
        Ok(there)
    }

    /// The columns without values where their signature's presence is not as wanted; those that have
    /// none left are gone.
    async fn masked(
        &mut self,
        columns: Vec<Column>,
        numbers: &[usize],
        there: &[Vec<bool>],
        keep_when_there: bool,
    ) -> Result<Vec<Column>, QueryError> {
        let mut kept = Vec::with_capacity(columns.len());
        for (mut column, &number) in columns.into_iter().zip(numbers) {
            let (there, mut has_values) = (&there[number], false);
            let masked = self.pace.each(&mut column.values, |step, value| {
                if there.get(step).copied().unwrap_or(false) != keep_when_there {
                    *value = ABSENT;
                }
                has_values |= is_present(*value);
            });
            masked.await?;
            if has_values {
                column.drop_masked();
                kept.push(column);
            }
        }
        Ok(kept)
    }
}
