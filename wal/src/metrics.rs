//! The log's figures, built once and handed down.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// What the log counts. Clones share their figures.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub written_bytes: IntCounter,
    pub flushes: IntCounter,
    /// Seconds one batch took to append and flush.
    pub flush_duration: Histogram,
    pub segments: IntGauge,
    pub cache_bytes: IntGauge,
    pub entries: IntGauge,
    pub quarantined: IntGauge,
    pub damaged_segments: IntCounter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let flush_duration = Histogram::with_opts(
            HistogramOpts::new(
                "quorate_log_flush_duration_seconds",
                "Time one batch of the Raft log took to be appended and flushed.",
            )
            .buckets(prometheus::exponential_buckets(0.000_25, 2.0, 15)?),
        )?;
        registry.register(Box::new(flush_duration.clone()))?;
        Ok(Self {
            written_bytes: counter(
                "quorate_log_written_bytes_total",
                "Bytes appended to the Raft log's segments.",
            )?,
            flushes: counter(
                "quorate_log_flushes_total",
                "Flushes of the Raft log's segments.",
            )?,
            flush_duration,
            segments: gauge(
                "quorate_log_segments",
                "Segment files of the Raft log on disk.",
            )?,
            cache_bytes: gauge(
                "quorate_log_cache_bytes",
                "Payload bytes of written Raft log entries kept in memory.",
            )?,
            entries: gauge(
                "quorate_log_entries",
                "Raft log entries that are not purged, all groups together.",
            )?,
            damaged_segments: counter(
                "quorate_log_damaged_segments_total",
                "Times a sealed segment of the Raft log was read again and found damaged.",
            )?,
            quarantined: gauge(
                "quorate_log_quarantined_groups",
                "Raft groups whose log was found damaged when the log was opened.",
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_takes_the_figures_once() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.written_bytes.inc_by(7);
        assert_eq!(registry.gather().len(), 8);
        assert!(Metrics::new(&registry).is_err());
    }
}
