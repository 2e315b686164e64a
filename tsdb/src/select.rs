//! Reading a shard: handles are taken under the lock, chunks are read and decoded outside it.
//!
//! A shard answers from what it has applied; how fresh that must be is its caller's concern, so
//! the consistency of a selection is ignored here.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use model::limits::QUERY_SAMPLES_MAX;
use model::source::{MetadataSelection, Selection, Source, SourceError};
use model::{ExemplarSeries, Labels, Matcher, Samples, Series};

use crate::error::StorageError;
use crate::part::{Column, Part};
use crate::pieces::Pieces;
use crate::resting::Rest;
use crate::shard::Shard;
use crate::state::EachValue;

#[async_trait]
impl Source for Shard {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        let mut pieces = self.pieces(selection).await?;
        let (mut answer, mut before, mut turn) = (Vec::new(), 0, Turn::default());
        while let Some(piece) = pieces.next().await.map_err(|e| self.source_error(e))? {
            if pieces.weight() > QUERY_SAMPLES_MAX {
                return Err(too_many_samples());
            }
            answer.extend(piece);
            turn.spend(pieces.weight() - before).await;
            before = pieces.weight();
        }
        answer.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Ok(answer)
    }

    fn stream<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> BoxStream<'a, Result<Vec<Series>, SourceError>> {
        let read = async |mut pieces: Pieces| {
            let piece = pieces.next().await.map_err(|e| self.source_error(e))?;
            Ok(piece.map(|piece| (piece, pieces)))
        };
        let pieces = futures::stream::once(self.pieces(selection));
        let all = pieces.map_ok(move |pieces| futures::stream::try_unfold(pieces, read));
        all.try_flatten().boxed()
    }

    async fn exemplars(
        &self,
        selection: &MetadataSelection,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        let (start, end) = (selection.start, selection.end);
        let mut found = Vec::new();
        for any_of in turns(&selection.any_of) {
            found.append(&mut self.read(|state| state.gather_exemplars(any_of, start, end)));
            tokio::task::yield_now().await;
        }
        found.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        found.dedup_by(|a, b| a.labels == b.labels);
        Ok(found)
    }

    async fn series(&self, selection: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        let (start, end) = (selection.start, selection.end);
        let mut found = Vec::new();
        for any_of in turns(&selection.any_of) {
            let (mut known, others) = self.read(|state| state.series(any_of, start, end));
            let others = others.found().await.map_err(|e| self.source_error(e))?;
            found.append(&mut known);
            found.extend(others.into_iter().map(|series| series.labels));
            found.sort_unstable();
            found.dedup();
            tokio::task::yield_now().await;
        }
        Ok(found)
    }

    async fn label_names(&self, selection: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        let mut names = Vec::new();
        self.each_label_name(selection, &mut |name| names.push(name.to_owned()));
        names.extend(self.resting_label_names(selection).await?);
        Ok(sorted(names))
    }

    async fn label_values(
        &self,
        name: &str,
        selection: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        let mut values = Vec::new();
        self.each_label_value(name, selection, &mut |value, stands| {
            if stands() {
                values.push(value.to_owned());
            }
        });
        values.extend(self.resting_label_values(name, selection).await?);
        Ok(sorted(values))
    }
}

impl Shard {
    /// Of registered series, as [`Source::label_names`], for a caller that has most of them already. `each` runs under
    /// the shard's lock.
    pub fn each_label_name(&self, selection: &MetadataSelection, each: &mut dyn FnMut(&str)) {
        let range = (selection.start, selection.end);
        self.read(|state| state.each_label_name(&selection.any_of, range, each));
    }

    /// As [`Source::label_values`], likewise; of a value that the caller knows it need not ask
    /// whether it stands.
    pub fn each_label_value(
        &self,
        name: &str,
        selection: &MetadataSelection,
        each: &mut EachValue<'_>,
    ) {
        let range = (selection.start, selection.end);
        self.read(|state| state.each_label_value(name, &selection.any_of, range, each));
    }

    /// Names of labels of series that rest, sorted, each once.
    pub async fn resting_label_names(
        &self,
        selection: &MetadataSelection,
    ) -> Result<BTreeSet<String>, SourceError> {
        let mut names = BTreeSet::new();
        for any_of in turns(&selection.any_of) {
            let rest = self.rest(any_of, selection);
            names.append(&mut rest.names().await.map_err(|e| self.source_error(e))?);
        }
        Ok(names)
    }

    /// Values of a label of series that rest, sorted, each once.
    pub async fn resting_label_values(
        &self,
        name: &str,
        selection: &MetadataSelection,
    ) -> Result<BTreeSet<String>, SourceError> {
        let mut values = BTreeSet::new();
        for any_of in turns(&selection.any_of) {
            let rest = self.rest(any_of, selection);
            values.append(&mut rest.values(name).await.map_err(|e| self.source_error(e))?);
        }
        Ok(values)
    }

    fn rest(&self, any_of: &[Vec<Matcher>], selection: &MetadataSelection) -> Rest {
        self.read(|state| state.rest(any_of, selection.start, selection.end))
    }

    async fn pieces(&self, selection: &Selection) -> Result<Pieces, SourceError> {
        Ok(Pieces::new(self.gather(selection).await?, selection))
    }

    /// Handles on what a selection chooses, by series id; series without any are left out.
    pub(crate) async fn gather(
        &self,
        selection: &Selection,
    ) -> Result<Vec<(Labels, Vec<Part>)>, SourceError> {
        let (start, end, take) = (selection.start, selection.end, selection.take);
        let gathered = self.read(|state| state.gather(&selection.matchers, start, end, take));
        gathered.parts().await.map_err(|e| self.source_error(e))
    }

    pub(crate) fn source_error(&self, error: StorageError) -> SourceError {
        SourceError::Internal(self.note(error).full_text())
    }
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// Gives others a turn now and then: what is in memory is decoded without a wait.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    spent: usize,
}

/// Samples between two turns: around a millisecond of decoding.
const SAMPLES_PER_TURN: usize = 64 << 10;

impl Turn {
    /// Counts samples that were decoded.
    pub async fn spend(&mut self, samples: usize) {
        self.spent += samples;
        if self.spent >= SAMPLES_PER_TURN {
            self.spent = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Lists of matchers that are looked at under the lock at a time.
const LISTS_PER_TURN: usize = 16;

/// All lists, a few at a time; none is one turn, too.
fn turns(any_of: &[Vec<Matcher>]) -> impl Iterator<Item = &[Vec<Matcher>]> {
    let none = any_of.is_empty().then_some(any_of);
    any_of.chunks(LISTS_PER_TURN).chain(none)
}

pub(crate) fn too_many_samples() -> SourceError {
    SourceError::TooLarge(format!(
        "a selection of more than {QUERY_SAMPLES_MAX} samples"
    ))
}

/// How many floats would take as much room; a float is 16 bytes.
pub(crate) fn weight(column: &Column) -> usize {
    let histograms = column.histograms.iter().map(|p| 1 + p.bytes.len() / 16);
    column.floats.len() + histograms.sum::<usize>()
}

/// Both kinds as one column in time order.
pub(crate) fn samples_of(column: &Column) -> Result<Samples, StorageError> {
    let points = &column.floats;
    if column.histograms.is_empty() {
        return Ok(Samples {
            timestamps: points.iter().map(|p| p.at).collect(),
            values: points.iter().map(|p| f64::from_bits(p.bits)).collect(),
            ..Samples::default()
        });
    }
    let mut samples = Samples::default();
    let mut floats = points.iter().peekable();
    for point in &column.histograms {
        while let Some(float) = floats.next_if(|float| float.at < point.at) {
            samples.push(float.at, f64::from_bits(float.bits));
        }
        samples.push_histogram(point.at, Arc::new(point.decode()?));
    }
    for float in floats {
        samples.push(float.at, f64::from_bits(float.bits));
    }
    Ok(samples)
}
