//! The body of a push as protobuf: `io.prometheus.client.MetricFamily` messages, each behind its
//! length (proto/proto/exposition.proto).
//!
//! Promise: what pushgateway 1.11 takes is taken. Of a native histogram whose buckets could not be
//! stored (more of them than counted, beyond a bound) the count and the sum are kept.

use std::sync::Arc;

use model::group::{Family, FamilyKind, GroupingKey};
use model::quote::quote_bytes;
use model::{Histogram, hash, limits};
use proto::wire::{Field, Fields, WireError, split_delimited};

use crate::protobuf::native_part;

use super::check::{self, Building, Metric, Value};
use super::{Names, PushError, Rules};

/// Parses a body pushed to the group of `key`; the result is that of [`super::parse`]. As in the
/// original, any text is a name here, whatever the rules say of names.
pub fn parse_delimited(
    body: &[u8],
    key: &GroupingKey,
    rules: impl Into<Rules>,
) -> Result<Vec<Family>, PushError> {
    let rules = rules.into();
    let mut rest = body;
    let mut families: hash::Map<String, Building> = hash::Map::default();
    let mut reader = Reader {
        names: Names::Utf8,
        family: Building::new(String::new()),
        timestamps: false,
        problem: None,
        samples: 0,
        label_bytes: 0,
    };
    while !rest.is_empty() {
        let (message, after) = split_delimited(rest).map_err(malformed)?;
        rest = after;
        reader.family(message)?;
        let family = std::mem::replace(&mut reader.family, Building::new(String::new()));
        // Of two families of a name the later one stands, as in the original.
        families.insert(family.name.clone(), family);
    }
    if reader.timestamps {
        return Err(PushError::Timestamps);
    }
    match reader.problem {
        Some(problem) => Err(PushError::Inconsistent(problem)),
        None => check::finish(families.into_values().collect(), key, rules.unchecked),
    }
}

struct Reader {
    names: Names,
    family: Building,
    timestamps: bool,
    /// The first thing that makes the push inconsistent.
    problem: Option<String>,
    /// Samples and families so far, and bytes of the labels of all of them.
    samples: usize,
    label_bytes: usize,
}

impl Reader {
    fn family(&mut self, message: &[u8]) -> Result<(), PushError> {
        let mut metrics = Vec::new();
        for field in Fields::new(message) {
            let field = field.map_err(malformed)?;
            match field.number {
                1 => self.family.name = text(&field)?.to_owned(),
                2 => self.family.help = Some(text(&field)?.to_owned()),
                3 => self.family.kind = Some(kind_of(field.int64().map_err(malformed)?)?),
                4 => metrics.push(field.bytes().map_err(malformed)?),
                _ => {}
            }
        }
        self.family.kind.get_or_insert(FamilyKind::Counter);
        if !self.names.allow_metric(&self.family.name) {
            let name = quote_bytes(&self.family.name);
            return Err(PushError::Protobuf(format!("invalid metric name {name}")));
        }
        check_length("metric name", &self.family.name)?;
        self.grow(1, 0)?;
        metrics
            .into_iter()
            .try_for_each(|metric| self.metric(metric))
    }

    fn metric(&mut self, message: &[u8]) -> Result<(), PushError> {
        if message.len() > limits::METRIC_BYTES_MAX {
            let why = format!("metric of more than {} bytes", limits::METRIC_BYTES_MAX);
            return Err(PushError::Protobuf(why));
        }
        let kind = self.family.kind.unwrap_or_default();
        let wanted = match kind {
            FamilyKind::Gauge => 2,
            FamilyKind::Counter => 3,
            FamilyKind::Summary => 4,
            FamilyKind::Untyped => 5,
            FamilyKind::Histogram => 7,
        };
        let mut labels = Vec::new();
        let mut value = None;
        for field in Fields::new(message) {
            let field = field.map_err(malformed)?;
            match field.number {
                1 => labels.push(self.label(field.bytes().map_err(malformed)?)?),
                6 => self.timestamps |= field.int64().map_err(malformed)? != 0,
                number if number == wanted => value = Some(field.bytes().map_err(malformed)?),
                _ => {}
            }
        }
        if labels.len() > limits::LABELS_MAX {
            let why = format!("more than {} labels", limits::LABELS_MAX);
            return Err(PushError::Protobuf(why));
        }
        let Some(value) = value else {
            self.problem.get_or_insert_with(|| {
                format!(
                    "collected metric {} {{ }} is not a {}",
                    quote_bytes(&self.family.name),
                    kind.as_str().to_uppercase()
                )
            });
            return Ok(());
        };
        let value = match kind {
            FamilyKind::Histogram => histogram(value),
            FamilyKind::Summary => compound(value, (3, 1, 2)),
            _ => single(value),
        };
        let value = value.map_err(malformed)?;
        let samples = match &value {
            Value::Single(_) => 1,
            Value::Compound { bounds, .. } => bounds.len() + 3,
        };
        let bytes = labels.iter().map(|(name, value)| name.len() + value.len());
        self.grow(samples, bytes.sum())?;
        self.family.metrics.push(Metric::new(labels, value));
        Ok(())
    }

    /// Counts samples with `label_bytes` each: buckets share one text of their labels on the wire.
    fn grow(&mut self, samples: usize, label_bytes: usize) -> Result<(), PushError> {
        self.samples += samples;
        self.label_bytes = self
            .label_bytes
            .saturating_add(samples.saturating_mul(label_bytes));
        let (max, bytes_max) = (limits::PUSH_SAMPLES_MAX, limits::EXPOSITION_LABEL_BYTES_MAX);
        if self.samples > max {
            let why = format!("more than {max} samples and families");
            return Err(PushError::Protobuf(why));
        }
        if self.label_bytes > bytes_max {
            let why = format!("labels of all series of more than {bytes_max} bytes");
            return Err(PushError::Protobuf(why));
        }
        Ok(())
    }

    fn label(&self, message: &[u8]) -> Result<(String, String), PushError> {
        let (mut name, mut value) = ("", "");
        for field in Fields::new(message) {
            let field = field.map_err(malformed)?;
            match field.number {
                1 => name = field.text().map_err(malformed)?,
                2 => value = field.text().map_err(malformed)?,
                _ => {}
            }
        }
        if !self.names.allow_label(name) {
            let name = quote_bytes(name);
            return Err(PushError::Protobuf(format!("invalid label name {name}")));
        }
        check_length("label name", name)?;
        check_length("label value", value)?;
        Ok((name.to_owned(), value.to_owned()))
    }
}

fn text<'a>(field: &Field<'a>) -> Result<&'a str, PushError> {
    field.text().map_err(malformed)
}

fn kind_of(number: i64) -> Result<FamilyKind, PushError> {
    match number {
        0 => Ok(FamilyKind::Counter),
        1 => Ok(FamilyKind::Gauge),
        2 => Ok(FamilyKind::Summary),
        3 => Ok(FamilyKind::Untyped),
        4 | 5 => Ok(FamilyKind::Histogram),
        _ => Err(PushError::Protobuf(format!("unknown metric type {number}"))),
    }
}

fn single(message: &[u8]) -> Result<Value, WireError> {
    let mut value = 0.0;
    for field in Fields::new(message) {
        let field = field?;
        if field.number == 1 {
            value = field.double()?;
        }
    }
    Ok(Value::Single(value))
}

/// A histogram, its native buckets among it.
fn histogram(message: &[u8]) -> Result<Value, WireError> {
    let mut value = compound(message, (3, 2, 1))?;
    if let Value::Compound { native, .. } = &mut value {
        *native = native_part(message)?.filter(is_storable).map(Arc::new);
    }
    Ok(value)
}

fn is_storable(histogram: &Histogram) -> bool {
    histogram.size() <= limits::HISTOGRAM_BYTES_MAX
        && crate::histogram::check::check(histogram).is_ok()
}

/// A histogram or summary; `numbers` are the fields of its bounds, and in these of the bound and
/// of the value.
fn compound(message: &[u8], numbers: (u32, u32, u32)) -> Result<Value, WireError> {
    let (mut count, mut count_float, mut sum) = (0.0, 0.0, 0.0);
    let mut bounds = Vec::new();
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => count = field.int64()? as u64 as f64,
            2 => sum = field.double()?,
            4 => count_float = field.double()?,
            number if number == numbers.0 => bounds.push(bound(field.bytes()?, numbers)?),
            _ => {}
        }
    }
    Ok(Value::Compound {
        bounds,
        sum,
        count: if count_float > 0.0 {
            count_float
        } else {
            count
        },
        native: None,
    })
}

fn bound(message: &[u8], (_, place, value): (u32, u32, u32)) -> Result<(f64, f64), WireError> {
    let mut found = (0.0, 0.0);
    let mut float = 0.0;
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            number if number == place => found.0 = field.double()?,
            // A bucket counts in whole numbers, a quantile is a float.
            number if number == value => {
                found.1 = match field.int64() {
                    Ok(count) => count as u64 as f64,
                    Err(_) => field.double()?,
                };
            }
            4 => float = field.double()?,
            _ => {}
        }
    }
    if float > 0.0 {
        found.1 = float;
    }
    Ok(found)
}

fn check_length(what: &str, text: &str) -> Result<(), PushError> {
    let (bytes, max) = (text.len(), limits::LABEL_BYTES_MAX);
    match bytes > max {
        true => Err(PushError::Protobuf(format!(
            "{what} of {bytes} bytes, the limit is {max}"
        ))),
        false => Ok(()),
    }
}

fn malformed(error: WireError) -> PushError {
    match error {
        WireError::Truncated => PushError::Protobuf("unexpected EOF".to_owned()),
        error => PushError::Protobuf(format!("proto: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> GroupingKey {
        GroupingKey::new([("job".to_owned(), "j".to_owned())]).unwrap()
    }

    fn field(number: u8, body: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, body.len() as u8], body].concat()
    }

    fn delimited(message: &[u8]) -> Vec<u8> {
        [&[message.len() as u8], message].concat()
    }

    fn double(number: u8, value: f64) -> Vec<u8> {
        [&[number << 3 | 1][..], &value.to_le_bytes()].concat()
    }

    #[test]
    fn a_gauge_and_a_histogram_are_read() {
        let gauge = [
            field(1, b"g"),
            vec![3 << 3, 1],
            field(4, &field(2, &double(1, -3.0))),
        ];
        let bucket = field(3, &[vec![1 << 3, 2], double(2, 0.5)].concat());
        let histogram = [vec![1 << 3, 7], double(2, 9.5), bucket].concat();
        let histogram = [
            field(1, b"h"),
            vec![3 << 3, 4],
            field(4, &field(7, &histogram)),
        ];
        let body = [delimited(&gauge.concat()), delimited(&histogram.concat())].concat();
        let families = parse_delimited(&body, &key(), Names::Legacy).unwrap();
        let values: Vec<(&str, &str, f64)> = families
            .iter()
            .flat_map(|f| {
                f.samples
                    .iter()
                    .map(|s| (f.name.as_str(), s.suffix, s.value))
            })
            .collect();
        assert_eq!(
            values,
            [
                ("g", "", -3.0),
                ("h", "_bucket", 2.0),
                ("h", "_bucket", 7.0),
                ("h", "_sum", 9.5),
                ("h", "_count", 7.0)
            ]
        );
        let cut = parse_delimited(&body[..body.len() - 3], &key(), Names::Legacy);
        assert_eq!(cut, Err(PushError::Protobuf("unexpected EOF".to_owned())));
    }

    /// Two bytes a bucket, each a series with all labels: 128 GB of them.
    #[test]
    fn what_few_bytes_stand_for_is_bounded() {
        let long = |number: u8, body: &[u8]| {
            let mut out = vec![number << 3 | 2];
            prost::encoding::encode_varint(body.len() as u64, &mut out);
            out.extend(body);
            out
        };
        let label = [long(1, b"l"), long(2, &vec![b'x'; 60_000])].concat();
        let family = |label: &[u8], buckets: usize| {
            let metric = [long(1, label), long(7, &[3 << 3 | 2, 0].repeat(buckets))].concat();
            let family = [long(1, b"h"), vec![3 << 3, 4], long(4, &metric)].concat();
            let mut body = Vec::new();
            prost::encoding::encode_varint(family.len() as u64, &mut body);
            [body, family].concat()
        };
        let refused = |body: &[u8], why: &str| {
            let error = parse_delimited(body, &key(), Names::Legacy);
            assert!(
                matches!(&error, Err(PushError::Protobuf(text)) if text.contains(why)),
                "{error:?}"
            );
        };
        refused(&family(&label, 200_000), "labels of all series");
        let short = [long(1, b"l"), long(2, b"x")].concat();
        refused(&family(&short, 1_000_000), "metric of more than");
        refused(
            &family(&short, 300_000).repeat(4),
            "more than 1000000 samples",
        );
        assert!(parse_delimited(&family(&label, 1), &key(), Names::Legacy).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_delimited(&body, &key(), Names::Utf8);
        }
    }
}
