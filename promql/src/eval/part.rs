//! Parts that shards computed, back into the evaluation.

use model::fragment::{Part, PartColumn};

use super::{Column, Columns, Evaluation, merge};
use crate::ast::Aggregate;
use crate::error::QueryError;
use crate::plan::Grid;

/// What the shards made of one part of the plan.
#[derive(Debug)]
pub(crate) struct Parts {
    pub parts: Vec<Part>,
    /// Whether an aggregation was folded by them.
    pub is_folded: bool,
}

impl Parts {
    /// Values they hold.
    pub fn size(&self) -> usize {
        let columns = self.parts.iter().flat_map(|part| &part.columns);
        columns.map(|c| c.values.len() * (1 + c.rest.len())).sum()
    }
}

impl From<Column> for PartColumn {
    fn from(column: Column) -> Self {
        Self {
            labels: column.labels,
            drop_name: column.drop_name,
            values: column.values,
            histograms: Vec::new(),
            rest: Vec::new(),
        }
    }
}

impl From<PartColumn> for Column {
    fn from(column: PartColumn) -> Self {
        Self {
            labels: column.labels,
            drop_name: column.drop_name,
            values: column.values,
        }
    }
}

impl Evaluation<'_> {
    /// All shards' columns, by labels.
    pub(super) async fn join_parts(&mut self, parts: Parts) -> Result<Columns, QueryError> {
        let mut columns: Vec<Column> = Vec::new();
        for column in self.take_columns(parts.parts) {
            self.pace.spend(column.values.len()).await?;
            columns.push(column.into());
        }
        columns.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Columns::Vector(merge(columns)?))
    }

    /// An aggregation's result of what the shards folded, or could not.
    pub(super) async fn combine(
        &mut self,
        aggregate: &Aggregate,
        parts: Parts,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        if parts.is_folded {
            let columns = self.take_columns(parts.parts);
            return self.join_folds(aggregate, columns, grid).await;
        }
        let columns = self.join_parts(parts).await?.into_vector();
        self.aggregate(aggregate, None, columns, grid).await
    }

    fn take_columns(&mut self, parts: Vec<Part>) -> Vec<PartColumn> {
        let mut columns = Vec::new();
        for part in parts {
            self.notes.add_parts(self.query, part.notes);
            columns.extend(part.columns);
        }
        columns
    }
}
