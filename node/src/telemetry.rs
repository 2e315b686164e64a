//! What the node counts and measures about itself, as text.
//!
//! Two pages: the API's listener shows everything; the push listener shows what a Pushgateway
//! would, the process and its build, since the pushed groups stand above it.

use model::port::Clock;
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
        let info = text
            .lines()
            .find(|l| l.starts_with("prometheus_build_info{"));
        assert!(info.is_some_and(|l| l.contains("version=\"1.2.3\"") && l.ends_with("} 1")));
        let push = telemetry.push_text();
        assert!(push.contains("pushgateway_build_info{"), "{push}");
        assert!(!push.contains("prometheus_config"), "{push}");
    }
}
