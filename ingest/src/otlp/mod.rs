//! Metrics of the OpenTelemetry protocol: a request to a batch.
//!
//! Formats: opentelemetry.io/docs/specs/otlp, protobuf and JSON; what becomes of a data point follows
//! Prometheus 3.5. A data point that cannot be series is left out, counted and named;
//! all others stay. What a metric says of itself (form, description, unit) is gathered under the name
//! of its series. Delta temporality is refused, unless the settings say that the shards add up: then
//! such points are rows of a batch of their own; or that differences are stored as they are.
//!
//! The request is walked field by field and decoded one data point at a time, so that what it takes
//! in memory is what its series take, and that is bounded. Not here: HTTP, gRPC, and what the shards
//! refuse.
//!
//! In reading order: [`names`] and [`values`], what things are called; [`resource`], whose labels a
//! data point has; [`points`], rows of a data point; [`json`], the other encoding; [`answer`].

pub mod answer;
pub mod json;
pub mod names;
mod points;
mod resource;
mod values;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::batch::DeltaSpan;
use model::{Batch, Histogram, Labels, MetricKind, Timestamp, limits};
use prost::Message;
use proto::otlp as wire;
use proto::remote::{Field, Fields, WireError};

use crate::metadata::Gathered;
use crate::remote::note;
use crate::typed::{TYPE, UNIT};
use names::{Kind, Strategy};
use resource::Resource;

/// The `otlp` section of the configuration, and the lookback, which spaces `target_info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub promote: Promote,
    pub strategy: Strategy,
    /// Whether `target_info` also has what makes up `job` and `instance`.
    pub keep_identifying: bool,
    /// Explicit buckets become native histograms with custom bounds.
    pub convert_histograms: bool,
    /// Whether series have the name, version and attributes of their scope.
    pub promote_scope: bool,
    pub lookback: Duration,
    /// Whether points of delta temporality are taken and added up.
    pub adds_deltas: bool,
    /// Whether they are taken and stored as they are, unless they are added up.
    pub keeps_deltas: bool,
    /// Whether type and unit become labels of the series.
    pub type_and_unit_labels: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            promote: Promote::Only(BTreeSet::new()),
            strategy: Strategy::default(),
            keep_identifying: false,
            convert_histograms: false,
            promote_scope: false,
            lookback: Duration::from_secs(300),
            adds_deltas: false,
            keeps_deltas: false,
            type_and_unit_labels: false,
        }
    }
}

/// Attributes of the resource that every series gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promote {
    Only(BTreeSet<String>),
    AllBut(BTreeSet<String>),
}

/// Why nothing of a request can be taken.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    #[error("metrics request: {0}")]
    Wire(#[from] WireError),
    #[error("metrics request: {what}: {source}")]
    Protobuf {
        what: &'static str,
        source: prost::DecodeError,
    },
    #[error("metrics request: {0}")]
    Json(#[from] json::JsonError),
    /// A smaller request may pass.
    #[error("series of more than {bytes_max} bytes in memory")]
    TooMuch { bytes_max: usize },
}

/// A decoded request.
#[derive(Debug, Default)]
pub struct Decoded {
    pub batch: Batch,
    /// For each row, the number of its data point; [`NO_POINT`] where it has none, or one that is
    /// counted in `rejected` already.
    pub points: Vec<u32>,
    /// Rows that are differences, each with its span, and the numbers of their data points.
    pub deltas: Batch,
    pub delta_points: Vec<u32>,
    /// Data points left out, wholly or in part.
    pub rejected: u64,
    /// A text for each of the first of them.
    pub problems: Vec<String>,
    /// Types, helps and units.
    pub metadata: Gathered,
}

/// Of a row that stands for no data point.
pub const NO_POINT: u32 = u32::MAX;

/// Decodes an `ExportMetricsServiceRequest`.
pub fn decode(message: &[u8], settings: &Settings) -> Result<Decoded, OtlpError> {
    let mut walker = Walker {
        settings,
        decoded: Decoded::default(),
        memory_bytes: 0,
        point: 0,
        span: None,
        is_difference: false,
        told: Vec::new(),
    };
    for field in Fields::new(message) {
        let field = field?;
        if field.number == 1 {
            walker.resource_metrics(field.bytes()?)?;
        }
    }
    Ok(walker.decoded)
}

/// Decodes the same request in JSON.
pub fn decode_json(text: &[u8], settings: &Settings) -> Result<Decoded, OtlpError> {
    decode(&json::read(text)?.encode_to_vec(), settings)
}

/// Decodes one message whole, unless it is too large to be one of its kind.
fn part<M: Message + Default>(
    what: &'static str,
    message: &[u8],
) -> Result<Result<M, String>, OtlpError> {
    let (bytes, max) = (message.len(), limits::OTLP_PART_BYTES_MAX);
    if bytes > max {
        return Ok(Err(format!("{what} of {bytes} bytes, the limit is {max}")));
    }
    let decoded = M::decode(message).map_err(|source| OtlpError::Protobuf { what, source })?;
    Ok(Ok(decoded))
}

/// First and last instant of a resource's data points, in nanoseconds.
type Span = Option<(u64, u64)>;

/// Name and form of a metric, and the message that has its data points.
#[derive(Debug, Default, Clone, Copy)]
struct Metric<'a> {
    name: &'a str,
    description: &'a str,
    unit: &'a str,
    /// The number of the field, which tells the form.
    form: u32,
    data: &'a [u8],
}

impl Metric<'_> {
    fn kind(&self, is_monotonic: bool) -> MetricKind {
        match self.form {
            SUM if is_monotonic => MetricKind::Counter,
            GAUGE | SUM => MetricKind::Gauge,
            HISTOGRAM | EXPONENTIAL => MetricKind::Histogram,
            SUMMARY => MetricKind::Summary,
            _ => MetricKind::Unknown,
        }
    }
}

const GAUGE: u32 = 5;
const SUM: u32 = 7;
const HISTOGRAM: u32 = 9;
const EXPONENTIAL: u32 = 10;
const SUMMARY: u32 = 11;

struct Walker<'s> {
    settings: &'s Settings,
    decoded: Decoded,
    /// What series, histograms and exemplars take so far.
    memory_bytes: usize,
    /// The number of the data point at hand.
    point: u32,
    /// What it covers, if it is a difference that is to be added.
    span: Option<DeltaSpan>,
    /// Whether it is one that stays.
    is_difference: bool,
    /// Type and unit of its metric as labels, where they become some.
    told: Vec<(&'static str, String)>,
}

impl Walker<'_> {
    fn resource_metrics(&mut self, message: &[u8]) -> Result<(), OtlpError> {
        let mut attributes = Ok(wire::Resource::default());
        for field in Fields::new(message) {
            let field = field?;
            if field.number == 1 {
                attributes = part("a resource", field.bytes()?)?;
            }
        }
        let resource = attributes.and_then(|a| Resource::new(a.attributes, self.settings));
        let mut span = None;
        for field in Fields::new(message) {
            let field = field?;
            if field.number == 2 {
                self.scope_metrics(field.bytes()?, &resource, &mut span)?;
            }
        }
        if let (Ok(resource), Some(span)) = (&resource, span) {
            self.target_info(resource, span)?;
        }
        Ok(())
    }

    fn scope_metrics(
        &mut self,
        message: &[u8],
        resource: &Result<Resource, String>,
        span: &mut Span,
    ) -> Result<(), OtlpError> {
        let mut scope = Ok(wire::InstrumentationScope::default());
        let mut schema_url = "";
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => scope = part("a scope", field.bytes()?)?,
                3 => schema_url = field.text()?,
                _ => {}
            }
        }
        let scoped = resource.clone().and_then(|resource| {
            let scope = scope?;
            resource.with_scope(&scope, schema_url, self.settings)
        });
        for field in Fields::new(message) {
            let field = field?;
            if field.number == 2 {
                self.metric(field.bytes()?, &scoped, span)?;
            }
        }
        Ok(())
    }

    fn metric(
        &mut self,
        message: &[u8],
        resource: &Result<Resource, String>,
        span: &mut Span,
    ) -> Result<(), OtlpError> {
        let metric = read_metric(message)?;
        let (mut temporality, mut is_monotonic) = (0, false);
        for field in Fields::new(metric.data) {
            let field = field?;
            match field.number {
                2 => temporality = field.int64()?,
                3 if metric.form == SUM => is_monotonic = field.int64()? != 0,
                _ => {}
            }
        }
        let kind = match metric.form {
            GAUGE => Kind::Gauge,
            SUM if is_monotonic => Kind::Counter,
            _ => Kind::Other,
        };
        let name = names::metric(metric.name, metric.unit, kind, self.settings.strategy);
        let has_temporality = [SUM, HISTOGRAM, EXPONENTIAL].contains(&metric.form);
        let is_difference = has_temporality && temporality == DELTA;
        // There is no type for differences that stay differences.
        let told_kind = match is_difference && !self.settings.adds_deltas {
            true => MetricKind::Unknown,
            false => metric.kind(is_monotonic),
        };
        self.told.clear();
        if self.settings.type_and_unit_labels {
            let unit = names::unit(metric.unit, self.settings.strategy);
            self.told = told(told_kind, unit);
        }
        let is_added = is_difference && self.settings.adds_deltas;
        self.is_difference = is_difference && !is_added;
        let is_kept = self.is_difference && self.settings.keeps_deltas;
        let refused = match resource {
            Err(problem) => Some(problem.clone()),
            Ok(_) if has_temporality && temporality != CUMULATIVE && !is_added && !is_kept => {
                Some("invalid temporality and type combination".to_owned())
            }
            Ok(_) => None,
        };
        if refused.is_none() {
            let Metric {
                description, unit, ..
            } = metric;
            self.decoded
                .metadata
                .add(&name, told_kind, description, unit);
        }
        for field in Fields::new(metric.data) {
            let field = field?;
            if field.number != 1 {
                continue;
            }
            let point = field.bytes()?;
            let covered = times(point)?;
            widen(span, covered.end_ns);
            self.span = is_added.then_some(covered);
            match (&refused, resource) {
                (None, Ok(resource)) => self.data_point(&metric, &name, point, resource)?,
                (Some(problem), _) | (None, Err(problem)) => self.reject(&metric, problem),
            }
            self.point = self.point.saturating_add(1).min(NO_POINT - 1);
        }
        self.span = None;
        Ok(())
    }

    /// The data point at hand is left out, or something of it.
    fn reject(&mut self, metric: &Metric<'_>, problem: &str) {
        self.decoded.rejected += 1;
        let name = crate::remote::shorten(metric.name);
        let text = || format!("metric {name:?}: {problem}");
        note(&mut self.decoded.problems, text);
    }

    fn count(&mut self, bytes: usize) -> Result<(), OtlpError> {
        self.memory_bytes += bytes;
        let bytes_max = limits::WRITE_MEMORY_BYTES_MAX;
        match self.memory_bytes > bytes_max {
            true => Err(OtlpError::TooMuch { bytes_max }),
            false => Ok(()),
        }
    }

    fn add_series(&mut self, labels: Labels) -> Result<u32, OtlpError> {
        self.count(labels.as_canonical().len() + ROW_BYTES)?;
        Ok(self.target().0.add_series(labels))
    }

    /// Where rows of the data point at hand go, and the numbers of their data points.
    fn target(&mut self) -> (&mut Batch, &mut Vec<u32>) {
        let decoded = &mut self.decoded;
        match self.span {
            None => (&mut decoded.batch, &mut decoded.points),
            Some(_) => (&mut decoded.deltas, &mut decoded.delta_points),
        }
    }

    fn add_float(&mut self, series: u32, at: Timestamp, value: f64, point: u32) {
        let span = self.span;
        let (batch, points) = self.target();
        batch.rows.push(series, at, value);
        batch.deltas.extend(span);
        points.push(point);
    }

    fn add_histogram(
        &mut self,
        series: u32,
        at: Timestamp,
        histogram: Histogram,
    ) -> Result<(), OtlpError> {
        self.count(histogram.size())?;
        let (span, point) = (self.span, self.point);
        let (batch, points) = self.target();
        batch.rows.push_histogram(series, at, Arc::new(histogram));
        batch.deltas.extend(span);
        points.push(point);
        Ok(())
    }

    /// Says of the resource that it was there while its data points were.
    fn target_info(&mut self, resource: &Resource, span: (u64, u64)) -> Result<(), OtlpError> {
        let Some(labels) = resource.target_info(self.settings) else {
            return Ok(());
        };
        let series = self.add_series(labels)?;
        let step = u64::try_from(self.settings.lookback.as_nanos() / 2).unwrap_or(u64::MAX);
        let longest = step.saturating_mul(limits::OTLP_TARGET_SAMPLES_MAX as u64 - 1);
        let first = span.0.max(span.1.saturating_sub(longest));
        let mut at = first;
        while at < span.1 && step > 0 {
            self.add_float(series, millis(at), 1.0, NO_POINT);
            at = at.saturating_add(step);
        }
        let rows = &self.decoded.batch.rows;
        let is_told = at != first && rows.timestamps.last() >= Some(&millis(span.1));
        if !is_told {
            self.add_float(series, millis(span.1), 1.0, NO_POINT);
        }
        Ok(())
    }
}

/// `AGGREGATION_TEMPORALITY_DELTA`.
const DELTA: i64 = 1;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: i64 = 2;
/// What a series takes beside its labels.
const ROW_BYTES: usize = 64;

/// What is known of a metric, as labels.
fn told(kind: MetricKind, unit: String) -> Vec<(&'static str, String)> {
    let kind = (kind != MetricKind::Unknown).then(|| kind.as_str().to_owned());
    let unit = Some(unit).filter(|unit| !unit.is_empty());
    let kind = kind.map(|kind| (TYPE, kind)).into_iter();
    kind.chain(unit.map(|unit| (UNIT, unit))).collect()
}

fn read_metric(message: &[u8]) -> Result<Metric<'_>, WireError> {
    let mut metric = Metric::default();
    for field in Fields::new(message) {
        let field: Field<'_> = field?;
        match field.number {
            1 => metric.name = field.text()?,
            2 => metric.description = field.text()?,
            3 => metric.unit = field.text()?,
            form @ (GAUGE | SUM | HISTOGRAM | EXPONENTIAL | SUMMARY) => {
                metric.form = form;
                metric.data = field.bytes()?;
            }
            _ => {}
        }
    }
    Ok(metric)
}

/// A data point of any form has its start as field 2, where it has one, and its instant as field 3.
fn times(point: &[u8]) -> Result<DeltaSpan, WireError> {
    let mut span = DeltaSpan::default();
    for field in Fields::new(point) {
        let field = field?;
        match field.number {
            2 => span.start_ns = field.double()?.to_bits(),
            3 => span.end_ns = field.double()?.to_bits(),
            _ => {}
        }
    }
    Ok(span)
}

fn widen(span: &mut Span, at: u64) {
    *span = Some(span.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
}

fn millis(nanos: u64) -> Timestamp {
    Timestamp(nanos as i64 / 1_000_000)
}

#[cfg(test)]
mod tests;
