//! Reading a shard: handles are taken under the lock, chunks are read and decoded outside it.
//!
//! A shard answers from what it has applied; how fresh that must be is its caller's concern, so
//! the consistency of a selection is ignored here.

use std::collections::BTreeSet;

use async_trait::async_trait;
use model::limits::QUERY_SAMPLES_MAX;
use model::source::{MetadataSelection, Selection, Source, SourceError, Take};
use model::{Labels, Samples, Series};

use crate::chunk::Point;
use crate::error::StorageError;
use crate::part::{self, Part};
use crate::shard::Shard;

#[async_trait]
impl Source for Shard {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        let (start, end) = (selection.start, selection.end);
        let chosen = self.read(|state| state.gather(&selection.matchers, start, end));
        let mut answer = Vec::with_capacity(chosen.len());
        let mut samples_left = QUERY_SAMPLES_MAX;
        for (labels, parts) in chosen {
            let points = match selection.take {
                Take::All => part::collect(&parts, start, end).await,
                Take::Last => part::last(parts, start, end).await.map(Vec::from_iter),
            };
            let points = points.map_err(|e| self.source_error(e))?;
            samples_left = samples_left
                .checked_sub(points.len())
                .ok_or_else(too_many_samples)?;
            if !points.is_empty() {
                let samples = samples(&points);
                answer.push(Series { labels, samples });
            }
        }
        answer.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Ok(answer)
    }

    async fn series(&self, selection: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        let mut found = self.with_samples(selection).await?;
        found.sort_unstable();
        Ok(found)
    }

    async fn label_names(&self, selection: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        let found = self.with_samples(selection).await?;
        let names = found.iter().flatten().map(|(name, _)| name);
        Ok(distinct(names))
    }

    async fn label_values(
        &self,
        name: &str,
        selection: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        let found = self.with_samples(selection).await?;
        let values = found.iter().filter_map(|labels| labels.get(name));
        Ok(distinct(values))
    }
}

impl Shard {
    /// Label sets that the selection chooses and that have a sample in its range.
    async fn with_samples(
        &self,
        selection: &MetadataSelection,
    ) -> Result<Vec<Labels>, SourceError> {
        let (start, end) = (selection.start, selection.end);
        let chosen: Vec<(Labels, Vec<Part>)> =
            self.read(|state| state.gather_any(&selection.any_of, start, end));
        let mut found = Vec::with_capacity(chosen.len());
        for (labels, parts) in chosen {
            let any = part::any(&parts, start, end).await;
            if any.map_err(|e| self.source_error(e))? {
                found.push(labels);
            }
        }
        Ok(found)
    }

    fn source_error(&self, error: StorageError) -> SourceError {
        SourceError::Internal(self.note(error).full_text())
    }
}

fn too_many_samples() -> SourceError {
    SourceError::TooLarge(format!(
        "a selection of more than {QUERY_SAMPLES_MAX} samples"
    ))
}

fn samples(points: &[Point]) -> Samples {
    Samples {
        timestamps: points.iter().map(|p| p.at).collect(),
        values: points.iter().map(|p| f64::from_bits(p.bits)).collect(),
        ..Samples::default()
    }
}

fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let set: BTreeSet<&str> = texts.collect();
    set.into_iter().map(str::to_owned).collect()
}
