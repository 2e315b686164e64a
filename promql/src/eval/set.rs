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
        mut right: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let mut signatures = Signatures::default();
        let left_numbers = signatures.number(matching, &left, &mut self.pace).await?;
        let right_numbers = signatures.number(matching, &right, &mut self.pace).await?;
        let count = signatures.len();
        match op {
            BinaryOp::Or => {
                let there = self.presence(&left, &left_numbers, count, grid).await?;
                self.mask(&mut right, &right_numbers, &there, false).await?;
                left.append(&mut right);
            }
            _ => {
                let there = self.presence(&right, &right_numbers, count, grid).await?;
                let keep_when_there = op == BinaryOp::And;
                self.mask(&mut left, &left_numbers, &there, keep_when_there)
                    .await?;
            }
        }
        left.retain(Column::has_values);
        Ok(Columns::Vector(merge(left)?))
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
        for (column, &number) in columns.iter().zip(numbers) {
            self.pace.spend(column.values.len()).await?;
            there[number].resize(grid.steps, false);
            for (there, &value) in there[number].iter_mut().zip(&column.values) {
                *there |= is_present(value);
            }
        }
        Ok(there)
    }

    /// Blots out values where their signature's presence is not as wanted.
    async fn mask(
        &mut self,
        columns: &mut [Column],
        numbers: &[usize],
        there: &[Vec<bool>],
        keep_when_there: bool,
    ) -> Result<(), QueryError> {
        for (column, &number) in columns.iter_mut().zip(numbers) {
            self.pace.spend(column.values.len()).await?;
            for (step, value) in column.values.iter_mut().enumerate() {
                if there[number].get(step).copied().unwrap_or(false) != keep_when_there {
                    *value = ABSENT;
                }
            }
            column.drop_masked();
        }
        Ok(())
    }
}
