//! What the engine counts about itself, over all shards of a node.

use model::sink::Reason;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Built once per node and handed to every shard.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub samples_applied: IntCounter,
    rejected: IntCounterVec,
    pub late_lookups: IntCounter,
    pub checkpoints: IntCounter,
    pub checkpoint_bytes: IntCounter,
    pub blocks_written: IntCounter,
    pub blocks_merged: IntCounter,
    pub block_bytes: IntCounter,
    pub corruptions: IntCounter,
}

impl Metrics {
    pub fn new() -> Self {
        let counter = |name: &str, help: &str| {
            IntCounter::new(format!("quorate_tsdb_{name}"), help).expect("names are constants")
        };
        let rejected = Opts::new(
            "quorate_tsdb_samples_rejected_total",
            "Rows refused, by reason.",
        );
        Self {
            samples_applied: counter(
                "samples_applied_total",
                "Rows applied from the log and not refused, repeated ones included.",
            ),
            rejected: IntCounterVec::new(rejected, &["reason"]).expect("names are constants"),
            late_lookups: counter(
                "late_lookups_total",
                "Chunks read from sealed blocks to compare late rows.",
            ),
            checkpoints: counter("checkpoints_total", "Checkpoints written."),
            checkpoint_bytes: counter("checkpoint_bytes_total", "Bytes of checkpoints written."),
            blocks_written: counter("blocks_written_total", "Block files written."),
            blocks_merged: counter("blocks_merged_total", "Files written of blocks made one."),
            block_bytes: counter("block_bytes_total", "Bytes of block files written."),
            corruptions: counter(
                "corruptions_total",
                "Reads that found bytes other than those written.",
            ),
        }
    }

    /// Makes the counters visible on a registry.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        for counter in [
            &self.samples_applied,
            &self.late_lookups,
            &self.checkpoints,
            &self.checkpoint_bytes,
            &self.blocks_written,
            &self.blocks_merged,
            &self.block_bytes,
            &self.corruptions,
        ] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(self.rejected.clone()))
    }

    pub fn rejected(&self, reason: Reason) -> IntCounter {
        let label = match reason {
            Reason::TooOld => "too_old",
            Reason::TooNew => "too_new",
            Reason::Duplicate => "duplicate",
            Reason::Fenced => "fenced",
            Reason::BadLabels => "bad_labels",
            Reason::BadHistogram => "bad_histogram",
            Reason::OutOfOrder => "out_of_order",
            Reason::SeriesLimit => "series_limit",
        };
        self.rejected.with_label_values(&[label])
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
