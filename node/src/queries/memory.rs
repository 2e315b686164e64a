//! Memory for what all queries of a node have selected.
//!
//! Promise: what running queries hold of selected series never exceeds the bound together. The
//! query that asks for what is not there fails; those that have theirs go on. Counted is what a
//! source answered, once it has: one answer on its way is bounded by the source.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use model::fragment::{Evaluator, Fragment, FragmentError, Part, PartColumn};
use model::source::{MetadataSelection, Selection, Source, SourceError};
use model::{ExemplarSeries, Labels, Series};

/// What all queries may hold together.
#[derive(Debug, Clone)]
pub struct Memory {
    held: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Why a query gets no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The same query will never do.
    #[error(
        "query would select {bytes} bytes of samples, more than all queries together may hold ({max}); \
         select fewer series or a shorter range"
    )]
    TooLarge { bytes: usize, max: usize },
    /// Others hold it now.
    #[error(
        "other queries hold the memory that this one asked for: {bytes} bytes more than all may hold \
         together ({max}); try again later"
    )]
    Busy { bytes: usize, max: usize },
}

impl Memory {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            held: Arc::default(),
            bytes_max,
        }
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Adds `bytes` for a query that holds `own` already.
    fn take(&self, own: usize, bytes: usize) -> Result<(), Full> {
        let max = self.bytes_max;
        let wanted = own.saturating_add(bytes);
        if wanted > max {
            return Err(Full::TooLarge { bytes: wanted, max });
        }
        let fits = |held: usize| held.checked_add(bytes).filter(|&sum| sum <= max);
        let relaxed = Ordering::Relaxed;
        match self.held.fetch_update(relaxed, relaxed, fits) {
            Ok(_) => Ok(()),
            Err(held) => Err(Full::Busy {
                bytes: held.saturating_add(bytes).saturating_sub(max),
                max,
            }),
        }
    }
}

/// A source whose answers are counted while it lives: one query's.
pub struct Budgeted<'a> {
    source: &'a dyn Source,
    memory: &'a Memory,
    own: AtomicUsize,
    refused: OnceLock<Full>,
}

impl<'a> Budgeted<'a> {
    pub fn new(source: &'a dyn Source, memory: &'a Memory) -> Self {
        Self {
            source,
            memory,
            own: AtomicUsize::new(0),
            refused: OnceLock::new(),
        }
    }

    /// Why a selection failed, if it did for lack of memory.
    pub fn refused(&self) -> Option<Full> {
        self.refused.get().copied()
    }

    fn count(&self, bytes: usize) -> Result<(), SourceError> {
        match self.memory.take(self.own.load(Ordering::Relaxed), bytes) {
            Ok(()) => {
                self.own.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(full) => {
                let first = self.refused.get_or_init(|| full);
                Err(SourceError::TooLarge(first.to_string()))
            }
        }
    }
}

impl Drop for Budgeted<'_> {
    fn drop(&mut self) {
        self.memory
            .held
            .fetch_sub(*self.own.get_mut(), Ordering::Relaxed);
    }
}

#[async_trait]
impl Source for Budgeted<'_> {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        let series = self.source.select(selection).await?;
        self.count(series.iter().map(size).sum())?;
        Ok(series)
    }

    async fn evaluate(&self, fragment: &Fragment) -> Result<Vec<Part>, FragmentError> {
        let parts = self.source.evaluate(fragment).await?;
        let columns = parts.iter().flat_map(|part| &part.columns);
        self.count(columns.map(column_size).sum())?;
        Ok(parts)
    }

    fn evaluates(&self) -> bool {
        self.source.evaluates()
    }

    async fn series(&self, selection: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        self.source.series(selection).await
    }

    async fn label_names(&self, selection: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        self.source.label_names(selection).await
    }

    async fn label_values(
        &self,
        name: &str,
        selection: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        self.source.label_values(name, selection).await
    }

    async fn exemplars(
        &self,
        selection: &MetadataSelection,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        self.source.exemplars(selection).await
    }
}

/// Computes parts of queries, also for other nodes, within this node's memory.
pub struct BudgetedEvaluator {
    pub evaluator: Arc<dyn Evaluator>,
    pub memory: Memory,
}

#[async_trait]
impl Evaluator for BudgetedEvaluator {
    async fn evaluate(
        &self,
        source: &dyn Source,
        fragment: &Fragment,
    ) -> Result<Part, FragmentError> {
        let source = Budgeted::new(source, &self.memory);
        self.evaluator.evaluate(&source, fragment).await
    }

    fn selection(&self, fragment: &Fragment) -> Option<Selection> {
        self.evaluator.selection(fragment)
    }
}

/// What a series holds in memory, about.
fn size(series: &Series) -> usize {
    let samples = &series.samples;
    let histograms = samples
        .histograms
        .iter()
        .map(|(_, h)| h.size())
        .sum::<usize>();
    size_of::<Series>() + series.labels.as_canonical().len() + 16 * samples.len() + histograms
}

/// What a column of a part holds in memory, about.
fn column_size(column: &PartColumn) -> usize {
    let values = column.values.len() + column.rest.iter().map(Vec::len).sum::<usize>();
    let histograms = column
        .histograms
        .iter()
        .map(|(_, h)| h.size())
        .sum::<usize>();
    size_of::<PartColumn>() + column.labels.as_canonical().len() + 8 * values + histograms
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound holds over queries, not within one; what a query held is there again after it.
    #[test]
    fn the_one_that_asks_for_too_much_fails() {
        let memory = Memory::new(100);
        assert_eq!(memory.take(0, 60), Ok(()));
        let busy = Full::Busy {
            bytes: 10,
            max: 100,
        };
        assert_eq!(memory.take(0, 50), Err(busy));
        let large = Full::TooLarge {
            bytes: 110,
            max: 100,
        };
        assert_eq!(memory.take(60, 50), Err(large));
        assert_eq!(memory.take(60, 40), Ok(()));
        assert_eq!(memory.held(), 100);
    }
}
