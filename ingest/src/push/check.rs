//! From what a body says to what a group may hold: group labels applied, structured families laid
//! out flat, duplicates and colliding names refused. Costs what the push is large, whatever else
//! is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::group::{Family, FamilyKind, FamilySample, GroupingKey, Rare};
use model::labels::LabelsBuilder;
use model::quote::quote_bytes;
use model::{Histogram, Labels, hash, limits, number};

use super::PushError;

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
    pub labels: Vec<(String, String)>,
    pub value: Value,
}

pub(super) enum Value {
    Single(f64),
    Compound {
        /// Bucket bounds or quantiles with their values, in the body's order.
        bounds: Vec<(f64, f64)>,
        sum: f64,
        count: f64,
        native: Option<Arc<Histogram>>,
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
                    native: None,
                },
            ));
            self.metrics.len() - 1
        });
        match &mut self.metrics[at].value {
            Value::Compound {
                bounds, sum, count, ..
            } => (bounds, sum, count),
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
    let mut problems = Problems::default();
    let mut finished = Vec::with_capacity(by_name.len());
    for building in by_name.values() {
        let mut doubts = Problems::default();
        let taken = collision(&building.name, |name| {
            by_name.get(name).map(|f| f.kind.unwrap_or_default())
        });
        taken.into_iter().for_each(|problem| doubts.add(|| problem));
        finished.push(lay_out(building, key, &mut problems, &mut doubts));
        if !unchecked {
            problems.append(doubts);
        }
    }
    match problems.joined() {
        None => Ok(finished),
        Some(text) => Err(PushError::Inconsistent(text)),
    }
}

/// What is wrong: all of it is counted, so much of it is told.
#[derive(Default)]
pub(super) struct Problems {
    count: usize,
    texts: Vec<String>,
}

impl Problems {
    pub fn add(&mut self, problem: impl FnOnce() -> String) {
        self.count += 1;
        if self.texts.len() < limits::WRITE_PROBLEMS_MAX {
            self.texts.push(problem());
        }
    }

    pub fn append(&mut self, other: Self) {
        let untold = other.count - other.texts.len();
        other.texts.into_iter().for_each(|text| self.add(|| text));
        self.count += untold;
    }

    /// As client_golang shows several errors.
    pub fn joined(&self) -> Option<String> {
        match (&self.texts[..], self.count) {
            ([], _) => None,
            ([one], 1) => Some(one.clone()),
            (many, count) => Some(format!(
                "{count} error(s) occurred:\n* {}",
                many.join("\n* ")
            )),
        }
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
                quote_bytes(name),
                kind.as_str(),
                quote_bytes(stem)
            ));
        }
    }
    None
}

/// What no group can hold is a problem; what the original would hold unchecked, a doubt.
fn lay_out(
    family: &Building,
    key: &GroupingKey,
    problems: &mut Problems,
    doubts: &mut Problems,
) -> Family {
    let kind = family.kind.unwrap_or_default();
    let mut seen: hash::Set<(&'static str, Labels, Vec<String>)> = hash::Set::default();
    let mut samples = Vec::new();
    for metric in &family.metrics {
        let (labels, empty_instance) = apply(key, &metric.labels);
        let empty = empty_labels(key, kind, &metric.labels, &labels);
        let describe = || {
            let mut pairs: BTreeMap<&str, &str> = labels.iter().collect();
            pairs.extend(empty.iter().map(|name| (name.as_str(), "")));
            describe(&family.name, kind, metric, pairs, key, empty_instance)
        };
        let names = labels.iter().map(|(name, _)| name);
        let mut names = names.chain(empty.iter().map(String::as_str));
        if let Some(name) = names.find(|name| name.starts_with("__")) {
            problems.add(|| format!("{} has a label with an invalid name: {name}", describe()));
            continue;
        }
        let start = samples.len();
        flatten(metric, kind, (&labels, &empty), &mut samples);
        let again = samples
            .iter()
            .skip(start)
            .any(|s| !seen.insert((s.suffix, s.labels.clone(), s.empty_labels().to_vec())));
        if again {
            doubts.add(|| {
                format!(
                    "{} was collected before with the same name and label values",
                    describe()
                )
            });
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

/// Labels of a metric that were pushed with an empty value and are no others': ascending. The
/// instance is shown anyway.
fn empty_labels(
    key: &GroupingKey,
    kind: FamilyKind,
    pushed: &[(String, String)],
    labels: &LabelsBuilder,
) -> Vec<String> {
    let taken = |name: &str| {
        let of_others = name == "instance" || Some(name) == bound_label(kind);
        of_others || labels.get(name).is_some() || key.iter().any(|(n, _)| n == name)
    };
    let empty = pushed.iter().filter(|(_, value)| value.is_empty());
    let names: BTreeSet<&String> = empty
        .map(|(name, _)| name)
        .filter(|name| !taken(name))
        .collect();
    names.into_iter().cloned().collect()
}

/// `labels` are those with a value, and the names of those without.
fn flatten(
    metric: &Metric,
    kind: FamilyKind,
    (labels, empty): (&LabelsBuilder, &[String]),
    samples: &mut Vec<FamilySample>,
) {
    let plain = labels.build();
    let mut put_rare = |suffix, labels, value, rare: Rare| {
        let empty = empty.to_vec();
        samples.push(FamilySample {
            suffix,
            labels,
            value,
            rare: Rare { empty, ..rare }.boxed(),
        });
    };
    let mut put = |suffix, labels, value| put_rare(suffix, labels, value, Rare::default());
    let (bounds, sum, count, native) = match &metric.value {
        Value::Single(value) => return put("", plain, *value),
        Value::Compound {
            bounds,
            sum,
            count,
            native,
        } => (bounds, *sum, *count, native),
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
        let implied = Rare {
            implied: true,
            ..Rare::default()
        };
        put_rare(suffix, with_bound(f64::INFINITY), count, implied);
    }
    put_rare("_sum", plain.clone(), sum, Rare::default());
    let native = native.clone();
    let counted = Rare {
        native,
        ..Rare::default()
    };
    put_rare("_count", plain, count, counted);
}

/// The metric as the original's messages show it: protobuf's text form.
fn describe<'a>(
    family: &str,
    kind: FamilyKind,
    metric: &Metric,
    mut pairs: BTreeMap<&'a str, &'a str>,
    key: &'a GroupingKey,
    empty_instance: bool,
) -> String {
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
        .map(|(n, v)| {
            format!(
                "label:{{name:{}  value:{}}}  ",
                quote_bytes(n),
                quote_bytes(v)
            )
        })
        .collect();
    let value = number::exposition(value);
    let value = match count.map(number::exposition) {
        None => format!("value:{value}"),
        Some(count) => format!("sample_count:{count}  sample_sum:{value}"),
    };
    format!(
        "collected metric {} {{ {labels}{}:{{{value}}}}}",
        quote_bytes(family),
        kind.as_str()
    )
}
