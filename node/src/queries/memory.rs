//! Memory for what all queries of a node have selected.
//!
//! Promise: what running queries hold of selected series never exceeds the bound together. The
//! query that asks for what is not there fails; those that have theirs go on. Counted is what is
//! decoded here, piece by piece, what a source answered, and a large result until it was read; an answer on
//! its way from another node is counted there. Of what is computed on
//! in pieces only the last one is counted, and the columns made of those before.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
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

    /// Counts what stays of a query behind its end: an answer that is being read.
    pub fn hold(&self, bytes: usize) -> Result<Held, Full> {
        self.take(0, bytes)?;
        let memory = self.clone();
        Ok(Held { memory, bytes })
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

/// Bytes that are counted while this lives.
#[derive(Debug)]
pub struct Held {
    memory: Memory,
    bytes: usize,
}

impl Held {
    /// Counts no more than so many bytes from now on.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        self.memory.held.fetch_sub(less, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A source whose answers are counted while it lives: one query's.
pub struct Budgeted<'a> {
    source: &'a dyn Source,
    memory: &'a Memory,
    own: AtomicUsize,
    /// What stays of each series of a piece when the next one comes.
    kept_bytes: usize,
    refused: OnceLock<Full>,
}

impl<'a> Budgeted<'a> {
    pub fn new(source: &'a dyn Source, memory: &'a Memory) -> Self {
        Self {
            source,
            memory,
            own: AtomicUsize::new(0),
            kept_bytes: 0,
            refused: OnceLock::new(),
        }
    }

    /// Of each series of a piece so many bytes stay when the next one comes.
    fn keeping(mut self, kept_bytes: usize) -> Self {
        self.kept_bytes = kept_bytes;
        self
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
                let text = first.to_string();
                Err(match first {
                    Full::TooLarge { .. } => SourceError::TooLarge(text),
                    Full::Busy { .. } => SourceError::Busy(text),
                })
            }
        }
    }
}

impl Budgeted<'_> {
    /// All pieces, sorted, each counted as it comes.
    async fn gather(
        &self,
        selection: &Selection,
        counted: &mut usize,
    ) -> Result<Vec<Series>, SourceError> {
        let mut pieces = self.source.stream(selection);
        let (mut all, mut spent) = (Vec::new(), 0);
        while let Some(piece) = pieces.next().await {
            let mut piece = piece?;
            let bytes = piece.iter().map(size).sum();
            self.count(bytes)?;
            *counted += bytes;
            match all.is_empty() {
                true => all = piece,
                false => all.append(&mut piece),
            }
            spent += bytes;
            if spent >= BYTES_PER_TURN {
                spent = 0;
                tokio::task::yield_now().await;
            }
        }
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(all)
    }

    /// Gives back bytes that were counted.
    fn release(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        self.memory.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Budgeted<'_> {
    fn drop(&mut self) {
        let own = *self.own.get_mut();
        self.release(own);
    }
}

#[async_trait]
impl Source for Budgeted<'_> {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        let mut counted = 0;
        let selected = self.gather(selection, &mut counted).await;
        if selected.is_err() {
            self.release(counted);
        }
        selected
    }

    fn stream<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> BoxStream<'a, Result<Vec<Series>, SourceError>> {
        let pieces = self.source.stream(selection);
        futures::stream::try_unfold((pieces, 0), async |(mut pieces, before)| {
            self.release(before);
            let Some(piece) = pieces.next().await else {
                return Ok::<_, SourceError>(None);
            };
            let piece: Vec<Series> = piece?;
            let bytes: usize = piece.iter().map(size).sum();
            self.count(bytes)?;
            let kept = piece.len() * self.kept_bytes;
            Ok(Some((piece, (pieces, bytes.saturating_sub(kept)))))
        })
        .boxed()
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

/// Bytes of samples between two turns: around a millisecond of decoding.
const BYTES_PER_TURN: usize = 1 << 20;

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
        let kept_bytes = match fragment.fold {
            true => 0,
            false => size_of::<f64>() * fragment.steps as usize,
        };
        let source = Budgeted::new(source, &self.memory).keeping(kept_bytes);
        self.evaluator.evaluate(&source, fragment).await
    }

    async fn select(
        &self,
        source: &dyn Source,
        selection: &Selection,
    ) -> Result<Vec<Series>, SourceError> {
        // Until all are there, and whoever asked counts them.
        Budgeted::new(source, &self.memory).select(selection).await
    }

    fn selection(&self, fragment: &Fragment) -> Option<Selection> {
        self.evaluator.selection(fragment)
    }
}

/// What a series holds in memory, about.
pub fn size(series: &Series) -> usize {
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
    use model::Samples;
    use model::Timestamp;
    use model::source::{Consistency, Take};

    use super::*;

    /// Ten pieces of one series with a hundred samples each.
    struct Tens;

    fn series(n: usize) -> Series {
        let mut samples = Samples::default();
        (0..100).for_each(|at| samples.push(Timestamp(at), 1.0));
        Series {
            labels: Labels::from_pairs([("n", n.to_string())]),
            samples,
        }
    }

    #[async_trait]
    impl Source for Tens {
        async fn select(&self, _: &Selection) -> Result<Vec<Series>, SourceError> {
            Ok((0..10).map(series).collect())
        }

        fn stream<'a>(
            &'a self,
            _: &'a Selection,
        ) -> BoxStream<'a, Result<Vec<Series>, SourceError>> {
            futures::stream::iter((0..10).map(|n| Ok(vec![series(n)]))).boxed()
        }

        async fn series(&self, _: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
            Ok(Vec::new())
        }

        async fn label_names(&self, _: &MetadataSelection) -> Result<Vec<String>, SourceError> {
            Ok(Vec::new())
        }

        async fn label_values(
            &self,
            _: &str,
            _: &MetadataSelection,
        ) -> Result<Vec<String>, SourceError> {
            Ok(Vec::new())
        }
    }

    fn everything() -> Selection {
        Selection {
            matchers: Vec::new(),
            start: Timestamp(0),
            end: Timestamp(100),
            take: Take::All,
            consistency: Consistency::Local,
        }
    }

    /// What is read in pieces needs room for one of them, and for what is made of those before.
    #[tokio::test]
    async fn of_pieces_only_the_last_one_is_counted() {
        let memory = Memory::new(5_000);
        let selection = everything();
        for (kept_bytes, most) in [(0, 2_000), (100, 3_000)] {
            let source = Budgeted::new(&Tens, &memory).keeping(kept_bytes);
            assert!(source.select(&selection).await.is_err(), "all at once");
            assert_eq!(memory.held(), 0);
            let mut pieces = source.stream(&selection);
            let mut peak = 0;
            while let Some(piece) = pieces.next().await {
                assert_eq!(piece.unwrap().len(), 1);
                peak = peak.max(memory.held());
            }
            assert!((1_600..most).contains(&peak), "{peak}");
            assert_eq!(memory.held(), 10 * kept_bytes);
            drop(pieces);
            drop(source);
            assert_eq!(memory.held(), 0);
        }
    }

    /// What is decoded for others is counted while it is, and not more of it is decoded than fits.
    #[tokio::test]
    async fn a_selection_is_counted_piece_by_piece() {
        let selection = everything();
        let whole: usize = (0..10).map(|n| size(&series(n))).sum();
        let evaluator = |bytes_max| BudgetedEvaluator {
            evaluator: Arc::new(Nothing),
            memory: Memory::new(bytes_max),
        };
        let enough = evaluator(whole);
        let selected = enough.select(&Tens, &selection).await.unwrap();
        assert!(selected.is_sorted_by(|a, b| a.labels < b.labels) && selected.len() == 10);
        assert_eq!(enough.memory.held(), 0);
        let little = evaluator(whole - 1);
        let refused = little.select(&Tens, &selection).await;
        assert!(
            matches!(refused, Err(SourceError::TooLarge(_))),
            "{refused:?}"
        );
        assert_eq!(little.memory.held(), 0);
        let _others = enough.memory.hold(1).unwrap();
        let refused = enough.select(&Tens, &selection).await;
        assert!(matches!(refused, Err(SourceError::Busy(_))), "{refused:?}");
        assert_eq!(enough.memory.held(), 1);
    }

    struct Nothing;

    #[async_trait]
    impl Evaluator for Nothing {
        async fn evaluate(&self, _: &dyn Source, _: &Fragment) -> Result<Part, FragmentError> {
            Err(FragmentError::Unsupported)
        }
    }

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
        let memory = Memory::new(100);
        let mut held = memory.hold(70).unwrap();
        assert!(memory.hold(60).is_err());
        held.shrink(80);
        assert_eq!(memory.held(), 70);
        held.shrink(40);
        assert_eq!(memory.held(), 40);
        let beside = memory.hold(60).unwrap();
        drop(held);
        assert_eq!(memory.held(), 60);
        drop(beside);
        assert_eq!(memory.held(), 0);
    }
}
