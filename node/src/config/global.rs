//! The `global` section: defaults for every job, and the labels put on what leaves the cluster.

use std::path::PathBuf;
use std::time::Duration;

use super::expand::expand;
use super::fields::Fields;
use super::problem::Problems;
use super::yaml::Node;

/// `global`, with Prometheus' defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    pub scrape_interval: Duration,
    pub scrape_timeout: Duration,
    pub evaluation_interval: Duration,
    pub rule_query_offset: Duration,
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// Whether the file names them.
    pub scrape_protocols_given: bool,
    pub query_log_file: Option<PathBuf>,
    pub scrape_failure_log_file: Option<PathBuf>,
    /// Sorted by name, `$VARIABLE`s already put in.
    pub external_labels: Vec<(String, String)>,
    pub limits: Limits,
    pub naming: Naming,
    pub histograms: Histograms,
}

/// How much one scrape may bring; 0 means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub body_size_bytes: u64,
    pub samples: u64,
    pub targets: u64,
    pub labels: u64,
    pub label_name_bytes: u64,
    pub label_value_bytes: u64,
    pub keep_dropped_targets: u64,
}

/// Which metric names are valid, and how others are escaped; empty means the default (UTF-8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    pub validation_scheme: String,
    pub escaping_scheme: String,
}

/// What is done with histograms; `None` means Prometheus' default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histograms {
    pub scrape_native: Option<bool>,
    pub convert_classic_to_nhcb: Option<bool>,
    pub always_scrape_classic: Option<bool>,
}

/// An exposition format, as `scrape_protocols` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrapeProtocol {
    PrometheusProto,
    PrometheusText0_0_4,
    PrometheusText1_0_0,
    OpenMetricsText0_0_1,
    OpenMetricsText1_0_0,
}

use ScrapeProtocol as Protocol;

/// In the order of Prometheus' messages.
const PROTOCOLS: [(&str, Protocol); 5] = [
    ("OpenMetricsText0.0.1", Protocol::OpenMetricsText0_0_1),
    ("OpenMetricsText1.0.0", Protocol::OpenMetricsText1_0_0),
    ("PrometheusProto", Protocol::PrometheusProto),
    ("PrometheusText0.0.4", Protocol::PrometheusText0_0_4),
    ("PrometheusText1.0.0", Protocol::PrometheusText1_0_0),
];

impl ScrapeProtocol {
    pub fn as_str(self) -> &'static str {
        let named = PROTOCOLS.iter().find(|(_, protocol)| *protocol == self);
        named.map_or("", |(name, _)| name)
    }

    /// The error is Prometheus' text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = PROTOCOLS.iter().find(|(name, _)| *name == text);
        known.map(|(_, protocol)| *protocol).ok_or_else(|| {
            let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
            let names = names.join(" ");
            format!("unknown scrape protocol {text}, supported: [{names}]")
        })
    }

    /// The same where native histograms are wanted, which no text has.
    pub fn protobuf_first() -> Vec<Self> {
        let mut protocols = Self::defaults();
        protocols.insert(0, Self::PrometheusProto);
        protocols
    }

    /// What is asked for when nobody says otherwise, best first.
    pub fn defaults() -> Vec<Self> {
        vec![
            Self::OpenMetricsText1_0_0,
            Self::OpenMetricsText0_0_1,
            Self::PrometheusText1_0_0,
            Self::PrometheusText0_0_4,
        ]
    }
}

impl Default for Global {
    fn default() -> Self {
        Self {
            scrape_interval: Duration::from_secs(60),
            scrape_timeout: Duration::from_secs(10),
            evaluation_interval: Duration::from_secs(60),
            rule_query_offset: Duration::ZERO,
            scrape_protocols: ScrapeProtocol::defaults(),
            scrape_protocols_given: false,
            query_log_file: None,
            scrape_failure_log_file: None,
            external_labels: Vec::new(),
            limits: Limits::default(),
            naming: Naming::default(),
            histograms: Histograms::default(),
        }
    }
}

/// Reads the section; `variable` gives environment variables.
pub fn read(
    node: &Node,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &Problems,
) -> Option<Global> {
    let fields = Fields::open(node, "config.plain", "global", problems)?;
    let default = Global::default();
    let nonzero = |name| fields.duration(name).filter(|d| !d.is_zero());
    let given_interval = nonzero("scrape_interval");
    let scrape_interval = given_interval.unwrap_or(default.scrape_interval);
    let given_timeout = nonzero("scrape_timeout");
    let refuse = |line, text| fields.whole(line, text, None);
    let protocols = read_protocols(&fields, " for global config", &refuse);
    let global = Global {
        scrape_interval,
        scrape_timeout: given_timeout.unwrap_or(default.scrape_timeout.min(scrape_interval)),
        evaluation_interval: nonzero("evaluation_interval").unwrap_or(default.evaluation_interval),
        rule_query_offset: fields.duration("rule_query_offset").unwrap_or_default(),
        scrape_protocols_given: protocols.is_some(),
        scrape_protocols: protocols.unwrap_or(default.scrape_protocols),
        query_log_file: fields.path("query_log_file"),
        scrape_failure_log_file: fields.path("scrape_failure_log_file"),
        external_labels: read_external_labels(&fields, variable),
        limits: Limits::read(&fields, Limits::default()),
        naming: Naming::read_global(&fields),
        histograms: Histograms::read(&fields, Histograms::default()),
    };
    fields.truth("extra_scrape_metrics");
    fields.refuse_unknown(|_, _| None);
    if fields.is_clean() && global.scrape_timeout > global.scrape_interval {
        let text = "global scrape timeout greater than scrape interval";
        fields.whole(fields.line_of("scrape_timeout"), text, None);
    }
    Some(global)
}

fn read_external_labels(
    fields: &Fields<'_, '_>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    let labels = read_labels(fields, "external_labels", "map[string]string");
    let expanded = labels
        .into_iter()
        .map(|(name, value)| (name, expand(&value, variable)));
    expanded.collect()
}

/// A set of labels, sorted by name. Only the empty name is invalid: names are UTF-8.
pub fn read_labels(
    fields: &Fields<'_, '_>,
    name: &'static str,
    go_type: &'static str,
) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    for (name, node) in fields.entries(name, go_type).unwrap_or_default() {
        if name.is_empty() {
            fields.value(node.line, "\"\" is not a valid label name", None);
        }
        if let Some(value) = fields.item(node) {
            labels.push((name.to_owned(), value));
        }
    }
    labels.sort();
    labels
}

/// `scrape_protocols`; `of_job` ends Prometheus' message, `refuse` reports it.
pub fn read_protocols(
    fields: &Fields<'_, '_>,
    of_job: &str,
    refuse: &dyn Fn(u32, String),
) -> Option<Vec<ScrapeProtocol>> {
    let texts = fields.texts("scrape_protocols", "[]config.ScrapeProtocol")?;
    let line = fields.line_of("scrape_protocols");
    if texts.is_empty() {
        let text = format!("scrape_protocols cannot be empty{of_job}");
        refuse(line, text);
    }
    let mut protocols = Vec::new();
    for text in &texts {
        match ScrapeProtocol::parse(text) {
            Err(error) => refuse(line, format!("scrape_protocols: {error}{of_job}")),
            Ok(protocol) if protocols.contains(&protocol) => {
                let all = texts.join(" ");
                let text = format!("duplicated protocol in scrape_protocols, got [{all}]{of_job}");
                refuse(line, text);
            }
            Ok(protocol) => protocols.push(protocol),
        }
    }
    Some(protocols)
}

impl Limits {
    /// A job's limits: its own where it has one, else the global ones.
    pub fn read(fields: &Fields<'_, '_>, inherited: Self) -> Self {
        let limit = |name, inherited| match fields.unsigned(name, "uint") {
            None | Some(0) => inherited,
            Some(limit) => limit,
        };
        let body = fields.size("body_size_limit").filter(|bytes| *bytes > 0);
        Self {
            body_size_bytes: body.unwrap_or(inherited.body_size_bytes),
            samples: limit("sample_limit", inherited.samples),
            targets: limit("target_limit", inherited.targets),
            labels: limit("label_limit", inherited.labels),
            label_name_bytes: limit("label_name_length_limit", inherited.label_name_bytes),
            label_value_bytes: limit("label_value_length_limit", inherited.label_value_bytes),
            keep_dropped_targets: limit("keep_dropped_targets", inherited.keep_dropped_targets),
        }
    }
}

impl Histograms {
    pub fn read(fields: &Fields<'_, '_>, inherited: Self) -> Self {
        let choose = |name, inherited: Option<bool>| fields.choice(name).or(inherited);
        Self {
            scrape_native: choose("scrape_native_histograms", inherited.scrape_native),
            convert_classic_to_nhcb: choose(
                "convert_classic_histograms_to_nhcb",
                inherited.convert_classic_to_nhcb,
            ),
            always_scrape_classic: choose(
                "always_scrape_classic_histograms",
                inherited.always_scrape_classic,
            ),
        }
    }
}

impl Naming {
    /// The global schemes. An unknown validation is told where a job inherits it.
    fn read_global(fields: &Fields<'_, '_>) -> Self {
        let naming = Self::own(fields);
        naming.check_escaping("global", fields);
        naming
    }

    /// A job's schemes.
    pub fn read(fields: &Fields<'_, '_>, global: &Self) -> Self {
        let own = Self::own(fields);
        let or = |own: String, inherited: String| match own.is_empty() {
            true => inherited,
            false => own,
        };
        let naming = Self {
            validation_scheme: or(own.validation_scheme, global.validation_scheme.clone()),
            escaping_scheme: or(own.escaping_scheme, global.escaping().to_owned()),
        };
        let validation = naming.validation_scheme.as_str();
        if !matches!(validation, "" | "legacy" | "utf8") {
            let line = fields.line_of("metric_name_validation_scheme");
            let text = format!(
                "unknown scrape config name validation method specified, must be either 'legacy' or 'utf8', got {validation}"
            );
            fields.late(line, text, None);
        }
        naming.check_escaping("scrape config", fields);
        if validation == "legacy" && naming.escaping_scheme == "allow-utf-8" {
            let line = fields.line_of("metric_name_escaping_scheme");
            let text = "utf8 metric names requested but validation scheme is not set to UTF8";
            fields.late(line, text, None);
        }
        naming
    }

    fn own(fields: &Fields<'_, '_>) -> Self {
        let text = |name| fields.text(name).unwrap_or_default();
        Self {
            validation_scheme: text("metric_name_validation_scheme"),
            escaping_scheme: text("metric_name_escaping_scheme"),
        }
    }

    fn check_escaping(&self, whose: &str, fields: &Fields<'_, '_>) {
        let scheme = self.escaping_scheme.as_str();
        if !["", "allow-utf-8", "underscores", "dots", "values"].contains(&scheme) {
            let line = fields.line_of("metric_name_escaping_scheme");
            let text = format!(
                "unknown {whose} name escaping method specified, must be one of 'allow-utf-8', 'underscores', 'dots', or 'values', got {scheme}"
            );
            fields.late(line, text, None);
        }
    }

    /// The scheme that holds.
    pub fn validation(&self) -> &str {
        match self.validation_scheme.as_str() {
            "" => "utf8",
            scheme => scheme,
        }
    }

    /// The escaping that holds: what is not UTF-8 by choice is underscored. A job inherits it even
    /// where it has its own validation, as in Prometheus 3.5.
    pub fn escaping(&self) -> &str {
        match (self.escaping_scheme.as_str(), self.validation()) {
            ("", "legacy") => "underscores",
            ("", _) => "allow-utf-8",
            (scheme, _) => scheme,
        }
    }
}
