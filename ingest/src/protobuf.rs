//! Prometheus' exposition as protobuf: families behind their lengths, as a scraper reads them.
//!
//! Format: `io.prometheus.client` (proto/proto/exposition.proto); rules as Prometheus 3.5: a
//! histogram with a native part is one, and its classic series are left out unless the job keeps
//! them; created timestamps are not read; the timestamp 0 is none. What a body of a few bytes can
//! make us hold is bounded: see [`Malformed::TooLarge`].

mod metric;

use std::borrow::Cow;
use std::collections::VecDeque;

use model::labels::METRIC_NAME;
use model::{Labels, Timestamp, limits};
use proto::wire::{Fields, WireError, split_delimited};

use crate::exposition::{Entry, ExemplarSeen, HistogramLine, MetricKind, NotUnique, SampleLine};
use metric::{Shown, What};

pub(crate) use metric::native_part;

/// A body that breaks the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("protobuf: {0}")]
    Wire(#[from] WireError),
    #[error("invalid metric name: {0}")]
    Name(String),
    #[error("unknown metric type for metric {name:?}: {kind}")]
    Type { name: String, kind: i64 },
    #[error("unit {unit:?} not a suffix of {what} {name:?}")]
    Unit {
        unit: String,
        what: &'static str,
        name: String,
    },
    /// A bound of the store, by its name.
    #[error("{what} of more than {bytes_max} bytes")]
    TooLarge {
        what: &'static str,
        bytes_max: usize,
    },
}

/// Cuts a body into entries.
#[derive(Debug)]
pub struct Parser<'a> {
    /// Families not begun.
    rest: &'a [u8],
    keep_classic: bool,
    family: Family<'a>,
    /// Of the family, what is not read yet.
    fields: Fields<'a>,
    /// Help, unit and type of a family that has just begun, last first.
    heading: Vec<Entry<'a>>,
    /// Labels of the metric at hand, and what it shows that was not given yet.
    pairs: Vec<(&'a str, &'a str)>,
    waiting: VecDeque<Shown>,
    /// What was given last.
    last: Shown,
    /// Bytes of labels given so far.
    label_bytes: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    unit: &'a str,
    kind: MetricKind,
    has_metrics: bool,
}

impl<'a> Parser<'a> {
    /// `keep_classic`: whether classic series beside a native histogram are wanted.
    pub fn new(body: &'a [u8], keep_classic: bool) -> Self {
        Self {
            rest: body,
            keep_classic,
            family: Family::default(),
            fields: Fields::new(&[]),
            heading: Vec::new(),
            pairs: Vec::new(),
            waiting: VecDeque::new(),
            last: Shown::default(),
            label_bytes: 0,
        }
    }

    /// The next entry; `None` at the end. After an error there is nothing more to ask.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'a>>, Malformed> {
        loop {
            if let Some(entry) = self.heading.pop() {
                return Ok(Some(entry));
            }
            if let Some(shown) = self.waiting.pop_front() {
                return self.give(shown).map(Some);
            }
            if !self.begin_metric()? && !self.begin_family()? {
                return Ok(None);
            }
        }
    }

    /// The labels of the entry read last, its name among them.
    pub fn labels(&self) -> Result<Labels, NotUnique> {
        let name = format!("{}{}", self.family.name, self.last.suffix);
        let mut pairs = vec![(METRIC_NAME, name.as_str())];
        pairs.extend(&self.pairs);
        pairs.extend(self.last.bound.iter().map(|(n, v)| (*n, v.as_str())));
        pairs.sort_unstable();
        match pairs.windows(2).find(|two| two[0].0 == two[1].0) {
            Some(two) => Err(NotUnique {
                name: two[0].0.to_owned(),
                series: self.series(),
            }),
            None => Ok(Labels::from_sorted(pairs)),
        }
    }

    /// Type and unit of the family at hand.
    pub fn kind_and_unit(&self) -> (MetricKind, &'a str) {
        (self.family.kind, self.family.unit)
    }

    /// Whether the metric read last gives the label an empty value.
    pub fn sets_empty(&self, name: &str) -> bool {
        self.pairs.contains(&(name, ""))
    }

    /// Exemplars of the entry read last.
    pub fn exemplars(&self) -> Vec<ExemplarSeen> {
        self.last.exemplars.clone()
    }

    /// Reads the family's next metric; false when there is none.
    fn begin_metric(&mut self) -> Result<bool, Malformed> {
        for field in &mut self.fields {
            let field = field?;
            if field.number != 4 {
                continue;
            }
            let message = field.bytes()?;
            check_size("metric", message.len(), limits::METRIC_BYTES_MAX)?;
            self.pairs.clear();
            metric::read_labels(message, &mut self.pairs)?;
            self.waiting = metric::read(message, self.family.kind, self.keep_classic)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Begins the next family that has metrics; false at the end of the body.
    fn begin_family(&mut self) -> Result<bool, Malformed> {
        while !self.rest.is_empty() {
            let (message, rest) = split_delimited(self.rest)?;
            self.rest = rest;
            let family = Family::read(message)?;
            if family.has_metrics {
                self.fields = Fields::new(message);
                self.heading = family.heading();
                self.family = family;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn give(&mut self, shown: Shown) -> Result<Entry<'a>, Malformed> {
        let labels = self.pairs.iter().map(|(n, v)| n.len() + v.len());
        self.label_bytes += self.family.name.len() + labels.sum::<usize>();
        let bytes_max = limits::EXPOSITION_LABEL_BYTES_MAX;
        check_size("labels of all series", self.label_bytes, bytes_max)?;
        self.last = shown;
        let series = self.series().into();
        let timestamp = self.last.timestamp.map(Timestamp);
        Ok(match std::mem::take(&mut self.last.what) {
            What::Float(value) => Entry::Sample(SampleLine {
                series,
                value,
                timestamp,
            }),
            What::Histogram(histogram) => Entry::Histogram(HistogramLine {
                series,
                histogram: *histogram,
                timestamp,
            }),
        })
    }

    /// The entry given last as a text that no other series has.
    fn series(&self) -> String {
        let mut text = format!("{}{}", self.family.name, self.last.suffix);
        let bound = self.last.bound.iter().map(|(n, v)| (*n, v.as_str()));
        let mut separator = '{';
        for (name, value) in self.pairs.iter().copied().chain(bound) {
            text.push(separator);
            text.push_str(&format!("{name:?}={value:?}"));
            separator = ',';
        }
        text.push_str(if separator == ',' { "}" } else { "" });
        text
    }
}

impl<'a> Family<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut family = Self::default();
        let mut kind = 0;
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => family.name = field.text()?,
                2 => family.help = field.text()?,
                3 => kind = field.int64()?,
                4 => family.has_metrics = true,
                5 => family.unit = field.text()?,
                _ => {}
            }
        }
        if !family.has_metrics {
            return Ok(family);
        }
        if family.name.is_empty() {
            return Err(Malformed::Name(String::new()));
        }
        family.kind = match kind {
            0 => MetricKind::Counter,
            1 => MetricKind::Gauge,
            2 => MetricKind::Summary,
            3 => MetricKind::Unknown,
            4 => MetricKind::Histogram,
            5 => MetricKind::GaugeHistogram,
            kind => {
                let name = family.name.to_owned();
                return Err(Malformed::Type { name, kind });
            }
        };
        family.check_unit()?;
        Ok(family)
    }

    fn check_unit(&self) -> Result<(), Malformed> {
        let total = match self.kind {
            MetricKind::Counter => self.name.strip_suffix("_total"),
            _ => None,
        };
        let named = total.unwrap_or(self.name).strip_suffix(self.unit);
        if self.unit.is_empty() || named.is_some_and(|stem| stem.ends_with('_')) {
            return Ok(());
        }
        Err(Malformed::Unit {
            unit: self.unit.to_owned(),
            what: if total.is_some() { "counter" } else { "metric" },
            name: self.name.to_owned(),
        })
    }

    /// What stands above the samples, last first.
    fn heading(&self) -> Vec<Entry<'a>> {
        let name: Cow<'a, str> = self.name.into();
        let mut heading = vec![Entry::Type {
            name: name.clone(),
            kind: self.kind,
        }];
        if !self.unit.is_empty() {
            heading.push(Entry::Unit {
                name: name.clone(),
                unit: self.unit,
            });
        }
        heading.push(Entry::Help {
            name,
            help: self.help.into(),
        });
        heading
    }
}

fn check_size(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), Malformed> {
    match bytes > bytes_max {
        true => Err(Malformed::TooLarge { what, bytes_max }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
