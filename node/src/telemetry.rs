//! What the node counts and measures about itself, as text.
//!
//! Two pages: the API's listener shows everything; the push listener shows what a Pushgateway
//! would, the process and its build, since the pushed groups stand above it.

use std::collections::HashMap;
use std::sync::Arc;

use cluster::Cluster;
use cluster::status::Role;
use model::port::Clock;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, Opts, Registry, TextEncoder};

use crate::process::Process;
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

fn encode(registry: &Registry) -> String {
    let text = TextEncoder::new().encode_to_string(&registry.gather());
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
        ("goarch", std::env::consts::ARCH),
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

/// The Raft groups of this node, read as they are gathered.
pub struct RaftGroups {
    cluster: Arc<Cluster>,
    /// Of the first family: the registry tells collectors apart by what they describe.
    desc: Desc,
}

impl RaftGroups {
    pub fn new(cluster: Arc<Cluster>) -> prometheus::Result<Self> {
        let (name, help, _) = FIGURES[0];
        let labels = vec!["group".to_owned()];
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())?;
        Ok(Self { cluster, desc })
    }
}

type Figure = (
    &'static str,
    &'static str,
    fn(&cluster::status::GroupStatus) -> f64,
);

const FIGURES: [Figure; 6] = [
    (
        "quorate_raft_has_leader",
        "Whether this node knows a leader of the group.",
        |group| f64::from(u8::from(group.leader.is_some())),
    ),
    (
        "quorate_raft_is_leader",
        "Whether this node leads the group.",
        |group| f64::from(u8::from(group.role == Role::Leader)),
    ),
    (
        "quorate_raft_term",
        "The group's term as this node knows it.",
        |group| group.term as f64,
    ),
    (
        "quorate_raft_last_log_index",
        "Index of the newest entry in this node's log of the group.",
        |group| group.last_log as f64,
    ),
    (
        "quorate_raft_applied_index",
        "Index of the newest entry this node applied.",
        |group| group.applied as f64,
    ),
    (
        "quorate_raft_apply_lag_entries",
        "Entries that are committed as far as this node knows, and not yet applied here.",
        |group| group.lag as f64,
    ),
];

impl Collector for RaftGroups {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = self.cluster.status();
        let shards = status.shards.iter().enumerate();
        let named = shards.map(|(at, group)| (format!("shard-{at}"), group));
        let all: Vec<_> = std::iter::once(("meta".to_owned(), &status.meta))
            .chain(named)
            .filter(|(_, group)| group.role != Role::Absent)
            .collect();
        let mut families = Vec::new();
        for (name, help, figure) in FIGURES {
            let gauges = GaugeVec::new(Opts::new(name, help), &["group"]);
            let gauges = gauges.expect("a constant name");
            for (group, status) in &all {
                gauges.with_label_values(&[group]).set(figure(status));
            }
            families.extend(gauges.collect());
        }
        let members = GaugeVec::new(
            Opts::new(
                "quorate_cluster_members",
                "Members of the cluster by whether the meta leader hears from them.",
            ),
            &["alive"],
        )
        .expect("a constant name");
        for alive in [true, false] {
            let count = status.state.members.values();
            let count = count.filter(|member| member.alive == alive).count();
            members
                .with_label_values(&[if alive { "yes" } else { "no" }])
                .set(count as f64);
        }
        families.extend(members.collect());
        families
    }
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
        let info = text
            .lines()
            .find(|l| l.starts_with("prometheus_build_info{"));
        assert!(info.is_some_and(|l| l.contains("version=\"1.2.3\"") && l.ends_with("} 1")));
        let push = telemetry.push_text();
        assert!(push.contains("pushgateway_build_info{"), "{push}");
        assert!(!push.contains("prometheus_config"), "{push}");
    }
}
