//! From what a body says to what a group may hold: group labels applied, structured families laid
//! out flat, duplicates and colliding names refused. Costs what the push is large, whatever else
//! is stored.

use std::collections::BTreeMap;

use model::group::{Family, FamilyKind, FamilySample, GroupingKey};
use model::labels::LabelsBuilder;
use model::{Labels, hash, number};

use super::{PushError, quoted};

/// Families the store keeps for each group itself; a pushed one of the name is replaced by them.
const OWN_FAMILIES: [&str; 3] = [
    "push_time_seconds",
    "push_failure_time_seconds",
    "push_expires_seconds",
];

/// A family while its body is read.
pub(super) struct Building {
    pub name: String,
    pub help: Option<String>,
    pub kind: Option<FamilyKind>,
    pub metrics: Vec<Metric>,
    /// Labels, sorted, to the metric of a histogram or summary.
    by_labels: hash::Map<Vec<(String, String)>, usize>,
}

/// One label set of a family, without `le` and `quantile`.
pub(super) struct Metric {
    labels: Vec<(String, String)>,
    value: Value,
}

pub(super) enum Value {
    Single(f64),
    Compound {
        /// Bucket bounds or quantiles with their values, in the body's order.
        bounds: Vec<(f64, f64)>,
        sum: f64,
        count: f64,
    },
}

impl Metric {
    pub fn new(labels: Vec<(String, String)>, value: Value) -> Self {
        Self { labels, value }
    }
}

impl Building {
    pub fn new(name: String) -> Self {
        Self {
            name,
            help: None,
            kind: None,
            metrics: Vec::new(),
            by_labels: hash::Map::default(),
        }
    }

    /// The label that is no label of the metric, but a place in it.
    pub fn bound_label(&self) -> Option<&'static str> {
        bound_label(self.kind.unwrap_or_default())
    }

    /// The bounds, sum and count of the histogram or summary with these labels.
    pub fn compound(
        &mut self,
        mut labels: Vec<(String, String)>,
    ) -> (&mut Vec<(f64, f64)>, &mut f64, &mut f64) {
        labels.sort_unstable();
        let at = *self.by_labels.entry(labels).or_insert_with_key(|labels| {
            self.metrics.push(Metric::new(
                labels.clone(),
                Value::Compound {
                    bounds: Vec::new(),
                    sum: 0.0,
                    count: 0.0,
                },
            ));
            self.metrics.len() - 1
        });
        match &mut self.metrics[at].value {
            Value::Compound { bounds, sum, count } => (bounds, sum, count),
            Value::Single(_) => unreachable!("a family's type is fixed before its samples"),
        }
    }
}

/// `le` for histograms, `quantile` for summaries.
pub(super) fn bound_label(kind: FamilyKind) -> Option<&'static str> {
    match kind {
        FamilyKind::Histogram => Some("le"),
        FamilyKind::Summary => Some("quantile"),
        FamilyKind::Counter | FamilyKind::Gauge | FamilyKind::Untyped => None,
    }
}

/// Checks and lays out what was read, sorted by family name. Unchecked, names of parts may be taken,
/// and a series said twice is kept twice.
pub(super) fn finish(
    families: Vec<Building>,
    key: &GroupingKey,
    unchecked: bool,
) -> Result<Vec<Family>, PushError> {
    let by_name: BTreeMap<String, Building> = families
        .into_iter()
        .filter(|f| !f.metrics.is_empty() && !OWN_FAMILIES.contains(&f.name.as_str()))
        .map(|f| (f.name.clone(), f))
        .collect();
    let mut problems = Vec::new();
    let mut finished = Vec::with_capacity(by_name.len());
    for building in by_name.values() {
        let mut doubts = Vec::new();
        doubts.extend(collision(&building.name, |name| {
            by_name.get(name).map(|f| f.kind.unwrap_or_default())
        }));
        finished.push(lay_out(building, key, &mut problems, &mut doubts));
        if !unchecked {
            problems.append(&mut doubts);
        }
    }
    match joined(&problems) {
        None => Ok(finished),
        Some(text) => Err(PushError::Inconsistent(text)),
    }
}

/// As client_golang shows several errors.
pub(super) fn joined(problems: &[String]) -> Option<String> {
    match problems {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!(
            "{} error(s) occurred:\n* {}",
            many.len(),
            many.join("\n* ")
        )),
    }
}

/// A name that a histogram or summary already takes by suffix. `kind_of` knows the families there
/// are.
pub(super) fn collision(
    name: &str,
    kind_of: impl Fn(&str) -> Option<FamilyKind>,
) -> Option<String> {
    for suffix in ["_count", "_sum", "_bucket"] {
        let Some(stem) = name.strip_suffix(suffix) else {
            continue;
        };
        let Some(kind) = kind_of(stem) else {
            continue;
        };
        let collides = match kind {
            FamilyKind::Histogram => true,
            FamilyKind::Summary => suffix != "_bucket",
            _ => false,
        };
        if collides {
            return Some(format!(
                "collected metric named {} collides with previously collected {} named {}",
                quoted(name),
                kind.as_str(),
                quoted(stem)
            ));
        }
    }
    None
}

/// What no group can hold is a problem; what the original would hold unchecked, a doubt.
fn lay_out(
    family: &Building,
    key: &GroupingKey,
    problems: &mut Vec<String>,
    doubts: &mut Vec<String>,
) -> Family {
    let kind = family.kind.unwrap_or_default();
    let mut seen: hash::Set<(&'static str, Labels)> = hash::Set::default();
    let mut samples = Vec::new();
    for metric in &family.metrics {
        let (labels, empty_instance) = apply(key, &metric.labels);
        let describe = || describe(&family.name, kind, metric, &labels, key, empty_instance);
        if let Some((name, _)) = labels.iter().find(|(name, _)| name.starts_with("__")) {
            problems.push(format!(
                "{} has a label with an invalid name: {name}",
                describe()
            ));
            continue;
        }
        let start = samples.len();
        flatten(metric, kind, &labels, &mut samples);
        let again = samples
            .iter()
            .skip(start)
            .any(|s| !seen.insert((s.suffix, s.labels.clone())));
        if again {
            doubts.push(format!(
                "{} was collected before with the same name and label values",
                describe()
            ));
        }
    }
    Family {
        name: family.name.clone(),
        help: family.help.clone(),
        kind,
        samples,
    }
}

/// The metric's labels under the group's, and whether a message has to add `instance=""`.
fn apply(key: &GroupingKey, labels: &[(String, String)]) -> (LabelsBuilder, bool) {
    let mut builder = LabelsBuilder::default();
    for (name, value) in labels {
        builder.set(name, value);
    }
    for (name, value) in key.iter() {
        builder.set(name, value);
    }
    let empty_instance = builder.get("instance").is_none();
    (builder, empty_instance)
}

fn flatten(
    metric: &Metric,
    kind: FamilyKind,
    labels: &LabelsBuilder,
    samples: &mut Vec<FamilySample>,
) {
    let plain = labels.build();
    let mut put = |suffix, labels, value| {
        samples.push(FamilySample {
            suffix,
            labels,
            value,
        });
    };
    let (bounds, sum, count) = match &metric.value {
        Value::Single(value) => return put("", plain, *value),
        Value::Compound { bounds, sum, count } => (bounds, *sum, *count),
    };
    let name = bound_label(kind).expect("compound metrics have bounds");
    let suffix = if kind == FamilyKind::Histogram {
        "_bucket"
    } else {
        ""
    };
    let with_bound = |bound: f64| {
        let mut labels = labels.clone();
        labels.set(name, &number::bound(bound));
        labels.build()
    };
    for &(bound, value) in bounds {
        put(suffix, with_bound(bound), value);
    }
    let last_missing = !bounds.iter().any(|&(bound, _)| bound == f64::INFINITY);
    if kind == FamilyKind::Histogram && last_missing {
        put(suffix, with_bound(f64::INFINITY), count);
    }
    put("_sum", plain.clone(), sum);
    put("_count", plain, count);
}

/// The metric as the original's messages show it: protobuf's text form.
fn describe(
    family: &str,
    kind: FamilyKind,
    metric: &Metric,
    labels: &LabelsBuilder,
    key: &GroupingKey,
    empty_instance: bool,
) -> String {
    let mut pairs: BTreeMap<&str, &str> = labels.iter().collect();
    pairs.extend(key.iter());
    if empty_instance {
        pairs.insert("instance", "");
    }
    let (value, count) = match &metric.value {
        Value::Single(value) => (*value, None),
        Value::Compound { sum, count, .. } => (*sum, Some(*count)),
    };
    described(family, kind, &pairs, value, count)
}

/// The same of labels and values: the value, or the sum where there is a count.
pub(super) fn described(
    family: &str,
    kind: FamilyKind,
    labels: &BTreeMap<&str, &str>,
    value: f64,
    count: Option<f64>,
) -> String {
    let labels: String = labels
        .iter()
        .map(|(n, v)| format!("label:{{name:{}  value:{}}}  ", quoted(n), quoted(v)))
        .collect();
    let value = number::exposition(value);
    let value = match count.map(number::exposition) {
        None => format!("value:{value}"),
        Some(count) => format!("sample_count:{count}  sample_sum:{value}"),
    };
    format!(
        "collected metric {} {{ {labels}{}:{{{value}}}}}",
        quoted(family),
        kind.as_str()
    )
}
