//! The command line, from arguments to one checked [`Flags`].
//!
//! Every flag of Prometheus 3.5 and of the Pushgateway is understood, so that existing units and
//! containers start; what is wrong is told with the flag, the value, what was expected and what
//! was probably meant. Nothing here opens, reads or listens.

mod check;
mod help;
mod lines;
mod prometheus;
mod pushgateway;
pub mod table;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::nearest::nearest;
use crate::web::write::Message;
pub use help::{BRANCH, REVISION, architecture};
use table::{Flag, Kind, State};
pub use value::Address;

/// The name the binary was called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Quorate,
    Prometheus,
    Pushgateway,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Run(Box<Flags>),
    /// Text for standard output; then exit with 0.
    Print(String),
    /// The binary was called `promtool`; its arguments.
    Promtool(Vec<String>),
}

/// A command line that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Error parsing command line arguments: {message}")]
pub struct UsageError {
    pub message: String,
    /// 1 for what cannot be taken apart, 2 for a value that is refused: as Prometheus exits.
    pub exit_code: u8,
}

/// Checked flags.
#[derive(Debug, Clone, PartialEq)]
pub struct Flags {
    pub program: Program,
    pub config_file: PathBuf,
    /// Whether `--config.file` was given: then a missing file is an error.
    pub config_file_given: bool,
    /// Empty when the program is a Pushgateway.
    pub web_listen_addresses: Vec<Address>,
    /// Empty when nothing listens for pushes.
    pub push_listen_addresses: Vec<Address>,
    /// For OTLP by gRPC; empty when nothing listens for it.
    pub otlp_listen_addresses: Vec<Address>,
    pub web: Web,
    pub storage: Storage,
    pub query: Query,
    pub cluster: Cluster,
    pub push: Push,
    pub lines: Lines,
    /// `--enable-feature`, split at commas.
    pub features: Vec<String>,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    /// Flags given that do nothing yet: one line each, for the log.
    pub warnings: Vec<String>,
    values: BTreeMap<&'static str, String>,
}

/// How both HTTP listeners behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Who may reach the listeners; `None`: everybody, in plain text.
    pub config_file: Option<PathBuf>,
    pub read_timeout: Duration,
    pub connections_max: usize,
    /// As given; empty when it was not.
    pub external_url: String,
    /// Begins with a slash and does not end with one: empty for none, `/a/b`.
    pub route_prefix: String,
    /// The path of the external URL, in the same form: what links begin with.
    pub external_path: String,
    /// Where the Pushgateway exposes metrics.
    pub telemetry_path: String,
    pub page_title: String,
    /// Compiles, to be anchored at both ends.
    pub cors_origin: String,
    pub enable_lifecycle: bool,
    pub enable_admin_api: bool,
    pub enable_remote_write_receiver: bool,
    pub enable_otlp_receiver: bool,
    /// In the order of the flag; at least one.
    pub remote_write_messages: Vec<Message>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    pub path: PathBuf,
    /// `None`: no limit by time, because only a size was given.
    pub retention_time: Option<Duration>,
    pub retention_size_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub lookback_delta: Duration,
    pub timeout: Duration,
    pub concurrency_max: usize,
    pub samples_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `None`: this node stays alone.
    pub listen_address: Option<Address>,
    /// Where other nodes reach this one; always names a host. `None` when it stays alone.
    pub advertise_address: Option<Address>,
    pub join: Vec<Address>,
    pub bootstrap_expect: u32,
    /// Zero: chosen when the cluster is formed.
    pub shards: u32,
    /// Zero: no limit.
    pub series_max: u64,
    /// 1, 3, 5 or 7; a cluster of fewer nodes starts with fewer copies.
    pub replication_factor: u32,
    pub zone: String,
    pub consul_address: Option<Address>,
    pub consul_service: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// `None`: the global scrape_interval.
    pub history_interval: Option<Duration>,
    pub enable_utf8_names: bool,
    pub disable_consistency_check: bool,
    pub enable_admin_api: bool,
    pub enable_lifecycle: bool,
}

/// Receivers of lines over TCP and UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// `None`: nothing listens.
    pub graphite_address: Option<Address>,
    pub graphite_pickle_address: Option<Address>,
    pub graphite_mapping: Option<PathBuf>,
    /// Whether only what the mapping names is stored.
    pub graphite_strict: bool,
    pub statsd_address: Option<Address>,
    pub statsd_mapping: Option<PathBuf>,
    pub statsd_interval: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Logfmt,
    Json,
}

/// Reads the arguments, the first of which is the name the binary was called by.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, UsageError> {
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let called = called.rsplit('/').next().unwrap_or_default();
    let program = match called {
        "promtool" => return Ok(Command::Promtool(arguments.collect())),
        "prometheus" => Program::Prometheus,
        "pushgateway" | "prometheus-pushgateway" => Program::Pushgateway,
        _ => Program::Quorate,
    };
    let given = match take_apart(program, arguments)? {
        Taken::Values(given) => given,
        Taken::Help => return Ok(Command::Print(help::help(program))),
        Taken::Version => return Ok(Command::Print(help::version(program))),
    };
    check::check(program, given).map(|flags| Command::Run(Box::new(flags)))
}

impl Flags {
    /// Every flag with its value, sorted by name, as `/api/v1/status/flags` shows them.
    pub fn listing(&self) -> Vec<(String, String)> {
        let values = self.values.iter();
        values
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect()
    }
}

/// What was given, by flag, in order.
type Given = BTreeMap<&'static str, Vec<String>>;

enum Taken {
    Values(Given),
    Help,
    Version,
}

fn take_apart(
    program: Program,
    mut arguments: impl Iterator<Item = String>,
) -> Result<Taken, UsageError> {
    let mut given = Given::new();
    while let Some(argument) = arguments.next() {
        let Some(long) = argument.strip_prefix("--") else {
            if matches!(argument.as_str(), "-h" | "-help") {
                return Ok(Taken::Help);
            }
            return Err(not_long(program, &argument));
        };
        let (name, inline) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        match name {
            "help" | "help-long" => return Ok(Taken::Help),
            "version" => return Ok(Taken::Version),
            _ => {}
        }
        let (flag, value) = match find(program, name)? {
            Found::Turned(flag, on) => (flag, truth_value(flag, on, inline)?),
            Found::Valued(flag) => {
                let value = inline.or_else(|| arguments.next());
                let value = value.ok_or_else(|| UsageError {
                    message: format!("expected argument for flag '--{name}'"),
                    exit_code: 1,
                })?;
                (flag, value)
            }
        };
        let values = given.entry(flag.name).or_default();
        if !values.is_empty() && !matches!(flag.kind, Kind::Addresses | Kind::List | Kind::Truth) {
            return Err(UsageError {
                message: format!("flag '{}' cannot be repeated", flag.name),
                exit_code: 2,
            });
        }
        values.push(value);
    }
    Ok(Taken::Values(given))
}

enum Found {
    Turned(&'static Flag, bool),
    Valued(&'static Flag),
}

fn find(program: Program, name: &str) -> Result<Found, UsageError> {
    let named = |name: &str| table::of(program).find(|flag| flag.name == name);
    if let Some(flag) = named(name) {
        return Ok(match flag.kind {
            Kind::Truth => Found::Turned(flag, true),
            _ => Found::Valued(flag),
        });
    }
    let off = name.strip_prefix("no-").and_then(named);
    if let Some(flag) = off.filter(|flag| flag.kind == Kind::Truth) {
        return Ok(Found::Turned(flag, false));
    }
    Err(UsageError {
        message: format!("unknown long flag '--{name}'{}", proposal(program, name)),
        exit_code: 1,
    })
}

fn proposal(program: Program, name: &str) -> String {
    let shown = table::of(program).filter(|flag| !matches!(flag.state, State::Hidden(_)));
    let meant = nearest(name, shown.map(|flag| flag.name));
    meant.map_or_else(
        || "; --help lists all flags".to_owned(),
        |meant| format!("; did you mean --{meant}?"),
    )
}

fn truth_value(flag: &Flag, on: bool, inline: Option<String>) -> Result<String, UsageError> {
    match inline {
        None => Ok(on.to_string()),
        Some(value) => Err(UsageError {
            message: format!(
                "unexpected {value}: --{name} takes no value; write --{name} or --no-{name}",
                name = flag.name
            ),
            exit_code: 1,
        }),
    }
}

/// Flags of Prometheus 1.x and what took their place, where the name changed.
const RENAMED: [(&str, &str); 4] = [
    ("storage.local.path", "storage.tsdb.path"),
    ("storage.local.retention", "storage.tsdb.retention.time"),
    ("query.staleness-delta", "query.lookback-delta"),
    ("web.max-connections", "web.max-connections"),
];

/// Prometheus 1.x wrote flags with one dash.
fn not_long(program: Program, argument: &str) -> UsageError {
    let error = |message: String| UsageError {
        message,
        exit_code: 1,
    };
    let Some(old) = argument.strip_prefix('-').filter(|old| !old.is_empty()) else {
        return error(format!("unexpected {argument}: only flags are understood"));
    };
    let (name, value) = match old.split_once('=') {
        Some((name, value)) => (name, format!("={value}")),
        None => (old, String::new()),
    };
    let start = old.chars().take(1).collect::<String>();
    let unknown = format!("unknown short flag '-{start}'");
    if name.starts_with("alertmanager.url") {
        return error(format!(
            "{unknown}: -{name} is the Prometheus 1.x form; name the Alertmanager under `alerting` in the configuration file"
        ));
    }
    let renamed = RENAMED.iter().find(|(old, _)| *old == name);
    let now = renamed.map_or(name, |(_, now)| now);
    if table::of(program).any(|flag| flag.name == now) {
        let value = if value.is_empty() { "=…" } else { &value };
        return error(format!(
            "{unknown}: -{name} is the Prometheus 1.x form; write --{now}{value}"
        ));
    }
    if name.contains('.') {
        return error(format!(
            "{unknown}: -{name} is a Prometheus 1.x flag that is gone; remove it"
        ));
    }
    error(format!("{unknown}{}", proposal(program, name)))
}

#[cfg(test)]
mod tests;
