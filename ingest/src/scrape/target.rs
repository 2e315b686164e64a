//! A target: discovered labels, relabelled, become an address and a label set.
//!
//! Rules as in Prometheus 3: a job's settings are labels (`__scheme__`, `__param_…`) that
//! relabelling may rewrite, no default port is added, `instance` is the address unless set.

use std::collections::BTreeMap;
use std::time::Duration;

use model::histogram::SCHEMA_MAX;
use model::labels::LabelsBuilder;
use model::time::{format_duration, parse_duration};
use model::{Labels, hash, limits, number};

use super::ScrapeRequest;
use super::protocol::{ScrapeProtocol, accept_header};
use crate::relabel::{self, Rule};

/// Bounds of one scrape; zero means no bound of the job's own.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub body_bytes: usize,
    pub samples: usize,
    pub labels: usize,
    pub label_name_bytes: usize,
    pub label_value_bytes: usize,
}

/// What becomes of a job's histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histograms {
    /// Whether native histograms are stored; if not they are left out.
    pub native: bool,
    /// Whether the classic series of what is stored as a native histogram are stored too.
    pub keep_classic: bool,
    /// Whether classic histograms are stored as native ones with custom bounds. Without
    /// `native` the classic series stay; Prometheus 3.5 stores nothing then.
    pub convert_classic: bool,
    /// A native histogram of more buckets gets a lower resolution, and is refused when that does
    /// not help; 0: no bound.
    pub buckets_max: u64,
    /// The highest schema that is stored as it is.
    pub schema_max: i32,
}

impl Default for Histograms {
    fn default() -> Self {
        Self {
            native: false,
            keep_classic: false,
            convert_classic: false,
            buckets_max: 0,
            schema_max: SCHEMA_MAX,
        }
    }
}

/// Which names a job takes, and how it asks for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Whether only `[a-zA-Z_:][a-zA-Z0-9_:]*` is one.
    pub legacy: bool,
    /// As `metric_name_escaping_scheme` writes it.
    pub escaping: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            legacy: false,
            escaping: "allow-utf-8".to_owned(),
        }
    }
}

/// The settings of a job, as its targets need them.
#[derive(Debug, Clone)]
pub struct ScrapeJob {
    pub job_name: String,
    pub scheme: String,
    pub metrics_path: String,
    pub params: BTreeMap<String, Vec<String>>,
    pub interval: Duration,
    pub timeout: Duration,
    pub honor_labels: bool,
    pub honor_timestamps: bool,
    pub track_timestamps_staleness: bool,
    pub limits: Limits,
    pub histograms: Histograms,
    /// Whether type and unit become labels of the series.
    pub type_and_unit_labels: bool,
    pub names: Names,
    pub relabel: Vec<Rule>,
    pub metric_relabel: Vec<Rule>,
    pub protocols: Vec<ScrapeProtocol>,
    pub fallback_protocol: Option<ScrapeProtocol>,
    /// Sent with each request: authorization and the like.
    pub headers: Vec<(String, String)>,
}

impl ScrapeJob {
    /// A job with Prometheus' defaults.
    pub fn new(job_name: impl Into<String>) -> Self {
        Self {
            job_name: job_name.into(),
            scheme: "http".to_owned(),
            metrics_path: "/metrics".to_owned(),
            params: BTreeMap::new(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            limits: Limits::default(),
            histograms: Histograms::default(),
            type_and_unit_labels: false,
            names: Names::default(),
            relabel: Vec::new(),
            metric_relabel: Vec::new(),
            protocols: ScrapeProtocol::DEFAULT.to_vec(),
            fallback_protocol: None,
            headers: Vec::new(),
        }
    }
}

/// Why discovered labels make no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(String);

/// One thing to scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// What its series carry: no label that begins with `__`.
    pub labels: Labels,
    pub url: String,
    pub interval: Duration,
    pub timeout: Duration,
    pub honor_labels: bool,
    pub honor_timestamps: bool,
    pub track_timestamps_staleness: bool,
    pub limits: Limits,
    pub histograms: Histograms,
    pub type_and_unit_labels: bool,
    pub names: Names,
    pub metric_relabel: Vec<Rule>,
    pub protocols: Vec<ScrapeProtocol>,
    pub fallback_protocol: Option<ScrapeProtocol>,
    pub headers: Vec<(String, String)>,
}

const META_PREFIX: &str = "__meta_";
const PARAM_PREFIX: &str = "__param_";

/// What relabelling starts from: the discovered labels and, where they are silent, the job's
/// settings. The targets page shows these.
pub fn discovered_labels(discovered: &Labels, job: &ScrapeJob) -> Labels {
    let mut labels = discovered.to_builder();
    let settings = [
        ("job", job.job_name.clone()),
        ("__scrape_interval__", format_duration(job.interval)),
        ("__scrape_timeout__", format_duration(job.timeout)),
        ("__metrics_path__", job.metrics_path.clone()),
        ("__scheme__", job.scheme.clone()),
    ];
    let params = job.params.iter().filter_map(|(name, values)| {
        let first = values.first()?;
        Some((format!("{PARAM_PREFIX}{name}"), first.clone()))
    });
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    for (name, value) in settings.into_iter().chain(params) {
        if labels.get(&name).is_none() {
            labels.set(&name, &value);
        }
    }
    labels.build()
}

impl Target {
    /// Relabels; `None` when a rule drops the target.
    pub fn from_discovered(
        discovered: &Labels,
        job: &ScrapeJob,
    ) -> Result<Option<Self>, TargetError> {
        let mut labels = discovered_labels(discovered, job).to_builder();
        if !relabel::apply(&job.relabel, &mut labels) {
            return Ok(None);
        }
        let address = labels.get("__address__").unwrap_or_default().to_owned();
        if address.is_empty() {
            return Err(TargetError("no address".to_owned()));
        }
        if address.contains('/') {
            return Err(TargetError(format!("{address:?} is not a valid hostname")));
        }
        let interval = duration(&labels, "__scrape_interval__", "interval")?;
        let timeout = duration(&labels, "__scrape_timeout__", "timeout")?;
        if timeout > interval {
            return Err(TargetError(format!(
                "scrape timeout cannot be greater than scrape interval ({:?} > {:?})",
                format_duration(timeout),
                format_duration(interval)
            )));
        }
        labels.retain(|name, _| !name.starts_with(META_PREFIX));
        if labels.get("instance").is_none() {
            labels.set("instance", &address);
        }
        let url = url(&labels, &address, &job.params);
        labels.retain(|name, _| !name.starts_with("__"));
        Ok(Some(Self {
            labels: labels.build(),
            url,
            interval,
            timeout,
            honor_labels: job.honor_labels,
            honor_timestamps: job.honor_timestamps,
            track_timestamps_staleness: job.track_timestamps_staleness,
            limits: job.limits,
            histograms: job.histograms,
            type_and_unit_labels: job.type_and_unit_labels,
            names: job.names.clone(),
            metric_relabel: job.metric_relabel.clone(),
            protocols: job.protocols.clone(),
            fallback_protocol: job.fallback_protocol,
            headers: job.headers.clone(),
        }))
    }

    /// The target's identity: the same on every node for the same URL and labels (job among
    /// them), whatever else its job says.
    pub fn identity(&self) -> u64 {
        hash::xxh3(self.labels.hash(0), self.url.as_bytes())
    }

    /// When in each interval it is scraped: targets spread by their identity.
    pub fn offset(&self) -> Duration {
        let interval_ms = (self.interval.as_millis() as u64).max(1);
        Duration::from_millis(self.identity() % interval_ms)
    }

    /// The request of one scrape.
    pub fn request(&self) -> ScrapeRequest {
        let timeout = number::plain(self.timeout.as_secs_f64());
        let mut headers = vec![
            (
                "Accept".to_owned(),
                accept_header(&self.protocols, &self.names.escaping),
            ),
            ("X-Prometheus-Scrape-Timeout-Seconds".to_owned(), timeout),
        ];
        headers.extend(self.headers.iter().cloned());
        ScrapeRequest {
            url: self.url.clone(),
            headers,
            timeout: self.timeout,
            body_bytes_max: match self.limits.body_bytes {
                0 => limits::EXPOSITION_BYTES_MAX,
                bytes => bytes.min(limits::EXPOSITION_BYTES_MAX),
            },
        }
    }
}

fn duration(labels: &LabelsBuilder, label: &str, what: &str) -> Result<Duration, TargetError> {
    let text = labels.get(label).unwrap_or_default();
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err(TargetError(format!("scrape {what} cannot be 0"))),
        Ok(duration) => Ok(duration),
        Err(e) => Err(TargetError(format!("error parsing scrape {what}: {e}"))),
    }
}

/// `scheme://address/path?params`, escaped as Go's `net/url` does.
fn url(labels: &LabelsBuilder, address: &str, params: &BTreeMap<String, Vec<String>>) -> String {
    let mut params = params.clone();
    for (name, value) in labels.iter() {
        let Some(name) = name.strip_prefix(PARAM_PREFIX) else {
            continue;
        };
        let values = params.entry(name.to_owned()).or_default();
        match values.first_mut() {
            Some(first) => value.clone_into(first),
            None => values.push(value.to_owned()),
        }
    }
    let scheme = labels.get("__scheme__").unwrap_or_default();
    let path = labels.get("__metrics_path__").unwrap_or_default();
    let slash = if path.is_empty() || path.starts_with('/') {
        ""
    } else {
        "/"
    };
    let path = escape(path, b"-_.~$&+,/:;=@");
    let pairs: Vec<String> = params
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
        .map(|(name, value)| format!("{}={}", escape_query(name), escape_query(value)))
        .collect();
    let question_mark = if pairs.is_empty() { "" } else { "?" };
    let query = pairs.join("&");
    format!("{scheme}://{address}{slash}{path}{question_mark}{query}")
}

fn escape_query(text: &str) -> String {
    escape(text, b"-_.~ ").replace(' ', "+")
}

fn escape(text: &str, plain: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relabel::{Action, RelabelConfig};

    fn rule(config: RelabelConfig) -> Rule {
        Rule::new(config).unwrap()
    }

    fn target(pairs: &[(&str, &str)], job: &ScrapeJob) -> Result<Option<Target>, String> {
        let labels = Labels::from_pairs(pairs.iter().copied());
        Target::from_discovered(&labels, job).map_err(|e| e.to_string())
    }

    #[test]
    fn an_address_alone_is_a_target() {
        let target = target(
            &[("__address__", "shiny-server.com"), ("__meta_x", "1")],
            &ScrapeJob::new("app"),
        );
        let target = target.unwrap().unwrap();
        assert_eq!(target.url, "http://shiny-server.com/metrics");
        assert_eq!(
            target.labels,
            Labels::from_pairs([("instance", "shiny-server.com"), ("job", "app")])
        );
        assert_eq!(
            (target.interval.as_secs(), target.timeout.as_secs()),
            (60, 10)
        );
        let request = target.request();
        assert_eq!(request.headers[1].1, "10");
        assert!(target.offset() < target.interval);
    }

    #[test]
    fn paths_and_params_are_escaped_as_go_does() {
        let mut job = ScrapeJob::new("app");
        job.metrics_path = "myapp/a b?c".to_owned();
        job.params
            .insert("module".to_owned(), vec!["x y".to_owned(), "z&".to_owned()]);
        let found = [
            ("__address__", "h:9"),
            ("__param_target", "http://a/?b=c"),
            ("__param_module", "first"),
        ];
        let target = target(&found, &job).unwrap().unwrap();
        assert_eq!(
            target.url,
            "http://h:9/myapp/a%20b%3Fc?module=first&module=z%26&target=http%3A%2F%2Fa%2F%3Fb%3Dc"
        );
    }

    /// The blackbox exporter's configuration.
    #[test]
    fn relabelling_moves_the_address_into_a_parameter() {
        let move_label = |from: &str, to: &str| {
            rule(RelabelConfig {
                source_labels: vec![from.to_owned()],
                target_label: to.to_owned(),
                ..RelabelConfig::default()
            })
        };
        let mut job = ScrapeJob::new("blackbox");
        job.relabel = vec![
            move_label("__address__", "__param_target"),
            move_label("__param_target", "instance"),
            rule(RelabelConfig {
                target_label: "__address__".to_owned(),
                replacement: "127.0.0.1:9115".to_owned(),
                ..RelabelConfig::default()
            }),
        ];
        let target = target(&[("__address__", "https://example.org")], &job)
            .unwrap()
            .unwrap();
        assert_eq!(
            target.url,
            "http://127.0.0.1:9115/metrics?target=https%3A%2F%2Fexample.org"
        );
        assert_eq!(target.labels.get("instance"), Some("https://example.org"));
    }

    #[test]
    fn labels_override_the_job_and_rules_drop() {
        let mut job = ScrapeJob::new("app");
        let found = [
            ("__address__", "h"),
            ("job", "other"),
            ("__scheme__", "https"),
            ("__scrape_interval__", "10s"),
        ];
        let whole = target(&found, &job).unwrap().unwrap();
        assert_eq!(
            (whole.labels.get("job"), whole.url.as_str()),
            (Some("other"), "https://h/metrics")
        );
        job.relabel = vec![rule(RelabelConfig {
            source_labels: vec!["job".to_owned()],
            regex: "other".to_owned(),
            action: Action::Drop,
            ..RelabelConfig::default()
        })];
        assert!(target(&found, &job).unwrap().is_none());
    }

    #[test]
    fn what_is_no_target_is_told() {
        let job = ScrapeJob::new("app");
        for (pairs, text) in [
            (&[("a", "b")][..], "no address"),
            (&[("__address__", "h/x")], "\"h/x\" is not a valid hostname"),
            (
                &[("__address__", "h"), ("__scrape_interval__", "0")],
                "scrape interval cannot be 0",
            ),
            (
                &[("__address__", "h"), ("__scrape_timeout__", "x")],
                "error parsing scrape timeout: not a valid duration string: \"x\"",
            ),
            (
                &[("__address__", "h"), ("__scrape_interval__", "5s")],
                "scrape timeout cannot be greater than scrape interval (\"10s\" > \"5s\")",
            ),
        ] {
            assert_eq!(target(pairs, &job).map(|_| ()), Err(text.to_owned()));
        }
    }

    #[test]
    fn identity_is_fixed() {
        let one = target(&[("__address__", "h:1")], &ScrapeJob::new("a"))
            .unwrap()
            .unwrap();
        let mut job = ScrapeJob::new("a");
        job.honor_labels = true;
        assert_eq!(
            target(&[("__address__", "h:1")], &job)
                .unwrap()
                .unwrap()
                .identity(),
            one.identity()
        );
        let other = target(&[("__address__", "h:2")], &job).unwrap().unwrap();
        assert_ne!(other.identity(), one.identity());
        let by_hand = hash::xxh3(one.labels.hash(0), b"http://h:1/metrics");
        assert_eq!(one.identity(), by_hand);
    }
}
