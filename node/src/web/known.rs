//! What is known of metrics, whoever said it: scraped targets of all nodes, writes, pushed groups.
//!
//! A target's word counts for the metrics it has, as in Prometheus, which knows no other; what
//! senders said counts for all others. Who did not answer is named.

use std::collections::BTreeSet;

use model::FamilyMetadata;

use super::Shared;
use super::state::{Metadata, MetricMetadata};

/// Of all metrics, or of one.
pub struct Known {
    targets: Metadata,
    /// Of metrics that no target has.
    told: Vec<MetricMetadata>,
}

impl Known {
    /// Asks all nodes and all shards.
    pub async fn ask(api: &Shared, metric: Option<&str>) -> Self {
        let targets = api.status.metadata(metric);
        let (mut targets, told) = futures::join!(targets, api.metadata.described(metric));
        let told = told.unwrap_or_else(|error| {
            let warning = format!("what writes and pushes said of metrics is missing: {error}");
            targets.warnings.push(warning);
            Vec::new()
        });
        let scraped = targets.targets.iter().flat_map(|target| &target.metrics);
        let scraped: BTreeSet<&str> = scraped.map(|of| of.metric.as_str()).collect();
        let told = told.into_iter();
        let told = told.filter(|word| !scraped.contains(word.name.as_str()));
        let told = told.map(in_words).collect();
        Self { targets, told }
    }

    /// All words, those of targets first; the same may stand there more than once.
    pub fn metrics(&self) -> impl Iterator<Item = &MetricMetadata> {
        let scraped = self.targets.targets.iter();
        let scraped = scraped.flat_map(|target| &target.metrics);
        scraped.chain(&self.told)
    }

    pub fn warnings(&self) -> &[String] {
        &self.targets.warnings
    }
}

fn in_words(word: FamilyMetadata) -> MetricMetadata {
    MetricMetadata {
        metric: word.name,
        kind: word.kind.as_str().to_owned(),
        help: word.help,
        unit: word.unit,
    }
}
