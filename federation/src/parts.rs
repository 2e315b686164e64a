//! A classic histogram or a summary in protobuf is one message for what are many series: here they
//! are put together again.
//!
//! Promise: a message is made only of a set that is whole (a sum, a count and, of a histogram, the
//! bucket of all; all of one instant, nothing twice); all others are handed back as they came. Not
//! here: how much may be gathered.

use std::collections::BTreeMap;

use model::group::FamilyKind;
use model::labels::METRIC_NAME;
use model::{Labels, Newest};
use proto::exposition as wire;

use crate::types::number;

/// Of one family.
pub struct Parts {
    /// As it is stored.
    pub name: String,
    pub kind: FamilyKind,
    pub help: String,
    /// By the labels that a set has in common.
    sets: BTreeMap<Labels, Vec<Newest>>,
    pub bytes: usize,
}

/// One whole set.
pub struct Whole {
    pub labels: Labels,
    /// Without its labels.
    pub metric: wire::Metric,
}

impl Parts {
    pub fn new(name: &str, kind: FamilyKind, help: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            help: help.to_owned(),
            sets: BTreeMap::new(),
            bytes: 0,
        }
    }

    pub fn add(&mut self, newest: &Newest) {
        self.bytes += size_of::<Newest>() + 2 * newest.labels.as_canonical().len();
        let mut labels = newest.labels.to_builder();
        labels.remove(METRIC_NAME);
        if let Some(label) = self.label_of(newest) {
            labels.remove(label);
        }
        let set = self.sets.entry(labels.build()).or_default();
        set.push(newest.clone());
    }

    /// The label that tells the series of a part apart.
    fn label_of(&self, newest: &Newest) -> Option<&'static str> {
        match (self.kind, self.part(newest)) {
            (FamilyKind::Histogram, "_bucket") => Some("le"),
            (FamilyKind::Summary, "") => Some("quantile"),
            _ => None,
        }
    }

    fn part<'n>(&self, newest: &'n Newest) -> &'n str {
        let name = newest.labels.metric_name();
        name.strip_prefix(&*self.name).unwrap_or_default()
    }

    /// The whole sets by their labels, and all other series by name and labels.
    pub fn take(&mut self) -> (Vec<Whole>, Vec<Newest>) {
        let (mut whole, mut rest) = (Vec::new(), Vec::new());
        for (labels, set) in std::mem::take(&mut self.sets) {
            match self.metric(&set) {
                Some(metric) => whole.push(Whole { labels, metric }),
                None => rest.extend(set),
            }
        }
        rest.sort_by(|a, b| a.labels.cmp_by_name(&b.labels));
        (whole, rest)
    }

    /// All series as they came, by name and labels.
    pub fn take_all(&mut self) -> Vec<Newest> {
        let sets = std::mem::take(&mut self.sets).into_values();
        let mut all: Vec<_> = sets.flatten().collect();
        all.sort_by(|a, b| a.labels.cmp_by_name(&b.labels));
        all
    }

    fn metric(&self, set: &[Newest]) -> Option<wire::Metric> {
        let (mut count, mut sum) = (None, None);
        let mut values = Vec::new();
        for newest in set {
            match (self.part(newest), self.label_of(newest)) {
                ("_count", _) => count = Some(newest.value).xor(count),
                ("_sum", _) => sum = Some(newest.value).xor(sum),
                (_, label) => values.push((number(newest, label?)?, newest.value)),
            }
        }
        let at = set.first()?.at;
        let (count, sum) = (count.filter(|count| *count >= 0.0)?, sum?);
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let is_twice = values.windows(2).any(|two| two[0].0 == two[1].0);
        if is_twice || set.iter().any(|newest| newest.at != at) {
            return None;
        }
        let mut metric = wire::Metric {
            timestamp_ms: Some(at.0),
            ..wire::Metric::default()
        };
        match self.kind {
            FamilyKind::Histogram => metric.histogram = Some(histogram(count, sum, &values)?),
            _ => metric.summary = Some(summary(count, sum, &values)?),
        }
        Some(metric)
    }
}

fn histogram(count: f64, sum: f64, buckets: &[(f64, f64)]) -> Option<wire::Histogram> {
    let &(bound, _) = buckets.last()?;
    let is_count = |(_, count): &(f64, f64)| *count >= 0.0;
    if bound != f64::INFINITY || !buckets.iter().all(is_count) {
        return None;
    }
    let bucket = buckets.iter().map(|&(bound, count)| wire::Bucket {
        cumulative_count: whole(count),
        cumulative_count_float: whole(count).is_none().then_some(count),
        upper_bound: Some(bound),
        ..wire::Bucket::default()
    });
    Some(wire::Histogram {
        sample_count: whole(count),
        sample_count_float: whole(count).is_none().then_some(count),
        sample_sum: Some(sum),
        bucket: bucket.collect(),
        ..wire::Histogram::default()
    })
}

fn summary(count: f64, sum: f64, quantiles: &[(f64, f64)]) -> Option<wire::Summary> {
    let quantile = quantiles.iter().map(|&(quantile, value)| wire::Quantile {
        quantile: Some(quantile),
        value: Some(value),
    });
    Some(wire::Summary {
        sample_count: Some(whole(count)?),
        sample_sum: Some(sum),
        quantile: quantile.collect(),
        ..wire::Summary::default()
    })
}

/// A count as a whole number, if it is one that a float holds exactly.
fn whole(count: f64) -> Option<u64> {
    let is_whole = count.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&count);
    is_whole.then_some(count as u64)
}
