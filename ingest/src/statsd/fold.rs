//! Events of an interval, added up into families that can be added to another node's.
//!
//! Counters and histograms add up exactly. A gauge is the last value; a change of a gauge is
//! applied to the value that was last known of it. Quantiles cannot be added: a summary becomes
//! its sum and count as counters, which can, and its quantiles as gauges of one node's interval.
//!
//! Bounds: so many series over the life of a fold, so many observations of one kept for quantiles.

use std::collections::BTreeMap;

use model::group::{Family, FamilyKind, FamilySample};
use model::hash::{Set, xxh3};
use model::limits::{STATSD_OBSERVATIONS_MAX, STATSD_SERIES_MAX};
use model::{Labels, LabelsBuilder, number};

use super::{Event, Kind};
use crate::mapping::{Action, Mapped, MetricType, Observer, Rules, Spec};
use crate::names;

/// client_golang's default buckets, which statsd_exporter uses.
const BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// How events become series.
#[derive(Debug, Default, Clone)]
pub struct Options {
    pub rules: Rules,
    /// Of observations that no rule says it of; histograms unless told otherwise.
    pub observer: Option<Observer>,
    /// Empty for the default.
    pub buckets: Vec<f64>,
    pub quantiles: Vec<f64>,
}

impl Options {
    fn shape(&self, kind: Kind, rule: Option<&Spec>) -> Shape {
        let observer = rule.and_then(|rule| rule.observer);
        match (kind, observer.or(self.observer)) {
            (Kind::Count(_), _) => Shape::Counter,
            (Kind::Gauge(_) | Kind::Change(_), _) => Shape::Gauge,
            (Kind::Observation { .. }, Some(Observer::Summary)) => Shape::Summary,
            (Kind::Observation { .. }, _) => Shape::Histogram,
        }
    }

    /// Of buckets, or the quantiles: the rule's, else the file's, else the usual ones.
    fn bounds(&self, shape: Shape, rule: Option<&Spec>) -> Vec<f64> {
        let (own, file, usual) = match shape {
            Shape::Counter | Shape::Gauge => return Vec::new(),
            Shape::Histogram => (rule.map(|rule| &rule.buckets), &self.buckets, &BUCKETS[..]),
            Shape::Summary => (
                rule.map(|rule| &rule.quantiles),
                &self.quantiles,
                &QUANTILES[..],
            ),
        };
        let mut given = own.into_iter().chain([file]);
        let given = given.find(|list| !list.is_empty());
        given.map_or(usual, Vec::as_slice).to_vec()
    }
}

/// Why an event is not in the fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A rule says so.
    Dropped,
    /// The name stands for another type of metric already.
    Conflict,
    /// There are as many series as one node takes.
    TooMany,
}

/// What came in since the last [`Fold::take`].
#[derive(Debug, Default)]
pub struct Fold {
    options: Options,
    /// By name.
    metrics: BTreeMap<String, Metric>,
    /// Types of names, for the life of the fold.
    kinds: BTreeMap<String, Shape>,
    /// Series seen, for the life of the fold.
    known: Set<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

#[derive(Debug)]
struct Metric {
    help: Option<String>,
    series: BTreeMap<Labels, State>,
}

#[derive(Debug)]
enum State {
    Counter(f64),
    /// The value set last, if one was, and changes since.
    Gauge(Option<f64>, f64),
    Histogram(Observations, Buckets),
    Summary(Observations, Kept),
}

#[derive(Debug, Default)]
struct Observations {
    sum: f64,
    count: f64,
}

/// Upper bounds and what was observed between them; the last stands above all bounds.
#[derive(Debug)]
struct Buckets {
    bounds: Vec<f64>,
    counts: Vec<f64>,
}

/// Observations for quantiles: all, or when there are too many every second, fourth, …
#[derive(Debug)]
struct Kept {
    quantiles: Vec<f64>,
    values: Vec<f64>,
    every: u64,
    seen: u64,
}

impl Fold {
    pub fn new(options: Options) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// Takes one event in.
    pub fn add(&mut self, event: &Event<'_>) -> Result<(), Refused> {
        let metric_type = match event.kind {
            Kind::Count(_) => MetricType::Counter,
            Kind::Gauge(_) | Kind::Change(_) => MetricType::Gauge,
            Kind::Observation { .. } => MetricType::Observer,
        };
        let mapped = self.options.rules.find(&event.name, metric_type);
        let rule = mapped.as_ref().map(|mapped| mapped.rule);
        if rule.is_some_and(|rule| rule.action == Action::Drop) {
            return Err(Refused::Dropped);
        }
        let name = mapped.as_ref().map_or(&*event.name, |m| &*m.name);
        let name = names::metric(name).into_owned();
        let shape = self.options.shape(event.kind, rule);
        let labels = free_of_bound(labels(event, mapped.as_ref()), shape);
        let bounds = self.options.bounds(shape, rule);
        let help = rule.and_then(|rule| rule.help.clone());
        let scale = rule.and_then(|rule| rule.scale).unwrap_or(1.0);
        self.admit(&name, &labels, shape)?;
        let metric = self.metrics.entry(name).or_insert_with(|| Metric {
            help,
            series: BTreeMap::new(),
        });
        let state = metric.series.entry(labels);
        let state = state.or_insert_with(|| State::new(shape, bounds));
        state.add(event.kind, scale);
        Ok(())
    }

    /// Whether there is room for a series and its name has this shape everywhere.
    fn admit(&mut self, name: &str, labels: &Labels, shape: Shape) -> Result<(), Refused> {
        let known = *self.kinds.get(name).unwrap_or(&shape);
        if known != shape {
            return Err(Refused::Conflict);
        }
        let series = xxh3(xxh3(0, name.as_bytes()), labels.as_canonical());
        if !self.known.contains(&series) {
            if self.known.len() >= STATSD_SERIES_MAX {
                return Err(Refused::TooMany);
            }
            self.known.insert(series);
            self.kinds.insert(name.to_owned(), shape);
        }
        Ok(())
    }

    /// What there is, as families to be added to a group; the fold begins anew. `gauge` tells the
    /// value a gauge has, for changes.
    pub fn take(&mut self, gauge: impl Fn(&str, &Labels) -> Option<f64>) -> Vec<Family> {
        let mut families = BTreeMap::new();
        for (name, metric) in std::mem::take(&mut self.metrics) {
            metric.put(&name, &gauge, &mut families);
        }
        families.into_values().collect()
    }
}

fn labels(event: &Event<'_>, mapped: Option<&Mapped<'_>>) -> Labels {
    let mut labels = LabelsBuilder::default();
    for (name, value) in &event.tags {
        labels.set(name, value);
    }
    if let Some(mapped) = mapped {
        for (name, value) in &mapped.labels {
            let stays = mapped.rule.honor_labels && labels.get(name).is_some();
            if !stays {
                labels.set(name, value);
            }
        }
    }
    labels.build()
}

/// A tag called as what tells buckets or quantiles apart is none of them: two series would become one.
/// It is renamed as a scrape renames a label that is taken.
fn free_of_bound(labels: Labels, shape: Shape) -> Labels {
    let bound = match shape {
        Shape::Histogram => "le",
        Shape::Summary => "quantile",
        Shape::Counter | Shape::Gauge => return labels,
    };
    let Some(value) = labels.get(bound) else {
        return labels;
    };
    let mut renamed = labels.to_builder();
    renamed
        .remove(bound)
        .set(&format!("exported_{bound}"), value);
    renamed.build()
}

impl State {
    fn new(shape: Shape, bounds: Vec<f64>) -> Self {
        match shape {
            Shape::Counter => Self::Counter(0.0),
            Shape::Gauge => Self::Gauge(None, 0.0),
            Shape::Histogram => Self::Histogram(
                Observations::default(),
                Buckets {
                    counts: vec![0.0; bounds.len() + 1],
                    bounds,
                },
            ),
            Shape::Summary => Self::Summary(
                Observations::default(),
                Kept {
                    quantiles: bounds,
                    values: Vec::new(),
                    every: 1,
                    seen: 0,
                },
            ),
        }
    }

    fn add(&mut self, kind: Kind, scale: f64) {
        match (self, kind) {
            (Self::Counter(sum), Kind::Count(count)) => *sum += count * scale,
            (Self::Gauge(set, change), Kind::Gauge(value)) => {
                (*set, *change) = (Some(value * scale), 0.0);
            }
            (Self::Gauge(_, change), Kind::Change(by)) => *change += by * scale,
            (Self::Histogram(all, buckets), Kind::Observation { value, times }) => {
                let value = value * scale;
                all.add(value, times);
                let at = buckets.bounds.partition_point(|bound| *bound < value);
                buckets.counts[at] += times;
            }
            (Self::Summary(all, kept), Kind::Observation { value, times }) => {
                all.add(value * scale, times);
                kept.add(value * scale);
            }
            // Shapes are checked before.
            _ => debug_assert!(false, "an event of another shape"),
        }
    }
}

impl Observations {
    fn add(&mut self, value: f64, times: f64) {
        self.sum += value * times;
        self.count += times;
    }
}

impl Kept {
    fn add(&mut self, value: f64) {
        if self.seen.is_multiple_of(self.every) {
            if self.values.len() >= STATSD_OBSERVATIONS_MAX {
                let mut index = 0;
                self.values.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.every *= 2;
            }
            self.values.push(value);
        }
        self.seen += 1;
    }

    /// The smallest value that is not below so large a part of all.
    fn quantile(sorted: &[f64], quantile: f64) -> f64 {
        let rank = (quantile * sorted.len() as f64).ceil() as usize;
        let at = rank.clamp(1, sorted.len().max(1)) - 1;
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }
}

impl Metric {
    fn put(
        self,
        name: &str,
        gauge: &impl Fn(&str, &Labels) -> Option<f64>,
        families: &mut BTreeMap<String, Family>,
    ) {
        let help = self.help;
        let mut add = |name: String, kind, suffix, labels: &Labels, value| {
            let family = families.entry(name.clone()).or_insert_with(|| Family {
                name,
                help: help.clone(),
                kind,
                samples: Vec::new(),
            });
            family.samples.push(FamilySample {
                suffix,
                labels: labels.clone(),
                value,
                rare: None,
            });
        };
        let name = name.to_owned();
        for (labels, state) in self.series {
            let with = |label, value| {
                let mut builder = labels.to_builder();
                builder.set(label, &number::bound(value));
                builder.build()
            };
            match state {
                State::Counter(sum) => add(name.clone(), FamilyKind::Counter, "", &labels, sum),
                State::Gauge(set, change) => {
                    let base = set.or_else(|| gauge(&name, &labels)).unwrap_or(0.0);
                    let value = base + change;
                    add(name.clone(), FamilyKind::Gauge, "", &labels, value);
                }
                State::Histogram(all, buckets) => {
                    let kind = FamilyKind::Histogram;
                    let mut below = 0.0;
                    let bounds = buckets.bounds.iter().chain([&f64::INFINITY]);
                    for (bound, count) in bounds.zip(&buckets.counts) {
                        below += count;
                        add(name.clone(), kind, "_bucket", &with("le", *bound), below);
                    }
                    add(name.clone(), kind, "_sum", &labels, all.sum);
                    add(name.clone(), kind, "_count", &labels, all.count);
                }
                State::Summary(all, mut kept) => {
                    kept.values.sort_by(f64::total_cmp);
                    for quantile in &kept.quantiles {
                        let value = Kept::quantile(&kept.values, *quantile);
                        let labels = with("quantile", *quantile);
                        add(name.clone(), FamilyKind::Gauge, "", &labels, value);
                    }
                    let kind = FamilyKind::Counter;
                    add(format!("{name}_sum"), kind, "", &labels, all.sum);
                    add(format!("{name}_count"), kind, "", &labels, all.count);
                }
            }
        }
    }
}
