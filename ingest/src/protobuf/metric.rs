//! One `Metric` message: what it shows, in the order Prometheus gives it.

use std::collections::VecDeque;

use model::histogram::{Integers, ResetHint, Span};
use model::{Histogram, Timestamp, number};
use proto::wire::{Field, Fields, WireError};

use super::Malformed;
use crate::exemplar;
use crate::exposition::{ExemplarSeen, MetricKind};
use crate::histogram::buckets::{absolute, compact};

/// One sample or histogram of a metric.
#[derive(Debug, Default)]
pub struct Shown {
    /// Behind the family's name.
    pub suffix: &'static str,
    /// `le` or `quantile` and its value.
    pub bound: Option<(&'static str, String)>,
    pub what: What,
    pub timestamp: Option<i64>,
    pub exemplars: Vec<ExemplarSeen>,
}

#[derive(Debug)]
pub enum What {
    Float(f64),
    Histogram(Box<Histogram>),
}

impl Default for What {
    fn default() -> Self {
        Self::Float(0.0)
    }
}

impl Shown {
    fn float(suffix: &'static str, value: f64) -> Self {
        Self {
            suffix,
            what: What::Float(value),
            ..Self::default()
        }
    }
}

/// Adds the metric's labels to `pairs`.
pub fn read_labels<'a>(
    message: &'a [u8],
    pairs: &mut Vec<(&'a str, &'a str)>,
) -> Result<(), WireError> {
    for field in Fields::new(message) {
        let field = field?;
        if field.number == 1 {
            pairs.push(read_pair(field.bytes()?)?);
        }
    }
    Ok(())
}

/// The native part of a `Histogram` message, as it was sent; `None` when it has none.
pub fn native_part(message: &[u8]) -> Result<Option<Histogram>, WireError> {
    let mut histogram = Message::default();
    for field in Fields::new(message) {
        histogram.read(&field?)?;
    }
    let is_native = histogram.is_native();
    Ok(is_native.then(|| histogram.buckets(MetricKind::Histogram)))
}

/// Everything a metric of a family of this kind shows.
pub fn read(
    message: &[u8],
    kind: MetricKind,
    keep_classic: bool,
) -> Result<VecDeque<Shown>, Malformed> {
    let wanted = match kind {
        MetricKind::Gauge => 2,
        MetricKind::Counter => 3,
        MetricKind::Summary => 4,
        MetricKind::Histogram | MetricKind::GaugeHistogram => 7,
        _ => 5,
    };
    let mut body: &[u8] = &[];
    let mut timestamp = None;
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            6 => timestamp = Some(field.int64()?).filter(|at| *at != 0),
            number if number == wanted => body = field.bytes()?,
            _ => {}
        }
    }
    let mut shown = match kind {
        MetricKind::Summary => summary(body)?,
        MetricKind::Histogram | MetricKind::GaugeHistogram => histogram(body, kind, keep_classic)?,
        _ => VecDeque::from([single(body)?]),
    };
    for shown in &mut shown {
        shown.timestamp = timestamp;
    }
    Ok(shown)
}

/// A counter, a gauge or an untyped value.
fn single(message: &[u8]) -> Result<Shown, WireError> {
    let mut shown = Shown::default();
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => shown.what = What::Float(field.double()?),
            2 => shown.exemplars = read_exemplar(field.bytes()?)?.into_iter().collect(),
            _ => {}
        }
    }
    Ok(shown)
}

fn summary(message: &[u8]) -> Result<VecDeque<Shown>, WireError> {
    let (mut count, mut sum) = (0.0, 0.0);
    let mut quantiles = Vec::new();
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => count = field.int64()? as u64 as f64,
            2 => sum = field.double()?,
            3 => quantiles.push(read_quantile(field.bytes()?)?),
            _ => {}
        }
    }
    let head = [Shown::float("_count", count), Shown::float("_sum", sum)];
    Ok(head.into_iter().chain(quantiles).collect())
}

fn read_quantile(message: &[u8]) -> Result<Shown, WireError> {
    let (mut quantile, mut value) = (0.0, 0.0);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => quantile = field.double()?,
            2 => value = field.double()?,
            _ => {}
        }
    }
    Ok(Shown {
        bound: Some(("quantile", number::bound(quantile))),
        ..Shown::float("", value)
    })
}

/// A `Histogram` message. Of two fields for one thing the float one holds where it is not 0.
#[derive(Default)]
struct Message {
    count: u64,
    count_float: f64,
    zero_count: u64,
    zero_count_float: f64,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    sides: [Side; 2],
    classic: Vec<Bucket>,
    exemplars: Vec<ExemplarSeen>,
    has_exemplars: bool,
}

#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

#[derive(Default)]
struct Bucket {
    count: f64,
    count_float: f64,
    bound: f64,
    exemplar: Option<ExemplarSeen>,
}

fn histogram(
    message: &[u8],
    kind: MetricKind,
    keep_classic: bool,
) -> Result<VecDeque<Shown>, Malformed> {
    let mut histogram = Message::default();
    for field in Fields::new(message) {
        histogram.read(&field?)?;
    }
    let is_native = histogram.is_native();
    let has_classic = !is_native || (keep_classic && !histogram.classic.is_empty());
    let mut shown = VecDeque::new();
    if is_native {
        shown.push_back(histogram.native(kind));
    }
    if has_classic {
        shown.extend(histogram.classic_series());
    }
    Ok(shown)
}

impl Message {
    fn read(&mut self, field: &Field<'_>) -> Result<(), WireError> {
        let [negative, positive] = &mut self.sides;
        match field.number {
            1 => self.count = field.int64()? as u64,
            2 => self.sum = field.double()?,
            3 => self.classic.push(Bucket::read(field.bytes()?)?),
            4 => self.count_float = field.double()?,
            5 => self.schema = field.sint64()? as i32,
            6 => self.zero_threshold = field.double()?,
            7 => self.zero_count = field.int64()? as u64,
            8 => self.zero_count_float = field.double()?,
            9 => negative.spans.push(read_span(field.bytes()?)?),
            10 => field.append_sint64s(&mut negative.deltas)?,
            11 => field.append_doubles(&mut negative.counts)?,
            12 => positive.spans.push(read_span(field.bytes()?)?),
            13 => field.append_sint64s(&mut positive.deltas)?,
            14 => field.append_doubles(&mut positive.counts)?,
            16 => {
                self.has_exemplars = true;
                self.exemplars.extend(read_exemplar(field.bytes()?)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn is_native(&self) -> bool {
        self.sides.iter().any(|side| !side.spans.is_empty())
            || self.zero_threshold > 0.0
            || self.zero_count > 0
    }

    /// The native part; its exemplars are its own or, where it has none, those of the buckets.
    /// Only those with a time: without one nobody could tell the same from a new one.
    fn native(&mut self, kind: MetricKind) -> Shown {
        let of_buckets = self.classic.iter().filter_map(|b| b.exemplar.clone());
        let mut exemplars: Vec<_> = match self.has_exemplars {
            true => std::mem::take(&mut self.exemplars),
            false => of_buckets.collect(),
        };
        exemplars.retain(|exemplar| exemplar.timestamp.is_some());
        let mut histogram = self.buckets(kind);
        // What does not fit is told by the check to come, as it was sent.
        if histogram.validate().is_ok() {
            compact(&mut histogram, 0);
        }
        Shown {
            what: What::Histogram(Box::new(histogram)),
            exemplars,
            ..Shown::default()
        }
    }

    /// Whether counts are whole numbers.
    fn is_integer(&self) -> bool {
        !(self.count_float > 0.0 || self.zero_count_float > 0.0)
    }

    /// The native buckets as they were sent.
    fn buckets(&mut self, kind: MetricKind) -> Histogram {
        let [negative, positive] = std::mem::take(&mut self.sides);
        let mut histogram = Histogram {
            reset_hint: match kind {
                MetricKind::GaugeHistogram => ResetHint::Gauge,
                _ => ResetHint::Unknown,
            },
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            sum: self.sum,
            positive_spans: positive.spans,
            negative_spans: negative.spans,
            ..Histogram::default()
        };
        match self.is_integer() {
            true => histogram.set_integers(Integers {
                count: self.count,
                zero_count: self.zero_count,
                positive_buckets: absolute(positive.deltas),
                negative_buckets: absolute(negative.deltas),
            }),
            false => {
                histogram.count = self.count_float;
                histogram.zero_count = self.zero_count_float;
                histogram.positive_buckets = positive.counts;
                histogram.negative_buckets = negative.counts;
            }
        }
        histogram
    }

    /// Count, sum and buckets up to +Inf, which is added where it is missing.
    fn classic_series(self) -> Vec<Shown> {
        let count = either(self.count_float, self.count as f64);
        let mut shown = vec![
            Shown::float("_count", count),
            Shown::float("_sum", self.sum),
        ];
        let bucket = |bound, count, exemplar: Option<ExemplarSeen>| Shown {
            bound: Some(("le", number::bound(bound))),
            exemplars: exemplar.into_iter().collect(),
            ..Shown::float("_bucket", count)
        };
        for classic in self.classic {
            let count = either(classic.count_float, classic.count);
            shown.push(bucket(classic.bound, count, classic.exemplar));
            if classic.bound == f64::INFINITY {
                return shown;
            }
        }
        shown.push(bucket(f64::INFINITY, count, None));
        shown
    }
}

impl Bucket {
    fn read(message: &[u8]) -> Result<Self, WireError> {
        let mut bucket = Self::default();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => bucket.count = field.int64()? as u64 as f64,
                2 => bucket.bound = field.double()?,
                3 => bucket.exemplar = read_exemplar(field.bytes()?)?,
                4 => bucket.count_float = field.double()?,
                _ => {}
            }
        }
        Ok(bucket)
    }
}

fn either(float: f64, integer: f64) -> f64 {
    if float == 0.0 { integer } else { float }
}

fn read_span(message: &[u8]) -> Result<Span, WireError> {
    let mut span = Span::default();
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => span.offset = field.sint64()? as i32,
            2 => span.length = field.int64()? as u32,
            _ => {}
        }
    }
    Ok(span)
}

fn read_pair(message: &[u8]) -> Result<(&str, &str), WireError> {
    let mut pair = ("", "");
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => pair.0 = field.text()?,
            2 => pair.1 = field.text()?,
            _ => {}
        }
    }
    Ok(pair)
}

/// `None` when its labels may not be an exemplar's.
fn read_exemplar(message: &[u8]) -> Result<Option<ExemplarSeen>, WireError> {
    let mut labels = Vec::new();
    let (mut value, mut timestamp) = (0.0, None);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => labels.push(read_pair(field.bytes()?)?),
            2 => value = field.double()?,
            3 => timestamp = Some(read_timestamp(field.bytes()?)?),
            _ => {}
        }
    }
    let labels = exemplar::labels(&mut labels);
    Ok(labels.map(|labels| ExemplarSeen {
        labels,
        value,
        timestamp,
    }))
}

fn read_timestamp(message: &[u8]) -> Result<Timestamp, WireError> {
    let (mut seconds, mut nanoseconds) = (0i64, 0i64);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => seconds = field.int64()?,
            2 => nanoseconds = field.int64()?,
            _ => {}
        }
    }
    let milliseconds = nanoseconds / 1_000_000;
    Ok(Timestamp(
        seconds.saturating_mul(1000).saturating_add(milliseconds),
    ))
}
