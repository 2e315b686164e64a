//! `scrape_configs`: one job each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ingest::relabel::RelabelConfig;

use super::fields::Fields;
use super::global::{self, Global, Histograms, Limits, Naming, ScrapeProtocol};
use super::http_client::{Auth, HttpClient, joined};
use super::mistake;
use super::problem::{Help, Problems};
use super::relabel::read_rules;
use super::sections::Kept;
use super::yaml::Node;

/// A job, with what it inherits from `global` filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ScrapeConfig {
    /// Not empty; no other job has it.
    pub job_name: String,
    pub honor_labels: bool,
    pub honor_timestamps: bool,
    pub track_timestamps_staleness: bool,
    pub params: BTreeMap<String, Vec<String>>,
    /// Above zero.
    pub scrape_interval: Duration,
    /// At most the interval.
    pub scrape_timeout: Duration,
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// Whether the job itself names them.
    pub scrape_protocols_given: bool,
    pub fallback_scrape_protocol: Option<ScrapeProtocol>,
    pub enable_compression: bool,
    /// As written, empty included: a missing leading slash is added when the URL is built.
    pub metrics_path: String,
    pub scheme: String,
    pub limits: Limits,
    pub naming: Naming,
    pub histograms: Histograms,
    /// 0: no limit.
    pub native_histogram_bucket_limit: u64,
    pub native_histogram_min_bucket_factor: f64,
    pub scrape_failure_log_file: Option<PathBuf>,
    pub http: HttpClient,
    pub static_configs: Vec<StaticConfig>,
    pub relabel_configs: Vec<RelabelConfig>,
    pub metric_relabel_configs: Vec<RelabelConfig>,
    /// Discovery sections as written, by their key (`dns_sd_configs`); nobody serves them yet.
    pub discovery: Vec<(&'static str, Kept)>,
    /// Where the job begins in its file.
    pub line: u32,
}

/// Targets written down, with the labels they share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticConfig {
    /// `host:port` or `host`, never with a slash.
    pub targets: Vec<String>,
    /// Sorted by name.
    pub labels: Vec<(String, String)>,
}

/// Every discovery section Prometheus 3 knows.
pub const DISCOVERY: [&str; 30] = [
    "aws_sd_configs",
    "azure_sd_configs",
    "consul_sd_configs",
    "digitalocean_sd_configs",
    "dns_sd_configs",
    "docker_sd_configs",
    "dockerswarm_sd_configs",
    "ec2_sd_configs",
    "eureka_sd_configs",
    "file_sd_configs",
    "gce_sd_configs",
    "hetzner_sd_configs",
    "http_sd_configs",
    "ionos_sd_configs",
    "kubernetes_sd_configs",
    "kuma_sd_configs",
    "lightsail_sd_configs",
    "linode_sd_configs",
    "marathon_sd_configs",
    "nerve_sd_configs",
    "nomad_sd_configs",
    "openstack_sd_configs",
    "ovhcloud_sd_configs",
    "puppetdb_sd_configs",
    "scaleway_sd_configs",
    "serverset_sd_configs",
    "stackit_sd_configs",
    "triton_sd_configs",
    "uyuni_sd_configs",
    "vultr_sd_configs",
];

impl ScrapeConfig {
    /// Makes relative file names start at the configuration's directory.
    pub fn resolve(&mut self, directory: &Path) {
        self.http.resolve(directory);
        if let Some(file) = &mut self.scrape_failure_log_file {
            *file = joined(directory, file);
        }
    }

    /// What this job asks for that is not served yet, for the log.
    pub fn warnings(&self) -> Vec<String> {
        let job = &self.job_name;
        let mut warnings: Vec<String> = Vec::new();
        for (name, _) in &self.discovery {
            let name = name.trim_end_matches("_configs");
            warnings.push(format!("job {job:?}: not built in yet: {name}"));
        }
        if self.scheme != "http" && !self.scheme.is_empty() {
            let scheme = &self.scheme;
            warnings.push(format!("job {job:?}: not built in yet: scheme {scheme}"));
        }
        if matches!(self.http.auth, Auth::OAuth2(_)) {
            warnings.push(format!("job {job:?}: not built in yet: oauth2"));
        }
        if self.http.proxy.url.is_some() || self.http.proxy.from_environment {
            warnings.push(format!("job {job:?}: not built in yet: proxy_url"));
        }
        if self.scrape_failure_log_file.is_some() {
            warnings.push(format!(
                "job {job:?}: not built in yet: scrape_failure_log_file"
            ));
        }
        let targets = self.static_configs.iter().flat_map(|group| &group.targets);
        if targets.into_iter().any(String::is_empty) {
            warnings.push(format!("job {job:?}: a target of static_configs is empty"));
        }
        warnings
    }
}

/// Reads the jobs of a list, which may stand in several files: names in `taken` are not free.
pub fn read_jobs(
    items: &[Node],
    global: &Global,
    taken: &mut Vec<String>,
    problems: &Problems,
) -> Vec<ScrapeConfig> {
    let mut jobs = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let name = item.get("job_name").and_then(Node::text);
        let place = match name {
            Some(name) if !name.is_empty() => format!("job {name:?}"),
            _ => format!("scrape_configs[{i}]"),
        };
        let Some(fields) = Fields::open(item, "config.ScrapeConfig", place, problems) else {
            continue;
        };
        if item.is_null() {
            let help = Help::sentence("a job is empty; remove its `-` or give it a job_name");
            let text = "empty or null scrape config section";
            fields.late(item.line, text, Some(help));
            continue;
        }
        let job = read_job(&fields, global);
        if fields.is_clean() && taken.contains(&job.job_name) {
            let text = format!(
                "found multiple scrape configs with job name {:?}",
                job.job_name
            );
            let help = Help::sentence("every job needs its own job_name");
            fields.late(fields.line_of("job_name"), text, Some(help));
        }
        taken.push(job.job_name.clone());
        jobs.push(job);
    }
    jobs
}

fn read_job(fields: &Fields<'_, '_>, global: &Global) -> ScrapeConfig {
    let nonzero = |name| fields.duration(name).filter(|d| !d.is_zero());
    let job_name = fields.text("job_name").unwrap_or_default();
    let of_job = format!(" for scrape config with job name {job_name:?}");
    let interval = nonzero("scrape_interval");
    let scrape_interval = interval.unwrap_or(global.scrape_interval);
    let timeout = nonzero("scrape_timeout");
    let refuse = |line, text| fields.late(line, text, None);
    let protocols = global::read_protocols(fields, &of_job, &refuse);
    let job = ScrapeConfig {
        honor_labels: fields.truth("honor_labels").unwrap_or(false),
        honor_timestamps: fields.truth("honor_timestamps").unwrap_or(true),
        track_timestamps_staleness: fields.truth("track_timestamps_staleness").unwrap_or(false),
        params: read_params(fields),
        scrape_interval,
        scrape_timeout: timeout.unwrap_or(global.scrape_timeout.min(scrape_interval)),
        scrape_protocols_given: protocols.is_some(),
        scrape_protocols: protocols.unwrap_or_else(|| global.scrape_protocols.clone()),
        fallback_scrape_protocol: read_fallback(fields, &of_job),
        enable_compression: fields.truth("enable_compression").unwrap_or(true),
        metrics_path: fields
            .text("metrics_path")
            .unwrap_or_else(|| "/metrics".to_owned()),
        scheme: nonempty(fields, "scheme", "http"),
        limits: Limits::read(fields, global.limits),
        naming: Naming::read(fields, &global.naming),
        histograms: Histograms::read(fields, global.histograms),
        native_histogram_bucket_limit: fields
            .unsigned("native_histogram_bucket_limit", "uint")
            .unwrap_or(0),
        native_histogram_min_bucket_factor: fields
            .float("native_histogram_min_bucket_factor")
            .unwrap_or(0.0),
        scrape_failure_log_file: fields
            .path("scrape_failure_log_file")
            .or_else(|| global.scrape_failure_log_file.clone()),
        http: HttpClient::read(fields),
        static_configs: read_static(fields),
        relabel_configs: rules(fields, "relabel_configs", "target relabeling rule"),
        metric_relabel_configs: rules(fields, "metric_relabel_configs", "metric relabeling rule"),
        discovery: read_discovery(fields),
        line: fields.line,
        job_name,
    };
    fields.truth("extra_scrape_metrics");
    fields.refuse_unknown(mistake::in_job);
    if fields.is_clean() {
        check(&job, fields);
    }
    job
}

fn check(job: &ScrapeConfig, fields: &Fields<'_, '_>) {
    if job.job_name.is_empty() {
        let help = Help::sentence("every job needs a job_name");
        fields.whole(fields.line, "job_name is empty", Some(help));
    } else if job.scrape_timeout > job.scrape_interval {
        let text = format!(
            "scrape timeout greater than scrape interval for scrape config with job name {:?}",
            job.job_name
        );
        fields.late(fields.line_of("scrape_timeout"), text, None);
    }
}

fn nonempty(fields: &Fields<'_, '_>, name: &'static str, default: &str) -> String {
    let text = fields.text(name).filter(|text| !text.is_empty());
    text.unwrap_or_else(|| default.to_owned())
}

fn read_fallback(fields: &Fields<'_, '_>, of_job: &str) -> Option<ScrapeProtocol> {
    let text = fields.text_as("fallback_scrape_protocol", "config.ScrapeProtocol")?;
    if text.is_empty() {
        return None;
    }
    let parsed = ScrapeProtocol::parse(&text);
    parsed
        .map_err(|error| {
            let text = format!("invalid fallback_scrape_protocol{of_job}: {error}");
            fields.late(fields.line_of("fallback_scrape_protocol"), text, None);
        })
        .ok()
}

fn read_params(fields: &Fields<'_, '_>) -> BTreeMap<String, Vec<String>> {
    let entries = fields.entries("params", "url.Values").unwrap_or_default();
    let params = entries.into_iter().filter_map(|(name, node)| {
        let super::yaml::Value::Sequence(items) = &node.value else {
            let text = format!("cannot unmarshal {} into []string", node.described());
            let sentence = format!("the values of parameter `{name}` must be a list");
            let written = node.text().map(|v| format!("params: {{{name}: [{v}]}}"));
            let help = Help {
                sentence,
                write_instead: written.into_iter().collect(),
            };
            fields.shape(node.line, text, Some(help));
            return None;
        };
        let values = items.iter().filter_map(|item| fields.item(item)).collect();
        Some((name.to_owned(), values))
    });
    params.collect()
}

fn rules(fields: &Fields<'_, '_>, name: &'static str, what: &str) -> Vec<RelabelConfig> {
    let items = fields.items(name, "[]*relabel.Config").unwrap_or_default();
    let place = format!("{}, {name}", fields.place);
    let section = format!("{what} in scrape config");
    read_rules(items, &place, &section, fields.problems)
}

fn read_static(fields: &Fields<'_, '_>) -> Vec<StaticConfig> {
    let items = fields.items("static_configs", "[]*targetgroup.Group");
    let groups = items.unwrap_or_default().iter().enumerate();
    let read = groups.filter_map(|(i, item)| {
        let place = format!("{}, static_configs[{i}]", fields.place);
        let group = Fields::open(item, GROUP_TYPE, place, fields.problems)?;
        if item.is_null() {
            group.whole(item.line, "empty or null section in static_configs", None);
            return None;
        }
        let config = StaticConfig {
            targets: read_targets(&group),
            labels: global::read_labels(&group, "labels", "model.LabelSet"),
        };
        group.finish();
        Some(config)
    });
    read.collect()
}

/// Prometheus decodes the group into an anonymous Go struct, and says so.
const GROUP_TYPE: &str =
    r#"struct { Targets []string "yaml:\"targets\""; Labels model.LabelSet "yaml:\"labels\"" }"#;

fn read_targets(group: &Fields<'_, '_>) -> Vec<String> {
    let targets = group.texts("targets", "[]string").unwrap_or_default();
    for target in targets.iter().filter(|target| target.contains('/')) {
        let help = Help {
            sentence: format!(
                "{target:?}: a target is host:port; the scheme goes to `scheme`, the path to `metrics_path`"
            ),
            write_instead: Vec::new(),
        };
        let text = format!("{target:?} is not a valid hostname");
        group.value(group.line_of("targets"), text, Some(help));
    }
    targets
}

fn read_discovery(fields: &Fields<'_, '_>) -> Vec<(&'static str, Kept)> {
    let sections = fields.matching(&DISCOVERY).into_iter();
    let read = sections.filter_map(|(name, _)| {
        let package = name.trim_end_matches("_sd_configs");
        let items = fields.items(name, &format!("[]*{package}.SDConfig"))?;
        for item in items {
            if item.is_null() {
                let text = format!("empty or null section in {name}");
                fields.whole(item.line, text, None);
            } else if !matches!(item.value, super::yaml::Value::Mapping(_)) {
                fields.wrong_type(item, &format!("{package}.plain"));
            }
        }
        Some((name, Kept(fields.node(name)?.clone())))
    });
    read.collect()
}
