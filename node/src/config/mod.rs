//! `prometheus.yml`, from text to one checked [`Config`] of real types.
//!
//! What stays true: a `Config` was accepted whole, or there is none ([`ConfigError`] names file,
//! line and field of everything that is wrong); every key Prometheus 3 knows is accepted, every
//! other one refused; what is accepted but not served yet is in [`Config::warnings`]; no secret is
//! ever printed.
//!
//! In reading order: [`yaml`] gives a tree with lines, [`fields`] takes it apart strictly and
//! fills [`problem`]; [`global`], [`scrape`], [`http_client`], [`relabel`], [`sections`] are the
//! parts; [`print`] shows the result as Prometheus would.

mod emit;
pub mod expand;
pub mod federation;
pub mod fields;
pub mod global;
pub mod http_client;
mod mistake;
pub mod otlp;
pub mod print;
pub mod problem;
pub mod relabel;
pub mod scrape;
pub mod secret;
pub mod sections;
pub mod size;
pub mod surroundings;
pub mod yaml;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::limits::CONFIG_BYTES_MAX;

pub use global::{Global, Histograms, Limits, Naming, ScrapeProtocol};
pub use http_client::{Auth, Header, HttpClient, Proxy, SecretSource, Tls};
pub use problem::ConfigError;
pub use scrape::{ScrapeConfig, StaticConfig};
pub use secret::Secret;
pub use surroundings::{Machine, Surroundings};

use fields::Fields;
use problem::Problems;
use sections::Section;
use yaml::Node;

use crate::tree::Child;

/// A whole, checked configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    pub global: Global,
    /// Jobs of the file itself, then those of `scrape_config_files`.
    pub scrape_configs: Vec<ScrapeConfig>,
    pub scrape_config_files: Vec<String>,
    pub storage: Storage,
    pub otlp: ingest::otlp::Settings,
    /// Clusters below this one that are streamed; those that are scraped are jobs.
    pub children: Vec<Child>,
    /// Kept as written; nothing serves them yet, but for `federation` and `otlp`.
    pub sections: Vec<Section>,
    /// How many of `scrape_configs` stand in the file itself.
    own_jobs: usize,
    gogc: Option<u64>,
    /// Named in `scrape_config_files`, but not there.
    missing_files: Vec<PathBuf>,
}

/// The `storage` section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Storage {
    pub out_of_order_time_window: Option<Duration>,
    pub retention: Retention,
    pub exemplars_max: Option<u64>,
}

/// `storage.tsdb.retention`; what is set here wins over the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    pub time: Option<Duration>,
    pub size_bytes: Option<u64>,
}

/// How late a sample may come whatever the configuration says, as long as it is the newest of its
/// series: Prometheus takes one that is up to half a block older than its newest
/// (docs/adr/0014-order-of-samples.md).
pub const IN_ORDER_TIME_WINDOW: Duration = Duration::from_secs(60 * 60);

/// Prometheus' own.
const EXEMPLARS_MAX_DEFAULT: u64 = 100_000;

/// Reads and checks the configuration in `file`.
pub fn load(file: &Path, surroundings: &dyn Surroundings) -> Result<Config, ConfigError> {
    let text = read_text(file, surroundings)?;
    let mut config = parse(&text, file, surroundings)?;
    let directory = file.parent().unwrap_or(Path::new(""));
    let mut taken: Vec<String> = config
        .scrape_configs
        .iter()
        .map(|job| job.job_name.clone())
        .collect();
    for pattern in &config.scrape_config_files {
        let pattern = http_client::joined(directory, Path::new(pattern));
        for file in surroundings::glob(&pattern, surroundings) {
            match load_jobs(&file, &config.global, &mut taken, surroundings) {
                Ok(jobs) => config.scrape_configs.extend(jobs),
                // A pattern that fits nothing is no error in Prometheus, a plain name included.
                Err(ConfigError::Missing { file }) => config.missing_files.push(file),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(config)
}

/// Reads the configuration where nobody named one: `None` when the default file is not there, and
/// the node runs with [`Config::default`].
pub fn load_default(
    file: &Path,
    surroundings: &dyn Surroundings,
) -> Result<Option<Config>, ConfigError> {
    match load(file, surroundings) {
        Err(ConfigError::Missing { .. }) => Ok(None),
        loaded => loaded.map(Some),
    }
}

/// Checks a text as if it stood in `file`, without the files of `scrape_config_files`.
pub fn parse(
    text: &str,
    file: &Path,
    surroundings: &dyn Surroundings,
) -> Result<Config, ConfigError> {
    let problems = Problems::default();
    let root = tree(text, file)?;
    let config = match &root {
        Some(root) => read_root(root, surroundings, &problems),
        None => None,
    };
    problems.into_result(file, text)?;
    let mut config = config.unwrap_or_default();
    let directory = file.parent().unwrap_or(Path::new(""));
    for job in &mut config.scrape_configs {
        job.resolve(directory);
    }
    federation::resolve(&mut config.children, directory);
    Ok(config)
}

impl Config {
    /// Puts protobuf first among the formats of every job that does not say otherwise.
    pub fn prefer_protobuf(&mut self) {
        if self.global.scrape_protocols_given {
            return;
        }
        self.global.scrape_protocols = ScrapeProtocol::protobuf_first();
        for job in &mut self.scrape_configs {
            if !job.scrape_protocols_given {
                job.scrape_protocols = ScrapeProtocol::protobuf_first();
            }
        }
    }

    /// How late a sample may come that is not the newest of its series. Zero: it must be the newest.
    pub fn out_of_order_time_window(&self) -> Duration {
        self.storage.out_of_order_time_window.unwrap_or_default()
    }

    /// How many exemplars the cluster keeps where the feature is on.
    pub fn exemplars_max(&self) -> u64 {
        self.storage.exemplars_max.unwrap_or(EXEMPLARS_MAX_DEFAULT)
    }

    /// What the configuration asks for that is not served yet: one line each, for the log.
    pub fn warnings(&self) -> Vec<String> {
        let served = ["federation", "otlp"];
        let sections = self.sections.iter();
        let mut warnings: Vec<String> = sections
            .filter(|section| !served.contains(&section.name))
            .map(|section| format!("{} is accepted but not served yet", section.name))
            .collect();
        let missing = self.missing_files.iter();
        warnings.extend(missing.map(|file| {
            let file = file.display();
            format!("{file}, named in scrape_config_files, is not there")
        }));
        warnings.extend(self.scrape_configs.iter().flat_map(ScrapeConfig::warnings));
        warnings
    }

    /// The configuration as Prometheus shows it: defaults filled in, secrets hidden.
    pub fn redacted_yaml(&self) -> String {
        print::print(self)
    }

    /// The `rule_files` patterns.
    pub fn rule_files(&self) -> Vec<&str> {
        let section = self.sections.iter().find(|s| s.name == "rule_files");
        match section.map(|s| &s.kept.0.value) {
            Some(yaml::Value::Sequence(items)) => items.iter().filter_map(Node::text).collect(),
            _ => Vec::new(),
        }
    }
}

pub(crate) fn read_text(
    file: &Path,
    surroundings: &dyn Surroundings,
) -> Result<String, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable {
        file: file.to_owned(),
        reason,
    };
    let text = surroundings
        .read(file)
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => ConfigError::Missing {
                file: file.to_owned(),
            },
            ErrorKind::PermissionDenied => unreadable("permission denied".to_owned()),
            _ => unreadable(error.to_string()),
        })?;
    if text.len() > CONFIG_BYTES_MAX {
        let reason = format!("larger than {}", size::format_size(CONFIG_BYTES_MAX as u64));
        return Err(unreadable(reason));
    }
    Ok(text)
}

pub(crate) fn tree(text: &str, file: &Path) -> Result<Option<Node>, ConfigError> {
    yaml::parse(text).map_err(|error| ConfigError::Syntax {
        file: file.to_owned(),
        line: error.line,
        reason: error.reason,
    })
}

fn read_root(root: &Node, surroundings: &dyn Surroundings, problems: &Problems) -> Option<Config> {
    let fields = Fields::open(root, "config.plain", "", problems)?;
    let variable = |name: &str| surroundings.variable(name);
    let global = fields
        .node("global")
        .and_then(|node| global::read(node, &variable, problems))
        .unwrap_or_default();
    let jobs = fields.items("scrape_configs", "[]*config.ScrapeConfig");
    let mut taken = Vec::new();
    let mut scrape_configs =
        scrape::read_jobs(jobs.unwrap_or_default(), &global, &mut taken, problems);
    let own_jobs = scrape_configs.len();
    let federated = federation::read(&fields, &global, &mut taken, problems);
    scrape_configs.extend(federated.jobs);
    let files = fields.texts("scrape_config_files", "[]string");
    let config = Config {
        own_jobs,
        scrape_configs,
        scrape_config_files: files.unwrap_or_default(),
        storage: read_storage(&fields),
        otlp: otlp::read(&fields, &global),
        children: federated.streamed,
        sections: sections::read_sections(&fields)
            .into_iter()
            .chain(federated.section)
            .collect(),
        gogc: read_gogc(&fields),
        missing_files: Vec::new(),
        global,
    };
    fields.finish_with(mistake::at_top);
    Some(config)
}

fn read_storage(fields: &Fields<'_, '_>) -> Storage {
    let mut storage = Storage::default();
    let Some(node) = fields.node("storage") else {
        return storage;
    };
    let Some(section) = Fields::open(node, "config.StorageConfig", "storage", fields.problems)
    else {
        return storage;
    };
    if let Some(node) = section.node("tsdb")
        && let Some(tsdb) = Fields::open(node, "config.plain", "storage.tsdb", fields.problems)
    {
        storage.out_of_order_time_window = tsdb.duration("out_of_order_time_window");
        storage.retention = read_retention(&tsdb);
        tsdb.float("stale_series_compaction_threshold");
        tsdb.finish();
    }
    if let Some(node) = section.node("exemplars")
        && let Some(exemplars) = Fields::open(
            node,
            "config.ExemplarsConfig",
            "storage.exemplars",
            fields.problems,
        )
    {
        storage.exemplars_max = exemplars.unsigned("max_exemplars", "int64");
        exemplars.finish();
    }
    section.finish();
    storage
}

fn read_retention(tsdb: &Fields<'_, '_>) -> Retention {
    let Some(node) = tsdb.node("retention") else {
        return Retention::default();
    };
    let place = "storage.tsdb.retention";
    let Some(fields) = Fields::open(node, "config.plain", place, tsdb.problems) else {
        return Retention::default();
    };
    let retention = Retention {
        time: fields.duration("time").filter(|time| !time.is_zero()),
        size_bytes: fields.size("size").filter(|size| *size > 0),
    };
    fields.float("percentage");
    fields.finish();
    retention
}

/// Go's garbage collector setting: accepted and shown, without meaning here.
fn read_gogc(fields: &Fields<'_, '_>) -> Option<u64> {
    let node = fields.node("runtime")?;
    let runtime = Fields::open(node, "config.RuntimeConfig", "runtime", fields.problems)?;
    let gogc = runtime.unsigned("gogc", "int");
    runtime.finish();
    gogc
}

fn load_jobs(
    file: &Path,
    global: &Global,
    taken: &mut Vec<String>,
    surroundings: &dyn Surroundings,
) -> Result<Vec<ScrapeConfig>, ConfigError> {
    let text = read_text(file, surroundings)?;
    let problems = Problems::default();
    let mut jobs = Vec::new();
    if let Some(root) = tree(&text, file)?
        && let Some(fields) = Fields::open(&root, "config.ScrapeConfigs", "", &problems)
    {
        let items = fields.items("scrape_configs", "[]*config.ScrapeConfig");
        jobs = scrape::read_jobs(items.unwrap_or_default(), global, taken, &problems);
        fields.finish();
    }
    problems.into_result(file, &text)?;
    let directory = file.parent().unwrap_or(Path::new(""));
    for job in &mut jobs {
        job.resolve(directory);
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests;
