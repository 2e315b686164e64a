//! Figures of queries, under the names of Prometheus' engine.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary};
use prometheus::{IntCounter, IntGauge, Registry};

/// Durations of which quantiles are told: the newest ones.
const NEWEST: usize = 512;
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Parts of a query whose time is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slice {
    Queue,
    InnerEvaluation,
}

impl Slice {
    const ALL: [Self; 2] = [Self::InnerEvaluation, Self::Queue];

    fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue_time",
            Self::InnerEvaluation => "inner_eval",
        }
    }
}

/// Built once per node.
#[derive(Clone)]
pub struct Metrics {
    running: IntGauge,
    running_max: IntGauge,
    pub samples: IntCounter,
    durations: Durations,
}

/// Counts a query as there until it is dropped.
pub struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub fn new(slots: usize) -> Self {
        let gauge = |name: &str, help: &str| {
            let name = format!("prometheus_engine_{name}");
            IntGauge::new(name, help).expect("names are constants")
        };
        let samples = IntCounter::new(
            "prometheus_engine_query_samples_total",
            "The total number of samples loaded by all queries.",
        );
        let metrics = Self {
            running: gauge(
                "queries",
                "The current number of queries being executed or waiting.",
            ),
            running_max: gauge(
                "queries_concurrent_max",
                "The max number of concurrent queries.",
            ),
            samples: samples.expect("names are constants"),
            durations: Durations::new(),
        };
        metrics
            .running_max
            .set(i64::try_from(slots).unwrap_or(i64::MAX));
        metrics
    }

    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.running.clone()))?;
        registry.register(Box::new(self.running_max.clone()))?;
        registry.register(Box::new(self.samples.clone()))?;
        registry.register(Box::new(self.durations.clone()))
    }

    /// One query more, waiting or running.
    pub fn begin(&self) -> Counted {
        self.running.inc();
        Counted(self.running.clone())
    }

    pub fn observe(&self, slice: Slice, duration: Duration) {
        let mut seen = self
            .durations
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen[slice as usize].add(duration.as_secs_f64());
    }
}

/// A summary per slice.
#[derive(Clone)]
struct Durations {
    desc: Desc,
    seen: Arc<Mutex<[Seen; 2]>>,
}

#[derive(Default)]
struct Seen {
    count: u64,
    sum: f64,
    newest: VecDeque<f64>,
}

impl Seen {
    fn add(&mut self, seconds: f64) {
        self.count += 1;
        self.sum += seconds;
        if self.newest.len() == NEWEST {
            self.newest.pop_front();
        }
        self.newest.push_back(seconds);
    }

    /// NaN without any.
    fn quantile(sorted: &[f64], quantile: f64) -> f64 {
        let rank = (sorted.len() as f64 * quantile).ceil() as usize;
        let at = rank.saturating_sub(1);
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }
}

impl Durations {
    fn new() -> Self {
        let name = "prometheus_engine_query_duration_seconds".to_owned();
        let labels = vec!["slice".to_owned()];
        let desc = Desc::new(name, "Query timings".to_owned(), labels, Default::default());
        Self {
            desc: desc.expect("names are constants"),
            seen: Arc::default(),
        }
    }
}

impl Collector for Durations {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = Slice::ALL.map(|slice| {
            let of = &seen[slice as usize];
            let mut sorted: Vec<f64> = of.newest.iter().copied().collect();
            sorted.sort_by(f64::total_cmp);
            let mut summary = Summary::default();
            summary.set_sample_count(of.count);
            summary.set_sample_sum(of.sum);
            let quantiles = QUANTILES.map(|q| {
                let mut quantile = Quantile::default();
                quantile.set_quantile(q);
                quantile.set_value(Seen::quantile(&sorted, q));
                quantile
            });
            summary.set_quantile(quantiles.to_vec());
            let mut label = LabelPair::default();
            label.set_name("slice".to_owned());
            label.set_value(slice.as_str().to_owned());
            let mut metric = Metric::default();
            metric.set_label(vec![label]);
            metric.set_summary(summary);
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(metrics.to_vec());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn queries_are_counted_and_timed() {
        let metrics = Metrics::new(20);
        let registry = Registry::new();
        metrics.register(&registry).unwrap();
        let counted = metrics.begin();
        for seconds in 1..=10 {
            metrics.observe(Slice::Queue, Duration::from_secs(seconds));
        }
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "prometheus_engine_queries 1",
            "prometheus_engine_queries_concurrent_max 20",
            "prometheus_engine_query_duration_seconds{slice=\"queue_time\",quantile=\"0.5\"} 5",
            "prometheus_engine_query_duration_seconds{slice=\"queue_time\",quantile=\"0.99\"} 10",
            "prometheus_engine_query_duration_seconds_sum{slice=\"queue_time\"} 55",
            "prometheus_engine_query_duration_seconds_count{slice=\"inner_eval\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        drop(counted);
        assert_eq!(metrics.running.get(), 0);
    }
}
