//! What the node counts and measures about itself, as text.
//!
//! Two pages: the API's listener shows everything; the push listener shows what a Pushgateway
//! would, the process and its build, since the pushed groups stand above it.

use std::sync::Arc;

use model::port::Clock;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Gauge, GaugeVec, Opts, Registry, TextEncoder};

use crate::process::Process;
use crate::status::NodeStatus;
use crate::web::state::Build;

/// The registry every part of the node is given, and the figures that belong to none of them.
pub struct Telemetry {
    registry: Registry,
    push_registry: Registry,
    reload_succeeded: Gauge,
    reload_seconds: Gauge,
}

impl Telemetry {
    pub fn new(build: &Build) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let push_registry = Registry::new();
        let reload_succeeded = Gauge::new(
            "prometheus_config_last_reload_successful",
            "Whether the last configuration reload attempt was successful.",
        )?;
        let reload_seconds = Gauge::new(
            "prometheus_config_last_reload_success_timestamp_seconds",
            "Timestamp of the last successful configuration reload.",
        )?;
        registry.register(Box::new(Process::new()?))?;
        registry.register(Box::new(reload_succeeded.clone()))?;
        registry.register(Box::new(reload_seconds.clone()))?;
        registry.register(Box::new(build_info("prometheus", build)?))?;
        push_registry.register(Box::new(Process::new()?))?;
        push_registry.register(Box::new(build_info("pushgateway", build)?))?;
        Ok(Self {
            registry,
            push_registry,
            reload_succeeded,
            reload_seconds,
        })
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Notes how loading the configuration went.
    pub fn reloaded(&self, succeeded: bool, clock: &dyn Clock) {
        self.reload_succeeded.set(f64::from(u8::from(succeeded)));
        if succeeded {
            self.reload_seconds.set(clock.now().seconds());
        }
    }

    pub fn text(&self) -> String {
        encode(&self.registry)
    }

    pub fn push_text(&self) -> String {
        encode(&self.push_registry)
    }
}

/// Figures that are looked up whenever they are gathered, so that nobody has to keep them.
pub struct Computed {
    desc: Desc,
    kind: MetricType,
    figures: Box<dyn Fn() -> Vec<(String, f64)> + Send + Sync>,
}

impl Computed {
    /// One figure, without labels.
    fn one(
        name: &str,
        help: &str,
        figure: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        let figures = move || {
            figure()
                .map(|value| (String::new(), value))
                .into_iter()
                .collect()
        };
        Self::new(name, help, None, MetricType::GAUGE, figures)
    }

    /// A figure for each value of `label`.
    fn new(
        name: &str,
        help: &str,
        label: Option<&str>,
        kind: MetricType,
        figures: impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static,
    ) -> Self {
        let labels = label.map(str::to_owned).into_iter().collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, Default::default());
        Self {
            desc: desc.expect("names are constants"),
            kind,
            figures: Box::new(figures),
        }
    }
}

impl Collector for Computed {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metrics: Vec<Metric> = (self.figures)()
            .into_iter()
            .map(|(value_of_label, value)| {
                let mut metric = Metric::default();
                for name in &self.desc.variable_labels {
                    let mut label = LabelPair::default();
                    label.set_name(name.clone());
                    label.set_value(value_of_label.clone());
                    metric.set_label(vec![label]);
                }
                match self.kind {
                    MetricType::COUNTER => {
                        let mut counter = proto::Counter::default();
                        counter.set_value(value);
                        metric.set_counter(counter);
                    }
                    _ => {
                        let mut gauge = proto::Gauge::default();
                        gauge.set_value(value);
                        metric.set_gauge(gauge);
                    }
                }
                metric
            })
            .collect();
        if metrics.is_empty() {
            return Vec::new();
        }
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.kind);
        family.set_metric(metrics);
        vec![family]
    }
}

/// The names that Prometheus' dashboards and alerts look for, of what there is here. Samples and
/// series are those of the replicas on this node, targets those it scrapes: sums over the nodes are
/// right for targets, and count each series once per replica.
pub fn computed(status: &Arc<NodeStatus>) -> Vec<Computed> {
    let stored = |name: &str, help: &str, figure: fn(&[tsdb::Stats]) -> Option<f64>| {
        let cluster = Arc::clone(&status.cluster);
        Computed::one(name, help, move || figure(&cluster.stored()))
    };
    let counted = |name: &str, help: &str, figure: fn(&[tsdb::Stats]) -> u64| {
        let cluster = Arc::clone(&status.cluster);
        Computed::new(name, help, None, MetricType::COUNTER, move || {
            vec![(String::new(), figure(&cluster.stored()) as f64)]
        })
    };
    let (ready, pools, targets) = (
        Arc::clone(&status.cluster),
        Arc::clone(&status.pools),
        Arc::clone(&status.pools),
    );
    vec![
        Computed::one(
            "prometheus_ready",
            "Whether Prometheus startup was fully completed and the server is ready for normal operation.",
            move || Some(f64::from(u8::from(ready.ready().is_ok()))),
        ),
        Computed::new(
            "prometheus_target_scrape_pools_total",
            "Total number of scrape pool creation attempts.",
            None,
            MetricType::COUNTER,
            move || vec![(String::new(), pools.names().len() as f64)],
        ),
        Computed::new(
            "prometheus_target_scrape_pool_targets",
            "Current number of targets in this scrape pool.",
            Some("scrape_job"),
            MetricType::GAUGE,
            move || targets.counts(),
        ),
        Computed::new(
            "prometheus_target_metadata_cache_entries",
            "Total number of metric metadata entries in the cache",
            Some("scrape_job"),
            MetricType::GAUGE,
            {
                let pools = Arc::clone(&status.pools);
                move || each(pools.metadata_sizes(), |(entries, _)| entries)
            },
        ),
        Computed::new(
            "prometheus_target_metadata_cache_bytes",
            "The number of bytes that are currently used for storing metric metadata in the cache",
            Some("scrape_job"),
            MetricType::GAUGE,
            {
                let pools = Arc::clone(&status.pools);
                move || each(pools.metadata_sizes(), |(_, bytes)| bytes)
            },
        ),
        stored(
            "prometheus_tsdb_head_series",
            "Total number of series in the head block.",
            |all| Some(all.iter().map(|s| s.series as f64).sum()),
        ),
        counted(
            "prometheus_tsdb_head_series_created_total",
            "Total number of series created in the head",
            |all| all.iter().map(|s| s.series_ever + s.series_returned).sum(),
        ),
        counted(
            "prometheus_tsdb_head_series_removed_total",
            "Total number of series removed in the head",
            |all| {
                let left = all
                    .iter()
                    .map(|s| s.series_ever + s.series_returned - s.series);
                left.sum()
            },
        ),
        stored(
            "prometheus_tsdb_head_min_time_seconds",
            "Minimum time bound of the head block.",
            |all| {
                let oldest = all.iter().filter_map(|s| Some(s.head_range?.0)).min();
                oldest.map(|at| at.seconds())
            },
        ),
        stored(
            "prometheus_tsdb_head_max_time_seconds",
            "Maximum timestamp of the head block.",
            |all| {
                let newest = all.iter().filter_map(|s| Some(s.head_range?.1)).max();
                newest.map(|at| at.seconds())
            },
        ),
        stored(
            "prometheus_tsdb_blocks_loaded",
            "Number of currently loaded data blocks",
            |all| Some(all.iter().map(|s| s.blocks as f64).sum()),
        ),
        stored(
            "prometheus_tsdb_storage_blocks_bytes",
            "The number of bytes that are currently used for local storage by all blocks.",
            |all| Some(all.iter().map(|s| s.block_bytes as f64).sum()),
        ),
    ]
}

fn each<T>(all: Vec<(String, T)>, figure: fn(T) -> usize) -> Vec<(String, f64)> {
    let figures = all.into_iter();
    figures
        .map(|(name, of)| (name, figure(of) as f64))
        .collect()
}

/// Our own figures that Prometheus has under another name: shown under both.
const ALIASES: [(&str, &str); 2] = [
    (
        "quorate_tsdb_samples_applied_total",
        "prometheus_tsdb_head_samples_appended_total",
    ),
    (
        "quorate_tsdb_corruptions_total",
        "prometheus_tsdb_wal_corruptions_total",
    ),
];

/// The families, and again those that have an alias.
fn with_aliases(mut families: Vec<MetricFamily>) -> Vec<MetricFamily> {
    for (own, alias) in ALIASES {
        let found = families.iter().find(|family| family.name() == own).cloned();
        if let Some(mut family) = found {
            family.set_name(alias.to_owned());
            families.push(family);
        }
    }
    families.sort_by(|a, b| a.name().cmp(b.name()));
    families
}

fn encode(registry: &Registry) -> String {
    let text = TextEncoder::new().encode_to_string(&with_aliases(registry.gather()));
    text.unwrap_or_else(|error| {
        tracing::error!(%error, "own telemetry could not be written");
        String::new()
    })
}

fn build_info(program: &str, build: &Build) -> prometheus::Result<GaugeVec> {
    let help = format!(
        "A metric with a constant '1' value labeled by version, revision, branch, goversion from \
         which {program} was built, and the goos and goarch for the build."
    );
    let labels = [
        ("branch", build.branch.as_str()),
        ("goarch", crate::flags::architecture()),
        ("goos", std::env::consts::OS),
        ("goversion", build.go_version.as_str()),
        ("revision", build.revision.as_str()),
        ("tags", "unknown"),
        ("version", build.version.as_str()),
    ];
    let info = GaugeVec::new(
        Opts::new(format!("{program}_build_info"), help),
        &labels.map(|(name, _)| name),
    )?;
    info.with_label_values(&labels.map(|(_, value)| value))
        .set(1.0);
    Ok(info)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::Timestamp;

    use super::*;

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp(1_500)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[test]
    fn pages_name_the_build_and_the_process() {
        let build = Build {
            version: "1.2.3".to_owned(),
            ..Build::default()
        };
        let telemetry = Telemetry::new(&build).unwrap();
        telemetry.reloaded(true, &Stopped);
        telemetry.reloaded(false, &Stopped);
        let text = telemetry.text();
        for line in [
            "prometheus_config_last_reload_successful 0\n",
            "prometheus_config_last_reload_success_timestamp_seconds 1.5\n",
            "# TYPE process_cpu_seconds_total counter\n",
            "# TYPE process_start_time_seconds gauge\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        let one = Computed::one("one", "One.", || Some(2.5));
        let each = || vec![("a".to_owned(), 1.0), ("b".to_owned(), 3.0)];
        let many = Computed::new("many", "Many.", Some("job"), MetricType::COUNTER, each);
        let none = Computed::one("none", "None.", || None);
        let applied = prometheus::IntCounter::new("quorate_tsdb_samples_applied_total", "h");
        let registry = telemetry.registry();
        for collector in [one, many, none] {
            registry.register(Box::new(collector)).unwrap();
        }
        registry.register(Box::new(applied.unwrap())).unwrap();
        let computed = telemetry.text();
        for line in [
            "one 2.5\n",
            "# TYPE many counter\nmany{job=\"a\"} 1\nmany{job=\"b\"} 3\n",
            "prometheus_tsdb_head_samples_appended_total 0\n",
        ] {
            assert!(computed.contains(line), "{line}{computed}");
        }
        assert!(!computed.contains("none"), "{computed}");
        let info = text
            .lines()
            .find(|l| l.starts_with("prometheus_build_info{"));
        assert!(info.is_some_and(|l| l.contains("version=\"1.2.3\"") && l.ends_with("} 1")));
        let push = telemetry.push_text();
        assert!(push.contains("pushgateway_build_info{"), "{push}");
        assert!(!push.contains("prometheus_config"), "{push}");
    }
}
