//! Data points to rows.
//!
//! A point that says "no recorded value" ends its series. Explicit buckets become the series of a
//! classic histogram, or one native histogram with custom bounds; exponential ones a native
//! histogram of schema 8 at most, whose zero bucket is as wide as Prometheus' default.

use std::collections::BTreeMap;

use model::histogram::{CUSTOM_SCHEMA, Integers, ResetHint, SCHEMA_MAX, SCHEMA_MIN, Span};
use model::labels::METRIC_NAME;
use model::sample::STALE_NAN;
use model::{Exemplar, Histogram, Timestamp, limits, number};
use proto::otlp::{self as wire, exemplar, number_data_point};

use super::resource::{Resource, series};
use super::{
    EXPONENTIAL, GAUGE, HISTOGRAM, Metric, NO_POINT, OtlpError, SUM, SUMMARY, Walker, millis, part,
    values,
};
use crate::exemplar as rules;
use crate::histogram::buckets::lay_out;
use crate::histogram::check::check;

/// Prometheus' width of the zero bucket, whatever the data point says.
const ZERO_THRESHOLD: f64 = 1e-128;
/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`.
const NO_RECORDED_VALUE: u32 = 1;

type Tags = BTreeMap<String, String>;

/// One series of a data point: name, one more label, value.
type Row<'a> = (String, Option<(&'a str, String)>, f64);

impl Walker<'_> {
    /// Adds the rows of one data point, or says what keeps it from having some.
    pub(super) fn data_point(
        &mut self,
        metric: &Metric<'_>,
        name: &str,
        message: &[u8],
        resource: &Resource,
    ) -> Result<(), OtlpError> {
        let before = self.target().1.len();
        let added = match metric.form {
            GAUGE | SUM => self.number(metric, name, message, resource)?,
            HISTOGRAM if self.settings.convert_histograms => {
                self.custom(name, message, resource)?
            }
            HISTOGRAM => self.classic(name, message, resource)?,
            EXPONENTIAL => self.exponential(name, message, resource)?,
            SUMMARY => self.summary(name, message, resource)?,
            _ => Err("unsupported metric type".to_owned()),
        };
        if let Err(problem) = added {
            self.reject(metric, &problem);
            self.target().1[before..].fill(NO_POINT);
        }
        Ok(())
    }

    fn number(
        &mut self,
        metric: &Metric<'_>,
        name: &str,
        message: &[u8],
        resource: &Resource,
    ) -> Result<Result<(), String>, OtlpError> {
        let point = match part::<wire::NumberDataPoint>("a data point", message)? {
            Ok(point) => point,
            Err(problem) => return Ok(Err(problem)),
        };
        let value = match point.value {
            _ if is_absent(point.flags) => STALE_NAN,
            Some(number_data_point::Value::AsDouble(value)) => value,
            Some(number_data_point::Value::AsInt(value)) => value as f64,
            None => 0.0,
        };
        let labels = match self.named(name, &point.attributes, resource) {
            Ok(labels) => labels,
            Err(problem) => return Ok(Err(problem)),
        };
        let series = self.add_series(labels)?;
        self.add_float(series, millis(point.time_unix_nano), value, self.point);
        if metric.form == SUM {
            self.add_exemplars(&point.exemplars, |_| Some(series))?;
        }
        Ok(Ok(()))
    }

    /// Labels of a data point without a name. What its metric is wins over an attribute.
    fn tags(&self, attributes: &[wire::KeyValue], resource: &Resource) -> Result<Tags, String> {
        let mut tags = resource.labels(attributes, self.settings)?;
        let told = self.told.iter();
        tags.extend(told.map(|(name, value)| ((*name).to_owned(), value.clone())));
        Ok(tags)
    }

    /// Labels of a data point that is one series: its name wins over an attribute's.
    fn named(
        &self,
        name: &str,
        attributes: &[wire::KeyValue],
        resource: &Resource,
    ) -> Result<model::Labels, String> {
        let mut tags = self.tags(attributes, resource)?;
        tags.insert(METRIC_NAME.to_owned(), name.to_owned());
        series(&tags, &[])
    }

    fn classic(
        &mut self,
        name: &str,
        message: &[u8],
        resource: &Resource,
    ) -> Result<Result<(), String>, OtlpError> {
        let point = match part::<wire::HistogramDataPoint>("a data point", message)? {
            Ok(point) => point,
            Err(problem) => return Ok(Err(problem)),
        };
        let tags = match self.tags(&point.attributes, resource) {
            Ok(tags) => tags,
            Err(problem) => return Ok(Err(problem)),
        };
        let sum = point.sum.map(|sum| (format!("{name}_sum"), None, sum));
        let count = (format!("{name}_count"), None, point.count as f64);
        let mut below = 0u64;
        let bounds = point.explicit_bounds.iter().zip(&point.bucket_counts);
        let buckets = bounds.map(|(bound, count)| {
            below = below.wrapping_add(*count);
            let le = Some(("le", number::plain(*bound)));
            (format!("{name}_bucket"), le, below as f64)
        });
        let infinite = Some(("le", "+Inf".to_owned()));
        let infinite = (format!("{name}_bucket"), infinite, point.count as f64);
        let first = sum.into_iter().chain([count]);
        let rows: Vec<Row<'_>> = first.chain(buckets).chain([infinite]).collect();
        let at = millis(point.time_unix_nano);
        let added = self.add_rows(&tags, rows, at, is_absent(point.flags))?;
        let skipped = 1 + usize::from(point.sum.is_some());
        let places = added.series.get(skipped..).unwrap_or_default();
        // Bounds need not ascend for this.
        let bucket = |value: f64| {
            let ends = point.explicit_bounds.iter().copied();
            let mut fits: Vec<(f64, u32)> = ends
                .chain([f64::INFINITY])
                .zip(places)
                .filter(|(bound, _)| value <= *bound)
                .filter_map(|(bound, series)| Some((bound, (*series)?)))
                .collect();
            fits.sort_by(|a, b| a.0.total_cmp(&b.0));
            fits.first().map(|(_, series)| *series)
        };
        self.add_exemplars(&point.exemplars, bucket)?;
        Ok(added.result)
    }

    fn summary(
        &mut self,
        name: &str,
        message: &[u8],
        resource: &Resource,
    ) -> Result<Result<(), String>, OtlpError> {
        let point = match part::<wire::SummaryDataPoint>("a data point", message)? {
            Ok(point) => point,
            Err(problem) => return Ok(Err(problem)),
        };
        let tags = match self.tags(&point.attributes, resource) {
            Ok(tags) => tags,
            Err(problem) => return Ok(Err(problem)),
        };
        let totals = [
            (format!("{name}_sum"), None, point.sum),
            (format!("{name}_count"), None, point.count as f64),
        ];
        let quantiles = point.quantile_values.iter().map(|at| {
            let label = Some(("quantile", number::plain(at.quantile)));
            (name.to_owned(), label, at.value)
        });
        let rows: Vec<Row<'_>> = totals.into_iter().chain(quantiles).collect();
        let at = millis(point.time_unix_nano);
        let added = self.add_rows(&tags, rows, at, is_absent(point.flags))?;
        Ok(added.result)
    }

    /// Adds each row whose labels are a series; the first that are not are told.
    fn add_rows(
        &mut self,
        tags: &Tags,
        rows: Vec<Row<'_>>,
        at: Timestamp,
        is_absent: bool,
    ) -> Result<Added, OtlpError> {
        let mut added = Added {
            series: Vec::new(),
            result: Ok(()),
        };
        for (name, label, value) in rows {
            let label = label.as_ref().map(|(name, value)| (*name, value.as_str()));
            let name = [(METRIC_NAME, name.as_str())];
            let more: Vec<_> = name.into_iter().chain(label).collect();
            let place = match series(tags, &more) {
                Ok(labels) => {
                    let series = self.add_series(labels)?;
                    let value = if is_absent { STALE_NAN } else { value };
                    self.add_float(series, at, value, self.point);
                    Some(series)
                }
                Err(problem) => {
                    added.result = added.result.and(Err(problem));
                    None
                }
            };
            added.series.push(place);
        }
        Ok(added)
    }

    fn custom(
        &mut self,
        name: &str,
        message: &[u8],
        resource: &Resource,
    ) -> Result<Result<(), String>, OtlpError> {
        let point = match histogram_part::<wire::HistogramDataPoint>(message)? {
            Ok(point) => point,
            Err(problem) => return Ok(Err(problem)),
        };
        let (positive_spans, positive_buckets) = lay_out(indexed(&point.bucket_counts, 0));
        let mut histogram = Histogram {
            schema: CUSTOM_SCHEMA,
            sum: point.sum.unwrap_or_default(),
            positive_spans,
            custom_values: point.explicit_bounds,
            ..Histogram::default()
        };
        histogram.set_integers(Integers {
            count: point.count,
            positive_buckets,
            ..Integers::default()
        });
        let at = millis(point.time_unix_nano);
        let histogram = present(histogram, point.flags);
        let attributes = (&point.attributes[..], &point.exemplars[..]);
        self.native(name, attributes, at, histogram, resource)
    }

    fn exponential(
        &mut self,
        name: &str,
        message: &[u8],
        resource: &Resource,
    ) -> Result<Result<(), String>, OtlpError> {
        let point = match histogram_part::<wire::ExponentialHistogramDataPoint>(message)? {
            Ok(point) => point,
            Err(problem) => return Ok(Err(problem)),
        };
        if point.scale < SCHEMA_MIN {
            let scale = point.scale;
            let text = format!(
                "cannot convert exponential to native histogram: scale {scale} is below {SCHEMA_MIN}"
            );
            return Ok(Err(text));
        }
        let shift = point.scale.saturating_sub(SCHEMA_MAX).max(0);
        let (positive_spans, positive_buckets) = side(point.positive.as_ref(), shift);
        let (negative_spans, negative_buckets) = side(point.negative.as_ref(), shift);
        let mut histogram = Histogram {
            schema: point.scale.min(SCHEMA_MAX),
            zero_threshold: ZERO_THRESHOLD,
            sum: point.sum.unwrap_or_default(),
            positive_spans,
            negative_spans,
            ..Histogram::default()
        };
        histogram.set_integers(Integers {
            count: point.count,
            zero_count: point.zero_count,
            positive_buckets,
            negative_buckets,
        });
        let at = millis(point.time_unix_nano);
        let histogram = present(histogram, point.flags);
        let attributes = (&point.attributes[..], &point.exemplars[..]);
        self.native(name, attributes, at, histogram, resource)
    }

    fn native(
        &mut self,
        name: &str,
        (attributes, exemplars): (&[wire::KeyValue], &[wire::Exemplar]),
        at: Timestamp,
        mut histogram: Histogram,
        resource: &Resource,
    ) -> Result<Result<(), String>, OtlpError> {
        // No difference is a reset of the one before it.
        if self.is_difference {
            histogram.reset_hint = ResetHint::Gauge;
        }
        if let Err(problem) = check(&histogram) {
            return Ok(Err(problem));
        }
        let labels = match self.named(name, attributes, resource) {
            Ok(labels) => labels,
            Err(problem) => return Ok(Err(problem)),
        };
        let series = self.add_series(labels)?;
        self.add_histogram(series, at, histogram)?;
        self.add_exemplars(exemplars, |_| Some(series))?;
        Ok(Ok(()))
    }

    /// One that cannot be kept is dropped without a word.
    fn add_exemplars(
        &mut self,
        exemplars: &[wire::Exemplar],
        series_of: impl Fn(f64) -> Option<u32>,
    ) -> Result<(), OtlpError> {
        for exemplar in exemplars.iter().take(limits::OTLP_EXEMPLARS_MAX) {
            let Some(exemplar) = read_exemplar(exemplar) else {
                continue;
            };
            if let Some(series) = series_of(exemplar.value) {
                self.count(rules::size(&exemplar))?;
                self.target().0.exemplars.push((series, exemplar));
            }
        }
        Ok(())
    }
}

/// What became of the rows of a data point.
struct Added {
    /// By row; `None` for one that is no series.
    series: Vec<Option<u32>>,
    result: Result<(), String>,
}

fn is_absent(flags: u32) -> bool {
    flags & NO_RECORDED_VALUE != 0
}

/// A data point that becomes one histogram is bounded as one.
fn histogram_part<M: prost::Message + Default>(
    message: &[u8],
) -> Result<Result<M, String>, OtlpError> {
    let (bytes, max) = (message.len(), limits::HISTOGRAM_SENT_BYTES_MAX);
    match bytes > max {
        true => Ok(Err(format!(
            "a histogram of {bytes} bytes, the limit is {max}"
        ))),
        false => part("a data point", message),
    }
}

/// The histogram, or the one that ends its series.
fn present(histogram: Histogram, flags: u32) -> Histogram {
    match is_absent(flags) {
        false => histogram,
        true => Histogram {
            is_integer: true,
            sum: STALE_NAN,
            ..Histogram::default()
        },
    }
}

/// A count of more than 63 bits comes out below zero, which is refused.
fn indexed(counts: &[u64], offset: i64) -> impl Iterator<Item = (i64, i64)> {
    let counts = counts.iter().enumerate();
    counts.map(move |(i, count)| (offset + i as i64, *count as i64))
}

/// OTLP's bucket `i` is Prometheus' `i + 1`, which is named by its end.
fn side(
    buckets: Option<&wire::exponential_histogram_data_point::Buckets>,
    shift: i32,
) -> (Vec<Span>, Vec<i64>) {
    let Some(buckets) = buckets else {
        return Default::default();
    };
    let shift = shift.min(40);
    let indexed = indexed(&buckets.bucket_counts, buckets.offset.into());
    lay_out(indexed.map(|(index, count)| ((index >> shift) + 1, count)))
}

/// Trace and span first; attributes only where everything fits.
fn read_exemplar(exemplar: &wire::Exemplar) -> Option<Exemplar> {
    let value = match exemplar.value {
        Some(exemplar::Value::AsDouble(value)) => value,
        Some(exemplar::Value::AsInt(value)) => value as f64,
        None => return None,
    };
    let is_set = |id: &[u8]| id.iter().any(|byte| *byte != 0);
    let hex = |id: &[u8]| -> String { id.iter().map(|byte| format!("{byte:02x}")).collect() };
    let ids = [
        ("trace_id", &exemplar.trace_id, 16),
        ("span_id", &exemplar.span_id, 8),
    ];
    let ids: Vec<(String, String)> = ids
        .into_iter()
        .filter(|(_, id, length)| id.len() == *length && is_set(id))
        .map(|(name, id, _)| (name.to_owned(), hex(id)))
        .collect();
    let attributes = exemplar.filtered_attributes.iter();
    let attributes: Vec<(String, String)> = attributes
        .map(|a| (a.key.clone(), values::text(a.value.as_ref())))
        .collect();
    let chars = |pairs: &[(String, String)]| -> usize {
        let chars = pairs
            .iter()
            .map(|(n, v)| n.chars().count() + v.chars().count());
        chars.sum()
    };
    let mut pairs = ids;
    if chars(&pairs) + chars(&attributes) <= limits::EXEMPLAR_CHARS_MAX {
        pairs.extend(attributes);
    }
    let mut pairs = pairs
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    Some(Exemplar {
        labels: rules::labels(&mut pairs)?,
        value,
        timestamp: millis(exemplar.time_unix_nano),
    })
}
