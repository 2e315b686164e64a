//! Pushgateway's groups: what one grouping key holds.
//!
//! A group is one linearizable object. Its sequential specification: `Put` replaces every family,
//! `Post` replaces the families it names, `Add` adds to them once per push id ([`sum`]), `Delete`
//! removes the group, `Expire` removes it if its time has come, `Reject` records that a push was
//! refused and changes nothing else.
//!
//! Each `Put`, `Post` and `Add` says anew how long the group lives: without a time to live it
//! lives until it is deleted.

pub mod sum;

use std::sync::Arc;

use crate::limits::{PUSH_ID_BYTES_MAX, PUSH_TTL_MS_MAX};
use crate::{Histogram, Labels, Timestamp, Value};

/// A group's identity: `job` and the other grouping labels of the push URL. Unlike a series, a
/// grouping key keeps labels with an empty value: they tell groups apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupingKey {
    /// Sorted by name, no name twice; always holds `job`.
    pairs: Vec<(String, String)>,
}

impl GroupingKey {
    /// Pairs in any order; `None` when `job` is missing or empty.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Option<Self> {
        let map: std::collections::BTreeMap<_, _> = pairs.into_iter().collect();
        map.get("job").filter(|job| !job.is_empty())?;
        Some(Self {
            pairs: map.into_iter().collect(),
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// The grouping labels as a label set (empty values fall away).
    pub fn labels(&self) -> Labels {
        Labels::from_pairs(self.iter())
    }

    /// A text that two keys share only when they are equal; what the group is hashed by.
    pub fn canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in self.iter() {
            for text in [name, value] {
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        bytes
    }
}

/// The type a `# TYPE` line gives a family.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FamilyKind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    #[default]
    Untyped,
}

impl FamilyKind {
    /// As the text format writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
        }
    }

    /// Whether its series have several names.
    pub fn has_parts(self) -> bool {
        matches!(self, Self::Histogram | Self::Summary)
    }
}

/// One sample of a family. `suffix` is `""`, `"_bucket"`, `"_sum"` or `"_count"`; `labels` hold
/// no `__name__`.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct FamilySample {
    pub suffix: &'static str,
    pub labels: Labels,
    pub value: f64,
    /// `None` where there is nothing to say.
    pub rare: Option<Box<Rare>>,
}

/// What few samples have: what a Pushgateway shows again, and the store of series does not know.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Rare {
    /// Names of labels that were pushed with an empty value: ascending, none of them in `labels`.
    pub empty: Vec<String>,
    /// Of the sample `_count`: the native histogram that it counts. It is valid.
    pub native: Option<Arc<Histogram>>,
    /// It was not pushed, but follows from what was: the `+Inf` bucket of a histogram without.
    pub implied: bool,
}

impl Rare {
    /// In a box, unless there is nothing to say.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

impl FamilySample {
    /// Names of labels that were pushed with an empty value.
    pub fn empty_labels(&self) -> &[String] {
        self.rare.as_ref().map_or(&[], |rare| &rare.empty)
    }

    /// The native histogram that this sample counts.
    pub fn native(&self) -> Option<&Arc<Histogram>> {
        self.rare.as_ref()?.native.as_ref()
    }

    /// Whether it was not pushed itself.
    pub fn is_implied(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.implied)
    }

    /// Whether a group can hold only one of them.
    pub fn is_same_series(&self, other: &Self) -> bool {
        self.suffix == other.suffix
            && self.labels == other.labels
            && self.empty_labels() == other.empty_labels()
    }
}

/// A metric family as pushed: samples in the order of exposition.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    pub help: Option<String>,
    pub kind: FamilyKind,
    pub samples: Vec<FamilySample>,
}

/// What a push asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum PushOp {
    Put(Vec<Family>),
    Post(Vec<Family>),
    /// Adds counters and classic histograms up and replaces other series, unless `id` was added to
    /// this group before.
    Add {
        families: Vec<Family>,
        id: PushId,
    },
    Delete,
    /// Deletes the group if the instant it expires at is not behind the instant of this push.
    Expire,
    Reject,
}

impl PushOp {
    /// What is pushed.
    pub fn families(&self) -> &[Family] {
        match self {
            Self::Put(families) | Self::Post(families) | Self::Add { families, .. } => families,
            Self::Delete | Self::Expire | Self::Reject => &[],
        }
    }
}

/// What names one additive push, so that a repetition is known as such: 1 to
/// [`PUSH_ID_BYTES_MAX`] bytes that the client chose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushId(std::sync::Arc<[u8]>);

impl PushId {
    /// `None` when empty or too long.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let fits = (1..=PUSH_ID_BYTES_MAX).contains(&bytes.len());
        fits.then(|| Self(bytes.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a push says beside its operation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PushOptions {
    /// The group lives this long from the instant of the push; 1 to [`PUSH_TTL_MS_MAX`]. Of no
    /// meaning to `Delete`, `Expire` and `Reject`.
    pub ttl_ms: Option<u64>,
    /// Whether other groups may be contradicted (`--push.disable-consistency-check`).
    pub unchecked: bool,
    /// Whether nobody looks at the groups of [`Pushed`](crate::sink::Pushed): they may be left out.
    pub brief: bool,
    /// Whether the history may lack series that are too many (`--cluster.max-series`); else such a
    /// push is refused.
    pub partial: bool,
}

impl PushOptions {
    /// Whether every value is within its bounds.
    pub fn is_valid(&self) -> bool {
        self.ttl_ms
            .is_none_or(|ttl| (1..=PUSH_TTL_MS_MAX).contains(&ttl))
    }
}

/// A group's whole state.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub key: GroupingKey,
    /// By name, no name twice.
    pub families: Vec<Family>,
    /// When the last push succeeded; `Timestamp(0)` if none ever did. Strictly monotone.
    pub push_time: Timestamp,
    /// When the last push was refused; `Timestamp(0)` if none ever was.
    pub push_failure_time: Timestamp,
    /// When the group is removed; never unless the last push gave it a time to live.
    pub expires: Option<Timestamp>,
}

impl Group {
    /// A group nothing was pushed to yet.
    pub fn new(key: GroupingKey) -> Self {
        Self {
            key,
            families: Vec::new(),
            push_time: Timestamp(0),
            push_failure_time: Timestamp(0),
            expires: None,
        }
    }

    /// The family of that name, if the group has it.
    pub fn family(&self, name: &str) -> Option<&Family> {
        let at = self
            .families
            .binary_search_by(|f| f.name.as_str().cmp(name));
        at.ok().map(|at| &self.families[at])
    }

    /// Every series the group stands for, as a Prometheus that scrapes a Pushgateway with
    /// `honor_labels` would store it, the push times included. A native histogram stands beside its
    /// count, sum and classic buckets. A bound stands before a label of the group of its name.
    pub fn series(&self) -> Vec<(Labels, Value)> {
        let group = self.key.labels();
        let named = |name: &str, labels: &Labels, bound: &str| {
            let mut builder = labels.to_builder();
            for (n, v) in group.iter().filter(|(n, _)| *n != bound) {
                builder.set(n, v);
            }
            builder.set(crate::labels::METRIC_NAME, name);
            builder.build()
        };
        let none = Labels::default();
        let times = [
            ("push_time_seconds", self.push_time),
            ("push_failure_time_seconds", self.push_failure_time),
        ];
        let mut series = Vec::new();
        for family in &self.families {
            for sample in &family.samples {
                let bound = match (family.kind, sample.suffix) {
                    (FamilyKind::Histogram, "_bucket") => "le",
                    (FamilyKind::Summary, "") => "quantile",
                    _ => "",
                };
                if let Some(native) = sample.native() {
                    let labels = named(&family.name, &sample.labels, "");
                    series.push((labels, Value::Histogram(native.clone())));
                }
                let name = format!("{}{}", family.name, sample.suffix);
                let labels = named(&name, &sample.labels, bound);
                series.push((labels, Value::Float(sample.value)));
            }
        }
        let expires = self.expires.map(|at| ("push_expires_seconds", at));
        for (name, at) in times.into_iter().chain(expires) {
            series.push((named(name, &none, ""), Value::Float(at.seconds())));
        }
        series
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pairs: &[(&str, &str)]) -> Option<GroupingKey> {
        GroupingKey::new(
            pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn a_key_needs_a_job_and_keeps_empty_values_apart() {
        assert_eq!(key(&[("instance", "a")]), None);
        assert_eq!(key(&[("job", "")]), None);
        let plain = key(&[("job", "a")]).unwrap();
        let empty = key(&[("job", "a"), ("zone", "")]).unwrap();
        assert_ne!(plain.canonical(), empty.canonical());
        assert_eq!(plain.labels(), empty.labels());
    }

    #[test]
    fn series_carry_group_labels_over_their_own() {
        let sample = FamilySample {
            suffix: "",
            labels: Labels::from_pairs([("job", "own"), ("path", "/")]),
            value: 3.0,
            rare: None,
        };
        let group = Group {
            key: key(&[("job", "a"), ("instance", "i")]).unwrap(),
            families: vec![Family {
                name: "x".into(),
                help: None,
                kind: FamilyKind::Gauge,
                samples: vec![sample],
            }],
            push_time: Timestamp(1_500),
            push_failure_time: Timestamp(0),
            expires: None,
        };
        let series = group.series();
        assert_eq!(series.len(), 3);
        assert_eq!(
            series[0].0.to_string(),
            r#"{__name__="x", instance="i", job="a", path="/"}"#
        );
        assert_eq!(series[1].1, Value::Float(1.5));
    }

    #[test]
    fn a_native_histogram_stands_beside_its_classic_series() {
        let sample = |suffix, labels, rare: Rare| FamilySample {
            suffix,
            labels,
            value: 2.0,
            rare: rare.boxed(),
        };
        let native = Arc::new(Histogram {
            count: 2.0,
            ..Histogram::default()
        });
        let counted = Rare {
            native: Some(native.clone()),
            ..Rare::default()
        };
        let bucket = Labels::from_pairs([("le", "+Inf")]);
        let group = Group {
            families: vec![Family {
                name: "h".into(),
                kind: FamilyKind::Histogram,
                samples: vec![
                    sample("_bucket", bucket, Rare::default()),
                    sample("_count", Labels::default(), counted),
                ],
                ..Family::default()
            }],
            // A label of the bound's name does not hide the bound.
            ..Group::new(key(&[("job", "a"), ("le", "x")]).unwrap())
        };
        let series = group.series();
        let shown: Vec<String> = series[..3].iter().map(|(l, _)| l.to_string()).collect();
        assert_eq!(
            shown,
            [
                r#"{__name__="h_bucket", job="a", le="+Inf"}"#,
                r#"{__name__="h", job="a", le="x"}"#,
                r#"{__name__="h_count", job="a", le="x"}"#,
            ]
        );
        assert_eq!(series[1].1, Value::Histogram(native));
    }
}
