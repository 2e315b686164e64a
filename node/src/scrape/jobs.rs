//! The `scrape_configs` of a configuration as jobs that can be run.

use ingest::histogram::buckets::schema_for_factor;
use ingest::relabel::{RelabelConfig, Rule};
use ingest::scrape::{Histograms, Limits, Names, ScrapeJob, ScrapeProtocol};
use model::Labels;

use super::http::Client;
use crate::config::{Config, ScrapeConfig};

/// One job: how its targets are scraped, and what discovery gave.
#[derive(Debug, Clone)]
pub struct Job {
    pub scrape: ScrapeJob,
    pub client: Client,
    /// Labels of each target before relabelling.
    pub discovered: Vec<Labels>,
    /// More targets than this after relabelling and none is scraped; 0: no limit.
    pub targets_max: u64,
    /// How many dropped targets are remembered for the targets page; 0: no limit.
    pub dropped_max: u64,
}

/// What `--enable-feature` changes of every job.
#[derive(Debug, Default, Clone, Copy)]
pub struct Features {
    /// Whether jobs that say nothing of it store native histograms.
    pub native_histograms: bool,
    /// Whether type and unit become labels of the series.
    pub type_and_unit_labels: bool,
}

/// All jobs; an error names the job whose rules do not compile.
pub fn jobs(config: &Config, features: Features) -> Result<Vec<Job>, String> {
    let jobs = config.scrape_configs.iter();
    jobs.map(|config| job(config, features)).collect()
}

fn job(config: &ScrapeConfig, features: Features) -> Result<Job, String> {
    let rules = |rules: &[RelabelConfig]| -> Result<Vec<Rule>, String> {
        let compiled = rules.iter().cloned().map(Rule::new);
        let compiled: Result<Vec<_>, _> = compiled.collect();
        compiled.map_err(|e| format!("job {:?}: {e}", config.job_name))
    };
    let scrape = ScrapeJob {
        job_name: config.job_name.clone(),
        scheme: config.scheme.clone(),
        metrics_path: config.metrics_path.clone(),
        params: config.params.clone(),
        interval: config.scrape_interval,
        timeout: config.scrape_timeout,
        honor_labels: config.honor_labels,
        honor_timestamps: config.honor_timestamps,
        track_timestamps_staleness: config.track_timestamps_staleness,
        limits: limits(config),
        histograms: histograms(config, features.native_histograms),
        type_and_unit_labels: features.type_and_unit_labels,
        names: Names {
            legacy: config.naming.validation() == "legacy",
            escaping: config.naming.escaping().to_owned(),
        },
        relabel: rules(&config.relabel_configs)?,
        metric_relabel: rules(&config.metric_relabel_configs)?,
        protocols: protocols(config),
        fallback_protocol: config
            .fallback_scrape_protocol
            .and_then(|p| ScrapeProtocol::from_name(p.as_str())),
        headers: Vec::new(),
    };
    Ok(Job {
        scrape,
        client: Client::new(config),
        discovered: discovered(config),
        targets_max: config.limits.targets,
        dropped_max: config.limits.keep_dropped_targets,
    })
}

fn limits(config: &ScrapeConfig) -> Limits {
    let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    Limits {
        body_bytes: size(config.limits.body_size_bytes),
        samples: size(config.limits.samples),
        labels: size(config.limits.labels),
        label_name_bytes: size(config.limits.label_name_bytes),
        label_value_bytes: size(config.limits.label_value_bytes),
    }
}

fn histograms(config: &ScrapeConfig, native: bool) -> Histograms {
    let settings = &config.histograms;
    Histograms {
        native: settings.scrape_native.unwrap_or(native),
        keep_classic: settings.always_scrape_classic.unwrap_or(false),
        convert_classic: settings.convert_classic_to_nhcb.unwrap_or(false),
        buckets_max: config.native_histogram_bucket_limit,
        schema_max: schema_for_factor(config.native_histogram_min_bucket_factor),
    }
}

fn protocols(config: &ScrapeConfig) -> Vec<ScrapeProtocol> {
    let named = config.scrape_protocols.iter();
    let known = named.filter_map(|p| ScrapeProtocol::from_name(p.as_str()));
    known.collect()
}

fn discovered(config: &ScrapeConfig) -> Vec<Labels> {
    let groups = config.static_configs.iter();
    let labels = groups.flat_map(|group| {
        group.targets.iter().map(|address| {
            let shared = group.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            let mut labels = Labels::from_pairs(shared).to_builder();
            labels.set("__address__", address);
            labels.build()
        })
    });
    labels.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    struct Nothing;

    impl crate::config::Surroundings for Nothing {
        fn read(&self, _file: &Path) -> std::io::Result<String> {
            Ok(String::new())
        }
    }

    fn jobs_of(text: &str) -> Vec<Job> {
        let config = crate::config::parse(text, Path::new("prometheus.yml"), &Nothing).unwrap();
        jobs(&config, Features::default()).unwrap()
    }

    #[test]
    fn a_job_carries_its_settings_and_targets() {
        let jobs = jobs_of(
            "global: {scrape_interval: 15s}\n\
             scrape_configs:\n\
             - job_name: node\n\
             \x20 honor_labels: true\n\
             \x20 sample_limit: 10\n\
             \x20 target_limit: 3\n\
             \x20 scrape_protocols: [PrometheusProto, PrometheusText0.0.4]\n\
             \x20 static_configs:\n\
             \x20 - targets: ['a:1', 'b:2']\n\
             \x20   labels: {zone: x, __address__: hidden}\n\
             - job_name: proto\n\
             \x20 scrape_native_histograms: true\n\
             \x20 native_histogram_min_bucket_factor: 1.5\n\
             \x20 metric_name_escaping_scheme: dots\n",
        );
        let node = &jobs[0];
        assert!(node.scrape.honor_labels);
        assert_eq!(node.scrape.interval.as_secs(), 15);
        assert_eq!((node.scrape.limits.samples, node.targets_max), (10, 3));
        let named = [
            ScrapeProtocol::PrometheusProto,
            ScrapeProtocol::PrometheusText0_0_4,
        ];
        assert_eq!(node.scrape.protocols, named);
        assert_eq!(node.scrape.histograms, Histograms::default());
        let labels: Vec<_> = node.discovered.iter().map(ToString::to_string).collect();
        assert_eq!(
            labels,
            [
                r#"{__address__="a:1", zone="x"}"#,
                r#"{__address__="b:2", zone="x"}"#
            ]
        );
        let proto = &jobs[1].scrape;
        assert_eq!(proto.protocols, ScrapeProtocol::DEFAULT);
        assert_eq!(
            (proto.histograms.native, proto.histograms.schema_max),
            (true, 1)
        );
        assert_eq!(proto.names.escaping, "dots");
    }
}
