//! Parts that shards computed, back into the evaluation.

use model::fragment::{Part, PartColumn};

use super::account::{HeldByShards, Made};
use super::column::histogram_bytes;
use super::functions::is_over_windows;
use super::sorted::sorted;
use super::{Column, Columns, Entry, Evaluation, Pace, distinct, merge};
use crate::ast::{Aggregate, Expr};
use crate::error::QueryError;
use crate::plan::Grid;

/// What the shards made of one part of the plan.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    parts: Vec<Part>,
    /// Whether an aggregation was folded by them.
    is_folded: bool,
    /// How each computed its share.
    entries: Vec<Entry>,
    /// About how many bytes their values take.
    pub bytes: usize,
}

impl Parts {
    pub fn new(parts: Vec<Part>, is_folded: bool, entries: Vec<Entry>) -> Self {
        let of_column = |column: &PartColumn| {
            8 * column.values.len() * (1 + column.rest.len()) + histogram_bytes(&column.histograms)
        };
        let columns = parts.iter().flat_map(|part| &part.columns);
        Self {
            bytes: columns.map(of_column).sum(),
            parts,
            is_folded,
            entries,
        }
    }
}

impl Parts {
    /// How many samples the shards read.
    pub fn samples(&self) -> u64 {
        self.parts.iter().flat_map(|part| &part.samples).sum()
    }

    /// A copy, for a step that is not the last one to use it; the columns are in order from then on.
    pub(super) async fn copy(&mut self, pace: &mut Pace<'_>) -> Result<Self, QueryError> {
        pace.expect_bytes(self.bytes)?;
        let parts = self.parts.iter_mut();
        let columns = parts.flat_map(|part| std::mem::take(&mut part.columns));
        let columns = sorted(columns.collect(), pace).await?;
        let (mut copy, mut copies) = (self.clone(), Vec::with_capacity(columns.len()));
        for column in &columns {
            pace.spend(column.values.len()).await?;
            copies.push(column.clone());
        }
        for (parts, columns) in [(&mut copy, copies), (self, columns)] {
            if let Some(first) = parts.parts.first_mut() {
                first.columns = columns;
            }
        }
        Ok(copy)
    }
}

impl From<Column> for PartColumn {
    fn from(column: Column) -> Self {
        Self {
            labels: column.labels,
            drop_name: column.drop_name,
            values: column.values,
            histograms: column.histograms,
            rest: Vec::new(),
        }
    }
}

impl From<PartColumn> for Column {
    fn from(part: PartColumn) -> Self {
        Self {
            histograms: part.histograms,
            ..Self::new(part.labels, part.drop_name, part.values)
        }
    }
}

impl Evaluation<'_> {
    /// All shards' columns of `expr`, by labels.
    pub(super) async fn join_parts(
        &mut self,
        expr: &Expr,
        parts: Parts,
    ) -> Result<Columns, QueryError> {
        let mut columns: Vec<Column> = Vec::new();
        for column in self.take_columns(parts) {
            self.pace.spend(column.values.len()).await?;
            columns.push(column.into());
        }
        let columns = sorted(columns, &mut self.pace).await?;
        // Functions of ranges and a minus may not yield a label set twice, not even at different
        // instants.
        let is_strict = match expr {
            Expr::Call(call) => is_over_windows(call),
            expr => matches!(expr, Expr::Unary(_)),
        };
        Ok(Columns::Vector(
            match (is_strict, self.rules.delayed_names) {
                (_, true) => columns,
                (true, false) => distinct(columns, &mut self.pace).await?,
                (false, false) => merge(columns, &mut self.pace).await?,
            },
        ))
    }

    /// An aggregation's result of what the shards folded, or could not.
    pub(super) async fn combine(
        &mut self,
        aggregate: &Aggregate,
        parts: Parts,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        if parts.is_folded {
            let columns = self.take_columns(parts);
            return self.join_folds(aggregate, columns, grid).await;
        }
        let columns = self.join_parts(&aggregate.expr, parts).await?.into_vector();
        self.aggregate(aggregate, None, columns, grid).await
    }

    /// Books what the shards told and hands out their columns.
    fn take_columns(&mut self, parts: Parts) -> Vec<PartColumn> {
        let mut columns = Vec::new();
        self.shards = Some(held(&parts.parts, parts.entries));
        for part in parts.parts {
            self.notes.add_parts(&part.notes);
            self.read.resize(self.read.len().max(part.samples.len()), 0);
            for (read, more) in self.read.iter_mut().zip(&part.samples) {
                *read += more;
            }
            columns.extend(part.columns);
        }
        columns
    }
}

/// What all parts together held.
fn held(parts: &[Part], entries: Vec<Entry>) -> HeldByShards {
    let mut counts = vec![Made::default(); entries.len()];
    for part in parts {
        if part.counts.len() != entries.len() {
            return HeldByShards::Peak(parts.iter().map(|part| part.peak).sum());
        }
        for (all, count) in counts.iter_mut().zip(&part.counts) {
            all.add(&count.into());
        }
    }
    HeldByShards::Counted(entries, counts)
}
