//! The file of mapping rules, in the YAML of statsd_exporter and graphite_exporter.
//!
//! Keys that do not exist are refused. Keys that exist there and mean nothing here (the sliding
//! window of a summary, the layout of native histograms) are accepted.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use ingest::mapping::{Action, MappingError, MatchType, MetricType, Observer, Rules, Spec};
use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::config::Surroundings;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("reading it")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Yaml(#[from] serde_yaml_ng::Error),
    #[error("{0}")]
    Value(String),
    #[error(transparent)]
    Mapping(#[from] MappingError),
}

/// A checked file.
#[derive(Debug, Default, Clone)]
pub struct MappingFile {
    pub rules: Rules,
    /// Of what no rule names.
    pub observer: Option<Observer>,
    pub buckets: Vec<f64>,
    pub quantiles: Vec<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    defaults: Defaults,
    mappings: Vec<Mapping>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Defaults {
    timer_type: Option<String>,
    observer_type: Option<String>,
    match_type: Option<String>,
    glob_disable_ordering: bool,
    ttl: Option<Value>,
    buckets: Option<Vec<f64>>,
    quantiles: Option<Vec<Objective>>,
    histogram_options: Option<HistogramOptions>,
    summary_options: Option<SummaryOptions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mapping {
    r#match: String,
    name: String,
    help: Option<String>,
    labels: BTreeMap<String, Value>,
    match_type: Option<String>,
    match_metric_type: Option<String>,
    action: Option<String>,
    ttl: Option<Value>,
    timer_type: Option<String>,
    observer_type: Option<String>,
    buckets: Option<Vec<f64>>,
    quantiles: Option<Vec<Objective>>,
    histogram_options: Option<HistogramOptions>,
    summary_options: Option<SummaryOptions>,
    honor_labels: bool,
    scale: Option<f64>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HistogramOptions {
    buckets: Option<Vec<f64>>,
    #[serde(rename = "native_histogram_bucket_factor")]
    _factor: Option<f64>,
    #[serde(rename = "native_histogram_max_buckets")]
    _buckets_max: Option<u32>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SummaryOptions {
    quantiles: Option<Vec<Objective>>,
    #[serde(rename = "max_age")]
    _max_age: Option<Value>,
    #[serde(rename = "age_buckets")]
    _age_buckets: Option<u32>,
    #[serde(rename = "buf_cap")]
    _buf_cap: Option<u32>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Objective {
    quantile: f64,
    #[serde(rename = "error")]
    _error: f64,
}

/// Reads and checks a file.
pub fn load(path: &Path, surroundings: &dyn Surroundings) -> Result<MappingFile, FileError> {
    parse(&surroundings.read(path)?)
}

/// Checks a file's text.
pub fn parse(text: &str) -> Result<MappingFile, FileError> {
    let file: Option<File> = serde_yaml_ng::from_str(text)?;
    let File { defaults, mappings } = file.unwrap_or_default();
    refuse_ttl(defaults.ttl.as_ref())?;
    let observer = observer(&defaults.observer_type, &defaults.timer_type)?;
    let buckets = buckets(&defaults.buckets, &defaults.histogram_options);
    let quantiles = quantiles(&defaults.quantiles, &defaults.summary_options);
    let match_type = match_type(&defaults.match_type)?.unwrap_or_default();
    let specs = mappings.iter().map(|mapping| {
        let spec = spec(mapping, match_type)?;
        Ok(Spec {
            observer: spec.observer.or(observer),
            buckets: first_filled(spec.buckets, &buckets),
            quantiles: first_filled(spec.quantiles, &quantiles),
            ..spec
        })
    });
    let specs: Result<Vec<Spec>, FileError> = specs.collect();
    Ok(MappingFile {
        rules: Rules::new(specs?, defaults.glob_disable_ordering)?,
        observer,
        buckets,
        quantiles,
    })
}

fn first_filled(own: Vec<f64>, default: &[f64]) -> Vec<f64> {
    match own.is_empty() {
        true => default.to_vec(),
        false => own,
    }
}

fn spec(mapping: &Mapping, default: MatchType) -> Result<Spec, FileError> {
    refuse_ttl(mapping.ttl.as_ref())?;
    let labels: Result<_, FileError> = mapping
        .labels
        .iter()
        .map(|(name, value)| Ok((name.clone(), scalar(name, value)?)))
        .collect();
    Ok(Spec {
        pattern: mapping.r#match.clone(),
        match_type: match_type(&mapping.match_type)?.unwrap_or(default),
        metric_type: match mapping.match_metric_type.as_deref() {
            None | Some("") => None,
            Some("counter") => Some(MetricType::Counter),
            Some("gauge") => Some(MetricType::Gauge),
            Some("observer" | "timer") => Some(MetricType::Observer),
            Some(other) => return Err(unknown("match_metric_type", other)),
        },
        action: match mapping.action.as_deref() {
            None | Some("" | "map") => Action::Map,
            Some("drop") => Action::Drop,
            Some(other) => return Err(unknown("action", other)),
        },
        name: mapping.name.clone(),
        labels: labels?,
        help: mapping.help.clone(),
        observer: observer(&mapping.observer_type, &mapping.timer_type)?,
        buckets: buckets(&mapping.buckets, &mapping.histogram_options),
        quantiles: quantiles(&mapping.quantiles, &mapping.summary_options),
        scale: mapping.scale,
        honor_labels: mapping.honor_labels,
    })
}

fn match_type(text: &Option<String>) -> Result<Option<MatchType>, FileError> {
    match text.as_deref() {
        None | Some("") => Ok(None),
        Some("glob") => Ok(Some(MatchType::Glob)),
        Some("regex") => Ok(Some(MatchType::Regex)),
        Some(other) => Err(unknown("match_type", other)),
    }
}

fn observer(
    observer: &Option<String>,
    timer: &Option<String>,
) -> Result<Option<Observer>, FileError> {
    match observer.as_deref().or(timer.as_deref()) {
        None | Some("") => Ok(None),
        Some("histogram") => Ok(Some(Observer::Histogram)),
        Some("summary") => Ok(Some(Observer::Summary)),
        Some(other) => Err(unknown("observer_type", other)),
    }
}

/// The value that is written in the options wins over the older place.
fn buckets(old: &Option<Vec<f64>>, options: &Option<HistogramOptions>) -> Vec<f64> {
    let new = options
        .as_ref()
        .and_then(|options| options.buckets.as_ref());
    let mut buckets = new.or(old.as_ref()).cloned().unwrap_or_default();
    // Infinity is always there.
    buckets.retain(|bound| *bound != f64::INFINITY);
    buckets
}

fn quantiles(old: &Option<Vec<Objective>>, options: &Option<SummaryOptions>) -> Vec<f64> {
    let new = options
        .as_ref()
        .and_then(|options| options.quantiles.as_ref());
    let objectives = new.or(old.as_ref()).into_iter().flatten();
    objectives.map(|objective| objective.quantile).collect()
}

/// Series end by themselves when nothing comes for the lookback; an expiry of their own is not
/// there, and a file that asks for one is told.
fn refuse_ttl(ttl: Option<&Value>) -> Result<(), FileError> {
    match ttl {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(()),
        Some(Value::String(text))
            if model::time::parse_duration(text).is_ok_and(|d| d == Duration::ZERO) =>
        {
            Ok(())
        }
        Some(other) => {
            let text = serde_yaml_ng::to_string(other).unwrap_or_default();
            let text = text.trim_end();
            Err(FileError::Value(format!(
                "ttl {text} is not supported, only 0"
            )))
        }
    }
}

/// Numbers and truth values are texts where a text is wanted, as in Go's YAML.
fn scalar(name: &str, value: &Value) -> Result<String, FileError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Null => Ok(String::new()),
        _ => Err(FileError::Value(format!("label {name} is not a text"))),
    }
}

fn unknown(key: &str, value: &str) -> FileError {
    FileError::Value(format!("unknown {key} {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of graphite_exporter's documentation, and one with everything else.
    #[test]
    fn files_of_the_exporters_are_read() {
        let file = parse(
            r"
mappings:
- match: test.dispatcher.*.*.*
  name: dispatcher_events_total
  labels:
    action: $2
    job: test_dispatcher
    outcome: $3
    processor: $1
    code: 5
- match: 'servers\.(.*)\.transmissions\.([a-z0-9-]+)\.(.*)'
  match_type: regex
  name: 'servers_transmissions_${3}'
  labels:
    hostname: ${1}
    device: ${2}
",
        )
        .unwrap();
        let mapped = file
            .rules
            .find("test.dispatcher.Foo.send.ok", MetricType::Gauge)
            .unwrap();
        assert_eq!(mapped.name, "dispatcher_events_total");
        assert_eq!(mapped.labels[1], ("code".to_owned(), "5".to_owned()));
        let full = r"
defaults:
  observer_type: histogram
  buckets: [0.1, 1, .inf]
  match_type: glob
  glob_disable_ordering: false
  ttl: 0
mappings:
- match: a.*
  name: a
  help: h
  action: map
  match_metric_type: timer
  timer_type: summary
  quantiles: [{quantile: 0.9, error: 0.05}]
  summary_options: {max_age: 30s, age_buckets: 3, buf_cap: 1000}
  honor_labels: true
  scale: 0.001
  ttl: 0s
- match: b.*
  name: b
  action: drop
  histogram_options: {buckets: [5], native_histogram_bucket_factor: 1.1}
";
        let file = parse(full).unwrap();
        assert_eq!(file.buckets, [0.1, 1.0]);
        let a = file.rules.find("a.x", MetricType::Observer).unwrap().rule;
        assert_eq!(a.observer, Some(Observer::Summary));
        assert_eq!(
            (&a.quantiles[..], &a.buckets[..]),
            (&[0.9][..], &[0.1, 1.0][..])
        );
        let b = file.rules.find("b.x", MetricType::Gauge).unwrap().rule;
        assert_eq!((b.action, &b.buckets[..]), (Action::Drop, &[5.0][..]));
        assert!(parse("# nothing\n").unwrap().rules.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, expected) in [
            ("mappings: [{match: a.b, nam: x}]", "unknown field `nam`"),
            (
                "mappings: [{match: a.b, name: x, action: keep}]",
                "unknown action \"keep\"",
            ),
            (
                "mappings: [{match: a.b, name: x, ttl: 5m}]",
                "ttl 5m is not supported, only 0",
            ),
            ("mappings: [{match: a.b}]", "mapping of \"a.b\" has no name"),
            ("mappings: 5", "invalid type"),
            (
                "defaults: {match_type: fuzzy}",
                "unknown match_type \"fuzzy\"",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
