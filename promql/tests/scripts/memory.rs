//! A source in memory that filters naively.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use model::histogram::ResetHint;
use model::matcher::matches_all;
use model::source::{MetadataSelection, Selection, Source, SourceError, Take};
use model::{Histogram, Labels, Samples, Series, Timestamp, Value};
use promql::native::detects_reset;

#[derive(Default)]
pub struct Memory {
    pub series: BTreeMap<Labels, BTreeMap<i64, Value>>,
    /// How often it was asked to select.
    pub selections: Mutex<usize>,
}

impl Memory {
    pub fn add(&mut self, labels: &Labels, at_ms: i64, value: f64) {
        let samples = self.series.entry(labels.clone()).or_default();
        samples.insert(at_ms, Value::Float(value));
    }

    pub fn add_histogram(&mut self, labels: &Labels, at_ms: i64, histogram: Arc<Histogram>) {
        let samples = self.series.entry(labels.clone()).or_default();
        samples.insert(at_ms, Value::Histogram(histogram));
    }
}

/// A histogram with the reset hint that Prometheus' storage gives it: no reset inside a chunk,
/// unknown at its beginning. A reset, another layout or another kind begins a chunk.
fn hinted(before: Option<&Value>, histogram: &Histogram) -> Histogram {
    let mut plain = histogram.clone();
    if histogram.reset_hint == ResetHint::Gauge {
        return plain;
    }
    plain.reset_hint = ResetHint::Unknown;
    if let Some(Value::Histogram(before)) = before {
        let is_next = before.reset_hint != ResetHint::Gauge
            && histogram.reset_hint != ResetHint::CounterReset
            && before.schema == histogram.schema
            && before.zero_threshold == histogram.zero_threshold
            && !before.is_stale()
            && !detects_reset(&plain, before);
        if is_next {
            plain.reset_hint = ResetHint::NotCounterReset;
        }
    }
    plain
}

#[async_trait]
impl Source for Memory {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        *self.selections.lock().unwrap() += 1;
        let mut found = Vec::new();
        for (labels, all) in &self.series {
            if !matches_all(&selection.matchers, labels) || selection.start > selection.end {
                continue;
            }
            let mut samples = Samples::default();
            for (&at, value) in all.range(selection.start.0..=selection.end.0) {
                if selection.take == Take::Last {
                    samples = Samples::default();
                }
                match value {
                    Value::Float(value) => samples.push(Timestamp(at), *value),
                    Value::Histogram(histogram) => {
                        let before = all.range(..at).next_back().map(|(_, value)| value);
                        let hinted = Arc::new(hinted(before, histogram));
                        samples.push_histogram(Timestamp(at), hinted);
                    }
                }
            }
            if !samples.is_empty() {
                let labels = labels.clone();
                found.push(Series { labels, samples });
            }
        }
        Ok(found)
    }

    async fn series(&self, selection: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        let chosen = |labels: &&Labels| {
            selection.any_of.is_empty()
                || selection.any_of.iter().any(|all| matches_all(all, labels))
        };
        Ok(self.series.keys().filter(chosen).cloned().collect())
    }

    async fn label_names(&self, selection: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        let series = self.series(selection).await?;
        let names: BTreeSet<_> = series.iter().flatten().map(|(n, _)| n.to_owned()).collect();
        Ok(names.into_iter().collect())
    }

    async fn label_values(
        &self,
        name: &str,
        selection: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        let series = self.series(selection).await?;
        let values: BTreeSet<_> = series.iter().filter_map(|l| l.get(name)).collect();
        Ok(values.into_iter().map(str::to_owned).collect())
    }
}
